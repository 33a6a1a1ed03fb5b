"""Computed targets.

The largest eigenvalue of the Hessian, by its definition, and what does and does not change it.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import studies.common.computed_targets as derived
import zoo
from data_gen.config import Job
from data_gen.generation import generate
from data_gen.tasks.task import TaskConfig, load_task
from metanet import Metanet
from studies.common.computed_targets import (
    DERIVED,
    Derived,
    largest_eigenvalue,
    sharpness,
    squared_weight_norm,
    trained,
    with_derived,
)
from zoo.params import flatten, unflatten
from zoo.symmetry.action import GroupElement, act, sample
from zoo.views import PopulationLike

TASK = {"name": "digits", "train_size": 600, "test_size": 40}
COUNT = 4


@pytest.fixture(scope="module")
def populations(tmp_path_factory):
    job = {
        "task": TASK,
        "populations": {
            "relu": {"architecture": {"name": "mlp", "hidden": [5]}},
            "w_asymmetric": {
                "architecture": {"name": "mlp", "hidden": [5]},
                "asymmetry": {"kind": "w", "n_fix": 2},
            },
            "resnet": {"architecture": {"name": "resnet", "channels": [2, 2, 2]}},
        },
        "hyperparameters": {"lr": {"log_uniform": [0.02, 0.5]}, "steps": {"int_range": [5, 60]}},
        "count": 2 * COUNT,
    }
    folder = tmp_path_factory.mktemp("derived") / "zoo"
    return zoo.load(
        generate(Job.model_validate(job), folder, device="cpu", quiet=True, compile=False)
    )


def networks(population, count=COUNT):
    return {name: tensor[:count] for name, tensor in population.params("train").items()}


def dense_hessians(population, params):
    """The whole matrix, in float64: rows and columns of trained entries."""
    task = load_task(TaskConfig(**TASK))
    x, y = task.inputs(task.train.x[:512]).double(), task.train.y[:512]
    entries = trained(population)
    for flat in flatten(population.space, params).double():

        def loss(flat):
            return F.cross_entropy(
                population.architecture.apply(unflatten(population.space, flat), x), y
            )

        yield torch.func.hessian(loss)(flat)[entries][:, entries]


@pytest.mark.parametrize("name", ["relu", "w_asymmetric"])
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian(name, populations):
    population = populations[name]
    params = networks(population, 2)
    expected = [
        float(torch.linalg.eigvalsh(hessian)[-1]) for hessian in dense_hessians(population, params)
    ]
    assert sharpness(population, params) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "eigenvalues",
    [[-9.0, -1.0, 2.0, 3.0], [-5.0, -4.0, -3.0, -1.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4],
)
def test_it_is_the_largest_and_not_the_largest_in_absolute_value(eigenvalues):
    turn = torch.linalg.qr(
        torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).Q
    matrix = turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T

    def loss(point):
        return point[:4] @ matrix @ point[:4] / 2 + 100 * point[4] ** 2

    entries = torch.tensor([True] * 4 + [False])
    largest = largest_eigenvalue(loss, torch.zeros(2, 5, dtype=torch.float64), entries)
    assert largest.tolist() == pytest.approx([max(eigenvalues)] * 2, abs=1e-9)


def test_what_does_not_converge_is_said(monkeypatch):
    monkeypatch.setattr(derived, "MAX_STEPS", 3)
    scales = torch.linspace(1, 2, 50)
    with pytest.warns(UserWarning, match="1 of 1 networks did not converge in 3 steps"):
        largest_eigenvalue(
            lambda point: (scales * point**2).sum(),
            torch.zeros(1, 50),
            torch.ones(50, dtype=torch.bool),
        )


def test_rescaling_changes_it_and_permuting_does_not(populations):
    population = populations["relu"]
    params, space = networks(population), population.space
    before = sharpness(population, params)
    drawn = sample(space, torch.Generator().manual_seed(0), (COUNT,))
    permuted = act(space, GroupElement(drawn.permutations, {}), params)
    assert sharpness(population, permuted) == pytest.approx(before, rel=1e-4)

    scaled = act(space, GroupElement({}, {"h1": torch.tensor([4.0, 0.25, 2.0, 3.0, 0.5])}), params)
    x = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    run = torch.func.vmap(population.architecture.apply, in_dims=(0, None))
    torch.testing.assert_close(run(params, x), run(scaled, x))
    assert (np.abs(sharpness(population, scaled) / before - 1) > 0.1).all()
    assert (
        np.abs(
            squared_weight_norm(population, scaled) / squared_weight_norm(population, params) - 1
        )
        > 0.1
    ).all()


def test_norms_count_trained_entries_only(populations):
    for name in ("relu", "w_asymmetric"):
        population = populations[name]
        params, free = networks(population), population.free
        assert bool(free) == (name == "w_asymmetric")
        expected = [0.0] * COUNT
        for at in range(COUNT):
            for tensor, values in params.items():
                mask = free.get(tensor, torch.ones(values.shape[1:]))
                expected[at] += sum(
                    float(v) ** 2
                    for v, m in zip(
                        values[at].flatten().tolist(), mask.flatten().tolist(), strict=True
                    )
                    if m
                )
        assert squared_weight_norm(population, params) == pytest.approx(expected, rel=1e-6)


def test_running_statistics_are_not_trained(populations):
    population = populations["resnet"]
    assert population.architecture.statistics
    assert int(trained(population).sum()) == population.num_free
    assert np.isfinite(sharpness(population, networks(population, 1))).all()


def test_diverged_networks_have_none(populations):
    params = networks(populations["relu"])
    params = {name: tensor.clone() for name, tensor in params.items()}
    first, second = (params[f"layers.{layer}.weight"] for layer in (0, 1))
    first[1] = second[1] = 1e30
    first[2, 0, 0] = torch.nan
    values = sharpness(populations["relu"], params)
    assert np.isfinite(values).tolist() == [True, False, False, True]
    assert values[[0, 3]] == pytest.approx(
        sharpness(populations["relu"], networks(populations["relu"]))[[0, 3]], rel=1e-4
    )
    assert np.isfinite(squared_weight_norm(populations["relu"], params)).tolist() == [
        True,
        True,
        False,
        True,
    ]


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def compute(population, params):
        calls.append(population.name)
        return np.arange(len(params["layers.0.bias"]), dtype=np.float64)

    monkeypatch.setitem(DERIVED, "rank", Derived(compute, 1))
    return calls


def test_columns_are_computed_once(populations, counted, tmp_path, monkeypatch):
    for _ in range(2):
        population = with_derived(populations["relu"], ["test_accuracy", "rank"], tmp_path)
        assert population.table("train")["rank"].tolist() == list(range(COUNT))
        assert "squared_weight_norm" not in population.table("train")
    assert len(counted) == 1
    population.table("test")
    with_derived(populations["w_asymmetric"], ["rank"], tmp_path).table("train")
    assert counted == ["relu", "relu", "w_asymmetric"]
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setitem(DERIVED, "rank", Derived(DERIVED["rank"].compute, 2))
    population.table("train")
    assert len(counted) == 4


def test_an_interrupted_column_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.store.atomic.publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        derived._save(tmp_path / "column.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_all_else_is_the_populations(populations, tmp_path):
    plain = populations["relu"]
    assert with_derived(plain, ["test_accuracy"], tmp_path) is plain
    population = with_derived(plain, ["squared_weight_norm"], tmp_path)
    assert isinstance(population, PopulationLike)
    assert (population.name, population.space, population.splits) == (
        plain.name,
        plain.space,
        plain.splits,
    )
    stored = population.stored("test")
    assert stored is not None
    assert stored.files == plain.stored("test").files
    assert population.table("test").drop(columns="squared_weight_norm").equals(plain.table("test"))
    fitted = Metanet("statnn", target="squared_weight_norm", epochs=2).fit(population)
    assert np.isfinite(fitted.predict(population)).all()
