"""Patterns: which group of neurons each axis of a parameter belongs to, as text and parsed.

    "layers.0.weight": "h1 <- x"
    "conv2.weight": "c2 <- c1 3 3"
    "fc.weight": "y <- (c2 16)"

Left of ``<-`` is written, right is read; ``x -> h`` is the same for a tensor that has its read axes
first. Parentheses are composite axes, bare integers plain axes:

    "(3 heads dim)"  a product, in C order
    "(c0 + c1)"  a direct sum (concatenation)
    "c1^2"  the squared scale

Standard library only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

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

    >>> pattern = parse_pattern("y <- (c2 16)")
    >>> pattern.written, pattern.read
    (((Label(group='y', power=1),),), ((Label(group='c2', power=1), 16),))
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
