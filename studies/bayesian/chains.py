"""Markov chains on the posterior of small networks.

Do they agree about weights, and about the function?
"""

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import vmap

from data_gen.config import PopulationConfig
from data_gen.rng import generator
from studies.bayesian.hmc import sample_chains
from studies.bayesian.networks import with_asymmetry
from studies.bayesian.posterior import support_of
from studies.bayesian.rhat import rank_normalized_rhat
from studies.common.alignments import can_move
from zoo.architectures.base import Architecture
from zoo.architectures.table import build_architecture
from zoo.params import flatten, select, stack, unflatten
from zoo.symmetry.action import act
from zoo.symmetry.alignment import align
from zoo.weight_space import WeightSpace

HELPERS = (
    "studies.common.alignments",
    "studies.bayesian.hmc",
    "studies.bayesian.networks",
    "studies.bayesian.posterior",
    "studies.bayesian.rhat",
)
WEIGHTS, ALIGNED, FUNCTION = "weights", "aligned", "function"


@dataclass(frozen=True)
class ChainCell:
    """Chains to run; one cell of the study.

    Attributes:
        asymmetry: What the study calls the asymmetry.
        population: Architecture, an mlp, and asymmetry.
        points: Training points.
        test_points: Points at which chains are compared.
        noise: Standard deviation of the noise on the moons.
        prior_std: Standard deviation of the prior of every free entry.
        chains: Number of chains.
        warmup: First draws, dropped.
        draws: Draws that are kept.
        leapfrog: Leapfrog steps of a proposal.
        step_size: Size of a leapfrog step.
    """

    asymmetry: str
    population: PopulationConfig
    points: int
    test_points: int
    noise: float
    prior_std: float
    chains: int
    warmup: int
    draws: int
    leapfrog: int
    step_size: float

    @property
    def name(self) -> str:
        """The asymmetry."""
        return f"chains, asymmetry {self.asymmetry!r}"


def measure(cell: ChainCell) -> pd.DataFrame:
    """Run the chains of a cell.

    Args:
        cell: What to run.

    Returns:
        A row for each free entry (`space` is `weights`) and each test point (`function`) with its
        R-hat; where neurons may be permuted, one for each free entry after every draw was aligned
        to the last of the first chain (`aligned`). Acceptance and accuracy of the whole cell on
        every row.
    """
    architecture = _build(cell.population)
    weights, accepted = run_chains(cell, architecture)
    x, y = two_moons(cell.test_points, cell.noise, generator(0, "test moons"))
    space = architecture.space
    logits = vmap(vmap(lambda flat: architecture.apply(unflatten(space, flat), x)))
    probability = F.softmax(logits(weights), -1)[..., 1]
    correct = (probability.mean((0, 1)) > 0.5) == y.bool()
    return _rhats(architecture, weights, probability).assign(
        asymmetry=cell.asymmetry,
        acceptance=float(accepted.mean()),
        test_accuracy=float(correct.double().mean()),
        part="chains",
    )


def _build(population: PopulationConfig) -> Architecture:
    options = dict(population.architecture)
    plain = build_architecture(options.pop("name"), options, (2,), 2).to("cpu", torch.float64)
    return with_asymmetry(plain, population.asymmetry).to("cpu", torch.float64)


def _rhats(architecture: Architecture, weights: Tensor, probability: Tensor) -> pd.DataFrame:
    space, free = architecture.space, support_of(architecture).free
    compared = {WEIGHTS: weights[..., free], FUNCTION: probability}
    if can_move(space):
        compared[ALIGNED] = aligned(space, weights)[..., free]
    tables = [
        pd.DataFrame({"space": name, "rhat": rank_normalized_rhat(draws).numpy()})
        for name, draws in compared.items()
    ]
    return pd.concat(tables, ignore_index=True)


def aligned(space: WeightSpace, draws: Float[Tensor, "M C P"]) -> Float[Tensor, "M C P"]:
    """Draws with their neurons in the order that is nearest to the last draw of the first chain.

    Chains that differ by the order of neurons alone agree after it: what remains is not due to
    permutations.

    Args:
        space: The weight space.
        draws: Parameters, flat.

    Returns:
        Each draw moved by a symmetry of its own.

    References:
        Stephens 2000, "Dealing with label switching in mixture models", JRSS B 62.
    """
    params = unflatten(space, draws)
    reference = select(params, (-1, 0))
    return flatten(space, act(space, align(space, params, reference), params))


def run_chains(
    cell: ChainCell, architecture: Architecture
) -> tuple[Float[Tensor, "M C P"], Float[Tensor, "M C"]]:
    """Sample `exp(-sum of cross-entropies - |free entries|^2 / (2 s^2))` from draws of the prior.

    Args:
        cell: What to run.
        architecture: The network, float64.

    Returns:
        Effective parameters, flat, without the warm-up, and whether the proposals were accepted (0
        or 1).
    """
    free, random = support_of(architecture).free, generator(0, "chains")
    moons = two_moons(cell.points, cell.noise, generator(0, "train moons"))
    chains = sample_chains(
        partial(_potential, architecture, free, cell.prior_std, *moons),
        _starts(cell, architecture, random),
        random,
        draws=cell.warmup + cell.draws,
        leapfrog_steps=cell.leapfrog,
        step_size=cell.step_size,
        free=free,
    )
    kept = slice(cell.warmup, None)
    return chains.position[kept], chains.accepted[kept].double()


def _potential(
    architecture: Architecture,
    free: Tensor,
    prior_std: int | float,
    x: Tensor,
    y: Tensor,
    flat: Tensor,
) -> Tensor:
    """The negative logarithm of the density at one network."""
    logits = architecture.apply(unflatten(architecture.space, flat), x)
    misfit = F.cross_entropy(logits, y, reduction="sum")
    return misfit + (free * flat**2).sum() / (2 * prior_std**2)


def _starts(
    cell: ChainCell, architecture: Architecture, random: torch.Generator
) -> Float64[Tensor, "C P"]:
    """`init` gives the fixed entries their values; the free ones are drawn from the prior."""
    networks = [architecture.init(generator(chain, "chain")) for chain in range(cell.chains)]
    fixed = flatten(architecture.space, stack(networks)).double()
    drawn = cell.prior_std * torch.randn(fixed.shape, generator=random, dtype=fixed.dtype)
    return torch.where(support_of(architecture).free, drawn, fixed)


def two_moons(
    count: int, noise: int | float, random: torch.Generator
) -> tuple[Float[Tensor, "X 2"], Int64[Tensor, " X"]]:
    """Two half circles of radius 1 that reach into each other, with Gaussian noise.

    Args:
        count: Number of points.
        noise: Standard deviation of the noise.
        random: Source of randomness.

    Returns:
        Points, float64, and which moon each is of.
    """
    y = torch.arange(count) % 2
    angle = math.pi * torch.rand(count, generator=random, dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    x = torch.where(y[:, None] == 1, torch.tensor([1.0, 0.5], dtype=x.dtype) - x, x)
    return x + noise * torch.randn(x.shape, generator=random, dtype=x.dtype), y
