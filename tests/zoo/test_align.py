"""Alignment: the objective never falls, and planted symmetries are found."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from tests.reference.zoo_action import all_permutations_but_identity
from tests.reference.zoo_spaces import Case, rich_cases
from tests.zoo.instances import INPUTS, instance
from zoo.architectures import ARCHITECTURES, build_cnn, build_mlp
from zoo.architectures.record import activations
from zoo.params import Params, flatten
from zoo.symmetry.action import GroupElement, act, identity, sample
from zoo.symmetry.alignment import align, align_activations
from zoo.symmetry.ascent import ascend, start
from zoo.weight_space import NeuronGroup, WeightSpace

seeds = st.integers(0, 2**32)
RECURRENT = WeightSpace(
    {
        "x": NeuronGroup(6, permutable=False),
        "h": NeuronGroup(10),
        "a": NeuronGroup(5),
        "b": NeuronGroup(7),
    },
    {
        "in": "h <- x",
        "again": "h <- h",
        "bias": "h",
        "out": "(a + b 2) <- h",
        "back": "h <- (a + b)",
    },
)
SPACES = {
    "one hidden group": build_mlp((16,), 4, (24,)).space,
    "two hidden groups": build_mlp((16,), 4, (24, 20)).space,
    "three hidden groups": build_mlp((16,), 4, (20, 20, 20)).space,
    "convolutions": build_cnn((1, 7, 7), 3, (12, 12, 12), pool="flatten").space,
    "a group on both axes, and sums": RECURRENT,
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(space: WeightSpace, seed: int, batch=(), dtype=torch.float64) -> Params:
    source = generator(seed)
    return {
        name: torch.randn((*batch, *s), generator=source, dtype=dtype)
        for name, s in space.shapes.items()
    }


def similarity(space: WeightSpace, params: Params, reference: Params) -> torch.Tensor:
    return (flatten(space, params) * flatten(space, reference)).sum(-1)


def permuted(space: WeightSpace, params: Params, seed: int, batch=()) -> Params:
    return act(space, GroupElement(sample(space, generator(seed), batch).permutations, {}), params)


# planted symmetries


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_planted_permutations_are_found(space, noise):
    reference, disturbance = normal(space, 0), normal(space, 1, (100,))
    networks = {name: reference[name] + noise * tensor for name, tensor in disturbance.items()}
    moved = permuted(space, networks, 2, (100,))
    again = act(space, align(space, moved, reference, num_restarts=3), moved)
    same = torch.stack([(again[n] == networks[n]).flatten(1).all(1) for n in networks]).all(0)
    assert int(same.sum()) == 100


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
@pytest.mark.parametrize("hidden", [(20,), (20, 16), (16, 16, 16)])
def test_planted_permutations_and_scales_are_found(activation, hidden):
    space = build_mlp((16,), 4, hidden, activation).space
    reference = normal(space, 0)
    moved = act(space, sample(space, generator(1), (100,)), reference)
    element = align(space, moved, reference, num_restarts=3, scales=True)
    again = act(space, element, moved)
    close = torch.stack(
        [
            torch.isclose(again[n], t, rtol=1e-9, atol=1e-9).flatten(1).all(1)
            for n, t in reference.items()
        ]
    ).all(0)
    assert int(close.sum()) == 100
    for name, group in space.groups.items():
        assert group.scaling != "positive" or bool((element.scales[name] > 0).all())
        assert group.scaling != "sign" or bool((element.scales[name].abs() == 1).all())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_planted_symmetries_of_every_architecture_are_found_and_keep_the_function(name):
    architecture = instance(name)
    space = architecture.space
    params = {n: tensor.double() for n, tensor in architecture.init(generator(0)).items()}
    params = {n: tensor + 0.1 * normal(space, 1)[n].abs() for n, tensor in params.items()}
    moved = permuted(space, params, 2)
    element = align(space, moved, params, num_restarts=20)
    again = act(space, element, moved)
    for n, tensor in params.items():
        torch.testing.assert_close(again[n], tensor, rtol=1e-9, atol=1e-9)
    architecture, x = (
        architecture.to("cpu", torch.float64),
        torch.randn(4, *INPUTS[name], generator=generator(3)).double(),
    )
    torch.testing.assert_close(
        architecture.apply(again, x), architecture.apply(moved, x), rtol=1e-9, atol=1e-9
    )


# the objective


@given(rich_cases(), seeds, st.booleans())
def test_the_objective_never_falls_and_is_what_the_element_reaches(case: Case, seed, scales):
    space = case.space
    params, reference = normal(space, seed, (3,)), normal(space, seed + 1)
    state = start(space, params, reference, scales)
    trace = [state.objective()]
    for _ in ascend(state, generator(seed)):
        trace.append(state.objective())
    for before, after in itertools.pairwise(trace):
        assert bool((after >= before - 1e-9 * before.abs().clamp_min(1)).all())
    if state.pieces:
        reached = act(space, GroupElement(state.permutations, state.signs), params)
        gain = similarity(space, reached, reference) - similarity(space, params, reference)
        torch.testing.assert_close(gain, trace[-1] - trace[0], rtol=1e-9, atol=1e-9)


TINY = {
    "one group": build_mlp((3,), 2, (4,)).space,
    "two groups": build_mlp((3,), 2, (3, 4)).space,
    "both axes": WeightSpace(
        {"h": NeuronGroup(4), "x": NeuronGroup(2, permutable=False)}, {"w": "h <- h", "v": "h <- x"}
    ),
    "composite": WeightSpace(
        {"a": NeuronGroup(3), "b": NeuronGroup(2)}, {"w": "(a b) <- b", "v": "(a + b 2)"}
    ),
}


@pytest.mark.parametrize("space", TINY.values(), ids=TINY)
def test_tiny_networks_reach_the_maximum_over_all_permutations(space):
    params, reference = normal(space, 0, (30,)), normal(space, 1)
    sizes = {name: group.size for name, group in space.groups.items() if group.permutable}
    best = similarity(space, params, reference)
    for permutations in all_permutations_but_identity(sizes):
        best = torch.maximum(
            best, similarity(space, act(space, GroupElement(permutations, {}), params), reference)
        )
    once, often = (
        similarity(
            space, act(space, align(space, params, reference, num_restarts=n), params), reference
        )
        for n in (1, 20)
    )
    for reached in (once, often):
        assert bool((reached <= best + 1e-9).all())
    assert bool((often >= once - 1e-9).all())
    assert int(torch.isclose(often, best).sum()) >= 29
    if len(sizes) == 1 and space is not TINY["both axes"]:
        torch.testing.assert_close(once, best)


# populations


@given(rich_cases(), seeds, st.booleans())
def test_a_population_is_aligned_as_its_networks_are_one_by_one(case: Case, seed, scales):
    space = case.space
    params, reference = normal(space, seed, (2, 2)), normal(space, seed + 1)
    together = align(space, params, reference, 2, generator(seed), scales)
    if not space.tensors:
        return
    for i, j in ((0, 1), (1, 0)):
        alone = align(
            space, {n: t[i, j] for n, t in params.items()}, reference, 2, generator(seed), scales
        )
        for name, index in alone.permutations.items():
            assert torch.equal(together.permutations[name][i, j], index)
        for name, scale in alone.scales.items():
            torch.testing.assert_close(together.scales[name][i, j], scale, rtol=1e-9, atol=0)


def test_the_params_are_left_alone_and_float32_works():
    space = SPACES["two hidden groups"]
    params, reference = normal(space, 0, (5,), torch.float32), normal(space, 1, dtype=torch.float32)
    before = {
        name: tensor.clone()
        for name, tensor in (*params.items(), *((f"{n} of it", t) for n, t in reference.items()))
    }
    element = align(space, params, reference, num_restarts=2)
    for name, tensor in (*params.items(), *((f"{n} of it", t) for n, t in reference.items())):
        assert torch.equal(tensor, before[name])
    moved = act(space, element, params)
    assert bool((similarity(space, moved, reference) > similarity(space, params, reference)).all())


def test_networks_that_are_not_finite_are_refused():
    space = SPACES["two hidden groups"]
    params, reference = normal(space, 0, (3,)), normal(space, 1)
    one = {name: tensor[1] for name, tensor in params.items()}
    params["layers.0.weight"][1, 0, 0] = torch.inf
    refusals = [
        (params, reference, "params: network 1, tensor 'layers.0.weight': expected finite entries"),
        (one, reference, "params: tensor 'layers.0.weight': expected finite entries"),
        (reference, one, "reference: tensor 'layers.0.weight': expected finite entries"),
    ]
    for networks, target, message in refusals:
        with pytest.raises(ValueError, match=message):
            align(space, networks, target)


def test_activations_that_are_not_finite_are_refused():
    space = SPACES["two hidden groups"]
    values = {"h1": torch.ones(5, 24)}
    broken = {"h1": values["h1"].index_fill(0, torch.tensor(2), torch.nan)}
    for pair in ((values, broken), (broken, values)):
        with pytest.raises(ValueError, match="activations of group 'h1': expected finite values"):
            align_activations(space, *pair)


def test_a_space_without_symmetries_gives_the_identity():
    groups = {"x": NeuronGroup(3, permutable=False), "h": NeuronGroup(4, permutable=False)}
    space = WeightSpace(groups, {"w": "h <- x"})
    element = align(space, normal(space, 0, (2,)), normal(space, 1), scales=True)
    assert not element.permutations
    assert not element.scales


def test_no_networks_are_no_trouble():
    space = SPACES["one hidden group"]
    assert align(space, normal(space, 0, (0,)), normal(space, 1)).permutations["h1"].shape == (
        0,
        24,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"params": {"layers.0.bias": torch.zeros(5)}},
            r"tensor 'layers.0.bias': expected shape \[\*batch, 24\], got \[5\]",
        ),
        (
            {"reference": {"layers.0.bias": torch.zeros(5)}},
            r"tensor 'layers.0.bias': expected shape \[\*batch, 24\], got \[5\]",
        ),
        ({"num_restarts": 0}, "num_restarts: expected at least 1, found 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    space = SPACES["one hidden group"]
    arguments = {"params": normal(space, 0), "reference": normal(space, 1), "num_restarts": 1}
    arguments |= {
        key: arguments[key] | value if isinstance(value, dict) else value
        for key, value in change.items()
    }
    with pytest.raises(ValueError, match=message):
        align(space, **arguments)


def test_a_reference_must_be_one_network():
    space = SPACES["one hidden group"]
    with pytest.raises(
        ValueError, match=r"expected one network as reference, got leading axes \[2\]"
    ):
        align(space, normal(space, 0), normal(space, 1, (2,)))


# activations


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_recorded_activations_are_those_of_the_network(name):
    architecture = instance(name)
    params, x = (
        architecture.init(generator(0)),
        torch.randn(4, *INPUTS[name], generator=generator(1)),
    )
    recorded = activations(architecture, params, x)
    for group, values in recorded.items():
        assert values.shape[:2] == (4, architecture.space.groups[group].size)
    moving = GroupElement(sample(architecture.space, generator(2)).permutations, {})
    moved = activations(architecture, act(architecture.space, moving, params), x)
    for group, order in moving.permutations.items():
        if group in recorded:
            torch.testing.assert_close(
                moved[group], recorded[group].index_select(1, order), rtol=1e-4, atol=1e-4
            )


def test_recording_is_what_the_layers_compute():
    architecture = build_mlp((5,), 3, (4,))
    params, x = architecture.init(generator(0)), torch.randn(6, 5, generator=generator(1))
    expected = torch.relu(x @ params["layers.0.weight"].T + params["layers.0.bias"])
    torch.testing.assert_close(activations(architecture, params, x)["h1"], expected)


@pytest.mark.parametrize(
    "architecture",
    [build_mlp((2, 7, 7), 3, (20, 16)), build_cnn((2, 7, 7), 3, (12, 12))],
    ids=["mlp", "cnn"],
)
def test_planted_permutations_are_found_by_activations(architecture):
    space, x = architecture.space, torch.randn(50, 2, 7, 7, generator=generator(0)).double()
    reference = {name: tensor.double() for name, tensor in architecture.init(generator(1)).items()}
    moved = act(
        space, sample(space, generator(2), (20,)), reference
    )  # scales too: a correlation does not see them
    moved_activations = torch.func.vmap(lambda params: activations(architecture, params, x))(moved)
    element = align_activations(space, moved_activations, activations(architecture, reference, x))
    expected = sample(space, generator(2), (20,)).permutations
    assert set(element.permutations) == set(expected)
    for name, order in element.permutations.items():
        assert torch.equal(order, expected[name].argsort(-1)), name


def test_activations_are_matched_by_their_correlation():
    """Three networks: the reference's neurons in other orders, in noise, about other values.

    The largest sum of correlations is that of `np.corrcoef`, whatever neurons do on average.
    """
    space, source = build_mlp((3,), 2, (6,)).space, generator(0)
    reference = torch.randn(40, 6, generator=source, dtype=torch.float64)
    noise = torch.randn(3, 40, 6, generator=source, dtype=torch.float64)
    orders = torch.stack([torch.randperm(6, generator=source) for _ in range(3)])
    offsets = 50 * torch.randn(4, 6, generator=source, dtype=torch.float64)
    others = torch.stack([reference[:, order] for order in orders]) + 0.2 * noise
    others, reference = others + offsets[:3, None], reference + offsets[3]
    matched = align_activations(space, {"h1": others}, {"h1": reference}).permutations["h1"]
    for i, order in enumerate(orders):
        correlations = np.corrcoef(reference.numpy().T, others[i].numpy().T)[:6, 6:]
        best = linear_sum_assignment(correlations, maximize=True)[1]
        assert matched[i].tolist() == best.tolist() == order.argsort().tolist()


def test_dead_neurons_have_no_say_in_activation_matching():
    space = build_mlp((3,), 2, (4,)).space
    values = torch.randn(9, 4, generator=generator(0))
    values[:, 2] = 1.0
    order = torch.tensor([3, 1, 0, 2])
    element = align_activations(space, {"h1": values[:, order]}, {"h1": values})
    assert torch.equal(values[:, order][:, element.permutations["h1"]], values)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"h1": (9, 4)}, {}, "expected the same groups"),
        ({"h7": (9, 4)}, {"h7": (9, 4)}, "groups of the space are"),
        ({"h1": (9, 5)}, {"h1": (9, 5)}, r"group 'h1': expected \[\*batch, X, 4, \*positions\]"),
        ({"h1": (9, 4)}, {"h1": (8, 4)}, r"got \[9, 4\] and \[8, 4\]"),
    ],
)
def test_activations_that_do_not_fit_are_refused(one, other, message):
    space = build_mlp((3,), 2, (4,)).space
    with pytest.raises(ValueError, match=message):
        align_activations(
            space,
            *({name: torch.zeros(shape) for name, shape in part.items()} for part in (one, other)),
        )


def test_the_identity_is_where_a_network_meets_itself():
    space = RECURRENT
    params = normal(space, 0)
    for name, order in identity(space).permutations.items():
        assert torch.equal(align(space, params, params).permutations[name], order)
