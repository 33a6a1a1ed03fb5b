"""Executors: a worker completes items here, in local processes or on Ray; a watcher is told.

    LocalProcesses(4).run(worker, items, watcher)

A worker is any object with the methods of `Worker`; it is sent to each process once, and leaves the
result of an item in a file. An item that fails does not keep the others from being completed. A
watcher that raises ends all processes at once, as Ctrl-C does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from data_gen.executors.failures import Failure, failure_of
from data_gen.executors.processes import threads_of_process

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


@runtime_checkable
class Worker(Protocol[Item_contra]):
    """What is done with an item. It can be pickled, and may keep things from item to item."""

    @property
    def needs_gpu(self) -> bool:
        """Whether each process needs a GPU."""
        ...

    def set_up(self, rank: int) -> None:
        """Prepare a process that was started for this worker, before its first item.

        Args:
            rank: Number of the process, from 0.
        """
        ...

    def complete(self, item: Item_contra, report: Callable[[int], object], /) -> None:
        """Do all that an item needs; its file is there completely or not at all.

        Args:
            item: The item.
            report: Called with the number of units of the item that have just been done.
        """
        ...


@runtime_checkable
class Watcher(Protocol[Item_contra]):
    """Is told what becomes of items, in the process that runs the executor."""

    def advance(self, item: Item_contra, count: int) -> None:
        """Some units of an item have just been done."""
        ...

    def complete(self, item: Item_contra) -> None:
        """An item is done."""
        ...

    def retry(self, item: Item_contra, reason: str) -> None:
        """The process of an item has died; the item is going to be begun again."""
        ...

    def fail(self, item: Item_contra, failure: Failure) -> None:
        """An item is given up."""
        ...


@runtime_checkable
class Executor(Protocol):
    """A way to run a worker on items."""

    @property
    def elsewhere(self) -> bool:
        """Whether workers may run on other machines, with other devices than this one."""
        ...

    def run(self, worker: Worker[Item], items: Sequence[Item], watcher: Watcher[Item]) -> None:
        """Complete items; none is begun after one that failed because the folder takes no files.

        Args:
            worker: What is done with each.
            items: The items.
            watcher: Is told what becomes of them.

        Raises:
            NoProcess: If no process can be started.
        """
        ...


@dataclass(frozen=True)
class InThisProcess:
    """Completes items one after the other in this process; the worker is not set up.

    Attributes:
        threads: Threads while it does; None for those that torch has.
    """

    threads: int | None = None
    elsewhere = False

    def run(self, worker: Worker[Item], items: Sequence[Item], watcher: Watcher[Item]) -> None:
        """Complete items.

        Args:
            worker: What is done with each.
            items: The items.
            watcher: Is told what becomes of them.
        """
        with threads_of_process(self.threads):
            for item in items:
                failure = attempt(worker, item, partial(watcher.advance, item))
                close(item, failure, watcher)
                if failure and failure.errno:
                    return


def attempt(worker: Worker[Item], item: Item, report: Callable[[int], object]) -> Failure | None:
    """Complete an item, if it can be.

    Args:
        worker: What is done with it.
        item: The item.
        report: Called with the number of units that have just been done.

    Returns:
        Why it could not be completed, or None.
    """
    try:
        worker.complete(item, report)
    except Exception as error:
        return failure_of(error)
    return None


def close(item: Item, failure: Failure | None, watcher: Watcher[Item]) -> None:
    """Tell a watcher how an item ended.

    Args:
        item: The item.
        failure: Why it failed, or None.
        watcher: Who is told.
    """
    if failure is None:
        watcher.complete(item)
    else:
        watcher.fail(item, failure)
