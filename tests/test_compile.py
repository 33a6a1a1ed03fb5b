"""Compiled steps train the networks that uncompiled ones train, ours and those of modules.

Without the jaxtyping flag. In one file, so that one process imports the compiler.
"""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import zoo
from data_gen.rng import fold
from data_gen.shard import ShardWorker
from data_gen.training.compilation import compile_apart, compiler_works, not_of_torch
from data_gen.training.order import Kernels, feistel, round_tables, shuffled
from data_gen.training.trainer import Trainer
from tests.data_gen.test_training_oracle import ARCHITECTURES, KINDS, TWINS, make_job
from tests.tiers import tiered
from tests.zoo.asymmetric_modules.modules import Perceptron, assert_same, fixed_entries, randn
from zoo.params import stack

pytestmark = pytest.mark.compile
# Importing parts of the compiler raises deprecation warnings of its own.
IGNORED = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    if not compiler_works(torch.device("cpu")):
        pytest.skip("torch.compile does not work on this machine")


@IGNORED
def test_compiled_order_is_the_same():
    kernels = Kernels(
        *(torch.compile(f, dynamic=True, fullgraph=True) for f in (round_tables, feistel))
    )
    # Two to three passes, and never as many as rounds: one compiled form serves both.
    for networks, low, high, width in ((7, 1297, 1298, 900), (3, 300, 1200, 500)):
        generator = torch.Generator().manual_seed(networks)
        length = torch.randint(low, high, (networks,), generator=generator)
        position = torch.arange(5000, 5000 + width).expand(networks, -1)
        keys = fold(0, torch.arange(networks))
        assert torch.equal(
            shuffled(keys, position, length, kernels), shuffled(keys, position, length)
        )


@IGNORED
@pytest.mark.parametrize(
    ("name", "kind", "optimizer"),
    [
        ("mlp", "w", "adamw"),
        pytest.param("resnet_batch_norm", "w", "adamw", marks=pytest.mark.deep),
        pytest.param("mlp_layer_norm", "sigma", "sgd", marks=pytest.mark.deep),
        pytest.param("cnn", "syre", "nesterov", marks=pytest.mark.deep),
        pytest.param("gin", "syre", "nesterov", marks=pytest.mark.deep),
    ],
)
def test_compiled_step_is_the_same(name, kind, optimizer, tmp_path):
    task = {"name": "digits", "train_size": 40, "test_size": 40}  # scored by one compiled form
    job = make_job((ARCHITECTURES | TWINS)[name][0], KINDS[kind], optimizer, "cosine", task=task)
    results = []
    for compiled in (False, True):
        worker = ShardWorker(
            job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
        )
        plain = worker.trainer("p")
        worker._trainers["p"] = Trainer(plain.architecture, worker.task, job.seed, compiled)
        results.append(worker.train("p", torch.arange(3), lambda _: None)[1])
    for tensor_name, tensor in results[0].items():
        torch.testing.assert_close(results[1][tensor_name], tensor, rtol=0, atol=1e-9)


def test_gradients_of_many_traced_modules_are_one_graph():
    """What checks params runs at every call: it must be plain enough for the compiler."""

    def make():
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))

    x = randn(5, 4)
    traced = zoo.from_module(make, x)
    drawn = [traced.init(torch.Generator().manual_seed(seed)) for seed in range(3)]
    step = torch.func.vmap(torch.func.grad(lambda p: traced.apply(p, x).square().sum()))
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    for name, gradient in step(stack(drawn)).items():
        torch.testing.assert_close(compiled(stack(drawn))[name], gradient)


@torch._dynamo.config.patch(recompile_limit=2)
def test_any_number_of_shapes_may_be_compiled(tmp_path, monkeypatch):
    """torch gives up after some forms of a function, eight by itself, whoever the trainer is."""
    torch._dynamo.reset()  # forms of the tests before this one count, too
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    hyperparameters = {"lr": 0.05, "steps": 3, "batch_size": {"int_range": [1, 3]}}
    job = make_job(
        {"name": "mlp", "hidden": [3]}, None, "sgd", "constant", hyperparameters=hyperparameters
    )
    final = []
    for allowed in (False, True):
        worker = ShardWorker(job, tmp_path, torch.device("cpu"))
        plain = worker.trainer("p")
        worker._trainers["p"] = Trainer(plain.architecture, worker.task, job.seed, allowed)
        final.append(worker.train("p", torch.arange(12), lambda _: None)[1])
    assert len({key for key in worker._trainers["p"]._forms if key[0] == "take"}) > 2
    for name, tensor in final[0].items():
        torch.testing.assert_close(final[1][name], tensor, rtol=1e-4, atol=1e-6)


class _Affine:
    factor = 2.0

    def run(self, x, offsets):
        return torch.func.vmap(torch.func.grad(lambda x: (self.factor * x).sin().sum()))(x) + sum(
            offsets.values()
        )


def test_a_compiled_form_looks_at_its_arguments_and_its_object_at_every_call(monkeypatch):
    """What it does not look at is the code of torch."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    affine, one = _Affine(), torch.ones(())
    form = compile_apart(affine.run)
    for x in (randn(3, 2), randn(5, 2).float()):
        for offsets in ({"a": one}, {"a": one, "b": one}):
            affine.factor += 1
            torch.testing.assert_close(form(x, offsets), affine.run(x, offsets))


def test_most_guards_are_on_the_code_of_torch():
    kept = []

    def look(guards):
        kept.append(not_of_torch(guards))
        return kept[-1]

    options = {"guard_filter_fn": look}
    form = torch.compile(_Affine().run, fullgraph=True, backend="eager", options=options)
    form(randn(3, 2), {"a": torch.ones(())})
    assert 0 < sum(kept[0]) < len(kept[0]) / 2


@IGNORED
@pytest.mark.parametrize("kind", tiered([("w",), ("sigma",), ("syre",)], lambda kind: kind == "w"))
def test_compiled_twins_train_as_uncompiled_ones(kind):
    x, target = randn(7, 6), randn(7, 3, seed=1)
    twin = zoo.asymmetric(
        Perceptron(6, 5, 4, 3), kind, **({"example_inputs": x} if kind == "sigma" else {})
    )
    fixed = fixed_entries(twin)
    results = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, fullgraph=True)):
        trained = copy.deepcopy(twin)
        run, optimizer = wrap(trained), torch.optim.AdamW(trained.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            F.mse_loss(run(x), target).backward()
            optimizer.step()
        assert_same(fixed_entries(trained), fixed)
        results.append(run(x))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
