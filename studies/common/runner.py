"""Running a study: its zoo, its cells, `rows.parquet`, tables for the terminal, `report.html`."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context

from data_gen.config import load_job
from data_gen.executors.processes import default_workers
from data_gen.generation import choose_device, generate
from studies.common.base import PlainConfig, Study, StudyConfig
from studies.common.figures import STYLE
from studies.common.grid import run_grid
from studies.common.page import details, table_text, write_page
from zoo.store.atomic import write_text
from zoo.store.manifest import MANIFEST_NAME


def run(
    study: Study,
    config: PlainConfig,
    out: Path,
    *,
    workers: int | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Measure every cell that is not there yet, then write `rows.parquet` and `config.yaml`.

    A cell is kept as soon as it is done: a study that was stopped goes on where it was. The zoo is
    generated if it is not there and the config names a job.

    Args:
        study: The study.
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        The rows of all cells, in the order of the config.
    """
    if isinstance(config, StudyConfig):
        make_zoo(config, workers=workers, quiet=quiet)
    planned = study.plan(config, out)
    rows = run_grid(planned, name=study.name, workers=workers, quiet=quiet)
    rows.to_parquet(out / "rows.parquet")
    write_text(out / "config.yaml", config.to_yaml())
    for name, plan_further in study.further.items():
        further = run_grid(plan_further(config, planned), name=name, workers=workers, quiet=quiet)
        further.to_parquet(out / f"{name}.parquet")
    return rows


def make_zoo(config: StudyConfig, *, workers: int | None = None, quiet: bool = False) -> None:
    """Generate the zoo of a study from its job, or go on with that, unless it is there completely.

    Args:
        config: Names the zoo and, maybe, a job; without one nothing is done.
        workers: Number of processes; None for one a core, or one a GPU.
        quiet: Whether to show no progress on stderr.
    """
    if config.job is None or (config.zoo / MANIFEST_NAME).is_file():
        return
    count = default_workers(choose_device("auto")) if workers is None else workers
    generate(load_job(config.job), config.zoo, workers=0 if count == 1 else count, quiet=quiet)


def format_study(study: Study, config: PlainConfig, rows: pd.DataFrame, out: Path) -> str:
    """All tables of a study for the terminal.

    Args:
        study: The study.
        config: Its config.
        rows: Its rows.
        out: Its directory.

    Returns:
        Lines of text.
    """
    return "\n\n".join(table_text(table) for table in study.tables(config, rows, out))


def write_report(study: Study, config: PlainConfig, rows: pd.DataFrame, out: Path) -> Path:
    """Write `report.html`.

    Args:
        study: The study.
        config: Its config.
        rows: Its rows.
        out: Its directory.

    Returns:
        The file.
    """
    with rc_context(STYLE):
        report = study.report(config, rows, out)
    made = details(study.name, out, report.facts, config.to_yaml())
    return write_page(out, report.title, [*report.parts, made])
