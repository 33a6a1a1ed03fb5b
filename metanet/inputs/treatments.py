"""Treatments: ways to deal with the symmetry of networks that work with every metanet.

    Metanet("mlp", treatment="canonicalize")
    Metanet("mlp", treatment="align+augment")
    Metanet("mlp", treatment={"augment": {"noise": 0.05}, "orbit_average": {"samples": 16}})

A treatment is a chain of steps, which follow each other in its order. A step is a frozen dataclass
whose fields are its options, and has one or more of the methods

* ``treat(spec, params) -> params``: networks, in training and at prediction;
* ``augment(spec, params, generator) -> params``: training networks, drawn anew for each pass over
  them; an option `copies` says how many passes a metanet sees that has no passes of its own
  (trees);
* ``views(spec, params) -> list of params``: networks to predict, several views of each, whose raw
  predictions are averaged, the first of them that of validation;
* ``fit(spec, params) -> step``: what the step must know of the training networks, in its field
  ``known`` of tensors by name; a property ``num_fit`` says how many, the first ones, are enough
  (default: all, which must then fit into memory).

Params are ``[N, *shape]``. Treatments act by the symmetry that a space declares, and leave fixed
entries alone: what has no declared symmetry left, as asymmetric networks do, passes through.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from metanet.contract import InputSpec
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act, identity, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.weight_space import WeightSpace

TreatmentSpec = str | Mapping[str, Mapping[str, Any]]
NONE = "none"
KNOWN = "known"


@dataclass(frozen=True)
class Augment:
    """Random symmetries, noise and dropout of entries, drawn anew for each network and each pass; nothing at prediction.

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
    scale: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0
    copies: int = 4

    def __post_init__(self):
        """Check the options.

        Raises:
            ValueError: If one is out of range.
        """
        if self.scale < 0 or self.noise < 0 or not 0 <= self.dropout < 1 or self.copies < 1:
            raise ValueError(
                f"treatment augment: expected scale, noise >= 0, 0 <= dropout < 1, copies >= 1, got {self}"
            )

    def augment(self, spec: InputSpec, params: Params, generator: torch.Generator) -> Params:
        """Another point of each orbit, disturbed."""
        count = len(next(iter(params.values())))
        drawn = sample(spec.space, generator, (count,))
        moved = act(
            spec.space, _restricted(drawn, self.permutations, self.signs, self.scale), params
        )
        return {
            name: self._disturb(tensor, spec.free.get(name), generator)
            for name, tensor in moved.items()
        }

    def _disturb(self, tensor: Tensor, free: Tensor | None, generator: torch.Generator) -> Tensor:
        out = tensor
        if self.noise:
            chosen = tensor.flatten(1) if free is None else tensor.flatten(1)[:, free.flatten()]
            size = chosen.square().mean(1).sqrt().reshape(-1, *(1,) * (tensor.dim() - 1))
            out = out + self.noise * size * torch.randn(
                tensor.shape, generator=generator, dtype=tensor.dtype
            )
        if self.dropout:
            out = out * (torch.rand(tensor.shape, generator=generator) >= self.dropout)
        return out if free is None or out is tensor else torch.where(free, out, tensor)


@dataclass(frozen=True)
class Canonicalize:
    """The canonical point of each orbit (`zoo.symmetry.canonical`): one representative of all networks that a symmetry makes equal.

    Attributes:
        scales: Whether to quotient declared scales and signs too. Not for targets that are no
            functions of the function.
    """

    scales: bool = True

    def treat(self, spec: InputSpec, params: Params) -> Params:
        """Canonical networks."""
        return canonicalize(spec.space if self.scales else _without_scales(spec.space), params)


@dataclass(frozen=True)
class Align:
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

    rounds: int = 0
    num_reference: int = 256
    scales: bool = False
    known: Params = field(default_factory=dict, repr=False)

    def __post_init__(self):
        """Check the options.

        Raises:
            ValueError: If one is out of range.
        """
        if self.rounds < 0 or self.num_reference < 1:
            raise ValueError(
                f"treatment align: expected rounds >= 0 and num_reference >= 1, got {self}"
            )

    @property
    def num_fit(self) -> int:
        """Training networks that the reference depends on."""
        return self.num_reference if self.rounds else 1

    def fit(self, spec: InputSpec, params: Params) -> "Align":
        """Choose the reference."""
        found = replace(self, known={name: tensor[0] for name, tensor in params.items()})
        some = {name: tensor[: self.num_reference] for name, tensor in params.items()}
        for _ in range(self.rounds):
            found = replace(
                self,
                known={name: tensor.mean(0) for name, tensor in found.treat(spec, some).items()},
            )
        return found

    def treat(self, spec: InputSpec, params: Params) -> Params:
        """Aligned networks."""
        return act(spec.space, align(spec.space, params, self.known, scales=self.scales), params)


@dataclass(frozen=True)
class OrbitAverage:
    """At prediction, the mean over points of each network's orbit, itself among them; nothing in training.

    The symmetries are the same for all networks, so that a prediction depends on its network alone.

    Attributes:
        samples: Points of the orbit.
        signs: Whether they differ in signs, where declared.
        scale: As in `Augment`.
        seed: Of the points.

    References:
        Puny et al. 2022, arXiv 2110.03336, equation 3, with a sample of the group as the frame.
    """

    samples: int = 8
    signs: bool = True
    scale: float = 0.0
    seed: int = 0

    def __post_init__(self):
        """Check the options.

        Raises:
            ValueError: If one is out of range.
        """
        if self.samples < 1 or self.scale < 0:
            raise ValueError(
                f"treatment orbit_average: expected samples >= 1 and scale >= 0, got {self}"
            )

    def views(self, spec: InputSpec, params: Params) -> list[Params]:
        """Points of the orbits."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = [sample(spec.space, generator) for _ in range(self.samples - 1)]
        points = [
            identity(spec.space),
            *(_restricted(element, True, self.signs, self.scale) for element in drawn),
        ]
        return [act(spec.space, element, params) for element in points]


TREATMENTS: dict[str, type] = {
    "augment": Augment,
    "canonicalize": Canonicalize,
    "align": Align,
    "orbit_average": OrbitAverage,
}
"""Steps by name; one line makes one of your own known."""


@dataclass(frozen=True)
class Treatment:
    """A chain of steps.

    Attributes:
        steps: The steps in order.
    """

    steps: tuple[Any, ...]

    @property
    def is_random(self) -> bool:
        """Whether training networks look different in each pass."""
        return any(hasattr(step, "augment") for step in self.steps)

    @property
    def copies(self) -> int:
        """Passes that a metanet without passes sees."""
        return max([getattr(step, "copies", 1) for step in self.steps], default=1)

    @property
    def num_fit(self) -> int | None:
        """Training networks, the first ones, that `fit` needs; None for all."""
        learning = [step for step in self.steps if hasattr(step, "fit")]
        if not all(hasattr(step, "num_fit") for step in learning):
            return None
        return max((step.num_fit for step in learning), default=0)

    def fit(self, spec: InputSpec, params: Params) -> "Treatment":
        """Learn from training networks; every step sees them as those before it leave them."""
        steps = []
        for step in self.steps:
            steps.append(step.fit(spec, params) if hasattr(step, "fit") else step)
            params = steps[-1].treat(spec, params) if hasattr(step, "treat") else params
        return Treatment(tuple(steps))

    def train(self, spec: InputSpec, params: Params, generator: torch.Generator) -> Params:
        """Training networks as one pass sees them."""
        for step in self.steps:
            params = step.augment(spec, params, generator) if hasattr(step, "augment") else params
            params = step.treat(spec, params) if hasattr(step, "treat") else params
        return params

    def predict(self, spec: InputSpec, params: Params) -> list[Params]:
        """Views of networks to predict, equally many for each."""
        views = [params]
        for step in self.steps:
            views = (
                [point for view in views for point in step.views(spec, view)]
                if hasattr(step, "views")
                else views
            )
            views = [step.treat(spec, view) for view in views] if hasattr(step, "treat") else views
        return views

    @property
    def known(self) -> list[Params]:
        """What each step has learned."""
        return [getattr(step, KNOWN, {}) for step in self.steps]

    def with_known(self, known: list[Params]) -> "Treatment":
        """The same chain with what it had learned."""
        return Treatment(
            tuple(
                replace(step, known=own) if own else step
                for step, own in zip(self.steps, known, strict=True)
            )
        )


def parse_treatment(treatment: TreatmentSpec) -> Treatment:
    """The treatment of a text such as ``"align+augment"``, or of a mapping from steps to their options.

    Args:
        treatment: Names of `TREATMENTS` joined by ``+``, ``"none"`` for no step; or name -> options.

    Returns:
        The treatment, not fitted yet.

    Raises:
        ValueError: If a step or an option is unknown or out of range; lists the valid ones.
    """
    if isinstance(treatment, str):
        named: Mapping[str, Mapping[str, Any]] = (
            {} if treatment == NONE else {name.strip(): {} for name in treatment.split("+")}
        )
    else:
        named = treatment
    steps = []
    for name, options in named.items():
        if name not in TREATMENTS:
            raise ValueError(
                f"unknown treatment {name!r}; treatments are {[NONE, *TREATMENTS]}, joined by '+'"
            )
        valid = [
            option for option in inspect.signature(TREATMENTS[name]).parameters if option != KNOWN
        ]
        if unknown := [option for option in options if option not in valid]:
            raise ValueError(
                f"treatment {name!r} has no option {', '.join(map(repr, unknown))}; its options are {valid}"
            )
        steps.append(TREATMENTS[name](**options))
    return Treatment(tuple(steps))


def _restricted(
    element: GroupElement, permutations: bool, signs: bool, scale: float
) -> GroupElement:
    """A drawn element with the chosen kinds of symmetry only; its positive scales are uniform in [-1, 1] as logarithms."""
    scales = {}
    for name, values in element.scales.items():
        sign = values.sign() if signs else torch.ones_like(values)
        scales[name] = sign * values.abs().pow(scale)
    return GroupElement(element.permutations if permutations else {}, scales)


def _without_scales(space: WeightSpace) -> WeightSpace:
    groups = {name: replace(group, scaling="none") for name, group in space.groups.items()}
    return WeightSpace(groups, dict(space.tensors))
