"""Architectures of the networks of a zoo, standard and asymmetric."""

from zoo.architectures.asymmetric import (
    ASYMMETRIES,
    bias_asymmetric,
    sigma_asymmetric,
    syre,
    w_asymmetric,
)
from zoo.architectures.base import ACTIVATIONS, Architecture
from zoo.architectures.cnn import cnn
from zoo.architectures.gin import gin
from zoo.architectures.mlp import mlp
from zoo.architectures.resnet import resnet, resnet_n_fix
from zoo.architectures.siren import siren
from zoo.architectures.table import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.architectures.transformer import transformer

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "ASYMMETRIES",
    "Architecture",
    "bias_asymmetric",
    "build_architecture",
    "cnn",
    "gin",
    "make_asymmetric",
    "mlp",
    "resnet",
    "resnet_n_fix",
    "sigma_asymmetric",
    "siren",
    "syre",
    "transformer",
    "w_asymmetric",
]
