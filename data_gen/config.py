"""Jobs: what `generate-zoo` is asked to do, as pydantic models over YAML."""

import hashlib
import importlib.resources
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from data_gen.sampling import Distribution, Hyperparameter
from data_gen.tasks.task import TaskConfig
from data_gen.training.optim import OPTIMIZERS, SCHEDULES
from data_gen.training.precision import Precision
from zoo.architectures.table import check_architecture, check_asymmetry
from zoo.config import (
    ConfigError,
    EntryError,
    Flag,
    Number,
    StrictModel,
    Whole,
    entry,
    read_config,
)
from zoo.imports import check_code_name, import_plugin
from zoo.modules.twins import check_module_asymmetry
from zoo.options import checked
from zoo.store.entries import SPLITS
from zoo.store.manifest import check_population_names

HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "optimizer": Hyperparameter("sgd", options=OPTIMIZERS),
    "schedule": Hyperparameter("constant", options=SCHEDULES),
    "lr": Hyperparameter(0.1, low=0, open_low=True),
    "weight_decay": Hyperparameter(0.0, low=0),
    "momentum": Hyperparameter(0.0, low=0, high=1, open_high=True),
    "label_smoothing": Hyperparameter(0.0, low=0, high=1, open_high=True),
    "label_noise": Hyperparameter(0.0, low=0, high=1),
    "train_fraction": Hyperparameter(1.0, low=0, high=1, open_low=True),
    "train_parts": Hyperparameter(None, low=1, integer=True),
    "init_scale": Hyperparameter(1.0, low=0, open_low=True),
    "batch_size": Hyperparameter(64, low=1, high=2**20, integer=True),
    "steps": Hyperparameter(None, low=1, integer=True),
    "epochs": Hyperparameter(None, low=0, open_low=True),
}


def named(options: Mapping[str, Any], key: str) -> tuple[Any, dict[str, Any]]:
    """What a mapping names under a key, None if nothing, and its other entries as options."""
    others = dict(options)
    return others.pop(key, None), others


def _known(
    check: Callable[[str | None, dict[str, Any]], object], key: str, value: dict[str, Any]
) -> dict[str, Any]:
    """Check a name and, each with a line of its own in errors, its options."""
    name, options = named(value, key)
    with entry(key):
        check(name, {})
    for option, setting in options.items():
        with entry(option):
            check(name, {option: setting})
    return value


def _known_architecture(value: dict[str, Any]) -> dict[str, Any]:
    """A row of the table with its options, or a module of the user's own with those of its own."""
    if "module" not in value:
        return _known(check_architecture, "name", value)
    for key in value:
        if key not in ("module", "options"):
            raise EntryError(key, "beside 'module' expected 'options' alone")
    with entry("module"):
        check_code_name(str(value["module"]))
    options = value.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise EntryError("options", f"expected a mapping from names, found {options!r:.200}")
    return value


ArchitectureOptions = Annotated[dict[str, Any], AfterValidator(_known_architecture)]
AsymmetryOptions = Annotated[
    dict[str, Any], AfterValidator(partial(_known, check_asymmetry, "kind"))
]
"""Of an architecture of the table."""


class PopulationConfig(StrictModel):
    """One population: an architecture and, unless it is standard, how its symmetry is removed.

    Attributes:
        architecture: `name` in `zoo.ARCHITECTURES` and the options of its builder; or `module`, a
            `module:attribute` that makes a `torch.nn.Module`, and the `options` of that.
        asymmetry: `kind` in `zoo.architectures.ASYMMETRIES` and its options, or None; of a module
            those of `zoo.asymmetric`.
    """

    architecture: ArchitectureOptions
    asymmetry: dict[str, Any] | None = None

    @field_validator("asymmetry")
    @classmethod
    def _asymmetry_fits(cls, asymmetry: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        if asymmetry is not None and "architecture" in info.data:
            is_module = "module" in info.data["architecture"]
            _known(check_module_asymmetry if is_module else check_asymmetry, "kind", asymmetry)
        return asymmetry

    @property
    def module(self) -> str | None:
        """`module:attribute` of a module of the user's own, None for a row of the table."""
        return self.architecture.get("module")


class SplitConfig(StrictModel):
    """Shares of the networks; they add up to 1."""

    train: Number = Field(default=0.5, gt=0, le=1)
    validation: Number = Field(default=0.25, ge=0, lt=1)
    test: Number = Field(default=0.25, ge=0, lt=1)

    @model_validator(mode="after")
    def _sum(self) -> "SplitConfig":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"expected train + validation + test = 1, found {total:g}")
        return self

    def counts(self, count: int) -> dict[str, int]:
        """Networks in each split; the split is by id, the first ids are the training ones.

        There is at least one training network.

        Args:
            count: Networks in a population.

        Returns:
            Number of networks by split, adding up to `count`.
        """
        train = max(1, round(count * self.train))
        validation = min(round(count * self.validation), count - train)
        return dict(zip(SPLITS, (train, validation, count - train - validation), strict=True))


class Job(StrictModel):
    """A whole job; `docs/jobs.md` explains every key.

    Attributes:
        task: What the networks are trained on.
        populations: Populations by name; network `i` has the same hyperparameters, data order and
            initial draws in each.
        hyperparameters: Distribution of each hyperparameter; see `HYPERPARAMETERS` for names,
            ranges and defaults.
        count: Networks in each population.
        seed: Seed of everything random.
        split: Shares of train, validation and test networks.
        shard_size: Networks in a file, at most.
        checkpoints: Checkpoints of each network's training, evenly spaced over its own steps, both
            ends included; 0 for none.
        laws: Conservation laws whose quantities and residuals are recorded at each checkpoint:
            `"declared"` by the weight space, or `"found"` on gradients as well; None for none.
        checkpoint_metrics: Whether losses and accuracies are measured at each checkpoint, too.
        precision: Products of the training step in `"tf32"` or `"bfloat16"`; float32 if None.
        plugins: Modules that add rows to tables, imported before the job is read.
    """

    task: TaskConfig
    populations: dict[str, PopulationConfig] = Field(min_length=1)
    hyperparameters: dict[str, Distribution]
    count: Whole = Field(ge=1, le=10**8)
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    split: SplitConfig = SplitConfig()
    shard_size: Whole = Field(500, ge=1)
    checkpoints: Whole = Field(default=0, ge=0)
    laws: Literal["declared", "found"] | None = None
    checkpoint_metrics: Flag = False
    precision: Precision | None = None
    plugins: tuple[str, ...] | None = None

    _names = field_validator("populations")(check_population_names)

    @field_validator("hyperparameters")
    @classmethod
    def _fill_and_check(cls, given: dict[str, Distribution]) -> dict[str, Distribution]:
        for name in given:
            if name not in HYPERPARAMETERS:
                known = list(HYPERPARAMETERS)
                raise EntryError(name, f"unknown hyperparameter {name!r}; known are {known}")
        if ("steps" in given) == ("epochs" in given):
            raise ValueError("expected exactly one of 'steps' and 'epochs'")
        given = {name: HYPERPARAMETERS[name].whole(d) for name, d in given.items()}
        for name, distribution in given.items():
            with entry(name):
                HYPERPARAMETERS[name].check(distribution)
        full = {
            name: Distribution(fixed=rule.default)
            for name, rule in HYPERPARAMETERS.items()
            if rule.default is not None
        } | given
        return {name: full[name] for name in HYPERPARAMETERS if name in full}

    @field_validator("checkpoints")
    @classmethod
    def _both_ends(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expected 0 or at least 2 (initialization and end)")
        return value

    @model_validator(mode="after")
    def _checkpoints_to_measure(self) -> "Job":
        measured = {"laws": self.laws, "checkpoint_metrics": self.checkpoint_metrics}
        for name, value in measured.items():
            if value and not self.checkpoints:
                raise ValueError(
                    f"{name}: {value!r} is recorded at checkpoints; "
                    "expected checkpoints >= 2, found 0"
                )
        return self

    def as_json(self) -> str:
        """The job as canonical JSON text."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True)

    @property
    def code(self) -> set[str]:
        """Python modules that the job names; whoever generates it has them imported."""
        modules = [p.module for p in self.populations.values() if p.module is not None]
        named = {name.partition(":")[0] for name in (*self.task.code, *modules)}
        return named | set(self.plugins or ())

    @property
    def sha256(self) -> str:
        """Identity of the job: equal for jobs that generate the same zoo."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()


def recipe_names() -> list[str]:
    """Names of the jobs that come with the package."""
    folder = importlib.resources.files("data_gen.recipes")
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


@checked
def load_job(job: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Job:
    """Read a job.

    Args:
        job: Name of a recipe, or path of a YAML file.
        overrides: `key=value` texts with dotted keys, as of `--set`.
        plugins: Modules that add rows to tables, imported first, besides those of the job.

    Returns:
        The checked job.

    Raises:
        ConfigError: If there is no such job, or it is not valid.
    """
    add_rows = partial(_import_plugins, plugins)
    if re.fullmatch(r"[a-z0-9-]+", job) and not Path(job).exists():
        if job not in recipe_names():
            raise ConfigError(f"no recipe {job!r} and no such file; recipes are {recipe_names()}")
        recipe = importlib.resources.files("data_gen.recipes") / f"{job}.yaml"
        with importlib.resources.as_file(recipe) as path:
            return read_config(Job, path, overrides, add_rows)
    return read_config(Job, Path(job), overrides, add_rows)


def _import_plugins(plugins: Sequence[str], entries: dict[str, Any]) -> None:
    """Import the plugins of a job that somebody has written, before its names are looked up."""
    written = entries.get("plugins") or []
    if not isinstance(written, list) or not all(isinstance(name, str) for name in written):
        raise ConfigError(f"plugins: expected a list of names of modules, found {written!r:.200}")
    chosen = list(dict.fromkeys([*written, *plugins]))
    for name in chosen:
        import_plugin(name)
    if chosen:
        entries["plugins"] = chosen
