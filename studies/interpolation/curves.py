"""Losses on the segment from the initial to the trained network, and the shape of such curves."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import vmap

from data_gen.tasks.task import Task
from data_gen.training.memory import running_bytes
from data_gen.training.runs import DataView
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

        L_t = mean over images of cross-entropy of f((1 - a_t) start + a_t end),  a_t = t / (T - 1)

    Networks and points run together, images and networks in parts of bounded memory.

    Args:
        architecture: Their architecture, in the dtype of the task.
        task: What they were trained on.
        shown: What each network saw of the training part.
        ends: Effective parameters `[N, *shape]` of the start and of the end.
        size: How many of the images that a network saw count, at least 1 each; the first ones.
        smoothing: Label smoothing of each network's loss; 0 for the cross-entropy.
        num_points: Number of points `T`, both ends included.

    Returns:
        Losses in nats; not finite where a network's outputs are not.

    Raises:
        ValueError: If the architecture has running statistics, which belong to one network and not
            to a point between two.
    """
    if architecture.statistics:
        raise ValueError(
            "a point between two networks has no running statistics of its own; "
            "expected an architecture without batch norm, "
            f"got the statistics {list(architecture.statistics)}"
        )
    num_images, num_networks = parts(architecture, task, num_points)
    apply: Callable[[Params, Tensor], Tensor] = vmap(vmap(architecture.apply, in_dims=(0, None)))
    losses = torch.zeros(len(size), num_points, dtype=torch.float64)
    with torch.no_grad():
        for rows in torch.arange(len(size)).split(num_networks):
            start, end = (select(params, rows) for params in ends)
            params = between(start, end, np.linspace(0, 1, num_points))
            for x, y, counted in _images(task, shown, rows, size[rows], num_images):
                image_losses = _cross_entropy(apply(params, x), y, smoothing[rows])
                losses[rows] += torch.where(counted[:, None], image_losses, 0).sum(-1)
    return losses / size[:, None]


def _cross_entropy(
    logits: Float[Tensor, "n T B K"], y: Int64[Tensor, "n B"], smoothing: Float[Tensor, " n"]
) -> Float64[Tensor, "n T B"]:
    """Cross-entropy of each image at each point, with the label smoothing of each network."""
    log_p = F.log_softmax(logits.double(), dim=-1)
    labels = y[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    of_label = log_p.gather(-1, labels)[..., 0]
    mixed = smoothing[:, None, None].double()
    return -((1 - mixed) * of_label + mixed * log_p.mean(-1))


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
    params = {name: tensor.to(task.mean) for name, tensor in drawn.items()}
    images = (task.inputs(task.train.x[:1].expand(count, *task.input_shape)) for count in (1, 2))
    with torch.no_grad():
        one, two = (running_bytes(partial(architecture.apply, params, x)) for x in images)
    per_image = max(two - one, 1)
    weights = 2 * architecture.space.num_params * task.mean.element_size()
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
        x = task.inputs(task.train.x[image.reshape(-1)])
        yield x.unflatten(0, image.shape), y, position < size[:, None]


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
