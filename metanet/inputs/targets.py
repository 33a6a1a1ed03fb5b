"""Targets: what a metanet predicts, in which units, and how its raw output becomes a prediction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from zoo.options import Finite, Positive, check_options

Link = Literal["logit", "log", "identity"]

KNOWN_LINKS: dict[str, Link] = {
    "test_accuracy": "logit",
    "train_accuracy": "logit",
    "test_loss": "log",
    "train_loss": "log",
    "generalization_gap": "identity",
    "test_r2": "identity",
    "train_r2": "identity",
    "test_rmse": "log",
    "train_rmse": "log",
    "lr": "log",
    "weight_decay": "log",
}
"""Links of known columns.

Any other: `log` if all training targets are positive and span a factor 100, else `identity`.
"""

EDGE = 0.005
"""Accuracies are taken to lie in [EDGE, 1 - EDGE], only when the spread of logits is measured."""

LOGIT_BOUND = 30.0


_INVERSES: dict[Link, Callable[[Tensor], Tensor]] = {
    "logit": torch.sigmoid,
    "log": torch.exp,
    "identity": torch.Tensor.clone,
}


@dataclass(frozen=True)
class Target:
    """How a raw output becomes a prediction, and the loss of a raw output.

        logit:     prediction = sigmoid(center + scale * raw)
        log:       prediction = exp(clamp(center + scale * raw, low, high))
        identity:  prediction = clamp(center + scale * raw, low, high)

    The loss of logit is the binary cross-entropy against the accuracy, that of the other two the
    Huber loss of the standardized target (log: of its logarithm).

    Center and scale are mean and standard deviation of the (linked) training targets; for `log` and
    `identity` median and interquartile range / 1.349, since losses and gaps have outliers. The
    bounds are the training targets' range widened by a
    tenth on either side: an outlier network may not throw its prediction (and with it R^2) far
    outside what was ever seen.
    Binary cross-entropy has its minimum at the true accuracy, as the squared error has, but does
    not go flat near 0 and 1.

    Attributes:
        name: Column of the population's table.
        link: How raw outputs become predictions.
        center: Of the linked training targets.
        scale: Of the linked training targets.
        low: Lower bound in linked units.
        high: Upper bound in linked units.
    """

    name: str
    link: Link
    center: Finite
    scale: Positive
    low: Finite
    high: Finite

    def __post_init__(self):
        """Check the fields.

        Raises:
            ValueError: If the link is unknown, or a number is not finite.
        """
        check_options("target", Target, vars(self))

    def loss(self, raw: Float[Tensor, "B"], y: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """Mean loss of raw outputs against targets in their own units."""
        if self.link == "logit":
            return binary_cross_entropy_with_logits(self.center + self.scale * raw, y)
        return smooth_l1_loss(raw, self.standardize(y))

    def standardize(self, y: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Targets in units of the raw output."""
        return (_linked(y, self.link) - self.center) / self.scale

    def predict(self, raw: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Raw outputs to predictions in the target's own units."""
        linked = (self.center + self.scale * raw).clamp(self.low, self.high)
        return _INVERSES[self.link](linked)


def fit_target(name: str, y: Float[Tensor, "N"], *, trees: bool = False) -> Target:
    """Choose the link of a target and standardize it.

    Args:
        name: Column.
        y: Training targets, finite.
        trees: Whether trees will predict it. Their leaves are means of targets, hence within the
            range anyway, so that they take accuracies as they are.

    Returns:
        The target.

    Raises:
        ValueError: If an accuracy is outside [0, 1] or a known loss or rate is negative.
    """
    y = y.double()
    link = _choose_link(name, y, trees)
    linked = _linked(y, link)
    if link == "logit":
        center, scale = float(linked.mean()), _spread(linked.std(correction=0))
        return Target(name, link, center, scale, -LOGIT_BOUND, LOGIT_BOUND)
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    first, median, third = linked.quantile(quarters)
    scale = (third - first) / 1.349
    scale = scale if scale > 0 else linked.std(correction=0)
    least, most = map(float, linked.aminmax())
    margin = 0.1 * (most - least)
    low, high = least - margin, most + margin
    if name.endswith("accuracy"):
        low, high = max(low, 0.0), min(high, 1.0)
    return Target(name, link, float(median), _spread(scale), low, high)


def _choose_link(name: str, y: Tensor, trees: bool) -> Link:
    link = KNOWN_LINKS.get(name) or _guess(y)
    if link == "logit" and bool(((y < 0) | (y > 1)).any()):
        raise ValueError(
            f"target {name!r}: expected values in [0, 1], "
            f"got {float(y.min()):.4g} to {float(y.max()):.4g}"
        )
    if link == "log" and bool((y < 0).any()):
        raise ValueError(f"target {name!r}: expected values >= 0, got {float(y.min()):.4g}")
    has_zeros = link == "log" and not _positive(y)
    return "identity" if has_zeros or (trees and link == "logit") else link


def _guess(y: Tensor) -> Link:
    return "log" if _positive(y) and float(y.max() / y.min()) > 100 else "identity"


def _positive(y: Tensor) -> bool:
    return bool((y > torch.finfo(torch.float32).tiny).all())


def _linked(y: Tensor, link: Link) -> Tensor:
    if link == "logit":
        return y.clamp(EDGE, 1 - EDGE).logit()
    return y.clamp_min(torch.finfo(torch.float32).tiny).log() if link == "log" else y


def _spread(scale: Tensor) -> float:
    return float(scale) if float(scale) > 0 else 1.0
