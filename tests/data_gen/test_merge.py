"""One shard at a time, and one zoo from the shards of several folders."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

import zoo
from data_gen.cli import main as generate_zoo
from data_gen.folder import job_record
from data_gen.generation import generate, generate_shard
from data_gen.integrity import merge
from data_gen.integrity.merge import merge_zoos
from data_gen.planning import make_plan
from studies.cli import main as symzoo
from tests.data_gen.jobs import (
    assert_trajectories_first,
    contents,
    record_published,
    tiny_job,
    visible,
)

FIRST = "w_asymmetric/train-00000-of-00001.h5"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return generate(tiny_job(), tmp_path_factory.mktemp("merge") / "zoo", compile=False, quiet=True)


@pytest.fixture
def halves(finished, tmp_path):
    """The finished zoo torn in two, as two machines would have made it."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        shutil.copytree(finished, folder)
        for name in ("zoo.json", "README.md"):
            (folder / name).unlink()
        shutil.rmtree(folder / "constants")
    for number, shard in enumerate(make_plan(tiny_job()).shards):
        for path in shard.paths(trajectory=True):
            (folders[number % 2] / path).unlink()
    return folders


def command(tmp_path, *arguments):
    job = tmp_path / "job.json"
    job.write_text(job_record(tiny_job()))
    result = CliRunner().invoke(
        generate_zoo, [str(job), "--out", str(tmp_path / "zoo"), *map(str, arguments)]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_shards_made_one_by_one_are_the_zoo(tmp_path, finished):
    for number in (3, 0, 5, 1, 2):
        result = command(tmp_path, "--shard", number, "--no-compile")
        assert result.exit_code == 0, result.output
        assert f"shard {number} is complete" in result.stderr
        assert not (tmp_path / "zoo" / "zoo.json").exists()
    states = [line.split() for line in command(tmp_path, "--list-shards").stdout.splitlines()]
    assert [line[1] for line in states] == ["complete"] * 4 + ["missing", "complete"]
    assert states[1] == ["1", "complete", "2", "w_asymmetric/validation-00000-of-00001.h5"]
    assert "complete. Load it with" in command(tmp_path, "--shard", 4, "--no-compile").stderr
    assert contents(tmp_path / "zoo") == contents(finished)
    stamp = (tmp_path / "zoo" / FIRST).stat().st_mtime_ns
    (tmp_path / "zoo" / "zoo.json").unlink()
    assert command(tmp_path, "--shard", 0, "--quiet").exit_code == 0, "it may be made again"
    assert (tmp_path / "zoo" / FIRST).stat().st_mtime_ns == stamp
    assert contents(tmp_path / "zoo") == contents(finished)


def test_trajectories_are_written_before_the_final_files(tmp_path, monkeypatch):
    paths = record_published(monkeypatch, tmp_path / "zoo")
    for number in range(6):
        generate_shard(tiny_job(), tmp_path / "zoo", number, compile=False, quiet=True)
    assert_trajectories_first(tiny_job(), paths)


def test_the_number_of_threads_is_that_of_before(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        generate_shard(tiny_job(), tmp_path / "zoo", 0, compile=False, quiet=True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_shards_are_listed_before_there_is_a_folder(tmp_path):
    result = command(tmp_path, "--list-shards")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        [str(number), "missing"] for number in range(6)
    ]
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("number", [-1, 6])
def test_a_shard_that_is_not_there(tmp_path, number):
    result = command(tmp_path, "--shard", number)
    assert result.exit_code == 2
    assert f"--shard {number}: expected 0 to 5, this job has 6 shards" in result.stderr
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shard", 0, "--workers", 2), "--shard makes one shard in this process"),
        (("--shard", 0, "--executor", "ray"), "--shard makes one shard in this process"),
        (("--shard", 0, "--list-shards"), "--shard makes one shard in this process"),
        (("--address", "auto"), "add --executor ray"),
        (("--workers", 0, "--threads", 2), "--workers 0 trains in this process"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, arguments, message):
    result = command(tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_folders_become_one_zoo(halves, finished, tmp_path):
    result = CliRunner().invoke(symzoo, ["merge", str(tmp_path / "out"), *map(str, halves)])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "out") == contents(finished)
    assert zoo.load(tmp_path / "out")["standard"].params("train")
    stamp = (tmp_path / "out" / FIRST).stat().st_mtime_ns
    assert merge_zoos(tmp_path / "out", halves) == []
    assert (tmp_path / "out" / FIRST).stat().st_mtime_ns == stamp, (
        "what is there is not copied again"
    )


def test_a_folder_may_be_merged_into_one_of_them(halves, finished):
    assert merge_zoos(halves[0], halves) == []
    assert contents(halves[0]) == contents(finished)


def test_trajectories_are_copied_before_the_final_files(halves, tmp_path, monkeypatch):
    paths = record_published(monkeypatch, tmp_path / "out")
    assert merge_zoos(tmp_path / "out", halves) == []
    assert_trajectories_first(tiny_job(), paths)


def test_shards_that_nobody_has_are_named(halves, tmp_path):
    damaged = halves[1] / FIRST
    damaged.write_bytes(damaged.read_bytes()[:-100])
    result = CliRunner().invoke(symzoo, ["merge", str(tmp_path / "out"), *map(str, halves)])
    assert result.exit_code == 1
    assert f"1 shards are in none of the folders: {FIRST}" in result.stderr
    assert "zoo.json" not in visible(tmp_path / "out")
    assert FIRST not in visible(tmp_path / "out")
    generate_shard(tiny_job(), halves[1], 0, compile=False, quiet=True)
    assert merge_zoos(tmp_path / "out", halves) == []


def test_a_job_that_is_too_large_for_its_files_is_not_planned(halves, tmp_path, monkeypatch):
    for folder in halves:
        stored = json.loads((folder / ".job.json").read_text())
        (folder / ".job.json").write_text(json.dumps(stored | {"count": 10**8}))
    monkeypatch.setattr(merge, "make_plan", lambda job: pytest.fail("planned"))
    with pytest.raises(ValueError, match=r"makes 200,000,000 networks, the folders hold \d+; exp"):
        merge_zoos(tmp_path / "merged", halves)


def test_two_different_files_for_one_shard_are_refused(halves, finished, tmp_path):
    for folder in halves:
        shutil.copy(finished / FIRST, folder / FIRST)
        shutil.copy(
            finished / FIRST.replace("w_asymmetric", "w_asymmetric.trajectory"),
            folder / "w_asymmetric.trajectory",
        )
    data = bytearray((halves[0] / FIRST).read_bytes())
    data[-1] ^= 1
    (halves[0] / FIRST).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{halves[0] / FIRST} and {halves[1] / FIRST} differ"):
        merge_zoos(tmp_path / "out", halves)
    assert visible(tmp_path / "out") == {}


def test_folders_of_other_jobs_are_refused(halves, finished, tmp_path):
    other = json.loads(tiny_job(seed=7, shard_size=9).as_json())
    (halves[1] / ".job.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match=r"a and .*b hold different jobs, which differ in \['seed', 'shard_size'\]"
    ):
        merge_zoos(tmp_path / "out", halves)
    with pytest.raises(
        ValueError, match=r"holds another job, which differs in \['seed', 'shard_size'\]"
    ):
        merge_zoos(halves[1], halves[:1])
    with pytest.raises(ValueError, match=r"not a folder of generate-zoo, \.job\.json is missing"):
        merge_zoos(tmp_path / "out", [tmp_path])
    (halves[0] / ".job.json").write_text('{"count": 3}')
    with pytest.raises(ValueError, match="not a job: task"):
        merge_zoos(tmp_path / "out", halves[:1])
    assert not (tmp_path / "out").exists()
