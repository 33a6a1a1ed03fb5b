"""Throughput of training metanets: networks/s of a training step (forward, backward, optimizer), and the memory it takes.

    python benchmarks/metanet_step.py [--threads 1 2] [--repeats 5] [--save FILE]

Batch 32, float32, random params, synthetic targets. Variants of a case are timed in turn within each repeat, so that ratios hold
while the machine's speed drifts. Memory is the growth of the largest resident size over that of a process which has imported
everything and built the metanet, each variant in a process of its own. `dense` is `gmn` as it trains, `torch_geometric` the same
weights on the same networks as a batch of graphs, which is made outside the timed part.
"""

import argparse
import datetime
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from metanet.contract import Source, seeded
from metanet.graph import batch
from metanet.layers import sparse
from metanet.models.gmn import GraphMetanet
from zoo.architectures import cnn, mlp
from zoo.weight_space import WeightSpace

BATCH = 32
SPACES = {
    "MLP 64-32-32-10": lambda: mlp((1, 8, 8), 10, hidden=(32, 32)).space,
    "CNN 1-16-16-16-10": lambda: cnn((1, 14, 14), 10, channels=(16, 16, 16)).space,
}
MODELS: dict[str, dict[str, int]] = {
    "gmn hidden 64, 4 layers": {"width": 64, "layers": 4},
    "gmn, default (hidden 32, 3 layers)": {},
}
VARIANTS = ("dense", "torch_geometric")


def step_of(space: WeightSpace, options: dict[str, int], variant: str) -> Callable[[], None]:
    """One training step on one batch."""
    generator = torch.Generator().manual_seed(0)
    with seeded(0):
        module = GraphMetanet(Source(space), **options)
    features = torch.randn(BATCH, space.num_params, generator=generator)
    y = torch.randn(BATCH, generator=generator)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    graphs = batch([(module.graph, module.inputs(features))]) if variant == "torch_geometric" else None

    def predict() -> Tensor:
        return module(features) if graphs is None else sparse.run(module.network, graphs)

    def step() -> None:
        optimizer.zero_grad()
        (predict() - y).square().mean().backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Wall clock of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak() -> float:
    """Largest resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def memory(case: str, model: str, variant: str, threads: int) -> float:
    """MB that three steps add."""
    torch.set_num_threads(threads)
    step = step_of(SPACES[case](), MODELS[model], variant)
    before = peak()
    for _ in range(3):
        step()
    return peak() - before


def edge_gflop(space: WeightSpace, width: int, layers: int) -> float:
    """Products over edges of one network's step: one forward; recomputed, by the weight and by the edges backward."""
    edges = sum(part.shape[0] * part.shape[1] for part in GraphMetanet(Source(space)).graph.edges)
    return 4 * 2 * edges * width**2 * layers / 1e9


def product_gflops() -> float:
    """The machine's rate of float32 products of the shape that a large layer needs."""
    a, b = torch.randn(4096, 1024), torch.randn(1024, 1024)
    return 2 * 4096 * 1024**2 / statistics.median(seconds(lambda: torch.mm(a, b) and None) for _ in range(5)) / 1e9


def measure(case: str, model: str, threads: int, repeats: int) -> list[str]:
    """One row of the report for each variant."""
    torch.set_num_threads(threads)
    space, options = SPACES[case](), MODELS[model]
    steps = {variant: step_of(space, options, variant) for variant in VARIANTS}
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for variant, step in steps.items():
            times[variant].append(seconds(step))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        grown = pool.starmap(memory, [(case, model, variant, threads) for variant in VARIANTS], chunksize=1)
    gflop = edge_gflop(space, options.get("width", 32), options.get("layers", 3))
    rows = []
    for variant, megabytes in zip(VARIANTS, grown, strict=True):
        rates = [BATCH / value for value in times[variant]]
        ratios = [slow / own for slow, own in zip(times["torch_geometric"], times[variant], strict=True)]
        share = statistics.median(rates) * gflop / product_gflops()
        rows.append(
            f"| {case} | {model} | {threads} | {variant} | {spread(rates, 0)} | {spread(ratios, 1)} | {megabytes:.0f} | {share:.2f} |"
        )
    return rows


def spread(values: list[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


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
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, batch {BATCH}, float32, "
        f"n = {arguments.repeats}. Median (smallest to largest).",
        "",
        "| networks | metanet | threads | path | networks/s | times torch_geometric | MB | share of the product rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for threads in arguments.threads:
        for case in SPACES:
            for model in MODELS:
                lines += measure(case, model, threads, arguments.repeats)
    print("\n".join(lines))
    if arguments.save:
        arguments.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
