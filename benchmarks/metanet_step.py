"""Throughput of training metanets.

Networks/s of a training step (forward, backward, optimizer), and the memory it takes.

    python benchmarks/metanet_step.py [--threads 1 2] [--repeats 5] [--save FILE]

Batch 32, random params, synthetic targets. All rows of a case are timed in turn within each repeat,
so that ratios hold while the machine's speed drifts. Memory is what a few steps add to the largest
resident size of a process of their own. `gmn` is timed as it trains, on dense arrays, and with the
same weights on the same networks as a batch of torch_geometric graphs, which is made outside the
timed part. The arithmetic of a step is what torch's counter finds in matrix products and
convolutions.
"""

import argparse
import datetime
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from metanet.contract import InputSpec, seeded
from metanet.graphs.pyg import batch
from metanet.layers import sparse
from metanet.models.table import build
from zoo.architectures import build_cnn, build_mlp
from zoo.testing import random_params

BATCH = 32
CASES = {
    "MLP 64-32-32-10": lambda activation: build_mlp(
        (1, 8, 8), 10, hidden=(32, 32), activation=activation
    ),
    "CNN 1-16-16-16-10": lambda activation: build_cnn(
        (1, 14, 14), 10, channels=(16, 16, 16), activation=activation
    ),
}


@dataclass(frozen=True)
class Row:
    """What is timed.

    Attributes:
        metanet: Name in `METANETS`.
        options: Its options.
        path: `dense`, or `torch_geometric` for the same metanet on graphs.
        bfloat16: Whether under autocast.
        activation: Of the networks: ReLU declares positive scales, tanh signs.
    """

    metanet: str
    options: tuple[tuple[str, Any], ...] = ()
    path: str = "dense"
    bfloat16: bool = False
    activation: str = "relu"

    @property
    def label(self) -> str:
        """Its name in the table."""
        options = ", ".join(f"{name}={value}" for name, value in self.options) or "default"
        extra = f", {self.path}" * (self.path != "dense") + ", bfloat16" * self.bfloat16
        return f"{self.metanet} ({options}){extra}" + ", tanh networks" * (
            self.activation == "tanh"
        )


LARGE = (("width", 64), ("edge_width", 64), ("layers", 4))
MIDDLE = (("width", 64), ("edge_width", 16), ("layers", 4))
ROWS = [
    *(
        Row("gmn", options, path)
        for options in (LARGE, MIDDLE, ())
        for path in ("dense", "torch_geometric")
    ),
    *(Row("gmn", options, bfloat16=True) for options in (LARGE, MIDDLE, ())),
    *(
        Row("scale_gmn", options, activation=activation)
        for options in (LARGE, ())
        for activation in ("relu", "tanh")
    ),
    Row("nfn", (("preset", "published"),)),
    *(
        Row(name)
        for name in ("nfn", "width_gmn", "graph_transformer", "tokens", "probe", "mlp", "statnn")
    ),
]


def step_of(case: str, row: Row) -> Callable[[], None]:
    """One training step on one batch."""
    generator, architecture = torch.Generator().manual_seed(0), CASES[case](row.activation)
    shape, name = ((1, 8, 8), "mlp") if case.startswith("MLP") else ((1, 14, 14), "cnn")
    architecture = replace(architecture, name=name, input_shape=shape, num_outputs=10)
    with seeded(0):
        module: Any = build(
            row.metanet,
            [InputSpec(architecture.space, architecture=architecture)],
            dict(row.options),
        )
    params = random_params(architecture.space, generator, (BATCH,), torch.float32)
    features = module.features(params)
    y, optimizer = (
        torch.randn(BATCH, generator=generator),
        torch.optim.AdamW(module.parameters(), lr=1e-3),
    )
    graphs = (
        batch([(module.graph, module.norm(features))]) if row.path == "torch_geometric" else None
    )

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=row.bfloat16):
            raw = module(features) if graphs is None else sparse.run(module.network, graphs)
        (raw.float() - y).square().mean().backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], object]) -> float:
    """Wall clock of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak() -> float:
    """Largest resident size of this process so far, in MB, on Linux.

    The usual counter starts from that of the parent.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def memory(case: str, row: Row, threads: int) -> float:
    """MB that three steps add."""
    torch.set_num_threads(threads)
    step = step_of(case, row)
    before = peak()
    for _ in range(3):
        step()
    return peak() - before


def gflop_of(step: Callable[[], None]) -> float:
    """Products of one network's share of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / BATCH / 1e9


def product_gflops(bfloat16: bool) -> float:
    """The machine's rate of products of the shape that a large layer needs."""
    kind = torch.bfloat16 if bfloat16 else torch.float32
    a, b = torch.randn(4096, 1024, dtype=kind), torch.randn(1024, 1024, dtype=kind)
    return (
        2
        * 4096
        * 1024**2
        / statistics.median(seconds(lambda: torch.mm(a, b)) for _ in range(5))
        / 1e9
    )


def measure(case: str, rows: list[Row], threads: int, repeats: int) -> list[str]:
    """One line of the report for each row."""
    torch.set_num_threads(threads)
    steps = {row: step_of(case, row) for row in rows}
    times: dict[Row, list[float]] = {row: [] for row in rows}
    rates: dict[bool, list[float]] = {False: [], True: []}
    gflop = {row: gflop_of(step) for row, step in steps.items()}
    for _ in range(repeats):
        for kind, measured in rates.items():
            measured.append(product_gflops(kind))
        for row, step in steps.items():
            times[row].append(seconds(step))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        grown = pool.starmap(memory, [(case, row, threads) for row in rows], chunksize=1)
    lines = []
    for row, megabytes in zip(rows, grown, strict=True):
        speeds = [BATCH / value for value in times[row]]
        share = statistics.median(speeds) * gflop[row] / statistics.median(rates[row.bfloat16])
        graphs = times.get(replace(row, path="torch_geometric", bfloat16=False), [])
        ratio = (
            spread([slow / fast for slow, fast in zip(graphs, times[row], strict=True)], 1)
            if graphs
            else ""
        )
        cells = [
            case,
            threads,
            row.label,
            spread(speeds, 0),
            ratio,
            f"{megabytes:.0f}",
            f"{1e3 * gflop[row]:.1f}",
            f"{share:.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def spread(values: list[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to "
        f"{max(values):.{digits}f})"
    )


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description="networks/s of a metanet's training step")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    lines = [
        "## Training metanets",
        "",
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, batch {BATCH}, "
        f"n = {arguments.repeats}. "
        "Median (smallest to largest).",
        "",
        "| networks | threads | metanet | networks/s | times torch_geometric | MB | MFLOP | share "
        "of the product rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for threads in arguments.threads:
        for case in CASES:
            lines += measure(case, ROWS, threads, arguments.repeats)
    print("\n".join(lines))
    if arguments.save:
        arguments.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
