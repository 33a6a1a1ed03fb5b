"""Products in bfloat16: near the float32 result, and no more precise than they should be."""

import torch

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.training.precision import products_in

UNIT = 2**-9
"""What rounding to the 8 bits of bfloat16 moves a number by at most, relative to it."""


def train(tmp_path, precision):
    """Test accuracies, and how far each network came from its start, `[N, P]`."""
    job = Job.model_validate(
        {
            "task": {"train_size": 200, "test_size": 200},
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [16]}}},
            "hyperparameters": {"steps": 60, "lr": 0.1, "batch_size": 32},
            "count": 6,
            "checkpoints": 2,
            "precision": precision,
        }
    )
    worker = ShardWorker(job, tmp_path, torch.device("cpu"))
    table, params, trajectory = worker.train("p", torch.arange(6), lambda _: None)
    assert {tensor.dtype for tensor in params.values()} == {torch.float32}
    ways = [(params[name] - trajectory[name][:, 0]).flatten(1) for name in params]
    return table["test_accuracy"], torch.cat(ways, dim=1)


def test_bfloat16_training_is_near_float32_training(tmp_path):
    """A gradient passes two layers forth and back: 8 roundings, 8 units if all go one way.

    Twice that is left to neurons whose sign rounding turns. Measured are 3 to 8; float16, whose
    unit is an eighth, would stay below 1.
    """
    exact_accuracy, exact = train(tmp_path, None)
    accuracy, coarse = train(tmp_path, "bfloat16")
    error = (coarse - exact).norm(dim=1) / exact.norm(dim=1)
    assert ((error > UNIT) & (error < 16 * UNIT)).all()
    assert exact_accuracy.min() > 0.5
    # Ways that differ by 3% at most change the class of few images: 2 of 200 here, measured is 1.
    assert abs(accuracy - exact_accuracy).max() < 0.0101


def test_tf32_is_off_unless_asked_for_and_left_as_it_was():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision in (None, "tf32", "bfloat16"):
        with products_in(precision, torch.device("cpu")):
            allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            assert allowed == (precision == "tf32",) * 2
            product = torch.ones(3, 3) @ torch.ones(3, 3)
            assert product.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
