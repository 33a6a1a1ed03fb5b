"""Normalization of channels, with the running statistics of batch norm as params, and the patterns around a norm."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params
from zoo.weight_space import Scaling

Normalize = Callable[[str, Tensor], Tensor]
EPSILON, MOMENTUM = 1e-5, 0.1


def before_norm(group: str, scaling: Scaling, norm: str) -> str:
    """The label of a group on a tensor that writes it before the norm.

    A norm takes scales away, up to its epsilon, so what is before it may be permuted with the group
    and never scaled; the norm's own weight and bias write the group.

    Args:
        group: Name of the group.
        scaling: Scaling of the group.
        norm: Name of the norm.

    Returns:
        `"h^0"` if there are scales and a norm, `"h"` otherwise.
    """
    return group if norm == "none" or scaling == "none" else f"{group}^0"


def norm_patterns(name: str, group: str, scaling: Scaling, norm: str) -> dict[str, str]:
    """Patterns of the tensors of a norm layer.

    Args:
        name: Name of the layer.
        group: Group of its channels.
        scaling: Scaling of the group.
        norm: `"batch"`, `"layer"` or `"none"`.

    Returns:
        Patterns of `<name>.weight` and `<name>.bias` and, for batch norm, of its running
        statistics.
    """
    if norm == "none":
        return {}
    patterns = {f"{name}.weight": group, f"{name}.bias": group}
    if norm == "batch":
        before = before_norm(group, scaling, norm)
        patterns |= {f"{name}.running_mean": before, f"{name}.running_var": before}
    return patterns


def is_statistic(name: str) -> bool:
    """Whether a tensor of a norm layer is a running statistic."""
    return name.endswith((".running_mean", ".running_var"))


def initial_norm(name: str, shape: tuple[int, ...]) -> Tensor:
    """The start of a tensor of a norm layer: the identity."""
    return torch.ones(shape) if name.endswith((".weight", ".running_var")) else torch.zeros(shape)


def normalizer(norm: str, params: Params) -> Normalize:
    """A norm as evaluation runs it.

    Args:
        norm: `"batch"` (with running statistics), `"layer"` (GroupNorm with one group) or `"none"`.
        params: Parameters of one network.

    Returns:
        `normalize(name, z)`, with the name of the norm layer and channels on axis 1 of `z`.
    """

    def normalize(name: str, z: Tensor) -> Tensor:
        if norm == "batch":
            return _affine(
                name, params, z, params[f"{name}.running_mean"], params[f"{name}.running_var"]
            )
        if norm == "layer":
            return F.group_norm(z, 1, params[f"{name}.weight"], params[f"{name}.bias"])
        return z

    return normalize


def training_batch_norm(params: Params) -> tuple[Normalize, Params]:
    """Batch norm as training runs it.

    z = (z - mean(batch)) / sqrt(var(batch) + 1e-5) * weight + bias,    running = 0.9 running + 0.1 (mean, unbiased var)

    Args:
        params: Parameters of one network.

    Returns:
        `normalize(name, z)`, and a dictionary that it fills with the new running statistics.
    """
    statistics: Params = {}

    def normalize(name: str, z: Tensor) -> Tensor:
        count = z.numel() // z.shape[1]
        if count == 1:
            raise ValueError(
                f"batch norm {name!r}: expected more than one value for each channel, got inputs {list(z.shape)}"
            )
        positions = [axis for axis in range(z.dim()) if axis != 1]
        mean, var = z.mean(positions), z.var(positions, correction=0)
        batch = {"running_mean": mean, "running_var": var * (count / (count - 1))}
        for kind, value in batch.items():
            old = params[f"{name}.{kind}"]
            statistics[f"{name}.{kind}"] = (1 - MOMENTUM) * old.detach() + MOMENTUM * value.detach()
        return _affine(name, params, z, mean, var)

    return normalize, statistics


def _affine(
    name: str,
    params: Params,
    z: Float[Tensor, "X c *positions"],
    mean: Float[Tensor, " c"],
    var: Float[Tensor, " c"],
) -> Float[Tensor, "X c *positions"]:
    channels = (-1, *(1,) * (z.dim() - 2))
    scale = params[f"{name}.weight"] * (var + EPSILON).rsqrt()
    shift = params[f"{name}.bias"] - mean * scale
    return z * scale.reshape(channels) + shift.reshape(channels)
