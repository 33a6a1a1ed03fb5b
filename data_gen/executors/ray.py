"""Shards on a Ray cluster. Nothing but this file imports Ray, and only when it is asked for."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from data_gen.executors.failures import Failure
from data_gen.executors.progress import Progress
from data_gen.executors.scheduler import (
    Advanced,
    Died,
    Ended,
    Ready,
    attempt,
    default_workers,
    prepare_process,
    run_shards,
)
from data_gen.shard import Shard, Worker

_REPORT_EVERY = 0.5  # seconds between two counts of the networks that an actor has trained
_PATIENCE = 10  # seconds that a cluster has to answer
_OBJECT_STORE = 100 * 2**20  # bytes; shards go to files, not through Ray
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anyone
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # the progress bar tells what happened to a worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that a later version will do so
}


@dataclass(frozen=True)
class RayActors:
    """Makes shards in actors of a Ray cluster, with one GPU each if networks train on GPUs.

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
        """Whether networks may train on other machines, with other devices than this one."""
        return self.address is not None

    def run(self, worker: Worker, shards: Sequence[Shard], progress: Progress) -> None:
        """Make shards.

        Args:
            worker: How; its folder must be the same on all machines of the cluster.
            shards: Which.
            progress: Is told what becomes of them.

        Raises:
            ValueError: If there is no such cluster, or it has no GPU though networks train on GPUs.
        """
        ray = import_ray()
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address is None:
                cores = (
                    self.workers or default_workers(torch.device("cpu"), self.threads)
                ) * self.threads
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE,
                    **quiet,
                )
            else:
                _connect(ray, self.address, quiet)
            size = self.workers or _room(ray, worker.device, self.threads)
            run_shards(_Actors(ray, worker, self.threads), size, shards, progress)
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


def _connect(ray: ModuleType, address: str, quiet: dict[str, Any]) -> None:
    host, separator, port = address.rpartition(":")
    try:
        if separator and port.isdecimal() and "/" not in host:  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--address {address}: no Ray cluster can be reached there ({reason})"
        ) from error


def _room(ray: ModuleType, device: torch.device, threads: int) -> int:
    """How many actors a cluster has room for."""
    kind, each = ("GPU", 1) if device.type == "cuda" else ("CPU", threads)
    room = int(ray.cluster_resources().get(kind, 0)) // each
    if not room:
        raise ValueError(
            f"the Ray cluster has no {kind} for a worker; add a node or choose another --device or --threads"
        )
    return room


class _Actors:
    """Actors, and the calls that they have not answered yet."""

    def __init__(self, ray: ModuleType, worker: Worker, threads: int):
        gpus = 1 if worker.device.type == "cuda" else 0
        options = {"num_cpus": threads, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 2}
        self._ray, self._class = ray, ray.remote(**options)(_Member)
        self._arguments = (ray.put(replace(worker, out=worker.out.absolute())), threads)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str]] = {}

    def start(self, rank: int) -> None:
        self._actors[rank] = self._class.remote(*self._arguments)
        self._call(rank, "ready")

    def submit(self, rank: int, shard: Shard) -> None:
        self._call(rank, "write", shard)
        if (rank, "trained") not in self._calls.values():
            self._call(rank, "trained")

    def events(self) -> list[Ready | Advanced | Ended | Died]:
        answered, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=10 * _REPORT_EVERY)
        return [event for call in answered for event in self._answer(call)]

    def _call(self, rank: int, method: str, *arguments: Shard) -> None:
        self._calls[getattr(self._actors[rank], method).remote(*arguments)] = rank, method

    def _answer(self, call: Any) -> list[Ready | Advanced | Ended | Died]:
        if call not in self._calls:
            return []
        rank, method = self._calls.pop(call)
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._calls = {
                other: (of, name) for other, (of, name) in self._calls.items() if of != rank
            }
            lines = str(error).strip().splitlines() or [type(error).__name__]
            told_last = isinstance(
                error, self._ray.exceptions.RayTaskError
            )  # a trace, which ends with the message
            return [Died(rank, f"was lost: {lines[-1 if told_last else 0]}")]
        if method == "ready":
            return [Ready(rank)]
        if method == "write":
            return [Ended(rank, result)]
        if (rank, "write") in self._calls.values():
            self._call(rank, "trained")
        return [Advanced(rank, result)]


class _Member:
    """What runs on the cluster; one thread trains, the other answers how far it is."""

    def __init__(self, worker: Worker, threads: int):
        prepare_process(threads)
        self._worker, self._threads = worker, threads
        self._trained = self._told = 0

    def ready(self) -> None:
        """Answers as soon as there is a process."""

    def write(self, shard: Shard) -> Failure | None:
        torch.set_num_threads(self._threads)
        return attempt(self._worker, shard, self._count)

    def trained(self) -> int:
        """Networks trained since the last call; waits a moment."""
        time.sleep(_REPORT_EVERY)
        new, self._told = self._trained - self._told, self._trained
        return new

    def _count(self, count: int) -> None:
        self._trained += count
