"""How the cost of a zoo grows.

Networks a second with one and two processes, time and memory by the number of networks.

    python benchmarks/scaling.py [--repeats 3] [--save FILE]

Each process trains MLPs on the digits as generate-zoo does, after one chunk that compiles. Nothing
is written to disk.
"""

import argparse
import datetime
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from data_gen.config import Job
from data_gen.executors.processes import keep_memory
from data_gen.shard import ShardWorker

COUNTS = (1000, 2000, 4000, 8000)
SHARD = 500
_state: dict[str, ShardWorker] = {}


def start_process() -> None:
    """Settings of a process of generate-zoo; the first shard compiles."""
    torch.set_num_threads(1)
    keep_memory()
    hyperparameters = {"steps": 100, "batch_size": 64, "lr": 0.05, "momentum": 0.9}
    populations = {"p": {"architecture": {"name": "mlp", "hidden": [32, 32]}}}
    task = {"name": "digits", "train_size": 1200, "test_size": 500}
    job = Job.model_validate(
        {
            "task": task,
            "populations": populations,
            "hyperparameters": hyperparameters,
            "count": 10**5,
        }
    )
    _state["worker"] = ShardWorker(job, Path(), torch.device("cpu"), allow_compile=True)
    train(SHARD)


def train(count: int) -> tuple[float, float]:
    """Seconds for some networks, shard by shard, and resident memory after them, MB."""
    start = time.perf_counter()
    for first in range(0, count, SHARD):
        _state["worker"].train("p", torch.arange(first, min(first + SHARD, count)), lambda _: None)
    seconds = time.perf_counter() - start
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return seconds, pages * 4096 / 1e6


def main() -> None:
    """Run and print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context, start_process) for _ in range(2)]
    for future in [pool.submit(train, SHARD) for pool in pools]:
        future.result()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for processes in rates:
            runs = [
                future.result()
                for future in [pool.submit(train, 1000) for pool in pools[:processes]]
            ]
            rates[processes].append(sum(1000 / seconds for seconds, _ in runs))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    lines = [
        "## Scaling",
        "",
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, n = "
        f"{options.repeats}. "
        "Median (smallest to largest).",
        "",
        *[f"{n} process(es): {spread(values, 0)} networks/s." for n, values in rates.items()],
        f"Two processes over one: {spread(ratios, 2)}.",
        "",
        "| networks | ms a network | of 1,000 networks' | resident MB after them |",
        "|---|---|---|---|",
    ]
    rows = [
        {count: pools[0].submit(train, count).result() for count in COUNTS}
        for _ in range(options.repeats)
    ]
    for count in COUNTS:
        cost = [1e3 * row[count][0] / count for row in rows]
        relative = [row[count][0] / count / (row[COUNTS[0]][0] / COUNTS[0]) for row in rows]
        memory = [row[count][1] for row in rows]
        lines.append(
            f"| {count:,} | {spread(cost, 2)} | {spread(relative, 2)} | {spread(memory, 0)} |"
        )
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to "
        f"{max(values):.{digits}f})"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
