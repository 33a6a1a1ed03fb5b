"""Mutated zoos.

None may crash, hang, allocate or read what it should not; what was changed, `verify` finds.

    python -m tests.fuzz_store [--cases 10000] [--seed 0]

A case is a copy of a tiny zoo with one or a few mutations: of bytes anywhere, of fields of the
structure (with checksums that fit again), of the manifest, of the card, or of the files as such. It
is opened through the public API in a process of its own with limits of memory and time.
`StoreError` is the only exception that may come out.
"""

import argparse
import collections
import functools
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import data_gen.integrity.verify
from data_gen.config import Job
from data_gen.generation import generate
from data_gen.integrity.verify import verify_zoo
from tests.forks import in_a_process
from tests.fuzz_mutations import mutate
from zoo.store.atomic import sha256
from zoo.store.mapped import StoreError, escape
from zoo.store.proof import faults_of
from zoo.store.zoo import load

SECONDS = 5
MEMORY = 256 * 2**20
"""Bytes that opening a zoo of less than 1 MB may add: 16 times the largest manifest."""
JOB: dict[str, Any] = {
    "task": {"name": "digits", "train_size": 40, "test_size": 20},
    "populations": {
        "w_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [6]},
            "asymmetry": {
                "kind": "w",
                "n_fix": {"layers.0.weight": 9, "layers.1.weight": 2},
                "kappa": 0.5,
            },
        },
        "sigma_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [6]},
            "asymmetry": {"kind": "sigma"},
        },
    },
    "hyperparameters": {
        "optimizer": {"choice": ["sgd", "adamw"]},
        "lr": 0.1,
        "batch_size": 8,
        "steps": 2,
    },
    "split": {"train": 0.5, "validation": 0, "test": 0.5},
    "count": 8,
    "checkpoints": 2,
}
RESNET = {
    "resnet": {
        "architecture": {"name": "resnet", "channels": [2, 2, 2]},
        "asymmetry": {"kind": "sigma"},
    }
}
"""So many columns that the indices of a shard have inner nodes."""


def base(folder: Path, more: dict[str, Any] | None = None) -> Path:
    """The zoo that is mutated, with more populations if asked for."""
    job = JOB | {"populations": {**JOB["populations"], **(more or {})}}
    return generate(Job.model_validate(job), folder, device="cpu", compile=False, quiet=True)


def read_everything(directory: Path) -> tuple[str, int]:
    """Open a zoo with all that reads it, and verify it.

    Returns:
        `read` or `refused`, and the number of faults.
    """
    outcome = "read"
    for read in (_populations, _trajectories):
        try:
            read(directory)
        except StoreError as error:
            outcome = "refused"
            if not str(error).isprintable():
                raise RuntimeError(f"not fit for a terminal: {str(error)!r}") from error
    faults = verify_zoo(directory, sample=0)
    if not all(str(fault).isprintable() for fault in faults):
        raise RuntimeError(f"not fit for a terminal: {faults!r}")
    return outcome, len(faults)


def _populations(directory: Path) -> None:
    for population in load(directory).values():
        repr(population)
        for split in population.splits:
            population.params(split)
            population.params(split, view="free")
            population.flat(split)
            population.table(split)
        repr(population.architecture)


def _trajectories(directory: Path) -> None:
    for population in load(directory).values():
        for split in population.splits:
            population.trajectory(split)


def watch(directory: Path) -> None:
    """End this process if it opens anything outside a folder for reading, or speaks to a network,
    from now on.
    """
    root = directory.resolve()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in (
            "socket.connect",
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "pickle.find_class",
        ):
            raise RuntimeError(f"outside: {event} {arguments!r:.200}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = Path(os.path.realpath(os.fsdecode(arguments[0])))
            if not path.is_relative_to(root):
                raise RuntimeError(f"outside: {path}")

    sys.addaudithook(hook)


PROVED: set[str] = set()
"""Hashes of sound files."""


def prove_in_forks(directory: Path, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """As `zoo.store.proof.prove`, without an interpreter to start for every case.

    Files that have the bytes of a file that was proved before are not proved again.
    """
    left = [path for path in paths if sha256(directory / path) not in PROVED]
    while left:
        answers = _answers(directory, left)
        for relative, reasons in zip(left, answers, strict=False):
            yield from ((relative, reason) for reason in reasons)
        left = left[len(answers) :]
        if left:
            yield left.pop(0), "crash"


def _answers(directory: Path, paths: list[str]) -> list[list[str]]:
    """What a fork with a limit on its time says of files, up to the first on which it dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        for relative in paths:
            os.write(writing, (json.dumps(faults_of(directory / relative)) + "\n").encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answers = [json.loads(line) for line in pipe]
    os.waitpid(child, 0)
    return answers


def run_case(seed: int, original: Path, scratch: Path) -> tuple[str, str, int, float, str]:
    """Mutate a zoo and open it.

    Returns:
        Kind of mutation, outcome, memory, seconds, and what is wrong about that (empty if nothing).
    """
    rng = random.Random(seed)
    directory = scratch / "case" / "zoo"
    shutil.rmtree(scratch / "case", ignore_errors=True)
    shutil.copytree(original, directory)
    name, told = mutate(rng, directory)

    def work() -> tuple[str, int]:
        data_gen.integrity.verify.prove = prove_in_forks
        watch(directory)
        return read_everything(directory)

    answer, memory, seconds = in_a_process(work, SECONDS, MEMORY)
    outcome, faults = answer if isinstance(answer, list) else (answer, 0)
    bad = ""
    if outcome not in ("read", "refused"):
        bad = outcome
    elif memory > MEMORY:
        bad = f"{memory} bytes of memory"
    elif not told and name not in ("card", "manifest", "manifest_text") and not faults:
        bad = "verify found nothing"
    return name, outcome, memory, seconds, bad


def fuzz(
    cases: int,
    first: int,
    scratch: Path,
    log: Callable[[str], object],
    zoo_to_mutate: Path | None = None,
) -> tuple[collections.Counter[str], list[str]]:
    """Run cases.

    Returns:
        Counts by mutation and outcome, and what went wrong.
    """
    original = zoo_to_mutate or base(scratch / "original", RESNET)
    outcome, faults = read_everything(
        original
    )  # this and the next line import everything that a case needs
    escape("\x1b")
    if (outcome, faults) != ("read", 0):
        raise RuntimeError(f"the zoo itself: {outcome}, {faults} faults")
    PROVED.update(sha256(path) for path in original.rglob("*.h5"))
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    slowest, largest = 0.0, 0
    for seed in range(first, first + cases):
        name, outcome, memory, seconds, bad = run_case(seed, original, scratch)
        counts[f"{name:<15}{outcome if not bad else 'WRONG'}"] += 1
        slowest, largest = max(slowest, seconds), max(largest, memory)
        if bad:
            wrong.append(f"seed {seed} ({name}): {bad}")
            log(wrong[-1])
        if (seed - first + 1) % 1000 == 0:
            log(f"{seed - first + 1} cases, {len(wrong)} wrong")
    log(
        f"{cases} cases, {len(wrong)} wrong; slowest {slowest:.2f} s, largest "
        f"{largest / 2**20:.0f} MB"
    )
    return counts, wrong


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoo", type=Path, help="The zoo to mutate; one is made if not given.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts, wrong = fuzz(
            options.cases,
            options.seed,
            Path(name),
            functools.partial(print, flush=True),
            options.zoo,
        )
    for line, count in sorted(counts.items()):
        print(f"{line:<30}{count:6}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
