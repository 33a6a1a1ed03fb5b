"""Networks with and without planted faults."""

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from zoo.architectures import Architecture, build_mlp, make_asymmetric
from zoo.weight_space import NeuronGroup, WeightSpace

INPUT = (2, 8, 8)


X = torch.randn(5, *INPUT, generator=torch.Generator().manual_seed(7))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
