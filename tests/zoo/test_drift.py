"""How conserved quantities move: the exact law of SGD, its split, and bounds on norms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures import Architecture, build_architecture, build_cnn, build_mlp
from zoo.conservation.drift import norm_bounds, predicted_drift, split_drift
from zoo.conservation.find import find_laws
from zoo.conservation.laws import Law, balance, declared_laws, matrix, scale, shift
from zoo.conservation.quantities import conserved_quantities, residuals
from zoo.params import Params
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT, CLASSES, STEPS = (1, 5, 5), 3, 50


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def minibatch(seed: int) -> tuple[Tensor, Tensor]:
    source = generator(seed)
    return torch.randn(8, *INPUT, generator=source, dtype=torch.float64), torch.randint(
        CLASSES, (8,), generator=source
    )


def of_architecture(architecture: Architecture):
    params = {name: t.double() for name, t in architecture.init(generator(0)).items()}
    x, y = minibatch(0)
    named = find_laws(
        architecture.space, lambda p: F.cross_entropy(architecture.apply(p, x), y), params
    )
    return named, params, architecture.apply


def squared_relu():
    """Degree 2: a scale of the hidden neurons is undone by the square of its reciprocal."""
    space = WeightSpace(
        {
            "x": NeuronGroup(25, permutable=False),
            "h": NeuronGroup(6, scaling="positive"),
            "y": NeuronGroup(3, permutable=False),
        },
        {"w1": "h <- x", "b1": "h", "w2": "y <- h^2", "b2": "y"},
    )
    params = {name: 0.5 * tensor for name, tensor in random_params(space, generator(0)).items()}
    return (
        (*declared_laws(space), shift(space, "w2")),
        params,
        lambda p, x: (x.flatten(1) @ p["w1"].T + p["b1"]).relu() ** 2 @ p["w2"].T + p["b2"],
    )


CASES = {
    "mlp": lambda: of_architecture(build_mlp(INPUT, CLASSES, (8, 6))),
    "cnn": lambda: of_architecture(build_cnn(INPUT, CLASSES, (4, 5), strides=1)),
    "leaky relu": lambda: of_architecture(
        build_mlp(INPUT, CLASSES, (8, 6), activation="leaky_relu")
    ),
    "squared relu": squared_relu,
    "linear": lambda: of_architecture(build_mlp(INPUT, CLASSES, (8, 6), activation="linear")),
    "attention": lambda: of_architecture(
        build_architecture("transformer", {"patch": 5, "dim": 8, "depth": 1}, INPUT, CLASSES)
    ),
}


def gradients_of(apply, params: Params, seed: int) -> Params:
    x, y = minibatch(seed)
    return torch.func.grad(lambda p: F.cross_entropy(apply(p, x), y))(params)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("case", CASES)
def test_the_discrete_law_of_sgd_is_exact(case, decay):
    named, params, apply = CASES[case]()
    lr, moved = 0.1, 0.0
    for step in range(STEPS):
        gradients = gradients_of(apply, params, step)
        now, drift = (
            conserved_quantities(named, params),
            predicted_drift(named, params, gradients, lr, decay),
        )
        params = {
            name: tensor - lr * (gradients[name] + decay * tensor)
            for name, tensor in params.items()
        }
        for name, after in conserved_quantities(named, params).items():
            size = max(1.0, float(after.abs().max()))
            assert float((now[name] + drift[name] - after).abs().max()) < 1e-12 * size, (name, step)
            moved = max(moved, float(drift[name].abs().max()))
    assert moved > 1e-5  # there was something to predict


def test_the_discrete_law_in_its_own_words():
    """`Q' = (1 - eta lam)^2 Q + eta^2 (k |g_out|^2 - |g_in|^2 - g_b^2)`, entry by entry."""
    named, params, apply = squared_relu()
    g, eta, lam = gradients_of(apply, params, 0), 0.1, 0.3
    q = 2 * params["w2"].square().sum(0) - params["w1"].square().sum(1) - params["b1"].square()
    torch.testing.assert_close(conserved_quantities(named, params)["h.balance"], q)
    expected = (1 - eta * lam) ** 2 * q + eta**2 * (
        2 * g["w2"].square().sum(0) - g["w1"].square().sum(1) - g["b1"].square()
    )
    torch.testing.assert_close(
        q + predicted_drift(named, params, g, eta, lam)["h.balance"], expected
    )


def test_step_size_and_decay_of_each_network():
    named, params, _ = CASES["mlp"]()
    params = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in params.items()}
    gradients = {name: tensor.cos() for name, tensor in params.items()}
    after = {name: tensor.sin() for name, tensor in params.items()}
    rates, decays = (
        torch.tensor([0.1, 0.2], dtype=torch.float64),
        torch.tensor([0.0, 0.3], dtype=torch.float64),
    )
    both = (
        predicted_drift(named, params, gradients, rates, decays),
        split_drift(named, params, after, gradients, rates, decays),
    )
    for i in range(2):
        p, g, a = (
            {name: tensor[i] for name, tensor in source.items()}
            for source in (params, gradients, after)
        )
        drift = predicted_drift(named, p, g, float(rates[i]), float(decays[i]))
        split = split_drift(named, p, a, g, float(rates[i]), float(decays[i]))
        for law in named:
            torch.testing.assert_close(both[0][law.name][i], drift[law.name])
            for term in ("discretization", "decay", "optimizer", "broken"):
                torch.testing.assert_close(
                    getattr(both[1][law.name], term)[i], getattr(split[law.name], term)
                )


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"weight_decay": 0.0}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_the_terms_of_the_drift_add_up_to_it(case, optimizer):
    named, start, apply = CASES[case]()
    params, (kind, options) = (
        {name: tensor.clone().requires_grad_() for name, tensor in start.items()},
        OPTIMIZERS[optimizer],
    )
    stepper = kind(list(params.values()), lr=0.02, **options)
    for step in range(3):
        x, y = minibatch(step)
        stepper.zero_grad()
        F.cross_entropy(apply(params, x), y).backward()
        before, gradients = (
            {n: t.clone() for n, t in source.items()}
            for source in (
                {n: t.detach() for n, t in params.items()},
                {n: t.grad for n, t in params.items()},
            )
        )
        stepper.step()
        after = {n: t.detach() for n, t in params.items()}
        split = split_drift(named, before, after, gradients, 0.02, options["weight_decay"])
        now, then = conserved_quantities(named, before), conserved_quantities(named, after)
        for law in named:
            terms, change = split[law.name], then[law.name] - now[law.name]
            torch.testing.assert_close(terms.total, change, rtol=0, atol=1e-12)
            assert float(terms.broken.abs().max()) < 1e-13
            decay = options["weight_decay"] * 0.02
            expected = ((1 - decay) ** (1 if law.kind == "shift" else 2) - 1) * now[law.name]
            torch.testing.assert_close(terms.decay, expected, rtol=1e-10, atol=1e-15)
            # The first step of momentum is one of SGD.
            if optimizer == "sgd" or (optimizer == "momentum" and step == 0):
                assert float(terms.optimizer.abs().max()) < 1e-13
                predicted = predicted_drift(named, before, gradients, 0.02, 0.1)[law.name]
                torch.testing.assert_close(terms.total, predicted, atol=1e-13, rtol=0)
            elif law.kind != "shift":
                assert float(terms.optimizer.abs().max()) > 1e-6


def test_what_breaks_a_law_is_a_term_of_its_own():
    architecture = build_mlp(INPUT, CLASSES, (8,), activation="gelu")
    params = {name: t.double() for name, t in architecture.init(generator(0)).items()}
    named, gradients = (
        [balance(architecture.space, "h1")],
        gradients_of(architecture.apply, params, 0),
    )
    assert float(residuals(named, params, gradients)["h1.balance"].max()) > 1e-3
    after = {name: tensor - 0.1 * gradients[name] for name, tensor in params.items()}
    terms = split_drift(named, params, after, gradients, 0.1)["h1.balance"]
    assert float(terms.broken.abs().max()) > 1e-4
    assert float(terms.optimizer.abs().max()) < 1e-13
    change = (
        conserved_quantities(named, after)["h1.balance"]
        - conserved_quantities(named, params)["h1.balance"]
    )
    torch.testing.assert_close(terms.total, change, rtol=0, atol=1e-13)
    assert not terms.decay.any()


def test_momentum_and_plain_sgd_keep_a_shift():
    named, params, apply = CASES["mlp"]()
    shifts = [law for law in named if law.kind == "shift"]
    gradients = gradients_of(apply, params, 0)
    for drift in predicted_drift(shifts, params, gradients, 0.5).values():
        assert not drift.any()
    assert all(
        float(value.abs().max()) < 1e-15
        for value in conserved_quantities(shifts, gradients).values()
    )


# bounds


def chain(widths: tuple[int, ...], bias: bool, scaling="positive") -> WeightSpace:
    groups = {f"h{i}": NeuronGroup(width, scaling=scaling) for i, width in enumerate(widths)}
    groups |= {
        name: NeuronGroup(widths[i], permutable=False)
        for name, i in (("h0", 0), (f"h{len(widths) - 1}", -1))
    }
    tensors = {}
    for i in range(1, len(widths)):
        tensors |= {f"w{i}": f"h{i} <- h{i - 1}"} | ({f"b{i}": f"h{i}"} if bias else {})
    return WeightSpace(groups, tensors)


def norms_of(params: Params) -> Params:
    return {name: tensor.square().sum().sqrt() for name, tensor in params.items()}


def flow(apply, params: Params, seconds: float, steps: int) -> Params:
    """Gradient flow by RK4."""

    def velocity(p: Params) -> Params:
        return {name: -g for name, g in gradients_of(apply, p, 0).items()}

    def ahead(p: Params, v: Params, t: float) -> Params:
        return {name: tensor + t * v[name] for name, tensor in p.items()}

    h = seconds / steps
    for _ in range(steps):
        k1 = velocity(params)
        k2 = velocity(ahead(params, k1, h / 2))
        k3 = velocity(ahead(params, k2, h / 2))
        k4 = velocity(ahead(params, k3, h))
        params = {n: t + h / 6 * (k1[n] + 2 * k2[n] + 2 * k3[n] + k4[n]) for n, t in params.items()}
    return params


def test_without_biases_one_layer_bounds_all_and_exactly():
    space = chain((25, 6, 5, 3), bias=False)
    start = {name: 0.3 * tensor for name, tensor in random_params(space, generator(0)).items()}
    apply = lambda p, x: ((x.flatten(1) @ p["w1"].T).relu() @ p["w2"].T).relu() @ p["w3"].T  # noqa: E731
    later = norms_of(flow(apply, start, 2.0, 400))
    assert max(abs(float(later[name] - norms_of(start)[name])) for name in later) > 0.1
    for known in ("w1", "w2", "w3"):
        bounds = norm_bounds(space, start, {known: later[known]})
        assert set(bounds) == set(later)
        for name, bound in bounds.items():
            torch.testing.assert_close(bound, later[name], rtol=1e-4, atol=0)


def test_with_biases_the_last_layer_bounds_the_others_and_the_first_does_not():
    space = chain((25, 6, 5, 3), bias=True)
    start = {name: 0.3 * tensor for name, tensor in random_params(space, generator(0)).items()}

    def apply(p, x):
        h = (x.flatten(1) @ p["w1"].T + p["b1"]).relu()
        return (h @ p["w2"].T + p["b2"]).relu() @ p["w3"].T + p["b3"]

    later = norms_of(flow(apply, start, 1.0, 100))
    bounds = norm_bounds(space, start, {"w3": later["w3"]})
    assert set(bounds) == {"w1", "b1", "w2", "b2", "w3"}
    assert all(later[name] <= bound * (1 + 1e-6) < math.inf for name, bound in bounds.items())
    constants = {
        name: float(value.sum()) for name, value in conserved_quantities(space, start).items()
    }
    torch.testing.assert_close(
        float(bounds["w2"]) ** 2, float(later["w3"]) ** 2 - constants["h2.balance"]
    )
    torch.testing.assert_close(
        float(bounds["w1"]) ** 2, float(bounds["w2"]) ** 2 - constants["h1.balance"]
    )
    first = norm_bounds(space, start, {"w1": later["w1"]})
    assert math.isinf(first["w2"]) and math.isinf(first["b1"])
    both = norm_bounds(space, start, {"w1": later["w1"], "b1": later["b1"], "b2": later["b2"]})
    torch.testing.assert_close(both["w3"], later["w3"], rtol=1e-4, atol=0)


def test_bounds_of_matrices_scales_powers_and_many_networks():
    space = chain((4, 3, 2), bias=False, scaling="any")
    params = random_params(space, generator(0), (5,))
    total = params["w2"].square().sum((1, 2)) - params["w1"].square().sum((1, 2))
    known = torch.arange(13.0, 18.0, dtype=torch.float64)
    for law in (matrix(space, "h1"), balance(space, "h1")):
        bounds = norm_bounds([law], params, {"w1": known})
        torch.testing.assert_close(bounds["w2"], (known.square() + total).sqrt())
    fixed = norm_bounds([scale(space, ["w1"], 1), shift(space, "w2")], params, {})
    assert set(fixed) == {"w1"}
    torch.testing.assert_close(fixed["w1"], params["w1"].flatten(1).norm(dim=1))
    squared = WeightSpace(space.groups, {"w1": "h1 <- h0", "w2": "h2 <- h1^2", "r": "h1 <- h1"})
    extended = {**params, "r": torch.ones(5, 3, 3, dtype=torch.float64)}
    bounds = norm_bounds([balance(squared, "h1")], extended, {"w1": known})
    total = 2 * params["w2"].square().sum((1, 2)) - params["w1"].square().sum((1, 2))
    torch.testing.assert_close(bounds["w2"], ((known.square() + total) / 2).sqrt())


def test_a_tensor_is_bounded_only_if_all_its_parts_are():
    groups = {"x": NeuronGroup(2), "h": NeuronGroup(3, scaling="positive"), "y": NeuronGroup(2)}
    space = WeightSpace(groups, {"w": "h <- x", "v": "y <- (h + x)"})
    params = random_params(space, generator(0))
    known = torch.tensor(9.0, dtype=torch.float64)
    assert math.isinf(norm_bounds(space, params, {"w": known})["v"])
    bounds = norm_bounds(space, params, {"v": known})
    assert float(bounds["v"]) == 9
    constant = params["v"][:, :3].square().sum() - params["w"].square().sum()
    torch.testing.assert_close(bounds["w"], (81 - constant).sqrt())


def test_a_missing_tensor_is_refused():
    named, params, _ = CASES["mlp"]()
    law: Law = named[0]
    short = {name: tensor for name, tensor in params.items() if name != law.tensors[0]}
    for call in (
        lambda: predicted_drift(named, short, {}, 0.1),
        lambda: split_drift(named, params, short, {}, 0.1),
        lambda: norm_bounds(named, short, {}),
    ):
        with pytest.raises(ValueError, match="missing are"):
            call()
