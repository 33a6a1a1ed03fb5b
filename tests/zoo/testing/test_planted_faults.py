"""`check_architecture` names what is wrong."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.zoo.testing.networks import (
    INPUT,
    X,
    batch_normed,
    generator,
    residual,
    training_batch_norm,
    with_constants,
    with_forward,
    with_group,
    with_init,
    with_pattern,
)
from zoo.architectures import ARCHITECTURES, build_cnn, build_mlp
from zoo.testing import LAWS, assert_function_preserved, check_architecture
from zoo.weight_space import WeightSpace


def test_the_good_twins_of_the_planted_faults_are_good():
    check_architecture(with_init(lambda params, source: {}), X)
    check_architecture(with_forward(lambda forward, *arguments: forward(*arguments)), X)
    check_architecture(batch_normed(), X)
    check_architecture(training_batch_norm(), X)
    check_architecture(residual(), X)
    check_architecture(with_constants(), X)


SEEN: list[dict[str, torch.Tensor]] = []


def late(forward, params, x, activate):
    """Runs the network of the call before."""
    used = SEEN.pop() if SEEN else params
    SEEN.append(params)
    return forward({name: tensor.to(x.dtype) for name, tensor in used.items()}, x, activate)


FAULTS = {
    # init
    "shape": (
        with_init(lambda p, s: {"layers.1.weight": torch.zeros(4, 5)}),
        r"space_fits_init.*'layers.1.weight' \('h2 <- h1'\): expected \(4, 4\), got \(4, 5\)",
    ),
    "extra tensor": (
        with_init(lambda p, s: {"more": torch.zeros(2)}),
        r"space_fits_init.*expected tensors .*got .*'more'",
    ),
    "missing tensor": (
        with_pattern(build_mlp(INPUT, 3, (4, 4)), "scale", "h1"),
        r"space_fits_init.*expected tensors .*'scale'\], got",
    ),
    "double": (
        with_init(lambda p, s: {"layers.0.bias": torch.zeros(4).double()}),
        "'layers.0.bias': expected float32",
    ),
    "not finite": (
        with_init(lambda p, s: {"layers.0.bias": torch.full((4,), torch.nan)}),
        "'layers.0.bias': expected finite",
    ),
    "global state": (
        with_init(lambda p, s: {"layers.0.bias": torch.rand(4)}),
        r"init_is_deterministic.*two draws from one seed differ in \['layers.0.bias'\]",
    ),
    "global state, unused": (
        with_init(lambda p, s: {"layers.0.bias": 0 * torch.rand(4)}),
        "global random state",
    ),
    "no randomness": (
        with_init(lambda p, s: {name: torch.ones_like(tensor) for name, tensor in p.items()}),
        "init_is_deterministic.*draws from two seeds are the same",
    ),
    # constants
    "mask of another shape": (
        with_constants(free__layers_0_weight=torch.ones(4, 4, dtype=torch.bool)),
        r"constants_fit.*'free.layers.0.weight'.*\(4, 128\), got \(4, 4\)",
    ),
    "mask of no tensor": (
        with_constants(free__other=torch.ones(4, dtype=torch.bool)),
        "constants_fit.*'free.other'.*None",
    ),
    "mask of numbers": (
        with_constants(free__layers_0_weight=torch.ones(4, 128)),
        "'free.layers.0.weight': expected booleans",
    ),
    "mask without values": (
        with_constants(free__layers_0_bias=torch.ones(4, dtype=torch.bool)),
        "no 'fixed.layers.0.bias'",
    ),
    "mixing": (
        with_constants(mixing__h1=torch.ones(3, 3)),
        r"'mixing.h1': expected \(4, 4\), got \(3, 3\)",
    ),
    # apply
    "images first": (
        with_forward(lambda f, *a: f(*a).T),
        r"apply_is_a_function.*(X = 5, got \[3, 5\]|TypeCheckError)",
    ),
    "one number": (
        with_forward(lambda f, *a: f(*a).sum()),
        r"apply_is_a_function.*(expected \[X, K\] with X = 5, got \[\]|TypeCheckError)",
    ),
    "nan": (with_forward(lambda f, *a: f(*a).log()), "expected finite outputs"),
    "dropout": (
        with_forward(lambda f, *a: F.dropout(f(*a))),
        "two calls with the same params and inputs differ",
    ),
    "in place": (
        with_forward(lambda f, p, x, a: f(p, x, a) + 0 * p["layers.0.bias"].abs_().sum()),
        r"apply changes its arguments: \['layers.0.bias'\]",
    ),
    "inputs in place": (
        with_forward(lambda f, p, x, a: f(p, x.clamp_(0), a)),
        "apply changes its arguments: inputs",
    ),
    "late": (with_forward(late), "vmap_is_a_loop"),
    "branches on values": (
        with_forward(lambda f, p, x, a: f(p, x, a) * (2 if p["layers.0.bias"].sum() > 0 else 1)),
        "vmap_is_a_loop.*raised RuntimeError",
    ),
    # gradients
    "unused": (
        with_forward(lambda f, p, x, a: f({**p, "layers.1.bias": torch.zeros(4)}, x, a)),
        "gradients_reach_every_tensor.*'layers.1.bias': its gradient is 0",
    ),
    "detached": (
        with_forward(
            lambda f, p, x, a: f({**p, "layers.0.weight": p["layers.0.weight"].detach()}, x, a)
        ),
        "'layers.0.weight': its gradient is 0",
    ),
    "infinite gradient": (
        with_forward(
            lambda f, p, x, a: f(p, x, a) + (p["layers.0.bias"] - p["layers.0.bias"]).sqrt().sum()
        ),
        "'layers.0.bias': expected a finite gradient",
    ),
    # running statistics
    "statistic forgotten": (
        training_batch_norm(lambda new: {"norm.mean": new["norm.mean"]}),
        r"training_updates_statistics.*expected statistics \['norm.mean', 'norm.var'\], "
        r"got \['norm.mean'\]",
    ),
    "statistic of another shape": (
        training_batch_norm(lambda new: {**new, "norm.var": new["norm.var"].mean()}),
        r"statistic 'norm.var' \('.*'\): expected \(4,\), got \(\)",
    ),
    "statistic infinite": (
        training_batch_norm(lambda new: {n: t / 0 for n, t in new.items()}),
        "statistic .* expected finite",
    ),
    "statistic of other neurons": (
        training_batch_norm(lambda new: {**new, "norm.mean": new["norm.mean"].flip(0)}),
        "a declared symmetry moves norm.mean wrongly",
    ),
    # declared symmetries
    "layer norm scales": (
        with_group(
            with_pattern(build_mlp(INPUT, 3, (4, 4), norm="layer"), "layers.0.weight", "h1 <- x"),
            "h1",
            scaling="positive",
        ),
        "declared_symmetries_hold.*group 'h1' declares scaling 'positive'",
    ),
    "batch norm scales": (batch_normed("h^0"), "group 'h' declares scaling 'positive'"),
    "statistics stay": (batch_normed(statistics="4"), "group 'h' declares permutations"),
    "gelu scales": (
        with_group(build_mlp(INPUT, 3, (4, 4), "gelu"), "h2", scaling="positive"),
        r"group 'h2' declares scaling 'positive'.*\(expected below 1e-10\)"
        r".*'layers.2.weight': 'y <- h2'",
    ),
    "relu signs": (
        with_group(build_mlp(INPUT, 3, (4, 4)), "h1", scaling="any"),
        "group 'h1' declares scaling 'any'",
    ),
    "outputs": (
        with_group(build_mlp(INPUT, 3), "y", permutable=True),
        "group 'y' declares permutations",
    ),
    "inputs": (
        with_group(build_mlp(INPUT, 3), "x", permutable=True),
        "group 'x' declares permutations",
    ),
    "bias stays": (
        with_pattern(build_mlp(INPUT, 3, (4, 4)), "layers.0.bias", "4"),
        "group 'h1' declares permutations",
    ),
    "norm weight, 1 at first, stays": (
        with_pattern(build_mlp(INPUT, 3, (4, 4), "gelu", "layer"), "norms.0.weight", "4"),
        "group 'h1' declares permutations",
    ),
    "bias of another group": (
        with_pattern(build_mlp(INPUT, 3, (4, 4)), "layers.0.bias", "h2"),
        "group 'h1' declares permutations",
    ),
    "residual tie": (residual("h", "t"), "group '[ht]' declares permutations"),
    "pixels before channels": (
        with_pattern(
            build_cnn(INPUT, 3, (3, 4), pool="flatten"), "classifier.weight", "y <- (4 c2)"
        ),
        "group 'c2' declares permutations",
    ),
    "norm groups": (
        replace(
            build_cnn(INPUT, 3, (4,), norm="group", norm_groups=2),
            space=build_cnn(INPUT, 3, (4,), norm="layer").space,
        ),
        "group 'c1' declares permutations",
    ),
    "fixed entries move": (
        with_group(with_constants(), "h2", permutable=True),
        r"declared_symmetries_hold.*'layers.1.weight' \('h2 <- h1'\): "
        r"a declared symmetry moves entries that are fixed",
    ),
}


@pytest.mark.parametrize(("architecture", "message"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found_and_named(architecture, message, request):
    if not request.config.getoption("jaxtyping_packages"):  # types are checked before laws are
        message = message.replace("|TypeCheckError", "")
    SEEN.clear()
    with pytest.raises(AssertionError) as caught:
        check_architecture(architecture, X)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert str(caught.value).startswith("architecture, law '")


def test_the_name_of_an_architecture_is_in_the_error(monkeypatch):
    monkeypatch.setitem(
        ARCHITECTURES, "mine", lambda input_shape, num_classes: FAULTS["gelu scales"][0]
    )
    with pytest.raises(
        AssertionError, match="architecture 'mine', law 'declared_symmetries_hold': group 'h2'"
    ):
        check_architecture("mine")


class Forgetful(WeightSpace):
    """A space whose JSON leaves the last tensor out."""

    def to_json(self) -> str:
        return WeightSpace(self.groups, dict(list(self.tensors.items())[:-1])).to_json()


def test_a_space_that_json_changes_is_found():
    good = build_mlp(INPUT, 3, (4,))
    architecture = replace(good, space=Forgetful(good.space.groups, good.space.tensors))
    with pytest.raises(AssertionError, match="the tensors of the space changed in JSON"):
        LAWS["space_survives_json"](architecture, X, 0)


def test_params_that_packing_changes_are_found():
    architecture = with_init(lambda p, s: {"layers.0.bias": torch.full((4,), torch.nan)})
    with pytest.raises(AssertionError, match=r"changed \['layers.0.bias'\]"):
        LAWS["flattening_loses_nothing"](architecture, X, 0)


def test_the_tolerance_can_be_given():
    wrong = FAULTS["gelu scales"][0]
    params = {name: tensor.double() for name, tensor in wrong.init(generator(0)).items()}
    assert_function_preserved(
        wrong.space, lambda p: wrong.apply(p, X.double()), params, tolerance=10.0
    )
    with pytest.raises(AssertionError, match="expected below 1e-03"):
        assert_function_preserved(
            wrong.space, lambda p: wrong.apply(p, X.double()), params, tolerance=1e-3
        )
