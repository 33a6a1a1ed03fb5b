"""Conservation laws: quantities and residuals against loops, along training, what losses keep."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference.zoo_scaling import scaling_generator
from tests.reference.zoo_spaces import Case, language_cases
from tests.zoo.instances import INPUTS
from zoo.architectures import (
    ARCHITECTURES,
    Architecture,
    build_architecture,
    build_mlp,
    make_asymmetric,
)
from zoo.conservation.find import find_laws, possible_laws
from zoo.conservation.laws import balance, declared_laws, matrix, scale, shift
from zoo.conservation.quantities import conserved_quantities, measure, residuals
from zoo.params import Params, stack, unflatten
from zoo.testing import random_params
from zoo.tracing.tracer import module_params, trace
from zoo.weight_space import NeuronGroup, WeightSpace

SMALL = {
    "mlp": {"hidden": (8, 6)},
    "cnn": {"channels": (5, 6), "strides": 1},
    "resnet": {"channels": (3, 4, 4)},
    "transformer": {"dim": 8, "depth": 1, "patch": 3},
    "gin": {"hidden": 6, "layers": 2},
    "siren": {"hidden": (6, 5), "omega": 2.0},
}
VARIANTS = {name: (name, {}) for name in ARCHITECTURES} | {
    "mlp with layer norm": ("mlp", {"norm": "layer"}),
    "linear mlp": ("mlp", {"activation": "linear"}),
    "leaky flattened cnn": ("cnn", {"activation": "leaky_relu", "pool": "flatten"}),
    "cnn with group norm": ("cnn", {"channels": (4, 6), "norm": "group", "norm_groups": 2}),
    "resnet with layer norm": ("resnet", {"norm": "layer"}),
    "resnet without norm": ("resnet", {"norm": "none"}),
    "transformer with relu": ("transformer", {"activation": "relu"}),
    "gin with layer norm": ("gin", {"norm": "layer"}),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, **options) -> Architecture:
    kind, variant = VARIANTS[name]
    return build_architecture(kind, SMALL[kind] | variant | options, INPUTS[kind], 3).to(
        "cpu", torch.float64
    )


def network(architecture: Architecture, seed: int) -> Params:
    return {name: tensor.double() for name, tensor in architecture.init(generator(seed)).items()}


def minibatch(name: str, seed: int, count: int = 6) -> tuple[Tensor, Tensor]:
    source = generator(seed)
    shape = INPUTS[VARIANTS[name][0]]
    return torch.randn(count, *shape, generator=source, dtype=torch.float64), torch.randint(
        3, (count,), generator=source
    )


def loss_of(architecture: Architecture, batch: tuple[Tensor, Tensor]):
    x, y = batch
    return lambda params: F.cross_entropy(architecture.apply_training(params, x)[0], y)


def kept_by(name: str, architecture: Architecture, **options):
    return find_laws(
        architecture.space,
        loss_of(architecture, minibatch(name, 0)),
        network(architecture, 0),
        architecture.free,
        **options,
    )


OPTIMIZERS = {
    "sgd": lambda tensors: torch.optim.SGD(tensors, lr=0.05),
    "momentum": lambda tensors: torch.optim.SGD(tensors, lr=0.02, momentum=0.9, weight_decay=0.01),
    "adam": lambda tensors: torch.optim.Adam(tensors, lr=0.01),
}


def trained(
    name: str, architecture: Architecture, optimizer: str, steps: int
) -> tuple[Params, Params]:
    """Params and gradients at every step of training, each step on another minibatch."""
    params = {
        n: t.requires_grad_(n not in architecture.statistics)
        for n, t in network(architecture, 1).items()
    }
    stepper = OPTIMIZERS[optimizer]([t for t in params.values() if t.requires_grad])
    checkpoints, gradients = [], []
    for step in range(steps):
        x, y = minibatch(name, 10 + step)
        logits, statistics = architecture.apply_training(params, x)
        stepper.zero_grad()
        F.cross_entropy(logits, y).backward()
        for n, mask in architecture.free.items():
            params[n].grad *= mask
        checkpoints.append({n: t.detach().clone() for n, t in params.items()})
        gradients.append({n: t.grad.clone() for n, t in params.items() if t.grad is not None})
        stepper.step()
        params |= statistics
    return stack(checkpoints), stack(gradients)


# quantities and residuals, against loops


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


# along training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_laws_of_every_architecture_hold_on_every_minibatch(name, optimizer):
    architecture = build(name)
    named = kept_by(name, architecture)
    assert named
    params, gradients = trained(name, architecture, optimizer, 8)
    for law, values in residuals(named, params, gradients).items():
        assert float(values.max()) < 1e-12, law


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_space_declares_is_found(name):
    architecture = build(name)
    kept = {law.name for law in kept_by(name, architecture)}
    for law in declared_laws(architecture.space):
        assert law.name in kept or law.name.replace("balance", "matrix") in kept


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("asymmetry", ["gelu", "w", "sigma"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_where_the_symmetry_is_gone_the_laws_of_the_standard_network_do_not_hold(
    name, asymmetry, optimizer
):
    standard = build(name)
    if asymmetry == "gelu":
        other = build(name, activation="gelu")
    else:
        options = {"n_fix": 0.3} if asymmetry == "w" else {}
        other = make_asymmetric(build(name), asymmetry, options, 0).to("cpu", torch.float64)
    params, gradients = trained(name, other, optimizer, 5)
    assert declared_laws(other.space) == ()
    for values in residuals(standard.space, params, gradients).values():
        assert float(values.amax(-1).min()) > 1e-3
        assert float(values.median()) > 1e-3
    assert {law.kind for law in kept_by(name, other)} <= {"shift"}


def test_fixed_entries_break_a_law_only_if_masks_are_given():
    architecture = make_asymmetric(build("mlp"), "w", {"n_fix": 0.3}, 0).to("cpu", torch.float64)
    loss, params = loss_of(architecture, minibatch("mlp", 0)), network(architecture, 0)
    assert names(find_laws(architecture.space, loss, params, architecture.free)) == [
        "layers.2.bias.shift"
    ]
    assert [law.name for law in find_laws(architecture.space, loss, params)][:2] == [
        "h1.balance",
        "h2.balance",
    ]


# which laws a loss keeps


def names(laws) -> list[str]:
    return [law.name for law in laws]


EXPECTED = {
    "mlp": ["h1.balance", "h2.balance", "layers.2.weight.shift", "layers.2.bias.shift"],
    "linear mlp": ["h1.matrix", "h2.matrix", "layers.2.weight.shift", "layers.2.bias.shift"],
    "siren": ["layers.2.weight.shift", "layers.2.bias.shift"],
    "transformer": [
        *(
            "d.balance",
            "qk1.matrix",
            "v1.matrix",
            "embed.weight.shift",
            "embed.bias.shift",
            "position.weight.shift",
        ),
        *(
            "blocks.0.out.weight.shift",
            "blocks.0.out.bias.shift",
            "blocks.0.fc2.weight.shift",
            "blocks.0.fc2.bias.shift",
        ),
        *("classifier.weight.shift", "classifier.bias.shift"),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_laws_that_are_found(name):
    assert names(kept_by(name, build(name))) == EXPECTED[name]


def test_norms_keep_the_scale_of_what_stands_before_them_up_to_their_epsilon():
    name = "resnet"
    architecture = build(name)
    exact, nearly = (kept_by(name, architecture, tolerance=tol) for tol in (1e-10, 1e-2))
    scales = [(law.name, law.shape) for law in nearly if law.kind == "scale"]
    weights = [n for n, text in architecture.space.tensors.items() if "^0 <-" in text]
    # of each convolution, for each channel, and not again of all that add into a stream
    assert scales == [(f"{n}.scale", architecture.space.shapes[n][:1]) for n in weights]
    assert all(law.kind != "scale" for law in exact)


def test_all_that_adds_into_a_normed_stream_has_one_scale():
    name = "transformer"
    architecture = build(name)
    (law,) = [law for law in kept_by(name, architecture, tolerance=1e-2) if law.kind == "scale"]
    assert law.shape == ()
    assert set(law.tensors) == {
        n for n, text in architecture.space.tensors.items() if "d^0" in text
    }


class Normed(nn.Module):
    """Norms without an epsilon: what stands before them may be scaled."""

    def __init__(self, norm: str):
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(2, 4, 3), nn.Linear(4, 6), nn.Linear(6, 3)
        self.norm = (
            nn.BatchNorm2d(4, eps=1e-30)
            if norm == "batch"
            else nn.GroupNorm(2 if norm == "group" else 1, 4, eps=0.0)
        )
        self.layer_norm = nn.LayerNorm(6, eps=0.0)

    def forward(self, x):
        h = F.gelu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(F.gelu(self.layer_norm(self.fc(h))))


@pytest.mark.parametrize(("norm", "shape"), [("batch", (2, 2)), ("group", (2,)), ("layer", ())])
def test_scales_before_norms_without_epsilon_are_found_exactly(norm, shape):
    module, source = Normed(norm).double(), generator(0)
    x, y = torch.randn(7, 2, 5, 5, generator=source, dtype=torch.float64), torch.arange(7) % 3
    groups = {
        "x": NeuronGroup(2),
        "g": NeuronGroup(2),
        "c": NeuronGroup(2),
        "h": NeuronGroup(6),
        "y": NeuronGroup(3, False),
    }
    c = "(g c)"
    space = WeightSpace(
        groups,
        {
            "conv.weight": f"{c} <- x 3 3",
            "conv.bias": c,
            "fc.weight": f"h <- {c}",
            "fc.bias": "h",
            "out.weight": "y <- h",
            "out.bias": "y",
            "norm.weight": c,
            "norm.bias": c,
            "layer_norm.weight": "h",
            "layer_norm.bias": "h",
        },
    )
    params = {name: tensor.detach() for name, tensor in module.named_parameters()}
    call = lambda p: F.cross_entropy(torch.func.functional_call(module, p, x), y)  # noqa: E731
    laws = {law.name: law for law in find_laws(space, call, params, tolerance=1e-9)}
    shapes = {name: law.shape for name, law in laws.items() if law.kind == "scale"}
    assert shapes == {"conv.weight.scale": shape, "fc.weight.scale": ()}
    assert ("conv.bias" in laws["conv.weight.scale"].tensors) == (
        norm != "batch"
    )  # batch norm takes the bias away
    assert laws["fc.weight.scale"].tensors == ("fc.weight", "fc.bias")
    assert {"fc.weight.shift", "out.weight.shift"} <= set(laws)


def test_a_traced_module_has_laws():
    module = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 5), nn.Linear(5, 2))
    x = torch.randn(8, 4, generator=generator(0))
    traced = trace(module, x)
    (relu, linear) = declared_laws(traced.space)
    assert (relu.shape, linear.shape) == ((6,), (5,))
    params = module_params(traced.space, module)
    laws = find_laws(traced.space, lambda p: traced.apply(p, x.double()).square().mean(), params)
    assert names(laws) == [relu.name, linear.name.replace("balance", "matrix")]


def test_a_law_needs_a_gradient_to_be_found():
    architecture = build("mlp")
    assert (
        find_laws(
            architecture.space, lambda p: 0 * p["layers.0.bias"].sum(), network(architecture, 0)
        )
        == ()
    )


# arguments


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
