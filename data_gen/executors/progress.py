"""One progress bar over all workers, and what became of the shards."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from data_gen.executors.failures import Failure
from data_gen.shard import Shard


class Progress:
    """Counts networks on a bar, and remembers shards that failed.

    Args:
        bar: The bar; its total are all networks of the job.

    Attributes:
        failures: Shards that could not be made, and why.
    """

    def __init__(self, bar: "tqdm[NoReturn]"):
        self.failures: dict[Shard, Failure] = {}
        self._bar = bar
        self._finished: dict[Shard, int] = {}
        self._retries = 0

    @property
    def blocked(self) -> bool:
        """Whether the folder takes no more files, so that no other shard needs to be tried."""
        return any(failure.errno for failure in self.failures.values())

    def advance(self, shard: Shard, count: int) -> None:
        """Networks of a shard have just been trained.

        Args:
            shard: The shard.
            count: How many networks more.
        """
        before = self._finished.get(shard, 0)
        self._set(shard, min(before + count, shard.stop - shard.start))

    def complete(self, shard: Shard) -> None:
        """A shard is on disk.

        Args:
            shard: The shard.
        """
        self._set(shard, shard.stop - shard.start)

    def retry(self, shard: Shard, reason: str) -> None:
        """A shard is going to be made again from its start.

        Args:
            shard: The shard.
            reason: Why.
        """
        self._retries += 1
        self._set(shard, 0)
        self._tell(f"{shard.path()}: {reason}; trying again")

    def fail(self, shard: Shard, failure: Failure) -> None:
        """A shard is given up.

        Args:
            shard: The shard.
            failure: Why.
        """
        self.failures[shard] = failure
        self._set(shard, 0)
        self._tell(f"{shard.path()}: {failure.reason}; going on with the others")

    def _set(self, shard: Shard, count: int) -> None:
        if count != self._finished.get(shard, 0):
            self._bar.update(count - self._finished.get(shard, 0))
            self._finished[shard] = count

    def _tell(self, line: str) -> None:
        if not self._bar.disable:
            self._bar.write(line, file=sys.stderr)
        counts = {"retried": self._retries, "failed": len(self.failures)}
        self._bar.set_postfix_str(
            ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        )


@contextmanager
def show_progress(
    shards: Sequence[Shard], missing: Sequence[Shard], quiet: bool
) -> Iterator[Progress]:
    """Show progress on standard error, in networks; those of complete shards count as done.

    Args:
        shards: All shards.
        missing: Those that are going to be made.
        quiet: Whether to show nothing.

    Yields:
        What workers report to.
    """
    total, to_do = (sum(shard.stop - shard.start for shard in some) for some in (shards, missing))
    unit, form = (
        " networks",
        "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_noinv_fmt}{postfix}]",
    )
    options = {
        "unit": unit,
        "bar_format": form,
        "disable": quiet,
        "smoothing": 0.1,
        "mininterval": 0.5,
    }
    with tqdm(total=total, initial=total - to_do, **options) as bar:
        yield Progress(bar)


def keep_locks_to_threads() -> None:
    """Give tqdm a lock of threads; its own is a semaphore of the system, which would outlive a process that is ended."""
    tqdm.set_lock(threading.RLock())
