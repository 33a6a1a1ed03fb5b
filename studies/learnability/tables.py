"""Tables of a learnability study.

Scores, what symmetry handling buys, networks needed, transfer.
"""

from pathlib import Path

import pandas as pd

from studies.common.page import Table
from studies.common.rows import where
from studies.learnability.ablation import ablation_cells, explain_ablation
from studies.learnability.config import Learnability
from studies.learnability.efficiency import efficiency_cells, efficiency_lines, explain_efficiency
from studies.learnability.scores import TRUE
from studies.learnability.summary import (
    SHOWN,
    abroad,
    average_seeds,
    explain,
    home,
    largest,
    notes,
    table_cells,
)


def make_tables(config: Learnability, rows: pd.DataFrame, out: Path) -> list[Table]:
    """All tables of a study.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, with `ablation.parquet` in it.

    Returns:
        For each target its scores, then the ablations, then the others.
    """
    tables = score_tables(rows)
    for target, lines in pd.read_parquet(out / "ablation.parquet").groupby("target", sort=False):
        title = f"What each way to handle symmetry buys, predicting {target}"
        tables.append(Table(title, ablation_cells(lines), explain_ablation(lines)))
    averages = average_seeds(home(rows))
    needed = efficiency_lines(where(averages, labels=TRUE), config.reach)
    for target, lines in needed.groupby("target", sort=False) if len(needed) else ():
        title = f"Networks needed, predicting {target}"
        tables.append(Table(title, efficiency_cells(lines), explain_efficiency(lines)))
    if not abroad(rows).empty:
        for target, lines in largest(average_seeds(abroad(rows))).groupby("target", sort=False):
            tables.append(Table(f"Transfer, predicting {target}", table_cells(lines, SHOWN)))
    return tables


def score_tables(rows: pd.DataFrame) -> list[Table]:
    """The scores of each target, at the largest number of training networks.

    Args:
        rows: Rows of a study.

    Returns:
        One table for each target.
    """
    tables, here = [], home(rows)
    for target, lines in largest(average_seeds(here)).groupby("target", sort=False):
        note = "\n".join([*explain(lines), *notes(where(here, target=target))])
        tables.append(Table(f"Predicting {target}", table_cells(lines, SHOWN), note))
    return tables
