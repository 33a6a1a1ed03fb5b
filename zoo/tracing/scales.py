"""Scales of neurons as unknowns of a linear system: which scalings leave a traced network's function unchanged.

Along an axis, a value of the graph is multiplied by `prod_v s_v ** a_v` when the parameters are
scaled by the unknowns `s_v`.
Magnitudes and signs are independent: magnitudes give a system over the rationals, signs one over
    the integers modulo 2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm


@dataclass(frozen=True)
class Scale:
    """Exponents of the unknowns in the scale of a value.

    Attributes:
        magnitude: Exponent of each unknown's magnitude.
        sign: Unknowns whose sign the value takes.
        free: Whether any scale would do, as for a value that is zero.
    """

    magnitude: Mapping[int, Fraction] = field(default_factory=dict)
    sign: frozenset[int] = frozenset()
    free: bool = False

    def __add__(self, other: "Scale") -> "Scale":
        if self.free or other.free:
            return FREE
        total = {
            v: self.magnitude.get(v, Fraction(0)) + other.magnitude.get(v, Fraction(0))
            for v in self.unknowns(other)
        }
        return Scale({v: a for v, a in total.items() if a}, self.sign ^ other.sign)

    def __mul__(self, power: Fraction | int) -> "Scale":
        """The scale of the value raised to a power; an even power, or one that is no integer, has no sign."""
        if self.free and power > 0:
            return self
        odd = Fraction(power).denominator == 1 and int(power) % 2
        magnitude = {v: a * power for v, a in self.magnitude.items() if power}
        return Scale(magnitude, self.sign if odd else frozenset())

    def unknowns(self, other: "Scale") -> list[int]:
        """All unknowns of two scales."""
        return sorted({*self.magnitude, *other.magnitude})


FREE = Scale(free=True)
ONE = Scale()


def unknown(index: int) -> Scale:
    """The scale that is one unknown."""
    return Scale({index: Fraction(1)}, frozenset({index}))


class Equations:
    """Conditions that the unknowns must meet."""

    def __init__(self):
        self.magnitudes: list[Mapping[int, Fraction]] = []
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
        self.vanish(one + Scale({v: -a for v, a in other.magnitude.items()}, other.sign))
        return one

    def cancel(self, one: Scale, other: Scale) -> Scale:
        """Demand that the product of two scales is 1."""
        return ONE if one.free or other.free else self.vanish(one + other)


def solve(
    unknowns: Sequence[int], equations: Equations, preferred: Iterable[int]
) -> tuple[str, dict[int, int]]:
    """One-parameter subgroup of the scalings of a neuron: exponents of the unknowns, and which scales are allowed.

    The solutions fall into components that share no unknown. Of each component one solution is
    taken: the one whose first preferred unknown, in the given order, has exponent 1 (or the
    smallest integer) while later independent ones have 0.

    Args:
        unknowns: The unknowns of one neuron group, in the order of the graph.
        equations: Conditions; those on other unknowns are ignored.
        preferred: Unknowns that should scale if they can, most wanted first; the others follow.

    Returns:
        The scaling of the group, and the exponent of each unknown.
    """
    own = set(unknowns)
    order = [*(v for v in preferred if v in own), *(v for v in unknowns if v not in set(preferred))]
    magnitudes = [row for row in equations.magnitudes if own & row.keys()]
    signs = [row for row in equations.signs if own & row]
    solution = dict.fromkeys(unknowns, 0)
    for vector in _components(_null_space(order, magnitudes)):
        solution |= _integers(vector)
    if any(solution.values()):
        odd = {v for v, a in solution.items() if a % 2}
        return ("positive" if any(len(row & odd) % 2 for row in signs) else "any"), solution
    for vector in _components(_null_space_mod2(order, signs)):
        solution |= dict.fromkeys(vector, 1)
    return ("sign" if any(solution.values()) else "none"), solution


def _null_space(
    order: Sequence[int], rows: list[Mapping[int, Fraction]]
) -> list[dict[int, Fraction]]:
    """Basis of the solutions; each vector has one free unknown at 1, pivots are taken as late in the order as possible."""
    pivots: dict[int, dict[int, Fraction]] = {}
    rank = {v: i for i, v in enumerate(order)}
    for given in rows:
        row = {v: a for v, a in given.items() if a}
        for pivot, known in pivots.items():
            if factor := row.get(pivot):
                row = _plus(row, known, -factor)
        if row:
            last = max(row, key=rank.__getitem__)
            row = {v: a / row[last] for v, a in row.items()}
            for pivot, known in pivots.items():
                if factor := known.get(last):
                    pivots[pivot] = _plus(known, row, -factor)
            pivots[last] = row
    free = [v for v in order if v not in pivots]
    return [{v: Fraction(1)} | {p: -row[v] for p, row in pivots.items() if v in row} for v in free]


def _plus(
    row: Mapping[int, Fraction], other: Mapping[int, Fraction], factor: Fraction
) -> dict[int, Fraction]:
    total = {
        v: row.get(v, Fraction(0)) + factor * other.get(v, Fraction(0)) for v in {**row, **other}
    }
    return {v: a for v, a in total.items() if a}


def _null_space_mod2(order: Sequence[int], rows: list[frozenset[int]]) -> list[dict[int, Fraction]]:
    pivots: dict[int, frozenset[int]] = {}
    rank = {v: i for i, v in enumerate(order)}
    for given in rows:
        row = given
        for pivot, known in pivots.items():
            row = row ^ known if pivot in row else row
        if row:
            last = max(row, key=rank.__getitem__)
            pivots = {p: known ^ row if last in known else known for p, known in pivots.items()}
            pivots[last] = row
    free = [v for v in order if v not in pivots]
    return [
        {v: Fraction(1)} | {p: Fraction(1) for p, row in pivots.items() if v in row} for v in free
    ]


def _components(basis: list[dict[int, Fraction]]) -> list[dict[int, Fraction]]:
    """The first vector of each set of vectors that are linked by common unknowns."""
    chosen: list[dict[int, Fraction]] = []
    linked: list[set[int]] = []
    for vector in basis:
        touching = [i for i, seen in enumerate(linked) if seen & vector.keys()]
        if not touching:
            chosen.append(vector)
            linked.append(set(vector))
        else:
            linked[touching[0]] |= set(vector)
    return _disjoint(chosen)


def _disjoint(vectors: list[dict[int, Fraction]]) -> list[dict[int, Fraction]]:
    taken: set[int] = set()
    kept = []
    for vector in vectors:
        if not taken & vector.keys():
            kept.append(vector)
            taken |= vector.keys()
    return kept


def _integers(vector: Mapping[int, Fraction]) -> dict[int, int]:
    common = lcm(*(a.denominator for a in vector.values()))
    whole = {v: int(a * common) for v, a in vector.items()}
    divisor = gcd(*whole.values())
    return {v: a // divisor for v, a in whole.items()}
