"""Where shards are made: the interface, this process, and how shards are handed out to other processes."""

import ctypes
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from data_gen.executors.failures import Failure, MissingShards, failure_of
from data_gen.executors.processes import num_cores
from data_gen.executors.progress import Progress
from data_gen.shard import Shard, Worker

MAX_RETRIES = 2  # of a shard whose process died


@runtime_checkable
class Executor(Protocol):
    """A way to make shards."""

    @property
    def elsewhere(self) -> bool:
        """Whether networks may train on other machines, with other devices than this one."""
        ...

    def run(self, worker: Worker, shards: Sequence[Shard], progress: Progress) -> None:
        """Make shards; one that fails is reported and does not keep the others from being made.

        Args:
            worker: How.
            shards: Which.
            progress: Is told what becomes of them.
        """
        ...


@dataclass(frozen=True)
class InThisProcess:
    """Makes shards one after the other in this process, with the threads that torch has."""

    elsewhere = False

    def run(self, worker: Worker, shards: Sequence[Shard], progress: Progress) -> None:
        """Make shards.

        Args:
            worker: How.
            shards: Which.
            progress: Is told what becomes of them.
        """
        for shard in shards:
            failure = attempt(
                worker, shard, lambda count, shard=shard: progress.advance(shard, count)
            )
            if failure is None:
                progress.complete(shard)
            else:
                progress.fail(shard, failure)
            if progress.blocked:
                return


def attempt(worker: Worker, shard: Shard, report: Callable[[int], object]) -> Failure | None:
    """Make a shard.

    Args:
        worker: How.
        shard: Which.
        report: Called with the number of networks that have just been trained.

    Returns:
        Why it could not be made, or None.
    """
    try:
        worker.write(shard, report)
    except Exception as error:
        return failure_of(error)
    return None


@dataclass(frozen=True)
class Ready:
    """A process can take its first shard."""

    rank: int


@dataclass(frozen=True)
class Advanced:
    """A process has trained some networks of its shard."""

    rank: int
    count: int


@dataclass(frozen=True)
class Ended:
    """A process is done with its shard, well or with a failure, and can take another."""

    rank: int
    failure: Failure | None


@dataclass(frozen=True)
class Died:
    """A process is no more."""

    rank: int
    reason: str


@runtime_checkable
class WorkerPool(Protocol):
    """Processes that make one shard at a time each, known by their rank."""

    def start(self, rank: int) -> None:
        """Start the process of a rank."""
        ...

    def submit(self, rank: int, shard: Shard) -> None:
        """Give a shard to a process that waits for one."""
        ...

    def events(self) -> list[Ready | Advanced | Ended | Died]:
        """What has happened since the last call; waits for something to happen, for a while."""
        ...


def run_shards(pool: WorkerPool, size: int, shards: Sequence[Shard], progress: Progress) -> None:
    """Have a pool make shards; a shard whose process died is made again in another, a few times.

    Args:
        pool: The processes.
        size: Number of processes, at most.
        shards: Which.
        progress: Is told what becomes of them.

    Raises:
        MissingShards: If no process can be started.
    """
    waiting, at_work, idle = deque(shards), dict[int, Shard](), list[int]()
    alive = set(range(min(size, len(shards))))
    deaths: Counter[Shard | None] = Counter()  # None: without a shard
    for rank in alive:
        pool.start(rank)
    while waiting or at_work:
        for event in pool.events():
            match event:
                case Ready(rank):
                    deaths[None] = 0
                    idle.append(rank)
                case Advanced(rank, count):
                    if rank in at_work:
                        progress.advance(at_work[rank], count)
                case Ended(rank, failure):
                    idle.append(rank)
                    _close(at_work.pop(rank), failure, progress)
                case Died(rank, reason):
                    alive.discard(rank)
                    idle = [other for other in idle if other != rank]
                    shard = at_work.pop(rank, None)
                    deaths[shard] += 1
                    if shard and _is_worth_a_retry(shard, deaths[shard], reason, progress):
                        waiting.append(shard)
                    if waiting and deaths[None] <= MAX_RETRIES:
                        alive.add(rank)
                        pool.start(rank)
                    elif waiting and not alive:
                        raise MissingShards(f"no worker process can be started: {reason}{_GUARD}")
        if progress.blocked:
            waiting.clear()
        while waiting and idle:
            at_work[rank := idle.pop(0)] = waiting.popleft()
            pool.submit(rank, at_work[rank])


_GUARD = " (in a script of your own: is the call under `if __name__ == '__main__':`?)"


def _close(shard: Shard, failure: Failure | None, progress: Progress) -> None:
    if failure is None:
        progress.complete(shard)
    else:
        progress.fail(shard, failure)


def _is_worth_a_retry(shard: Shard, deaths: int, reason: str, progress: Progress) -> bool:
    if deaths <= MAX_RETRIES:
        progress.retry(shard, reason)
        return True
    progress.fail(shard, Failure(f"its process died {deaths} times; the last one {reason}"))
    return False


def prepare_process(threads: int) -> None:
    """Set up a process that trains networks; all executors do it alike, since bytes depend on the number of threads.

    Args:
        threads: Threads of torch.
    """
    keep_memory()
    torch.set_num_threads(threads)


def keep_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the system after every step.

    Returning it makes each step fault its pages in again, which took half of the time of an
    uncompiled step.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in (
            (-1, 1 << 30),
            (-3, 1 << 30),
            (-2, 1 << 26),
        ):  # TRIM_THRESHOLD, MMAP_THRESHOLD, TOP_PAD
            libc.mallopt(parameter, value)


def default_workers(device: torch.device, threads: int = 1) -> int:
    """One process for each GPU, or as many as keep busy the processors that this process may use.

    Args:
        device: Where networks train.
        threads: Threads of each process.

    Returns:
        Number of processes, at least 1.
    """
    if device.type == "cuda":
        return torch.cuda.device_count()
    return max(1, num_cores() // threads)
