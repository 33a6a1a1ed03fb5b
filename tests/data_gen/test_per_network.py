"""Networks with data of their own, of several inputs, and of whole numbers."""

import contextlib
import shutil
import sys

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from data_gen.config import Job
from data_gen.generation import generate, generate_shard
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from data_gen.planning import make_plan
from data_gen.rng import fold, key
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.tasks.task import TaskConfig, load_task
from data_gen.training.order import shuffled
from studies.common.evaluation import first_images
from tests.data_gen.integrity.damage import flip, rewrite
from tests.data_gen.jobs import assert_resumes_after_kill, visible
from tests.reference.data_gen_training import PlainMLP

ITEMS, CPU = 6, torch.device("cpu")
SHARD = "p/train-00000-of-00002.h5"
MODULE = """
import numpy as np
import torch
from torch import nn

def two_inputs():
    random = np.random.default_rng(0)
    draw = lambda count: (random.normal(size=(count, 3)), random.normal(size=(count, 2, 2)))
    x_train, x_test = draw(20), draw(10)
    targets = [x[0][:, 0] * x[1][:, 1, 0] for x in (x_train, x_test)]
    return dict(x_train=x_train, y_train=targets[0], x_test=x_test, y_test=targets[1])

def by_name():
    data = two_inputs()
    for name in ("x_train", "x_test"):
        a, b = data[name]
        data[name] = {"left": a, "right": b}
    return data

def tokens():
    ids = np.arange(60).reshape(20, 3) % 7
    return dict(x_train=ids, y_train=ids[:, 0] % 2, x_test=ids[:9], y_test=ids[:9, 0] % 2)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 5), nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, left, right):
        return self.head(torch.tanh(self.a(left)) * torch.tanh(self.b(right.flatten(1))))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.table(ids).mean(1))
"""


def signals(shared=True, classes=False):
    """Curves of six kinds, at the same places or each at its own."""
    random, arrays = np.random.default_rng(0), {"label": np.arange(ITEMS) % 3}
    for part, count in (("train", 30), ("test", 12)):
        x = random.uniform(-1, 1, (ITEMS, count, 1))
        x = np.broadcast_to(x[:1], x.shape) if shared else x
        y = np.sin(np.arange(1, ITEMS + 1)[:, None] * x[..., 0])
        arrays[f"x_{part}"] = x[0] if shared else x
        arrays[f"y_{part}"] = (y > 0).astype(int) if classes else y
    return arrays


FORMS = {
    "shared inputs": signals(),
    "own inputs": signals(shared=False),
    "classes": signals(shared=False, classes=True),
}


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    """The current folder, with files of signals and a module."""
    folder = tmp_path_factory.mktemp("data")
    for name, arrays in FORMS.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "inputs_of_tests.py").write_text(MODULE)
    before = list(sys.path)
    with contextlib.chdir(folder):
        yield folder
    sys.path[:] = before


def job_of(name, **changes):
    job = {
        "task": {"name": "file", "path": f"{name}.npz", "per_network": True},
        "populations": {"p": {"architecture": {"name": "siren", "hidden": [5], "omega": 3.0}}},
        "hyperparameters": {"steps": 12, "lr": 0.01, "batch_size": 8, "train_fraction": 0.8},
        "count": ITEMS,
        "shard_size": 2,
        "checkpoints": 2,
        "checkpoint_metrics": True,
    }
    return Job.model_validate(job | changes)


def made(folder, job, **options):
    return generate(job, folder, device="cpu", compile=False, quiet=True, **options)


@pytest.fixture(scope="module", params=FORMS)
def original(request, data, tmp_path_factory):
    return request.param, made(tmp_path_factory.mktemp("zoos") / "zoo", job_of(request.param))


def trained_alone(module, x, y, loss_of, seed, network_id):
    """Nine steps of plain PyTorch on the data of one network, eight examples each."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    order = fold(key(seed, "order"), torch.tensor([network_id]))
    for rows in shuffled(order, torch.arange(72)[None], torch.tensor([30])).reshape(9, 8):
        optimizer.zero_grad()
        loss_of(module(x[rows]), y[rows]).backward()
        optimizer.step()
    return {name: module.effective(name).detach() for name in module.names}


@pytest.mark.parametrize("name", FORMS)
def test_network_i_is_trained_and_tested_on_item_i(name, tmp_path):
    arrays, loss_of = FORMS[name], F.cross_entropy if name == "classes" else F.mse_loss
    job = job_of(
        name,
        populations={"p": {"architecture": {"name": "mlp", "hidden": [6]}}},
        hyperparameters={"steps": 9, "lr": 0.05, "batch_size": 8},
        checkpoints=0,
        checkpoint_metrics=False,
    )
    double = {"dtype": torch.float64, "store_dtype": torch.float64}
    worker, ids = ShardWorker(job, tmp_path, CPU, max_chunk=2, **double), torch.arange(ITEMS)
    table, params, _ = worker.train("p", ids, lambda _: None)
    task, architecture = worker.task, worker.trainer("p").architecture
    assert table["label"].tolist() == arrays["label"].tolist()
    for i, seed in enumerate(full_table(job, task, ids)["seed"]):
        data = {}
        for part in ("train", "test"):
            x, y = arrays[f"x_{part}"], torch.tensor(arrays[f"y_{part}"][i])
            x = torch.tensor(x if name == "shared inputs" else x[i]).float().double()
            y = y if name == "classes" else y.float().double()[:, None]
            data[part] = ((x - task.mean) / task.std, y)
        initial = architecture.init(torch.Generator().manual_seed(int(seed)))
        module = PlainMLP({n: p.double() for n, p in initial.items()}, {}, 1, "relu", "none")
        alone = trained_alone(module, *data["train"], loss_of, job.seed, i)
        for tensor, expected in alone.items():
            torch.testing.assert_close(params[tensor][i], expected, rtol=0, atol=1e-9)
        for part, (x, y) in data.items():
            assert table[f"{part}_loss"][i] == pytest.approx(loss_of(module(x), y).item())


def test_zoos_of_signals(original, tmp_path):
    """Told as such, resumed after a kill, verified and repaired to the byte."""
    name, folder = original
    population = zoo.load(folder)["p"]
    manifest = population.manifest
    assert (manifest.task.kind, manifest.task.input_shape) == ("signals", (1,))
    assert manifest.columns["label"].role == "target"
    assert population.table("validation").label.tolist() == [0, 1]
    assert verify_zoo(folder, sample=8, trust_task=True) == []

    resumed = tmp_path / "resumed"
    generate_shard(job_of(name), resumed, 1, device="cpu", compile=False, quiet=True)
    assert visible(made(resumed, job_of(name))) == visible(folder)

    def make(out):
        made(out, job_of(name))

    assert_resumes_after_kill(5, make, tmp_path / "killed", visible(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    flip(copy / SHARD, 8 * 4000)
    with pytest.raises(ValueError, match="not opened unasked"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    repair_zoo(copy, device="cpu", compile=False, quiet=True, trust_task=True)
    assert visible(copy) == visible(folder)
    rewrite(copy, lambda columns: columns.update(label=columns["label"][::-1].copy()), SHARD)
    (fault,) = verify_zoo(copy, sample=8, trust_task=True)
    assert fault.reason == "'label' is not that of the task"


@pytest.mark.filterwarnings("ignore")
def test_others_read_labels_and_studies_of_shared_data_refuse(original, tmp_path):
    name, folder = original
    loaded = datasets.load_dataset(str(folder), "p", cache_dir=str(tmp_path))
    assert loaded["train"]["label"][:] == FORMS[name]["label"][: len(loaded["train"])].tolist()
    with pytest.raises(ValueError, match="the same data for all networks"):
        first_images(zoo.load(folder)["p"], None, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"y_train": np.ones(30)}, "y_train: expected an axis of networks and one of examples"),
        ({"label": np.ones(5)}, "label: expected 6 finite numbers, one for each network"),
        ({"label": np.array(["a"] * 6)}, "label: expected an array of numbers"),
        ({"y_test": np.ones((5, 12))}, "of each of 6 networks, found .* of each of 5 networks"),
        ({"x_train": np.ones((29, 1))}, "x_train: expected 30 examples, as many as y_train has"),
        ({"y_train": np.full((6, 30), np.nan)}, "y_train: expected finite numbers"),
    ],
)
def test_data_of_networks_that_is_wrong_is_refused(monkeypatch, changes, why):
    monkeypatch.setattr("data_gen.tasks.task.load_arrays", lambda _: signals() | changes)
    with pytest.raises(ValueError, match=why):
        load_task(TaskConfig(name="file", path="any", per_network=True))


def test_more_networks_than_data_are_refused():
    with pytest.raises(
        ValueError, match=r"count: expected at most 6, as many networks as .* found 7"
    ):
        make_plan(job_of("own inputs", count=7))
    with pytest.raises(ValueError, match="per_network: not an option of the task 'digits'"):
        TaskConfig(name="digits", per_network=True)


@pytest.mark.parametrize("name", ["two_inputs", "by_name", "tokens"])
def test_modules_of_several_inputs_and_of_token_ids(name, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.imports._allowed", set())
    module = "Words" if name == "tokens" else "Two"
    populations = {"p": {"architecture": {"module": f"inputs_of_tests:{module}"}}}
    task = {"name": f"inputs_of_tests:{name}"}
    folder = made(tmp_path / "zoo", job_of(name, task=task, populations=populations))
    assert verify_zoo(folder, sample=8, trust_task=True) == []
    inputs = zoo.load(folder).manifest.task.input_shape
    own = {"two_inputs": tuple, "by_name": dict}.get(name)
    assert own is None or isinstance(inputs, own)
    if name == "tokens":
        assert (inputs.shape, inputs.dtype, inputs.below) == ((3,), "int64", 7)
    with pytest.raises(ValueError, match=r"architecture 'mlp' has one input|inputs do not"):
        make_plan(job_of(name, task=task, populations={"p": {"architecture": {"name": "mlp"}}}))
