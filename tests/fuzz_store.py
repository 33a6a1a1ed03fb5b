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
import re
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import data_gen.integrity.verify
from data_gen.config import Job
from data_gen.generation import generate
from data_gen.integrity.verify import verify_zoo
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
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    4096,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
VALUES: list[Any] = [
    *(
        -1,
        0,
        1,
        2.5,
        2**31,
        2**63,
        10**30,
        1e308,
        True,
        None,
        "",
        "a",
        "../../etc/passwd",
        "/etc/passwd",
        "https://example.org",
    ),
    *(
        "\x1b[2J",
        "\ud83d\ude00",
        "a" * 10**5,
        "{0.__class__}",
        "!!python/object/apply:os.system ['true']",
        [],
        {},
        [[]],
        [0] * 1000,
    ),
    *(
        {"name": "mlp", "hidden": [10**9]},
        {"name": "resnet", "width": 1e9},
        {"name": "transformer", "depth": 10**9},
    ),
    {"name": "gin"},
]
SIGNATURES = re.compile(rb"\x89SYMZOO|\x89HDF|OHDR|OCHK|FRHP|FHIB|FHDB|BTHD|BTLF|BTIN|GCOL")


def base(folder: Path, more: dict[str, Any] | None = None) -> Path:
    """The zoo that is mutated, with more populations if asked for."""
    job = JOB | {"populations": {**JOB["populations"], **(more or {})}}
    return generate(Job.model_validate(job), folder, device="cpu", compile=False, quiet=True)


# mutations of bytes


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 1, 4, 32])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def metadata(rng: random.Random, data: bytearray) -> int:
    """A place in the structure of the file."""
    starts = [match.start() for match in SIGNATURES.finditer(data)] or [0]
    return min(rng.choice(starts) + rng.randrange(rng.choice([8, 48, 300])), len(data) - 8)


def flip_metadata(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[metadata(rng, data)] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray) -> None:
    """A size, address, count or type becomes another number, often an address of the same file."""
    for _ in range(rng.choice([1, 1, 2])):
        starts = [match.start() for match in SIGNATURES.finditer(data)]
        number = rng.choice([*NUMBERS, *starts, len(data), rng.randrange(2**16)])
        length = rng.choice([1, 2, 4, 8])
        at = metadata(rng, data)
        data[at : at + length] = (number % 2 ** (8 * length)).to_bytes(length, "little")


def truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def extend(rng: random.Random, data: bytearray) -> None:
    data += rng.randbytes(rng.choice([1, 8, 4096]))


def splice(rng: random.Random, data: bytearray) -> None:
    length = rng.choice([4, 16, 64, 512])
    start, end = rng.randrange(len(data)), metadata(rng, data)
    data[end : end + length] = data[start : start + length]


def duplicate(rng: random.Random, data: bytearray) -> None:
    starts = [match.start() for match in SIGNATURES.finditer(data)] or [0]
    first, second = rng.choice(starts), rng.choice(starts)
    length = rng.choice([16, 64, 256])
    data[first : first + length] = data[second : second + length]


def delete(rng: random.Random, data: bytearray) -> None:
    start = metadata(rng, data)
    del data[start : start + rng.choice([1, 4, 64])]


def blank(rng: random.Random, data: bytearray) -> None:
    start, length = metadata(rng, data), rng.choice([1, 8, 64, 512])
    data[start : start + length] = bytes([rng.choice([0, 255])]) * len(data[start : start + length])


def map_fields(rng: random.Random, data: bytearray) -> None:
    """Values, keys and parts of the map change, as a stranger can do it."""
    length = int.from_bytes(data[8:16], "little")
    text = bytearray(data[16 : 16 + length])
    try:
        manifest(rng, text)
    except ValueError:  # it was changed before
        return flip(rng, data)
    if len(text) <= length:
        data[16 : 16 + length] = text.ljust(length)
    return None


def texts(rng: random.Random, data: bytearray) -> None:
    """Entries of text point elsewhere, or declare more."""
    heaps = [match.start() for match in re.finditer(b"GCOL", data)] or [0]
    for _ in range(rng.choice([1, 4])):
        at = rng.choice(heaps) + rng.randrange(256)
        struct.pack_into("<Q", data, min(at, len(data) - 8), rng.choice(NUMBERS))


RAW = [flip, truncate, extend]
STRUCTURED = [
    flip_metadata,
    overwrite,
    overwrite,
    overwrite,
    splice,
    duplicate,
    delete,
    blank,
    map_fields,
    map_fields,
    map_fields,
    texts,
]


# mutations of the manifest, the card and the folder


def places(value: Any, matches: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """All containers of a JSON value with their keys."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        matches.append((value, key))
        places(inner, matches)
    return matches


def manifest(rng: random.Random, data: bytearray) -> None:
    """Values, keys and parts of the manifest change."""
    tree = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        container, key = rng.choice(places(tree, []))
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[rng.choice([str(value)[:50] for value in VALUES])] = container.pop(key)
        elif kind == 2:
            other, place = rng.choice(places(tree, []))
            container[key] = json.loads(json.dumps(other[place]))
        else:
            container[key] = json.loads(json.dumps(rng.choice([*VALUES, rng.choice(NUMBERS)])))
    data[:] = json.dumps(tree).encode()


def manifest_text(rng: random.Random, data: bytearray) -> None:
    """Its text is deep, long, or not JSON."""
    kind = rng.randrange(5)
    if kind == 0:
        data[:] = b"[" * 10**6
    elif kind == 1:
        data[:] = b'{"config": ' * 10**5 + b"1" + b"}" * 10**5
    elif kind == 2:
        at = rng.choice([m.start() for m in re.finditer(rb"\d", data)])
        data[at:at] = b"9" * rng.choice([20, 400, 10**6])
    elif kind == 3:
        data[:] = b"[" + b"{}," * 10**6 + b"0]"
    else:
        flip(rng, data)


def card(rng: random.Random, data: bytearray) -> None:
    rng.choice([flip, truncate, splice, delete])(rng, data)


def folder(rng: random.Random, path: Path) -> None:
    """The file becomes a link, a pipe, a folder, nothing, or very long."""
    kind = rng.randrange(6)
    size = path.stat().st_size
    if kind == 0:
        with path.open("r+b") as file:
            file.truncate(2**40)  # has holes: no byte of it is on disk
        return
    path.unlink()
    if kind == 1:
        path.symlink_to("/etc/passwd")
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path)
    else:
        outside = path.parents[2] / "outside.h5"
        outside.write_bytes(b"\0" * size)
        path.symlink_to(outside)


def mutate(rng: random.Random, directory: Path) -> tuple[str, bool]:
    """Change a zoo.

    Returns:
        What was done; whether the manifest knows of the change.
    """
    group = rng.choices(
        ["raw", "structured", "manifest", "text", "card", "folder"], [15, 60, 15, 3, 2, 5]
    )[0]
    if group in ("manifest", "text", "card"):
        path = directory / ("README.md" if group == "card" else "zoo.json")
        change: Callable[..., None] = {"manifest": manifest, "text": manifest_text, "card": card}[
            group
        ]
        data = bytearray(path.read_bytes())
        change(rng, data)
        path.write_bytes(data)
        return change.__name__, False
    path = rng.choice(sorted(directory.glob("*/*.h5")))
    if group == "folder":
        folder(rng, path)
        return "folder", False
    data = bytearray(path.read_bytes())
    before = bytes(data)
    changes = [
        rng.choice(RAW if group == "raw" else STRUCTURED) for _ in range(rng.choice([1, 1, 1, 3]))
    ]
    for change in changes:
        if len(data) > 512:
            change(rng, data)
    path.write_bytes(data)
    told = rng.random() < 0.6 and len(data) > 0
    if told or bytes(data) == before:
        tell(directory, path)
    return changes[0].__name__, told or bytes(data) == before


def tell(directory: Path, path: Path) -> None:
    """Write length and hash of a file into the manifest, as a stranger would."""
    tree = json.loads((directory / "zoo.json").read_text())
    name = str(path.relative_to(directory))
    for population, entry in tree["populations"].items():
        files = (
            entry["shards"]
            | entry["trajectory"]
            | {f"constants/{population}.h5": entry["constants"]}
        )
        if files.get(name):
            files[name].update(bytes=path.stat().st_size, sha256=sha256(path))
    (directory / "zoo.json").write_text(json.dumps(tree))


# opening


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


def in_a_process(work: Callable[[], tuple[str, int]]) -> tuple[str, int, int, float]:
    """Run something in a fork with limits.

    Returns:
        Outcome, faults, bytes of memory that it took, seconds.
    """
    parent, child = socket.socketpair()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + 2 * MEMORY, virtual + 2 * MEMORY))
        try:
            outcome, faults = work()
        except BaseException as error:  # every kind counts
            outcome, faults = f"{type(error).__name__}: {error!s:.300}", 0
        used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        child.sendall(json.dumps([outcome, faults, used]).encode())
        os._exit(0)
    child.close()
    answer = "hang"
    while (
        answer == "hang" and seconds_of(pid) < SECONDS and time.monotonic() - start < 60 * SECONDS
    ):
        if select.select([parent], [], [], 0.2)[0]:
            answer = parent.recv(65536).decode()
    seconds = time.monotonic() - start
    if answer == "hang":
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    parent.close()
    if answer == "hang" or not answer:
        return answer or f"crash: status {status}", 0, 0, seconds
    outcome, faults, used = json.loads(answer)
    return outcome, faults, used, seconds


def seconds_of(pid: int) -> float:
    """Time on a processor: a busy machine does not make a case hang."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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

    outcome, faults, memory, seconds = in_a_process(work)
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
