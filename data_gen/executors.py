"""Where shards are generated: in this process, or in local processes."""

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from data_gen.shard import Shard, Worker

_here: dict[str, Any] = {}


def run_here(worker: Worker, shards: Sequence[Shard], quiet: bool) -> None:
    """Generate shards one after the other in this process.

    Args:
        worker: How.
        shards: Which.
        quiet: Whether to show no progress.
    """
    with progress_bar(shards, quiet) as bar:
        for shard in shards:
            worker.write(shard, bar.update)


def run_in_processes(worker: Worker, shards: Sequence[Shard], workers: int, quiet: bool) -> None:
    """Generate shards in spawned processes, one thread each on a CPU, GPUs in turn.

    Ctrl-C ends the processes at once; shards that were complete stay.

    Args:
        worker: How.
        shards: Which.
        workers: Number of processes.
        quiet: Whether to show no progress.

    Raises:
        RuntimeError: If a process was killed.
        KeyboardInterrupt: If the user interrupts.
    """
    context = multiprocessing.get_context("spawn")
    finished = context.Queue()
    ranks = context.Queue()
    for rank in range(workers):
        ranks.put(rank)
    pool = ProcessPoolExecutor(workers, context, _start_process, (worker, ranks, finished))
    try:
        with progress_bar(shards, quiet) as bar:
            futures = [pool.submit(_write_shard, shard) for shard in shards]
            _watch(futures, finished, bar.update)
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()
        raise


def _watch(futures: Sequence[Future[None]], finished: "multiprocessing.Queue[int]", report: Callable[[int], object]) -> None:
    """Wait for all futures, reporting networks as they are finished; raise what the first failed one raised."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        while True:
            try:
                report(finished.get_nowait())
            except queue.Empty:
                break
        for future in done:
            future.result()


def _start_process(worker: Worker, ranks: "multiprocessing.Queue[int]", finished: "multiprocessing.Queue[int]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    keep_memory()
    device = worker.device
    if device.type == "cuda":
        device = torch.device("cuda", ranks.get() % torch.cuda.device_count())
    else:
        torch.set_num_threads(1)
    _here["worker"], _here["report"] = replace(worker, device=device), finished.put


def _write_shard(shard: Shard) -> None:
    _here["worker"].write(shard, _here["report"])


def keep_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the system after every step.

    Returning it makes each step fault its pages in again, which took half of the time of an uncompiled step.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in ((-1, 1 << 30), (-3, 1 << 30), (-2, 1 << 26)):  # TRIM_THRESHOLD, MMAP_THRESHOLD, TOP_PAD
            libc.mallopt(parameter, value)


def default_workers(device: torch.device) -> int:
    """One process for each GPU, or for each processor that this process may use."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def progress_bar(shards: Sequence[Shard], quiet: bool) -> "tqdm[NoReturn]":
    """Progress in networks, on standard error."""
    total = sum(shard.stop - shard.start for shard in shards)
    return tqdm(total=total, unit="network", disable=quiet, smoothing=0.1, mininterval=0.5)
