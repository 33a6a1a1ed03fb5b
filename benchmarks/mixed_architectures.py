"""How well one metanet predicts the accuracy of networks of architectures that it has never seen.

    generate-zoo mixed
    python benchmarks/mixed_architectures.py runs/mixed [--seeds 0 1] [--save FILE]

`gmn` learns from eight architectures at once, and is tested on the test networks of each
population. Floors learn from the same
networks: boosted trees on hyperparameters, with the size of the architecture; boosted trees on
    seven statistics of each of the
first two and the last two tensors, which every architecture has; and the mean of the training
targets.
"""

import argparse
import datetime
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

import zoo
from metanet import Metanet
from metanet.inputs.dataset import read_examples
from metanet.inputs.features import statistics
from metanet.inputs.reader import spec_of
from metanet.metrics import Estimate, bootstrap
from zoo.store.population import Population

HELD_OUT = {
    "mlp_32": "width between",
    "mlp_24_24_24": "deeper",
    "cnn_12_12": "width between",
    "cnn_8_12_16": "deeper",
}
TARGET = "test_accuracy"
ENDS = 14
"""Columns of statistics at either end: two tensors, a weight and a bias."""

Predict = Callable[[Population], tuple[np.ndarray, np.ndarray]]


def of_hyperparameters(population: Population, split: str) -> np.ndarray:
    """Hyperparameters that are numbers, and the size of the architecture."""
    table = read_examples(population, split, TARGET, "hyperparameters").networks.parts[0].networks
    columns = table.select_dtypes("number").to_numpy(dtype=float)
    space = population.space
    sizes = [
        space.num_params,
        len(space.tensors),
        sum(group.size for group in space.groups.values()),
    ]
    return np.concatenate([columns, np.tile(sizes, (len(columns), 1))], axis=1)


def of_ends(population: Population, split: str) -> np.ndarray:
    """Statistics of the first and the last layer."""
    params = read_examples(population, split, TARGET, "params").networks.parts[0].networks
    columns = statistics(spec_of(population), params).numpy()
    return np.concatenate([columns[:, :ENDS], columns[:, -ENDS:]], axis=1)


def targets(population: Population, split: str) -> np.ndarray:
    """True accuracies."""
    return read_examples(population, split, TARGET, "hyperparameters").y.numpy()


def boosted(
    features: Callable[[Population, str], np.ndarray], train: list[Population], seed: int
) -> Predict:
    """Boosted trees on features of all training populations together."""
    parts = [
        (features(population, split), targets(population, split))
        for population in train
        for split in ("train", "validation")
    ]
    trees = HistGradientBoostingRegressor(
        learning_rate=0.05,
        early_stopping=True,  # type: ignore[arg-type]
        max_iter=1000,
        random_state=seed,
    )
    trees.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
    return lambda population: (
        targets(population, "test"),
        trees.predict(features(population, "test")),
    )


def mean_of(train: list[Population]) -> Predict:
    """The mean of the training targets."""
    mean = np.concatenate([targets(population, "train") for population in train]).mean()
    return lambda population: (y := targets(population, "test"), np.full(len(y), mean))


def text(estimate: Estimate) -> str:
    """Value and interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def rows_of(
    name: str, seed: int, predict: Predict, populations: Mapping[str, Population]
) -> list[str]:
    """One row for each population."""
    rows = []
    for architecture, population in populations.items():
        scores = bootstrap(*predict(population))
        kind = HELD_OUT.get(architecture, "fitted")
        rows.append(
            f"| {architecture} | {kind} | {name} | {seed} | {text(scores['r2'])} | "
            f"{text(scores['kendall_tau'])} |"
        )
    return rows


def main() -> None:
    """Train, measure and print the report."""
    parser = argparse.ArgumentParser(
        description="R^2 and Kendall's tau on architectures that were held out"
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--own", action="store_true", help="also fit gmn on each held-out population alone"
    )
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    populations = dict(zoo.load(arguments.zoo))
    train = [population for name, population in populations.items() if name not in HELD_OUT]
    held_out = {name: populations[name] for name in HELD_OUT}
    lines = []
    for seed in arguments.seeds:
        start = time.perf_counter()
        metanet = Metanet("gmn", target=TARGET, seed=seed, epochs=arguments.epochs).fit(train)
        seconds = time.perf_counter() - start
        lines += rows_of("gmn", seed, metanet.predict_examples, populations)
        lines += rows_of(
            "trees, hyperparameters", seed, boosted(of_hyperparameters, train, seed), held_out
        )
        lines += rows_of(
            "trees, first and last layer", seed, boosted(of_ends, train, seed), held_out
        )
        if arguments.own:
            for name, population in held_out.items():
                alone = Metanet("gmn", target=TARGET, seed=seed).fit(population)
                lines += rows_of(
                    "gmn fitted on it alone", seed, alone.predict_examples, {name: population}
                )
        print(
            f"seed {seed}: {metanet.num_train_} networks, {len(metanet.history_.validation_loss)} "
            f"passes, {seconds:.0f} s"
        )
    lines += rows_of("mean", 0, mean_of(train), held_out)
    header = [
        "## Architectures that were held out",
        "",
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}. Fitted on "
        f"{', '.join(population.name for population in train)}. "
        "95% bootstrap intervals over test networks.",
        "",
        "| population | kind | predictor | seed | R^2 | Kendall's tau |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join([*header, *lines]))
    if arguments.save:
        arguments.save.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
