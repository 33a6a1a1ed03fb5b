"""`symzoo repair` mends a zoo."""

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_gen.config import Job
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import Fault, verify_zoo
from studies.cli import main
from studies.commands import integrity
from tests.data_gen.integrity.damage import SHARD, TRAJECTORY, edit, flip
from tests.repair_store import content
from zoo.store.mapped import StoreError


def test_random_damage_is_found_and_mended_to_the_byte(original, tmp_path):
    """The long form is `tests/repair_store.py`."""
    rng = random.Random(0)
    expected = content(original)
    copy = Path(shutil.copytree(original, tmp_path / "zoo"))
    for name in rng.sample(sorted(name for name in expected if name.endswith(".h5")), 4):
        flip(copy / name, rng.randrange(8 * len(expected[name])))
    (copy / SHARD).write_bytes(expected[SHARD][:3000])
    (copy / "constants" / "sigma_asymmetric.h5").unlink()
    (copy / "README.md").unlink()
    damaged = {name for name in expected if content(copy).get(name) != expected[name]}
    assert {fault.path for fault in verify_zoo(copy, sample=0)} == damaged
    faults = repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert {fault.path for fault in faults} == damaged
    assert content(copy) == expected
    assert (copy / "w_asymmetric" / ".train-00000-of-00001.h5.damaged").stat().st_size == 3000
    assert not (copy / ".repair").exists()


@pytest.mark.parametrize("damage", ["{", None])
def test_a_lost_manifest_is_written_again(original, copy, damage):
    (copy / "zoo.json").unlink()
    if damage:
        (copy / "zoo.json").write_text(damage)
    repair_zoo(copy, device="cpu", compile=False, quiet=True)
    repaired, expected = content(copy), content(original)
    assert json.loads(repaired.pop("zoo.json")) == json.loads(expected.pop("zoo.json"))
    assert repaired == expected


def test_a_hash_that_file_and_generation_contradict_is_mended_in_the_manifest(original, copy):
    edit(copy, lambda d: d["populations"]["w_asymmetric"]["shards"][SHARD].update(sha256="0" * 64))
    edit(
        copy,
        lambda d: d["populations"]["w_asymmetric"]["trajectory"][TRAJECTORY].update(bytes=10**6),
    )
    assert {fault.path for fault in repair_zoo(copy, device="cpu", compile=False, quiet=True)} == {
        SHARD,
        TRAJECTORY,
        "README.md",
    }
    assert json.loads((copy / "zoo.json").read_text()) == json.loads(
        (original / "zoo.json").read_text()
    )


def test_files_that_come_out_otherwise_are_taken_only_if_asked_for(copy):
    lost = (copy / SHARD).read_bytes()
    (copy / SHARD).unlink()
    edit(copy, lambda d: d["populations"]["w_asymmetric"]["shards"][SHARD].update(sha256="0" * 64))
    before = content(copy)
    with pytest.raises(
        ValueError, match=r"1 files came out otherwise .*Nothing was changed.*--accept-changed"
    ):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert content(copy) == before
    repair_zoo(copy, device="cpu", compile=False, quiet=True, accept_changed=True)
    assert (copy / SHARD).read_bytes() == lost
    assert verify_zoo(copy, sample=0) == []


def test_what_does_not_belong_gets_a_hidden_name(copy):
    (copy / "sigma_asymmetric" / "train-00001-of-00002.h5").write_bytes(b"x")
    assert repair_zoo(copy, quiet=True) == [
        Fault("sigma_asymmetric/train-00001-of-00002.h5", "not in the manifest")
    ]
    assert (copy / "sigma_asymmetric" / ".train-00001-of-00002.h5.damaged").read_bytes() == b"x"


def test_repair_does_not_follow_links_out_of_the_zoo(copy, tmp_path):
    outside = tmp_path / "outside"
    (copy / "sigma_asymmetric").rename(outside)
    (copy / "sigma_asymmetric").symlink_to(outside)
    before = content(outside)
    with pytest.raises(StoreError, match="a link that leads out of the zoo"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert content(outside) == before


def test_repair_asks_before_it_opens_what_a_task_names(copy):
    edit(copy, lambda d: d["config"].update(task={"name": "images", "path": "/etc/secret"}))
    (copy / ".job.json").write_text(
        json.dumps(json.loads((copy / "zoo.json").read_text())["config"])
    )
    with pytest.raises(ValueError, match="which is not opened unasked; give --trust-task"):
        repair_zoo(copy, quiet=True)


def test_a_job_that_is_lost_is_said_to_be(copy):
    (copy / "zoo.json").unlink()
    (copy / ".job.json").unlink()
    with pytest.raises(
        ValueError, match=r"the job is lost: neither zoo\.json nor \.job\.json holds it"
    ):
        repair_zoo(copy, quiet=True)


def test_the_commands_print_and_end_with_a_status(copy):
    runner = CliRunner()
    whole = runner.invoke(main, ["verify", str(copy)])
    assert (whole.exit_code, whole.stdout.splitlines()[-1]) == (0, f"{copy}: whole")
    flip(copy / SHARD, 8 * 7000)
    broken = runner.invoke(main, ["verify", str(copy), "--sample", "0"])
    assert broken.exit_code == 1
    assert f"{copy}/{SHARD}: expected sha256 " in broken.stdout
    mended = runner.invoke(
        main, ["repair", str(copy), "--no-compile", "--workers", "0", "--quiet", "--device", "cpu"]
    )
    assert (mended.exit_code, mended.stdout.splitlines()[-1]) == (0, f"{copy}: 1 fault mended")
    assert runner.invoke(main, ["verify", str(copy), "--sample", "0"]).exit_code == 0
    assert (
        runner.invoke(main, ["repair", str(copy), "--quiet"]).stdout
        == f"{copy}: nothing to repair\n"
    )


@pytest.mark.parametrize(("given", "expected"), [((), 7), (("--workers", "2"), 2)])
def test_repair_has_as_many_processes_as_are_asked_for(copy, monkeypatch, given, expected):
    counts = []
    monkeypatch.setattr(integrity, "default_workers", lambda has_gpu: 7)
    monkeypatch.setattr(
        integrity, "repair_zoo", lambda zoo, device, workers, *_: counts.append(workers) or []
    )
    result = CliRunner().invoke(main, ["repair", str(copy), *given, "--device", "cpu"])
    assert (result.exit_code, counts) == (0, [expected]), result.output


def described_anew(folder: Path, change) -> None:
    """A job that agrees with its hash, as a stranger would write it."""

    def rewritten(data):
        change(data["config"])
        job = Job.model_validate(data["config"])
        data.update(config=json.loads(job.as_json()), config_sha256=job.sha256)

    edit(folder, rewritten)
    (folder / ".job.json").unlink()


def many_epochs(job):
    del job["hyperparameters"]["steps"]
    job["hyperparameters"]["epochs"] = {"fixed": 1e9}


def many_populations(job):
    one = job["populations"]["w_asymmetric"]
    job["populations"] |= {f"p{i}": one for i in range(9)}


LARGER = {
    "networks": (lambda job: job.update(count=10**8), "the job makes 200,000,000 networks"),
    "steps": (
        lambda job: job["hyperparameters"].update(steps={"fixed": 10**9}),
        "the job makes 16,000,000,000 training steps, the files that are there hold 32;",
    ),
    "epochs": (many_epochs, "training steps, the files that are there hold 32; give --trust-task"),
    "populations": (many_populations, "makes 88 networks, the files that are there hold 16"),
}


@pytest.mark.parametrize(("change", "part"), LARGER.values(), ids=LARGER)
def test_repair_trains_no_more_than_the_files_justify(copy, change, part, monkeypatch):
    monkeypatch.setattr("data_gen.integrity.repair.generate", lambda *_, **__: pytest.fail("made"))
    described_anew(copy, change)
    with pytest.raises(ValueError, match=part):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)


def test_a_zoo_of_which_most_is_lost_is_made_again_if_told_to(original, copy):
    shutil.rmtree(copy / "w_asymmetric")
    (copy / "sigma_asymmetric/test-00000-of-00001.h5").unlink()
    with pytest.raises(ValueError, match="makes 16 networks, the files that are there hold 4;"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    repair_zoo(copy, device="cpu", compile=False, quiet=True, trust_task=True)
    assert content(copy) == content(original)
