"""Hamiltonian Monte Carlo of many chains at once.

A leapfrog loop and one comparison need no probabilistic programming library: that would be a second
tensor framework, or a modelling language around a function that is here already. There is no
adaptation: a fixed step size leaves nothing to hide between chains, and the acceptance rate tells
whether it was good.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import grad_and_value, vmap

from zoo.params import expand_right

Potential = Callable[[Tensor], Tensor]
STEP_JITTER = 0.2  # a fixed length of trajectory can resonate with a mode of the target


@dataclass(frozen=True)
class Draws:
    """What chains leave.

    Attributes:
        position: Draws of all chains `[M, C, P]`.
        accepted: Whether each proposal was accepted `[M, C]`.
    """

    position: Float[Tensor, "M C P"]
    accepted: Bool[Tensor, "M C"]


def sample_chains(
    potential: Potential,
    start: Float[Tensor, "C P"],
    generator: torch.Generator,
    *,
    draws: int,
    leapfrog_steps: int,
    step_size: int | float,
    free: Bool[Tensor, " P"] | None = None,
) -> Draws:
    """Draw from `exp(-potential(q))` with independent chains of unit mass.

    A proposal follows `H(q, p) = potential(q) + |p|^2 / 2` from a fresh `p ~ N(0, I)`; it is
    accepted with probability `min(1, exp(H_before - H_after))`, and never where `H` is not finite.

    Args:
        potential: Negative log density of one position, up to a constant.
        start: First position of each chain.
        generator: Source of randomness.
        draws: Proposals of each chain.
        leapfrog_steps: Steps of a proposal.
        step_size: Size of a step; each proposal of each chain has its own, uniform within 20%.
        free: Entries that move, all if None; the others have no momentum.

    Returns:
        One draw a proposal, those that follow a rejection repeated.

    References:
        Neal 2011, arXiv 1206.1901, section 3.2.
    """
    gradient = vmap(grad_and_value(potential))
    moving = torch.ones_like(start[0]) if free is None else free.to(start.dtype)
    chains = _Chains(gradient, _State(start, *gradient(start)), generator, moving)
    accepted, positions = [], []
    for _ in range(draws):
        accepted.append(chains.propose(step_size, leapfrog_steps))
        positions.append(chains.state.position)
    return Draws(torch.stack(positions), torch.stack(accepted))


class _State(NamedTuple):
    """Where chains are: positions and gradients `[C, P]`, values of the potential `[C]`."""

    position: Tensor
    slope: Tensor
    energy: Tensor

    def replaced(self, accept: Tensor, proposal: "_State") -> "_State":
        """The proposal for chains that accept it."""
        pairs = zip(proposal, self, strict=True)
        return _State(*(torch.where(expand_right(accept, new), new, old) for new, old in pairs))


@dataclass
class _Chains:
    """Chains on their way; `moving` is 1 for entries that move, 0 for others."""

    gradient: Callable[[Tensor], tuple[Tensor, Tensor]]
    state: _State
    generator: torch.Generator
    moving: Tensor

    def propose(self, step_size: int | float, leapfrog_steps: int) -> Tensor:
        """Make a proposal to each chain; which were accepted."""
        state = self.state
        noise = {"generator": self.generator, "dtype": state.position.dtype}
        momentum = self.moving * torch.randn(state.position.shape, **noise)
        jitter = 2 * torch.rand(len(momentum), 1, **noise) - 1
        step = step_size * (1 + STEP_JITTER * jitter)
        q, p, slope, energy = leapfrog(
            self.gradient, state.position, momentum, state.slope, self.moving, step, leapfrog_steps
        )
        log_ratio = state.energy + (momentum**2).sum(1) / 2 - energy - (p**2).sum(1) / 2
        coin = torch.rand(len(momentum), **noise)
        accept = coin.log() < log_ratio  # nan is no acceptance
        self.state = state.replaced(accept, _State(q, slope, energy))
        return accept


def leapfrog(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    q: Float[Tensor, "C P"],
    p: Float[Tensor, "C P"],
    slope: Float[Tensor, "C P"],
    moving: Float[Tensor, " P"],
    step_size: Float[Tensor, "C 1"],
    steps: int,
) -> tuple[Float[Tensor, "C P"], Float[Tensor, "C P"], Float[Tensor, "C P"], Float[Tensor, " C"]]:
    """Follow Hamilton's equations; reversible (by negating the momentum) and volume preserving.

    Args:
        gradient: Gradients and values of the potential at positions.
        q: Positions.
        p: Momenta.
        slope: Gradients at `q`.
        moving: 1 for entries that move, 0 for others.
        step_size: Of each chain.
        steps: Number of steps.

    Returns:
        Positions, momenta, and gradients and values of the potential there.
    """
    p = p - step_size / 2 * moving * slope
    value = torch.zeros(len(q), dtype=q.dtype)
    for i in range(steps):
        q = q + step_size * p
        slope, value = gradient(q)
        p = p - step_size * (1 if i < steps - 1 else 0.5) * moving * slope
    return q, p, slope, value
