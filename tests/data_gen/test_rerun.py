"""The same command again on a zoo that is complete: damage is never taken for done."""

import json
import shutil

import pytest

from data_gen.generation import generate, generate_shard
from data_gen.integrity.merge import merge_zoos
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from tests.data_gen.jobs import tiny_job, visible

SHARD = "standard/train-00000-of-00001.h5"
CONSTANTS = "constants/w_asymmetric.h5"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return generate(tiny_job(), tmp_path_factory.mktemp("zoos") / "zoo", compile=False, quiet=True)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "zoo")


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def state(folder):
    """What would tell that a file was written."""
    stats = {path: path.lstat() for path in folder.rglob("*.*") if path.name != ".lock"}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def again(folder):
    return generate(tiny_job(), folder, compile=False, quiet=True)


DAMAGE = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("relative", [SHARD, CONSTANTS, "standard.trajectory/" + SHARD[9:]])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_and_nothing_is_written(copy, damage, relative):
    damage(copy / relative)
    before = state(copy)
    with pytest.raises(ValueError, match=r"describes another file; run symzoo repair") as error:
        again(copy)
    assert str(copy / relative) in str(error.value)
    assert state(copy) == before


def test_what_a_shard_of_its_own_process_finds_damaged_is_refused(copy):
    flip(copy / SHARD)
    with pytest.raises(ValueError, match="describes another file"):
        generate_shard(tiny_job(), copy, 0, compile=False, quiet=True)


def test_repair_makes_it_what_it_was(copy, original):
    flip(copy / SHARD)
    repair_zoo(copy, compile=False, quiet=True)
    assert verify_zoo(copy) == []
    assert visible(again(copy)) == visible(original)


@pytest.mark.parametrize("relative", [SHARD, CONSTANTS, "README.md", "zoo.json"])
def test_a_file_that_is_gone_is_made_again(copy, original, relative):
    (copy / relative).unlink()
    assert visible(again(copy)) == visible(original)


def test_a_file_that_came_out_otherwise_never_gets_into_the_manifest(copy):
    """As on another kind of machine: the hash that the manifest has stays."""
    manifest = json.loads((copy / "zoo.json").read_text())
    manifest["populations"]["standard"]["shards"][SHARD]["sha256"] = 64 * "0"
    expected = json.dumps(manifest)
    (copy / "zoo.json").write_text(expected)
    for path in copy.glob("*/*.h5"):
        path.unlink()
    with pytest.raises(ValueError, match="describes another file"):
        again(copy)
    assert (copy / "zoo.json").read_text() == expected


def test_merging_takes_no_damaged_file(copy, tmp_path):
    flip(copy / SHARD)
    with pytest.raises(ValueError, match="describes another file"):
        merge_zoos(tmp_path / "merged", [copy])
    assert not list((tmp_path / "merged").glob("*/*.h5"))


@pytest.mark.parametrize("name", ["standard", "standard.trajectory", "constants", "README.md"])
@pytest.mark.parametrize("command", [again, lambda f: generate_shard(tiny_job(), f, 0, quiet=True)])
def test_a_link_that_leads_out_is_refused_before_work_begins(tmp_path, command, name, monkeypatch):
    monkeypatch.setattr("data_gen.shard.ShardWorker.train", lambda *_: pytest.fail("trained"))
    for folder in ("zoo", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "zoo" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name}: a link that leads out of the zoo"):
        command(tmp_path / "zoo")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_repair_and_merge_follow_no_link_out_of_the_zoo(copy, tmp_path):
    outside = tmp_path / "outside"
    (copy / "standard").rename(outside)
    (copy / "standard").symlink_to(outside)
    left_over = outside / ".train-00000-of-00001.h5.999999.0123abcd.tmp"
    left_over.touch()
    for command in (
        lambda: repair_zoo(copy, compile=False, quiet=True),
        lambda: merge_zoos(copy, [copy]),
        lambda: merge_zoos(tmp_path / "merged", [copy]),
    ):
        with pytest.raises(ValueError, match="leads out of the zoo"):
            command()
    assert left_over.exists()


def test_a_link_to_nothing_is_no_folder(tmp_path):
    (tmp_path / "zoo").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a link to nothing"):
        again(tmp_path / "zoo")
