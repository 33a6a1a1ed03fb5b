"""Zoos of modules that the project does not know."""

import math
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from data_gen.config import Job
from data_gen.rng import fold, key, uniform
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from tests.reference.data_gen_training import train_alone
from tests.reference.own_modules import MODULES
from tests.tiers import tiered
from zoo.imports import allow

ROOM = "tests.reference.own_modules"
STEPS = 30


class Alone(nn.Module):
    """A module of a user as the plain loop takes it; what is random follows given numbers."""

    def __init__(self, module, names, keys):
        super().__init__()
        self.module, self.names, self.keys = module, list(names), iter(keys)

    def effective(self, name):
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return tensors[name]

    def forward(self, x):
        numbers = partial(numbers_of, next(self.keys), iter(range(99)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "dropout", partial(dropped, numbers))
            patch.setattr(F, "dropout2d", partial(dropped_channels, numbers))
            patch.setattr(torch, "randn_like", partial(normal, numbers))
            result = self.module(x)
        return getattr(result, "logits", result)


def numbers_of(step_key, calls, shape):
    return uniform(fold(step_key, next(calls)), torch.arange(math.prod(shape))).reshape(shape)


def dropped(numbers, x, p, training, inplace=False):
    return torch.where(numbers(x.shape) < p, 0, x / (1 - p)) if training and p else x


def dropped_channels(numbers, x, p, training, inplace=False):
    assert training
    return torch.where(numbers(x.shape[:2])[..., None, None] < p, 0, x / (1 - p))


def normal(numbers, x):
    halfway = numbers(x.shape) + 2.0**-54
    return torch.distributions.Normal(0.0, 1.0).icdf(halfway)


def job_of(name, **changes):
    allow([ROOM])
    job = {
        "task": {"name": "digits", "train_size": 60, "test_size": 40},
        "populations": {"p": {"architecture": {"module": f"{ROOM}:{MODULES[name].__name__}"}}},
        "hyperparameters": {
            "optimizer": "sgd",
            "momentum": 0.5,
            "lr": {"log_uniform": [0.01, 0.05]},
            "weight_decay": 0.05,
            "label_smoothing": {"uniform": [0.0, 0.3]},
            "batch_size": 8,
            "steps": STEPS,
        },
        "count": 8,
        "seed": 3,
    }
    return Job.model_validate(job | changes)


# What is left to the deep tier has nothing that none of these has.
QUICK = ("dropout and norm", "gru", "tied", "frozen", "noisy", "bert", "writes in place")


@pytest.mark.parametrize(
    ("name", "chunk"),
    tiered(product(MODULES, (1, 3, 8)), lambda name, chunk: chunk == 3 and name in QUICK),
)
@pytest.mark.filterwarnings("ignore:networks of this module train one after the other")
def test_lock_step_equals_the_module_in_a_plain_loop(name, chunk, tmp_path):
    job, count = job_of(name), chunk
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), chunk, dtype=torch.float64, store_dtype=torch.float64
    )
    _, params, _ = worker.train("p", torch.arange(count), lambda _: None)
    table = full_table(job, worker.task, torch.arange(count))
    for i in {0, count - 1}:
        row = {column: values[i].item() for column, values in table.items()}
        torch.manual_seed(row["seed"])
        module = MODULES[name]().double()
        if not module.training:
            module.train()
        step_keys = fold(fold(key(job.seed, "draws in training"), i), torch.arange(STEPS))
        alone = train_alone(Alone(module, params, step_keys), worker.task, job.seed, i, row)
        assert alone.keys() == params.keys()
        for n, expected in alone.items():
            torch.testing.assert_close(params[n][i], expected, rtol=0, atol=1e-9)


def test_networks_that_cannot_run_at_once_are_named_aloud():
    example = torch.randn(2, 1, 8, 8)
    with pytest.warns(UserWarning, match="train one after the other, which is slow: "):
        assert not zoo.from_module(MODULES["writes in place"], example).in_lock_step
    assert zoo.from_module(MODULES["mixer"], example).in_lock_step
