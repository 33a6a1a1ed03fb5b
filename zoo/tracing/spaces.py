"""A weight space from what the rules found out: names for atoms, roles for axes, scalings."""

from collections.abc import Iterator, Mapping, Sequence

from zoo.pattern import Axis, Factor, Label, Pattern, Sum
from zoo.tracing.dims import Atom, Cat, Dim, Leaf, leaves, resolve, size
from zoo.tracing.graph_run import Unknown
from zoo.tracing.propagate import Analysis
from zoo.tracing.scales import Equations, solve
from zoo.tracing.scales import unknown as unknown_scale
from zoo.weight_space import NeuronGroup, Scaling, WeightSpace

Solution = tuple[Scaling, dict[int, int]]


def build_space(analysis: Analysis, statistics: frozenset[str]) -> WeightSpace:
    """Write a weight space down.

    Neurons without a symmetry become a fixed group if they fill an axis, `x` for the inputs, `y`
    for the outputs; positions become plain axes. Of the factors of a product axis, such as heads
    and what is in a head, only the last that can scales. Groups are numbered in the order of the
    parameters.

    Args:
        analysis: What the rules found out.
        statistics: Running statistics: they scale only if nothing scales without them.

    Returns:
        The space.
    """
    return _Builder(analysis, statistics).build()


class _Builder:
    def __init__(self, analysis: Analysis, statistics: frozenset[str]):
        self.analysis = analysis
        self.statistics = statistics
        self.groups: dict[str, NeuronGroup] = {}
        self.free: dict[Atom, str] = {}
        self.fixed: dict[tuple[Atom | int, ...], str] = {}
        by_atom: dict[Atom, list[Unknown]] = {}
        for unknown in analysis.unknowns:
            by_atom.setdefault(unknown.atom, []).append(unknown)
        self.solutions = {atom: self._solve(unknowns) for atom, unknowns in by_atom.items()}
        for dims in analysis.dims.values():
            for dim in dims:
                _scale_innermost(dim, self.solutions)

    def build(self) -> WeightSpace:
        dims = self.analysis.dims
        return WeightSpace(
            self.groups, {name: str(self._pattern(name, dims[name])) for name in dims}
        )

    def _power(self, unknown: Unknown) -> int:
        """The power of its scale by which a place scales; where it is read, the inverse."""
        scaling, powers = self.solutions[unknown.atom]
        if scaling == "none":
            return 1
        power = powers[unknown.index] * (-1 if self._is_read(unknown) else 1)
        return power % 2 if scaling == "sign" else power

    def _is_read(self, unknown: Unknown) -> bool:
        return unknown.axis in self._reads(unknown.parameter)

    def _reads(self, parameter: str) -> set[int]:
        return self.analysis.context.reads.get(parameter, ("", set()))[1]

    def _solve(self, unknowns: Sequence[Unknown]) -> Solution:
        written = [
            u.index for u in unknowns if not self._is_read(u) and u.parameter not in self.statistics
        ]
        indices, equations = [u.index for u in unknowns], self.analysis.context.equations
        still = Equations()
        for unknown in unknowns:
            if unknown.parameter in self.statistics:
                still.vanish(unknown_scale(unknown.index))
        still.magnitudes += equations.magnitudes
        still.signs += equations.signs
        scaling = solve(indices, still, written)
        return scaling if scaling[0] != "none" else solve(indices, equations, written)

    def _pattern(self, name: str, dims: Sequence[Dim]) -> Pattern:
        reads = self._reads(name)
        axes = [self._axis(name, i, resolve(dim)) for i, dim in enumerate(dims)]
        neurons = [i for i, axis in enumerate(axes) if not all(isinstance(f, int) for f in axis)]
        if name in self.analysis.context.operands and not reads.intersection(neurons):
            reads = _single_entries(axes, first_is_written=not neurons)
            neurons = sorted({*neurons, *reads})
        return _two_sided(axes, {i: i in reads for i in neurons})

    def _axis(self, name: str, axis: int, dim: Dim) -> Axis:
        atoms = [leaf.atom for leaf in leaves(dim)]
        if not all(atom.fixed for atom in atoms):
            unknowns = [u for u in self.analysis.unknowns if (u.parameter, u.axis) == (name, axis)]
            return self._product(dim, iter(unknowns))
        plain = all(atom.plain for atom in atoms)
        return (size(dim) if plain else Label(self._fixed_group(atoms, size(dim))),)

    def _product(self, dim: Dim, unknowns: Iterator[Unknown]) -> Axis:
        """An axis with free neurons; the unknowns of its places come in their order."""
        out: list[Factor] = []
        for factor in dim:
            if isinstance(factor, Leaf) and not factor.atom.fixed:
                unknown = next(u for u in unknowns if u.atom is factor.atom)
                out.append(Label(self._free_group(factor.atom), self._power(unknown)))
            elif isinstance(factor, Cat):
                out += _total([self._product(part, unknowns) or (1,) for part in factor.parts])
            else:
                out.append(size((factor,)))
        return _merged(out)

    def _free_group(self, atom: Atom) -> str:
        if atom not in self.free:
            self.free[atom] = f"h{len(self.free) + 1}"
            names = self.analysis.context.activations.get(atom, set())
            activation = next(iter(names)) if len(names) == 1 else "linear"
            scaling = self.solutions[atom][0]
            self.groups[self.free[atom]] = NeuronGroup(atom.size, True, scaling, activation)
        return self.free[atom]

    def _fixed_group(self, atoms: Sequence[Atom], length: int) -> str:
        key = (length, *atoms)
        if key not in self.fixed:
            ends = {"x": self.analysis.inputs, "y": self.analysis.outputs}
            stem = next((e for e, end in ends.items() if not end.isdisjoint(atoms)), "f")
            count = sum(name.startswith(stem) for name in self.fixed.values())
            self.fixed[key] = stem + (str(count + 1) if count else "")
            self.groups[self.fixed[key]] = NeuronGroup(length, permutable=False)
        return self.fixed[key]


def _scale_innermost(dim: Dim, scalings: dict[Atom, Solution]) -> None:
    """Let only the innermost factor of a product scale: others would say its scales twice."""
    for i, factor in enumerate(dim):
        if isinstance(factor, Cat):
            for part in factor.parts:
                _scale_innermost(part, scalings)
        elif isinstance(factor, Leaf) and factor.atom in scalings:
            inner = [leaf.atom for leaf in leaves(dim[i + 1 :])]
            if any(scalings[atom][0] != "none" for atom in inner if atom in scalings):
                scalings[factor.atom] = ("none", {})


def _two_sided(axes: Sequence[Axis], is_read: Mapping[int, bool]) -> Pattern:
    """The pattern of axes; of some it is known whether they are read or written."""
    roles = list(is_read.values())
    if roles == sorted(roles):  # written axes first
        split = next((i for i, read in is_read.items() if read), len(axes))
        return Pattern(tuple(axes[:split]), tuple(axes[split:]))
    if roles == sorted(roles, reverse=True):
        split = next(i for i, read in is_read.items() if not read)
        return Pattern(tuple(axes[split:]), tuple(axes[:split]), read_first=True)
    written = (_inverted(axis) if is_read.get(i) else axis for i, axis in enumerate(axes))
    return Pattern(tuple(written))


def _single_entries(axes: Sequence[Axis], first_is_written: bool) -> set[int]:
    """Axes of one entry: no neuron says so, but a weight with one input channel reads them."""
    ones = [i for i, axis in enumerate(axes) if axis == (1,)]
    return set(ones[first_is_written:])


def _merged(factors: Sequence[Factor]) -> Axis:
    """Neighboring plain factors as one."""
    out: list[Factor] = []
    for factor in factors:
        if isinstance(factor, int) and out and isinstance(out[-1], int):
            out[-1] *= factor
        else:
            out.append(factor)
    return tuple(out)


def _total(terms: Sequence[Axis]) -> Axis:
    """A direct sum; of equal terms, a product."""
    if all(term == terms[0] for term in terms):
        return (len(terms), *terms[0])
    out: list[Axis] = []
    for term in terms:
        if out and _is_plain(out[-1]) and _is_plain(term):
            out[-1] = (out[-1][0] + term[0],)  # pyright: ignore[reportOperatorIssue]
        else:
            out.append(term)
    return (Sum(tuple(out)),) if len(out) > 1 else out[0]


def _is_plain(axis: Axis) -> bool:
    return len(axis) == 1 and isinstance(axis[0], int)


def _inverted(axis: Axis) -> Axis:
    return tuple(map(_inverted_factor, axis))


def _inverted_factor(factor: Factor) -> Factor:
    if isinstance(factor, Label):
        return Label(factor.group, -factor.power)
    return factor if isinstance(factor, int) else Sum(tuple(map(_inverted, factor.terms)))
