"""Processes that work for another one: how many, and what each needs."""

import ctypes
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

# Numbers of glibc's `mallopt`: parameter -> value in bytes.
_MALLOC_OPTIONS = {
    -1: 1 << 30,  # M_TRIM_THRESHOLD
    -3: 1 << 30,  # M_MMAP_THRESHOLD
    -2: 1 << 26,  # M_TOP_PAD
}


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(needs_gpu: bool, threads: int = 1) -> int:
    """One process for each GPU, or as many as keep busy the processors that this process may use.

    Args:
        needs_gpu: Whether the processes compute on GPUs.
        threads: Threads of each process.

    Returns:
        Number of processes, at least 1.
    """
    if needs_gpu:
        return torch.cuda.device_count()
    return max(1, num_cores() // threads)


def prepare_process(threads: int) -> None:
    """Set up a process that computes; all executors do it alike, since threads change bytes.

    Args:
        threads: Threads of torch.
    """
    keep_memory()
    torch.set_num_threads(threads)


@contextmanager
def threads_of_process(threads: int | None) -> Iterator[None]:
    """Compute in this process as in one that an executor started, then with its threads of before.

    Args:
        threads: Threads of torch; None leaves the process as it is.

    Yields:
        Nothing.
    """
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    prepare_process(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the system after every step.

    Returning it makes each training step fault its pages in again, which took half of the time of
    an uncompiled step.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    for option, value in _MALLOC_OPTIONS.items():
        mallopt(option, value)


def end_with_parent() -> None:
    """End this process at once when its parent has ended, however it did."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
