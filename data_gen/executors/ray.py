"""Items completed on a Ray cluster. Only this file imports Ray, and only when it is asked for."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic

import torch

from data_gen.executors.executor import Item, Watcher, Worker, attempt
from data_gen.executors.failures import Failure
from data_gen.executors.processes import default_workers, prepare_process
from data_gen.executors.scheduler import Advanced, Died, Ended, Event, Ready, run_in_pool

_REPORT_EVERY = 0.5  # seconds between two counts of the units that an actor has done
_PATIENCE = 10  # seconds that a cluster has to answer
_OBJECT_STORE = 100 * 2**20  # bytes; results go to files, not through Ray
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anyone
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # the progress bar tells what happened to a worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that a later version will do so
}
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


@dataclass(frozen=True)
class RayActors:
    """Completes items in actors of a Ray cluster, with one GPU each if the worker needs GPUs.

    Files that the worker writes must be the same on all machines of the cluster.

    Attributes:
        workers: Number of actors; None for as many as the cluster has room for.
        threads: Threads of each on a CPU; another number may round differently.
        address: Of the cluster, `auto` for one on this machine; None starts one here and ends it at
            the end.
    """

    workers: int | None = None
    threads: int = 1
    address: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether workers may run on other machines, with other devices than this one."""
        return self.address is not None

    def run(self, worker: Worker[Item], items: Sequence[Item], watcher: Watcher[Item]) -> None:
        """Complete items.

        Args:
            worker: What is done with each.
            items: The items.
            watcher: Is told what becomes of them.

        Raises:
            ValueError: If there is no such cluster, or it has no GPU though the worker needs GPUs.
        """
        ray = import_ray()
        try:
            if self.address is None:
                _start(ray, (self.workers or default_workers(False, self.threads)) * self.threads)
            else:
                _connect(ray, self.address)
            size = self.workers or _room(ray, worker.needs_gpu, self.threads)
            run_in_pool(_Actors(ray, worker, self.threads), size, items, watcher)
        finally:
            ray.shutdown()


def import_ray() -> ModuleType:
    """Import Ray so that it keeps quiet.

    Returns:
        The module.

    Raises:
        ValueError: If it is not installed.
    """
    os.environ.update(_ENVIRONMENT)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError(
            "the executor ray needs Ray, which is not installed: pip install 'symzoo[ray]'"
        ) from error
    return ray


def _start(ray: ModuleType, cores: int) -> None:
    """Start a cluster on this machine."""
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE,
        **_QUIET,
    )


def _connect(ray: ModuleType, address: str) -> None:
    host, separator, port = address.rpartition(":")
    try:
        if separator and port.isdecimal() and "/" not in host:  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address=address, **_QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--address {address}: no Ray cluster can be reached there ({_lines(error)[0]})"
        ) from error


def _lines(error: Exception) -> list[str]:
    """What an error says; at least its type."""
    return str(error).strip().splitlines() or [type(error).__name__]


def _room(ray: ModuleType, needs_gpu: bool, threads: int) -> int:
    """How many actors a cluster has room for."""
    kind, each = ("GPU", 1) if needs_gpu else ("CPU", threads)
    room = int(ray.cluster_resources().get(kind, 0)) // each
    if not room:
        raise ValueError(
            f"the Ray cluster has no {kind} for a worker; "
            "add a node or choose another --device or --threads"
        )
    return room


class _Actors(Generic[Item]):
    """Actors, and the calls that they have not answered yet."""

    def __init__(self, ray: ModuleType, worker: Worker[Item], threads: int):
        gpus = 1 if worker.needs_gpu else 0
        options = {"num_cpus": threads, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 2}
        self._ray = ray
        self._class = ray.remote(**options)(_Member)
        self._worker = ray.put(worker)
        self._threads = threads
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str]] = {}  # rank and method

    def start(self, rank: int) -> None:
        self._actors[rank] = self._class.remote(self._worker, self._threads, rank)
        self._call(rank, "ready")

    def submit(self, rank: int, item: Item) -> None:
        self._call(rank, "complete", item)
        if (rank, "done") not in self._calls.values():
            self._call(rank, "done")

    def events(self) -> list[Event]:
        answered, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=10 * _REPORT_EVERY)
        # a death of an actor takes all its calls away
        return [self._event(call) for call in answered if call in self._calls]

    def _call(self, rank: int, method: str, *arguments: Item) -> None:
        call = getattr(self._actors[rank], method).remote(*arguments)
        self._calls[call] = rank, method

    def _event(self, call: Any) -> Event:
        """What the answer to a call says."""
        rank, method = self._calls.pop(call)
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._calls = {other: of for other, of in self._calls.items() if of[0] != rank}
            return Died(rank, f"was lost: {self._reason(error)}")
        if method == "ready":
            return Ready(rank)
        if method == "complete":
            return Ended(rank, answer)
        if (rank, "complete") in self._calls.values():
            self._call(rank, "done")
        return Advanced(rank, answer)

    def _reason(self, error: Exception) -> str:
        is_trace = isinstance(error, self._ray.exceptions.RayTaskError)  # ends with the message
        return _lines(error)[-1 if is_trace else 0]


class _Member:
    """What runs on the cluster; one thread completes items, the other answers how far it is."""

    def __init__(self, worker: Worker[Any], threads: int, rank: int):
        prepare_process(threads)
        worker.set_up(rank)
        self._worker = worker
        self._threads = threads
        self._done = 0
        self._told = 0

    def ready(self) -> None:
        """Answers as soon as there is a process."""

    def complete(self, item: Any) -> Failure | None:
        torch.set_num_threads(self._threads)  # each thread has a setting of its own
        return attempt(self._worker, item, self._count)

    def done(self) -> int:
        """Units done since the last call; waits a moment."""
        time.sleep(_REPORT_EVERY)
        new, self._told = self._done - self._told, self._done
        return new

    def _count(self, count: int) -> None:
        self._done += count
