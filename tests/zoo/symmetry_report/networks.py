"""Networks in double precision, batches for them, and their symmetry report."""

import torch
from torch import Tensor

from zoo.architectures import Architecture, build_architecture
from zoo.params import Params
from zoo.symmetry.report import SymmetryReport
from zoo.symmetry.residual import symmetry_report

INPUT, CLASSES = (2, 6, 6), 3
STANDARD = {
    "mlp": ("mlp", {"hidden": (6, 5)}),
    "deep mlp": ("mlp", {"hidden": (5, 4, 4), "activation": "leaky_relu"}),
    "cnn": ("cnn", {"channels": (4, 5)}),
    "flattened cnn": ("cnn", {"channels": (3, 4), "pool": "flatten"}),
}
NORMED = {"resnet with batch norm": ("resnet", {"channels": (3, 4, 4)})}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(architecture: Architecture) -> Architecture:
    return architecture.to("cpu", torch.float64)


def build(name: str, **options) -> Architecture:
    kind, options_of_name = (STANDARD | NORMED)[name]
    return double(build_architecture(kind, options_of_name | options, INPUT, CLASSES))


def network(architecture: Architecture, seed: int) -> Params:
    return {name: tensor.double() for name, tensor in architecture.init(generator(seed)).items()}


def minibatch(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    source = generator(seed)
    x = torch.randn(count, *INPUT, generator=source, dtype=torch.float64)
    return x, torch.randint(CLASSES, (count,), generator=source)


def residual(architecture: Architecture, params: Params, batch=None, **options) -> SymmetryReport:
    batch = minibatch(0) if batch is None else batch
    return symmetry_report(
        architecture.apply, params, batch, architecture.space, free=architecture.free, **options
    )
