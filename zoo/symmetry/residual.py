"""How exactly networks have symmetries: changes of outputs, and gradients along scales."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.params import Params, select, trained_part
from zoo.pattern import labels
from zoo.symmetry.action import GroupElement, act, restricted, sample
from zoo.symmetry.bilinear import diagonal_residual, pairs, scaling_terms
from zoo.symmetry.outputs import differences, relative_change, tensors_in
from zoo.symmetry.report import SymmetryReport
from zoo.symmetry.rows import as_rows, zeros
from zoo.weight_space import WeightSpace


def max_output_change(
    space: WeightSpace,
    apply: Callable[[Params], Any],
    params: Mapping[str, Tensor],
    generator: torch.Generator,
    num_samples: int = 4,
    groups: Collection[str] | None = None,
) -> float:
    """How far declared symmetries move outputs: 0, up to rounding, if the space is sound.

    change = max over elements g of |f(act(g, p)) - f(p)|_max / max(1, |f(p)|_max)

    Args:
        space: The weight space.
        apply: From params to outputs, with the inputs inside: a tensor, or tuples, lists and
            mappings of them.
        params: Tensors `[*batch, *shape]`, as `apply` takes them.
        generator: Source of the elements.
        num_samples: Number of elements.
        groups: The groups that move, all that the space lets move if None.

    Returns:
        The largest change; infinite if an output is NaN, or infinite, on one side only.

    Raises:
        ValueError: If a group is unknown, or if there are no outputs to compare.

    >>> from zoo.weight_space import NeuronGroup
    >>> space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    >>> params, source = {"bias": torch.arange(3.0)}, torch.Generator().manual_seed(0)
    >>> max_output_change(space, lambda p: p["bias"].sum(), params, source)
    0.0
    """
    chosen = set(space.groups if groups is None else groups)
    if unknown := sorted(chosen - set(space.groups)):
        known = sorted(space.groups)
        raise ValueError(
            f"max_output_change: unknown groups {unknown}; groups of the space are {known}"
        )
    changes = [0.0]
    with torch.no_grad():
        before = apply(dict(params))
        for _ in range(num_samples):
            element = restricted(sample(space, generator), chosen)
            changes.append(relative_change(before, apply(act(space, element, params))))
    return max(changes)


def symmetry_report(
    apply: Callable[[Params, Any], Any],
    params: Mapping[str, Tensor],
    batch: tuple[Any, Any],
    space: WeightSpace,
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    free: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    num_samples: int = 4,
) -> SymmetryReport:
    """Test hidden groups for permutations, sign flips and positive scales, declared or not.

    A continuous symmetry with generator `xi` has `<grad L, xi> = 0` on every minibatch, whatever
    the optimizer.

    Args:
        apply: The function of one network, `apply(params, x) -> outputs`; many networks go through
            `torch.func.vmap`.
        params: Tensors `[*batch, *shape]`.
        batch: Inputs `x` and labels `y`, the same for all networks.
        space: The weight space.
        loss: `loss(outputs, y) -> scalar`, the mean cross-entropy if not given.
        free: Masks `[*shape]`, True where an entry is trained. Fixed entries have no gradient, and
            a moved network gets them back, because all networks of a population share them.
        generator: Source of the permutations, seeded with 0 if None.
        num_samples: Permutations of each group.

    Returns:
        The report, with residuals `[*batch, size]` and `[*batch]` for each group.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    generator = generator or torch.Generator().manual_seed(0)
    lead, networks = as_rows(space, params)
    subject = _Subject(space, apply, networks, lead, batch, free or {})
    gradients = subject.gradients(loss)
    tested = {name: space.groups[name] for name in hidden_groups(space)}
    sign, permutation = {}, {}
    with torch.no_grad():
        scale = {name: subject.slopes(gradients, name) for name in tested}
        for name, group in tested.items():
            sign[name] = subject.changes(_sign_flips(name, group.size))
            shuffles = [_shuffle(name, group.size, generator) for _ in range(num_samples)]
            permutation[name] = subject.changes(shuffles).amax(-1)
    rounding = max(torch.finfo(gradient.dtype).eps for gradient in gradients.values())
    return SymmetryReport(tested, scale, sign, permutation, rounding**0.5)


@dataclass(frozen=True)
class _Subject:
    """Networks that are tested, and the minibatch that they see.

    Attributes:
        space: Their weight space.
        apply: The function of one network.
        params: Tensors `[N, *shape]`.
        lead: Leading axes that the `N` stand for; without any there is one network.
        batch: Inputs and labels.
        free: Masks, True where an entry is trained.
    """

    space: WeightSpace
    apply: Callable[[Params, Any], Any]
    params: Params
    lead: tuple[int, ...]
    batch: tuple[Any, Any]
    free: Mapping[str, Tensor]

    @cached_property
    def outputs(self) -> list[Tensor]:
        """The tensors in the outputs, `[N, ...]`."""
        return self._run(self.params)

    def gradients(self, loss: Callable[[Any, Any], Tensor]) -> Params:
        """Gradients of the tensors of floating type, 0 at fixed entries."""
        trained = {name: t for name, t in self.params.items() if t.is_floating_point()}
        others = {name: t for name, t in self.params.items() if name not in trained}

        def loss_of(leaves: Params, constants: Params) -> Tensor:
            return loss(self.apply({**leaves, **constants}, self.batch[0]), self.batch[1])

        slopes = self._each(torch.func.grad(loss_of), trained, others)
        return trained_part(dict(zip(trained, slopes, strict=True)), self.free)

    def slopes(self, gradients: Params, group: str) -> Float[Tensor, "*batch h"]:
        """How much of the gradient is along the scaling of each neuron of a group."""
        slopes = scaling_residual(self.space, self.params, gradients, group)
        return slopes.reshape(*self.lead, slopes.shape[1])

    def changes(self, elements: Sequence[GroupElement]) -> Float[Tensor, "*batch _"]:
        """For each element, the largest change of the outputs over the largest output."""
        changes = []
        for element in elements:
            moved = act(self.space, element, self.params)
            for name, mask in self.free.items():
                trained = mask.to(moved[name].device)
                moved[name] = torch.where(trained, moved[name], self.params[name])
            change, size = differences(self.outputs, self._run(moved))
            changes.append(change / torch.where(size > 0, size, 1))
        return torch.stack(changes, dim=1).reshape(*self.lead, len(changes))

    def _run(self, params: Params) -> list[Tensor]:
        return self._each(lambda network: self.apply(network, self.batch[0]), params)

    def _each(self, function: Callable[..., Any], *stacked: Params) -> list[Tensor]:
        if self.lead:
            return list(tensors_in(torch.func.vmap(function)(*stacked)))
        one = [select(part, 0) for part in stacked]
        return [output[None] for output in tensors_in(function(*one))]


def _sign_flips(group: str, size: int) -> list[GroupElement]:
    """For each neuron of a group the element that flips it alone."""
    flips = 1 - 2 * torch.eye(size, dtype=torch.float64)
    return [GroupElement({}, {group: flip}) for flip in flips]


def _shuffle(group: str, size: int, generator: torch.Generator) -> GroupElement:
    """A random permutation of a group, never the identity if there is another."""
    order = torch.rand(size, generator=generator, device=generator.device).argsort()
    order = order.roll(1) if bool((order.diff() > 0).all()) else order
    return GroupElement({group: order}, {})


def hidden_groups(space: WeightSpace) -> list[str]:
    """Groups that may have symmetries: those that are written and read, or declare one.

    If there are none, all groups of the tensors.

    Args:
        space: The weight space.

    Returns:
        Names of the groups, in the order of the space.
    """
    written, read = set(), set()
    for name in space.tensors:
        pattern = space.pattern(name)
        for axis, power in zip(pattern.axes, pattern.powers, strict=True):
            (written if power > 0 else read).update(label.group for label in labels(axis))
    movable = {n for n, g in space.groups.items() if g.permutable or g.scaling != "none"}
    likely = (written & read) | ((written | read) & movable)
    return [name for name in space.groups if name in (likely or written | read)]


def scaling_residual(
    space: WeightSpace, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor], group: str
) -> Float[Tensor, "N h"]:
    """How far gradients are from being orthogonal to the scaling of each neuron of a group.

    residual_j = |<grad, xi_j>| / (|grad restricted to the entries that xi_j moves| |xi_j|), and 0
    for 0 / 0

    Args:
        space: The weight space.
        params: Tensors `[N, *shape]`.
        gradients: Gradients of a loss, of the same shapes; of tensors that are absent they are 0.
        group: Name of the group.

    Returns:
        The residual of each neuron, between 0 and 1.
    """
    terms = [term for term in scaling_terms(space, group) if term.block.tensor in gradients]
    if not terms:
        return zeros(params, space.groups[group].size).to(next(iter(params.values())))
    return diagonal_residual(terms, pairs(params, gradients, {term.block.tensor for term in terms}))
