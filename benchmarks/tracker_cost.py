"""What a record of the tracker costs, as a share of a plain training step.

    OMP_NUM_THREADS=1 python benchmarks/tracker_cost.py

Medians over 300 steps of each, on one core.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.conservation.laws import declared_laws
from zoo.conservation.tracker import Tracker
from zoo.tracing.tracer import trace


def perceptron(*widths: int) -> nn.Sequential:
    """A ReLU network."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small_cnn() -> nn.Sequential:
    """Three convolutions of 16 channels."""
    convolutions = [
        m for i in range(3) for m in (nn.Conv2d(1 if i == 0 else 16, 16, 3, 2, 1), nn.ReLU())
    ]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def measure(name: str, module: nn.Module, x: Tensor, y: Tensor, steps: int = 300) -> None:
    """Print the time of a step and of a record."""
    tracker, optimizer = (
        Tracker(declared_laws(trace(module, x[:2]).space), every=1),
        torch.optim.SGD(module.parameters(), lr=1e-3),
    )
    stepping, recording = [], []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        middle = time.perf_counter()
        tracker.step(module, loss)
        stepping.append(middle - start)
        recording.append(time.perf_counter() - middle)
    step, record = statistics.median(stepping) * 1e6, statistics.median(recording) * 1e6
    print(
        f"| {name} | {step:.0f} us | {record:.0f} us | {record / step:.0%} | "
        f"{record / step / 10:.1%} |"
    )


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(10, (64,), generator=generator)
    print(
        "| network, batch 64 | step | record | share | share with every=10 |\n|---|---|---|---|---|"
    )
    measure(
        "MLP 64-32-32-10", perceptron(64, 32, 32, 10), torch.randn(64, 64, generator=generator), y
    )
    measure(
        "MLP 784-512-512-10",
        perceptron(784, 512, 512, 10),
        torch.randn(64, 784, generator=generator),
        y,
    )
    measure(
        "CNN 1-16-16-16-10, 14 x 14",
        small_cnn(),
        torch.randn(64, 1, 14, 14, generator=generator),
        y,
    )


if __name__ == "__main__":
    main()
