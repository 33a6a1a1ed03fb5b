"""How often `align` finds a planted symmetry, by shape, alone and after `canonicalize`.

    python benchmarks/alignment_recovery.py [--networks 20] [--starts 3] [--save FILE]

A reference is drawn as training begins. Its disguises are moved by random elements of its group; to
some noise is added, as much as 2% of the spread of each tensor. A disguise is recovered if no entry
of the aligned one is further from the reference than 1e-6, with noise than half of the spread:
another neuron in its place is further away.
"""

import argparse
import datetime
import platform
from pathlib import Path

import torch

from tests.cost import processor
from zoo.architectures import Architecture, build_cnn, build_mlp, build_siren, build_transformer
from zoo.params import Params
from zoo.symmetry.action import GroupElement, act, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize

SHAPES: dict[str, Architecture] = {
    "mlp 64-32-32-10": build_mlp((64,), 10, (32, 32)),
    "mlp 64-32-32-32-10": build_mlp((64,), 10, (32, 32, 32)),
    "cnn 1-16-16-16": build_cnn((1, 8, 8), 10),
    "transformer, 2 blocks of 32": build_transformer((1, 8, 8), 10),
    "siren 2-32-32-1": build_siren((2,), 1, (32, 32)),
    "siren 2-64-64-64-1": build_siren((2,), 1, (64, 64, 64)),
}


def spread(tensor: torch.Tensor) -> float:
    """Root mean square of the entries."""
    return float(tensor.square().mean().sqrt())


def disguises(
    shape: Architecture, reference: Params, count: int, scales: bool, noise: float, seed: int
) -> Params:
    """Moved copies of a network, with noise."""
    generator = torch.Generator().manual_seed(seed)
    element = sample(shape.space, generator, (count,))
    element = element if scales else GroupElement(element.permutations, {})
    noisy = {
        name: tensor
        + noise * spread(tensor) * torch.randn(count, *tensor.shape, generator=generator)
        for name, tensor in reference.items()
    }
    return act(shape.space, element, noisy)


def recovered(
    shape: Architecture, count: int, starts: int, scales: bool, noise: float, canonical: bool
) -> int:
    """How many disguises come back to the reference."""
    source = torch.Generator().manual_seed(0)
    reference = {name: tensor.double() for name, tensor in shape.init(source).items()}
    reference = {  # no entry of a fresh network may be exactly 0 or 1
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
        for name, tensor in reference.items()
    }
    networks = disguises(shape, reference, count, scales, noise, 1)
    if canonical:
        reference, networks = (canonicalize(shape.space, p) for p in (reference, networks))
    # A canonical form has signs and scales of its own, which noise may turn.
    back = align(shape.space, networks, reference, starts, scales=scales or canonical)
    aligned = act(shape.space, back, networks)
    near = torch.ones(count, dtype=torch.bool)
    for name, tensor in reference.items():
        bound = 0.5 * spread(tensor) if noise else 1e-6
        near &= (aligned[name] - tensor).abs().flatten(1).amax(1) < bound
    return int(near.sum())


def main() -> None:
    """Run and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    lines = [
        "| shape | moved by | noise | `align` | `canonicalize`, then `align` |",
        "|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        for scales in (False, True):
            for noise in (0.0, 0.02):
                counts = [
                    recovered(shape, options.networks, options.starts, scales, noise, canonical)
                    for canonical in (False, True)
                ]
                group = "permutations and scales" if scales else "permutations"
                shares = " | ".join(f"{count} of {options.networks}" for count in counts)
                lines.append(f"| {name} | {group} | {noise:.0%} | {shares} |")
                print(lines[-1], flush=True)
    told = f"# Planted symmetries that come back\n\n{datetime.date.today()}, {processor()}, torch "
    told += f"{torch.__version__}, Python {platform.python_version()}, {options.starts} starts.\n\n"
    if options.save:
        options.save.write_text(told + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
