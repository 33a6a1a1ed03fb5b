"""Kill the generation of a zoo at random moments, again and again.

No bad file is ever visible, and nothing is lost.

    python -m tests.torture --kills 200 [--warm]

Each strike is `kill -9` of the driver, of one of its processes, or of all of them; half of them at
any time, half of them when a file has just appeared, hidden ones that are being written included.
After each, every visible file must be that of an uninterrupted run, byte for byte. The driver must
survive the death of a worker; its own death is followed by the same command.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from data_gen.cli import main as generate_zoo
from data_gen.executors.local import LocalProcesses  # noqa: F401, for the fork server, which imports this file
from zoo.store import atomic
from zoo.store.mapped import open_mapped

JOB = {
    "task": {"name": "digits", "train_size": 100, "test_size": 50},
    "count": 40,
    "shard_size": 10,
    "checkpoints": 2,
    "hyperparameters": {
        "lr": {"log_uniform": [0.01, 0.1]},
        "optimizer": {"choice": ["sgd", "adamw"]},
        "steps": 20,
    },
    "populations": {
        "standard": {"architecture": {"name": "mlp", "hidden": [8]}},
        "w_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [8]},
            "asymmetry": {"kind": "w"},
        },
    },
}
JOB_TEXT = json.dumps(JOB)
MAX_STRIKES = 2  # at workers of one run: a shard is tried three times


class Driver:
    """A run of `generate-zoo` as a new process, or forked from a server that has imported
    everything, which is quick.
    """

    def __init__(self, folder, executor="local", workers=2, warm=False, extra=(), strike=None):
        job = folder.with_name("job.json")
        job.write_text(JOB_TEXT)
        self.log = folder.with_name(f"log-{time.monotonic_ns()}")
        options = [
            "--executor",
            executor,
            "--workers",
            workers,
            "--no-compile",
            "--quiet",
            "--device",
            "cpu",
            *extra,
        ]
        arguments = [str(part) for part in (job, "--out", folder, *options)]
        self._process = self._fork(arguments, strike) if warm else self._spawn(arguments)
        self.pid = self._process.pid

    def _spawn(self, arguments):
        code = "from data_gen.cli import main; main()"
        with self.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _fork(self, arguments, strike):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "torch._dynamo", "sklearn.datasets"])
        process = context.Process(target=_drive, args=(arguments, str(self.log), strike))
        process.start()
        return process

    def is_running(self):
        return (
            self._process.is_alive()
            if hasattr(self._process, "is_alive")
            else self._process.poll() is None
        )

    def wait(self):
        """Its exit status, negative for a signal."""
        if hasattr(self._process, "join"):
            self._process.join()
            return self._process.exitcode
        return self._process.wait()

    def output(self):
        return self.log.read_text(errors="replace")


def _drive(arguments, log, strike):
    """In a process of the fork server.

    Workers are forked too, since another fork server would import everything again.
    """
    if strike is not None:
        _strike_when_named(*strike)
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda _: _Forking(get_context("fork"))
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    generate_zoo(arguments)


def _strike_when_named(target, moment):
    """Kill when so many files are about to get their names, in the driver or in forks of it."""
    publish, driver = atomic.publish, os.getpid()
    count = multiprocessing.get_context("fork").Value("i", 0)

    def publish_or_die(temporary, path):
        with count.get_lock():
            count.value += 1
            number = count.value
        if number == moment:
            here, others = os.getpid(), set(descendants(driver)) - {os.getpid()}
            chosen = {"worker": [here], "driver": [driver], "everything": [driver, *others, here]}
            for pid in chosen[target]:
                os.kill(pid, signal.SIGKILL)
        publish(temporary, path)

    atomic.publish = publish_or_die


class _Forking:
    def __init__(self, context):
        self.Pipe, self.Process = context.Pipe, context.Process

    def set_forkserver_preload(self, names):
        """Not needed."""


def descendants(pid):
    """Processes below one, by number, with their command lines.

    Helpers that hold nothing of ours are left out.
    """
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
                commands[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
    below, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - below
        below |= new
    return {
        child: commands.get(child, b"")
        for child in below
        if b"resource_tracker" not in commands.get(child, b"")
    }


def workers_of(driver, executor):
    processes = descendants(driver.pid)
    return [
        pid
        for pid, command in processes.items()
        if executor == "local" or command.startswith(b"ray::_Member")
    ]


def contents(folder, hidden=True):
    """All files by path.

    Temporary ones, which processes that live on may write, only to be counted.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tmp")
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in files
        if hidden or not p.name.startswith(".")
    }


def check_visible(folder, reference):
    """Every visible file is whole and has the bytes of the reference.

    A manifest means that all of them are there.
    """
    visible = contents(folder, hidden=False) if folder.is_dir() else {}
    for path, data in visible.items():
        assert data == reference[path], f"{path} is not the file of an uninterrupted run"
        if path.endswith(".h5"):
            open_mapped(folder / path)  # after all of the file has been checked
    if "zoo.json" in visible:
        assert set(visible) == {path for path in reference if not path.startswith(".")}, (
            "a manifest without all files"
        )


def wait_for_moment(driver, folder, rng, duration):
    """A moment of a run.

    Any, or one at which a file has just appeared; False if the run ends before.
    """
    if rng.random() < 0.5:
        until = time.monotonic() + rng.uniform(0, duration)
        while driver.is_running() and time.monotonic() < until:
            time.sleep(0.002)
        return driver.is_running()
    known, left = set(folder.rglob("*")), rng.randint(1, 12)
    while driver.is_running():
        names = set(folder.rglob("*"))
        time.sleep(0.001)
        left -= len(names - known)
        known |= names
        if left <= 0:
            time.sleep(rng.uniform(0, 0.02) if rng.random() < 0.5 else 0)
            return driver.is_running()
    return False


def strike(driver, executor, target):
    """Kill -9; the number of processes that were hit."""
    pids = {"driver": lambda: [driver.pid], "worker": lambda: workers_of(driver, executor)}
    pids["everything"] = lambda: [driver.pid, *workers_of(driver, executor)]
    chosen = pids[target]()
    for pid in chosen if target == "everything" else chosen[:1]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0
    return min(len(chosen), 1)


def torture(
    kills,
    executor,
    place,
    reference,
    duration,
    seed=0,
    warm=False,
    targets=("driver", "worker", "everything"),
):
    """Kill until there have been so many strikes and the zoo that was struck last is complete.

    Returns:
        Number of strikes at each target, and of zoos that were finished.
    """
    rng, counts = random.Random(seed), Counter()
    while sum(counts[target] for target in targets) < kills:
        folder = place / "zoo"
        shutil.rmtree(folder, ignore_errors=True)
        status = None
        while status != 0:
            driver, target, strikes = Driver(folder, executor, warm=warm), rng.choice(targets), 0
            enough = sum(counts[name] for name in targets) >= kills
            while (
                not enough
                and strikes < MAX_STRIKES
                and wait_for_moment(driver, folder, rng, duration)
            ):
                hit = strike(driver, executor, target)
                counts[target] += hit
                strikes += 1
                check_visible(folder, reference)
                if hit and target != "worker":
                    break
            status = driver.wait()
            check_visible(folder, reference)
            expected = (0,) if target == "worker" or not strikes else (0, -signal.SIGKILL)
            assert status in expected, (
                f"{target}, {strikes} strikes: status {status}\n{driver.output()}"
            )
        assert contents(folder) == reference, "the resumed zoo is not that of an uninterrupted run"
        counts["zoos"] += 1
        assert counts["zoos"] <= 20 * kills, "runs end before they are struck: take a larger job"
        print(f"{executor}: {dict(counts)}", file=sys.stderr, flush=True)
    while any(
        Path(f"/proc/{path.name.split('.')[-3]}").exists() for path in place.glob("zoo/**/.*.tmp")
    ):
        time.sleep(0.1)  # a killed process that waits for the disk is alive until that has answered
    assert Driver(folder, workers=1, warm=warm).wait() == 0
    left = [str(path) for path in place.glob("zoo/**/.*.tmp")]
    assert not left, f"temporary files are left: {left}"
    return counts


def strike_at_file(place, reference, target, moment):
    """Kill when a file is about to get its name, the first being 1; then run once more."""
    folder = place / "zoo"
    shutil.rmtree(folder, ignore_errors=True)
    driver = Driver(folder, warm=True, strike=(target, moment))
    expected = 0 if target == "worker" else -signal.SIGKILL
    assert driver.wait() == expected, driver.output()
    check_visible(folder, reference)
    if target != "worker":
        assert "zoo.json" not in contents(folder)
        assert Driver(folder, warm=True).wait() == 0
    assert contents(folder) == reference


def two_writers(place, reference, warm=False):
    """Start two runs on one folder; the number of those that were refused."""
    shutil.rmtree(place / "zoo", ignore_errors=True)
    drivers = [Driver(place / "zoo", warm=warm) for _ in range(2)]
    ends = [(driver.wait(), driver.output()) for driver in drivers]
    assert 0 in [status for status, _ in ends], ends
    for status, output in ends:
        assert status == 0 or (status == 2 and "another process writes to this folder" in output), (
            status,
            output,
        )
    assert contents(place / "zoo") == reference
    return sum(status == 2 for status, _ in ends)


def strike_once_at_work(place, reference, executor):
    """Kill one of two workers after the first file has appeared.

    The number of processes that were hit.
    """
    folder = place / "zoo"
    shutil.rmtree(folder, ignore_errors=True)
    driver = Driver(folder, executor, warm=True)
    while driver.is_running() and not any(folder.rglob("*.h5")):
        time.sleep(0.01)
    hit = strike(driver, executor, "worker")
    assert driver.wait() == 0, driver.output()
    assert driver.output() == "", "noise in a quiet run"
    assert contents(folder) == reference
    return hit


def make_reference(place, warm=False):
    """Files of an uninterrupted run, and how long it took."""
    start = time.monotonic()
    driver = Driver(place / "reference", warm=warm)
    assert driver.wait() == 0, driver.output()
    return contents(place / "reference"), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--ray-share",
        type=float,
        default=0.3,
        help="share of the kills in runs with --executor ray",
    )
    parser.add_argument(
        "--warm",
        action="store_true",
        help="fork drivers from a server that has imported everything: quicker",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    of_ray = round(options.kills * options.ray_share)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        reference, duration = make_reference(place, options.warm)
        refused = sum(two_writers(place, reference, options.warm) for _ in range(5))
        print(f"two writers at once, 5 times: {refused} refused, all zoos equal", flush=True)
        for executor, kills in (("local", options.kills - of_ray), ("ray", of_ray)):
            start = time.monotonic()
            counts = (
                torture(kills, executor, place, reference, duration, options.seed, options.warm)
                if kills
                else {}
            )
            print(
                f"{executor}: {dict(counts)} in {time.monotonic() - start:.0f} s, no bad file, all "
                "zoos equal",
                flush=True,
            )


if __name__ == "__main__":
    main()
