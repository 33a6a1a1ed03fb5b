"""A learnability study on the terminal: scores, what symmetry handling buys, networks needed, transfer."""

from pathlib import Path

import pandas as pd

from studies.learnability.ablation import ablation_cells, explain_ablation
from studies.learnability.config import Learnability
from studies.learnability.efficiency import efficiency_cells, efficiency_lines, explain_efficiency
from studies.learnability.scores import TRUE
from studies.learnability.summary import (
    SHOWN,
    abroad,
    average_seeds,
    format_table,
    home,
    largest,
    render,
    table_cells,
)


def format_study(config: Learnability, rows: pd.DataFrame, out: Path) -> str:
    """All tables of a study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, with `ablation.parquet` in it.

    Returns:
        Lines of text.
    """
    blocks = [format_table(rows)]
    for target, lines in pd.read_parquet(out / "ablation.parquet").groupby("target", sort=False):
        head = f"What each way to handle symmetry buys, predicting {target}"
        blocks.append("\n".join([head, render(ablation_cells(lines)), explain_ablation(lines)]))
    averages = average_seeds(home(rows))
    needed = efficiency_lines(averages.loc[averages["labels"] == TRUE], config.reach)
    for target, lines in needed.groupby("target", sort=False) if len(needed) else ():
        head = f"Networks needed, predicting {target}"
        blocks.append("\n".join([head, render(efficiency_cells(lines)), explain_efficiency(lines)]))
    if not abroad(rows).empty:
        for target, lines in largest(average_seeds(abroad(rows))).groupby("target", sort=False):
            blocks.append(
                "\n".join([f"Transfer, predicting {target}", render(table_cells(lines, SHOWN))])
            )
    return "\n\n".join(blocks)
