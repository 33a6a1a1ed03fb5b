"""Scales of neurons as unknowns of a linear system: which of them leave a function unchanged.

Along an axis, a value of the graph is multiplied by `prod_v s_v ** a_v` when the parameters are
scaled by the unknowns `s_v`. Magnitudes and signs are independent: magnitudes give a system over
the rationals, signs one over the integers modulo 2.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd, lcm

from zoo.weight_space import Scaling

Row = Mapping[int, Fraction]
ZERO, UNIT = Fraction(0), Fraction(1)


@dataclass(frozen=True)
class Scale:
    """Exponents of the unknowns in the scale of a value.

    Attributes:
        magnitude: Exponent of each unknown's magnitude.
        sign: Unknowns whose sign the value takes.
        free: Whether any scale would do, as for a value that is zero.
    """

    magnitude: Row = field(default_factory=dict)
    sign: frozenset[int] = frozenset()
    free: bool = False

    def __add__(self, other: "Scale") -> "Scale":
        if self.free or other.free:
            return FREE
        return Scale(_plus(self.magnitude, other.magnitude), self.sign ^ other.sign)

    def __mul__(self, power: Fraction | int) -> "Scale":
        """The scale of a power of the value; only odd powers keep the sign."""
        if self.free and power > 0:
            return self
        odd = Fraction(power).denominator == 1 and int(power) % 2
        magnitude = {v: a * power for v, a in self.magnitude.items() if power}
        return Scale(magnitude, self.sign if odd else frozenset())


FREE = Scale(free=True)
ONE = Scale()


def unknown(index: int) -> Scale:
    """The scale that is one unknown."""
    return Scale({index: Fraction(1)}, frozenset({index}))


def unsigned(scale: Scale) -> Scale:
    """The scale of an absolute value."""
    return replace(scale, sign=frozenset())


class Equations:
    """Conditions that the unknowns must meet."""

    def __init__(self):
        self.magnitudes: list[Row] = []
        self.signs: list[frozenset[int]] = []

    def vanish_magnitude(self, scale: Scale) -> Scale:
        """Demand magnitude 1; returns what remains."""
        if scale.magnitude:
            self.magnitudes.append(scale.magnitude)
        return scale if scale.free else Scale({}, scale.sign)

    def vanish_sign(self, scale: Scale) -> Scale:
        """Demand a positive scale; returns what remains."""
        if scale.sign:
            self.signs.append(scale.sign)
        return scale if scale.free else Scale(scale.magnitude)

    def vanish(self, scale: Scale) -> Scale:
        """Demand scale 1; returns it."""
        self.vanish_sign(self.vanish_magnitude(scale))
        return ONE

    def equal(self, one: Scale, other: Scale) -> Scale:
        """Demand that two scales agree; returns it."""
        if one.free or other.free:
            return other if one.free else one
        self.vanish(one + other * -1)
        return one

    def cancel(self, one: Scale, other: Scale) -> Scale:
        """Demand that the product of two scales is 1."""
        return ONE if one.free or other.free else self.vanish(one + other)


def solve(
    unknowns: Sequence[int], equations: Equations, preferred: Iterable[int]
) -> tuple[Scaling, dict[int, int]]:
    """One-parameter subgroup of the scalings of a neuron: the exponents of the unknowns.

    The solutions fall into components that share no unknown. Of each component one solution is
    taken: the one whose first preferred unknown, in the given order, has exponent 1 (or the
    smallest integer) while later independent ones have 0.

    Args:
        unknowns: The unknowns of one neuron group, in the order of the graph.
        equations: Conditions; those on other unknowns are ignored.
        preferred: Those of them that should scale if they can, most wanted first.

    Returns:
        The scaling of the group, and the exponent of each unknown.
    """
    members, order = set(unknowns), list(dict.fromkeys([*preferred, *unknowns]))
    magnitudes = [row for row in equations.magnitudes if members & row.keys()]
    signs = [row for row in equations.signs if members & row]
    exponents = dict.fromkeys(unknowns, 0)
    for vector in _unlinked(_null_space(order, magnitudes)):
        exponents |= _integers(vector)
    if not any(exponents.values()):
        return _solve_signs(order, signs, exponents)
    odd = {v for v, a in exponents.items() if a % 2}
    return ("positive" if any(len(row & odd) % 2 for row in signs) else "any"), exponents


def _solve_signs(
    order: Sequence[int], signs: Iterable[frozenset[int]], exponents: dict[int, int]
) -> tuple[Scaling, dict[int, int]]:
    """The subgroup where no magnitude scales: exponents are 1 for unknowns with a sign."""
    parities = [dict.fromkeys(row, UNIT) for row in signs]
    for vector in _unlinked(_null_space(order, parities, modulus=2)):
        exponents = exponents | dict.fromkeys(vector, 1)
    return ("sign" if any(exponents.values()) else "none"), exponents


def _null_space(
    order: Sequence[int], rows: Iterable[Row], modulus: int | None = None
) -> list[dict[int, Fraction]]:
    """Basis of the solutions, each vector with one free unknown at 1."""
    pivots = _eliminated(order, rows, modulus)
    free = [v for v in order if v not in pivots]
    return [{v: UNIT} | {p: -row[v] for p, row in pivots.items() if v in row} for v in free]


def _eliminated(order: Sequence[int], rows: Iterable[Row], modulus: int | None) -> dict[int, Row]:
    """The reduced rows by their pivots, over the rationals or modulo a prime."""
    # Pivots are taken as late in the order as possible.
    pivots: dict[int, Row] = {}
    rank = {v: i for i, v in enumerate(order)}
    for given in rows:
        row = given
        for pivot, reduced in pivots.items():
            row = _plus(row, reduced, -row.get(pivot, ZERO), modulus)
        if row:
            last = max(row, key=rank.__getitem__)
            pivots = {
                pivot: _plus(reduced, row, -reduced.get(last, ZERO) / row[last], modulus)
                for pivot, reduced in pivots.items()
            }
            pivots[last] = {v: a / row[last] for v, a in row.items()}
    return pivots


def _plus(row: Row, other: Row, factor: Fraction = UNIT, modulus: int | None = None) -> Row:
    """`row + factor * other`, without zeros."""
    if not factor or not other:
        return row
    total = dict(row)
    for v, a in other.items():
        total[v] = total.get(v, ZERO) + factor * a
        total[v] = total[v] % modulus if modulus else total[v]
    return {v: a for v, a in total.items() if a}


def _unlinked(basis: Iterable[dict[int, Fraction]]) -> Iterator[dict[int, Fraction]]:
    """The vectors that share no unknown with one before them."""
    before: set[int] = set()
    for vector in basis:
        if before.isdisjoint(vector):
            yield vector
        before |= vector.keys()


def _integers(vector: Row) -> dict[int, int]:
    """The smallest integers in the same proportions."""
    common = lcm(*(a.denominator for a in vector.values()))
    whole = {v: int(a * common) for v, a in vector.items()}
    divisor = gcd(*whole.values())
    return {v: a // divisor for v, a in whole.items()}
