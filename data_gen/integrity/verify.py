"""`symzoo verify`.

Is every file of a zoo what its manifest says, and do its networks do what their rows say?
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_gen.config import Job
from data_gen.integrity.recompute import recompute_metrics, task_to_sample
from zoo.store.atomic import sha256
from zoo.store.bounds import MANIFEST_NAME, check_file, inside
from zoo.store.card import digest_of
from zoo.store.manifest import (
    CARD_NAME,
    SPLITS,
    Manifest,
    PlannedFile,
    PopulationEntry,
    ShardEntry,
    read_manifest,
)
from zoo.store.mapped import MappedFile, StoreError, escape, map_file, open_mapped
from zoo.store.proof import prove
from zoo.store.schema import (
    METRIC_COLUMNS,
    QUANTITY,
    RESIDUAL,
    check_constants,
    check_shard,
    scalar_columns,
)

_LARGEST_CARD = 2**20
_PAIRED = ("network_id", "seed")


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a zoo.

    Attributes:
        path: The file, relative to the zoo.
        reason: What was expected and what was found.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


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
    """
    directory = Path(directory)
    try:
        manifest = read_manifest(directory)
    except StoreError as error:
        return [_fault(directory, MANIFEST_NAME, error)]
    job, faults = _check_job(manifest)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, entry in manifest.populations.items():
        found = list(_check_population(directory, manifest, name, entry, tables))
        faults += found
        if found:
            tables.pop(name, None)
    faults += [
        *_check_pairs(manifest, tables),
        *_check_card(directory, manifest),
        *_strays(directory, manifest),
    ]
    faulty = {fault.path for fault in faults}
    sound = [path for path in manifest.entries() if path not in faulty]
    faults += [Fault(path, escape(reason)) for path, reason in prove(directory, sound)]
    report(
        f"{len(manifest.entries())} files of {len(manifest.populations)} populations: hashes, "
        "schema, ids, pairing, fixed entries, HDF5"
    )
    if job is not None and not any(fault.path == MANIFEST_NAME for fault in faults):
        task, count, why = task_to_sample(job, sample, trust_task, task_path)
        report(why)
        if task is not None:
            for name in tables:
                faults += [
                    Fault(path, reason)
                    for path, reason in recompute_metrics(
                        directory, manifest, name, job, task, count, seed
                    )
                ]
    return faults


def _fault(directory: Path, path: str, error: Exception) -> Fault:
    """A fault, its text without the path that it begins with."""
    return Fault(
        path,
        escape(str(error)).removeprefix(f"{directory / path}: ").removeprefix(f"{directory}: "),
    )


def _check_job(manifest: Manifest) -> tuple[Job | None, list[Fault]]:
    """The job of a zoo, and whether the manifest is what it would have made."""
    text = json.dumps(manifest.config, sort_keys=True)
    faults = []
    if hashlib.sha256(text.encode()).hexdigest() != manifest.config_sha256:
        faults.append(Fault(MANIFEST_NAME, "config_sha256 is not the hash of config"))
    try:
        job = Job.model_validate_json(text)
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as error:  # validators meet any JSON here
        return None, [
            *faults,
            Fault(MANIFEST_NAME, f"config is not a job: {escape(str(error)):.300}"),
        ]
    hyperparameters = tuple(job.hyperparameters)
    wanted = {
        name: (p.architecture, p.asymmetry, hyperparameters) for name, p in job.populations.items()
    }
    found = {
        name: (e.architecture, e.asymmetry, e.hyperparameters)
        for name, e in manifest.populations.items()
    }
    if wanted != found:
        faults.append(Fault(MANIFEST_NAME, "populations: not those of the job in config"))
    if job.split.counts(job.count) != manifest.split:
        faults.append(Fault(MANIFEST_NAME, "split: not that of the job in config"))
    return job, faults


def _check_population(
    directory: Path,
    manifest: Manifest,
    name: str,
    entry: PopulationEntry,
    tables: dict[str, dict[str, np.ndarray]],
) -> Iterator[Fault]:
    """Check all files of a population; what is paired with other populations goes to `tables`."""
    constants: dict[str, np.ndarray] = {}
    space = entry.weight_space()
    if entry.constants is not None:
        path = f"constants/{name}.h5"
        try:
            constants = check_constants(directory, name, entry.constants, space)
            yield from _check_hash(directory, path, entry.constants)
        except StoreError as error:
            yield _fault(directory, path, error)
    try:
        tensors = {key: torch.from_numpy(array) for key, array in constants.items()}
        entry.build(manifest.input_shape, manifest.num_classes, tensors)
    except ValueError as error:
        yield Fault(MANIFEST_NAME, f"population {name!r}: {escape(str(error))}")
    final = {file.path.split("/")[1]: file for file in manifest.files(name)}
    wrong: set[str] = set()
    parts: list[dict[str, np.ndarray]] = []
    for file in manifest.files(name):
        faults = list(_check_one(directory, manifest, name, file, constants))
        yield from faults
        if faults:
            wrong.add(file.path)
        else:
            checked = open_mapped(directory / file.path)
            parts.append(
                {column: checked.array(column) for column in (*_PAIRED, *entry.hyperparameters)}
            )
    for file in manifest.files(name, trajectory=True):
        faults = list(_check_one(directory, manifest, name, file, constants, trajectory=True))
        yield from faults
        last = final[file.path.split("/")[1]]
        if not faults and last.path not in wrong:
            ends = _check_ends(
                open_mapped(directory / file.path),
                open_mapped(directory / last.path),
                tuple(space.tensors),
            )
            yield from (Fault(file.path, reason) for reason in ends)
    if len(parts) == len(entry.shards):
        tables[name] = {
            column: np.concatenate([part[column] for part in parts]) for column in parts[0]
        }


def _check_one(
    directory: Path,
    manifest: Manifest,
    name: str,
    file: PlannedFile,
    constants: dict[str, np.ndarray],
    trajectory: bool = False,
) -> Iterator[Fault]:
    """Check a shard by itself."""
    entry = manifest.populations[name]
    try:
        checked = check_shard(directory, manifest, name, file, trajectory)
        yield from _check_hash(directory, file.path, file.entry)
        reasons = [*_check_attributes(checked, manifest, name, file)]
        reasons += _check_values(checked, tuple(entry.weight_space().tensors), constants)
        if not trajectory:
            reasons += _check_metrics(checked, entry.hyperparameters)
        yield from (Fault(file.path, reason) for reason in reasons)
    except StoreError as error:
        yield _fault(directory, file.path, error)


def _check_hash(directory: Path, path: str, entry: ShardEntry) -> Iterator[Fault]:
    found = sha256(check_file(directory, path, entry.bytes))
    if found != entry.sha256:
        yield Fault(path, f"expected sha256 {entry.sha256}, found {found}")


def _check_attributes(
    checked: MappedFile, manifest: Manifest, name: str, file: PlannedFile
) -> Iterator[str]:
    numbers = re.findall(r"\d{5}", file.path)
    expected: dict[str, str | int] = {
        "population": name,
        "split": file.split,
        "config_sha256": manifest.config_sha256,
    }
    expected |= {"shard": int(numbers[0]), "shards": int(numbers[1])}
    for key, value in expected.items():
        found = checked.map.attributes.get(key)
        if found != value:
            yield f"attribute {key!r}: expected {value!r}, found {found!r:.200}"


def _check_values(
    checked: MappedFile, tensors: tuple[str, ...], constants: dict[str, np.ndarray]
) -> Iterator[str]:
    """Order of columns, finite parameters, fixed entries as in the constants, bit for bit."""
    names = list(checked.columns)
    scalars = [name for name in names if name not in tensors]
    laws = [name for name in scalars if name.startswith((QUANTITY, RESIDUAL))]
    if names != [*(name for name in scalars if name not in laws), *tensors, *laws]:
        yield "columns are not in the order of the format"
    for name in tensors:
        values = checked.array(name)
        if not np.isfinite(values).all():
            yield f"{name!r} has parameters that are not finite"
        if f"free.{name}" in constants:
            fixed = ~constants[f"free.{name}"]
            expected = constants[f"fixed.{name}"].view(np.int32)[fixed]
            if (values.view(np.int32)[..., fixed] != expected).any():
                yield f"{name!r} has fixed entries that are not those of the constants"


def _check_metrics(checked: MappedFile, hyperparameters: tuple[str, ...]) -> Iterator[str]:
    """Metrics of networks that did not diverge are finite.

    Accuracies are in [0, 1]; columns are in order.
    """
    fine = ~checked.array("diverged")
    if (fine != (checked.array("diverged_at") < 0)).any():
        yield "'diverged' and 'diverged_at' contradict each other"
    for name in METRIC_COLUMNS[:5]:
        values = checked.array(name)[fine]
        low, high = (
            (0, np.inf) if name.endswith("loss") else (-1 if name == "generalization_gap" else 0, 1)
        )
        if not (np.isfinite(values) & (values >= low) & (values <= high)).all():
            yield (
                f"{name!r} has values that are not finite or out of range, of networks that did "
                "not diverge"
            )
    for name in hyperparameters:
        values = checked.array(name)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{name!r} has values that are not finite"
    unknown = [name for name in scalar_columns(hyperparameters) if name not in checked.columns]
    if unknown:
        yield f"no column {unknown[0]!r}"


def _check_ends(checked: MappedFile, last: MappedFile, tensors: tuple[str, ...]) -> Iterator[str]:
    """Trajectories begin at step 0, never go back, and end at the final parameters."""
    steps = checked.array("checkpoint_steps")
    if (
        (steps[:, 0] != 0).any()
        or (np.diff(steps) < 0).any()
        or (steps[:, -1] != last.array("steps")).any()
    ):
        yield "'checkpoint_steps' do not go from 0 to the last step"
    for name in tensors:
        if checked.array(name)[:, -1].tobytes() != last.array(name).tobytes():
            yield f"{name!r} does not end at the final parameters"


def _check_pairs(manifest: Manifest, tables: dict[str, dict[str, np.ndarray]]) -> Iterator[Fault]:
    """Network `i` has the same hyperparameters and seed in every population."""
    if not tables:
        return
    first = next(iter(tables))
    for name, table in tables.items():
        for column, values in table.items():
            other = tables[first].get(column)
            if other is None or values.dtype != other.dtype or not np.array_equal(values, other):
                yield Fault(
                    next(iter(manifest.populations[name].shards)),
                    f"{column!r} differs from population {first!r}",
                )


def _check_card(directory: Path, manifest: Manifest) -> Iterator[Fault]:
    """The card names configurations of each population, digests of their files, globs of splits."""
    try:
        data = map_file(inside(directory, CARD_NAME))
        text = bytes(data[:_LARGEST_CARD]).decode("utf-8", errors="replace")
    except StoreError as error:
        yield _fault(directory, CARD_NAME, error)
        return
    header = text.split("---\n")[1] if text.startswith("---\n") and text.count("---\n") > 1 else ""
    lines = {line.strip().removeprefix("- ") for line in header.splitlines()}
    for name, entry in manifest.populations.items():
        for folder, shards in entry.configurations(name).items():
            expected = [f"config_name: {folder}", f"description: {digest_of(shards)}"]
            for split in SPLITS:
                if manifest.split[split]:
                    expected.append(f"path: {folder}/{split}-*.h5")
            missing = [line for line in expected if line not in lines]
            if missing:
                yield Fault(CARD_NAME, f"the header has no line {missing[0]!r}")


def _strays(directory: Path, manifest: Manifest) -> Iterator[Fault]:
    """Files that a glob of the card takes for shards and the manifest does not know."""
    for name, entry in manifest.populations.items():
        known = {*entry.shards, *entry.trajectory}
        for folder in (name, f"{name}.trajectory"):
            try:
                paths = sorted(inside(directory, folder).glob("*.h5"))
            except StoreError as error:
                yield _fault(directory, folder, error)
                continue
            for path in paths:
                relative = f"{folder}/{path.name}"
                if relative not in known and not path.name.startswith("."):
                    yield Fault(escape(relative), "not in the manifest")
