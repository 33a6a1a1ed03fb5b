"""How items are handed out to processes: who works on what, who died, and what is tried again."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, runtime_checkable

from data_gen.executors.executor import Item, Item_contra, Watcher, close
from data_gen.executors.failures import Failure, NoProcess

MAX_RETRIES = 2  # of an item whose process died
_GUARD = " (in a script of your own: is the call under `if __name__ == '__main__':`?)"


@dataclass(frozen=True)
class Ready:
    """A process can take its first item."""

    rank: int


@dataclass(frozen=True)
class Advanced:
    """A process has done some units of its item."""

    rank: int
    count: int


@dataclass(frozen=True)
class Ended:
    """A process is done with its item, well or with a failure, and can take another."""

    rank: int
    failure: Failure | None


@dataclass(frozen=True)
class Died:
    """A process is no more."""

    rank: int
    reason: str


Event = Ready | Advanced | Ended | Died


@runtime_checkable
class WorkerPool(Protocol[Item_contra]):
    """Processes that complete one item at a time each, known by their rank."""

    def start(self, rank: int) -> None:
        """Start the process of a rank."""
        ...

    def submit(self, rank: int, item: Item_contra) -> None:
        """Give an item to a process that waits for one."""
        ...

    def events(self) -> list[Event]:
        """What has happened since the last call; waits for something to happen, for a while."""
        ...


def run_in_pool(
    pool: WorkerPool[Item], size: int, items: Sequence[Item], watcher: Watcher[Item]
) -> None:
    """Have a pool complete items; one whose process died is begun again in another, a few times.

    Args:
        pool: The processes.
        size: Number of processes, at most.
        items: The items.
        watcher: Is told what becomes of them.

    Raises:
        NoProcess: If no process can be started.
    """
    schedule = _Schedule(pool, items, watcher)
    for rank in range(min(size, len(items))):
        schedule.start(rank)
    while schedule.goes_on:
        for event in pool.events():
            schedule.note(event)
        schedule.hand_out()


class _Schedule(Generic[Item]):
    """Which items wait, and which process works on which; items are known by their number."""

    def __init__(self, pool: WorkerPool[Item], items: Sequence[Item], watcher: Watcher[Item]):
        self._pool = pool
        self._items = items
        self._watcher = watcher
        self._waiting = deque(range(len(items)))
        self._at_work: dict[int, int] = {}  # item of each rank
        self._alive: set[int] = set()
        self._idle: list[int] = []
        self._deaths = Counter[int]()  # by item
        self._idle_deaths = 0  # of processes without an item, since one was ready
        self._is_blocked = False

    @property
    def goes_on(self) -> bool:
        """Whether there are items that are not done."""
        return bool(self._waiting or self._at_work)

    def start(self, rank: int) -> None:
        """Start the process of a rank."""
        self._alive.add(rank)
        self._pool.start(rank)

    def note(self, event: Event) -> None:
        """Draw the consequences of an event."""
        match event:
            case Ready(rank):
                self._idle_deaths = 0
                self._idle.append(rank)
            case Advanced(rank, count):
                if rank in self._at_work:
                    self._watcher.advance(self._items[self._at_work[rank]], count)
            case Ended(rank, failure):
                self._idle.append(rank)
                self._is_blocked |= failure is not None and failure.errno != 0
                close(self._items[self._at_work.pop(rank)], failure, self._watcher)
            case Died(rank, reason):
                self._bury(rank, reason)

    def hand_out(self) -> None:
        """Give items that wait to processes that wait."""
        if self._is_blocked:
            self._waiting.clear()
        while self._waiting and self._idle:
            rank = self._idle.pop(0)
            self._at_work[rank] = self._waiting.popleft()
            self._pool.submit(rank, self._items[self._at_work[rank]])

    def _bury(self, rank: int, reason: str) -> None:
        """A process has died: decide about its item, and start another process if one is needed."""
        self._alive.discard(rank)
        self._idle = [other for other in self._idle if other != rank]
        if rank in self._at_work:
            self._begin_again_or_fail(self._at_work.pop(rank), reason)
        else:
            self._idle_deaths += 1
        if self._waiting and self._idle_deaths <= MAX_RETRIES:
            self.start(rank)
        elif self._waiting and not self._alive:
            raise NoProcess(f"no worker process can be started: {reason}{_GUARD}")

    def _begin_again_or_fail(self, number: int, reason: str) -> None:
        item = self._items[number]
        self._deaths[number] += 1
        count = self._deaths[number]
        if count <= MAX_RETRIES:
            self._watcher.retry(item, reason)
            self._waiting.append(number)
        else:
            failure = Failure(f"its process died {count} times; the last one {reason}")
            self._watcher.fail(item, failure)
