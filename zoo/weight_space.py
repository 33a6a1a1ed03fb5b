"""Symbolic weight spaces: which axis of which parameter belongs to which group of neurons.

A weight space is data. It names the neuron groups of an architecture and, for every parameter
tensor, a pattern such as ``"h1 <- x"``. Group action, canonical form, alignment, parameter graphs
and statistics are derived from it elsewhere. Standard library only.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal, get_args

from zoo.pattern import Axis, Factor, Label, Pattern, parse_pattern

Scaling = Literal["none", "sign", "positive", "any"]


@dataclass(frozen=True)
class NeuronGroup:
    """A set of neurons (or channels) that appear together as an axis of one or more tensors.

    Attributes:
        size: Number of neurons.
        permutable: Whether any permutation of the group leaves the network's function unchanged.
        scaling: Scales of single neurons that leave the function unchanged; ``s`` acts where the
            group is written, ``1/s`` where it is read.
        activation: Name of the elementwise non-linearity that follows the group, ``"linear"`` if
            none does.
    """

    size: int
    permutable: bool = True
    scaling: Scaling = "none"
    activation: str = "linear"

    @property
    def may_flip(self) -> bool:
        """Whether the sign of single neurons may change."""
        return self.scaling in ("sign", "any")

    @property
    def may_stretch(self) -> bool:
        """Whether single neurons have positive scales."""
        return self.scaling in ("positive", "any")

    def __post_init__(self):
        """Check the fields.

        Raises:
            ValueError: If the size is not a positive integer, the scaling is unknown, or another
                field has the wrong type.
        """
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"size of a neuron group: expected an integer >= 1, got {self.size!r}")
        if self.scaling not in get_args(Scaling):
            raise ValueError(
                f"scaling of a neuron group: expected one of {get_args(Scaling)}, "
                f"got {self.scaling!r}"
            )
        if not isinstance(self.permutable, bool) or not isinstance(self.activation, str):
            raise ValueError(
                "a neuron group: expected permutable as a boolean and activation as text, "
                f"got {self.permutable!r} and {self.activation!r}"
            )


@dataclass(frozen=True, eq=False)
class WeightSpace:
    """The symbolic description of an architecture's parameters.

    The symmetry it declares is a sound subgroup of the architecture's symmetries, never a claim of
    completeness.

    Attributes:
        groups: Neuron groups by name.
        tensors: Pattern of each parameter by its state-dict name, in state-dict order; blanks and
            superfluous parentheses go.

    >>> groups = {"x": NeuronGroup(4, permutable=False), "h": NeuronGroup(3)}
    >>> space = WeightSpace(groups, {"weight": "h <- x", "bias": "h"})
    >>> space.shapes["weight"], space.num_params
    ((3, 4), 15)
    """

    groups: Mapping[str, NeuronGroup]
    tensors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        """Freeze the mappings and check every pattern against the groups.

        Raises:
            ValueError: If a pattern does not parse or names an unknown group.
        """
        _check_types("groups", self.groups, NeuronGroup)
        _check_types("tensors", self.tensors, str)
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        canonical = {}
        for name, text in self.tensors.items():
            pattern = parse_pattern(text)
            canonical[name] = str(pattern)
            for label in pattern.labels:
                if label.group not in self.groups:
                    raise ValueError(
                        f"axis {label.group!r} in pattern {text!r} of tensor {name!r} is not a "
                        f"neuron group; groups are {sorted(self.groups)}"
                    )
        object.__setattr__(self, "tensors", MappingProxyType(canonical))

    def pattern(self, tensor: str) -> Pattern:
        """The parsed pattern of one tensor.

        Args:
            tensor: Name of a parameter.

        Returns:
            The parsed pattern.

        Raises:
            ValueError: If the space has no such tensor.
        """
        if tensor not in self.tensors:
            raise ValueError(
                f"no tensor {tensor!r} in this weight space; tensors are {list(self.tensors)}"
            )
        return parse_pattern(self.tensors[tensor])

    def size(self, axis: Axis) -> int:
        """Length of an axis: the product of the sizes of its factors."""
        return math.prod(map(self._factor_size, axis))

    def _factor_size(self, factor: Factor) -> int:
        if isinstance(factor, Label):
            return self.groups[factor.group].size
        return factor if isinstance(factor, int) else sum(map(self.size, factor.terms))

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor, without leading axes."""
        return MappingProxyType(
            {n: tuple(self.size(axis) for axis in self.pattern(n).axes) for n in self.tensors}
        )

    @cached_property
    def num_params(self) -> int:
        """Number of scalar parameters, fixed ones included."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def to_json(self) -> str:
        """The space as JSON text: the same text for equal spaces."""
        groups = {name: asdict(group) for name, group in self.groups.items()}
        return json.dumps({"groups": groups, "tensors": dict(self.tensors)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "WeightSpace":
        """Read a space from the text that `to_json` wrote.

        Args:
            text: JSON text.

        Returns:
            The space.

        Raises:
            ValueError: If the text is not JSON, or not a weight space.
        """
        data = json.loads(text)
        try:
            groups = {name: NeuronGroup(**group) for name, group in data["groups"].items()}
            return cls(groups, data["tensors"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the JSON of a weight space: {error!r}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON text, hexadecimal: the identity of the space across files."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __reduce__(
        self,
    ) -> tuple[type["WeightSpace"], tuple[dict[str, NeuronGroup], dict[str, str]]]:
        # Mapping proxies cannot be pickled.
        return WeightSpace, (dict(self.groups), dict(self.tensors))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightSpace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())


def _check_types(what: str, mapping: object, kind: type) -> None:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{what} of a weight space: expected a mapping, got {mapping!r:.200}")
    for name, value in mapping.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise ValueError(
                f"{what} of a weight space: expected names and {kind.__name__}, "
                f"got {name!r:.200}: {value!r:.200}"
            )
