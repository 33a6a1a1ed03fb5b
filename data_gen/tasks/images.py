"""Image classification sets of the `datasets` library, from the Hub or a folder, as uint8."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from data_gen.rng import generator


def load_images(
    path: str, split: str, size: int | None, seed: int, grey: bool, resize: int | None
) -> tuple[UInt8[Tensor, "X C H W"], Int64[Tensor, " X"], int]:
    """Load one part of an image classification set.

    Args:
        path: Local folder or id on the Hub.
        split: `"train"` or `"test"`.
        size: Number of images, all if None; which ones depends on the seed only.
        seed: Seed of the choice.
        grey: Whether to convert to one channel.
        resize: Height and width in pixels, as they are if None.

    Returns:
        Images, labels and the number of classes.

    Raises:
        ValueError: If there is no such set or split, it has no image and label columns, or too few
            images.
    """
    dataset = _load_split(path, split)
    image_column, label_column = _columns(dataset, path)
    count = len(dataset) if size is None else size
    if not 1 <= count <= len(dataset):
        raise ValueError(
            f"task.{split}_size: expected 1 to {len(dataset)} images of {path!r}, found {count}"
        )
    rows = torch.randperm(len(dataset), generator=generator(seed, "images", split))[:count]
    chosen = dataset.select(rows.tolist())
    arrays = [_as_array(image, grey, resize) for image in chosen[image_column]]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"{path!r}: images have {len(shapes)} different shapes; "
            "give task.resize (and task.grey)"
        )
    labels = np.asarray(chosen[label_column], dtype=np.int64)
    x = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).contiguous()
    return x, torch.from_numpy(labels), dataset.features[label_column].num_classes


def _load_split(path: str, split: str) -> Any:
    """A split of the set in a local folder, or else on the Hub."""
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


def _as_array(image: Any, grey: bool, resize: int | None) -> UInt8[np.ndarray, "H W C"]:
    image = image.convert("L") if grey or image.mode in ("1", "L", "I;16") else image.convert("RGB")
    if resize is not None:
        image = image.resize((resize, resize))
    return np.atleast_3d(np.asarray(image, dtype=np.uint8))
