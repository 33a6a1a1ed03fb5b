"""Handing out shards: deaths, failures, retries, and what the progress bar tells of them."""

import errno
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
import torch

from data_gen.executors.executor import InThisProcess, attempt
from data_gen.executors.failures import (
    Failure,
    FolderError,
    MissingShards,
    NoProcess,
    failure_of,
    raise_for_missing,
)
from data_gen.executors.local import LocalProcesses
from data_gen.executors.processes import default_workers, prepare_process
from data_gen.executors.progress import show_progress
from data_gen.executors.scheduler import (
    MAX_RETRIES,
    Advanced,
    Died,
    Ended,
    Ready,
    run_in_pool,
)
from data_gen.generation import generate
from data_gen.shard import ShardWorker
from tests.data_gen.jobs import tiny_job, visible
from zoo.writing.shards import Shard

SHARDS = [
    Shard("standard", "train", number, 4, 10 * number, 10 * number + 10) for number in range(4)
]
FULL = Failure("the disk is full", errno=errno.ENOSPC)


class Script:
    """A pool whose processes do, for each shard in turn, what a script says.

    "ok", "die" or a failure; then "ok".
    """

    def __init__(self, script, start="ok", late=()):
        self.script, self.starts, self.start_deaths = (
            {s: list(acts) for s, acts in script.items()},
            Counter(),
            start,
        )
        self.queue, self.made, self.tried, self.fresh = [], [], Counter(), set()
        self.late = list(late)

    def start(self, rank):
        self.starts[rank] += 1
        self.queue.append(
            Ready(rank) if self.start_deaths == "ok" else Died(rank, "ended with status 1")
        )
        self.fresh.add(rank)

    def submit(self, rank, shard):
        assert rank in self.fresh, "a dead process was given a shard"
        self.tried[shard] += 1
        act = self.script[shard].pop(0) if self.script.get(shard) else "ok"
        self.queue.append(Advanced(rank, 7))
        if act == "die":
            self.fresh.discard(rank)
            self.queue.append(Died(rank, "was ended by signal 9"))
            return
        self.made += [shard] if act == "ok" else []
        self.queue.append(Ended(rank, None if act == "ok" else act))
        self.queue.append(Advanced(rank, 3))  # a report that comes too late

    def events(self):
        return [self.queue.pop(0)] if self.queue else []


def bar(missing, quiet):
    return show_progress(SHARDS, missing, lambda s: s.stop - s.start, Shard.path, "networks", quiet)


def run(pool, size=2, quiet=True):
    with bar(SHARDS, quiet) as progress:
        run_in_pool(pool, size, SHARDS, progress)
    return progress


def test_every_shard_is_made_once():
    pool = Script({})
    assert run(pool).failures == {}
    assert sorted(pool.made, key=SHARDS.index) == SHARDS
    assert pool.starts == {0: 1, 1: 1}


def test_no_more_processes_than_shards_are_started():
    pool = Script({})
    run(pool, size=9)
    assert set(pool.starts) == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [1, 2])
def test_a_shard_whose_process_dies_is_made_in_a_fresh_one(size):
    pool = Script({SHARDS[1]: ["die"] * MAX_RETRIES})
    assert run(pool, size).failures == {}
    assert set(pool.made) == set(SHARDS)
    assert pool.tried[SHARDS[1]] == MAX_RETRIES + 1
    assert sum(pool.starts.values()) == size + MAX_RETRIES


def test_a_shard_that_kills_every_process_is_given_up_and_the_others_are_made():
    pool = Script({SHARDS[1]: ["die"] * 9})
    failures = run(pool).failures
    assert list(failures) == [SHARDS[1]]
    assert (
        failures[SHARDS[1]].reason == "its process died 3 times; the last one was ended by signal 9"
    )
    assert set(pool.made) == {SHARDS[0], SHARDS[2], SHARDS[3]}


def test_an_error_of_the_code_is_not_tried_again():
    pool = Script({SHARDS[0]: [Failure("KeyError: 'x'", "trace")]})
    assert run(pool).failures == {SHARDS[0]: Failure("KeyError: 'x'", "trace")}
    assert pool.tried[SHARDS[0]] == 1
    assert set(pool.made) == set(SHARDS[1:])


def test_when_the_folder_takes_no_more_files_only_what_is_begun_is_ended():
    pool = Script({SHARDS[0]: [FULL]})
    assert run(pool).failures == {SHARDS[0]: FULL}
    assert SHARDS[2] not in pool.tried
    assert SHARDS[3] not in pool.tried


def test_processes_that_die_before_they_are_ready_are_an_error():
    pool = Script({}, start="die")
    with pytest.raises(
        NoProcess, match=r"no worker process can be started: ended with status 1 .*__main__"
    ):
        run(pool)
    assert 2 <= sum(pool.starts.values()) <= 2 + MAX_RETRIES


def test_the_bar_counts_what_is_there_and_tells_of_retries_and_failures(capsys):
    with bar(SHARDS[1:], quiet=False) as progress:
        run_in_pool(
            Script({SHARDS[1]: ["die"], SHARDS[2]: [Failure("ValueError: no")]}),
            2,
            SHARDS[1:],
            progress,
        )
    shown = capsys.readouterr().err.replace("\r", "\n")
    assert "10/40 [00:00" in shown, "a complete shard counts as done"
    assert f"{SHARDS[1].path()}: was ended by signal 9; trying again" in shown
    assert f"{SHARDS[2].path()}: ValueError: no; going on with the others" in shown
    last = shown.strip().splitlines()[-1]
    assert "30/40" in last, "neither late reports nor those of dead processes count"
    assert "1 retried, 1 failed" in last
    assert "networks/s" in last
    assert "left" in last


def test_quiet_shows_nothing(capsys):
    run(Script({SHARDS[1]: ["die"], SHARDS[2]: [Failure("no")]}))
    assert capsys.readouterr().err == ""


def boom(error):
    def complete(self, shard, report):
        if shard.path() == "w_asymmetric/validation-00000-of-00001.h5":
            raise error
        return COMPLETE(self, shard, report)

    return complete


COMPLETE = ShardWorker.complete


def test_one_failed_shard_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(ShardWorker, "complete", boom(KeyError("layers")))
    with pytest.raises(MissingShards) as caught:
        generate(tiny_job(), tmp_path / "zoo", compile=False, quiet=True)
    assert str(caught.value) == (
        f"{tmp_path / 'zoo'}: 1 of 6 shards are missing; the others are kept, run the same command "
        "again:\n"
        "  w_asymmetric/validation-00000-of-00001.h5: KeyError: 'layers'"
    )
    assert "raise error" in caught.value.__notes__[0]
    shards = [name for name in visible(tmp_path / "zoo") if ".trajectory" not in name]
    assert len(shards) == 5
    assert "zoo.json" not in shards
    monkeypatch.undo()
    generate(tiny_job(), tmp_path / "zoo", compile=False, quiet=True)
    assert "zoo.json" in visible(tmp_path / "zoo")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_files_ends_the_run_at_once(tmp_path, monkeypatch, number):
    tried = []
    failing = boom(OSError(number, "the system's words"))
    monkeypatch.setattr(
        ShardWorker,
        "complete",
        lambda self, shard, report: (tried.append(shard.path()), failing(self, shard, report)),
    )
    with pytest.raises(
        FolderError, match=r"zoo: .*; .* \(5 of 6 shards are missing, the others are kept\)"
    ) as caught:
        generate(tiny_job(), tmp_path / "zoo", compile=False, quiet=True)
    assert len(str(caught.value).splitlines()) == 1
    assert tried == [
        "w_asymmetric/train-00000-of-00001.h5",
        "w_asymmetric/validation-00000-of-00001.h5",
    ]


def test_what_is_remembered_of_errors(tmp_path, monkeypatch):
    def fail(error):
        monkeypatch.setattr(
            ShardWorker, "complete", lambda self, shard, report: (_ for _ in ()).throw(error)
        )
        return attempt(ShardWorker(tiny_job(), tmp_path, torch.device("cpu")), SHARDS[0], print)

    assert fail(ValueError("two\nlines")) == Failure("two")
    assert fail(OSError(errno.ENOENT, "no such file", "x.h5")).errno == 0
    denied = fail(OSError(errno.EACCES, "denied", "/data/x.h5"))
    assert denied.errno == errno.EACCES
    assert "'/data/x.h5'" in denied.reason
    bug = fail(ZeroDivisionError("by zero"))
    assert bug.reason == "ZeroDivisionError: by zero"
    assert "Traceback" in bug.trace
    assert failure_of(MemoryError()).reason == "MemoryError: "


def test_many_missing_shards_are_not_all_named():
    raise_for_missing(Path("zoo"), 30, [], {})
    with pytest.raises(MissingShards, match="12 of 30 shards are missing") as caught:
        raise_for_missing(Path("zoo"), 30, [f"standard/{number}.h5" for number in range(12)], {})
    assert str(caught.value).splitlines()[-1] == "  and 2 more"
    assert len(str(caught.value).splitlines()) == 12


def test_threads_divide_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert [default_workers(False, threads) for threads in (1, 4, 5, 50)] == [12, 3, 2, 1]
    before = torch.get_num_threads()
    try:
        prepare_process(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_this_process_is_an_executor(tmp_path):
    folder = generate(
        tiny_job(), tmp_path / "zoo", compile=False, quiet=True, executor=InThisProcess()
    )
    assert len(list(folder.glob("*/*.h5"))) == 13


class Writer:
    """A worker on numbers: it writes a file for each, but a negative one is an error."""

    needs_gpu = False

    def __init__(self, folder):
        self.folder = folder
        self.rank = None

    def set_up(self, rank):
        self.rank = rank

    def complete(self, item, report):
        if item < 0:
            raise ValueError(f"{item} is negative")
        report(1)
        (self.folder / str(item)).write_text(f"{self.rank}")


class Stop:
    """A watcher that raises at the first failure."""

    def __init__(self):
        self.completed = []

    def advance(self, item, count):
        pass

    def complete(self, item):
        self.completed.append(item)

    def retry(self, item, reason):
        pass

    def fail(self, item, failure):
        raise ValueError(failure.reason)


@pytest.mark.parametrize("executor", [InThisProcess(), LocalProcesses(2)], ids=["here", "local"])
def test_any_worker_completes_any_items(tmp_path, executor):
    watcher = Stop()
    executor.run(Writer(tmp_path), [3, 1, 2], watcher)
    assert sorted(watcher.completed) == [1, 2, 3]
    ranks = {path.read_text() for path in tmp_path.iterdir()}
    assert ranks <= ({"None"} if executor == InThisProcess() else {"0", "1"})


@pytest.mark.parametrize("executor", [InThisProcess(), LocalProcesses(1)], ids=["here", "local"])
def test_a_watcher_that_raises_ends_the_run_at_once(tmp_path, executor):
    watcher = Stop()
    with pytest.raises(ValueError, match="-1 is negative"):
        executor.run(Writer(tmp_path), [5, -1, 6], watcher)
    assert watcher.completed == [5]
    assert multiprocessing.active_children() == []
