"""What a study is, and its config, which may name a zoo and the job that makes it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from studies.common.grid import Measurement
from studies.common.page import Report, Table
from zoo.config import StrictModel


class PlainConfig(StrictModel):
    """What to measure; the configs of studies that need no zoo."""

    def folder(self, study: str, recipe: str) -> Path:
        """Directory of the study, if none is given.

        Args:
            study: Name of the study.
            recipe: Name of the file that the config was read from, without its ending.

        Returns:
            `runs/<study>-<recipe>`.
        """
        return Path("runs") / f"{study}-{_short(study, recipe)}"

    def to_yaml(self) -> str:
        """The config as YAML, one key a line."""
        values = self.model_dump(mode="json").items()
        return "".join(
            f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in values
        )


class StudyConfig(PlainConfig):
    """What to measure; the configs of studies on networks of a zoo.

    Attributes:
        zoo: Directory of the zoo.
        job: Recipe or YAML file of the job that generates the zoo, if it is not there.
    """

    zoo: Path
    job: str | None = None

    def folder(self, study: str, recipe: str) -> Path:
        """Directory of the study, if none is given."""
        # Beside the zoo, named after it and the recipe.
        return self.zoo.with_name(f"{self.zoo.name}-{_short(study, recipe)}")


def _short(study: str, recipe: str) -> str:
    return recipe.removeprefix(f"{study}-")


def one_table(
    title: str, cells: Callable[[pd.DataFrame], pd.DataFrame], note: str
) -> Callable[[Any, pd.DataFrame, Path], list[Table]]:
    """The `tables` of a study that shows one table.

    Args:
        title: Its heading.
        cells: `cells(rows) -> texts`.
        note: What the numbers are.

    Returns:
        What `Study.tables` is.
    """
    return lambda _config, rows, _out: [Table(title, cells(rows), note)]


@dataclass(frozen=True)
class Study:
    """A study; `studies.common.runner` runs it and shows its results.

    Attributes:
        name: Its name on the command line.
        config: Its config.
        plan: `plan(config, out) -> measurements`, the rows of all of them are those of the study.
        tables: `tables(config, rows, out) -> tables` for the terminal.
        report: `report(config, rows, out) -> report` for `report.html`.
        further: Tables besides the rows, made from the same cells: `plan(config, planned)` by the
            name of their file, `<name>.parquet`.
    """

    name: str
    config: type[PlainConfig]
    plan: Callable[[Any, Path], list[Measurement]]
    tables: Callable[[Any, pd.DataFrame, Path], list[Table]]
    report: Callable[[Any, pd.DataFrame, Path], Report]
    further: Mapping[str, Callable[[Any, list[Measurement]], list[Measurement]]] = field(
        default_factory=dict
    )
