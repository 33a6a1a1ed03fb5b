"""Quantities and residuals, against loops."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference.zoo_scaling import scaling_generator
from tests.reference.zoo_spaces import Case, language_cases
from tests.zoo.conservation.networks import generator, names
from zoo.architectures import build_mlp
from zoo.conservation.find import find_laws, possible_laws
from zoo.conservation.laws import balance, declared_laws, matrix, scale, shift
from zoo.conservation.quantities import conserved_quantities, measure, residuals
from zoo.params import Params, unflatten
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace


def dot(a: Params, b: Params) -> Tensor:
    return sum(
        ((a[name] * b[name]).flatten(1).sum(1) for name in a),
        start=torch.zeros(2, dtype=torch.float64),
    )


@given(language_cases(), st.integers(0, 1000))
def test_the_balance_of_neurons_is_what_their_generators_say(case: Case, seed):
    space, source = case.space, generator(seed)
    params, gradients = (random_params(space, source, (2,)) for _ in range(2))
    for group in space.groups:
        try:
            law = balance(space, group)
        except ValueError:
            continue
        values, off = (
            values_by_law[f"{group}.balance"] for values_by_law in measure([law], params, gradients)
        )
        torch.testing.assert_close(values, conserved_quantities([law], params)[law.name])
        torch.testing.assert_close(off, residuals([law], params, gradients)[law.name])
        for neuron in range(space.groups[group].size):
            xi = scaling_generator(space, params, group, neuron)
            restricted = {
                name: gradients[name] * (direction != 0) for name, direction in xi.items()
            }
            torch.testing.assert_close(values[:, neuron], -dot(xi, params))
            size = (dot(restricted, restricted) * dot(xi, xi)).sqrt()
            torch.testing.assert_close(
                off[:, neuron], dot(xi, gradients).abs() / size.where(size > 0, 1)
            )


def test_the_balance_of_a_recurrent_layer_counts_its_diagonal_once():
    space = WeightSpace({"h": NeuronGroup(2, scaling="positive")}, {"w": "h <- h", "b": "h"})
    params = {"w": torch.tensor([[2.0, 3.0], [5.0, 7.0]]), "b": torch.tensor([1.0, 0.0])}
    # neuron 0: row (2, 3), column (2, 5); the 2 on the diagonal does not move
    assert conserved_quantities(space, params)["h.balance"].tolist() == [25 - 9 - 1, 9 - 25]
    gradients = {"w": torch.tensor([[100.0, 1.0], [0.0, 100.0]]), "b": torch.zeros(2)}
    expected = [3 / math.sqrt(1 * (9 + 25 + 1)), 3 / math.sqrt(1 * (9 + 25))]
    torch.testing.assert_close(
        residuals(space, params, gradients)["h.balance"], torch.tensor(expected)
    )


def heads_space(heads: int = 2, size: int = 3) -> WeightSpace:
    groups = {
        "x": NeuronGroup(4, permutable=False),
        "head": NeuronGroup(heads),
        "y": NeuronGroup(5, permutable=False),
    }
    groups |= {name: NeuronGroup(size, scaling="any") for name in ("qk", "v")}
    patterns = {
        "q": "(head qk) <- x",
        "b": "(head qk)",
        "k": "x -> (head qk^-1)",
        "v": "(head v) <- x",
        "o": "y <- (head v)",
    }
    return WeightSpace(groups, patterns)


def test_the_matrix_balance_of_heads_is_the_derivative_along_any_mixing():
    space = heads_space()
    params, gradients = (random_params(space, generator(seed), (2,)) for seed in (0, 1))
    named = [matrix(space, "qk"), matrix(space, "v")]
    values, off = measure(named, params, gradients)
    for n in range(2):
        for h in range(2):
            q, b, k, v, o, gq, gb, gk, *_ = (
                part.reshape(2, 3, -1)[h]
                for source in (params, gradients)
                for part in (
                    source["q"][n],
                    source["b"][n],
                    source["k"][n].T,
                    source["v"][n],
                    source["o"][n].T,
                )
            )
            torch.testing.assert_close(values["qk.matrix"][n, h], k @ k.T - q @ q.T - b @ b.T)
            torch.testing.assert_close(values["v.matrix"][n, h], o @ o.T - v @ v.T)
            mixing = torch.randn(1000, 3, 3, generator=generator(2), dtype=torch.float64)
            mixing /= mixing.flatten(1).norm(dim=1)[:, None, None]
            along = sum((g * (mixing @ w)).sum((1, 2)) for g, w in ((gq, q), (gb, b))) - (
                gk * (mixing.mT @ k)
            ).sum((1, 2))
            size = math.sqrt(
                sum(float(t.square().sum()) for t in (gq, gb, gk))
                * sum(float(t.square().sum()) for t in (q, b, k))
            )
            best = float(along.abs().max()) / size
            assert best <= float(off["qk.matrix"][n, h]) < 1.3 * best


def test_scales_and_shifts_by_hand():
    groups = {"x": NeuronGroup(2, permutable=False), "g": NeuronGroup(2), "c": NeuronGroup(2)}
    space = WeightSpace(groups, {"w": "(g c) <- x", "b": "(g c)", "v": "x -> c"})
    params = {
        "w": torch.arange(8.0).reshape(4, 2),
        "b": torch.ones(4),
        "v": torch.arange(4.0).reshape(2, 2),
    }
    named = [scale(space, ["w", "b"], each) for each in range(3)]
    assert [conserved_quantities([law], params)["w.scale"].tolist() for law in named] == [
        144.0,
        [16.0, 128.0],
        [[2, 14], [42, 86]],
    ]
    assert conserved_quantities([shift(space, "w")], params)["w.shift"].tolist() == [12, 16]
    assert conserved_quantities([shift(space, "w", 1)], params)["w.shift"].tolist() == [
        [2, 4],
        [10, 12],
    ]
    assert conserved_quantities([shift(space, "b")], params)["b.shift"].tolist() == [4]
    assert conserved_quantities([shift(space, "v")], params)["v.shift"].tolist() == [1, 5]
    off = residuals(
        [shift(space, "w"), named[0]],
        params,
        {"w": torch.tensor([[1.0, 1.0], [1, -1], [1, 1], [1, -1]])},
    )
    torch.testing.assert_close(off["w.shift"], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(
        off["w.scale"], torch.tensor(abs(0 + 1 + 2 - 3 + 4 + 5 + 6 - 7) / math.sqrt(8 * 144))
    )


def test_the_columns_of_a_concatenation_are_one_law():
    groups = {"a": NeuronGroup(2), "b": NeuronGroup(3), "y": NeuronGroup(2, permutable=False)}
    space = WeightSpace(groups, {"w": "y <- (a + b 2)"})
    params = random_params(space, generator(0), (4,))
    assert shift(space, "w").shape == (8,)
    torch.testing.assert_close(
        conserved_quantities([shift(space, "w")], params)["w.shift"], params["w"].sum(1)
    )
    torch.testing.assert_close(
        conserved_quantities([scale(space, ["w"], 1)], params)["w.scale"],
        params["w"].square().sum(2),
    )


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
def test_leading_axes_are_networks(lead):
    space = heads_space()
    count = math.prod(lead)
    params, gradients = (random_params(space, generator(seed), (count,)) for seed in (0, 1))
    named = [
        balance(space, "v"),
        matrix(space, "qk"),
        scale(space, ["q", "b"], 1),
        shift(space, "o"),
        shift(space, "q", 1),
    ]
    assert [law.shape for law in named] == [(3,), (2, 3, 3), (2,), (6,), (2, 4)]
    reshaped = [
        {n: t.reshape(*lead, *t.shape[1:]) for n, t in source.items()}
        for source in (params, gradients)
    ]
    for all_values, kind in zip(measure(named, *reshaped), ("quantity", "residual"), strict=True):
        for law in named:
            shape = law.shape[:-2] if (kind, law.kind) == ("residual", "matrix") else law.shape
            assert all_values[law.name].shape == (*lead, *shape)
            for i in range(count):
                alone = measure(
                    [law],
                    {n: t[i] for n, t in params.items()},
                    {n: t[i] for n, t in gradients.items()},
                )
                expected = alone[kind == "residual"][law.name]
                torch.testing.assert_close(all_values[law.name].reshape(count, *shape)[i], expected)


@given(language_cases(), st.integers(0, 1000))
def test_residuals_are_between_0_and_1_and_0_without_gradients(case: Case, seed):
    space, source = case.space, generator(seed)
    params, gradients = (random_params(space, source) for _ in range(2))
    named = [law for alternatives in possible_laws(space, space.tensors) for law in alternatives]
    for law in named:
        values = residuals([law], params, gradients)[law.name]
        assert bool(((values >= 0) & (values <= 1)).all())
        assert not residuals([law], params, {})[law.name].any()


@given(language_cases(), st.integers(0, 1000))
def test_the_residual_of_the_field_of_a_law_itself_is_1(case: Case, seed):
    """Of a scale that is the params, of a shift ones, of a balance the generator of a neuron."""
    space, params = case.space, random_params(case.space, generator(seed))
    for law in (law for laws in possible_laws(space, space.tensors) for law in laws):
        if law.kind == "balance":
            group = law.name.removesuffix(".balance")
            for neuron in range(space.groups[group].size):
                field = scaling_generator(space, params, group, neuron)
                moves = any(bool(direction.any()) for direction in field.values())
                off = residuals([law], params, field)[law.name][neuron]
                assert float(off) == pytest.approx(float(moves), abs=1e-9)
        elif law.kind != "matrix":  # that is measured up to a bound, against mixings above
            field = params if law.kind == "scale" else {n: t * 0 + 1 for n, t in params.items()}
            off = residuals([law], params, field)[law.name]
            torch.testing.assert_close(off, torch.ones_like(off))


def test_what_does_not_exist_is_refused():
    space = replace_group(build_mlp((4,), 3, (5,)).space, "h1", "any")
    for call, message in [
        (lambda: balance(space, "h9"), "unknown group 'h9'"),
        (lambda: balance(WeightSpace(space.groups, {"b": "h1^0"}), "h1"), "no balance"),
        (lambda: matrix(WeightSpace(space.groups, {"b": "h1^2"}), "h1"), r"power 1 .* got \[2\]"),
        (lambda: scale(space, ["nothing"]), r"unknown tensors \['nothing'\]"),
        (lambda: scale(space, []), "at least one tensor"),
        (lambda: scale(space, ["layers.0.weight", "layers.1.bias"], 1), "write the same axes"),
        (lambda: scale(space, ["layers.0.bias"], 2), "at least 2"),
        (lambda: shift(space, "layers.0.bias", 1), "each must be below"),
        (
            lambda: conserved_quantities(space, {"layers.0.weight": torch.zeros(5, 4)}),
            "missing are",
        ),
        (
            lambda: find_laws(
                space, lambda p: p["layers.0.bias"].sum(), random_params(space, generator(0), (2,))
            ),
            "one network",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def replace_group(space: WeightSpace, name: str, scaling) -> WeightSpace:
    return WeightSpace(
        {**space.groups, name: replace(space.groups[name], scaling=scaling)}, space.tensors
    )


def test_groups_that_scale_nothing_have_no_law():
    groups = {
        "x": NeuronGroup(2, scaling="any"),
        "h": NeuronGroup(3, scaling="sign"),
        "unused": NeuronGroup(2, scaling="any"),
    }
    assert names(declared_laws(WeightSpace(groups, {"w": "h <- x", "b": "h"}))) == ["x.balance"]
    space = WeightSpace(groups, {"w": "h <- x", "b": "h"})
    params = unflatten(space, torch.arange(9.0))
    torch.testing.assert_close(
        conserved_quantities(space, params)["x.balance"], params["w"].square().sum(0)
    )


def test_no_networks_at_all_have_no_quantities():
    space = WeightSpace(
        {"h": NeuronGroup(3, scaling="any"), "x": NeuronGroup(4, permutable=False)},
        {"weight": "h <- x", "bias": "h"},
    )
    none = {"weight": torch.zeros(0, 3, 4), "bias": torch.zeros(0, 3)}
    named = [
        balance(space, "h"),
        matrix(space, "h"),
        scale(space, ["weight"]),
        shift(space, "bias"),
    ]
    values, off = measure(named, none, none)
    assert [tuple(values[law.name].shape) for law in named] == [(0, *law.shape) for law in named]
    assert [tuple(off[law.name].shape) for law in named] == [(0, 3), (0,), (0,), (0, 1)]
