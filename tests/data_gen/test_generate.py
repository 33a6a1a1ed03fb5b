"""Generating zoos: the plan, resume, determinism of bytes, and other people's folders."""

import shutil

import pytest
import torch

import zoo
from data_gen.config import Job
from data_gen.folder import is_complete
from data_gen.generation import choose_device, generate
from data_gen.planning import plan
from data_gen.populations import build_population
from data_gen.shard import ShardWorker
from data_gen.tasks.task import load_task


def make_job(**changes):
    mlp = {"name": "mlp", "hidden": [6]}
    job = {
        "task": {"name": "digits", "train_size": 100, "test_size": 50},
        "populations": {
            "standard": {"architecture": mlp},
            "w_asymmetric": {"architecture": mlp, "asymmetry": {"kind": "w"}},
        },
        "hyperparameters": {
            "steps": {"int_range": [5, 40]},
            "optimizer": {"choice": ["sgd", "adamw"]},
            "lr": 0.01,
        },
        "count": 21,
        "shard_size": 6,
        "checkpoints": 3,
    }
    return Job.model_validate(job | changes)


def run(job, out, **options):
    return generate(job, out, device="cpu", quiet=True, **({"compile": False} | options))


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(make_job(), tmp_path_factory.mktemp("generate") / "zoo")


def test_plan_covers_every_network_once_and_in_order():
    job = make_job(count=1003, shard_size=100)
    task = load_task(job.task)
    shards = plan(job, {name: build_population(job, name, task) for name in job.populations})
    for name in job.populations:
        of_population = [shard for shard in shards if shard.population == name]
        assert [i for shard in of_population for i in range(shard.start, shard.stop)] == list(
            range(1003)
        )
        assert max(shard.stop - shard.start for shard in of_population) <= 100
        assert {shard.split for shard in of_population} == {"train", "validation", "test"}


def test_checkpoints_that_no_memory_holds_are_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="'standard': a network and its 10000000 checkpoints take"):
        run(make_job(checkpoints=10**7), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_same_plan_gives_byte_identical_zoos(finished, tmp_path):
    assert contents(run(make_job(), tmp_path / "again")) == contents(finished)


def test_processes_write_the_same_bytes(finished, tmp_path):
    assert contents(run(make_job(), tmp_path / "spawned", workers=2)) == contents(finished)


@pytest.mark.parametrize("chunk", [3, 64])
def test_chunk_size_changes_nothing_but_rounding(finished, chunk, tmp_path):
    other = zoo.load(run(make_job(), tmp_path / "zoo", chunk_size=chunk))
    for name, population in zoo.load(finished).items():
        for split in population.splits:
            for tensor_name, tensor in population.params(split).items():
                torch.testing.assert_close(
                    other[name].params(split)[tensor_name], tensor, rtol=1e-3, atol=1e-4
                )


def test_resume_makes_only_what_is_missing(finished, tmp_path, monkeypatch):
    partial = tmp_path / "zoo"
    shutil.copytree(finished, partial)
    (partial / "zoo.json").unlink()
    (partial / "standard" / "train-00001-of-00002.h5").unlink()
    damaged = partial / "w_asymmetric" / "test-00000-of-00001.h5"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    written = []
    write = ShardWorker.complete
    monkeypatch.setattr(
        ShardWorker,
        "complete",
        lambda self, shard, report: (written.append(shard.path()), write(self, shard, report)),
    )
    run(make_job(), partial)
    assert sorted(written) == [
        "standard/train-00001-of-00002.h5",
        "w_asymmetric/test-00000-of-00001.h5",
    ]
    assert contents(partial) == contents(finished)


def test_interruption_leaves_complete_shards_only(tmp_path, monkeypatch, finished):
    write = ShardWorker.complete

    def interrupted(self, shard, report):
        if shard.path() == "standard/test-00000-of-00001.h5":
            raise KeyboardInterrupt
        write(self, shard, report)

    monkeypatch.setattr(ShardWorker, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(make_job(), tmp_path / "zoo")
    files = {path.name for path in (tmp_path / "zoo").rglob("*.h5")}
    assert "train-00000-of-00002.h5" in files
    assert "test-00000-of-00001.h5" not in files
    with pytest.raises(ValueError, match=r"not a complete zoo, zoo.json is missing"):
        zoo.load(tmp_path / "zoo")
    monkeypatch.undo()
    assert contents(run(make_job(), tmp_path / "zoo")) == contents(finished)


def test_another_jobs_folder_is_refused(finished, tmp_path):
    with pytest.raises(
        ValueError, match=r"holds another job, which differs in \['count', 'seed'\]"
    ):
        run(make_job(count=22, seed=5), finished)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="exists and is not a zoo of this job"):
        run(make_job(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_shard_of_another_job_is_not_taken_for_ours(finished):
    job = make_job(seed=9)
    task = load_task(job.task)
    shards = plan(job, {name: build_population(job, name, task) for name in job.populations})
    assert not any(is_complete(finished, shard, job) for shard in shards)


def test_populations_are_paired(finished):
    z = zoo.load(finished)
    first, second = z["standard"], z["w_asymmetric"]
    hyperparameters = list(first.hyperparameters)
    assert first.table("train")[["network_id", "seed", *hyperparameters]].equals(
        second.table("train")[["network_id", "seed", *hyperparameters]]
    )
    _, start = first.trajectory("train")
    _, twin = second.trajectory("train")
    free = second.free["layers.0.weight"]
    assert torch.equal(
        start["layers.0.weight"][:, 0][:, free], twin["layers.0.weight"][:, 0][:, free]
    )


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="expected auto, cpu or cuda, found 'gpu'"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU"):
            choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpu_trains_the_same_networks(finished, tmp_path):
    other = zoo.load(
        generate(make_job(), tmp_path / "zoo", device="cuda", compile=False, quiet=True)
    )
    for name, population in zoo.load(finished).items():
        for tensor_name, tensor in population.params("train").items():
            torch.testing.assert_close(
                other[name].params("train")[tensor_name], tensor, rtol=1e-2, atol=1e-3
            )


def test_the_package_exports_what_generates():
    import data_gen
    from data_gen.config import load_job

    assert data_gen.generate is generate
    assert data_gen.load_job is load_job
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data_gen.nothing  # noqa: B018
