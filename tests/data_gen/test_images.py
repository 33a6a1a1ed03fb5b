"""Images keep their values whatever their mode, and sets of several forms are refused."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import data_gen.tasks.images as images
from data_gen.tasks.task import TaskConfig, load_task

SIDE, COUNT = 4, 6


def pictures(mode: str, top: float, side: int = SIDE) -> list[Image.Image]:
    """Images whose values go evenly from 0 to `top`, each with another start."""
    ramp = np.linspace(0, top, side * side).reshape(side, side)
    types = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    shifted = [np.roll(ramp, shift) for shift in range(COUNT)]
    if mode in types:
        size = (side, side)
        return [Image.frombytes(mode, size, x.astype(types[mode]).tobytes()) for x in shifted]
    return [Image.fromarray(x.astype(np.uint8)).convert(mode) for x in shifted]


@pytest.fixture
def load(monkeypatch):
    """A task of these images, which lie in a set of `datasets` as files of a format that fits."""

    def of(train, test=None, labels=None, **options):
        parts = {"train": train, "test": train if test is None else test}
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        )

        def split_of(_path, split):
            pictured = parts[split]
            classes = labels or [i % 2 for i in range(len(pictured))]
            columns = {"image": pictured, "label": classes}
            return datasets.Dataset.from_dict(columns, features=features)

        monkeypatch.setattr(images, "load_split", split_of)
        return load_task(TaskConfig(name="images", path="set", **options))

    return of


DEPTHS = {
    "12 bits": ("I;16", 4095, torch.float32),
    "16 bits": ("I;16", 65535, torch.float32),
    "other order of bytes": ("I;16B", 65535, torch.float32),
    "32 bits": ("I", 10**6, torch.float32),
    "float": ("F", 1.0, torch.float32),
    "8 bits": ("L", 255, torch.uint8),
}


@pytest.mark.parametrize(("mode", "top", "dtype"), DEPTHS.values(), ids=DEPTHS)
@pytest.mark.parametrize("grey", [False, True])
def test_values_are_kept(load, mode, top, dtype, grey):
    made = pictures(mode, top)
    task = load(made, grey=grey)
    assert task.train.x.dtype == dtype
    assert task.input_shape == (1, SIDE, SIDE)
    expected = sorted(np.asarray(image, np.float64).tobytes() for image in made)
    assert sorted(x[0].double().numpy().tobytes() for x in task.train.x) == expected
    assert task.inputs(task.train.x).std().item() == pytest.approx(1, abs=0.02)


def test_values_survive_a_change_of_size(load):
    task = load(pictures("I;16", 4095), resize=2)
    assert task.input_shape == (1, 2, 2)
    assert 255 < task.train.x.max() <= 4200


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "RGBA", "CMYK"])
def test_color_becomes_three_channels_or_one(load, mode):
    made = pictures("L", 255)
    converted = [image.convert("RGB").convert(mode) for image in made]
    loaded = load(converted) if mode != "CMYK" else None  # no file of ours holds CMYK
    arrays = [images.as_array(image, False, None) for image in converted]
    assert {(array.shape, array.dtype.name) for array in arrays} == {((SIDE, SIDE, 3), "uint8")}
    assert images.as_array(converted[0], True, None).shape == (SIDE, SIDE, 1)
    assert loaded is None or loaded.input_shape == (3, SIDE, SIDE)


class Strange:
    mode = "BGR;15"


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match=r"an image of mode 'BGR;15'; expected one of \['1', 'L'"):
        images.as_array(Strange(), False, None)


SMALL, LARGE = pictures("L", 255), pictures("L", 255, 5)
COLOR, DEEP = pictures("RGB", 255), pictures("I;16", 4095)
MIXED = {
    "channels": (SMALL[:3] + COLOR[:3], r"1 sizes and \[1, 3\] channels; give task.grey$"),
    "sizes": (SMALL[:3] + LARGE[:3], r"2 sizes and \[1\] channels; give task.resize$"),
    "both": (LARGE[:3] + COLOR[:3], "give task.resize and task.grey$"),
    "depths": (SMALL[:3] + DEEP[:3], "some images have 8 bits and others more"),
    "infinite": ([Image.new("F", (SIDE, SIDE), np.inf)], "an image has values that are not finite"),
}


@pytest.mark.parametrize(("made", "message"), MIXED.values(), ids=MIXED)
def test_images_of_several_forms_are_refused_with_what_helps(load, made, message):
    with pytest.raises(ValueError, match=message):
        load(made)


def test_training_and_test_images_are_of_one_form(load):
    for other in (LARGE, COLOR, DEEP):
        with pytest.raises(ValueError, match=r"x_test: expected inputs as in training, \[1"):
            load(SMALL, other)


@pytest.mark.parametrize("label", [None, -1])
def test_images_without_a_label_are_refused(load, label):
    with pytest.raises(ValueError, match="'set': split 'train' has images without a label"):
        load(SMALL, labels=[0, 1, 0, 1, label, 0])
