"""Importing checkpoints: files of 4,810 parameters each become a zoo.

    python benchmarks/import_checkpoints.py [--counts 10000 40000] [--repeats 5] [--save FILE]

Files are in the page cache; each is read twice. Each run is a process of its own. The memory is
what it needs besides what it had before.
"""

import argparse
import datetime
import itertools
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

import zoo
from tests.cost import processor
from zoo.importers.collect import import_checkpoints

WRITERS = {"pt": torch.save, "safetensors": safetensors.torch.save_file}


def build() -> nn.Module:
    """The network that all files hold."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def write_files(folder: Path, kind: str, count: int) -> None:
    """Write checkpoints that differ."""
    state: dict[str, Tensor] = dict(build().state_dict())
    for number in range(count):
        moved = {name: tensor + number for name, tensor in state.items()}
        WRITERS[kind](moved, folder / f"{number:05d}.{kind}")


def peak() -> float:
    """Most memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: str, kind: str) -> tuple[float, float, float]:
    """Import all files in a process of its own.

    Args:
        folder: Folder of the files.
        kind: Their ending.

    Returns:
        Seconds to import, seconds to read all parameters of the zoo, and MB that the import took
        besides what the process had before.
    """
    model = zoo.from_module(build, torch.randn(2, 64))
    before = peak()
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        made = import_checkpoints(f"{folder}/*.{kind}", Path(out) / "zoo", model)
        middle = time.perf_counter()
        more = peak() - before
        for split in made["networks"].splits:
            made["networks"].params(split)
        return middle - start, time.perf_counter() - middle, more


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    lines = [
        f"# Import of checkpoints, {datetime.date.today()}",
        "",
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"n = {arguments.repeats}; median [least, most]. See `benchmarks/import_checkpoints.py`.",
        "",
        "| files | format | import, s | read the zoo, s | more memory than before, MB |",
        "|---|---|---|---|---|",
    ]
    for kind, count in itertools.product(WRITERS, arguments.counts):
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), kind, count)
            alone = multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1)
            with alone as pool:
                runs = pool.starmap(measure, [(folder, kind)] * arguments.repeats, chunksize=1)
        cells = [
            f"{statistics.median(column):.2f} [{min(column):.2f}, {max(column):.2f}]"
            for column in zip(*runs, strict=True)
        ]
        lines.append(f"| {count:,} | .{kind} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.save:
        arguments.save.write_text(text)


if __name__ == "__main__":
    main()
