"""Norms of channels and features; the running statistics of batch norm are params."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params
from zoo.weight_space import Scaling

Normalize = Callable[[Params, str, Tensor], Tensor]
"""`normalize(params, name, z)`: run the norm layer of that name on `z`, channels on axis 1."""

EPSILON, MOMENTUM = 1e-5, 0.1


def look_up_norm(what: str, norm: str, norms: Mapping[str, Normalize]) -> Normalize:
    """Look a norm up.

    Args:
        what: What has the norm, for errors.
        norm: Name of the norm.
        norms: The norms that it may have, by name.

    Returns:
        The norm.

    Raises:
        ValueError: If there is none of that name.
    """
    if norm not in norms:
        raise ValueError(f"unknown norm {norm!r} for {what}; known are {sorted(norms)}")
    return norms[norm]


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


def is_statistic(name: str) -> bool:
    """Whether a tensor of a norm layer is a running statistic."""
    return name.endswith((".running_mean", ".running_var"))


def initial_norm(name: str, shape: tuple[int, ...]) -> Tensor:
    """The start of a tensor of a norm layer: the identity."""
    return torch.ones(shape) if name.endswith((".weight", ".running_var")) else torch.zeros(shape)


def no_norm(_params: Params, _name: str, z: Tensor) -> Tensor:
    """Leave the input as it is."""
    return z


def group_norm(
    params: Params, name: str, z: Float[Tensor, "X c *positions"], groups: int = 1
) -> Float[Tensor, "X c *positions"]:
    """Normalize each group of channels of an input."""
    return F.group_norm(z, groups, params[f"{name}.weight"], params[f"{name}.bias"])


def layer_norm(
    params: Params, name: str, h: Float[Tensor, "X *positions d"]
) -> Float[Tensor, "X *positions d"]:
    """Normalize the features of each position, which are on the last axis."""
    return F.layer_norm(h, h.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def batch_norm(
    params: Params, name: str, z: Float[Tensor, "X c *positions"]
) -> Float[Tensor, "X c *positions"]:
    """Normalize each channel by the running statistics, as evaluation does."""
    return _affine(params, name, z, params[f"{name}.running_mean"], params[f"{name}.running_var"])


def training_batch_norm(
    statistics: Params, params: Params, name: str, z: Float[Tensor, "X c *positions"]
) -> Float[Tensor, "X c *positions"]:
    """Normalize each channel by the statistics of the batch, as training does.

    z = (z - mean(batch)) / sqrt(var(batch) + 1e-5) * weight + bias
    running = 0.9 running + 0.1 (mean, unbiased var)

    Args:
        statistics: Gets the new running statistics.
        params: Parameters of one network.
        name: Name of the norm layer.
        z: Its inputs.

    Returns:
        The normalized inputs.

    Raises:
        ValueError: If there is only one value for each channel.
    """
    count = z.numel() // z.shape[1]
    if count == 1:
        raise ValueError(
            f"batch norm {name!r}: expected more than one value for each channel, "
            f"got inputs {list(z.shape)}"
        )
    positions = [axis for axis in range(z.dim()) if axis != 1]
    mean, var = z.mean(positions), z.var(positions, correction=0)
    batch = {"running_mean": mean, "running_var": var * (count / (count - 1))}
    for kind, value in batch.items():
        old = params[f"{name}.{kind}"]
        statistics[f"{name}.{kind}"] = (1 - MOMENTUM) * old.detach() + MOMENTUM * value.detach()
    return _affine(params, name, z, mean, var)


def _affine(
    params: Params,
    name: str,
    z: Float[Tensor, "X c *positions"],
    mean: Float[Tensor, " c"],
    var: Float[Tensor, " c"],
) -> Float[Tensor, "X c *positions"]:
    channels = (-1, *(1,) * (z.dim() - 2))
    scale = params[f"{name}.weight"] * (var + EPSILON).rsqrt()
    shift = params[f"{name}.bias"] - mean * scale
    return z * scale.reshape(channels) + shift.reshape(channels)
