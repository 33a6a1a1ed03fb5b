"""What data of a task must be; checked before any network is trained."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from data_gen.tasks.data import Inputs, Part

PARTS = ("train", "test")
_KEYS = tuple(f"{kind}_{part}" for part in PARTS for kind in ("x", "y"))
_MOST_CLASSES = 2**16


def parts_of(data: Any, what: str, per_network: bool = False) -> tuple[Part, Part]:
    """The parts of a task from arrays by name.

    Args:
        data: A mapping with `x_train`, `y_train`, `x_test` and `y_test`: arrays or tensors; inputs
            may be tuples or mappings of them. With `per_network` it may have `label`.
        what: Where it comes from, for errors.
        per_network: Whether targets have an axis of networks before that of examples. Inputs have
            it, too, if their first two axes are as long as those of the targets.

    Returns:
        Both parts; their sizes and values are not checked.

    Raises:
        ValueError: If it is no such mapping, or something else than numbers is in it.
    """
    names = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
    if not isinstance(data, Mapping) or not {*_KEYS} <= {*data}:
        raise ValueError(f"{what}: expected {list(_KEYS)}, found {names!r:.300}")
    train, test = (_part(data, part, what, per_network) for part in PARTS)
    if per_network and "label" in data:
        label = _tensor(data["label"], f"{what}: label")
        label = label.to(torch.float64 if label.is_floating_point() else torch.int64)
        train = replace(train, labels=label)
    return train, test


def _part(data: Mapping[str, Any], part: str, what: str, per_network: bool) -> Part:
    """One part from arrays by name."""
    y = _tensor(data[f"y_{part}"], f"{what}: y_{part}")
    y = y if y.is_floating_point() else y.to(torch.int64)
    if per_network and y.dim() < 2:
        raise ValueError(
            f"{what}: y_{part}: expected an axis of networks and one of examples, found the shape "
            f"{list(y.shape)}"
        )
    given, where = data[f"x_{part}"], f"{what}: x_{part}"
    x = _tensors(given, where)
    own = per_network and all(each.shape[:2] == y.shape[:2] for each in tree_leaves(x))
    x = tree_map(partial(_input, axes=2 if own else 1), x)
    return Part(x, y, per_network, own)


def _tensors(given: Any, what: str) -> Inputs:
    """One array, a tuple or a mapping of them as tensors."""
    if isinstance(given, Mapping):
        return {name: _tensor(each, f"{what}: {name}") for name, each in given.items()}
    if isinstance(given, tuple):
        return tuple(_tensor(each, what) for each in given)
    return _tensor(given, what)


def _input(tensor: Tensor, axes: int) -> Shaped[Tensor, "X C *size"]:
    """An input in a type of ours; one number an example is an axis of its own."""
    if tensor.dtype not in (torch.uint8, torch.float32):
        tensor = tensor.to(torch.uint8 if tensor.dtype == torch.bool else torch.int64)
    return tensor if tensor.dim() > axes else tensor[..., None]


def _tensor(values: Any, what: str) -> Shaped[Tensor, "..."]:
    """Numbers as a tensor on the CPU, those of a floating type as float32."""
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of several lengths
            raise ValueError(f"{what}: {error}") from error
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{what}: expected an array of numbers, found the type {array.dtype}")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        values = torch.from_numpy(native.copy())
    if values.is_complex() or values.dim() == 0:
        found = f"{values.dtype}, {list(values.shape)}"
        raise ValueError(f"{what}: expected real numbers with an axis of examples, found {found}")
    values = values.detach().to("cpu").contiguous()
    return values.to(torch.float32) if values.is_floating_point() else values


def check_parts(train: Part, test: Part, what: str) -> None:
    """Check sizes, forms and values of both parts.

    Args:
        train: Training part.
        test: Test part.
        what: Whose they are, for errors.

    Raises:
        ValueError: If a part is empty, inputs and targets are not as many, the parts have different
            forms, or a number is not finite.
    """
    for name, part in zip(PARTS, (train, test), strict=True):
        if not len(part):
            raise ValueError(f"{what}: y_{name}: expected at least one example, found none")
        for x in tree_leaves(part.x):
            if (count := x.shape[1 if part.own_inputs else 0]) != len(part):
                raise ValueError(
                    f"{what}: x_{name}: expected {len(part)} examples, as many as y_{name} has, "
                    f"found {count}"
                )
        _check_finite(part.x, f"{what}: x_{name}")
        _check_finite(part.y, f"{what}: y_{name}")
    for key, form in (("x", input_form), ("y", _target_form)):
        if (found := form(test)) != (expected := form(train)):
            kind = "inputs" if key == "x" else "targets"
            raise ValueError(
                f"{what}: {key}_test: expected {kind} as in training, {expected}, found {found}"
            )
    _check_labels(train.labels, len(train.y), what)


def _check_labels(labels: Tensor | None, items: int, what: str) -> None:
    if labels is not None and (labels.shape != (items,) or not bool(labels.isfinite().all())):
        raise ValueError(
            f"{what}: label: expected {items} finite numbers, one for each network, found the "
            f"shape {list(labels.shape)}"
        )


def is_image(part: Part) -> bool:
    """Whether inputs are images with channels."""
    return isinstance(part.x, Tensor) and len(part.input_shapes) == 3


def input_form(part: Part) -> str:
    """Shape and type of one input, or of each of several, for messages."""
    start = 2 if part.own_inputs else 1
    forms = [f"{list(x.shape[start:])} {x.dtype}" for x in tree_leaves(part.x)]
    names = [*part.x] if isinstance(part.x, dict) else []
    own = " of each network" if part.own_inputs else ""
    return " and ".join([*forms, *names]).replace("torch.", "") + own


def _target_form(part: Part) -> str:
    """Shape and type of one target."""
    of = f" of each of {len(part.y)} networks" if part.per_network else ""
    return f"{list(part.target_shape)} {part.y.dtype}{of}".replace("torch.", "")


def _check_finite(values: Inputs, what: str) -> None:
    for tensor in tree_leaves(values):
        bad = ~tensor.isfinite().reshape(len(tensor), -1).all(1)
        if tensor.is_floating_point() and bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ValueError(f"{what}: expected finite numbers, found others in row {row}")


def count_classes(train: Part, test: Part, known: int | None, what: str) -> int | None:
    """How many classes the targets have.

    Args:
        train: Training part.
        test: Test part.
        known: Number of classes, if the source says it.
        what: Whose they are, for errors.

    Returns:
        Number of classes; None if targets are numbers.

    Raises:
        ValueError: If a class is out of range.
    """
    if train.y.is_floating_point():
        return None
    count = 1 + max(int(part.y.max()) for part in (train, test)) if known is None else known
    for name, part in zip(PARTS, (train, test), strict=True):
        low, high = map(int, part.y.aminmax())
        if low < 0 or high >= min(count, _MOST_CLASSES):
            most = min(count, _MOST_CLASSES) - 1
            raise ValueError(
                f"{what}: y_{name}: expected classes from 0 to {most}, found {low} to {high}"
            )
    return count


def numbers(part: Part) -> Part:
    """A part whose targets are numbers; one number an example is an axis of its own."""
    y = part.y.to(torch.float32)
    return replace(part, y=y if part.target_shape else y[..., None])


def scaling_of(values: Inputs, scales: bool, own: bool) -> tuple[Inputs, Inputs]:
    """Mean and standard deviation of each channel.

    Args:
        values: Inputs or targets of the training part.
        scales: Whether to measure them; else they are 0 and 1.
        own: Whether they have an axis of networks.

    Returns:
        Both, `[C, 1, ...]`. A channel that never varies has deviation 1.
    """
    leaves, structure = tree_flatten(values)
    pairs = [_scaling(tensor.flatten(0, 1) if own else tensor, scales) for tensor in leaves]
    mean, std = (tree_unflatten(side, structure) for side in zip(*pairs, strict=True))
    return mean, std


def _scaling(values: Tensor, scales: bool) -> tuple[Tensor, Tensor]:
    axes = (0, *range(2, values.dim()))
    if not scales or values.dtype == torch.int64:
        zeros = torch.zeros([1 if axis in axes else n for axis, n in enumerate(values.shape)])[0]
        return zeros, zeros + 1
    exact = values.double()
    mean, std = exact.mean(axes, keepdim=True)[0], exact.std(axes, keepdim=True)[0]
    return mean.float(), torch.where(std > 0, std, 1).float()
