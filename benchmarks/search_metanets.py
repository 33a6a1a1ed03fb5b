"""The search that chose each metanet's recommended settings.

The same number of fits for each, judged on validation networks.

    python benchmarks/search_metanets.py ZOO [--population standard] [--metanets gmn nfn]
    [--num-train 1000] [--workers 2]

Six settings for each metanet: three learning rates by two values of the option that matters most.
    Every fit learns from the
first networks of the train split and is scored by R^2 on the first networks of the validation
split, which also stop it. Test networks are never read. Prints a table; the best line of a metanet
is what its `recommended` and its defaults say.
"""

import argparse
import datetime
import itertools
import multiprocessing
import platform
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from metanet import Metanet
from metanet.inputs.dataset import read_examples
from metanet.metrics import kendall_tau, r2

RATES = (1e-3, 3e-3, 1e-2)
SPACES: dict[str, tuple[tuple[float, ...], str, tuple[Any, ...]]] = {
    "gbm": ((0.03, 0.05, 0.1), "max_leaf_nodes", (15, 31)),
    "statnn": (RATES, "width", (64, 256)),
    "mlp": (RATES, "dropout", (0.0, 0.5)),
    "dmc": (RATES, "width", (32, 64)),
    "deepsets": (RATES, "width", (32, 64)),
    "tokens": ((3e-4, 1e-3, 3e-3), "layers", (2, 4)),
    "nfn": (RATES, "layers", (2, 3)),
    "gmn": (RATES, "layers", (2, 3)),
    "width_gmn": (RATES, "layers", (2, 3)),
    "scale_gmn": (RATES, "layers", (2, 3)),
    "graph_transformer": ((3e-4, 1e-3, 3e-3), "layers", (2, 3)),
    "probe": (RATES, "num_probes", (32, 64)),
}


def fit(job: tuple[str, str, str, float, str, Any, int]) -> str:
    """One fit, as a line of the table."""
    folder, population, name, rate, option, value, count = job
    torch.set_num_threads(1)
    networks = zoo.load(folder)[population]
    start = time.perf_counter()
    model = Metanet(name, lr=rate, **{option: value}).fit(
        networks, num_train=count, num_validation=count // 2
    )
    seconds = time.perf_counter() - start
    check = read_examples(networks, "validation", model.target, "params", count // 2)
    truth, prediction = check.y.numpy(), model.predict(check.networks.parts[0].networks)
    scores = f"{r2(truth, prediction):.4f} | {kendall_tau(truth, prediction):.4f}"
    return (
        f"| {name} | {rate:g} | {option}={value} | {scores} | {model.history_.best_epoch + 1} | "
        f"{seconds:.0f} |"
    )


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(
        description="search of learning rates and sizes, equal budget for every metanet"
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--population", default="standard")
    parser.add_argument("--metanets", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [
        (str(arguments.zoo), arguments.population, name, rate, option, value, arguments.num_train)
        for name in arguments.metanets
        for rates, option, values in [SPACES[name]]
        for value, rate in itertools.product(values, rates)
    ]
    print(
        f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, "
        f"{arguments.zoo.name}, ",
        end="",
    )
    print(f"{arguments.population}, {arguments.num_train} training networks, one seed.\n")
    print(
        "| metanet | lr | option | validation R2 | validation tau | best pass | s "
        "|\n|---|---|---|---|---|---|---|"
    )
    with multiprocessing.get_context("spawn").Pool(arguments.workers, maxtasksperchild=1) as pool:
        for line in pool.imap(fit, jobs, chunksize=1):
            print(line, flush=True)


if __name__ == "__main__":
    main()
