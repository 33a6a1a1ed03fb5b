"""`symzoo verify`.

Is every file of a zoo what its manifest says, and do its networks do what their rows say?
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from data_gen.columns import label_column, task_columns
from data_gen.config import HYPERPARAMETERS, Job
from data_gen.integrity.built import may_be_built, not_compared, unproved
from data_gen.integrity.population_files import Columns, Fault, PopulationCheck, fault_of
from data_gen.integrity.recompute import recompute_metrics, task_to_sample
from data_gen.tasks.data import Task
from data_gen.tasks.losses import DEFAULTS, Kind
from data_gen.tasks.task import known_kind
from zoo.sharing.card import render_header
from zoo.store.bounds import MANIFEST_NAME, inside
from zoo.store.entries import DEFAULT
from zoo.store.manifest import CARD_NAME, Manifest, is_folder, read_manifest
from zoo.store.mapped import StoreError, escape, map_file
from zoo.store.proof import prove

_OBEYED = (
    ".huggingface.yaml",
    "dataset_infos.json",
    "state.json",
    "dataset_dict.json",
    "dataset_info.json",
)
"""What `datasets` reads beside a card, or takes for the end of its search, in any version."""
NO_JOB = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)
"""What validators of jobs say to JSON that is none."""


def verify_zoo(
    directory: str | Path,
    sample: int | None = None,
    seed: int = 0,
    trust_task: bool = False,
    task_path: str | None = None,
    report: Callable[[str], object] = lambda _: None,
) -> list[Fault]:
    """Check a zoo.

    Hashes, schema, ids, pairing, fixed entries, card, and accuracies of some networks from their
    weights.

    Args:
        directory: The zoo.
        sample: Networks of each population whose metrics are computed again; None for 4 if the task
            needs neither files nor downloads, 0 otherwise.
        seed: Of the choice of these networks.
        trust_task: Whether files and downloads that the manifest names may be used for the task.
        task_path: Where the task's data is, instead of what the manifest says; implies
            `trust_task`.
        report: Told each thing that was checked, in words.

    Returns:
        All faults; none if the zoo is whole.

    Raises:
        StoreError: If there is no such folder.
    """
    directory = Path(directory)
    try:
        manifest = read_manifest(directory)
    except StoreError as error:
        if not is_folder(directory):
            raise
        return [fault_of(directory, MANIFEST_NAME, error)]
    job, wrong = _check_job(manifest)
    tables, faults = _check_files(directory, manifest, None if wrong else job)
    faults = [*wrong, *faults]
    report(
        f"{len(manifest.entries())} files of {len(manifest.populations)} populations: hashes, "
        "schema, ids, pairing, fixed entries, weight spaces, constants, HDF5"
    )
    if any(fault.path == MANIFEST_NAME for fault in faults):
        return faults
    for reason in unproved(manifest) if job is None else not_compared(manifest):
        report(reason)
    if job is None:
        return faults
    task, count, why = task_to_sample(job, sample, trust_task, task_path)
    report(why)
    if task is not None:
        faults += _recompute(directory, manifest, tables, job, task, count, seed)
    return faults


def _recompute(
    directory: Path,
    manifest: Manifest,
    names: Iterable[str],
    job: Job,
    task: Task,
    count: int,
    seed: int,
) -> Iterator[Fault]:
    """Networks of the populations that can be built whose rows are wrong."""
    for name in names:
        if may_be_built(manifest.populations[name]):
            differences = recompute_metrics(directory, manifest, name, job, task, count, seed)
            yield from (Fault(path, reason) for path, reason in differences)


def _check_files(
    directory: Path, manifest: Manifest, job: Job | None
) -> tuple[dict[str, Columns], list[Fault]]:
    """Tables of the populations whose files are sound, and what is wrong with all files."""
    tables: dict[str, Columns] = {}
    faults: list[Fault] = []
    for name in manifest.populations:
        check = PopulationCheck(directory, manifest, name, job)
        wrong = list(check.run())
        faults += wrong
        if not wrong:
            tables[name] = check.table
    if manifest.paired:
        faults += _check_pairs(manifest, tables)
    faults += [*_check_card(directory, manifest), *_strays(directory, manifest)]
    faulty = {fault.path for fault in faults}
    sound = [path for path in manifest.entries() if path not in faulty]
    faults += [Fault(path, escape(reason)) for path, reason in prove(directory, sound)]
    return tables, faults


def _check_job(manifest: Manifest) -> tuple[Job | None, list[Fault]]:
    """The job of a zoo, None if none made it, and what the manifest says otherwise."""
    if manifest.config is None:
        return None, []
    text = json.dumps(manifest.config, sort_keys=True)
    wrong = []
    if hashlib.sha256(text.encode()).hexdigest() != manifest.config_sha256:
        wrong.append("config_sha256 is not the hash of config")
    try:
        job = Job.model_validate_json(text)
    except NO_JOB as error:
        wrong.append(f"config is not a job: {escape(str(error)):.300}")
        return None, [Fault(MANIFEST_NAME, why) for why in wrong]
    return job, [Fault(MANIFEST_NAME, why) for why in [*wrong, *_unlike(job, manifest)]]


def _unlike(job: Job, manifest: Manifest) -> Iterator[str]:
    """What a manifest says otherwise than its job."""
    promised, stored = (
        {name: (p.architecture, p.asymmetry) for name, p in of.populations.items()}
        for of in (job, manifest)
    )
    if promised != stored or not manifest.paired:
        yield "populations: not those of the job in config"
    # Not the ids: a stranger's count may be huge, and those of the files are compared elsewhere.
    expected = ("symzoo", job.split.counts(job.count))
    splittings = [p.splittings[DEFAULT] for p in manifest.populations.values()]
    if any((splitting.origin, splitting.sizes) != expected for splitting in splittings):
        yield "splittings: not those of the job in config"
    if not _has_columns_of(job, manifest):
        yield "columns: not those of the job in config"
    kind = _kind(job, manifest)
    loss = (job.task.loss or {"name": DEFAULTS[kind]})["name"]
    told = "signals" if job.task.per_network else kind
    if (manifest.task.kind, manifest.task.loss) != (told, loss):
        yield f"task: expected {told} with the loss {loss}"


def _kind(job: Job, manifest: Manifest) -> Kind:
    """What the targets of a job's task are; what only its data says, the manifest must."""
    told: Kind = "regression" if "train_r2" in manifest.columns else "classification"
    return known_kind(job.task) or told


def _has_columns_of(job: Job, manifest: Manifest) -> bool:
    """Whether columns are those of a job; types of hyperparameters are those of the files."""
    others = dict(manifest.columns)
    names = manifest.columns_of("hyperparameter")
    ranges = [(name, others.pop(name).range) for name in names]
    columns = task_columns(job.task, _kind(job, manifest))
    label = manifest.columns.get("label")
    if job.task.per_network and label is not None and label.dtype in ("int64", "float64"):
        columns = {"label": label_column(label.dtype), **columns}
    expected = {n: c for n, c in columns.items() if n not in job.hyperparameters}
    drawn = [(name, HYPERPARAMETERS[name].range) for name in job.hyperparameters]
    return (ranges, others) == (drawn, expected)


def _check_pairs(manifest: Manifest, tables: dict[str, dict[str, np.ndarray]]) -> Iterator[Fault]:
    """Network `i` has the same hyperparameters and seed in every population."""
    first = next(iter(tables), "")
    for name, table in tables.items():
        for column, values in table.items():
            other = tables[first].get(column)
            if other is None or values.dtype != other.dtype or not np.array_equal(values, other):
                yield Fault(
                    next(iter(manifest.populations[name].shards)),
                    f"{column!r} differs from population {first!r}",
                )


def _check_card(directory: Path, manifest: Manifest) -> Iterator[Fault]:
    """The header of the card is what we would write: it alone decides what `load_dataset` reads."""
    try:
        data = map_file(inside(directory, CARD_NAME))
    except StoreError as error:
        yield fault_of(directory, CARD_NAME, error)
        return
    header = render_header(manifest)
    stored = bytes(data[: len(header.encode())]).decode("utf-8", errors="replace")
    pairs = zip_longest(header.split("\n"), stored.split("\n"))
    for number, (expected, line) in enumerate(pairs, start=1):
        if line != expected:
            yield Fault(CARD_NAME, f"line {number} of the header is not {expected!r}")
            return


def _strays(directory: Path, manifest: Manifest) -> Iterator[Fault]:
    """Files that the manifest does not know and `load_dataset` obeys, or takes for shards."""
    obeyed = [*_OBEYED, *(path.name for path in directory.glob("*.py"))]
    for name in obeyed:
        if os.path.lexists(directory / name):
            yield Fault(escape(name), "no file of a zoo, and load_dataset obeys it")
    for name, entry in manifest.populations.items():
        known = {*entry.shards, *entry.trajectory}
        for folder in (name, f"{name}.trajectory"):
            try:
                paths = sorted(inside(directory, folder).glob("[!.]*.h5"))
            except StoreError as error:
                yield fault_of(directory, folder, error)
                continue
            relative = [f"{folder}/{path.name}" for path in paths]
            unknown = [path for path in relative if path not in known]
            yield from (Fault(escape(path), "not in the manifest") for path in unknown)
