"""Architectures of the networks of a zoo, standard and asymmetric."""

from zoo.architectures.asymmetric import (
    ASYMMETRIES,
    bias_asymmetric,
    sigma_asymmetric,
    syre,
    w_asymmetric,
)
from zoo.architectures.base import ACTIVATIONS, Architecture
from zoo.architectures.cnn import build_cnn
from zoo.architectures.gin import build_gin
from zoo.architectures.mlp import build_mlp
from zoo.architectures.resnet import build_resnet, resnet_n_fix
from zoo.architectures.siren import build_siren
from zoo.architectures.table import ARCHITECTURES, build_architecture, make_asymmetric
from zoo.architectures.transformer import build_transformer

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "ASYMMETRIES",
    "Architecture",
    "bias_asymmetric",
    "build_architecture",
    "build_cnn",
    "build_gin",
    "build_mlp",
    "build_resnet",
    "build_siren",
    "build_transformer",
    "make_asymmetric",
    "resnet_n_fix",
    "sigma_asymmetric",
    "syre",
    "w_asymmetric",
]
