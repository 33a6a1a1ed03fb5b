"""What happens between two networks: losses and accuracies along the segment, and barriers."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from studies.common.evaluation import Part, evaluate, num_networks, reset_statistics
from zoo.architectures import Architecture
from zoo.params import Params, select


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], points: Float64[np.ndarray, " T"]
) -> Params:
    """Networks `(1 - t) a + t b`; exact at both ends, and in all entries in which both agree.

    Args:
        start: Networks `a`, `[N, *shape]`.
        end: Networks `b`, `[N, *shape]`.
        points: Places `t` in [0, 1].

    Returns:
        Parameters `[N, T, *shape]`.
    """
    params = {}
    for name, a in start.items():
        weight = torch.as_tensor(points, dtype=a.dtype).reshape(1, -1, *(1,) * (a.dim() - 1))
        params[name] = torch.lerp(a[:, None], end[name][:, None], weight)
    return params


def evaluate_segment(
    architecture: Architecture,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    points: Float64[np.ndarray, " T"],
    parts: Mapping[str, Part],
    repair: Part | None = None,
) -> dict[str, tuple[Float64[np.ndarray, "N T"], Float64[np.ndarray, "N T"]]]:
    """Losses and accuracies on the segments between networks.

    One segment at a time, all its points together.

    Args:
        architecture: What they compute.
        start: Networks `[N, *shape]`.
        end: Networks `[N, *shape]`, one for each start.
        points: Places on the segment, 0 at the start and 1 at the end.
        parts: Images by name.
        repair: Training images on which running statistics are reset at every point; None leaves
            them interpolated.

    Returns:
        For each part losses in nats and accuracies in [0, 1].
    """
    segments = []
    for i in range(num_networks(start)):
        one = slice(i, i + 1)
        networks = select(between(select(start, one), select(end, one), points), 0)
        if repair is not None:
            networks = reset_statistics(architecture, networks, repair.x)
        segments.append([evaluate(architecture, networks, part) for part in parts.values()])
    losses, accuracies = np.moveaxis(np.array(segments), 2, 0).swapaxes(1, 2)
    return dict(zip(parts, zip(losses, accuracies, strict=True), strict=True))


def above_chord(
    values: Float[np.ndarray, "*N T"], points: Float64[np.ndarray, " T"]
) -> Float[np.ndarray, "*N T"]:
    """How far values on segments are above the straight line between their ends.

    d(t) = L(t) - ((1 - t) L(0) + t L(1))

    Args:
        values: Values at the points.
        points: Places on the segment, the first 0 and the last 1.

    Returns:
        The differences.
    """
    return values - (values[..., :1] * (1 - points) + values[..., -1:] * points)


def midpoint(points: Float64[np.ndarray, " T"]) -> int:
    """Number of the point in the middle.

    Args:
        points: Places on the segment.

    Returns:
        Its index.

    Raises:
        ValueError: If there is none.
    """
    if not np.any(points == 0.5):
        raise ValueError(f"expected the middle 0.5 among the points, got {points.tolist()}")
    return int(np.flatnonzero(points == 0.5)[0])
