"""How well predicted probabilities fit what happens: calibration error and Brier score."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def calibration_error(
    probabilities: Float[Tensor, "*batch X K"], labels: Int64[Tensor, " X"], bins: int = 15
) -> Float[Tensor, "*batch"]:
    """Expected calibration error `sum_b n_b / n |accuracy_b - confidence_b|` over equal bins.

    Args:
        probabilities: Predicted probabilities.
        labels: True classes.
        bins: Bins of `(0, 1]`, open on the left.

    Returns:
        The error in [0, 1].

    References:
        Guo, Pleiss, Sun and Weinberger 2017, arXiv 1706.04599, equation 3.
    """
    confidence, predicted = probabilities.max(-1)
    gap = (predicted == labels).to(confidence.dtype) - confidence
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    total = torch.zeros((*confidence.shape[:-1], bins), dtype=gap.dtype, device=gap.device)
    return total.scatter_add(-1, index, gap).abs().sum(-1) / labels.numel()


def brier_score(
    probabilities: Float[Tensor, "*batch X K"], labels: Int64[Tensor, " X"]
) -> Float[Tensor, "*batch"]:
    """Mean over images of `sum_k (p_k - [k = label])^2`.

    Args:
        probabilities: Predicted probabilities.
        labels: True classes.

    Returns:
        The score in [0, 2]; 0 is best.

    References:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[-1])
    return ((probabilities - truth) ** 2).sum(-1).mean(-1)
