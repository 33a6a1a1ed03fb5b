"""Reading a zoo.

10,000 networks with 5,000 parameters into tensors, against `numpy.load` of the same bytes.

    python benchmarks/store_io.py [--repeats 7] [--save FILE]

Both read from the page cache, in turn, in one run.
"""

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from zoo.params import flatten
from zoo.store.columns import read_flat, read_tensors
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import open_mapped
from zoo.weight_space import NeuronGroup, WeightSpace

NETWORKS, SHARDS = 10_000, 20
GROUPS = {name: NeuronGroup(size) for name, size in {"x": 64, "h1": 42, "h2": 42, "y": 10}.items()}
TENSORS = {
    "layers.0.weight": "h1 <- x",
    "layers.0.bias": "h1",
    "layers.1.weight": "h2 <- h1",
    "layers.1.bias": "h2",
}
SPACE = WeightSpace(GROUPS, {**TENSORS, "layers.2.weight": "y <- h2", "layers.2.bias": "y"})


def write_zoo(folder: Path) -> tuple[list[Path], Path]:
    """Shards as a zoo has them, and the same numbers as one `.npy` file."""
    rng = np.random.default_rng(0)
    paths, flats = [], []
    for number in range(SHARDS):
        rows = NETWORKS // SHARDS
        params = {
            name: rng.standard_normal((rows, *shape), dtype=np.float32)
            for name, shape in SPACE.shapes.items()
        }
        path = folder / f"train-{number:05d}-of-{SHARDS:05d}.h5"
        write_columns(path, {"network_id": np.arange(rows), **params}, {"shard": number})
        paths.append(path)
        flats.append(
            flatten(
                SPACE, {name: torch.from_numpy(array) for name, array in params.items()}
            ).numpy()
        )
    np.save(folder / "flat.npy", np.concatenate(flats))
    return paths, folder / "flat.npy"


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Run and print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths, flat = write_zoo(Path(name))
        shapes = dict(SPACE.shapes)
        variants: dict[str, Callable[[], object]] = {
            "numpy.load of one file": lambda: np.load(flat),
            "tensors by name (`Population.params`)": lambda: read_tensors(
                list(map(open_mapped, paths)), shapes
            ),
            "one tensor (`Population.flat`)": lambda: read_flat(
                list(map(open_mapped, paths)), shapes
            ),
        }
        for variant in variants.values():
            variant()
        rounds = [
            {key: seconds(variant) for key, variant in variants.items()}
            for _ in range(options.repeats)
        ]
    size = NETWORKS * SPACE.num_params * 4 / 1e6
    lines = [
        "## Reading a zoo",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {NETWORKS} networks x {SPACE.num_params} "
        f"parameters, {size:.0f} MB in "
        f"{SHARDS} shards, n = {options.repeats}. Median (smallest to largest).",
        "",
        "| variant | ms | times numpy.load |",
        "|---|---|---|",
    ]
    for key in variants:
        times = [1e3 * row[key] for row in rounds]
        ratios = [row[key] / row["numpy.load of one file"] for row in rounds]
        lines.append(
            f"| {key} | {statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
