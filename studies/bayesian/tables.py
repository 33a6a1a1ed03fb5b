"""Tables of a study of Bayesian networks."""

from pathlib import Path

import numpy as np
import pandas as pd

from data_gen.rng import key
from studies.bayesian.config import Bayesian, Chains
from studies.common.intervals import bootstrap_mean, interval_text
from studies.common.page import Table
from studies.common.rows import numbers, split_by, where

RESAMPLES = key(0, "bayesian interval")
KEYS = ["architecture", "init_scale", "rank", "asymmetry"]
SPACES = {"weights": "weights", "aligned": "aligned weights", "function": "predictions"}
METRICS = {
    "test_accuracy": "test accuracy",
    "mean_test_accuracy": "of the mean network",
    "test_loss": "test loss",
    "elbo": "ELBO per image",
    "ece": "ECE",
    "brier": "Brier score",
}


def last_records(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the variational part at the last epoch."""
    inferred = where(rows, part="variational")
    return where(inferred, epoch=inferred["epoch"].max())


def inference_cells(config: Bayesian, rows: pd.DataFrame) -> pd.DataFrame:
    """Results of variational inference, a line for each population, as texts.

    Args:
        config: The study's config.
        rows: Its rows.

    Returns:
        Table of mean and interval of each metric.
    """
    lines = []
    for (architecture, init_scale, rank, kind), networks in split_by(last_records(rows), KEYS):
        line = {"networks": str(architecture), "init scale": f"{init_scale:g}", "rank": f"{rank:g}"}
        line |= {"kind": str(kind), "n": str(len(networks))}
        for metric, title in METRICS.items():
            values = numbers(networks, metric)
            mean = bootstrap_mean(values, config.num_bootstrap, RESAMPLES)
            line[title] = interval_text(mean, ".3f")
        lines.append(line)
    return pd.DataFrame(lines)


def chain_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """R-hat of the chains, a line for each kind, as texts.

    Args:
        rows: The study's rows.

    Returns:
        Table; empty if there are no chains.
    """
    lines = []
    for kind, chains in split_by(where(rows, part="chains"), "asymmetry"):
        spaces = {str(space): numbers(here, "rhat") for space, here in split_by(chains, "space")}
        line = {"kind": str(kind)}
        for space, title in SPACES.items():
            ends = np.quantile(spaces[space], [0.5, 0.95]) if space in spaces else ()
            line[f"R-hat of {title}"] = ", ".join(f"{end:.3f}" for end in ends) or "-"
        line |= {"entries": str(len(spaces["weights"])), "points": str(len(spaces["function"]))}
        first = chains.iloc[0]
        line["acceptance"] = f"{first['acceptance']:.2f}"
        lines.append(line | {"test accuracy": f"{first['test_accuracy']:.3f}"})
    return pd.DataFrame(lines)


def explain(config: Bayesian) -> str:
    """What the table of variational inference shows."""
    return (
        f"After {config.epochs} epochs; mean over n networks (seeds) with its 95% bootstrap "
        "interval over networks. "
        f"Probabilities are averaged over {config.samples} draws of the posterior; losses and ELBO "
        "in nats."
    )


def explain_chains(chains: Chains) -> str:
    """What the table of chains shows."""
    return (
        f"{chains.chains} chains from draws of the prior, {chains.draws} draws each after "
        f"{chains.warmup} of warm-up, "
        f"{chains.leapfrog} leapfrog steps of {chains.step_size:g} a draw. R-hat: median and 95% "
        "quantile; "
        "above 1.01 chains have not mixed. Aligned weights: every draw brought to the order of "
        "neurons of one draw."
    )


def make_tables(config: Bayesian, rows: pd.DataFrame, out: Path) -> list[Table]:
    """The tables of both parts.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, not needed.

    Returns:
        One or two tables.
    """
    del out
    tables = [Table("Variational inference", inference_cells(config, rows), explain(config))]
    if config.chains is not None:
        tables.append(Table("Markov chains", chain_cells(rows), explain_chains(config.chains)))
    return tables
