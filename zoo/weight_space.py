"""Symbolic weight spaces: which axis of which parameter belongs to which group of neurons.

A weight space is data. It names the neuron groups of an architecture and, for every parameter
tensor, a *pattern*:

    "layers.0.weight": "h1 <- x"
    "conv2.weight": "c2 <- c1 3 3"
    "fc.weight": "y <- (c2 16)"

Left of ``<-`` is written, right is read; ``x -> h`` is the same for a tensor that has its read axes
first. Parentheses are composite axes, bare integers plain axes:

    "(3 heads dim)"  a product, in C order
    "(c0 + c1)"  a direct sum (concatenation)
    "c1^2"  the squared scale

Group action, canonical form, alignment, parameter graphs and statistics are derived from it
elsewhere. Standard library only.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Literal, NoReturn, get_args

Scaling = Literal["none", "sign", "positive", "any"]

_TOKEN = re.compile(
    r"(?:(?P<arrow><-|->)|(?P<open>\()|(?P<close>\))|(?P<plus>\+)|(?P<int>\d+)(?![\w.^])"
    r"|(?P<name>[A-Za-z_][\w.]*)(?:\^(?P<power>-?\d+)(?![\w.]))?)"
)


@dataclass(frozen=True)
class Label:
    """A neuron group on an axis, and the power of its scale that acts there: 2 in `h^2`."""

    group: str
    power: int = 1

    def __str__(self) -> str:
        return self.group if self.power == 1 else f"{self.group}^{self.power}"


@dataclass(frozen=True)
class Sum:
    """A direct sum, as concatenation lays it out: products of factors one after another."""

    terms: tuple[tuple["Factor", ...], ...]

    def __str__(self) -> str:
        return f"({' + '.join(' '.join(map(str, term)) for term in self.terms)})"


Factor = int | Label | Sum
Axis = tuple[Factor, ...]


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


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern.

    Attributes:
        written: Axes that the tensor writes, each a product of factors in C order.
        read: Axes that it reads.
        read_first: Whether the tensor has its read axes before its written ones (``x -> h``).
    """

    written: tuple[Axis, ...]
    read: tuple[Axis, ...] = ()
    read_first: bool = False

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes in the order in which the tensor has them."""
        return self.read + self.written if self.read_first else self.written + self.read

    @property
    def powers(self) -> tuple[int, ...]:
        """For each of `axes`, 1 if scales act on it and -1 if their reciprocals do."""
        written, read = (1,) * len(self.written), (-1,) * len(self.read)
        return read + written if self.read_first else written + read

    @property
    def labels(self) -> list[Label]:
        """Labels of all axes, in the order in which the tensor has them."""
        return [label for axis in self.axes for label in labels(axis)]

    def __str__(self) -> str:
        written, read = (" ".join(map(_axis_text, side)) for side in (self.written, self.read))
        if not self.read:
            return written
        return f"{read} -> {written}" if self.read_first else f"{written} <- {read}".lstrip()


def _axis_text(axis: Axis) -> str:
    text = " ".join(map(str, axis))
    return text if len(axis) == 1 else f"({text})"


def labels(axis: Axis) -> Iterator[Label]:
    """All labels of an axis, in the order in which its pattern names them."""
    for factor in axis:
        if isinstance(factor, Label):
            yield factor
        elif isinstance(factor, Sum):
            for term in factor.terms:
                yield from labels(term)


@lru_cache(maxsize=4096)
def parse_pattern(text: str) -> Pattern:
    """Parse a pattern such as ``"y <- (c2 16)"``.

    Args:
        text: Axes that are written, then optionally ``<-`` and axes that are read; or axes that are
            read, ``->`` and axes that are written. Empty for a scalar.

    Returns:
        The parsed pattern.

    Raises:
        ValueError: If the text is not a pattern; the message shows where.

    >>> parse_pattern("y <- (c2 16)")
    Pattern(written=((Label(group='y', power=1),),), read=((Label(group='c2', power=1), 16),),
    read_first=False)
    """
    reader = _PatternReader(text)
    position = 0
    while rest := text[position:].lstrip():
        position = len(text) - len(rest)
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(
                text, position, "expected a group name, an integer, '(', ')', '+', '<-' or '->'"
            )
        reader.take(match)
        position = match.end()
    return reader.pattern()


class _PatternReader:
    """What has been read of a pattern: its sides, and the parentheses that are open."""

    def __init__(self, text: str):
        self.text = text
        self.arrow: str | None = None
        self.sides: list[list[Axis]] = [[]]
        self.open: list[list[list[Factor]]] = []  # one list of terms for each open parenthesis

    def take(self, match: re.Match[str]) -> None:
        """Read one token."""
        kind, token, position = match.lastgroup, match.group(), match.start()
        if kind == "arrow":
            if self.arrow is not None or self.open:
                _refuse(self.text, position, "an arrow may stand once, outside parentheses")
            self.arrow = token
            self.sides.append([])
        elif kind == "open":
            self.open.append([[]])
        elif kind in ("plus", "close"):
            if not self.open or not self.open[-1][-1]:
                why = f"{token!r} must follow a factor inside parentheses"
                _refuse(self.text, position, why)
            if kind == "plus":
                self.open[-1].append([])
            else:
                self.add(_closed(self.open.pop()))
        else:
            self.add([_factor(self.text, position, match)])

    def add(self, factors: list[Factor]) -> None:
        """Put factors into the innermost parenthesis, or make an axis of them outside."""
        if self.open:
            self.open[-1][-1].extend(factors)
        else:
            self.sides[-1].append(tuple(factors))

    def pattern(self) -> Pattern:
        """The pattern, at the end of the text."""
        if self.open:
            _refuse(self.text, len(self.text), "'(' is never closed")
        first, second = tuple(self.sides[0]), tuple(self.sides[-1]) if self.arrow else ()
        if self.arrow == "->":
            return Pattern(second, first, read_first=bool(first))
        return Pattern(first, second)


def _factor(text: str, position: int, match: re.Match[str]) -> Factor:
    if match["int"] is None:
        return Label(match["name"], int(match["power"] or 1))
    if int(match["int"]) == 0:
        _refuse(text, position, "sizes are >= 1")
    return int(match["int"])


def _closed(terms: list[list[Factor]]) -> list[Factor]:
    """The factors that a closed parenthesis stands for."""
    return terms[0] if len(terms) == 1 else [Sum(tuple(map(tuple, terms)))]


def _refuse(text: str, position: int, why: str) -> NoReturn:
    raise ValueError(f"pattern {text!r}, at character {position}: {why}")


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
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        for name, text in self.tensors.items():
            for label in parse_pattern(text).labels:
                if label.group not in self.groups:
                    raise ValueError(
                        f"axis {label.group!r} in pattern {text!r} of tensor {name!r} is not a "
                        f"neuron group; groups are {sorted(self.groups)}"
                    )
        canonical = {name: str(parse_pattern(text)) for name, text in self.tensors.items()}
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
