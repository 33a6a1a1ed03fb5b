"""Git Re-Basin on MNIST.

The loss barrier between two networks without alignment, after weight and after activation matching.

    python benchmarks/rebasin_mnist.py IMAGES [--networks FILE.npz] [--pairs 5] [--epochs 5]
    [--restarts 1] [--save FILE.md]

IMAGES is a folder with MNIST, or its id on the Hugging Face Hub. The networks are those of Lim et
al. 2024, arXiv 2405.20231,
table 1: 784-512-512-512-10, LayerNorm, GELU, AdamW with rate 1e-3 and decay .03, batches of 64.
    They are trained one after
another with different seeds and kept in FILE.npz, from which a later run reads them.

    barrier = L((a + b) / 2) - (L(a) + L(b)) / 2        with L the test loss
"""

import argparse
import datetime
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data_gen.tasks.data import Part, Task
from data_gen.tasks.task import TaskConfig, load_task
from zoo.architectures import build_mlp
from zoo.architectures.record import activations
from zoo.params import Params
from zoo.symmetry.action import act
from zoo.symmetry.alignment import align, align_activations

NETWORK = build_mlp((1, 28, 28), 10, (512, 512, 512), activation="gelu", norm="layer")
LR, WEIGHT_DECAY, BATCH = 1e-3, 0.03, 64
MATCHING_IMAGES = 2000


def train(task: Task, seed: int, epochs: int) -> Params:
    """One network, with its own initialization and order of the images."""
    generator = torch.Generator().manual_seed(seed)
    params = {name: tensor.requires_grad_() for name, tensor in NETWORK.init(generator).items()}
    optimizer = torch.optim.AdamW(params.values(), LR, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        for rows in torch.randperm(len(task.train.x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(
                NETWORK.apply(params, task.inputs(task.train.x[rows])), task.train.y[rows]
            ).backward()
            optimizer.step()
    return {name: tensor.detach() for name, tensor in params.items()}


def trained(task: Task, count: int, epochs: int, file: Path | None) -> Params:
    """All networks `[N, ...]`, from the file as far as they are there."""
    networks = []
    if file is not None and file.exists():
        with np.load(file) as arrays:
            known = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        networks = [
            {name: tensor[i] for name, tensor in known.items()}
            for i in range(len(next(iter(known.values()))))
        ]
    while len(networks) < count:
        start = time.perf_counter()
        networks.append(train(task, len(networks), epochs))
        loss, accuracy = score(networks[-1], task.test, task)
        print(
            f"network {len(networks)}: {time.perf_counter() - start:.0f} s, test loss {loss:.4f}, "
            f"accuracy {accuracy:.4f}"
        )
        if file is not None:
            stacked = {
                name: torch.stack([network[name] for network in networks]).numpy()
                for name in networks[0]
            }
            np.savez(file, allow_pickle=False, **stacked)
    return {
        name: torch.stack([network[name] for network in networks[:count]]) for name in networks[0]
    }


@torch.no_grad()
def score(params: Params, part: Part, task: Task) -> tuple[float, float]:
    """Mean loss and accuracy of a network."""
    logits = NETWORK.apply(params, task.inputs(part.x))
    return float(F.cross_entropy(logits, part.y)), float(
        (logits.argmax(1) == part.y).double().mean()
    )


def barrier(a: Params, b: Params, part: Part, task: Task) -> float:
    """How far the loss at the midpoint is above the mean loss of the ends."""
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    return score(middle, part, task)[0] - (score(a, part, task)[0] + score(b, part, task)[0]) / 2


@torch.no_grad()
def barriers(a: Params, b: Params, task: Task, restarts: int) -> dict[str, float]:
    """The barrier on test images from `a` to `b`, plain and after alignment on training images."""
    x = task.inputs(task.train.x[:MATCHING_IMAGES])
    start = time.perf_counter()
    by_weights = align(NETWORK.space, b, a, num_restarts=restarts)
    between = time.perf_counter()
    by_activations = align_activations(
        NETWORK.space, activations(NETWORK, b, x), activations(NETWORK, a, x)
    )
    print(
        f"weights: {between - start:.2f} s, activations: {time.perf_counter() - between:.2f} s",
        flush=True,
    )
    moved = {"none": b}
    moved |= {
        "weight matching": act(NETWORK.space, by_weights, b),
        "activation matching": act(NETWORK.space, by_activations, b),
    }
    return {kind: barrier(a, network, task.test, task) for kind, network in moved.items()}


def main() -> None:
    """Train, align, print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    task = load_task(
        TaskConfig.model_validate({"name": "images", "path": options.images, "grey": True})
    )
    stacked = trained(task, 2 * options.pairs, options.epochs, options.networks)
    networks = [
        {name: tensor[i] for name, tensor in stacked.items()} for i in range(2 * options.pairs)
    ]
    scores = [score(network, task.test, task) for network in networks]
    rows = [
        barriers(a, b, task, options.restarts)
        for a, b in zip(networks[::2], networks[1::2], strict=True)
    ]
    lines = [
        "## Loss barriers on MNIST",
        "",
        f"{datetime.date.today()}, {torch.get_num_threads()} threads on {platform.machine()}, "
        f"torch {torch.__version__}. MLP "
        f"784-512-512-512-10, LayerNorm, GELU, AdamW 1e-3, weight decay 0.03, batches of 64, "
        f"{options.epochs} epochs. "
        f"{2 * options.pairs} networks, {options.pairs} pairs without a network in common; "
        "weight matching with "
        f"{options.restarts} start(s), activation matching on {MATCHING_IMAGES} training images.",
        "",
        f"Mean test loss of the networks {statistics.mean(loss for loss, _ in scores):.4f}, "
        "accuracy "
        f"{statistics.mean(accuracy for _, accuracy in scores):.4f}.",
        "",
        "| alignment | barrier at the midpoint, test loss: mean | standard deviation | smallest | "
        "largest |",
        "|---|---|---|---|---|",
    ]
    for kind in rows[0]:
        values = [row[kind] for row in rows]
        figures = (
            statistics.mean(values),
            statistics.stdev(values) if len(values) > 1 else 0.0,
            min(values),
            max(values),
        )
        lines.append(f"| {kind} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
