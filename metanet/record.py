"""What the file of a metanet says of it besides its tensors, as pydantic models.

Files come from anywhere: every number has its bounds.
"""

import math
from typing import Any, Literal

from pydantic import Field, JsonValue

from metanet.columns import HyperparameterColumn
from metanet.contract import History, Training
from metanet.inputs.targets import Target
from zoo.config import StrictModel
from zoo.options import Count, Finite
from zoo.store.entries import LARGEST_INPUT, Line, Shape

FORMAT = 3
MOST_SPACES, MOST_STEPS = 64, 64


class NetworkRecord(StrictModel):
    """What the networks compute, as `Architecture.description` has it."""

    architecture: dict[str, JsonValue]
    input_shape: Shape
    num_classes: int = Field(ge=1, le=LARGEST_INPUT)


class SpaceRecord(StrictModel):
    """The networks of one population.

    Attributes:
        space: Weight space.
        space_fingerprint: Of the weight space.
        hyperparameters: Hyperparameter columns.
        network: What they compute, if the metanet runs them.
    """

    space: dict[str, Any]
    space_fingerprint: str
    hyperparameters: dict[Line, HyperparameterColumn]
    network: NetworkRecord | None


class HistoryRecord(StrictModel):
    """Course of training; a loss that is not finite is None."""

    validation_loss: list[Finite | None]
    best_epoch: int = Field(ge=0, lt=2**31)

    @property
    def history(self) -> History:
        """The course, NaN where a loss was not finite."""
        losses = [math.nan if loss is None else loss for loss in self.validation_loss]
        return History(losses, self.best_epoch)


class TrainedOn(StrictModel):
    """Names of the populations that a metanet was fitted on, and numbers of networks."""

    population: str
    num_train: Count
    num_validation: Count
    num_dropped: int = Field(ge=0, lt=2**31)


class Record(StrictModel):
    """The record of a fitted metanet.

    Attributes:
        format: Version of the format.
        params: Constructor arguments.
        spaces: The networks of each population.
        num_steps: Steps of the treatment.
        target: Units of predictions.
        training: Training settings that were used.
        history: Course of training.
        trained_on: The networks.
        versions: Of python and packages, where it was trained.
    """

    format: Literal[3]
    params: dict[str, JsonValue]
    spaces: list[SpaceRecord] = Field(min_length=1, max_length=MOST_SPACES)
    num_steps: int = Field(ge=0, le=MOST_STEPS)
    target: Target
    training: Training
    history: HistoryRecord
    trained_on: TrainedOn
    versions: dict[str, Line]
