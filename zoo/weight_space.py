"""Symbolic weight spaces: which axis of which parameter belongs to which group of neurons.

A weight space is data. It names the neuron groups of an architecture and, for every parameter tensor, a *pattern*:

    "layers.0.weight": "h1 <- x"        "conv2.weight": "c2 <- c1 3 3"        "fc.weight": "y <- (c2 16)"

Left of ``<-`` is written, right is read. Parentheses are composite axes, bare integers plain axes. Group action, canonical
form, alignment, parameter graphs and statistics are derived from it elsewhere. Standard library only.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Literal, NoReturn, get_args

Scaling = Literal["none", "sign", "positive", "any"]
Factor = str | int
Axis = tuple[Factor, ...]

_TOKEN = re.compile(r"\s*(?:(?P<arrow><-)|(?P<paren>[()])|(?P<int>\d+)(?![\w.])|(?P<name>[A-Za-z_][\w.]*))")


@dataclass(frozen=True)
class NeuronGroup:
    """A set of neurons (or channels) that appear together as an axis of one or more tensors.

    Attributes:
        size: Number of neurons.
        permutable: Whether any permutation of the group leaves the network's function unchanged.
        scaling: Scales of single neurons that leave the function unchanged; ``s`` acts where the group is written, ``1/s``
            where it is read.
        activation: Name of the elementwise non-linearity that follows the group, ``"linear"`` if none does.
    """

    size: int
    permutable: bool = True
    scaling: Scaling = "none"
    activation: str = "linear"

    def __post_init__(self):
        """Check the fields.

        Raises:
            ValueError: If the size is not a positive integer, the scaling is unknown, or another field has the wrong type.
        """
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"size of a neuron group: expected an integer >= 1, got {self.size!r}")
        if self.scaling not in get_args(Scaling):
            raise ValueError(f"scaling of a neuron group: expected one of {get_args(Scaling)}, got {self.scaling!r}")
        if not isinstance(self.permutable, bool) or not isinstance(self.activation, str):
            raise ValueError(
                "a neuron group: expected permutable as a boolean and activation as text, "
                f"got {self.permutable!r} and {self.activation!r}"
            )


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern: the axes of a tensor, written ones first, each a tuple of factors (group names or integers)."""

    written: tuple[Axis, ...]
    read: tuple[Axis, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes in the order in which the tensor has them."""
        return self.written + self.read


@lru_cache(maxsize=4096)
def parse_pattern(text: str) -> Pattern:
    """Parse a pattern such as ``"y <- (c2 16)"``.

    Args:
        text: Axes that are written, then optionally ``<-`` and axes that are read.

    Returns:
        The parsed pattern.

    Raises:
        ValueError: If the text is not a pattern; the message shows where.

    >>> parse_pattern("y <- (c2 16)")
    Pattern(written=(('y',),), read=(('c2', 16),))
    """
    sides: list[list[Axis]] = [[]]
    composite: list[Factor] | None = None
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(text, position, "expected a group name, an integer, '(', ')' or '<-'")
        token, kind = match.group(match.lastgroup or 0), match.lastgroup
        if kind == "arrow":
            if len(sides) == 2 or composite is not None:
                _refuse(text, position, "'<-' may stand once, outside parentheses")
            sides.append([])
        elif token == "(":
            if composite is not None:
                _refuse(text, position, "parentheses do not nest")
            composite = []
        elif token == ")":
            if not composite:
                _refuse(text, position, "')' must close a '(' with at least one factor")
            sides[-1].append(tuple(composite))
            composite = None
        else:
            factor = int(token) if kind == "int" else token
            if factor == 0:
                _refuse(text, position, "sizes are >= 1")
            if composite is None:
                sides[-1].append((factor,))
            else:
                composite.append(factor)
        position = match.end()
    if composite is not None:
        _refuse(text, len(text), "'(' is never closed")
    if not sides[0]:
        _refuse(text, 0, "a tensor writes at least one axis")
    return Pattern(tuple(sides[0]), tuple(sides[1]) if len(sides) == 2 else ())


def _refuse(text: str, position: int, why: str) -> NoReturn:
    raise ValueError(f"pattern {text!r}, at character {position}: {why}")


@dataclass(frozen=True, eq=False)
class WeightSpace:
    """The symbolic description of an architecture's parameters.

    The symmetry it declares is a sound subgroup of the architecture's symmetries, never a claim of completeness.

    Attributes:
        groups: Neuron groups by name.
        tensors: Pattern of each parameter by its state-dict name, in state-dict order.

    >>> space = WeightSpace({"x": NeuronGroup(4, permutable=False), "h": NeuronGroup(3)}, {"weight": "h <- x", "bias": "h"})
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
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        for name, text in self.tensors.items():
            for factor in (factor for axis in parse_pattern(text).axes for factor in axis):
                if isinstance(factor, str) and factor not in self.groups:
                    raise ValueError(
                        f"axis {factor!r} in pattern {text!r} of tensor {name!r} is not a neuron group; "
                        f"groups are {sorted(self.groups)}"
                    )

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
            raise ValueError(f"no tensor {tensor!r} in this weight space; tensors are {list(self.tensors)}")
        return parse_pattern(self.tensors[tensor])

    def size(self, axis: Axis) -> int:
        """Length of an axis: the product of the sizes of its factors."""
        return math.prod(factor if isinstance(factor, int) else self.groups[factor].size for factor in axis)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor, without leading axes."""
        return MappingProxyType({n: tuple(self.size(axis) for axis in self.pattern(n).axes) for n in self.tensors})

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

    def __reduce__(self) -> tuple[type["WeightSpace"], tuple[dict[str, NeuronGroup], dict[str, str]]]:
        return WeightSpace, (dict(self.groups), dict(self.tensors))  # mapping proxies cannot be pickled

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightSpace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())
