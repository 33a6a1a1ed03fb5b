"""Image classification sets of the `datasets` library, from the Hub or a folder.

Images of 8 bits stay uint8; those of more bits, or of floating point, keep their values as float32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from data_gen.rng import generator

_COLORS = ("RGB", "P", "PA", "LA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_MODES = {"1": "L", "L": "L"} | dict.fromkeys(_COLORS, "RGB") | dict.fromkeys(_DEEP, "F")
"""What an image of each mode of Pillow is read as."""
_UNITS = {"images": "images", "datasets": "rows"}


def load_images(
    path: str, split: str, size: int | None, seed: int, grey: bool, resize: int | None
) -> tuple[Shaped[Tensor, "X C H W"], Int64[Tensor, " X"], int]:
    """Load one part of an image classification set.

    Args:
        path: Local folder or id on the Hub.
        split: `"train"` or `"test"`.
        size: Number of images, all if None; which ones depends on the seed only.
        seed: Seed of the choice.
        grey: Whether to convert to one channel.
        resize: Height and width in pixels, as they are if None.

    Returns:
        Images, uint8 or float32, labels and the number of classes.

    Raises:
        ValueError: If there is no such set or split, it has no image and label columns, too few
            images, images of several forms, or images without a label.
    """
    dataset = load_split(path, split)
    image_column, label_column = _columns(dataset, path)
    chosen = choose_rows(dataset, path, split, size, seed, "images")
    arrays = [as_array(image, grey, resize) for image in chosen[image_column]]
    check_alike(arrays, path)
    num_classes = dataset.features[label_column].num_classes
    labels = known_labels(chosen[label_column], num_classes, f"{path!r}: split {split!r}")
    x = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).contiguous()
    return x, labels, num_classes


def choose_rows(dataset: Any, path: str, split: str, size: int | None, seed: int, task: str) -> Any:
    """Some rows of a split, in random order.

    Args:
        dataset: The split.
        path: Where it comes from, for errors.
        split: Its name.
        size: How many, all if None.
        seed: Seed of the choice.
        task: Name of the task, which the choice depends on too.

    Returns:
        The rows.

    Raises:
        ValueError: If there are not so many.
    """
    if not len(dataset):
        raise ValueError(f"task.path: expected {task} in split {split!r} of {path!r}, found none")
    count = len(dataset) if size is None else size
    if not 1 <= count <= len(dataset):
        raise ValueError(
            f"task.{split}_size: expected 1 to {len(dataset)} {_UNITS[task]} of {path!r}, "
            f"found {count}"
        )
    rows = torch.randperm(len(dataset), generator=generator(seed, task, split))[:count]
    return dataset.select(rows.tolist())


def known_labels(labels: Sequence[int | None], num_classes: int, what: str) -> Int64[Tensor, " X"]:
    """Labels of rows that all have one; -1 stands for none.

    Args:
        labels: The labels.
        num_classes: Number of classes.
        what: Whose they are, for errors.

    Returns:
        The same.

    Raises:
        ValueError: If a row has none.
    """
    known = [label for label in labels if label is not None]
    if len(known) < len(labels) or not all(0 <= label < num_classes for label in known):
        raise ValueError(f"{what} has images without a label")
    return torch.tensor(known, dtype=torch.int64)


def check_alike(arrays: list[Shaped[np.ndarray, "H W C"]], path: str) -> None:
    """Refuse images of several forms, with the option that helps, and values that are none.

    Args:
        arrays: The images.
        path: Where they come from, for errors.

    Raises:
        ValueError: If they have several forms, or values that are not finite.
    """
    if len({array.dtype for array in arrays}) > 1:
        raise ValueError(f"{path!r}: some images have 8 bits and others more; expected one kind")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{path!r}: an image has values that are not finite")
    sizes, channels = {array.shape[:2] for array in arrays}, {array.shape[2] for array in arrays}
    helps = {"task.resize": len(sizes) > 1, "task.grey": len(channels) > 1}
    if advice := [option for option, is_needed in helps.items() if is_needed]:
        raise ValueError(
            f"{path!r}: images have {len(sizes)} sizes and {sorted(channels)} channels; "
            f"give {' and '.join(advice)}"
        )


def load_split(path: str, split: str) -> Any:
    """A split of the set in a local folder, or else on the Hub.

    Args:
        path: Local folder or id on the Hub.
        split: Its name.

    Returns:
        The split.

    Raises:
        ValueError: If it cannot be loaded.
    """
    folder = Path(path).expanduser()
    try:
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, split=split)
    except Exception as error:  # the library raises many kinds: missing, offline, malformed
        raise ValueError(f"task.path: cannot load split {split!r} of {path!r}: {error}") from error


def _columns(dataset: Any, path: str) -> tuple[str, str]:
    features = dataset.features.items()
    images, labels = (
        [name for name, feature in features if isinstance(feature, kind)]
        for kind in (datasets.Image, datasets.ClassLabel)
    )
    if len(images) != 1 or not labels:
        raise ValueError(
            f"{path!r}: expected one Image column and a ClassLabel column, found "
            f"{ {name: type(feature).__name__ for name, feature in features} }"
        )
    return images[0], labels[0]


def as_array(image: Any, grey: bool, resize: int | None) -> Shaped[np.ndarray, "H W C"]:
    """An image of Pillow as an array, uint8 or float32.

    Args:
        image: The image.
        grey: Whether to convert to one channel.
        resize: Height and width in pixels, as it is if None.

    Returns:
        The array.

    Raises:
        ValueError: If its mode is unknown, or there is no image.
    """
    if image is None:
        raise ValueError("task.path: a row has no image")
    if image.mode not in _MODES:
        raise ValueError(f"an image of mode {image.mode!r}; expected one of {list(_MODES)}")
    mode = _MODES[image.mode]
    image = image.convert("L" if grey and mode == "RGB" else mode)
    if resize is not None:
        image = image.resize((resize, resize))
    return np.atleast_3d(np.asarray(image))
