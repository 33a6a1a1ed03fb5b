"""A file says whose it is: that of another population, shard or zoo is refused when it is read."""

import shutil

import pytest

import zoo
from data_gen.generation import generate
from data_gen.integrity.verify import verify_zoo
from tests.data_gen.jobs import MLP, tiny_job
from zoo.store.mapped import StoreError

POPULATIONS = {
    "one": {"architecture": MLP},
    "other": {"architecture": MLP},
    "w_one": {"architecture": MLP, "asymmetry": {"kind": "w"}},
    "w_other": {"architecture": MLP, "asymmetry": {"kind": "w", "kappa": 2.0}},
}


def made(folder, seed=0):
    job = tiny_job(populations=POPULATIONS, count=24, shard_size=8, seed=seed)
    return generate(job, folder, compile=False, quiet=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("zoos") / "zoo")


@pytest.fixture(scope="module")
def of_another_seed(tmp_path_factory):
    return made(tmp_path_factory.mktemp("zoos") / "zoo", seed=1)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "zoo")


def swap(first, second):
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def read_all(folder):
    for population in zoo.load(folder).values():
        for split in population.splits:
            population.params(split)
            population.trajectory(split)
        assert population.constants or not population.name.startswith("w")


SWAPS = {
    "shards": ("one/test-00000-of-00001.h5", "other/test-00000-of-00001.h5", "population"),
    "trajectories": (
        "one.trajectory/test-00000-of-00001.h5",
        "other.trajectory/test-00000-of-00001.h5",
        "population",
    ),
    "constants": ("constants/w_one.h5", "constants/w_other.h5", "population"),
    "numbers": ("one/train-00000-of-00002.h5", "one/train-00001-of-00002.h5", "shard"),
}


@pytest.mark.parametrize(("first", "second", "attribute"), SWAPS.values(), ids=SWAPS)
def test_swapped_files_are_refused(copy, first, second, attribute):
    assert (copy / first).stat().st_size == (copy / second).stat().st_size
    swap(copy / first, copy / second)
    with pytest.raises(StoreError, match=rf"{first}: attribute '{attribute}': expected"):
        read_all(copy)
    reasons = {fault.path: fault.reason for fault in verify_zoo(copy, sample=0)}
    assert all(f"attribute '{attribute}'" in reasons[path] for path in (first, second))


@pytest.mark.parametrize("kind", ["one", "one.trajectory"])
def test_a_file_of_another_job_is_refused(copy, of_another_seed, kind):
    path = f"{kind}/test-00000-of-00001.h5"
    shutil.copy(of_another_seed / path, copy / path)
    with pytest.raises(StoreError, match=rf"{path}: attribute 'config_sha256': expected"):
        read_all(copy)


def test_a_population_may_be_named_like_a_number_of_a_shard(tmp_path):
    job = tiny_job(populations={"mlp10000": {"architecture": MLP}}, checkpoints=0)
    folder = generate(job, tmp_path / "zoo", compile=False, quiet=True)
    assert len(zoo.load(folder)["mlp10000"].params("train")["layers.0.bias"]) > 0
    assert verify_zoo(folder) == []
