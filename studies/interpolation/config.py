"""What a study of linear interpolation is asked to do."""

from typing import Literal

from pydantic import Field

from studies.common.base import StudyConfig
from zoo.config import Flag, Whole


class Interpolation(StudyConfig):
    """What to measure.

    Attributes:
        populations: Populations of the zoo, all if None.
        baseline: The population that others are compared with, network by network.
        num_points: Points of a segment, both ends included.
        num_networks: Networks of each population, the first ids; all if None.
        num_images: Training images that the loss is over, the first ones that a network saw; all
            that it saw if None.
        label_smoothing: Whether the loss has the network's own label smoothing, as its training
            had.
        dtype: Floating type of the networks.
        block: Networks in a cell.
        num_bins: Bins of each hyperparameter in the report.
        num_bootstrap: Bootstrap resamples of each interval.
    """

    populations: tuple[str, ...] | None = Field(None, min_length=1)
    baseline: str = "standard"
    num_points: Whole = Field(25, ge=3)
    num_networks: Whole | None = Field(None, ge=1)
    num_images: Whole | None = Field(None, ge=1)
    label_smoothing: Flag = False
    dtype: Literal["float32", "float64"] = "float64"
    block: Whole = Field(50, ge=1)
    num_bins: Whole = Field(5, ge=1)
    num_bootstrap: Whole = Field(1000, ge=100)
