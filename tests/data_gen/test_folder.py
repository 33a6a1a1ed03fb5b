"""The folder of a zoo.

Locks, what killed runs leave behind, full disks, read-only and forbidden folders.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_gen.cli import main
from data_gen.executors.failures import FolderError
from data_gen.folder import claimed
from data_gen.generation import generate, generate_shard
from data_gen.integrity.merge import merge_zoos
from data_gen.integrity.repair import repair_zoo
from tests.data_gen.jobs import contents, tiny_job, visible
from tests.disks import make_read_only, resize, small_disk
from zoo.store.atomic import temporary_path

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX, int(sys.argv[2]), int(sys.argv[3]))
print("held", flush=True)
sys.stdin.read()
"""


def make(out, **changes):
    return generate(tiny_job(**changes), out, compile=False, quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make(tmp_path_factory.mktemp("folder") / "zoo")


@pytest.fixture
def hold(tmp_path):
    """Lock bytes of a folder's lock file from another process."""
    holders = []

    def start(length, first):
        (tmp_path / "zoo").mkdir(exist_ok=True)
        command = [sys.executable, "-c", HOLD, tmp_path / "zoo" / ".lock", str(length), str(first)]
        holders.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert holders[-1].stdout.readline() == b"held\n"
        return holders[-1]

    yield start
    for holder in holders:
        holder.communicate()


def test_two_writers_at_once_and_the_second_is_refused(tmp_path, hold):
    holder = hold(0, 0)
    with pytest.raises(
        ValueError, match="zoo: another process writes to this folder; wait until it has ended"
    ):
        make(tmp_path / "zoo")
    with pytest.raises(ValueError, match="another process writes to this folder or this shard"):
        generate_shard(tiny_job(), tmp_path / "zoo", 0, compile=False, quiet=True)
    assert visible(tmp_path / "zoo") == {}
    holder.kill()
    holder.wait()
    make(tmp_path / "zoo")  # a lock ends with its process


def test_what_a_writer_holds_no_other_process_can_even_share(tmp_path):
    """Two writers that both locked for reading would both go on."""
    with claimed(tmp_path / "zoo", tiny_job()):
        pid = os.fork()
        if pid == 0:
            descriptor = os.open(tmp_path / "zoo" / ".lock", os.O_RDWR)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_different_shards_may_be_made_at_once_but_not_the_same(tmp_path, hold):
    hold(1, 2)
    with pytest.raises(ValueError, match="another process writes to this folder or this shard"):
        generate_shard(tiny_job(), tmp_path / "zoo", 2, compile=False, quiet=True)
    with pytest.raises(ValueError, match="another process writes to this folder; wait"):
        make(tmp_path / "zoo")
    assert len(generate_shard(tiny_job(), tmp_path / "zoo", 3, compile=False, quiet=True)) == 5


def test_a_file_system_without_locks_is_told_and_nothing_is_cleaned(
    tmp_path, monkeypatch, capsys, finished
):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    (tmp_path / "zoo" / "standard").mkdir(parents=True)
    with claimed(tmp_path / "empty", tiny_job()):
        (tmp_path / "zoo" / ".job.json").write_text(tiny_job().as_json())
    capsys.readouterr()
    maybe_alive = tmp_path / "zoo" / "standard" / ".train-00000-of-00001.h5.999999999.0123abcd.tmp"
    maybe_alive.write_bytes(b"")
    make(tmp_path / "zoo")
    assert (
        "no locks on this file system; do not run generate-zoo on this folder twice at once"
        in capsys.readouterr().err
    )
    assert maybe_alive.exists()
    assert visible(tmp_path / "zoo") == visible(finished)


NO_PID = 2**22 + 1  # above the largest number that Linux or macOS give to a process


def left_overs(folder):
    """Files by whether they are to be removed: only ours, of processes that are no more."""
    dead, alive = NO_PID, os.getppid()
    gone = [
        folder / f".zoo.json.{dead}.0123abcd.tmp",
        folder / f".README.md.{dead}.0123abcd.tmp",
        folder / f".job.json.{dead}.0123abcd.tmp".replace(".job", "..job"),
        folder / "standard" / f".train-00000-of-00001.h5.{dead}.0123abcd.tmp",
        folder / "constants" / f".w_asymmetric.h5.{dead}.0123abcd.tmp",
        folder / "standard" / f".train-00000-of-00001.h5.{os.getpid()}.0123abcd.tmp",
    ]
    kept = [
        folder / "standard" / f".train-00000-of-00001.h5.{alive}.0123abcd.tmp",
        folder / f".notes.txt.{dead}.0123abcd.tmp",
        folder / f"zoo.json.{dead}.0123abcd.tmp",
        folder / "standard" / ".train-00000-of-00001.h5.swp",
    ]
    return gone, kept


def test_what_killed_runs_left_behind_is_removed(tmp_path):
    folder = make(tmp_path / "zoo")
    gone, kept = left_overs(folder)
    for path in (*gone, *kept):
        path.write_bytes(b"half")
    make(folder)
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_failed_run_cleans_up_after_its_killed_workers(tmp_path):
    left = tmp_path / "zoo" / "standard" / f".train-00000-of-00001.h5.{NO_PID}.0123abcd.tmp"
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "zoo", tiny_job()):
        left.parent.mkdir()
        left.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not left.exists()


def test_a_shard_of_an_array_removes_what_its_own_killed_runs_left_behind(tmp_path):
    (tmp_path / "zoo" / "w_asymmetric").mkdir(parents=True)
    (tmp_path / "zoo" / ".job.json").write_text(tiny_job().as_json())
    names = [
        f".{split}-00000-of-00001.h5.{NO_PID}.0123abcd.tmp" for split in ("train", "validation")
    ]
    for name in names:
        (tmp_path / "zoo" / "w_asymmetric" / name).write_bytes(b"half")
    generate_shard(tiny_job(), tmp_path / "zoo", 0, compile=False, quiet=True)
    assert [(tmp_path / "zoo" / "w_asymmetric" / name).exists() for name in names] == [False, True]


def test_names_of_temporary_files_are_never_the_same():
    path = temporary_path(Path("a/b.h5"))
    assert path != temporary_path(Path("a/b.h5"))
    assert path.name.startswith(f".b.h5.{os.getpid()}.")


def test_a_run_killed_before_its_first_file_leaves_a_folder_that_can_be_used(tmp_path, finished):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / ".lock").touch()
    (tmp_path / "zoo" / f"..job.json.{NO_PID}.0123abcd.tmp").write_text('{"cou')
    assert contents(make(tmp_path / "zoo")) == contents(finished)


def test_a_marker_that_is_not_ours(tmp_path):
    (tmp_path / ".job.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"\.job\.json: the record of a job is not JSON: .*; it was not written by"
    ):
        make(tmp_path)
    (tmp_path / ".job.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        make(tmp_path)
    (tmp_path / ".job.json").write_text(10**5 * "[")
    with pytest.raises(ValueError, match=r"recursion limit exceeded .*it was not written by"):
        make(tmp_path)


STRANGE = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "deep": lambda path: path.write_text(10**5 * "["),
    "folder": lambda path: path.mkdir(),
    "nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_marker_is_neither_waited_for_nor_read_to_its_end(tmp_path, finished, kind):
    """By none of the commands that look for it."""
    copy = Path(shutil.copytree(finished, tmp_path / "zoo"))
    (copy / ".job.json").unlink()
    STRANGE[kind](copy / ".job.json")
    with pytest.raises(ValueError, match=r"job\.json"):
        merge_zoos(tmp_path / "merged", [copy])
    with pytest.raises(ValueError, match="zoo"):
        make(copy)
    (copy / "zoo.json").unlink()
    with pytest.raises(ValueError, match="the job is lost"):
        repair_zoo(copy, compile=False, quiet=True)


def test_a_full_disk_at_any_point(tmp_path, finished):
    """A disk that grows by little and little.

    The marker, each shard, constants, card and manifest run out of space in turn.
    """
    reference, size, messages = visible(finished), 8192, set()
    with small_disk(tmp_path / "disk", size) as disk:
        while True:
            try:
                make(disk / "zoo")
                break
            except FolderError as error:
                messages.add(str(error).split(" (")[0])
                assert len(str(error).splitlines()) == 1
            files = visible(disk / "zoo")
            assert files.items() <= reference.items(), "a file is visible that is not whole"
            assert "zoo.json" not in files
            size += 4096 * max(1, size // 6144)
            resize(disk, size)
        assert contents(disk / "zoo") == contents(finished)
        assert messages == {
            f"{disk / 'zoo'}: no space left on the disk; free some and run the same command again"
        }


def test_a_read_only_folder(tmp_path, finished):
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        make(disk / "zoo")
        (disk / "zoo" / "standard" / "train-00000-of-00001.h5").unlink()
        make_read_only(disk)
        for folder in (disk / "zoo", disk / "new"):
            with pytest.raises(
                FolderError,
                match="the file system is read-only; make it writable or choose another",
            ):
                make(folder)
    assert visible(finished)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (".job.json", errno.EACCES),
        ("train-00000-of-00001.h5", errno.EROFS),
        ("README.md", errno.ENOSPC),
        ("zoo.json", errno.EDQUOT),
    ],
)
def test_whatever_file_cannot_be_written_it_is_one_line(tmp_path, monkeypatch, name, number):
    import zoo.store.atomic

    publish = zoo.store.atomic.publish

    def fail(temporary, path):
        if path.name == name:
            raise OSError(number, os.strerror(number))
        publish(temporary, path)

    monkeypatch.setattr("zoo.store.atomic.publish", fail)
    (tmp_path / "job.json").write_text(
        tiny_job(populations={"standard": {"architecture": {"name": "mlp"}}}).as_json()
    )
    arguments = [
        str(tmp_path / "job.json"),
        "--out",
        str(tmp_path / "zoo"),
        "--workers",
        "0",
        "--quiet",
        "--no-compile",
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"generate-zoo: {tmp_path / 'zoo'}: ")
    assert not [
        path for path in (tmp_path / "zoo").rglob("*") if path.name == name or path.suffix == ".tmp"
    ]


@pytest.mark.parametrize("out", ["file", "file/zoo"])
def test_out_is_a_file(tmp_path, out):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(
        (ValueError, FolderError),
        match=r"exists and is not a zoo of this job|is a file, not a folder",
    ):
        make(tmp_path / out)
    assert (tmp_path / "file").read_text() == "precious"
