"""What data of a task must be; checked before any network is trained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_leaves

from data_gen.tasks.data import Inputs, Part

PARTS = ("train", "test")
_KEYS = tuple(f"{kind}_{part}" for part in PARTS for kind in ("x", "y"))
_MOST_CLASSES = 2**16


def parts_of(data: Any, what: str) -> tuple[Part, Part]:
    """The parts of a task from arrays by name.

    Args:
        data: A mapping with `x_train`, `y_train`, `x_test` and `y_test`: arrays or tensors; inputs
            may be tuples of them.
        what: Where it comes from, for errors.

    Returns:
        Both parts; their sizes and values are not checked.

    Raises:
        ValueError: If it is no such mapping, or something else than numbers is in it.
    """
    names = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
    if not isinstance(data, Mapping) or not {*_KEYS} <= {*data}:
        raise ValueError(f"{what}: expected {list(_KEYS)}, found {names!r:.300}")
    parts = []
    for part in PARTS:
        x, y = data[f"x_{part}"], data[f"y_{part}"]
        inputs = x if isinstance(x, tuple) else (x,)
        tensors = tuple(_input(each, f"{what}: x_{part}") for each in inputs)
        targets = _tensor(y, f"{what}: y_{part}")
        targets = targets if targets.is_floating_point() else targets.to(torch.int64)
        parts.append(Part(tensors if isinstance(x, tuple) else tensors[0], targets))
    return parts[0], parts[1]


def _input(values: Any, what: str) -> Shaped[Tensor, "X C *size"]:
    """An input as a tensor; one number an example is an axis of its own."""
    tensor = _tensor(values, what)
    if tensor.dtype not in (torch.uint8, torch.float32):
        tensor = tensor.to(torch.uint8 if tensor.dtype == torch.bool else torch.int64)
    return tensor if tensor.dim() > 1 else tensor.reshape(-1, 1)


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
            if len(x) != len(part):
                raise ValueError(
                    f"{what}: x_{name}: expected {len(part)} examples, as many as y_{name} has, "
                    f"found {len(x)}"
                )
        _check_finite(part.x, f"{what}: x_{name}")
        _check_finite(part.y, f"{what}: y_{name}")
    for key in ("x", "y"):
        forms = [form_of(getattr(part, key)) for part in (train, test)]
        if forms[0] != forms[1]:
            kind = "inputs" if key == "x" else "targets"
            raise ValueError(
                f"{what}: {key}_test: expected {kind} as in training, {forms[0]}, found {forms[1]}"
            )


def form_of(values: Inputs) -> str:
    """Shape and type of one example."""
    forms = [f"{list(x.shape[1:])} {x.dtype}" for x in tree_leaves(values)]
    return " and ".join(form.replace("torch.", "") for form in forms)


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
    return replace(part, y=y if y.dim() > 1 else y[:, None])


def scaling_of(values: Inputs, scales: bool) -> tuple[Inputs, Inputs]:
    """Mean and standard deviation of each channel.

    Args:
        values: Inputs or targets of the training part.
        scales: Whether to measure them; else they are 0 and 1.

    Returns:
        Both, `[C, 1, ...]`. A channel that never varies has deviation 1.
    """
    pairs = [_scaling(tensor, scales) for tensor in tree_leaves(values)]
    mean, std = (tuple(side) for side in zip(*pairs, strict=True))
    return (mean, std) if isinstance(values, tuple) else (mean[0], std[0])


def _scaling(values: Tensor, scales: bool) -> tuple[Tensor, Tensor]:
    axes = (0, *range(2, values.dim()))
    if not scales or values.dtype == torch.int64:
        zeros = torch.zeros([1 if axis in axes else n for axis, n in enumerate(values.shape)])[0]
        return zeros, zeros + 1
    exact = values.double()
    mean, std = exact.mean(axes, keepdim=True)[0], exact.std(axes, keepdim=True)[0]
    return mean.float(), torch.where(std > 0, std, 1).float()
