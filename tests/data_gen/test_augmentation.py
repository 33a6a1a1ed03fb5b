"""Augmentation on the device is what a loop over images does, with draws of its own for every
network, pass and image.
"""

import pytest
import torch

from data_gen.config import Job
from data_gen.tasks.augmentation import Augmentation, augment, draw_moves
from data_gen.tasks.data import Part, Task
from data_gen.tasks.task import TaskConfig, load_task
from data_gen.training.step import Step
from tests.data_gen.test_training_oracle import ARCHITECTURES, assert_equals_plain_loop, make_job
from tests.reference.data_gen_training import moved
from zoo.architectures import build_architecture

ALL = Augmentation(flip=True, shift=2, cutout=3)


@pytest.mark.parametrize(
    "augmentation", [ALL, Augmentation(flip=True), Augmentation(shift=3), Augmentation(cutout=4)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_augmentation_is_that_of_a_loop(augmentation, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 255, (40, 3, 7, 5), generator=generator).to(dtype)
    mean = torch.tensor([10.0, 20.0, 30.0])[:, None, None]
    part = Part(x, torch.zeros(40, dtype=torch.int64))
    task = Task(part, part, 2, mean, torch.ones(3, 1, 1), augmentation)
    moves = draw_moves(augmentation, 0, torch.arange(2), torch.arange(20).expand(2, -1), (7, 5))
    augmented = augment(augmentation, x.reshape(2, 20, 3, 7, 5), moves, mean)
    expected = [
        moved(image, *move, task)
        for image, move in zip(x, moves.flatten(0, 1).tolist(), strict=True)
    ]
    assert augmented.dtype == dtype
    assert torch.equal(augmented.flatten(0, 1), torch.stack(expected))
    assert (augmented.flatten(0, 1) != x).any()


@pytest.mark.parametrize("augmentation", [ALL, Augmentation(cutout=4), None])
def test_bytes_that_become_floats_before_the_step_are_the_same_images(augmentation):
    architecture = build_architecture("cnn", {"channels": [2]}, (3, 7, 5), 2)
    x = torch.randint(0, 256, (6, 3, 7, 5), generator=torch.Generator().manual_seed(0)).byte()
    mean = torch.tensor([10.4, 20.5, 30.6])[:, None, None]
    part = Part(x, torch.zeros(6, dtype=torch.int64))
    task = Task(part, part, 2, mean, torch.full((3, 1, 1), 3.0), augmentation)
    moves = draw_moves(ALL, 0, torch.arange(2), torch.arange(3).expand(2, -1), (7, 5))
    images, step = x.unflatten(0, (2, 3)), Step(architecture, task)
    seen = [step.augmented(stored, moves) for stored in (images, task.in_floats(images))]
    assert [each.dtype for each in seen] == [torch.uint8, torch.float32]
    assert torch.equal(*map(task.inputs, seen))


def test_draws_cover_their_ranges_evenly_and_differ_between_networks_and_positions():
    ids, position = torch.arange(50), torch.arange(400).expand(50, -1)
    moves = draw_moves(ALL, 0, ids, position, (7, 5))
    for column, values in enumerate([[0, 1], range(-2, 3), range(-2, 3), range(7), range(5)]):
        counts = torch.stack([(moves[..., column] == value).sum() for value in values]).double()
        assert counts.sum() == moves[..., column].numel()
        assert (counts / counts.mean() - 1).abs().max() < 0.06
    assert (moves[0] != moves[1]).any() and (moves[:, 0] != moves[:, 1]).any()
    assert torch.equal(
        draw_moves(ALL, 0, ids[7:8], position[:1, 30:31], (7, 5))[0, 0], moves[7, 30]
    )
    assert (draw_moves(ALL, 1, ids, position, (7, 5)) != moves).any()


def test_networks_trained_with_augmentation_are_those_of_a_plain_loop(tmp_path):
    architecture, module = ARCHITECTURES["cnn"]
    task = {"name": "digits", "train_size": 60, "test_size": 40, "augment": ALL.model_dump()}
    assert_equals_plain_loop(
        make_job(architecture, None, "nesterov", "cosine", task=task), module, tmp_path
    )


def test_what_is_no_image_cannot_be_augmented_and_jobs_without_it_keep_their_identity():
    with pytest.raises(ValueError, match=r"task\.augment: needs images, found inputs of \[1, 40\]"):
        load_task(TaskConfig(name="mnist1d", train_size=20, test_size=20, augment=ALL))
    with pytest.raises(ValueError, match="at least one of flip, shift and cutout"):
        Augmentation()
    plain = {
        "task": {},
        "populations": {"p": {"architecture": {"name": "mlp"}}},
        "hyperparameters": {"steps": 3},
        "count": 2,
    }
    assert "augment" not in Job.model_validate(plain).as_json()
    assert "precision" not in Job.model_validate(plain).as_json()
    assert (
        '"shift": 2'
        in Job.model_validate(plain | {"task": {"augment": ALL.model_dump()}}).as_json()
    )
