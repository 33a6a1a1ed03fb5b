"""The group action: its laws over random spaces and architectures, an oracle, samples, errors."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import zoo_orbit
from tests.reference.zoo_spaces import Case, cases, language_cases
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    build_architecture,
    make_asymmetric,
)
from zoo.params import flatten, unflatten
from zoo.symmetry.action import (
    GroupElement,
    act,
    compose,
    identity,
    inverse,
    orbit_ids,
    sample,
)
from zoo.symmetry.residual import max_output_change
from zoo.testing import random_params, random_weight_space
from zoo.weight_space import NeuronGroup, WeightSpace

spaces = language_cases() | cases(min_tensors=1)
seeds = st.integers(0, 2**32)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
SPACE = WeightSpace(
    {"h": NeuronGroup(3, scaling="any"), "x": NeuronGroup(2)}, {"weight": "h <- x", "bias": "h"}
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def elements(
    space: WeightSpace, seed: int, count: int, batch: tuple[int, ...] = ()
) -> list[GroupElement]:
    """Elements of a space, in some of which some groups are absent."""
    source, drawn = generator(seed), []
    for _ in range(count):
        element = sample(space, source, batch)
        permutations = {
            n: v for n, v in element.permutations.items() if torch.rand((), generator=source) < 0.8
        }
        scales = {n: v for n, v in element.scales.items() if torch.rand((), generator=source) < 0.8}
        drawn.append(GroupElement(permutations, scales))
    return drawn


def params_of(
    space: WeightSpace, seed: int, batch: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    return random_params(space, generator(seed), batch)


def assert_same(got, expected) -> None:
    assert list(got) == list(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-12, atol=1e-12)


# the action, element by element


@given(spaces, seeds)
def test_the_action_is_what_the_text_of_the_patterns_says(case: Case, seed):
    (element,) = elements(case.space, seed, 1)
    params = params_of(case.space, seed + 1)
    expected = zoo_orbit.act(case.space, params, element.permutations, element.scales)
    assert_same(act(case.space, element, params), expected)


@given(seeds)
def test_the_action_on_the_random_spaces_that_users_get(seed):
    space = random_weight_space(generator(seed), max_size=3)
    element, params = sample(space, generator(seed)), params_of(space, seed + 1)
    assert_same(
        act(space, element, params),
        zoo_orbit.act(space, params, element.permutations, element.scales),
    )


@pytest.mark.parametrize(
    ("text", "tensor", "expected"),
    [
        ("h", [1, 2, 3], [30, 100, 2000]),
        ("<- h", [1, 2, 3], [0.3, 0.01, 0.002]),
        ("h^2", [1, 2, 3], [300, 1e4, 2e6]),
        ("h^0", [1, 2, 3], [3, 1, 2]),
        ("(h 2)", [1, 2, 3, 4, 5, 6], [50, 60, 100, 200, 3000, 4000]),
        ("(2 h)", [1, 2, 3, 4, 5, 6], [30, 100, 2000, 60, 400, 5000]),
        ("(2 + h)", [8, 9, 1, 2, 3], [8, 9, 30, 100, 2000]),
        ("h <- h", [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[9, 0.7, 0.08], [30, 1, 0.2], [600, 40, 5]]),
        ("2 -> h", [[1, 2, 3], [4, 5, 6]], [[30, 100, 2000], [60, 400, 5000]]),
        ("h -> 2", [[1, 2], [3, 4], [5, 6]], [[0.5, 0.6], [0.01, 0.02], [0.003, 0.004]]),
        ("", 7.0, 7.0),
    ],
)
def test_examples_of_the_action(text, tensor, expected):
    space = WeightSpace({"h": NeuronGroup(3, scaling="any")}, {"t": text})
    scales = torch.tensor([10, 100, 1000], dtype=torch.float64)
    element = GroupElement({"h": torch.tensor([2, 0, 1])}, {"h": scales})
    moved = act(space, element, {"t": torch.tensor(tensor, dtype=torch.float64)})
    torch.testing.assert_close(moved["t"], torch.tensor(expected, dtype=torch.float64))


# the laws of a group action


@given(spaces, seeds, batches)
def test_the_identity_changes_nothing(case: Case, seed, batch):
    params = params_of(case.space, seed, batch)
    assert_same(act(case.space, identity(case.space), params), params)
    assert_same(act(case.space, GroupElement({}, {}), params), params)
    assert (
        identity(case.space, batch).permutations.keys()
        == sample(case.space, generator(0)).permutations.keys()
    )


@given(spaces, seeds, batches)
def test_acting_twice_is_acting_with_the_product(case: Case, seed, batch):
    first, second = elements(case.space, seed, 2, batch)
    params = params_of(case.space, seed)
    assert_same(
        act(case.space, compose(first, second), params),
        act(case.space, first, act(case.space, second, params)),
    )


@given(spaces, seeds, batches)
def test_the_inverse_undoes(case: Case, seed, batch):
    (element,) = elements(case.space, seed, 1, batch)
    params = params_of(case.space, seed, batch)
    assert_same(act(case.space, inverse(element), act(case.space, element, params)), params)
    assert_same(act(case.space, element, act(case.space, inverse(element), params)), params)
    assert_same(act(case.space, compose(element, inverse(element)), params), params)


@given(spaces, seeds, batches)
def test_products_are_associative(case: Case, seed, batch):
    a, b, c = elements(case.space, seed, 3, batch)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    for name in right.permutations:
        assert torch.equal(left.permutations[name], right.permutations[name])
    assert left.permutations.keys() == right.permutations.keys()
    assert left.scales.keys() == right.scales.keys()
    for name in right.scales:
        torch.testing.assert_close(left.scales[name], right.scales[name], rtol=1e-12, atol=0)


@given(spaces, seeds)
def test_the_inverse_of_a_product_is_the_product_of_the_inverses(case: Case, seed):
    a, b = elements(case.space, seed, 2)
    params = params_of(case.space, seed)
    reversed_ = compose(inverse(b), inverse(a))
    assert_same(act(case.space, inverse(compose(a, b)), params), act(case.space, reversed_, params))


# leading axes


@given(spaces, seeds, st.tuples(st.integers(1, 3), st.integers(1, 2)))
def test_many_elements_on_many_networks_are_a_loop(case: Case, seed, batch):
    element, params = sample(case.space, generator(seed), batch), params_of(case.space, seed, batch)
    together = act(case.space, element, params)
    for place in product(*map(range, batch)):
        one = GroupElement(
            {n: v[place] for n, v in element.permutations.items()},
            {n: v[place] for n, v in element.scales.items()},
        )
        alone = act(case.space, one, {name: tensor[place] for name, tensor in params.items()})
        assert_same({name: tensor[place] for name, tensor in together.items()}, alone)


@given(spaces, seeds)
def test_one_network_under_many_elements_and_many_networks_under_one(case: Case, seed):
    many, (one,) = sample(case.space, generator(seed), (3,)), elements(case.space, seed, 1)
    params = params_of(case.space, seed)
    repeated = {name: tensor.expand(3, *tensor.shape) for name, tensor in params.items()}
    moved = {
        name: tensor.expand(repeated[name].shape)
        for name, tensor in act(case.space, many, params).items()
    }
    assert_same(moved, act(case.space, many, repeated))
    alone = act(case.space, one, params)
    assert_same(
        act(case.space, one, repeated), {n: t.expand(3, *t.shape) for n, t in alone.items()}
    )


@given(spaces, seeds, st.integers(1, 3))
def test_channels_of_features_move_together(case: Case, seed, channels):
    features, element = (
        params_of(case.space, seed, (2, channels)),
        sample(case.space, generator(seed), (2, 1)),
    )
    moved = act(case.space, element, features)
    squeezed = GroupElement(
        {n: v[:, 0] for n, v in element.permutations.items()},
        {n: v[:, 0] for n, v in element.scales.items()},
    )
    for channel in range(channels):
        alone = act(
            case.space, squeezed, {name: tensor[:, channel] for name, tensor in features.items()}
        )
        assert_same({name: tensor[:, channel] for name, tensor in moved.items()}, alone)


@given(spaces, seeds)
def test_flat_params_move_by_one_permutation_and_one_scale_for_each_entry(case: Case, seed):
    space, (element,) = case.space, elements(case.space, seed, 1)
    numbers = unflatten(space, torch.arange(space.num_params, dtype=torch.float64))
    order = flatten(space, act(space, GroupElement(element.permutations, {}), numbers)).long()
    scale = flatten(
        space,
        act(
            space,
            GroupElement({}, element.scales),
            unflatten(space, torch.ones(space.num_params).double()),
        ),
    )
    assert sorted(order.tolist()) == list(range(space.num_params))
    params = params_of(space, seed, (2,))
    torch.testing.assert_close(
        flatten(space, act(space, element, params)), scale * flatten(space, params)[:, order]
    )
    assert_same(
        unflatten(space, scale * flatten(space, params)[:, order]), act(space, element, params)
    )


# what is alike


@given(spaces, seeds)
def test_orbit_ids_are_what_permutations_cannot_tell_apart(case: Case, seed):
    ids, space = orbit_ids(case.space), case.space
    assert {name: len(of_group) for name, of_group in ids.items()} == {
        name: group.size for name, group in space.groups.items()
    }
    counts = [len(of_group.unique()) for of_group in ids.values()]
    expected = [1 if group.permutable else group.size for group in space.groups.values()]
    assert counts == expected
    assert torch.cat(list(ids.values())).unique().tolist() == list(range(sum(expected)))
    for name, permutation in sample(space, generator(seed)).permutations.items():
        assert torch.equal(ids[name][permutation], ids[name])


# architectures


def architectures() -> dict[str, Architecture]:
    standard = {name: instance(name) for name in ARCHITECTURES}
    twins = {
        f"{name}, {kind}": make_asymmetric(standard[name], kind, {}, 0)
        for name in standard
        for kind in ASYMMETRIES
    }
    return (
        standard
        | twins
        | {"mlp, kappa 0": make_asymmetric(standard["mlp"], "w", {"kappa": 0.0}, 0)}
    )


ALL = architectures()


@pytest.mark.parametrize("name", ALL)
def test_the_function_of_an_architecture_is_preserved(name):
    architecture, source = ALL[name].to("cpu", torch.float64), generator(0)
    x = torch.randn(4, *INPUTS[name.split(",")[0]], generator=source, dtype=torch.float64)
    params = {
        n: t.double() + 0.05 * torch.randn(t.shape, generator=source)
        for n, t in architecture.init(source).items()
    }
    assert (
        max_output_change(architecture.space, lambda p: architecture.apply(p, x), params, source)
        < 1e-10
    )


@pytest.mark.parametrize("architecture", ALL.values(), ids=ALL)
def test_the_laws_hold_on_the_space_of_an_architecture(architecture: Architecture):
    space, params = architecture.space, params_of(architecture.space, 0, (2,))
    a, b = elements(space, 1, 2, (2,))
    assert_same(act(space, compose(a, b), params), act(space, a, act(space, b, params)))
    assert_same(act(space, inverse(a), act(space, a, params)), params)


# max_output_change


def test_max_output_change_sees_what_is_declared_and_no_symmetry():
    gelu = build_architecture("mlp", {"hidden": (4, 5), "activation": "gelu"}, (6,), 3)
    params = {name: tensor.double() for name, tensor in gelu.init(generator(0)).items()}
    x = torch.randn(5, 6, generator=generator(1), dtype=torch.float64)
    wrong = WeightSpace(
        {
            n: replace(g, scaling="positive") if n == "h2" else g
            for n, g in gelu.space.groups.items()
        },
        gelu.space.tensors,
    )

    def change(groups) -> float:
        return max_output_change(
            wrong, lambda p: gelu.apply(p, x), params, generator(2), groups=groups
        )

    assert change(["h1"]) < 1e-10
    assert change([]) == 0
    assert change(["h2"]) > 1e-3
    assert change(None) > 1e-3


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (lambda h: h / 4, 0.75),
        (lambda h: 10 * h, 0.75),
        (lambda h: [None, {"a": h, "b": (h, h)}, "text"], 0.75),
        (lambda h: h[:0], 0.0),
        (lambda h: h / 0, 0.0),
        (lambda h: h * math.nan, 0.0),
        (lambda h: h.long(), 0.75),
        (lambda h: h > 2, 1.0),
        (lambda h: torch.where(h > 2, math.nan, h), math.inf),
        (lambda h: torch.where(h > 2, math.inf, h), math.inf),
    ],
    ids=[
        "below 1",
        "relative",
        "tree",
        "empty",
        "infinite on both sides",
        "nan on both sides",
        "integers",
        "booleans",
        "nan",
        "inf",
    ],
)
def test_max_output_change_of_outputs_of_any_form(outputs, expected):
    space = WeightSpace({"h": NeuronGroup(4)}, {"bias": "h"})
    params = {"bias": torch.tensor([1.0, 2, 3, 4])}
    # One of 200 permutations at least brings neuron 4 to the place of neuron 1.
    assert max_output_change(
        space, lambda p: outputs(p["bias"]), params, generator(0), 200
    ) == pytest.approx(expected)


# samples: a sound sampler fails each of these with probability 1e-4 (the seed is fixed, so it fails
# never or always)

COUNT = 12_000


def test_permutations_of_three_neurons_are_uniform():
    drawn = sample(SPACE, generator(0), (COUNT,)).permutations["h"]
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 6
    expected = COUNT / 6
    assert (
        sum((count - expected) ** 2 / expected for count in counts.values()) < 25.74
    )  # chi-square, 5 degrees of freedom


def test_signs_are_fair_and_independent():
    space = WeightSpace({"h": NeuronGroup(2, permutable=False, scaling="sign")}, {"bias": "h"})
    drawn = sample(space, generator(1), (COUNT,)).scales["h"]
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    counts = Counter(map(tuple, drawn.tolist()))
    expected = COUNT / 4
    assert (
        sum((count - expected) ** 2 / expected for count in counts.values()) < 21.11
    )  # chi-square, 3 degrees of freedom


@pytest.mark.parametrize("scaling", ["positive", "any"])
def test_scales_are_log_uniform_between_1_over_e_and_e(scaling):
    space = WeightSpace({"h": NeuronGroup(1, scaling=scaling)}, {"bias": "h"})
    drawn = sample(space, generator(2), (COUNT,)).scales["h"].flatten()
    assert bool((drawn < 0).any()) == (scaling == "any")
    logs = drawn.abs().log().sort().values
    assert float(logs.abs().max()) <= 1
    distance = ((logs + 1) / 2 - (torch.arange(COUNT) + 0.5) / COUNT).abs().max() + 0.5 / COUNT
    assert float(distance) < math.sqrt(
        math.log(2 / 1e-4) / (2 * COUNT)
    )  # Kolmogorov-Smirnov, bound of Massart


@given(spaces, seeds)
def test_samples_are_what_the_space_declares(case: Case, seed):
    element, again = (sample(case.space, generator(seed), (2,)) for _ in range(2))
    groups = case.space.groups
    assert set(element.permutations) == {name for name, group in groups.items() if group.permutable}
    assert set(element.scales) == {
        name for name, group in groups.items() if group.scaling != "none"
    }
    for name, values in element.permutations.items():
        assert torch.equal(values, again.permutations[name])
        assert torch.equal(values.sort(-1).values, torch.arange(groups[name].size).expand(2, -1))
    for name, values in element.scales.items():
        assert torch.equal(values, again.scales[name])
        allowed = {"sign": values.abs() == 1, "positive": values > 0, "any": values != 0}[
            groups[name].scaling
        ]
        assert allowed.all()


def test_samples_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    sample(SPACE, generator(0), (2,))
    assert torch.equal(before, torch.get_rng_state())


# dtypes, arguments, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_action_keeps_the_dtype_and_its_arguments(dtype):
    params = random_params(SPACE, generator(0), dtype=dtype)
    before = {name: tensor.clone() for name, tensor in params.items()}
    moved = act(SPACE, sample(SPACE, generator(1)), params)
    assert {tensor.dtype for tensor in moved.values()} == {dtype}
    assert all(torch.equal(params[name], before[name]) for name in before)


def test_the_action_is_differentiable_and_works_under_vmap():
    element, params = sample(SPACE, generator(1)), params_of(SPACE, 0, (3,))
    moved = torch.func.vmap(lambda network: act(SPACE, element, network))(params)
    assert_same(moved, act(SPACE, element, params))
    one = {name: tensor[0].requires_grad_() for name, tensor in params.items()}
    flatten(SPACE, act(SPACE, element, one)).sum().backward()
    assert all(
        tensor.grad is not None and bool((tensor.grad != 0).all()) for tensor in one.values()
    )


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (
            GroupElement({"h9": torch.arange(3)}, {}),
            r"moves a group 'h9'; groups of the space are \['h', 'x'\]",
        ),
        (GroupElement({}, {"h9": torch.ones(3)}), r"moves a group 'h9'"),
        (GroupElement({"h": torch.arange(4)}, {}), r"group 'h': expected 3 neurons, got 4"),
        (
            GroupElement({}, {"h": torch.ones(2, dtype=torch.float64)}),
            r"group 'h': expected 3 neurons, got 2",
        ),
    ],
)
def test_elements_of_another_space_are_refused(element, message):
    with pytest.raises(ValueError, match=message):
        act(SPACE, element, params_of(SPACE, 0))


def test_params_of_another_space_are_refused():
    with pytest.raises(
        ValueError, match=r"tensor 'bias': expected shape \[\*batch, 3\], got \[4\]"
    ):
        act(SPACE, identity(SPACE), {**params_of(SPACE, 0), "bias": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"missing \['bias'\], unknown \[\]"):
        act(SPACE, identity(SPACE), {"weight": torch.zeros(3, 2)})


def test_max_output_change_names_unknown_groups():
    with pytest.raises(
        ValueError, match=r"unknown groups \['h9'\]; groups of the space are \['h', 'x'\]"
    ):
        max_output_change(
            SPACE, lambda p: p["bias"], params_of(SPACE, 0), generator(0), groups=["h", "h9"]
        )


def test_max_output_change_wants_outputs_to_compare():
    for outputs in (None, [], "text"):
        with pytest.raises(ValueError, match="expected tensors of the same shapes"):
            max_output_change(
                SPACE, lambda p, outputs=outputs: outputs, params_of(SPACE, 0), generator(0)
            )


def test_no_networks_at_all_stay_no_networks():
    space = WeightSpace(
        {"h": NeuronGroup(3, scaling="positive")}, {"weight": "h <- 4", "bias": "h"}
    )
    none = {"weight": torch.zeros(0, 3, 4), "bias": torch.zeros(0, 3)}
    moved = act(space, sample(space, torch.Generator().manual_seed(0), (0,)), none)
    assert {name: tuple(tensor.shape) for name, tensor in moved.items()} == {
        "weight": (0, 3, 4),
        "bias": (0, 3),
    }
