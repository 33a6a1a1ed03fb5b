"""Items completed in processes of this machine."""

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic

from data_gen.executors.executor import Item, Watcher, Worker, attempt
from data_gen.executors.processes import default_workers, end_with_parent, prepare_process
from data_gen.executors.progress import keep_locks_to_threads
from data_gen.executors.scheduler import Advanced, Died, Ended, Event, Ready, run_in_pool

_PRELOADED = (__name__, "torch._dynamo")  # torch imports the latter when it first vectorizes
_PATIENCE = 10  # seconds that a process has to end before it is killed


@dataclass(frozen=True)
class LocalProcesses:
    """Completes items in processes of this machine, on its GPUs in turn or on a CPU.

    Ctrl-C ends the processes at once, as does the end of this one; what was complete stays.

    Attributes:
        workers: Number of processes; None for one for each core, or each GPU if the worker needs
            one.
        threads: Threads of each on a CPU; another number may round differently.
    """

    workers: int | None = None
    threads: int = 1
    elsewhere = False

    def run(self, worker: Worker[Item], items: Sequence[Item], watcher: Watcher[Item]) -> None:
        """Complete items.

        Args:
            worker: What is done with each.
            items: The items; each must be picklable.
            watcher: Is told what becomes of them.
        """
        size = self.workers or default_workers(worker.needs_gpu, self.threads)
        pool = _Processes(worker, self.threads)
        try:
            run_in_pool(pool, size, items, watcher)
        finally:
            pool.stop()


class _Processes(Generic[Item]):
    """Processes forked from a server with all imports; a pipe to each, so no lock is left held."""

    def __init__(self, worker: Worker[Item], threads: int):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*_PRELOADED, type(worker).__module__])
        # or the server starts it, and that would let Ctrl-C through again
        resource_tracker.ensure_running()
        # inherited: the parent decides what Ctrl-C means
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._worker = worker
        self._threads = threads
        self._members: dict[int, tuple[BaseProcess, Connection]] = {}
        self._not_started: list[Event] = []

    def start(self, rank: int) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._worker, self._threads, rank)
        process = self._context.Process(target=_serve, args=arguments)
        try:
            process.start()
        except (EOFError, OSError) as error:  # the server was killed; the next start makes another
            ours.close()
            reason = f"could not be started ({type(error).__name__}: {error})"
            self._not_started.append(Died(rank, reason))
        else:
            self._members[rank] = process, ours
        theirs.close()

    def submit(self, rank: int, item: Item) -> None:
        with suppress(OSError):  # it has just died, which `events` is going to see
            self._members[rank][1].send(item)

    def events(self) -> list[Event]:
        events, self._not_started = self._not_started, []
        connections = [connection for _, connection in self._members.values()]
        readable = wait(connections, timeout=0 if events else None)
        for rank, (_, connection) in list(self._members.items()):
            if connection in readable:
                events.append(self._receive(rank, connection))
        return events

    def _receive(self, rank: int, connection: Connection) -> Event:
        try:
            return connection.recv()
        except (EOFError, OSError):
            return Died(rank, self._bury(rank))

    def _bury(self, rank: int) -> str:
        """Forget a process that has ended, and say how it did."""
        process, connection = self._members.pop(rank)
        connection.close()
        process.join()
        code = process.exitcode or 0
        if code < 0:
            return f"was ended by signal {-code} (9: killed, maybe for want of memory)"
        return f"ended with status {code}"

    def stop(self) -> None:
        """End all processes at once."""
        for process, connection in self._members.values():
            connection.close()
            process.terminate()
        for process, _ in self._members.values():
            process.join(_PATIENCE)
            process.kill()
            process.join()


def _serve(connection: Connection, worker: Worker[Any], threads: int, rank: int) -> None:
    """Complete items as they come; the end of the parent is the end of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    keep_locks_to_threads()
    prepare_process(threads)
    worker.set_up(rank)
    with suppress(EOFError, OSError):  # the parent needs no more, or is no more
        connection.send(Ready(rank))
        while True:
            item = connection.recv()
            failure = attempt(worker, item, lambda count: connection.send(Advanced(rank, count)))
            connection.send(Ended(rank, failure))
