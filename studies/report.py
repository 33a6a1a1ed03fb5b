"""The report of a learnability study: one HTML file with its figures inside, readable without a network, scripts or color."""

import base64
import html
import io
import os
import platform
import shlex
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from metanet.treatments import NONE
from studies.ablation import ablation_cells, explain_ablation
from studies.cells import open_population, read_labels
from studies.config import FLOOR, Learnability
from studies.efficiency import efficiency, efficiency_cells, explain_efficiency
from studies.plan import choose_populations
from studies.plots import LOWEST, STYLE, plot_curves, plot_labels, plot_predictions, words
from studies.scores import MATCHED, TRUE
from studies.summary import abroad, average_seeds, explain, home, largest, notes, table_cells, title
from studies.transfer import impossible
from zoo.population import load
from zoo.store import write_text

METRICS = ("r2", "kendall_tau", "spearman", "mae")
NOT_FUNCTIONS = ("sharpness", "squared_weight_norm")
NOT_A_FUNCTION = (
    "{} is no property of the function that a network computes: networks with the same function can differ in it. A symmetry "
    "that changes it, such as the scales of ReLU neurons, must not be taken away (treatment canonicalize with scales: false), "
    "nor a metanet be invariant to it."
)
MATCHED_WHY = (
    "Label-matched: in each bin of the target every population keeps as many test networks, drawn at random, as the population "
    "with the fewest has there, so that “easier to predict” cannot mean “different labels”."
)

CSS = """
body { margin: 2.2rem auto; max-width: 66rem; padding: 0 1.5rem; color: #222; background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.55rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } .wide { overflow-x: auto; }
p { max-width: 48rem; margin: .4rem 0; } .quiet, figcaption { color: #555; font-size: .88rem; max-width: 52rem; }
figure { margin: 1rem 0 1.6rem; } figure img { width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .22rem 1.1rem .22rem 0; white-space: nowrap; } thead th { border-bottom: 1.5px solid #444; }
td.long { white-space: normal; }
tr.first td { border-top: 1px solid #ccc; } tbody tr:first-child td { border-top: 0; }
pre { background: #f6f6f6; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.4; }
"""


def write_report(config: Learnability, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, with the cells in it.

    Returns:
        The file.
    """
    ablation = pd.read_parquet(out / "ablation.parquet")
    with rc_context(STYLE):
        sections = [
            _section(config, rows.loc[rows["target"] == target], ablation.loc[ablation["target"] == target], target, out)
            for target in config.targets
        ]
    populations, metanets = rows["population"].nunique(), rows["metanet"].nunique()
    lead = (
        f"How well {metanets} metanets predict a network's {', '.join(map(words, config.targets))} from its weights, in "
        f"{populations} populations of the zoo {config.zoo.name}. The metanet {FLOOR} is the floor: it sees no weights, only "
        f"the hyperparameters that a network was trained with."
    )
    body = f"<h1>Learnability</h1><p>{_escape(lead)}</p>{''.join(sections)}{_details(config, rows, out)}"
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Learnability: {_escape(config.zoo.name)}</title><style>{CSS}</style></head><body>{body}</body></html>\n"
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def _section(config: Learnability, rows: pd.DataFrame, ablation: pd.DataFrame, target: str, out: Path) -> str:
    averages = average_seeds(home(rows))
    best = largest(averages)
    zoo = load(config.zoo)
    populations = {name: open_population(config.zoo, name, target, out) for name in choose_populations(config, zoo)}
    labels = {
        name: np.concatenate([read_labels(population, split, target).y.numpy() for split in population.splits])
        for name, population in populations.items()
    }
    parts = [f"<h2>Predicting {_escape(words(target))}</h2>", _table(table_cells(best, METRICS))]
    parts += [_quiet(text) for text in (" ".join(explain(best)), *notes(home(rows)))]
    if target in NOT_FUNCTIONS or any(target in population.hyperparameters for population in populations.values()):
        parts.append(_quiet(NOT_A_FUNCTION.format(words(target).capitalize())))
    parts += [*_curves(averages), *_ablation(ablation), *_efficiency(averages, config)]
    caption = (
        f"Predicted against true {words(target)} of the test networks, seed {rows['seed'].iloc[0]}; on the dashed line the "
        f"prediction is exact."
    )
    plain = home(rows).query("labels == @TRUE and treatment == @NONE")
    scatter = plot_predictions(plain, main_metanets(best), target, out)
    parts += ["<h2>Predicted against true</h2>", _figure(scatter, caption)]
    caption = f"{words(target).capitalize()} of all networks with a finite value, by population; dashed: the median."
    parts += ["<h2>What there is to predict</h2>", _figure(plot_labels(labels, target), caption)]
    matched = _table(table_cells(best, [MATCHED + metric for metric in METRICS]))
    parts += ["<h2>The same on label-matched test networks</h2>", f"<p>{_escape(MATCHED_WHY)}</p>", matched]
    return "".join([*parts, *_transfer(config, rows)])


def _curves(averages: pd.DataFrame) -> list[str]:
    """Learning curves without treatment, then those of each treated metanet with all its treatments."""
    learned = averages.loc[averages["labels"] == TRUE]
    plain = learned.loc[learned["treatment"] == NONE]
    parts = ["<h2>Learning curves</h2>"]
    for metric in ("r2", "kendall_tau"):
        caption = (
            f"{title(metric)} against the number of training networks, no treatment: mean over seeds; bands: 95% bootstrap "
            f"interval over test networks, mean over seeds. Scores below {LOWEST} are cut off."
        )
        parts.append(_figure(plot_curves(plain, metric), caption))
    for metanet in learned.loc[learned["treatment"] != NONE, "metanet"].unique():
        curves = learned.loc[learned["metanet"] == metanet]
        sizes = curves.loc[curves["treatment"] != NONE, "num_train"].unique()
        if len(sizes) > 1:
            shown = plot_curves(curves.loc[curves["num_train"].isin(sizes)], "r2", "population", "treatment")
            parts.append(_figure(shown, f"{metanet}: {title('r2')} with each treatment, one panel a population; as above."))
    return parts


def _ablation(ablation: pd.DataFrame) -> list[str]:
    parts = ["<h2>What each way to handle symmetry buys</h2>", f"<p>{_escape(explain_ablation(ablation))}</p>"]
    parts += ["<h3>All test networks</h3>", _table(ablation_cells(ablation))]
    if np.isfinite(ablation[f"{MATCHED}r2"].to_numpy()).any():
        parts += ["<h3>Label-matched test networks</h3>", _table(ablation_cells(ablation, MATCHED))]
    return parts


def _efficiency(averages: pd.DataFrame, config: Learnability) -> list[str]:
    lines = efficiency(averages.loc[averages["labels"] == TRUE], config.reach)
    if lines.empty:
        return []
    return ["<h2>Networks needed</h2>", _table(efficiency_cells(lines)), _quiet(explain_efficiency(lines))]


def _transfer(config: Learnability, rows: pd.DataFrame) -> list[str]:
    if not config.transfer and not config.transfer_zoos:
        return []
    parts = ["<h2>Transfer to other populations</h2>"]
    if not abroad(rows).empty:
        parts.append(_table(table_cells(largest(average_seeds(abroad(rows))), METRICS)))
    return parts + [_quiet(text) for text in impossible(config, choose_populations(config, load(config.zoo)))]


def main_metanets(best: pd.DataFrame) -> list[str]:
    """The metanets whose predictions are shown: the flat `mlp`, if there, and the best one but the floor, by mean R^2."""
    plain = best.query("labels == @TRUE and treatment == @NONE")
    means = pd.Series(plain.groupby("metanet", sort=False)["r2"].mean()).to_dict()
    ranked = sorted((name for name in means if name != FLOOR or len(means) == 1), key=lambda name: -means[name])
    return list(dict.fromkeys([*(["mlp"] if "mlp" in ranked else []), ranked[0]]))


def _figure(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    text = _escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _quiet(text: str) -> str:
    return f'<p class="quiet">{_escape(text)}</p>'


def _table(cells: pd.DataFrame) -> str:
    head = "".join(f"<th>{_escape(name)}</th>" for name in cells.columns)
    lines, before = [], None
    for values in cells.to_numpy().tolist():
        start = '<tr class="first">' if values[0] != before else "<tr>"
        lines.append(start + "".join(f"<td>{_escape(value)}</td>" for value in values) + "</tr>")
        before = values[0]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _details(config: Learnability, rows: pd.DataFrame, out: Path) -> str:
    packages = ("symzoo", "torch", "scikit-learn", "numpy", "pandas")
    seconds = pd.Series(home(rows).groupby("metanet", sort=False)["seconds"].sum()).to_dict()
    facts = {
        "command": shlex.join(["symzoo", "study", "learnability", "--config", str(out / "config.yaml"), "--out", str(out)]),
        "cells": f"{len(home(rows))}, seeds {', '.join(map(str, config.seeds))}",
        "seconds of one core": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)]),
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} (where this page was written)",
    }
    lines = "".join(f'<tr><td>{name}</td><td class="long">{_escape(text)}</td></tr>' for name, text in facts.items())
    return f"<h2>How it was made</h2><table><tbody>{lines}</tbody></table><pre>{_escape(config.to_yaml())}</pre>"


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
