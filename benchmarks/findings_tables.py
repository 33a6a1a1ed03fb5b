"""The tables and the picture of docs/findings.md, from finished studies of learnability.

python benchmarks/findings_tables.py curves runs/findings [--figure docs/images/findings.png]
python benchmarks/findings_tables.py paired runs/findings --best probe --against gbm
python benchmarks/findings_tables.py ablation runs/treatments
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.common.figures import COLORS, LINES, MARKERS, STYLE
from studies.common.grid import cell_path, read_cell
from studies.learnability.summary import average_seeds, format_interval

TITLES = {"findings": "MLPs 64-32-32-10, digits", "findings-cnn": "CNNs, MNIST"}


def curves(study: Path, metric: str) -> str:
    """A line a metanet, a column a number of training networks, best metanet first."""
    averages = average_seeds(pd.read_parquet(study / "rows.parquet"))
    sizes = sorted(averages["num_train"].unique())
    order = averages.loc[averages["num_train"] == sizes[-1]].sort_values(metric, ascending=False)[
        "metanet"
    ]
    lines = [
        f"| metanet | {' | '.join(f'n = {size:,}' for size in sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for name in order:
        at_size = {
            line["num_train"]: line
            for line in averages.loc[averages["metanet"] == name].to_dict("records")
        }
        lines.append(
            f"| `{name}` | {' | '.join(format_interval(at_size[size], metric) for size in sizes)} |"
        )
    return "\n".join(lines)


def paired(study: Path, best: str, against: str, resamples: int = 1000) -> str:
    """Mean difference of Kendall tau over seeds, with its interval over shared test networks."""
    rows: Any = pd.read_parquet(study / "rows.parquet")
    lines = []
    for size in sorted(rows["num_train"].unique()):
        sides = []
        for name in (best, against):
            keys = rows.loc[(rows["metanet"] == name) & (rows["num_train"] == size), "cell"]
            cells = [
                next(iter(read_cell(cell_path(study, key)).groupby("test_population", sort=False)))[
                    1
                ]
                for key in keys
            ]
            count = len(cells[0])
            resampled = np.random.default_rng(0).multinomial(
                count, np.full(count, 1 / count), resamples
            )
            counts = np.concatenate([np.ones((1, count)), resampled])
            sides.append(
                np.mean(
                    [
                        resampled_tau(
                            cell["truth"].to_numpy(), cell["prediction"].to_numpy(), counts
                        )
                        for cell in cells
                    ],
                    axis=0,
                )
            )
        gains = sides[0] - sides[1]
        low, high = np.quantile(gains[1:], [0.025, 0.975])
        lines.append(f"| {size:,} | {gains[0]:.3f} [{low:.3f}, {high:.3f}] |")
    return "\n".join(
        [f"| n | Kendall τ of `{best}` less that of `{against}` |", "|---|---|", *lines]
    )


def resampled_tau(truth: np.ndarray, prediction: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of every resample, given how often each network is in it."""
    orders = [np.sign(values[:, None] - values[None]) for values in (truth, prediction)]
    both, first, second = (
        ((counts @ product) * counts).sum(1)
        for product in (orders[0] * orders[1], orders[0] ** 2, orders[1] ** 2)
    )
    return both / np.sqrt(first * second)


def ablation(study: Path) -> str:
    """What each way to handle symmetry buys.

    Treatments on the first population only, as the others declare no symmetry.
    """
    rows = pd.read_parquet(study / "rows.parquet")
    rows = rows.loc[rows["num_train"] == rows["num_train"].max()]
    lines = average_seeds(rows).to_dict("records")
    gains = pd.read_parquet(study / "ablation.parquet").set_index(
        ["metanet", "treatment", "population"]
    )
    shown = [
        "| metanet | treatment | population | R² | Kendall τ | less plain `mlp` | label-matched "
        "Kendall τ |",
        f"|{'---|' * 7}",
    ]
    for line in lines:
        if line["treatment"] != "none" and line["population"] != lines[0]["population"]:
            continue
        name = f"`{line['metanet']}`" + ", shuffled labels" * (line["labels"] != "true")
        cells = [name, line["treatment"], f"`{line['population']}`"]
        cells += [format_interval(line, metric) for metric in ("r2", "kendall_tau")]
        gain = gains.loc[(line["metanet"], line["treatment"], line["population"])]
        over = [f"{gain[f'kendall_tau_over_flat{end}']:+.2f}" for end in ("", "_low", "_high")]
        plain = (
            name == "`mlp`"
            and line["treatment"] == "none"
            and line["population"] == lines[0]["population"]
        )
        cells.append(
            "-" if plain or line["labels"] != "true" else f"{over[0]} [{over[1]}, {over[2]}]"
        )
        cells.append(format_interval(line, "matched_kendall_tau"))
        shown.append(f"| {' | '.join(cells)} |")
    return "\n".join(shown)


def draw(studies: list[Path], target: Path, metric: str = "kendall_tau") -> None:
    """Learning curves of all metanets, a panel a study."""
    mpl.rcParams.update(STYLE)
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, len(studies), sharey=True, squeeze=False)[0]
    legend = {}
    for panel, study in zip(panels, studies, strict=True):
        averages = average_seeds(pd.read_parquet(study / "rows.parquet"))
        for i, name in enumerate(averages["metanet"].unique()):
            curve = averages.loc[averages["metanet"] == name].sort_values("num_train")
            color, marker, dashes = (cycle[i % len(cycle)] for cycle in (COLORS, MARKERS, LINES))
            panel.fill_between(
                curve["num_train"],
                curve[f"{metric}_low"],
                curve[f"{metric}_high"],
                color=color,
                alpha=0.06,
                lw=0,
            )
            face = color if i < len(COLORS) else "white"
            style = {
                "color": color,
                "marker": marker,
                "ls": dashes,
                "mfc": face,
                "ms": 4.5,
                "lw": 1.3,
            }
            (legend[name],) = panel.plot(curve["num_train"], curve[metric], **style)
        sizes = sorted(averages["num_train"].unique())
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("training networks")
        panel.set_title(TITLES.get(study.name, study.name))
    panels[0].set_ylabel("Kendall τ, 95% interval over test networks")
    figure.legend(legend.values(), legend.keys(), loc="outside right upper", handlelength=4)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)


def main() -> None:
    """Print or draw."""
    parser = argparse.ArgumentParser(description="tables of docs/findings.md")
    parser.add_argument("what", choices=["curves", "paired", "ablation"])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--best", default="probe")
    parser.add_argument("--against", default="gbm")
    arguments = parser.parse_args()
    for study in arguments.studies:
        if arguments.what == "curves":
            print(f"\n{study.name}\n\n{curves(study, 'kendall_tau')}\n\n{curves(study, 'r2')}")
        elif arguments.what == "paired":
            print(f"\n{study.name}\n\n{paired(study, arguments.best, arguments.against)}")
        else:
            print(f"\n{study.name}\n\n{ablation(study)}")
    if arguments.figure:
        draw(arguments.studies, arguments.figure)


if __name__ == "__main__":
    main()
