"""Products in bfloat16: near the float32 result, and no more precise than they should be."""

import torch

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.training.precision import products_in


def train(tmp_path, precision):
    job = Job.model_validate(
        {
            "task": {"train_size": 200, "test_size": 200},
            "populations": {"p": {"architecture": {"name": "mlp", "hidden": [16]}}},
            "hyperparameters": {"steps": 60, "lr": 0.1, "batch_size": 32},
            "count": 6,
            "precision": precision,
        }
    )
    table, params, _ = ShardWorker(job, tmp_path, torch.device("cpu")).train(
        "p", torch.arange(6), lambda _: None
    )
    return table["test_accuracy"], torch.cat([tensor.flatten(1) for tensor in params.values()], 1)


def test_bfloat16_training_is_near_float32_training(tmp_path):
    exact_accuracy, exact = train(tmp_path, None)
    accuracy, coarse = train(tmp_path, "bfloat16")
    assert coarse.dtype == torch.float32
    distance = (coarse - exact).norm(dim=1) / exact.norm(dim=1)
    assert ((distance > 1e-4) & (distance < 0.05)).all()
    assert abs(accuracy - exact_accuracy).max() < 0.1
    assert exact_accuracy.min() > 0.5


def test_tf32_is_off_unless_asked_for_and_left_as_it_was():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision in (None, "tf32", "bfloat16"):
        with products_in(precision, torch.device("cpu")):
            allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            assert allowed == (precision == "tf32",) * 2
            product = torch.ones(3, 3) @ torch.ones(3, 3)
            assert product.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
