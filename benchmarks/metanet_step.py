"""Throughput of training metanets: networks/s of a training step (forward, backward, optimizer), and the memory it takes.

    python benchmarks/metanet_step.py [--threads 1 2] [--repeats 5] [--save FILE]

Batch 32, float32, random params, synthetic targets. Variants of a case are timed in turn within each repeat, so that ratios
hold while the machine's speed drifts. Memory is what a few steps add to the largest resident size of a process of their own.
`dense` is `gmn` as it trains, `torch_geometric` the same weights on the same networks as a batch of graphs, which is made
outside the timed part.
"""

import argparse
import datetime
import multiprocessing
import platform
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
from zoo.testing import random_params
from zoo.weight_space import WeightSpace

BATCH = 32
SPACES = {
    "MLP 64-32-32-10": lambda: mlp((1, 8, 8), 10, hidden=(32, 32)).space,
    "CNN 1-16-16-16-10": lambda: cnn((1, 14, 14), 10, channels=(16, 16, 16)).space,
}
MODELS: dict[str, dict[str, int]] = {
    "gmn 64, edges 64, 4 layers": {"width": 64, "edge_width": 64, "layers": 4},
    "gmn 64, edges 16, 4 layers": {"width": 64, "edge_width": 16, "layers": 4},
    "gmn 32, edges 8, 3 layers (default)": {"width": 32, "edge_width": 8, "layers": 3},
}
VARIANTS = ("dense", "torch_geometric")


def step_of(space: WeightSpace, options: dict[str, int], variant: str) -> Callable[[], None]:
    """One training step on one batch."""
    generator = torch.Generator().manual_seed(0)
    with seeded(0):
        module = GraphMetanet(Source(space), **options)
    features = random_params(space, generator, (BATCH,), torch.float32)
    y = torch.randn(BATCH, generator=generator)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    graphs = batch([(module.graph, module.norm(features))]) if variant == "torch_geometric" else None

    def predict() -> Tensor:
        return module(features) if graphs is None else sparse.run(module.network, graphs)

    def step() -> None:
        optimizer.zero_grad()
        (predict() - y).square().mean().backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], object]) -> float:
    """Wall clock of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak() -> float:
    """Largest resident size of this process so far, MB (Linux; the usual counter starts from that of the parent)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def memory(case: str, model: str, variant: str, threads: int) -> float:
    """MB that three steps add."""
    torch.set_num_threads(threads)
    step = step_of(SPACES[case](), MODELS[model], variant)
    before = peak()
    for _ in range(3):
        step()
    return peak() - before


def gflop_of(space: WeightSpace, options: dict[str, int]) -> float:
    """Products of one network's step on the dense path.

    Nodes take every weight of a layer forward and twice backward. Edges take the K x K map forward, again in the backward pass
    (nothing is kept), and twice for gradients; messages two products of K D = H + K channels forward and four backward.
    """
    module = GraphMetanet(Source(space), **options)
    width, inner, layers = (options[name] for name in ("width", "edge_width", "layers"))
    edges = sum(part.shape[0] * part.shape[1] for part in module.graph.edges)
    of_nodes = sum(p.numel() for p in module.network.layers.parameters() if p.dim() > 1) - layers * inner**2
    per_layer = 4 * edges * inner**2 + 6 * edges * (width + inner)
    return 2 * (layers * per_layer + 3 * len(module.graph.orbit) * of_nodes) / 1e9


def product_gflops() -> float:
    """The machine's rate of float32 products of the shape that a large layer needs."""
    a, b = torch.randn(4096, 1024), torch.randn(1024, 1024)
    return 2 * 4096 * 1024**2 / statistics.median(seconds(lambda: torch.mm(a, b)) for _ in range(5)) / 1e9


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
    gflop = gflop_of(space, options)
    rows = []
    for variant, megabytes in zip(VARIANTS, grown, strict=True):
        rates = [BATCH / value for value in times[variant]]
        ratios = [slow / own for slow, own in zip(times["torch_geometric"], times[variant], strict=True)]
        share = statistics.median(rates) * gflop / product_gflops()
        cells = [
            case,
            model,
            threads,
            variant,
            spread(rates, 0),
            spread(ratios, 1),
            f"{megabytes:.0f}",
            f"{1e3 * gflop:.0f}",
            f"{share:.2f}",
        ]
        rows.append(f"| {' | '.join(map(str, cells))} |")
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
        "| networks | metanet | threads | path | networks/s | times torch_geometric | MB | MFLOP | share of the product rate |",
        "|---|---|---|---|---|---|---|---|---|",
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
