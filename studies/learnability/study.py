"""Learnability: how well a metanet predicts a target from weights, as a function of the number of training networks.

Grid of population x treatment x metanet x number of training networks x target x seed, one row
each. Every study shows the floor `hparams`, which sees the hyperparameters only, and repeats its
metrics on label-matched test networks (see `studies.learnability.matching`).

References:
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231, section 5.3 and table 3.
"""

from contextlib import closing
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from data_gen.executors.processes import num_cores
from studies.common.base import keep_rows, make_zoo
from studies.common.parallel import run_here, run_in_processes
from studies.learnability.ablation import ablate
from studies.learnability.config import Learnability
from studies.learnability.plan import plan_tasks
from studies.learnability.plugins import check_workers
from studies.learnability.report import write_report
from studies.learnability.scores import complete, read_rows
from studies.learnability.tables import format_study
from zoo.store.population import load

CONFIG = Learnability
__all__ = ["CONFIG", "Learnability", "format_study", "run", "write_report"]


def run(
    config: Learnability, out: Path, *, workers: int | None = None, quiet: bool = False
) -> pd.DataFrame:
    """Fit and score every cell that is not there yet, then write `rows.parquet` and `ablation.parquet`.

    A cell is stored as soon as it is done; a run that was stopped goes on where it was. The zoo is
    generated if it is not there and the config names a job.

    Args:
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        One row for each fit and place where it is scored, in the order of the config.
    """
    make_zoo(config, workers=workers, quiet=quiet)
    tasks = plan_tasks(config, load(config.zoo), out)
    # long fits first: the workers then end at about the same time
    waiting = sorted(
        (task for task in tasks if not task.is_done), key=lambda task: -task.cell.num_train
    )
    workers = min(workers or num_cores(), max(len(waiting), 1))
    for plugin in {plugin for task in waiting for plugin in task.plugins}:
        check_workers(plugin, workers)
    done = (
        run_here(complete, waiting)
        if workers == 1
        else run_in_processes(complete, waiting, workers)
    )
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - len(waiting),
        unit="cell",
        desc="learnability",
        disable=quiet,
    )
    with bar, closing(done):
        for _ in done:
            bar.update()
    rows = pd.DataFrame([row for task in tasks for row in read_rows(task)])
    keep_rows(config, rows, out)
    ablate(tasks, config.num_bootstrap).to_parquet(out / "ablation.parquet")
    return rows
