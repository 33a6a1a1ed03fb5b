"""Canonical forms of a population, and its alignment to one network against a plain loop.

    python benchmarks/symmetry_speed.py [--repeats 7] [--threads 2] [--save FILE]

The loop is Git Re-Basin as it is usually written: for each network, in random order for each group,
products of all its tensors' slices with those of the reference, one linear assignment, until a
round changes nothing. Both have the same orders and must reach the same objectives (checked in
float64). They run in turn, in one process.
"""

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import zoo.symmetry.assignment
from zoo.architectures import build_mlp
from zoo.params import Params, flatten
from zoo.symmetry.action import GroupElement, act, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.weight_space import WeightSpace

NETWORK = build_mlp((64,), 10, (48, 32))
CANONICAL, ALIGNED = 10_000, 1_000
NOISE = {"unrelated to the reference": None, "copies of it, permuted, with noise of 0.3 std": 0.3}


def population(count: int, seed: int) -> Params:
    """Networks with entries like those of PyTorch's initialization, but normal, and biases."""
    generator = torch.Generator().manual_seed(seed)
    shapes = NETWORK.space.shapes.items()
    return {
        n: torch.randn(count, *shape, generator=generator) / shape[-1] ** 0.5 for n, shape in shapes
    }


def copies(reference: Mapping[str, Tensor], count: int, noise: float | None) -> Params:
    """Networks that are the reference, moved and with noise, or that have nothing to do with it."""
    if noise is None:
        return population(count, 2)
    others, element = (
        population(count, 2),
        sample(NETWORK.space, torch.Generator().manual_seed(3), (count,)),
    )
    noisy = {name: tensor + noise * others[name] for name, tensor in reference.items()}
    return act(NETWORK.space, GroupElement(element.permutations, {}), noisy)


def loop(
    space: WeightSpace, params: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> list[GroupElement]:
    """Align network by network, groups in the orders that `align` has."""
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)))
    axes = {name: [] for name, group in space.groups.items() if group.permutable}
    for tensor in space.tensors:
        for axis, factors in enumerate(space.pattern(tensor).axes):
            if str(factors[0]) in axes:
                axes[str(factors[0])].append((tensor, axis))
    names = list(axes)
    elements = []
    for k in range(len(next(iter(params.values())))):
        network = {name: tensor[k] for name, tensor in params.items()}
        permutations = {name: torch.arange(space.groups[name].size) for name in names}
        generator = torch.Generator().manual_seed(seed)
        progress = True
        while progress:
            progress = False
            for i in torch.randperm(len(names), generator=generator).tolist():
                name = names[i]
                size = space.groups[name].size
                gains = reference[axes[name][0][0]].new_zeros(size, size)
                for tensor, axis in axes[name]:
                    moved = network[tensor]
                    for other in names:
                        for owner, place in axes[other]:
                            if owner == tensor and other != name:
                                moved = moved.index_select(place, permutations[other])
                    moved, target = (
                        moved.movedim(axis, 0).reshape(size, -1),
                        reference[tensor].movedim(axis, 0).reshape(size, -1),
                    )
                    gains += target @ moved.T
                rows, order = linear_sum_assignment(gains.numpy(), maximize=True)
                order = torch.from_numpy(order)
                new, old = gains[rows, order].sum(), gains[rows, permutations[name]].sum()
                progress = progress or bool(new > old + 1e-6)
                permutations[name] = order
        elements.append(GroupElement(permutations, {}))
    return elements


def objectives(params: Params, reference: Params) -> Tensor:
    """Inner products with the reference."""
    return flatten(NETWORK.space, params).double() @ flatten(NETWORK.space, reference).double()


def compare(params: Params, reference: Params, repeats: int) -> list[tuple[float, float]]:
    """Seconds of `align` and of the loop, in turn."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        align(NETWORK.space, params, reference)
        between = time.perf_counter()
        loop(NETWORK.space, params, reference)
        times.append((between - start, time.perf_counter() - between))
    return times


def check(params: Params, reference: Params) -> None:
    """Whether both reach the same; in float64, where no rounding decides between two assignments.

    Raises:
        SystemExit: If the objectives differ.
    """
    params, reference = (
        {name: tensor.double() for name, tensor in part.items()} for part in (params, reference)
    )
    element, elements = (
        align(NETWORK.space, params, reference),
        loop(NETWORK.space, params, reference),
    )
    stacked = {
        name: torch.stack([one.permutations[name] for one in elements])
        for name in element.permutations
    }
    one, other = (
        objectives(act(NETWORK.space, e, params), reference)
        for e in (element, GroupElement(stacked, {}))
    )
    if not torch.allclose(one, other, rtol=1e-9):
        raise SystemExit(f"the objectives differ by {float((one - other).abs().max())}")


def solver_seconds(params: Params, reference: Params) -> float:
    """Seconds that scipy alone takes, one thread, for the assignments of one call of `align`."""
    spent, solve = [0.0], zoo.symmetry.assignment.linear_sum_assignment

    def timed(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = time.perf_counter()
        result = solve(costs)
        spent[0] += time.perf_counter() - start
        return result

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    zoo.symmetry.assignment.linear_sum_assignment = timed
    align(NETWORK.space, params, reference)
    zoo.symmetry.assignment.linear_sum_assignment = solve
    torch.set_num_threads(threads)
    return spent[0]


def spread(values: list[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to "
        f"{max(values):.{digits}f})"
    )


def main() -> None:
    """Run and print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    space, many = NETWORK.space, population(CANONICAL, 0)
    canonicalize(space, many)
    times = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        canonicalize(space, many)
        times.append(time.perf_counter() - start)
    lines = [
        "## Canonical form and alignment",
        "",
        f"{datetime.date.today()}, {options.threads} threads on {platform.machine()}, torch "
        f"{torch.__version__}, "
        f"MLP 64-48-32-10, ReLU ({space.num_params} parameters), float32, "
        f"n = {options.repeats}. Median (smallest to largest).",
        "",
        f"Canonical form (permutations and positive scales) of {CANONICAL} networks: "
        f"{spread(times, 2)} s.",
        "",
        f"| {ALIGNED} networks | `align`, s | loop, s | loop / `align` | scipy alone on one "
        "thread, s |",
        "|---|---|---|---|---|",
    ]
    reference = {name: tensor[0] for name, tensor in population(1, 1).items()}
    for label, noise in NOISE.items():
        params = copies(reference, ALIGNED, noise)
        check(params, reference)
        rounds = compare(params, reference, options.repeats)
        fast, slow, ratios = (
            [row[0] for row in rounds],
            [row[1] for row in rounds],
            [row[1] / row[0] for row in rounds],
        )
        alone = solver_seconds(params, reference)
        lines.append(
            f"| {label} | {spread(fast, 3)} | {spread(slow, 3)} | {spread(ratios, 1)} | "
            f"{alone:.3f} |"
        )
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
