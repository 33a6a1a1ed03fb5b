"""What a training run leaves behind besides weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class History:
    """Course of one training run.

    Attributes:
        validation_loss: After each pass (for trees, by number of trees).
        best_epoch: Index of the lowest validation loss: the weights that were kept.
    """

    validation_loss: list[float]
    best_epoch: int
