"""What a study of conserved quantities is asked to do."""

from typing import Annotated

from pydantic import Field, field_validator

from data_gen.training.optim import OPTIMIZERS
from studies.common.base import StudyConfig
from zoo.config import (
    NonNegativeNumber,
    NonNegativeWhole,
    PositiveNumber,
    PositiveWhole,
    StrictModel,
)

BRIDGES = ("hyperparameters", "conserved", "initial", "final")


class Descent(StrictModel):
    """One way to train networks step by step.

    Attributes:
        optimizer: Name in `data_gen.training.optim.OPTIMIZERS`.
        lrs: Step sizes; each run lasts the same time, step size times steps.
        momentum: Of SGD.
        weight_decay: Coupled for SGD, decoupled for AdamW.
    """

    optimizer: str = "sgd"
    lrs: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)] = (0.2, 0.1, 0.05, 0.025)
    momentum: NonNegativeNumber = 0.0
    weight_decay: NonNegativeNumber = 0.0

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {name!r}; known are {list(OPTIMIZERS)}")
        return name


class Conservation(StudyConfig):
    """What to measure.

    Attributes:
        populations: Populations of the zoo, all if None.
        descents: Ways to train by name. Networks of the zoo's populations are trained anew, in
            float64, and watched at every step.
        steps: Steps of a run with the smallest step size; a run with a larger one has fewer.
        batch_size: Images in a batch.
        records: Rows of a run, evenly spaced, after the one at the start.
        networks: Networks of each run, in lock step.
        bridges: What the zoo's networks are told by when their future is predicted:
            `hyperparameters`, the `conserved` quantities of the initialization, statistics of the
            `initial` or of the `final` parameters; nothing is predicted if empty.
        targets: What is predicted: columns of the zoo, computed targets such as `sharpness`, or
            `half_time`, the number of steps until the training loss is half of that of the
            initialization.
        num_train: Training images that `half_time` is measured on, the first ones.
        seed: Of the metanets.
        num_bootstrap: Resamples of an interval.
    """

    populations: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    descents: Annotated[dict[str, Descent], Field(min_length=1)]
    steps: PositiveWhole = 400
    batch_size: PositiveWhole = 64
    records: PositiveWhole = 10
    networks: PositiveWhole = 8
    bridges: tuple[str, ...] = BRIDGES
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "test_accuracy",
        "half_time",
        "sharpness",
    )
    num_train: PositiveWhole = 500
    seed: NonNegativeWhole = 0
    num_bootstrap: PositiveWhole = 1000

    @field_validator("bridges")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in BRIDGES]:
            raise ValueError(f"unknown bridge {unknown[0]!r}; known are {list(BRIDGES)}")
        return names
