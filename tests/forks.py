"""Work in forks of this process, with limits of memory and time."""

import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_a_process(work: Callable[[], Any], limit_s: float, memory: int) -> tuple[Any, int, float]:
    """Run something in a fork with limits.

    Args:
        work: The work; what it returns goes through JSON.
        limit_s: Time on a processor; a work that takes longer hangs.
        memory: Bytes; twice as many may be reserved.

    Returns:
        What it returns, or else a text that says how it ended: an exception, `hang`, `crash`; bytes
        of memory that it took; seconds.
    """
    parent, child = socket.socketpair()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + 2 * memory, virtual + 2 * memory))
        try:
            result = work()
        except BaseException as error:  # every kind counts
            result = f"{type(error).__name__}: {error!s:.300}"
        used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        child.sendall(json.dumps([result, used]).encode())
        os._exit(0)
    child.close()
    answer = "hang"
    while (
        answer == "hang" and seconds_of(pid) < limit_s and time.monotonic() - start < 60 * limit_s
    ):
        if select.select([parent], [], [], 0.2)[0]:
            answer = parent.recv(65536).decode()
    seconds = time.monotonic() - start
    if answer == "hang":
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    parent.close()
    if answer == "hang" or not answer:
        return answer or f"crash: status {status}", 0, seconds
    result, used = json.loads(answer)
    return result, used, seconds


def seconds_of(pid: int) -> float:
    """Time on a processor: a busy machine does not make a case hang."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
