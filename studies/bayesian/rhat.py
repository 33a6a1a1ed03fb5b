"""Whether chains agree: rank-normalized split R-hat."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor


def split_rhat(draws: Float[Tensor, "M C Q"]) -> Float[Tensor, " Q"]:
    """Potential scale reduction of half chains, `sqrt(((m - 1) / m W + B / m) / W)`.

    `W` is the mean of the variances within half chains of `m` draws, `B / m` the variance of their
    means.

    Args:
        draws: `M` draws of `C` chains of each quantity; with an odd number the draw in the middle
            is left out.

    Returns:
        R-hat of each quantity; 1 where half chains agree, nan where nothing moves.

    References:
        Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021, arXiv 1903.08008, equations 1 to 4.
    """
    half = len(draws) // 2
    chains = torch.cat([draws[:half], draws[len(draws) - half :]], dim=1)
    within = chains.var(0).mean(0)
    return ((half - 1) / half + chains.mean(0).var(0) / within).sqrt()


def rank_normalized_rhat(draws: Float[Tensor, "M C Q"]) -> Float[Tensor, " Q"]:
    """Rank-normalized R-hat: the larger one of location and of scale.

    That of location is `split_rhat` of normal scores, that of scale is the same of distances to the
    median.

    Args:
        draws: `M` draws of `C` chains of each quantity.

    Returns:
        R-hat of each quantity; above 1.01 chains have not mixed.

    References:
        Vehtari et al. 2021, arXiv 1903.08008, section 4.
    """
    folded = (draws - draws.flatten(0, 1).quantile(0.5, dim=0)).abs()
    return torch.maximum(split_rhat(normal_scores(draws)), split_rhat(normal_scores(folded)))


def normal_scores(draws: Float[Tensor, "M C Q"]) -> Float[Tensor, "M C Q"]:
    """Replace draws by `Phi^-1((r - 3/8) / (n + 1/4))`, r their rank among all `n = M C`.

    Equal draws share their rank.

    Args:
        draws: Draws of each quantity.

    Returns:
        Normal scores.
    """
    flat = draws.flatten(0, 1)
    ranks = torch.tensor(pd.DataFrame(flat.numpy()).rank().to_numpy())
    return (
        torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25))
        .reshape(draws.shape)
        .to(draws.dtype)
    )
