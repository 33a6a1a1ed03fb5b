"""Shards in local processes."""

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from data_gen.executors.processes import end_with_parent
from data_gen.executors.progress import Progress, keep_locks_to_threads
from data_gen.executors.scheduler import (
    Advanced,
    Died,
    Ended,
    Ready,
    attempt,
    prepare_process,
    run_shards,
)
from data_gen.shard import Shard, Worker

_PRELOADED = [__name__, "torch._dynamo"]  # torch imports the latter when it first vectorizes
_PATIENCE = 10  # seconds that a process has to end before it is killed


@dataclass(frozen=True)
class LocalProcesses:
    """Makes shards in processes of this machine, on its GPUs in turn or on a CPU.

    Ctrl-C ends the processes at once, as does the end of this one; shards that were complete stay.

    Attributes:
        workers: Number of processes.
        threads: Threads of each on a CPU; another number may round differently.
    """

    workers: int
    threads: int = 1
    elsewhere = False

    def run(self, worker: Worker, shards: Sequence[Shard], progress: Progress) -> None:
        """Make shards.

        Args:
            worker: How.
            shards: Which.
            progress: Is told what becomes of them.
        """
        pool = _Processes(worker, self.threads)
        try:
            run_shards(pool, self.workers, shards, progress)
        finally:
            pool.stop()


class _Processes:
    """Processes forked from a server that has imported all that a worker needs; a pipe to each, so no lock can be left held."""

    def __init__(self, worker: Worker, threads: int):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        # or the server starts it, and that would let Ctrl-C through again
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGINT}
        )  # inherited: the parent decides what Ctrl-C means
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._worker, self._threads = worker, threads
        self._members: dict[int, tuple[BaseProcess, Connection]] = {}
        self._not_started: list[Died] = []

    def start(self, rank: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._worker, self._threads, rank)
        )
        try:
            process.start()
        except (EOFError, OSError) as error:  # the server was killed; the next start makes another
            ours.close()
            self._not_started.append(
                Died(rank, f"could not be started ({type(error).__name__}: {error})")
            )
        else:
            self._members[rank] = process, ours
        theirs.close()

    def submit(self, rank: int, shard: Shard) -> None:
        with suppress(OSError):  # it has just died, which `events` is going to see
            self._members[rank][1].send(shard)

    def events(self) -> list[Ready | Advanced | Ended | Died]:
        events: list[Ready | Advanced | Ended | Died] = [*self._not_started]
        self._not_started = []
        readable = wait(
            [connection for _, connection in self._members.values()], 0 if events else None
        )
        for rank, (process, connection) in list(self._members.items()):
            if connection in readable:
                try:
                    events.append(connection.recv())
                except (EOFError, OSError):
                    events.append(Died(rank, self._bury(rank, process, connection)))
        return events

    def _bury(self, rank: int, process: BaseProcess, connection: Connection) -> str:
        del self._members[rank]
        connection.close()
        process.join()
        code = process.exitcode or 0
        return (
            f"was ended by signal {-code} (9: killed, maybe for want of memory)"
            if code < 0
            else f"ended with status {code}"
        )

    def stop(self) -> None:
        """End all processes at once."""
        for process, connection in self._members.values():
            connection.close()
            process.terminate()
        for process, _ in self._members.values():
            process.join(_PATIENCE)
            process.kill()
            process.join()


def _serve(connection: Connection, worker: Worker, threads: int, rank: int) -> None:
    """Make shards as they come; the end of the parent is the end of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    keep_locks_to_threads()
    prepare_process(threads)
    if worker.device.type == "cuda":
        worker = replace(worker, device=torch.device("cuda", rank % torch.cuda.device_count()))
    with suppress(EOFError, OSError):  # the parent needs no more, or is no more
        connection.send(Ready(rank))
        while True:
            shard = connection.recv()
            connection.send(
                Ended(
                    rank,
                    attempt(worker, shard, lambda count: connection.send(Advanced(rank, count))),
                )
            )
