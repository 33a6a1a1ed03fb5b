"""Random weight spaces for hypothesis, each with its axes, so no test has to trust the parser."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from hypothesis import strategies as st

from zoo.architectures import ACTIVATIONS
from zoo.weight_space import NeuronGroup, Scaling, WeightSpace

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,6}", fullmatch=True)
blanks = st.text(" \t", max_size=2)


@dataclass(frozen=True)
class Case:
    """A weight space and, by tensor, the axes `(written, read)`, each a list of tuples of factors.

    The space is made when the test asks for it: the type checker draws from `random`, which no
    strategy may do.
    """

    groups: dict[str, dict[str, Any]]
    tensors: dict[str, str]
    axes: dict[str, tuple[list[tuple[str | int, ...]], list[tuple[str | int, ...]]]]

    @cached_property
    def space(self) -> WeightSpace:
        return WeightSpace(
            {name: NeuronGroup(**fields) for name, fields in self.groups.items()}, self.tensors
        )

    def shape(self, tensor: str) -> tuple[int, ...]:
        written, read = self.axes[tensor]
        sizes = {name: fields["size"] for name, fields in self.groups.items()}
        return tuple(
            math.prod(sizes.get(factor, factor) for factor in axis) for axis in [*written, *read]
        )


groups = st.fixed_dictionaries(
    {
        "size": st.integers(1, 4),
        "permutable": st.booleans(),
        "scaling": st.sampled_from(get_args(Scaling)),
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
    }
)


@st.composite
def cases(draw, min_tensors: int = 0) -> Case:
    table = draw(st.dictionaries(names, groups, min_size=1, max_size=4))
    axis = st.lists(st.sampled_from(sorted(table)) | st.integers(1, 3), min_size=1, max_size=2).map(
        tuple
    )
    both_sides = st.tuples(st.lists(axis, min_size=1, max_size=2), st.lists(axis, max_size=2))
    tensors = draw(
        st.dictionaries(
            st.text(min_size=1, max_size=8), both_sides, min_size=min_tensors, max_size=4
        )
    )
    patterns = {tensor: draw(written_as(*sides)) for tensor, sides in tensors.items()}
    return Case(table, patterns, tensors)


@st.composite
def written_as(draw, written, read) -> str:
    """One of the texts of a pattern: any blanks, a single factor with or without parentheses."""

    def axis_text(axis) -> str:
        inner = (" " + draw(blanks)).join(map(str, axis))
        bare = len(axis) == 1 and draw(st.booleans())
        return inner if bare else f"({draw(blanks)}{inner}{draw(blanks)})"

    def side(axes) -> str:
        return (
            draw(blanks)
            + (" " + draw(blanks)).join(axis_text(axis) for axis in axes)
            + draw(blanks)
        )

    return f"{side(written)}<-{side(read)}" if read or draw(st.booleans()) else side(written)


@st.composite
def language_cases(draw) -> Case:
    """Spaces with everything the language has: sums, powers, products, read-first tensors, scalars.

    Only the texts are known, `axes` is empty.
    """
    table = draw(
        st.dictionaries(
            names,
            groups.map(lambda fields: fields | {"size": min(fields["size"], 3)}),
            min_size=1,
            max_size=3,
        )
    )
    label = st.builds(
        "{}{}".format,
        st.sampled_from(sorted(table)),
        st.sampled_from(["", "", "", "^0", "^2", "^-1"]),
    )
    leaf = label | st.integers(1, 2).map(str)
    pair = st.tuples(leaf, leaf)
    flat = pair.map("({0[0]} {0[1]})".format) | pair.map("({0[0]} + {0[1]})".format)
    nested = st.tuples(flat, leaf)
    axis = (
        leaf | flat | nested.map("({0[0]} {0[1]})".format) | nested.map("({0[0]} + {0[1]})".format)
    )
    side = st.lists(axis, max_size=1).map(" ".join) | st.tuples(leaf, leaf).map(" ".join)
    pattern = side | st.tuples(side, st.sampled_from([" <- ", " -> "]), side).map("".join)
    return Case(
        table,
        draw(st.dictionaries(st.text(min_size=1, max_size=8), pattern, min_size=1, max_size=3)),
        {},
    )


@st.composite
def rich_cases(draw, max_size: int = 4) -> Case:
    """Everything that patterns have, a group on two axes among it; the axes are not given."""
    fields = {
        "size": st.integers(1, max_size),
        "permutable": st.booleans(),
        "scaling": st.sampled_from(get_args(Scaling)),
    }
    table = draw(
        st.dictionaries(st.sampled_from("abcd"), st.fixed_dictionaries(fields), min_size=1)
    )
    label = st.builds(
        "{}{}".format,
        st.sampled_from(sorted(table)),
        st.sampled_from(["", "", "", "^0", "^2", "^-1"]),
    )
    factor = label | st.integers(1, 3).map(str)
    term = st.lists(factor, min_size=1, max_size=2).map(" ".join)
    total = st.lists(term, min_size=2, max_size=2).map(lambda terms: f"({' + '.join(terms)})")
    axis = label | st.lists(factor | total, min_size=1, max_size=2).map(
        lambda factors: f"({' '.join(factors)})"
    )
    side = st.lists(axis, max_size=2).map(" ".join)
    pattern = side | st.tuples(side, st.sampled_from(["<-", "->"]), side).map(" ".join)
    return Case(table, draw(st.dictionaries(st.sampled_from(["w", "v", "u", "t"]), pattern)), {})
