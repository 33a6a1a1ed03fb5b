"""Treatments: ways to deal with the symmetry of networks that work with every metanet.

    Metanet("mlp", treatment="canonicalize")
    Metanet("mlp", treatment="align+augment")
    Metanet("mlp", treatment={"augment": {"noise": 0.05}, "orbit_average": {"samples": 16}})

A treatment is a chain of steps (`metanet.inputs.steps`), which follow each other in its order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from metanet.contract import InputSpec
from metanet.inputs.steps import Align, Augment, Canonicalize, OrbitAverage, Step
from zoo.options import check_options
from zoo.params import Params

TreatmentSpec = str | Mapping[str, Mapping[str, Any]]
NONE = "none"
KNOWN = "known"

TREATMENTS: dict[str, type[Step]] = {
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

    steps: tuple[Step, ...]

    @property
    def is_random(self) -> bool:
        """Whether training networks look different in each pass."""
        return any(step.is_random for step in self.steps)

    @property
    def copies(self) -> int:
        """Passes that a metanet without passes sees: one unless they differ."""
        return max(step.num_copies for step in self.steps) if self.is_random else 1

    @property
    def learning(self) -> list[Step]:
        """Steps that learn from training networks."""
        return [step for step in self.steps if step.num_fit != 0]

    @property
    def num_fit(self) -> int | None:
        """Training networks, the first ones, that `fit` needs; None for all."""
        counts = {step.num_fit for step in self.steps}
        return None if None in counts else max((count or 0 for count in counts), default=0)

    def fit(self, spec: InputSpec, params: Params) -> "Treatment":
        """Learn from training networks; every step sees them as those before it leave them."""
        steps = []
        for step in self.steps:
            fitted = step.fit(spec, params)
            params = fitted.treat(spec, params)
            steps.append(fitted)
        return Treatment(tuple(steps))

    def train(self, spec: InputSpec, params: Params, generator: torch.Generator) -> Params:
        """Training networks as one pass sees them."""
        for step in self.steps:
            params = step.treat(spec, step.augment(spec, params, generator))
        return params

    def predict(self, spec: InputSpec, params: Params) -> list[Params]:
        """Views of networks to predict, equally many for each."""
        views = [params]
        for step in self.steps:
            points = [point for view in views for point in step.views(spec, view)]
            views = [step.treat(spec, point) for point in points]
        return views

    @property
    def known(self) -> list[Params]:
        """What each step has learned."""
        return [step.state for step in self.steps]

    def with_known(self, known: list[Params]) -> "Treatment":
        """The same chain with what it had learned."""
        states = zip(self.steps, known, strict=True)
        return Treatment(tuple(step.with_state(state) for step, state in states))


def step_names(treatment: TreatmentSpec) -> list[str]:
    """The names of the steps of a treatment, in turn; they may be unknown."""
    if not isinstance(treatment, str):
        return list(treatment)
    return [] if treatment == NONE else [name.strip() for name in treatment.split("+")]


def parse_treatment(treatment: TreatmentSpec) -> Treatment:
    """The treatment of a text such as ``"align+augment"``, or of a mapping to options.

    Args:
        treatment: Names of `TREATMENTS` joined by ``+``, ``"none"`` for no step; or name ->
            options.

    Returns:
        The treatment, not fitted yet.

    Raises:
        ValueError: If a step or an option is unknown or out of range; lists the valid ones.
    """
    options = {} if isinstance(treatment, str) else treatment
    return Treatment(tuple(_step(name, options.get(name, {})) for name in step_names(treatment)))


def _step(name: str, options: Mapping[str, Any]) -> Step:
    if name not in TREATMENTS:
        known = [NONE, *TREATMENTS]
        raise ValueError(f"unknown treatment {name!r}; treatments are {known}, joined by '+'")
    step = TREATMENTS[name]
    if not issubclass(step, Step):
        raise ValueError(
            f"treatment {name!r}: expected a subclass of metanet.inputs.steps.Step, got {step}"
        )
    check_options(f"treatment {name!r}", step, options, (KNOWN,))
    return step(**options)
