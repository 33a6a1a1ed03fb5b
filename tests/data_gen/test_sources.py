"""Data of the user's own: files, sets of `datasets` and functions, and what is refused of them."""

import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from data_gen.config import Job
from data_gen.integrity.recompute import needs_files
from data_gen.planning import make_plan
from data_gen.tasks.task import TASKS, TaskConfig, load_task

MODULE = """
import numpy as np

def load(count=6, **changes):
    random = np.random.default_rng(0)
    data = {"x_train": random.normal(size=(count, 3)), "y_train": np.arange(count) % 2}
    return data | {"x_test": data["x_train"][:4], "y_test": data["y_train"][:4]} | changes

def broken():
    return 1 / 0

def nothing():
    return None
"""


def arrays(**changes):
    random = np.random.default_rng(0)
    data = {
        "x_train": random.normal(size=(6, 3)).astype(np.float32),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": random.normal(size=(4, 3)).astype(np.float32),
        "y_test": np.array([2, 1, 0, 0]),
    }
    return {name: values for name, values in (data | changes).items() if values is not None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data_of_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo.imports._allowed", {"data_of_tests"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("data_of_tests", None)


def load(**config):
    return load_task(TaskConfig.model_validate(config))


def load_arrays(monkeypatch, **changes):
    """A task of these arrays, by way of a function."""
    monkeypatch.setattr("data_gen.tasks.task.call", lambda *_: arrays(**changes))
    return load(name="any:thing")


def test_files_of_both_kinds_are_the_same_task(folder):
    np.savez(folder / "data.npz", **arrays())
    save_file(arrays(), folder / "data.safetensors")
    tasks = [load(name="file", path=f"data.{kind}") for kind in ("npz", "safetensors")]
    for task in tasks:
        assert (task.num_classes, task.input_shape, task.output_shape) == (3, (3,), (3,))
        assert torch.equal(task.train.x, torch.from_numpy(arrays()["x_train"]))
        assert task.test.y.tolist() == [2, 1, 0, 0]
    small = load(name="file", path="data.npz", train_size=3, seed=1)
    rows = [tasks[0].train.x.tolist().index(row) for row in small.train.x.tolist()]
    assert len(set(rows)) == 3
    assert small.train.y.tolist() == tasks[0].train.y[rows].tolist()
    with pytest.raises(ValueError, match=r"task.train_size: expected 1 to 6 examples, found 7"):
        load(name="file", path="data.npz", train_size=7)


def test_a_function_beside_the_job_is_called_with_its_options(folder):
    task = load(name="data_of_tests:load", options={"count": 8})
    assert (len(task.train), task.num_classes) == (8, 2)
    numbers = load(name="data_of_tests:load", loss="huber")
    assert (numbers.num_classes, numbers.train.y.shape) == (None, (6, 1))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"name": "file"}, "task.path: needed for task.name: file"),
        ({"name": "file", "path": "data.csv"}, "expected a .npz or .safetensors file"),
        ({"name": "file", "path": "no.npz"}, "task.path: no such file: no.npz; looked in /"),
        ({"name": "file", "path": "bad.npz"}, "task.path: cannot read 'bad.npz'"),
        ({"name": "file", "path": "bad.safetensors"}, "task.path: cannot read 'bad.safetensors'"),
        ({"name": "file", "path": "objects.npz"}, "cannot read 'objects.npz': Object arrays"),
        ({"name": "file", "path": "few.npz"}, r"expected \['x_train', .*found \['x_train'\]"),
        ({"name": "data_of_tests:lod"}, "task.name: 'data_of_tests:lod': module .* has no 'lod'"),
        ({"name": "data_of_tests:broken"}, "'data_of_tests:broken' raised ZeroDivisionError"),
        ({"name": "data_of_tests:load", "options": {"a": 1, "count": "b"}}, "raised TypeError"),
        ({"name": "data_of_tests:nothing"}, r"expected \['x_train', .*found 'NoneType'"),
        ({"name": "data_of_tests:load", "path": "x"}, "path: not an option of the task"),
        ({"name": "data of tests:load"}, "expected 'module:attribute'"),
        ({"name": "datasets", "path": "./no", "inputs": ["a"]}, "no such folder: ./no"),
        ({"name": "datasets", "path": "."}, "task.inputs and task.target: needed"),
    ],
)
def test_a_source_that_cannot_be_read_is_told(folder, config, why):
    (folder / "bad.npz").write_bytes(b"PK no archive")
    (folder / "bad.safetensors").write_bytes(b"no header")
    np.savez(folder / "objects.npz", **arrays(y_train=np.array([{}] * 6)))
    np.savez(folder / "few.npz", x_train=np.ones(3))
    with pytest.raises(ValueError, match=why):
        load(**config)


NAN = np.full((6, 3), 1.0)
NAN[4, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"x_train": NAN}, "x_train: expected finite numbers, found others in row 4"),
        ({"y_test": np.array([1.0, np.inf, 0.0, 0.0])}, "y_test: expected finite .* in row 1"),
        ({"x_train": np.ones((5, 3))}, "x_train: expected 6 examples, as many as y_train"),
        ({"x_test": np.ones((4, 2))}, r"x_test: expected inputs as in training, \[3\] float32"),
        ({"x_test": np.ones((4, 3), np.uint8)}, r"found \[3\] uint8"),
        ({"y_test": np.ones((4, 2), int)}, "y_test: expected targets as in training"),
        ({"y_test": np.array([0.5, 1, 2, 3])}, "y_test: expected targets as in training"),
        ({"y_train": np.array([0, 1, -1, 0, 1, 2])}, "y_train: expected classes from 0 to 2"),
        ({"y_test": np.array([0, 1, 2, 10**9])}, "y_test: expected classes from 0 to 65535"),
        ({"x_test": np.ones((0, 3)), "y_test": np.ones(0, int)}, "y_test: expected at least one"),
        ({"x_train": np.array(["a"] * 6)}, "x_train: expected an array of numbers"),
        ({"x_train": np.ones((6, 3)) * 1j}, "x_train: expected an array of numbers"),
        ({"x_train": [[1, 2], [1]]}, "x_train: "),
        ({"x_train": 3.0}, r"x_train: expected real numbers with an axis"),
        ({"x_train": None}, "expected .'x_train'"),
    ],
)  # fmt: skip
def test_data_that_is_wrong_is_refused_by_name(monkeypatch, changes, why):
    with pytest.raises(ValueError, match=f"any:thing.*{why}"):
        load_arrays(monkeypatch, **changes)


def test_types_of_inputs(monkeypatch):
    """Whole numbers go in as they are, bytes and numbers are scaled, one number has an axis."""
    for given, dtype, mean in (
        (np.int32, torch.int64, 1.0),
        (np.uint8, torch.uint8, 0.0),
        (np.float16, torch.float32, 0.0),
        (bool, torch.uint8, 0.0),
    ):
        x = np.array([[0], [2], [0], [2], [2], [0]]).astype(given)
        task = load_arrays(monkeypatch, x_train=x[:, 0], x_test=x[:4, 0])
        assert (task.train.x.dtype, task.input_shape) == (dtype, (1,))
        assert float(task.inputs(task.train.x).double().mean()) == pytest.approx(mean, abs=1e-6)
    big = np.arange(18, dtype=">f8").reshape(6, 3)
    assert load_arrays(monkeypatch, x_train=big, x_test=big[:4]).train.x[1].tolist() == [3, 4, 5]


def test_token_ids_that_an_architecture_cannot_read_are_refused_before_training(monkeypatch):
    ids = np.ones((6, 3), int)
    monkeypatch.setattr("data_gen.tasks.task.call", lambda *_: arrays(x_train=ids, x_test=ids[:4]))
    job = {"task": {"name": "any:thing"}, "hyperparameters": {"steps": 1}, "count": 2}
    job |= {"populations": {"p": {"architecture": {"name": "mlp"}}}}
    with pytest.raises(ValueError, match="population 'p': inputs do not fit: "):
        make_plan(Job.model_validate(job))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """A folder that `datasets` reads, with a column of each kind."""
    folder = tmp_path_factory.mktemp("sets")
    features = datasets.Features(
        {
            "a": datasets.Value("float64"),
            "b": datasets.Value("int32"),
            "signal": datasets.Array2D((2, 3), "float32"),
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["x", "y"]),
            "level": datasets.Value("float32"),
            "number": datasets.Value("int64"),
            "text": datasets.Value("string"),
            "ragged": datasets.Sequence(datasets.Value("int64")),
            "holes": datasets.Value("float64"),
        }
    )
    for split, count in (("train", 8), ("test", 5)):
        columns = {
            "a": [0.5 * i for i in range(count)],
            "b": list(range(count)),
            "signal": [[[i, 0, 1], [2, 3, 4]] for i in range(count)],
            "picture": [Image.new("L", (4, 4), 10 * i) for i in range(count)],
            "kind": [i % 2 for i in range(count)],
            "level": [float(i) for i in range(count)],
            "number": [i % 3 for i in range(count)],
            "text": ["t"] * count,
            "ragged": [[1] * (i % 2) for i in range(count)],
            "holes": [None, *[1.0] * (count - 1)],
        }
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.filterwarnings("ignore")
def test_columns_of_a_set(parquet):
    def of(inputs, target, **options):
        return load(name="datasets", path=str(parquet), inputs=inputs, target=target, **options)

    table = of(["a", "b"], "kind")
    assert (table.input_shape, table.num_classes) == ((2,), 2)
    assert (table.train.x[:, 1] == 2 * table.train.x[:, 0]).all()
    assert (table.train.y == table.train.x[:, 1] % 2).all()
    assert of(["a"], "number").num_classes == 3
    signals = of(["signal"], "level", train_size=3)
    assert (signals.input_shape, len(signals.train), signals.num_classes) == ((2, 3), 3, None)
    assert (signals.train.x[:, 0, 0] == signals.train.y[:, 0]).all()
    pictures = of(["picture"], "level", resize=2)
    assert (pictures.train.x.dtype, pictures.input_shape) == (torch.uint8, (1, 2, 2))
    assert (pictures.train.x[:, 0, 0, 0] == 10 * pictures.train.y[:, 0]).all()
    for inputs, target, why in (
        (["c"], "kind", r"no column 'c'; columns are \['a', 'b'"),
        (["text"], "kind", "column 'text': expected numbers, arrays or images, found Value"),
        (["a"], "text", "column 'text': expected numbers"),
        (["ragged"], "kind", "column 'ragged' has rows of several shapes"),
        (["holes"], "kind", "column 'holes' has rows without a value"),
    ):
        with pytest.raises(ValueError, match=why):
            of(inputs, target)
    with pytest.raises(ValueError, match=r"task.train_size: expected 1 to 8 rows"):
        of(["a"], "kind", train_size=9)


def test_what_a_stranger_may_not_decide():
    """Every key of a task that opens files or names code."""
    free = ("digits", "iris", "wine", "breast_cancer", "diabetes", "mnist1d", "sbm")
    assert [name for name in TASKS if not needs_files(TaskConfig(name=name))] == [*free]
    assert needs_files(TaskConfig(name="antigravity:fly"))
    assert needs_files(TaskConfig.model_validate({"loss": "antigravity:fly"}))
    assert needs_files(TaskConfig.model_validate({"loss": {"name": "antigravity:fly"}}))
    assert "antigravity" not in sys.modules
