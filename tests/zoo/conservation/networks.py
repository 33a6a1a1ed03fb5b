"""Small networks, their batches and their training, for tests of conservation laws."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.instances import INPUTS
from zoo.architectures import ARCHITECTURES, Architecture, build_architecture
from zoo.conservation.find import find_laws
from zoo.params import Params, stack

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


def names(laws) -> list[str]:
    return [law.name for law in laws]
