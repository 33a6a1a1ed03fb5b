"""Learnability: how well a metanet predicts a target from weights, as a function of the number of training networks.

Grid of population x metanet x number of training networks x seed, one row each. Every study shows the floor `hparams`, which
sees the hyperparameters only, and repeats its metrics on label-matched test networks (see `studies.matching`).

References:
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231, section 5.3 and table 3.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BeforeValidator, Field, PositiveInt, field_validator
from tqdm import tqdm

from metanet.estimator import Metanet
from metanet.models.table import METANETS
from studies.cells import Cell, code_fingerprint, read_labels
from studies.matching import match_labels
from studies.parallel import num_cores, run_here, run_in_processes
from studies.scores import Task, complete, read_row
from zoo.config import StrictModel
from zoo.population import Population, Zoo, load
from zoo.store import write_text

FLOOR = "hparams"


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) else value


class Learnability(StrictModel):
    """What to measure.

    Attributes:
        zoo: Directory of the zoo.
        populations: Names of populations, or `all`.
        metanets: Names of metanets; the floor `hparams` is added if it is not among them.
        num_train: Numbers of training networks; `all` stands for as many as a population has.
        seeds: Seeds of the metanets.
        targets: Columns to predict.
        options: Further options of single metanets, such as `{mlp: {epochs: 50}}`.
        num_bootstrap: Number of bootstrap samples of an interval.
        match_bins: Largest number of bins of label matching.
        match_minimum: With fewer matched test networks, matched metrics are NaN.
    """

    zoo: Path
    populations: Literal["all"] | tuple[str, ...] = "all"
    metanets: tuple[str, ...] = Field(min_length=1)
    num_train: Annotated[tuple[PositiveInt | Literal["all"], ...], BeforeValidator(_as_tuple), Field(min_length=1)] = ("all",)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0,)
    targets: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = ("test_accuracy",)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    num_bootstrap: PositiveInt = 1000
    match_bins: PositiveInt = 16
    match_minimum: PositiveInt = 30

    @field_validator("metanets")
    @classmethod
    def _with_floor(cls, metanets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((FLOOR, *metanets)))

    def to_yaml(self) -> str:
        """The config as YAML, one key a line."""
        values = self.model_dump(mode="json").items()
        return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in values)


def run(config: Learnability, out: Path, *, workers: int | None = None, quiet: bool = False) -> pd.DataFrame:
    """Fit and score every cell that is not there yet, then write `rows.parquet`.

    A cell is stored as soon as it is done; a run that was stopped goes on where it was.

    Args:
        config: What to measure.
        out: Directory of the study, made if it is missing.
        workers: Number of processes; as many as there are cores if None. One means this process.
        quiet: Whether to show no progress on stderr.

    Returns:
        One row a cell, in the order of the config.
    """
    tasks = plan(config, load(config.zoo), out)
    # long fits first: the workers then end at about the same time
    waiting = sorted((task for task in tasks if not task.is_done), key=lambda task: -task.cell.num_train)
    workers = min(workers or num_cores(), max(len(waiting), 1))
    done = run_here(complete, waiting) if workers == 1 else run_in_processes(complete, waiting, workers)
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(waiting), unit="cell", desc="learnability", disable=quiet)
    with bar, closing(done):
        for _ in done:
            bar.update()
    rows = pd.DataFrame([read_row(task) for task in tasks])
    out.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(out / "rows.parquet")
    write_text(out / "config.yaml", config.to_yaml())
    return rows


def plan(config: Learnability, zoo: Zoo, out: Path) -> list[Task]:
    """The rows of the study, checked before anything is fitted.

    Args:
        config: What to measure.
        zoo: The zoo that it is measured on.
        out: Directory of the study.

    Returns:
        One task a row.

    Raises:
        ValueError: If the zoo has no such population or column, the metanet is unknown, or a population has too few networks.
    """
    _check_metanets(config)
    populations = choose_populations(config, zoo)
    sizes = {name: _sizes(config, population) for name, population in populations.items()}
    tasks, code = [], code_fingerprint()
    for target in config.targets:
        matched = match_test_networks(config, populations, target)
        for name, metanet in product(populations, config.metanets):
            for num_train, seed in product(sizes[name], config.seeds):
                options = config.options.get(metanet, {})
                fingerprint = populations[name].fingerprint
                cell = Cell(config.zoo, name, fingerprint, metanet, target, num_train, seed, code, options)
                tasks.append(Task(cell, matched[name], config.match_minimum, config.num_bootstrap, out))
    return tasks


def choose_populations(config: Learnability, zoo: Zoo) -> dict[str, Population]:
    """The populations that a study is about, by name, in the order of the config or of the zoo."""
    names = tuple(zoo) if config.populations == "all" else config.populations
    _check_names("population", names, zoo)
    return {name: zoo[name] for name in names}


def match_test_networks(config: Learnability, populations: Mapping[str, Population], target: str) -> dict[str, tuple[int, ...]]:
    """Choose the test networks on which the populations' labels agree.

    Args:
        config: The study's config.
        populations: Populations by name.
        target: The column whose histograms agree.

    Returns:
        Increasing network ids for each population, equally many.
    """
    found = {name: read_labels(population, "test", target) for name, population in populations.items()}
    labels = {name: examples.y.numpy() for name, examples in found.items()}
    chosen = match_labels(labels, num_bins=config.match_bins, seed=0)
    return {name: tuple(found[name].network_id[chosen[name]].tolist()) for name in populations}


def _sizes(config: Learnability, population: Population) -> list[int]:
    """Numbers of training networks for one population, increasing, without repetition."""
    available = len(population.table("train"))
    for count in config.num_train:
        if count != "all" and count > available:
            raise ValueError(
                f"num_train: {count} is more than the {available} training networks of population {population.name!r}; "
                f"use a smaller number, or 'all'"
            )
    return sorted({available if count == "all" else count for count in config.num_train})


def _check_metanets(config: Learnability) -> None:
    """Build each metanet once: names and options are checked there."""
    _check_names("metanet", (*config.metanets, *config.options), METANETS)
    for name, options in config.options.items():
        if taken := {"model", "target", "seed"} & set(options):
            raise ValueError(f"options of metanet {name!r}: {sorted(taken)} are set by the study, not by its options")
        Metanet(name, **options)


def _check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    options = list(known)
    for name in names:
        if name not in options:
            raise ValueError(f"unknown {what}: {name!r}; known are {options}")
