"""Convolutions of networks in lock step, by layout.

Grouped, products on unfolded patches, products of shifted images.

    python benchmarks/convolution_layouts.py [--repeats 7] [--device cuda]

Milliseconds for the outputs and both gradients of one layer, compiled, one thread on a CPU;
variants in turn.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

# networks, images, channels in and out, height and width, stride: the layers of the small CNN, and
# of ResNet8
SHAPES = (
    (11, 32, 1, 16, 14, 2),
    (11, 32, 16, 16, 7, 2),
    (11, 32, 16, 16, 4, 2),
    (4, 64, 3, 16, 32, 1),
    (4, 64, 16, 16, 32, 1),
    (4, 64, 16, 32, 32, 2),
    (4, 64, 32, 32, 16, 1),
    (4, 64, 64, 64, 8, 1),
)


def grouped(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """What vmap makes of a convolution: one with a group for each network."""
    return F.conv2d(x, weight, None, stride, 1)


def windows(x: Tensor, stride: int) -> list[Tensor]:
    """The nine shifted images `[B, h, w, C]` of a 3x3 convolution."""
    size = (x.shape[2] - 1) // stride * stride + 1
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    return [
        padded[:, i : i + size : stride, j : j + size : stride] for i in range(3) for j in range(3)
    ]


def patches_first(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One product with patches, channels first."""
    patches = torch.stack([window.permute(3, 0, 1, 2) for window in windows(x, stride)], 1)
    return (
        (weight.flatten(1) @ patches.flatten(2).flatten(0, 1))
        .unflatten(1, patches.shape[2:])
        .movedim(0, 1)
    )


def patches_last(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One product with patches, channels last."""
    patches = torch.stack(windows(x, stride), 3)
    out = patches.flatten(0, 2).flatten(1) @ weight.permute(2, 3, 1, 0).flatten(0, 2)
    return out.unflatten(0, patches.shape[:3]).permute(0, 3, 1, 2)


def shifted(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Nine products, one for each position of the kernel."""
    products = [
        window @ weight[:, :, k // 3, k % 3].T for k, window in enumerate(windows(x, stride))
    ]
    return torch.stack(products).sum(0).permute(0, 3, 1, 2)


LAYOUTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "grouped": grouped,
    "patches, channels first": patches_first,
    "patches, channels last": patches_last,
    "nine products": shifted,
}


def compiled_step(layout: str, stride: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Gradients of a loss with respect to images and weights, compiled."""

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return LAYOUTS[layout](x, weight, stride).relu().square().mean()

    return torch.compile(vmap(grad(loss, argnums=(0, 1))), dynamic=False, fullgraph=True)


def seconds(step: Callable[..., object], *inputs: Tensor) -> float:
    """Time of three calls."""
    start = time.perf_counter()
    for _ in range(3):
        step(*inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| networks, images, channels in, out, size, stride | "
        + " | ".join(f"{name}, ms" for name in LAYOUTS)
        + " |"
    )
    print("|---|" + "---|" * len(LAYOUTS))
    for networks, images, fan_in, fan_out, size, stride in SHAPES:
        torch._dynamo.reset()
        x = torch.randn(networks, images, fan_in, size, size, device=options.device)
        weight = torch.randn(networks, fan_out, fan_in, 3, 3, device=options.device)
        steps = {name: compiled_step(name, stride) for name in LAYOUTS}
        of_step = {name: step(x, weight) for name, step in steps.items()}
        for name, gradients in of_step.items():
            torch.testing.assert_close(
                gradients,
                of_step["grouped"],
                rtol=1e-3,
                atol=1e-4,
                msg=lambda text, n=name: f"{n}: {text}",
            )
        times: dict[str, list[float]] = {name: [] for name in LAYOUTS}
        for _ in range(options.repeats):
            for name, step in steps.items():
                times[name].append(1e3 * seconds(step, x, weight) / 3)
        cells = [
            f"{statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f})" for t in times.values()
        ]
        print(
            f"| {networks}, {images}, {fan_in}, {fan_out}, {size}, {stride} | "
            + " | ".join(cells)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
