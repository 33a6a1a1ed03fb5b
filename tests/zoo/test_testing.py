"""The laws that users get hold for what is good, and name what is wrong."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.zoo.instances import INPUTS, instance
from zoo.architectures import (
    ARCHITECTURES,
    ASYMMETRIES,
    Architecture,
    build_cnn,
    build_mlp,
    make_asymmetric,
)
from zoo.params import batch_shape
from zoo.pattern import Sum
from zoo.testing import (
    LAWS,
    assert_equivariant,
    assert_function_preserved,
    check_architecture,
    random_params,
    random_weight_space,
)
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT = (2, 8, 8)
X = torch.randn(5, *INPUT, generator=torch.Generator().manual_seed(7))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# check_architecture: good ones


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_of_the_table_keeps_the_laws(name):
    inputs = torch.randn(5, *INPUTS[name], generator=generator(0))
    assert check_architecture(instance(name), inputs) == list(LAWS)


@pytest.mark.parametrize("kind", ASYMMETRIES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_asymmetric_twins_keep_them_too(name, kind):
    inputs = torch.randn(5, *INPUTS[name], generator=generator(0))
    check_architecture(make_asymmetric(instance(name), kind, {}, 0), inputs)


def test_options_of_a_builder_are_passed_on():
    assert check_architecture("mlp", hidden=(3,)) == list(LAWS)
    check_architecture("cnn", X[:, :1], 4, channels=(4, 8), norm="group", pool="flatten")
    with pytest.raises(ValueError, match="unknown option 'depth' of architecture 'mlp'"):
        check_architecture("mlp", depth=3)


def test_an_architecture_comes_with_inputs_and_without_options():
    architecture = build_mlp(INPUT, 3)
    check_architecture(architecture, X)
    for options in ({}, {"inputs": X, "hidden": (3,)}):
        with pytest.raises(ValueError, match="expected an architecture with inputs and no options"):
            check_architecture(architecture, **options)


# check_architecture: planted faults


def with_group(architecture: Architecture, name: str, **fields) -> Architecture:
    groups = architecture.space.groups
    return replace(
        architecture,
        space=WeightSpace(
            {**groups, name: replace(groups[name], **fields)}, architecture.space.tensors
        ),
    )


def with_pattern(architecture: Architecture, name: str, text: str) -> Architecture:
    return replace(
        architecture,
        space=WeightSpace(architecture.space.groups, {**architecture.space.tensors, name: text}),
    )


def with_init(change) -> Architecture:
    """An mlp whose draw of initial parameters is changed by `change(params, generator)`."""
    good = build_mlp(INPUT, 3, (4, 4))

    def draw(source: torch.Generator):
        params = good.draw(source)
        return {**params, **change(params, source)}

    return replace(good, draw=draw)


def with_forward(change) -> Architecture:
    """An mlp whose forward pass is `change(forward, params, x, activate)`."""
    good = build_mlp(INPUT, 3, (4, 4))
    return replace(good, forward=partial(change, good.forward))


def with_constants(**constants: torch.Tensor) -> Architecture:
    good = make_asymmetric(build_mlp(INPUT, 3, (4, 4)), "w", {}, 0)
    merged = {
        **good.constants,
        **{name.replace("__", ".", 1).replace("_", "."): t for name, t in constants.items()},
    }
    return replace(good, constants=merged)


def batch_normed(gamma: str = "h", statistics: str = "h") -> Architecture:
    """One hidden layer with the running statistics of a BatchNorm; its epsilon stops scales."""
    groups = {
        "x": NeuronGroup(128, permutable=False),
        "h": NeuronGroup(4, scaling="positive", activation="relu"),
        "y": NeuronGroup(3, permutable=False),
    }
    tensors = {
        "in.weight": "h^0 <- x" if gamma == "h" else "h <- x",
        "norm.mean": "h^0" if statistics == "h" else statistics,
        "norm.var": "h^0" if statistics == "h" else statistics,
        "norm.weight": gamma,
        "norm.bias": gamma,
        "out.weight": "y <- h",
    }
    space = WeightSpace(groups, tensors)

    def draw(source):
        params = {
            name: 0.3 * torch.randn(shape, generator=source) for name, shape in space.shapes.items()
        }
        return params | {
            "norm.var": 1 + torch.rand(4, generator=source),
            "norm.weight": torch.ones(4),
        }

    def forward(params, x, activate):
        h = F.linear(x.flatten(1), params["in.weight"]) - params["norm.mean"]
        h = h / (params["norm.var"] + 1e-5).sqrt() * params["norm.weight"] + params["norm.bias"]
        return F.linear(activate("h", h), params["out.weight"])

    return Architecture(space, draw, forward)


def training_batch_norm(change=lambda new: new, where: str = "h") -> Architecture:
    """The same layer with declared running statistics; `change` is done to their new values."""
    good = batch_normed(statistics=where)
    declared = {
        f"statistic.norm.{kind}": torch.ones(4, dtype=torch.bool) for kind in ("mean", "var")
    }

    def forward_training(params, x, activate):
        z = F.linear(x.flatten(1), params["in.weight"])
        batch = {"norm.mean": z.mean(0), "norm.var": z.var(0, correction=0)}
        logits = good.forward({**params, **batch}, x, activate)
        return logits, change({name: 0.9 * params[name] + 0.1 * batch[name] for name in batch})

    return replace(good, constants=declared, forward_training=forward_training)


def residual(first: str = "h", second: str = "h") -> Architecture:
    """A stream that two layers write: good if both write the same group."""
    groups = {
        name: NeuronGroup(size, permutable=name in "hst")
        for name, size in (("x", 128), ("y", 3), ("s", 5))
    }
    groups |= {name: NeuronGroup(4) for name in {first, second}} | {
        "s": NeuronGroup(5, scaling="positive", activation="relu")
    }
    tensors = {
        "0": f"{first} <- x",
        "1": f"s <- {first}",
        "2": f"{second} <- s",
        "3": f"y <- {second}",
    }
    space = WeightSpace(groups, tensors)

    def draw(source):
        return {
            name: 0.3 * torch.randn(shape, generator=source) for name, shape in space.shapes.items()
        }

    def forward(params, x, activate):
        h = F.linear(x.flatten(1), params["0"])
        return F.linear(
            h + F.linear(activate("s", F.linear(h, params["1"])), params["2"]), params["3"]
        )

    return Architecture(space, draw, forward)


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


# assert_function_preserved


def test_outputs_may_be_any_tree_and_params_single_precision():
    architecture = build_mlp(INPUT, 3, (4, 4))
    params = architecture.init(generator(0))
    for wrap in (lambda y: y, lambda y: (y, [y]), lambda y: {"logits": y, "cache": None}):
        assert_function_preserved(
            architecture.space, lambda p, wrap=wrap: wrap(architecture.apply(p, X)), params
        )


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


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_prove_nothing(bad):
    space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    with pytest.raises(AssertionError, match="not finite before anything moves"):
        assert_function_preserved(space, lambda p: p["bias"] + bad, {"bias": torch.zeros(3)})


def test_many_networks_at_once():
    space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    params = random_params(space, generator(0), (2, 5))
    assert_function_preserved(space, lambda p: p["bias"].sum(-1), params)
    with pytest.raises(AssertionError, match="group 'h' declares permutations"):
        assert_function_preserved(space, lambda p: p["bias"].cumsum(-1), params)


# assert_equivariant

SPACE = WeightSpace(
    {
        "x": NeuronGroup(2, permutable=False),
        "h": NeuronGroup(4, scaling="positive"),
        "k": NeuronGroup(3, scaling="sign"),
    },
    {"0.weight": "h <- x", "0.bias": "h", "1.weight": "k <- h", "flat": "(k 2)", "scalar": ""},
)
NODES = WeightSpace({"h": SPACE.groups["h"], "k": SPACE.groups["k"]}, {"h": "h", "k": "k"})


def features(*batch: int) -> dict[str, torch.Tensor]:
    return random_params(SPACE, generator(0), batch)


def pooled(p) -> dict[str, torch.Tensor]:
    """Each weight with the mean of its row and of its bias added."""
    rows = p["0.weight"] + p["0.weight"].mean(-1, keepdim=True) + p["0.bias"][..., None]
    return {**p, "0.weight": rows, "1.weight": p["1.weight"].relu() + p["0.bias"][..., None, :]}


def channels_mixed(p) -> dict[str, torch.Tensor]:
    mixing = torch.randn(6, 3, generator=generator(1), dtype=torch.float64)
    return {name: torch.einsum("dc,bc...->bd...", mixing, tensor) for name, tensor in p.items()}


def to_nodes(p) -> dict[str, torch.Tensor]:
    return {
        "h": p["0.weight"].sum(-1) * p["0.bias"],
        "k": p["1.weight"].sum(-1) + p["flat"].unflatten(-1, (3, 2)).sum(-1),
    }


def test_equivariant_and_invariant_layers():
    assert_equivariant(lambda p: p, SPACE, features())
    assert_equivariant(pooled, SPACE, features())
    assert_equivariant(pooled, SPACE, features(3))
    assert_equivariant(pooled, SPACE, features(3, 2))
    assert_equivariant(channels_mixed, SPACE, features(2, 3))
    assert_equivariant(to_nodes, SPACE, features(2, 3), NODES)
    assert_equivariant(
        lambda p: {n: t.mean(1) for n, t in to_nodes(p).items()}, SPACE, features(2, 3), NODES
    )
    assert_equivariant(lambda p: p["0.bias"].sum(-1), SPACE, features(2, 3), "invariant")
    assert_equivariant(
        lambda p: {"a": p["1.weight"].amax((-1, -2)), "b": [p["scalar"]]},
        SPACE,
        features(2, 3),
        "invariant",
    )
    assert_equivariant(
        lambda p: {n: t.float() for n, t in p.items()}, SPACE, features(2), tolerance=1e-5
    )


def test_scales_are_respected_if_asked_for():
    gated = WeightSpace({"h": SPACE.groups["h"]}, {"bias": "h", "out": "<- h"})
    params = random_params(gated, generator(0), (2,))
    assert_equivariant(lambda p: {**p, "bias": p["bias"].relu()}, gated, params, scales=True)
    assert_equivariant(
        lambda p: (p["bias"] * p["out"]).sum(-1), gated, params, "invariant", scales=True
    )
    assert_equivariant(lambda p: {**p, "bias": p["bias"] ** 2}, gated, params)
    with pytest.raises(AssertionError, match="not equivariant: 'bias'"):
        assert_equivariant(lambda p: {**p, "bias": p["bias"] ** 2}, gated, params, scales=True)


BAD_LAYERS = {
    "position": (
        lambda p: {**p, "0.bias": p["0.bias"] * torch.arange(4)},
        None,
        "not equivariant: '0.bias'",
    ),
    "wrong axis": (
        lambda p: {**p, "1.weight": p["1.weight"].cumsum(-1)},
        None,
        "not equivariant: '1.weight'",
    ),
    "untied": (
        lambda p: {**p, "0.weight": p["0.weight"].flip(-2)},
        None,
        "not equivariant: '0.weight'",
    ),
    "networks mixed": (lambda p: {n: t + t.mean(0) for n, t in p.items()}, None, "not equivariant"),
    "missing": (
        lambda p: {"0.bias": p["0.bias"]},
        None,
        "do not fit their weight space: .*missing",
    ),
    "a tensor": (lambda p: p["0.bias"], None, "expected a mapping of tensors, got Tensor"),
    "shape": (
        lambda p: {**p, "scalar": p["0.bias"]},
        None,
        "do not fit their weight space: tensor 'scalar'",
    ),
    "nan": (
        lambda p: {**p, "scalar": p["scalar"] / 0},
        None,
        "outputs of the layer are not finite",
    ),
    "nodes": (
        lambda p: {**to_nodes(p), "k": to_nodes(p)["k"].cumsum(-1)},
        NODES,
        "not equivariant: 'k'",
    ),
    "not invariant": (
        lambda p: p["0.bias"][..., 0],
        "invariant",
        "the layer is not invariant: 'output' is off by",
    ),
    "one of two": (
        lambda p: {"a": p["scalar"], "b": p["flat"][..., :1]},
        "invariant",
        "not invariant: 'b'",
    ),
    "nothing": (lambda p: None, "invariant", "expected a layer that gives tensors, got NoneType"),
    "other outputs": (
        lambda p: {"a": 0, "bcde"[int(p["0.bias"][0].argmax())]: p["scalar"]},
        "invariant",
        "changes its outputs",
    ),
}


@pytest.mark.parametrize(("layer", "output_space", "message"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_a_layer_that_is_not_equivariant_is_named(layer, output_space, message):
    with pytest.raises(AssertionError, match=message):
        assert_equivariant(layer, SPACE, features(3), output_space)


# random spaces


def test_random_spaces_cover_the_language():
    spaces = [random_weight_space(generator(seed)) for seed in range(100)]
    patterns = [space.pattern(name) for space in spaces for name in space.tensors]
    texts = [text for space in spaces for text in space.tensors.values()]
    assert any(pattern.read_first for pattern in patterns)
    assert any(
        isinstance(factor, Sum) for pattern in patterns for axis in pattern.axes for factor in axis
    )
    assert any(len(axis) > 1 for pattern in patterns for axis in pattern.axes)
    for part in ("^2", "^0", "^-1", "h1 <- h1", " 2 2"):
        assert any(part in text for text in texts), part
    assert "" in texts
    declared = {
        (group.permutable, group.scaling) for space in spaces for group in space.groups.values()
    }
    assert len(declared) == 8
    assert {group.size for space in spaces for group in space.groups.values()} == {1, 2, 3, 4}
    assert len({space.fingerprint for space in spaces}) > 90


def test_random_spaces_and_params_come_from_their_generator():
    before = torch.get_rng_state()
    first, again = random_weight_space(generator(1), 2), random_weight_space(generator(1), 2)
    assert first == again
    assert max(group.size for group in first.groups.values()) <= 2
    params, same = (random_params(first, generator(2), (3, 2), torch.float32) for _ in range(2))
    assert batch_shape(first, params) == (3, 2)
    assert all(
        torch.equal(params[name], same[name]) and params[name].dtype == torch.float32
        for name in first.tensors
    )
    assert torch.equal(before, torch.get_rng_state())
