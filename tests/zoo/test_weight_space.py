"""Weight spaces: the pattern language, what derives from it, and what is refused."""

import copy
import itertools
import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import zoo.weight_space
from tests.reference.zoo_spaces import Case, cases, groups
from zoo.pattern import Label, Pattern, Sum, parse_pattern
from zoo.weight_space import NeuronGroup, WeightSpace

EXPECTED = "expected a group name, an integer, '(', ')', '+', '<-' or '->'"
SOURCE = Path(zoo.weight_space.__file__)


def alone(code: str) -> str:
    """What some code prints that uses the file as `module`, where no package is installed."""
    setup = (
        "import sys, types\n"
        "package = sys.modules['zoo'] = types.ModuleType('zoo')\n"
        f"package.__path__ = [{str(SOURCE.parent)!r}]\n"
        "import zoo.weight_space as module\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", setup + code],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# the pattern language


def axis(factors) -> tuple:
    return tuple(Label(factor) if isinstance(factor, str) else factor for factor in factors)


@given(cases())
def test_a_pattern_parses_to_the_axes_it_was_written_from(case: Case):
    for name, (written, read) in case.axes.items():
        pattern = Pattern(tuple(map(axis, written)), tuple(map(axis, read)))
        assert case.space.pattern(name) == pattern
        assert case.space.pattern(name).axes == (*pattern.written, *pattern.read)


@pytest.mark.parametrize(
    ("text", "written", "read"),
    [
        ("h1 <- x", [("h1",)], [("x",)]),
        ("h1<-x", [("h1",)], [("x",)]),
        ("  h1\t<-\n x ", [("h1",)], [("x",)]),
        ("h1", [("h1",)], []),
        ("h1 <-", [("h1",)], []),
        ("c2 <- c1 3 3", [("c2",)], [("c1",), (3,), (3,)]),
        ("y <- (c2 16)", [("y",)], [("c2", 16)]),
        ("y<-(c2 16)(2 c1)", [("y",)], [("c2", 16), (2, "c1")]),
        ("(heads dim) 3 <- d", [("heads", "dim"), (3,)], [("d",)]),
        ("h <- h", [("h",)], [("h",)]),
        ("h h", [("h",), ("h",)], []),
        ("(h)", [("h",)], []),
        ("layer.0.out_1 <- _x.y", [("layer.0.out_1",)], [("_x.y",)]),
        ("y <- (a (b c))", [("y",)], [("a", "b", "c")]),
        ("((h))", [("h",)], []),
        ("", [], []),
        ("<- x", [], [("x",)]),
    ],
)
def test_examples_of_patterns(text, written, read):
    assert parse_pattern(text) == Pattern(tuple(map(axis, written)), tuple(map(axis, read)))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("x -> h", Pattern((axis("h"),), (axis("x"),), read_first=True)),
        ("x 3->h", Pattern((axis("h"),), (axis("x"), (3,)), read_first=True)),
        ("c^0 <- d^-1", Pattern(((Label("c", 0),),), ((Label("d", -1),),))),
        ("h^2", Pattern(((Label("h", 2),),))),
        ("h <- (a + b 4)", Pattern((axis("h"),), ((Sum((axis("a"), axis(("b", 4)))),),))),
        (
            "(n (q + k^-1)) <- d",
            Pattern(((Label("n"), Sum((axis("q"), (Label("k", -1),)))),), (axis("d"),)),
        ),
        ("((a + b) + c)", Pattern(((Sum(((Sum((axis("a"), axis("b"))),), axis("c"))),),))),
    ],
)
def test_sums_powers_and_tensors_that_read_first(text, pattern):
    assert parse_pattern(text) == pattern
    assert parse_pattern(str(pattern)) == pattern


def test_axes_and_powers_are_in_the_order_of_the_tensor():
    for text in ("x 3 -> h", "h <- x 3"):
        pattern = parse_pattern(text)
        by_axis = dict(zip(pattern.axes, pattern.powers, strict=True))
        assert by_axis == {axis("h"): 1, axis("x"): -1, (3,): -1}
    assert parse_pattern("x -> h").axes == parse_pattern("x <- h").axes


def test_the_size_of_a_sum_is_the_sum_of_its_terms():
    space = WeightSpace(
        {"a": NeuronGroup(2), "b": NeuronGroup(3)}, {"w": "(a + b 4 + 5) <- (2 (a + b))", "s": ""}
    )
    assert dict(space.shapes) == {"w": (19, 10), "s": ()}
    assert space.num_params == 191


@pytest.mark.parametrize(
    ("text", "rest", "why"),
    [
        ("h <- x <- z", "<- z", "an arrow may stand once, outside parentheses"),
        ("h (a <- x)", "<- x)", "an arrow may stand once, outside parentheses"),
        ("y <- ()", ")", "')' must follow a factor inside parentheses"),
        ("y) <- x", ") <- x", "')' must follow a factor inside parentheses"),
        ("y <- (c2 16", "", "'(' is never closed"),
        ("(a + )", ")", "')' must follow a factor inside parentheses"),
        ("(+ a)", "+ a)", "'+' must follow a factor inside parentheses"),
        ("a + b", "+ b", "'+' must follow a factor inside parentheses"),
        ("a <- b -> c", "-> c", "an arrow may stand once, outside parentheses"),
        ("h <- 0", "0", "sizes are >= 1"),
        ("h <- (x 00)", "00)", "sizes are >= 1"),
        ("h <- $x", "$x", EXPECTED),
        ("h <- 12a", "12a", EXPECTED),
        ("h <- 1.5", "1.5", EXPECTED),
        ("h <- -3", "-3", EXPECTED),
        ("3^2", "3^2", EXPECTED),
        ("h^x", "^x", EXPECTED),
        ("h^1.5", "^1.5", EXPECTED),
        ("h < - x", "< - x", EXPECTED),
    ],
)
def test_what_is_no_pattern_is_refused_with_place_and_reason(text, rest, why):
    with pytest.raises(ValueError) as error:
        parse_pattern(text)
    message = str(error.value)
    assert message.startswith(f"pattern {text!r}, at character ")
    assert message.endswith(f": {why}")
    position = int(message.removeprefix(f"pattern {text!r}, at character ").split(":")[0])
    assert text[position:].lstrip() == rest.lstrip()


@example("-> a")  # reads nothing, so it is the pattern "a"
@given(st.text(alphabet="ab1 0()<->+^$.\n", max_size=12))
def test_any_text_is_a_pattern_or_a_value_error_that_quotes_it(text):
    try:
        pattern = parse_pattern(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert all(axis for axis in pattern.axes)
        assert parse_pattern(str(pattern)) == pattern


# what is refused


BAD_GROUPS = [
    ({"size": 0}, "size of a neuron group: expected an integer >= 1, got 0"),
    ({"size": -1}, "size of a neuron group: expected an integer >= 1, got -1"),
    ({"size": True}, "size of a neuron group: expected an integer >= 1, got True"),
    ({"size": 2.0}, "size of a neuron group: expected an integer >= 1, got 2.0"),
    ({"size": "3"}, "size of a neuron group: expected an integer >= 1, got '3'"),
    (
        {"scaling": "negative"},
        "expected one of ('none', 'sign', 'positive', 'any'), got 'negative'",
    ),
    ({"scaling": []}, "expected one of ('none', 'sign', 'positive', 'any'), got []"),
    (
        {"permutable": "no"},
        "expected permutable as a boolean and activation as text, got 'no' and 'linear'",
    ),
    (
        {"permutable": 1},
        "expected permutable as a boolean and activation as text, got 1 and 'linear'",
    ),
    (
        {"activation": None},
        "expected permutable as a boolean and activation as text, got True and None",
    ),
]


def test_a_group_from_a_file_with_a_bad_field_is_refused():
    texts = [
        json.dumps({"groups": {"h": {"size": 3, **fields}}, "tensors": {}})
        for fields, _ in BAD_GROUPS
    ]
    errors = alone(  # where no type checker gets there first
        f"for text in {texts!r}:\n"
        "    try:\n"
        "        print('accepted', module.WeightSpace.from_json(text))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    ).splitlines()
    assert len(errors) == len(BAD_GROUPS)
    for error, (_, message) in zip(errors, BAD_GROUPS, strict=True):
        assert error.endswith(message)


@pytest.mark.parametrize("text", ["h3 <- x", "x <- h3", "y <- (x h3)", "h3"])
def test_an_unknown_group_is_named_with_pattern_tensor_and_the_valid_groups(text):
    known = {name: NeuronGroup(2) for name in ("y", "x", "h1")}
    with pytest.raises(ValueError) as error:
        WeightSpace(known, {"first": "h1 <- x", "second": text})
    assert str(error.value) == (
        f"axis 'h3' in pattern {text!r} of tensor 'second' is not a neuron group; "
        "groups are ['h1', 'x', 'y']"
    )


def test_an_unknown_tensor_is_named_with_the_valid_ones():
    space = WeightSpace({"h": NeuronGroup(2)}, {"bias": "h", "scale": "h"})
    with pytest.raises(
        ValueError,
        match=r"no tensor 'weight' in this weight space; tensors are \['bias', 'scale'\]",
    ):
        space.pattern("weight")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        "null",
        "{}",
        '{"groups": {}}',
        '{"groups": [], "tensors": {}}',
        '{"groups": {}, "tensors": [1]}',
        '{"groups": {"h": {}}, "tensors": {}}',
        '{"groups": {"h": {"size": 1, "colour": 2}}, "tensors": {}}',
        '{"groups": {"h": {"size": 1}}, "tensors": {"bias": 3}}',
        '{"groups": {"h": {"size": 1}}, "tensors": {"bias": ["h"]}}',
    ],
)
def test_what_is_no_weight_space_in_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        WeightSpace.from_json(text)


# identity: JSON, equality, hash


@given(cases())
def test_json_and_pickle_round_trips_keep_everything(case: Case):
    space = case.space
    for again in (
        WeightSpace.from_json(space.to_json()),
        pickle.loads(pickle.dumps(space)),
        copy.deepcopy(space),
    ):
        assert again == space
        assert hash(again) == hash(space)
        assert again.fingerprint == space.fingerprint
        assert dict(again.groups) == dict(space.groups)
        assert list(again.tensors.items()) == list(space.tensors.items())
        assert again.shapes == space.shapes


@given(cases(), cases())
def test_spaces_are_equal_exactly_when_their_groups_and_tensors_are(one: Case, other: Case):
    def content(case: Case):
        return list(case.groups.items()), list(case.axes.items())

    same = content(one) == content(other)
    assert (one.space == other.space) == same
    assert (one.space.fingerprint == other.space.fingerprint) == same


@given(groups, groups)
def test_every_field_of_a_group_counts(one, other):
    spaces = [WeightSpace({"h": NeuronGroup(**fields)}, {"b": "h"}) for fields in (one, other)]
    assert (spaces[0] == spaces[1]) == (one == other)


def test_the_order_of_tensors_counts_for_it_is_the_order_of_flat_params():
    neurons = {"h": NeuronGroup(2)}
    assert WeightSpace(neurons, {"a": "h", "b": "h"}) != WeightSpace(neurons, {"b": "h", "a": "h"})


def test_a_space_equals_no_other_kind_of_thing():
    space = WeightSpace({"h": NeuronGroup(2)}, {"a": "h"})
    assert space != space.to_json()
    assert len({space, WeightSpace.from_json(space.to_json())}) == 1


def test_the_json_text_is_a_file_format():
    space = WeightSpace(
        {"x": NeuronGroup(4, permutable=False), "h": NeuronGroup(3, True, "positive", "relu")},
        {"w": "h <- x"},
    )
    assert space.to_json() == (
        '{"groups":{"x":{"size":4,"permutable":false,"scaling":"none","activation":"linear"},'
        '"h":{"size":3,"permutable":true,"scaling":"positive","activation":"relu"}},'
        '"tensors":{"w":"h <- x"}}'
    )


# shapes and sizes


@given(cases())
def test_shapes_are_products_of_factors_and_num_params_counts_every_index(case: Case):
    assert dict(case.space.shapes) == {name: case.shape(name) for name in case.axes}
    indices = sum(len(list(itertools.product(*map(range, case.shape(name))))) for name in case.axes)
    assert case.space.num_params == indices


@given(cases())
def test_the_size_of_an_axis_is_the_product_of_its_factors(case: Case):
    for written, read in case.axes.values():
        for factors in [*written, *read]:
            sizes = [case.groups[f]["size"] if isinstance(f, str) else f for f in factors]
            assert case.space.size(axis(factors)) == math.prod(sizes)


# data that nobody can change


def test_a_space_cannot_be_changed_not_even_through_what_it_was_made_of():
    neurons, tensors = {"h": NeuronGroup(2)}, {"bias": "h"}
    space = WeightSpace(neurons, tensors)
    before = space.to_json()
    neurons["x"], tensors["weight"] = NeuronGroup(3), "h <- x"
    assert space.to_json() == before
    for mapping in (space.groups, space.tensors, space.shapes):
        with pytest.raises(TypeError):
            mapping["new"] = "h"
    with pytest.raises(FrozenInstanceError):
        space.tensors = {}
    with pytest.raises(FrozenInstanceError):
        space.groups["h"].size = 5
    with pytest.raises(FrozenInstanceError):
        space.pattern("bias").read = ()


def test_the_file_needs_nothing_but_the_standard_library():
    output = alone(
        "space = module.WeightSpace({'h': module.NeuronGroup(3)}, {'bias': 'h'})\n"
        "print(space.num_params, 'torch' in sys.modules)"
    )
    assert output == "3 False\n"
