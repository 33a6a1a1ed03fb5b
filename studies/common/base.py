"""What all studies share: a config, which may name a zoo and the job that makes it."""

import json
from pathlib import Path

import pandas as pd

from zoo.config import StrictModel
from zoo.store.atomic import write_text
from zoo.store.manifest import MANIFEST_NAME


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
        """Directory of the study, if none is given: beside the zoo, named after it and the recipe."""
        return self.zoo.with_name(f"{self.zoo.name}-{_short(study, recipe)}")


def _short(study: str, recipe: str) -> str:
    return recipe.removeprefix(f"{study}-")


def keep_rows(config: PlainConfig, rows: pd.DataFrame, out: Path) -> None:
    """Write `rows.parquet` and `config.yaml`.

    Args:
        config: The study's config.
        rows: Its rows.
        out: Its directory, made if it is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(out / "rows.parquet")
    write_text(out / "config.yaml", config.to_yaml())


def make_zoo(config: StudyConfig, *, workers: int | None = None, quiet: bool = False) -> None:
    """Generate the zoo of a study from its job, or go on with that, unless it is there completely.

    Args:
        config: Names the zoo and, maybe, a job; without one nothing is done.
        workers: Number of processes; None for one a core, or one a GPU.
        quiet: Whether to show no progress on stderr.
    """
    from data_gen.config import load_job
    from data_gen.executors.processes import default_workers
    from data_gen.generation import choose_device, generate

    if config.job is None or (config.zoo / MANIFEST_NAME).is_file():
        return
    count = default_workers(choose_device("auto")) if workers is None else workers
    generate(load_job(config.job), config.zoo, workers=0 if count == 1 else count, quiet=quiet)
