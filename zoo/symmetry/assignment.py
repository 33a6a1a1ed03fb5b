"""Linear assignments of neurons to places, of many networks at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def best_places(gains: Float[Tensor, "M h h"]) -> Int64[Tensor, "M h"]:
    """The places of neurons that together gain most.

    Args:
        gains: What neuron `i` gains at place `j`.

    Returns:
        The place of each neuron; all stay where a gain is not finite.
    """
    stay = torch.arange(gains.shape[1], device=gains.device)
    best = gains.argmax(2)
    best[~gains.sum((1, 2)).isfinite()] = stay
    places, costs = best.cpu().numpy(), (-gains).cpu().numpy()
    # Where the best places of all neurons differ, nothing beats them.
    unsettled = (best.sort(1).values != stay).any(1).nonzero()[:, 0].tolist()
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:  # scipy works without the interpreter's lock
        shares = [unsettled[i::threads] for i in range(threads)]
        list(pool.map(lambda share: _solve(costs, places, share), shares))
    return torch.from_numpy(places).to(gains.device)


def _solve(costs: np.ndarray, places: np.ndarray, networks: list[int]) -> None:
    """Write the best places of some networks."""
    for k in networks:
        places[k] = linear_sum_assignment(costs[k])[1]
