"""Any set of the `datasets` library: columns of numbers, arrays or images, by name."""

from typing import Any

import datasets
import numpy as np

from data_gen.tasks.images import as_array, check_alike, choose_rows, known_labels, load_split


def load_rows(
    path: str,
    split: str,
    names: tuple[str, ...],
    target: str,
    size: int | None,
    seed: int,
    grey: bool = False,
    resize: int | None = None,
) -> tuple[Any, Any, int | None]:
    """Load one part of a set.

    Args:
        path: Local folder or id on the Hub.
        split: `"train"` or `"test"`.
        names: Columns that are inputs.
        target: Column that is the target.
        size: Number of rows, all if None; which ones depends on the seed only.
        seed: Seed of the choice.
        grey: Whether to convert images to one channel.
        resize: Height and width of images in pixels, as they are if None.

    Returns:
        Inputs: one array, of several columns of single numbers one beside the other, or else a
        tuple with an array for each column; targets; number of classes if the set says it.

    Raises:
        ValueError: If there is no such set, split or column, or a column is of something else.
    """
    dataset = load_split(path, split)
    for name in (*names, target):
        if name not in dataset.features:
            columns = list(dataset.features)
            raise ValueError(f"{path!r}: no column {name!r}; columns are {columns}")
    chosen = choose_rows(dataset, path, split, size, seed, "datasets")
    arrays = [_column(chosen, path, name, grey, resize) for name in names]
    if all(array.ndim == 1 for array in arrays):
        return np.stack(arrays, axis=1), *_targets(chosen, path, split, target)
    inputs = arrays[0] if len(arrays) == 1 else tuple(arrays)
    return inputs, *_targets(chosen, path, split, target)


def _column(dataset: Any, path: str, name: str, grey: bool, resize: int | None) -> np.ndarray:
    """A column as an array, images with their channels first."""
    values = dataset[name]
    if isinstance(dataset.features[name], datasets.Image):
        pictures = [as_array(image, grey, resize) for image in values]
        check_alike(pictures, path)
        return np.moveaxis(np.stack(pictures), -1, 1)
    rows = list(values)
    if any(row is None for row in rows):
        raise ValueError(f"{path!r}: column {name!r} has rows without a value")
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise ValueError(f"{path!r}: column {name!r} has rows of several shapes") from error
    if array.dtype.kind not in "biuf":
        feature = dataset.features[name]
        raise ValueError(
            f"{path!r}: column {name!r}: expected numbers, arrays or images, found {feature}"
        )
    return array


def _targets(dataset: Any, path: str, split: str, name: str) -> tuple[Any, int | None]:
    """Targets, and the number of classes if the column is one of classes."""
    feature = dataset.features[name]
    if not isinstance(feature, datasets.ClassLabel):
        return _column(dataset, path, name, False, None), None
    num_classes = len(feature.names)
    labels = known_labels(dataset[name], num_classes, f"{path!r}: split {split!r}")
    return labels, num_classes
