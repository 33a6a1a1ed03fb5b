"""Running a study: its zoo, its cells, `rows.parquet`, tables for the terminal, `report.html`."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context

from data_gen.config import load_job
from data_gen.executors.executor import Executor, InThisProcess
from data_gen.generation import generate
from studies.common.base import PlainConfig, Study, StudyConfig
from studies.common.claim import claim_folder
from studies.common.figures import STYLE
from studies.common.grid import run_grid
from studies.common.page import details, table_text, write_page
from zoo.store.atomic import write_text
from zoo.store.manifest import MANIFEST_NAME

HERE = InThisProcess(threads=1)


def run(
    study: Study,
    config: PlainConfig,
    out: Path,
    *,
    executor: Executor = HERE,
    quiet: bool = False,
) -> pd.DataFrame:
    """Measure every cell that is not there yet, then write `rows.parquet` and `config.yaml`.

    A cell is kept as soon as it is done: a study that was stopped goes on where it was. The zoo is
    generated if it is not there and the config names a job.

    Args:
        study: The study.
        config: What to measure.
        out: Directory of the study, made if it is missing.
        executor: Where to measure, and to generate the zoo: one thread of this process by default.
            All give the same rows.
        quiet: Whether to show no progress on stderr.

    Returns:
        The rows of all cells, in the order of the config. A folder of another study, or of a study
        of another zoo, raises ValueError.
    """
    if isinstance(config, StudyConfig):
        make_zoo(config, executor, quiet)
    planned = study.plan(config, out)
    claim_folder(out, study.name, config)
    rows = run_grid(planned, name=study.name, executor=executor, quiet=quiet)
    rows.to_parquet(out / "rows.parquet")
    write_text(out / "config.yaml", config.to_yaml())
    for name, plan_further in study.further.items():
        further = plan_further(config, planned)
        table = run_grid(further, name=name, executor=executor, quiet=quiet)
        table.to_parquet(out / f"{name}.parquet")
    return rows


def make_zoo(config: StudyConfig, executor: Executor = HERE, quiet: bool = False) -> None:
    """Generate the zoo of a study from its job, or go on with that, unless it is there completely.

    Args:
        config: Names the zoo and, maybe, a job; without one nothing is done.
        executor: Where to make its shards.
        quiet: Whether to show no progress on stderr.
    """
    if config.job is None or (config.zoo / MANIFEST_NAME).is_file():
        return
    generate(load_job(config.job), config.zoo, executor=executor, quiet=quiet)


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
