"""Whether two weight spaces declare the same symmetry; names of groups do not matter."""

from itertools import accumulate

from zoo.pattern import Label, Sum
from zoo.weight_space import WeightSpace


def symmetry_of(space: WeightSpace) -> tuple:
    """What a space declares: groups numbered as they appear, fixed ones as plain sizes."""
    numbers: dict[str, int] = {}
    orientation: dict[str, int] = {}

    def describe_axis(factors, role):
        out = []
        for factor in factors:
            described = describe(factor, role)
            if isinstance(described, int) and out and isinstance(out[-1], int):
                out[-1] *= described
            else:
                out.append(described)
        return tuple(out)

    def describe(factor, role):
        if isinstance(factor, int):
            return factor
        if isinstance(factor, Sum):
            return "sum", tuple(describe_axis(term, role) for term in factor.terms)
        return describe_label(factor, role)

    def describe_label(label: Label, role):
        group = space.groups[label.group]
        if not group.permutable and group.scaling == "none":
            return group.size
        number = numbers.setdefault(label.group, len(numbers))
        power = {"none": 0, "sign": label.power % 2}.get(group.scaling, label.power * role)
        if power and group.scaling != "sign":
            power *= orientation.setdefault(label.group, 1 if power > 0 else -1)
        return number, group.size, group.permutable, group.scaling, power

    tensors = {}
    for name in sorted(space.tensors):
        pattern = space.pattern(name)
        tensors[name] = [
            describe_axis(axis, role)
            for axis, role in zip(pattern.axes, pattern.powers, strict=True)
        ]
    return tuple(tensors.items())


def count_permuted(space: WeightSpace) -> tuple[int, int]:
    """Numbers of permutable groups with several neurons, and of entries that they can move."""
    moving = {name for name, group in space.groups.items() if group.permutable and group.size > 1}

    def moved(axis) -> list[bool]:
        positions = [False]
        for factor in axis:
            positions = [one or other for one in positions for other in of(factor)]
        return positions

    def of(factor) -> list[bool]:
        if isinstance(factor, int):
            return [False] * factor
        if isinstance(factor, Sum):
            return [position for term in factor.terms for position in moved(term)]
        return [factor.group in moving] * space.groups[factor.group].size

    entries = 0
    for name, shape in space.shapes.items():
        still = list(
            accumulate(
                (moved(axis).count(False) for axis in space.pattern(name).axes),
                lambda a, b: a * b,
                initial=1,
            )
        )[-1]
        total = list(accumulate(shape, lambda a, b: a * b, initial=1))[-1]
        entries += total - still
    return len(moving), entries
