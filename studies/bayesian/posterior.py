"""Gaussian posteriors over the free entries of tensors, diagonal or diagonal plus low rank."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.architectures.base import Architecture
from zoo.params import Params, flatten, unflatten
from zoo.weight_space import WeightSpace


class Posterior(NamedTuple):
    """`q(w) = N(mean, diag(exp(2 log_std)) + V V^T)`, one block `V` a tensor; a pytree.

    Attributes:
        mean: Means of all entries, flat as in `zoo.params.flatten`; the fixed values at fixed
            entries.
        log_std: Logarithms of the standard deviations of the diagonal part; of no meaning at fixed
            entries.
        factor: Columns of all `V`; of no meaning at fixed entries and where a tensor has no
            low-rank part.
    """

    mean: Float[Tensor, "*batch P"]
    log_std: Float[Tensor, "*batch P"]
    factor: Float[Tensor, "*batch R P"]


@dataclass(frozen=True, eq=False)
class Support:
    """Which entries are random.

    Weights (tensors that read a group) have a low-rank part; biases and norms are few and stay
    diagonal.

    Attributes:
        space: The weight space.
        free: Entries that have a posterior.
        correlated: Free entries of weights.
        weights: Names of the weights.
    """

    space: WeightSpace
    free: Bool[Tensor, " P"]
    correlated: Bool[Tensor, " P"]
    weights: tuple[str, ...]


def support_of(architecture: Architecture) -> Support:
    """What of an architecture is random.

    Args:
        architecture: What computes.

    Returns:
        The entries; those that are fixed are constants.

    Raises:
        ValueError: If there are running statistics, which are no parameters and have no posterior.
    """
    if architecture.statistics:
        raise ValueError(
            f"no posterior for running statistics {architecture.statistics[0]!r}, ...; "
            "choose norm 'layer' or 'none'"
        )
    space = architecture.space
    weights = tuple(name for name in space.tensors if space.pattern(name).read)
    free = {
        name: architecture.free.get(name, torch.ones(shape, dtype=torch.bool))
        for name, shape in space.shapes.items()
    }
    correlated = {
        name: mask if name in weights else torch.zeros_like(mask) for name, mask in free.items()
    }
    return Support(space, flatten(space, free), flatten(space, correlated), weights)


def initial_posterior(
    architecture: Architecture,
    generator: torch.Generator,
    *,
    rank: int,
    std: int | float,
    init_scale: int | float = 1.0,
) -> Posterior:
    """Posterior of one network before training: the initial parameters, blurred.

    Where there is a low-rank part, it and the diagonal each have half of the variance. `V` cannot
    start at 0, which is a saddle of the ELBO.

    Args:
        architecture: What computes.
        generator: Source of randomness; the means are the first draws, the same as those of
            `Architecture.init`.
        rank: Columns of `V`, 0 for a diagonal posterior.
        std: Standard deviation of every free entry.
        init_scale: Factor of the free entries of weights, as the hyperparameter of that name.

    Returns:
        The posterior, float32.
    """
    support = support_of(architecture)
    mean = flatten(support.space, architecture.init(generator))
    mean = torch.where(support.correlated, init_scale * mean, mean)
    halved = support.correlated if rank else torch.zeros_like(support.correlated)
    log_std = math.log(std) - math.log(2) / 2 * halved.float()
    factor = std * (2 * max(rank, 1)) ** -0.5 * torch.randn(rank, len(mean), generator=generator)
    return Posterior(mean, log_std, factor)


def spread(
    support: Support, posterior: Posterior
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Float[Tensor, "R P"]]:
    """Means, standard deviations and columns of `V`; the last two are 0 where they must be.

    No gradient reaches fixed entries: they are constants, not means of a narrow posterior.

    Args:
        support: What is random.
        posterior: Of one network.

    Returns:
        Means, standard deviations and columns.
    """
    mean = torch.where(support.free, posterior.mean, posterior.mean.detach())
    return mean, posterior.log_std.exp() * support.free, posterior.factor * support.correlated


def sample_weights(support: Support, posterior: Posterior, noise: Float[Tensor, " E"]) -> Params:
    """Draw the parameters of one network, `w = mean + std * e + sum_k z_k V_k`.

    Args:
        support: What is random.
        posterior: Of one network.
        noise: `e` of all entries and `z` of all tensors, standard normal, `weight_noise_size`
            numbers.

    Returns:
        Effective parameters.
    """
    mean, std, factor = spread(support, posterior)
    rank, size = factor.shape
    sizes = torch.tensor([math.prod(shape) for shape in support.space.shapes.values()])
    tensor_of = torch.arange(len(sizes)).repeat_interleave(sizes)
    z = noise[size:].reshape(rank, len(sizes))[:, tensor_of]
    return unflatten(support.space, mean + std * noise[:size] + (z * factor).sum(0))


def weight_noise_size(support: Support, rank: int) -> int:
    """Numbers that one draw of `sample_weights` uses up.

    Args:
        support: What is random.
        rank: Columns of `V`.

    Returns:
        `E`.
    """
    return support.space.num_params + rank * len(support.space.tensors)


def kl_divergence(
    support: Support, posterior: Posterior, prior_std: int | float
) -> Float[Tensor, ""]:
    """`KL(q || N(0, s^2))` over the free entries; fixed entries are constants, not random.

    A tensor with `d` free entries, `D = diag(std^2)` and `C = D + V V^T` has

        KL = 1/2 (tr(C) / s^2 + |mean|^2 / s^2 - d + d log s^2 - log det D
                  - log det(I + V^T D^-1 V))

    Args:
        support: What is random.
        posterior: Of one network.
        prior_std: `s`.

    Returns:
        The divergence in nats.

    References:
        Tomczak, Swaroop and Turner 2020, "Efficient low rank Gaussian variational inference for
        neural networks", NeurIPS.
    """
    mean, log_std = posterior.mean, posterior.log_std
    terms = (
        ((2 * log_std).exp() + mean**2) / prior_std**2 - 1 + 2 * math.log(prior_std) - 2 * log_std
    )
    total = torch.where(support.free, terms, 0).sum()
    if posterior.factor.shape[-2] == 0:
        return total / 2
    _, _, factor = spread(support, posterior)
    log_det = _log_det(support, factor * (-log_std).exp())
    return (total + (factor**2).sum() / prior_std**2 - log_det) / 2


def _log_det(support: Support, whitened: Float[Tensor, "R P"]) -> Float[Tensor, ""]:
    """`log det(I + V^T D^-1 V)`, summed over weights, from `V^T D^-1/2`."""
    columns = unflatten(support.space, whitened)
    rows = [columns[name].flatten(1) for name in support.weights]
    identity = torch.eye(len(whitened), dtype=whitened.dtype, device=whitened.device)
    gram = identity + torch.stack([row @ row.T for row in rows])
    # I + A A^T always has a Cholesky factor; logdet would go through a pivoted LU
    return 2 * torch.linalg.cholesky(gram).diagonal(dim1=-2, dim2=-1).log().sum()
