"""Steps of treatments: each does one thing about the symmetry of networks.

A step is a frozen dataclass, a subclass of `Step`, whose fields are its options; it overrides one
or more methods of `Step`.

Params are ``[N, *shape]``. Steps act by the symmetry that a space declares, and leave fixed entries
alone: what has no declared symmetry left, as asymmetric networks do, passes through.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from metanet.contract import InputSpec
from metanet.feature_rows import count_rows
from zoo.options import Count, Depth, Seed, Share
from zoo.params import Params, expand_right
from zoo.symmetry.action import GroupElement, act, identity, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.weight_space import WeightSpace

Rounds = Annotated[int, Field(ge=0, le=1000)]
Spread = Annotated[float, Field(ge=0, le=20)]
Noise = Annotated[float, Field(ge=0, le=1000)]


@dataclass(frozen=True)
class Step:
    """A step that does nothing; what it may do is what its methods say."""

    def treat(self, spec: InputSpec, params: Params) -> Params:
        """Networks, in training and at prediction."""
        del spec
        return params

    def augment(self, spec: InputSpec, params: Params, generator: torch.Generator) -> Params:
        """Training networks, drawn anew for each pass over them."""
        del spec, generator
        return params

    def views(self, spec: InputSpec, params: Params) -> list[Params]:
        """Networks to predict, several views of each; the first is that of validation."""
        del spec
        return [params]

    def fit(self, spec: InputSpec, params: Params) -> "Step":
        """The step with what it must know of the training networks."""
        del spec, params
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__.lower()

    @property
    def is_random(self) -> bool:
        """Whether training networks look different in each pass."""
        return type(self).augment is not Step.augment

    @property
    def num_copies(self) -> int:
        """Passes that a metanet without passes of its own (trees) sees, side by side."""
        return 1

    @property
    def num_fit(self) -> int | None:
        """Training networks, the first ones, that are enough for `fit`; None for all of them."""
        return 0 if type(self).fit is Step.fit else None

    @property
    def state(self) -> Params:
        """What `fit` has learned, by name; it is saved."""
        return {}

    def with_state(self, state: Params) -> "Step":
        """The step with what it had learned."""
        del state
        return self


@dataclass(frozen=True)
class Augment(Step):
    """Random symmetries, noise and dropout of entries; nothing at prediction.

    They are drawn anew for each network and each pass.

    Attributes:
        permutations: Whether to permute neurons.
        signs: Whether to flip signs, where declared.
        scale: Spread of the logarithm of positive scales, where declared: uniform in [-scale,
            scale]. 0 for none.
        noise: Standard deviation of normal noise, in units of the root mean square of the tensor's
            free entries.
        dropout: Share of the free entries that are set to zero.
        copies: Passes that a metanet without passes of its own (trees) sees, side by side.

    References:
        Navon et al. 2023, arXiv 2301.12780, section 6 and appendix; Shamsian et al. 2024, arXiv
        2402.04081.
    """

    permutations: bool = True
    signs: bool = True
    scale: Spread = 0.0
    noise: Noise = 0.0
    dropout: Share = 0.0
    copies: Depth = 4

    def augment(self, spec: InputSpec, params: Params, generator: torch.Generator) -> Params:
        """Another point of each orbit, disturbed."""
        drawn = sample(spec.space, generator, (count_rows(params),))
        element = _restricted(drawn, self.permutations, self.signs, self.scale)
        moved = act(spec.space, element, params)
        disturbed = {}
        for name, tensor in moved.items():
            free = spec.free.get(name, torch.ones(tensor.shape[1:], dtype=torch.bool))
            disturbed[name] = self._disturb(tensor, free, generator)
        return disturbed

    @property
    def num_copies(self) -> int:
        """Passes that trees see."""
        return self.copies

    def _disturb(self, tensor: Tensor, free: Tensor, generator: torch.Generator) -> Tensor:
        """Noise and dropout of the free entries of one tensor."""
        out = tensor
        if self.noise:
            size = tensor[:, free].square().mean(1).sqrt()
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            out = out + self.noise * expand_right(size, tensor) * noise
        if self.dropout:
            out = out * (torch.rand(tensor.shape, generator=generator) >= self.dropout)
        return torch.where(free, out, tensor)


@dataclass(frozen=True)
class Canonicalize(Step):
    """The canonical point of each orbit (`zoo.symmetry.canonical`).

    It is one representative of all networks that a symmetry makes equal.

    Attributes:
        scales: Whether to quotient declared scales and signs too. Not for targets that are no
            functions of the function.
    """

    scales: bool = True

    def treat(self, spec: InputSpec, params: Params) -> Params:
        """Canonical networks."""
        return canonicalize(spec.space if self.scales else _without_scales(spec.space), params)


@dataclass(frozen=True)
class Align(Step):
    """Every network aligned to a reference by weight matching (`zoo.symmetry.alignment`).

    Attributes:
        rounds: 0: the reference is the first training network. Else that many times the mean of the
            networks aligned to the reference so far becomes the next one: a barycentre.
        num_reference: Most networks that the barycentre is the mean of.
        scales: Whether to match declared scales and signs too.
        known: The reference, once fitted; not an option.

    References:
        Ainsworth et al. 2023, arXiv 2209.04836, algorithms 1 and 3.
    """

    rounds: Rounds = 0
    num_reference: Count = 256
    scales: bool = False
    known: Params = field(default_factory=dict, repr=False)

    @property
    def num_fit(self) -> int:
        """Training networks that the reference depends on."""
        return self.num_reference if self.rounds else 1

    def fit(self, spec: InputSpec, params: Params) -> "Align":
        """Choose the reference."""
        fitted = self.with_state({name: tensor[0] for name, tensor in params.items()})
        averaged = {name: tensor[: self.num_reference] for name, tensor in params.items()}
        for _ in range(self.rounds):
            aligned = fitted.treat(spec, averaged)
            fitted = self.with_state({name: tensor.mean(0) for name, tensor in aligned.items()})
        return fitted

    @property
    def state(self) -> Params:
        """The reference."""
        return self.known

    def with_state(self, state: Params) -> "Align":
        """Aligned to a reference."""
        return replace(self, known=state)

    def treat(self, spec: InputSpec, params: Params) -> Params:
        """Aligned networks."""
        return act(spec.space, align(spec.space, params, self.known, scales=self.scales), params)


@dataclass(frozen=True)
class OrbitAverage(Step):
    """At prediction, the mean over points of each network's orbit; nothing in training.

    The network itself is one of the points.

    The symmetries are the same for all networks, so that a prediction depends on its network alone.

    Attributes:
        samples: Points of the orbit.
        signs: Whether they differ in signs, where declared.
        scale: As in `Augment`.
        seed: Of the points.

    References:
        Puny et al. 2022, arXiv 2110.03336, equation 3, with a sample of the group as the frame.
    """

    samples: Depth = 8
    signs: bool = True
    scale: Spread = 0.0
    seed: Seed = 0

    def views(self, spec: InputSpec, params: Params) -> list[Params]:
        """Points of the orbits."""
        generator = torch.Generator().manual_seed(self.seed)
        points = [identity(spec.space)]
        for _ in range(self.samples - 1):
            drawn = sample(spec.space, generator)
            points.append(_restricted(drawn, True, self.signs, self.scale))
        return [act(spec.space, element, params) for element in points]


def _restricted(
    element: GroupElement, permutations: bool, signs: bool, scale: float
) -> GroupElement:
    """A drawn element with the chosen kinds of symmetry only."""
    # Positive scales that were drawn are uniform in [-1, 1] as logarithms.
    scales = {name: values.abs().pow(scale) for name, values in element.scales.items()}
    if signs:
        scales = {name: element.scales[name].sign() * size for name, size in scales.items()}
    return GroupElement(element.permutations if permutations else {}, scales)


def _without_scales(space: WeightSpace) -> WeightSpace:
    groups = {name: replace(group, scaling="none") for name, group in space.groups.items()}
    return WeightSpace(groups, dict(space.tensors))
