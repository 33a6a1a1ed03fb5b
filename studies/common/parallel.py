"""Tasks in parallel processes of one thread each, or in this process.

Both yield a task as soon as it is done.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from data_gen.executors.processes import end_with_parent

T = TypeVar("T")


def run_here(function: Callable[[T], None], tasks: Sequence[T]) -> Generator[T, None, None]:
    """Run tasks one after the other in this process, on one thread, as a worker process would.

    Args:
        function: Does one task.
        tasks: The tasks.

    Yields:
        Each task after it is done.
    """
    import torch
    from threadpoolctl import threadpool_limits

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for task in tasks:
                function(task)
                yield task
    finally:
        torch.set_num_threads(num_threads)


def run_in_processes(
    function: Callable[[T], None], tasks: Sequence[T], num_workers: int
) -> Generator[T, None, None]:
    """Run tasks in spawned processes.

    An error in a task, Ctrl-C, or closing the iterator drops the tasks that wait and ends the
    workers at once; a task must therefore keep its result by an atomic write.

    Args:
        function: Does one task; importable, as the processes are spawned.
        tasks: The tasks; each is pickled.
        num_workers: Number of processes.

    Yields:
        Each task after it is done, in the order in which they end.
    """
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    try:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BaseException:
        workers = set(multiprocessing.active_children()) - before
        for process in workers:
            process.terminate()
        pool.shutdown(cancel_futures=True)
        for process in workers:
            process.join()
        raise
    pool.shutdown()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, end with the parent, and keep every thread pool at one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    import torch
    from threadpoolctl import threadpool_limits

    import metanet  # noqa: F401, the thread pools of its libraries must be loaded to be limited
    from data_gen.executors.progress import keep_locks_to_threads

    keep_locks_to_threads()

    torch.set_num_threads(1)
    threadpool_limits(1)
