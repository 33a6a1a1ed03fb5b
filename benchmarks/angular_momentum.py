"""Angular momentum of the first layer's gradient by number of angles, activation and loss.

    python benchmarks/angular_momentum.py [--draws 5] [--save FILE]

MLPs 2-16-16-3, PyTorch's initialization times 3, 32 normal points with random labels, whole batch,
float64.
"""

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.architectures import build_mlp
from zoo.dynamics.data_symmetry import (
    angular_momentum_residual,
    one_parameter_orbit,
    orbit_gradient,
    rotation_generator,
)
from zoo.params import stack

ANGLES, COUNT, WEIGHT = (1, 4, 16, 64), 20, "layers.0.weight"


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Half of the squared distance to the one-hot label, mean over images."""
    return (outputs - F.one_hot(y, 3)).square().sum(1).mean() / 2


def row(activation: str, loss: Callable[[Tensor, Tensor], Tensor], draws: int) -> str:
    """Median (quartiles) of the residual over networks and data, for each number of angles."""
    architecture, turns = build_mlp((2,), 3, (16, 16), activation=activation), rotation_generator(2)
    drawn = stack([architecture.init(torch.Generator().manual_seed(seed)) for seed in range(COUNT)])
    params, cells = {name: 3 * tensor.double() for name, tensor in drawn.items()}, []
    for angles in ANGLES:
        residuals = []
        for draw in range(draws):
            source = torch.Generator().manual_seed(draw)
            batch = (
                torch.randn(32, 2, generator=source, dtype=torch.float64),
                torch.randint(3, (32,), generator=source),
            )
            gradient = orbit_gradient(
                architecture.apply, params, batch, one_parameter_orbit(turns, angles), WEIGHT, loss
            )
            residuals.append(angular_momentum_residual(gradient, params[WEIGHT], turns))
        low, middle, high = (
            torch.cat(residuals)
            .quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
            .tolist()
        )
        cells.append(f"{middle:.0e} ({low:.0e} to {high:.0e})")
    return " | ".join(cells)


def main() -> None:
    """Print the table, and write it to a file if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"# Angular momentum: results of {datetime.date.today()}",
        "",
        f"MLPs 2-16-16-3, PyTorch's initialization times 3, float64: median (quartiles) of {COUNT} "
        "networks on",
        f"{arguments.draws} draws of 32 points with random labels, for each number of angles.",
        "",
        f"| activation | loss | {' | '.join(map(str, ANGLES))} |",
        "|---|---|---|---|---|---|",
    ]
    losses = {"cross-entropy": F.cross_entropy, "squared error": squared_error}
    for activation in ("gelu", "silu", "relu", "linear"):
        lines += [
            f"| {activation} | {name} | {row(activation, loss, arguments.draws)} |"
            for name, loss in losses.items()
        ]
    print("\n".join(lines))
    if arguments.save:
        arguments.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
