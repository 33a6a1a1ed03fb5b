"""Tangent kernels.

Contraction of Jacobians against products with vectors, and errors of the linear prediction by
width.

    python benchmarks/tangent_kernel.py [--repeats 5] [--draws 5] [--save FILE]

Products with vectors are the other usual way to a kernel: for each image and output a gradient, and
the derivative of all outputs in its direction. Both kernels are compared first (float64). All run
in turn, in one process, on one thread.
"""

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp, vjp, vmap

from zoo.architectures import Architecture, build_cnn, build_mlp, build_transformer
from zoo.dynamics.finite_width import Apply, tangent_kernel, tangent_kernel_trace
from zoo.dynamics.gradient_flow import flow
from zoo.dynamics.linearization import kernel_distance, prediction_error
from zoo.params import Params, stack

NETWORKS: dict[str, tuple[Architecture, tuple[int, ...]]] = {
    "MLP 64-32-32-10": (build_mlp((64,), 10, (32, 32)), (64,)),
    "MLP 64-256-256-10": (build_mlp((64,), 10, (256, 256)), (64,)),
    "MLP 64-256-256-1": (build_mlp((64,), 1, (256, 256)), (64,)),
    "CNN 1-16-16-16-10, 14 x 14": (build_cnn((1, 14, 14), 10, (16, 16, 16)), (1, 14, 14)),
    "transformer, 8 x 8, patches of 4": (build_transformer((1, 8, 8), 10, patch=4), (1, 8, 8)),
}
COUNT, IMAGES = 8, 16
WIDTHS = (64, 256, 1024)
FAMILIES = {
    "tanh, NTK": ("tanh", True),
    "GELU, NTK": ("gelu", True),
    "ReLU, NTK": ("relu", True),
    "tanh, PyTorch": ("tanh", False),
}


def products(apply: Apply, params: Params, x: Tensor) -> Tensor:
    """The kernel column by column, `[N, Y, K, X, K]`."""

    def one(params: Params) -> Tensor:
        def column(image: Tensor, output: Tensor) -> Tensor:
            direction = vjp(lambda p: apply(p, image[None])[0], params)[1](output)[0]
            return jvp(lambda p: apply(p, x), (params,), (direction,))[1]

        basis = torch.eye(apply(params, x[:1]).shape[1], dtype=x.dtype)
        return vmap(lambda image: vmap(lambda output: column(image, output))(basis))(x)

    return vmap(one)(params)


def seconds(function: Callable[[], Tensor], repeats: int) -> str:
    """Median (smallest to largest) of some runs after a first one."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})"


def speed(repeats: int) -> list[str]:
    """Rows of the table of times."""
    rows = []
    for name, (architecture, shape) in NETWORKS.items():
        params = stack(
            [architecture.init(torch.Generator().manual_seed(seed)) for seed in range(COUNT)]
        )
        x = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
        double = {key: tensor.double() for key, tensor in params.items()}
        ours, theirs = (
            tangent_kernel(architecture.apply, double, x.double()),
            products(architecture.apply, double, x.double()),
        )
        torch.testing.assert_close(ours, theirs)
        ways = (
            lambda a=architecture, p=params, x=x: tangent_kernel(a.apply, p, x),
            lambda a=architecture, p=params, x=x: tangent_kernel_trace(a.apply, p, x),
            lambda a=architecture, p=params, x=x: products(a.apply, p, x),
        )
        rows.append(
            f"| {name} | {architecture.space.num_params:,} | "
            f"{' | '.join(seconds(way, repeats) for way in ways)} |"
        )
    return rows


def by_width(activation: str, kernel_scaling: bool, draw: int) -> tuple[list[float], list[float]]:
    """Median error of the prediction, and drift of the kernel, over 16 networks, by width."""
    source = torch.Generator().manual_seed(draw)
    x = F.normalize(torch.randn(6, 3, generator=source, dtype=torch.float64)) * 3**0.5
    y, errors, drifts = torch.randn(6, 1, generator=source, dtype=torch.float64), [], []
    for width in WIDTHS:
        architecture = build_mlp((3,), 1, (width,), activation=activation)
        scales = (
            {"layers.0.weight": 3**-0.5, "layers.1.weight": width**-0.5} if kernel_scaling else {}
        )
        params = stack([architecture.init(source) for _ in range(16)])
        if kernel_scaling:
            params = {
                name: torch.randn(tensor.shape, generator=source) for name, tensor in params.items()
            }
        params = {name: tensor.double() for name, tensor in params.items()}

        def apply(
            params: Params,
            x: Tensor,
            architecture: Architecture = architecture,
            scales: dict = scales,
        ) -> Tensor:
            return architecture.apply(
                {name: scales.get(name, 1.0) * tensor for name, tensor in params.items()}, x
            )

        before = tangent_kernel_trace(apply, params, x)
        duration = 4 / float(before.diagonal(dim1=1, dim2=2).mean())
        loss = lambda network, apply=apply: (apply(network, x) - y).square().sum() / 2  # noqa: E731
        after = flow(loss, params, duration, 40).params
        errors.append(float(prediction_error(apply, params, after, x, y, duration).median()))
        drifts.append(
            float(kernel_distance(tangent_kernel_trace(apply, after, x), before).median())
        )
    return errors, drifts


def slope(values: list[float]) -> float:
    """The power of width in a least-squares fit of logarithms."""
    place = torch.tensor(WIDTHS).log()
    return float(
        ((place - place.mean()) * torch.tensor(values).log()).sum()
        / (place - place.mean()).square().sum()
    )


def widths(draws: int) -> list[str]:
    """Rows of the table of errors by width."""
    rows = []
    for name, (activation, kernel_scaling) in FAMILIES.items():
        by_draw = [by_width(activation, kernel_scaling, draw) for draw in range(draws)]
        cells = [
            f"{statistics.mean(errors[i] for errors, _ in by_draw):.1e}" for i in range(len(WIDTHS))
        ]
        for part in (0, 1):
            slopes = [slope(pair[part]) for pair in by_draw]
            cells.append(f"{statistics.mean(slopes):.2f} ({min(slopes):.2f} to {max(slopes):.2f})")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print both tables, and write them to a file if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"# Tangent kernels: results of {datetime.date.today()}",
        "",
        f"1 thread of {platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}.",
        "",
        f"Milliseconds for {COUNT} networks, {IMAGES} images, float32: median (smallest to "
        f"largest), n = {arguments.repeats}.",
        "",
        "| networks | params | kernel | its trace | kernel by products with vectors |",
        "|---|---|---|---|---|",
        *speed(arguments.repeats),
        "",
        "Relative error of the linear prediction by width: medians of 16 networks, means of "
        f"{arguments.draws} draws of data.",
        "Then the power of width by which the error, and the drift of the kernel, fall: mean "
        "(smallest to largest).",
        "",
        f"| networks | {' | '.join(map(str, WIDTHS))} | power of the error | power of the drift |",
        "|---|---|---|---|---|---|",
        *widths(arguments.draws),
    ]
    print("\n".join(lines))
    if arguments.save:
        arguments.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
