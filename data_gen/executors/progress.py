"""One progress bar over all processes, and what became of the items."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NoReturn

from tqdm import tqdm

from data_gen.executors.executor import Item
from data_gen.executors.failures import Failure

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_noinv_fmt}{postfix}]"


class Progress(Generic[Item]):
    """A watcher that counts units on a bar, goes on after a failure, and remembers it.

    Args:
        bar: The bar; its total are the units of all items.
        size: Number of units of an item; items must be hashable.
        label: Name of an item in messages.

    Attributes:
        failures: Items that were given up, and why.
    """

    def __init__(
        self, bar: "tqdm[NoReturn]", size: Callable[[Item], int], label: Callable[[Item], str]
    ):
        self.failures: dict[Item, Failure] = {}
        self._bar = bar
        self._size = size
        self._label = label
        self._done = Counter[Item]()
        self._retries = 0

    def advance(self, item: Item, count: int) -> None:
        """Some units of an item have just been done."""
        self._set(item, min(self._done[item] + count, self._size(item)))

    def complete(self, item: Item) -> None:
        """An item is done."""
        self._set(item, self._size(item))

    def retry(self, item: Item, reason: str) -> None:
        """An item is going to be begun again."""
        self._retries += 1
        self._set(item, 0)
        self._tell(f"{self._label(item)}: {reason}; trying again")

    def fail(self, item: Item, failure: Failure) -> None:
        """An item is given up."""
        self.failures[item] = failure
        self._set(item, 0)
        self._tell(f"{self._label(item)}: {failure.reason}; going on with the others")

    def _set(self, item: Item, count: int) -> None:
        before = self._done[item]
        if count != before:
            self._bar.update(count - before)
            self._done[item] = count

    def _tell(self, line: str) -> None:
        if not self._bar.disable:
            self._bar.write(line, file=sys.stderr)
        counts = {"retried": self._retries, "failed": len(self.failures)}
        told = [f"{count} {name}" for name, count in counts.items() if count]
        self._bar.set_postfix_str(", ".join(told))


@contextmanager
def show_progress(
    items: Sequence[Item],
    waiting: Sequence[Item],
    size: Callable[[Item], int],
    label: Callable[[Item], str],
    unit: str,
    quiet: bool,
) -> Iterator[Progress[Item]]:
    """Show progress on standard error; the units of items that do not wait count as done.

    Args:
        items: All items.
        waiting: Those that are going to be completed.
        size: Number of units of an item.
        label: Name of an item in messages.
        unit: Name of the units.
        quiet: Whether to show nothing.

    Yields:
        The watcher.
    """
    total = sum(map(size, items))
    with tqdm(
        total=total,
        initial=total - sum(map(size, waiting)),
        unit=f" {unit}",
        bar_format=_BAR,
        disable=quiet,
        smoothing=0.1,
        mininterval=0.5,
    ) as bar:
        yield Progress(bar, size, label)


def keep_locks_to_threads() -> None:
    """Give tqdm a lock of threads; its default is a semaphore, which outlives an ended process."""
    tqdm.set_lock(threading.RLock())
