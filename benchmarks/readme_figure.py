"""The picture in the README.

How well the flat MLP ranks the networks of each population, from a finished study.

python benchmarks/readme_figure.py runs/STUDY docs/images/learnability.png
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

LABELS = {
    "w_asymmetric": "W-asymmetric, κ = 1",
    "w_asymmetric_kappa025": "W-asymmetric, κ = 0.25",
    "w_asymmetric_kappa0": "W-asymmetric, κ = 0",
    "sigma_asymmetric": "\u03c3-asymmetric",
    "smaller": "standard, smaller",
    "syre": "syre",
    "standard": "standard",
}


def main() -> None:
    """Draw Kendall tau of `mlp` by population, at the most training networks."""
    study, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows: Any = pd.read_parquet(study / "rows.parquet")
    rows = rows[rows["metanet"] == "mlp"]
    rows = rows[rows["num_train"] == rows["num_train"].max()]
    means = rows.groupby("population").mean(numeric_only=True)
    names = [name for name in LABELS if name in means.index][::-1]
    mpl.rcParams.update({"font.size": 9, "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(7, 2.9), layout="constrained")
    for offset, metric, marker, color, label in (
        (0.14, "kendall_tau", "o", "#1f3b57", "all test networks"),
        (-0.14, "matched_kendall_tau", "D", "#c26a2e", "label-matched test networks"),
    ):
        middle = means.loc[names, metric]
        low, high = (
            middle - means.loc[names, f"{metric}_low"],
            means.loc[names, f"{metric}_high"] - middle,
        )
        places = [i + offset for i in range(len(names))]
        axes.errorbar(
            middle,
            places,
            xerr=[low, high],
            fmt=marker,
            color=color,
            capsize=2.5,
            markersize=5,
            label=label,
        )
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
    axes.set_xlabel("Kendall τ of predicted and true test accuracy, 95% intervals")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main()
