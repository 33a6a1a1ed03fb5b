"""Losses on the segment from the initial to the trained network, and the shape of such curves."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import vmap

from data_gen.tasks.data import Task
from data_gen.training.memory import running_bytes
from data_gen.training.runs import DataView
from studies.common.evaluation import check_shared
from studies.common.segments import between
from zoo.architectures.base import Architecture
from zoo.params import Params, select

MEMORY = 64 * 2**20
"""Bytes for the params and activations of all points of the networks that run together."""
MAX_IMAGES = 256


def segment_losses(
    architecture: Architecture,
    task: Task,
    shown: DataView,
    ends: tuple[Params, Params],
    size: Int64[Tensor, " N"],
    smoothing: Float[Tensor, " N"],
    num_points: int,
) -> Float64[Tensor, "N T"]:
    """Training loss at evenly spaced points of the segment between two networks, pair by pair.

        L_t = mean over examples of the loss of f((1 - a_t) start + a_t end),  a_t = t / (T - 1)

    Networks and points run together, images and networks in parts of bounded memory.

    Args:
        architecture: Their architecture, in the dtype of the task.
        task: What they were trained on.
        shown: What each network saw of the training part.
        ends: Effective parameters `[N, *shape]` of the start and of the end.
        size: How many of the images that a network saw count, at least 1 each; the first ones.
        smoothing: Label smoothing of each network's loss; 0 for the plain one.
        num_points: Number of points `T`, both ends included.

    Returns:
        Losses of the task; not finite where a network's outputs are not.

    Raises:
        ValueError: If the architecture has running statistics, which belong to one network and not
            to a point between two.
    """
    _check_measurable(architecture, task)
    num_images, num_networks = parts(architecture, task, num_points)
    apply = vmap(vmap(architecture.apply, in_dims=(0, None)))
    each, smoothing = vmap(vmap(task.loss.each, in_dims=(0, None, None))), smoothing.double()
    losses = torch.zeros(len(size), num_points, dtype=torch.float64)
    with torch.no_grad():
        for rows in torch.arange(len(size)).split(num_networks):
            start, end = (select(params, rows) for params in ends)
            params = between(start, end, np.linspace(0, 1, num_points))
            for x, y, counted in _images(task, shown, rows, size[rows], num_images):
                of_examples = each(apply(params, x).double(), y, smoothing[rows])
                losses[rows] += of_examples.where(counted[:, None], 0).sum(-1)
    return losses / size[:, None]


def _check_measurable(architecture: Architecture, task: Task) -> None:
    check_shared(task)
    if architecture.statistics:
        raise ValueError(
            "a point between two networks has no running statistics of its own; "
            "expected an architecture without batch norm, "
            f"got the statistics {list(architecture.statistics)}"
        )


def parts(architecture: Architecture, task: Task, num_points: int) -> tuple[int, int]:
    """How many images, and how many networks, run at once in `MEMORY`, at least one of each.

    Args:
        architecture: The architecture, in the dtype of the task.
        task: The task.
        num_points: Points of each network.

    Returns:
        Number of images and number of networks.
    """
    drawn = architecture.init(torch.Generator())
    params = {name: tensor.to(task.like) for name, tensor in drawn.items()}
    rows = (torch.zeros(count, dtype=torch.int64) for count in (1, 2))
    images = (task.inputs(task.train.rows(row)) for row in rows)
    with torch.no_grad():
        one, two = (running_bytes(partial(architecture.apply, params, x)) for x in images)
    per_image = max(two - one, 1)
    weights = 2 * architecture.space.num_params * task.like.element_size()
    images = min(MAX_IMAGES, max(1, (MEMORY // num_points - weights) // per_image))
    return images, max(1, MEMORY // (num_points * (weights + images * per_image)))


def _images(
    task: Task, shown: DataView, rows: Int64[Tensor, " n"], size: Int64[Tensor, " n"], at_once: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs `[n, B, ...]`, labels and which count `[n, B]`, until all have seen theirs."""
    labels = shown.labels if len(shown.labels) == 1 else shown.labels[rows]
    chosen = DataView(None if shown.subset is None else shown.subset[rows], labels)
    for position in torch.arange(int(size.max())).split(at_once):
        image, y = chosen.batch(position.expand(len(rows), -1))
        yield task.inputs(task.train.rows(image)), y, position < size[:, None]


def measure_curves(losses: Float[np.ndarray, "N T"]) -> dict[str, Float[np.ndarray, " N"]]:
    """The shape of loss curves; NaN for a curve that is not finite everywhere.

    Args:
        losses: Losses at evenly spaced points, at least three.

    Returns:
        `largest_rise`, `max_t L_{t+1} - L_t`, below 0 where the loss always falls; `monotonic`, 1
        if that is at most 0, else 0; `convex`, the share of interior points with
        `L_{t+1} - 2 L_t + L_{t-1} >= 0`; `below_chord`, the share of interior points that are not
        above the chord through both ends.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 5.4; their code draws the chord through the first
        two points instead.

    >>> shapes = measure_curves(np.array([[4.0, 1.0, 2.0, 0.0]]))
    >>> {name: values.tolist() for name, values in shapes.items()}
    {'largest_rise': [1.0], 'monotonic': [0.0], 'convex': [0.5], 'below_chord': [0.5]}
    """
    finite = np.isfinite(losses).all(1)
    curves = np.where(finite.reshape(-1, 1), losses, 0.0)
    fraction = np.arange(curves.shape[1]) / (curves.shape[1] - 1)
    chord = curves[:, :1] * (1 - fraction) + curves[:, -1:] * fraction
    rise = np.diff(curves, axis=1).max(1)
    shapes = {
        "largest_rise": rise,
        "monotonic": (rise <= 0).astype(np.float64),
        "convex": (np.diff(curves, n=2, axis=1) >= 0).mean(1),
        "below_chord": np.less_equal(curves, chord)[:, 1:-1].mean(1),
    }
    return {name: np.where(finite, values, np.nan) for name, values in shapes.items()}
