"""Proof that the HDF5 in files says what their maps say, by libhdf5 in a process that may die.

The child has limits on memory and time, and can open nothing but the file: where the file makes
libhdf5 crash, hang or ask for too much, that is a fault of the file, and a new child goes on.
"""

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.store.hdf5 import differences, head_of
from zoo.store.mapped import Identity, StoreError, open_mapped

_SECONDS = 60
_BYTES_PER_SECOND = 10**7
_MEMORY = 2**30
_MOST_REASONS = 10


def prove(directory: Path, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Compare HDF5 with the map in files whose map has been checked.

    Args:
        directory: The zoo.
        paths: Files, relative to it.

    Yields:
        File and difference.
    """
    child: subprocess.Popen[bytes] | None = None
    try:
        for relative in paths:
            path = (directory / relative).absolute()
            child = child or _start()
            reasons = _ask(child, path)
            if reasons is None:
                _stop(child)
                child = None
                reasons = ["HDF5 of the file crashes libhdf5, or takes too much memory or time"]
            yield from ((relative, reason) for reason in reasons)
    finally:
        if child is not None:
            _stop(child)


def _start() -> subprocess.Popen[bytes]:
    # No plugins: a file may not have libhdf5 load filters from anywhere.
    environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::"}
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "zoo.store.proof"]
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def _ask(child: subprocess.Popen[bytes], path: Path) -> list[str] | None:
    """Faults of a file; None if the child died or gave no answer."""
    if child.stdin is None or child.stdout is None:
        return None
    try:
        child.stdin.write(json.dumps(str(path)).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return None
    seconds = 10 * _seconds_for(path.stat().st_size)
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    answer = child.stdout.readline() if ready else b""
    return json.loads(answer) if answer.endswith(b"\n") else None


def _seconds_for(size: int) -> int:
    return _SECONDS + size // _BYTES_PER_SECOND


def faults_of(path: Path) -> list[str]:
    """Compare HDF5 with the map of one file, in this process, which may die of it.

    Args:
        path: The file.

    Returns:
        What is wrong; the first few.
    """
    try:
        mapped = open_mapped(path)
        codes = {name: mapped.view(name) for name in mapped.columns}
        if head_of(mapped.map, codes) != mapped.data[: mapped.map.start]:
            return ["the map is not written as the format wants it"]
        with path.open("rb", buffering=0) as stream:
            if Identity.of(stream.fileno()) != mapped.identity:
                return ["the file changed since it was checked"]
            # Descriptors are numbered from below, so nothing else can be opened meanwhile.
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (stream.fileno() + 1, hard))
            try:
                return [reason[:500] for reason in differences(mapped, stream)][:_MOST_REASONS]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except StoreError as error:
        return [str(error)]
    except Exception as error:  # whatever libhdf5 and h5py say to it
        return [f"HDF5 cannot be read: {type(error).__name__}: {error!s:.300}"]


def _limit(size: int) -> None:
    """Limit memory and time of this process for a file."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + size + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + _seconds_for(size)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _serve() -> None:
    for line in sys.stdin:
        path = Path(json.loads(line))
        _limit(path.stat().st_size)
        print(json.dumps(faults_of(path)), flush=True)


if __name__ == "__main__":
    _serve()
