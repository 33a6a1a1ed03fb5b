"""`zoo.write`: a zoo of networks that anyone has.

zoo.write(out, {"mine": (architecture, state_dicts, table)})
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from zoo.architectures.base import Inputs
from zoo.options import Seed, checked
from zoo.store.atomic import write_text
from zoo.store.bounds import read_json
from zoo.store.entries import (
    DEFAULT,
    SPLITS,
    ColumnEntry,
    SourceEntry,
    SplittingEntry,
    TaskEntry,
    splitting_digest,
)
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import Manifest, PopulationEntry, check_population_names
from zoo.store.zoo import Zoo, load
from zoo.writing.claims import LOCK_NAME, locked
from zoo.writing.content import Content, Given, content_of
from zoo.writing.finishing import environment, file_entry, write_constants, write_manifest
from zoo.writing.shards import Shard, divide, has_attributes
from zoo.writing.splits import Split
from zoo.writing.tables import Roles

Origin = Literal["symzoo", "published file", "published procedure"]
RECORD_NAME = ".write.json"
_SHARD_BYTES = 2**26


@checked
def write(
    out: str | Path,
    populations: Mapping[str, Given],
    split: Split = (0.7, 0.15, 0.15),
    roles: Roles | None = None,
    example_inputs: Inputs | None = None,
    task: TaskEntry | None = None,
    source: SourceEntry | None = None,
    origins: Mapping[str, Origin] | None = None,
    views: Mapping[str, Sequence[str]] | None = None,
    seed: Seed = 0,
) -> Zoo:
    """Write a zoo of networks that were trained elsewhere.

    Networks are read one shard (64 MiB) after the other; of an iterator, which has no order of its
    own, one shard of each split is in memory. A run that was interrupted goes on if it is given the
    same again: shards that are there stay, and networks of a sequence that are in them are not
    asked for.

    Args:
        out: Folder; it must be new, empty, or that of the same call.
        populations: By name, a model, networks and a table. The model is an architecture, a module
            with `example_inputs` (it is traced), or a weight space if it is not known what the
            networks compute. Networks are tensors `[N, *shape]` by name, or one state dict a
            network: a sequence, or any iterable. The table is a data frame, or one mapping a
            network, in the order of the networks.
        split: Shares of training, validation and test, or the column that says it of each network.
        roles: Roles of columns, such as `{"lr": "hyperparameter", "run": "group"}`, or all that is
            to be said of one. A column named `train_...`, `validation_...` or `test_...` is a
            metric; all others are `info`. A draw of splits keeps a group together.
        example_inputs: Inputs that modules are traced with.
        task: What the networks do; by default, the shapes of inputs and outputs.
        source: Where they come from.
        origins: Who decided a splitting that a column describes, by the name of the column;
            `symzoo` if nothing is said.
        views: Names of several populations that are one set of networks, by the name of the set.
        seed: Of the draw of splits.

    Returns:
        The zoo, as `zoo.load` opens it.

    Raises:
        ValueError: If something does not fit; it names the population, the network and the tensor.

    Examples:
        See `docs/import.md`.
    """
    out, told = Path(out), Told(source, origins or {}, views or {}, split)
    check_population_names(dict(populations))
    columns, contents = content_of(populations, split, roles or {}, example_inputs, seed)
    whole = task or _task_of(contents)
    record = _record(columns, contents, [whole, told])
    _check_owner(out, record)
    with locked(out):
        write_text(out / RECORD_NAME, record)
        for content in contents:
            _write_shards(out, content)
        write_manifest(out, _manifest(out, columns, contents, whole, told))
    return load(out)


class Told(NamedTuple):
    """What a caller says of a zoo besides its networks and tables: arguments of `write`."""

    source: SourceEntry | None
    origins: Mapping[str, Origin]
    views: Mapping[str, Sequence[str]]
    split: Split

    def origin(self, splitting: str) -> Origin:
        """Who decided a splitting."""
        is_column = splitting == DEFAULT and isinstance(self.split, str)
        return self.origins.get(str(self.split) if is_column else splitting, "symzoo")


def _shards(content: Content) -> list[Shard]:
    most = max(1, _SHARD_BYTES // (4 * content.kind.space.num_params))
    return divide(content.name, content.sizes, most)


def _record(columns: Mapping[str, ColumnEntry], contents: list[Content], told: list[Any]) -> str:
    """What tells a call from others that might write to the same folder, but for the networks."""
    digest = hashlib.sha256()
    for content in contents:
        described = [content.name, content.kind.space.to_json(), content.kind.description]
        digest.update(json.dumps(described).encode())
        for name, values in {**content.table, "": content.order}.items():
            digest.update(f"{name} {values.tolist()!r}".encode())
    texts = [*columns.values(), *told]
    digest.update(repr(texts).encode())
    return json.dumps({"sha256": digest.hexdigest()})


def _check_owner(out: Path, record: str) -> None:
    """Refuse a folder of anything else than the same call."""
    if not out.exists() and not out.is_symlink():
        return
    if (out / RECORD_NAME).is_file():
        if read_json(out / RECORD_NAME, "the record of zoo.write").decode() != record:
            raise ValueError(
                f"{out}: holds another zoo.write, of other tables, models or settings; choose "
                "another folder or remove it"
            )
    elif not out.is_dir() or any(path.name != LOCK_NAME for path in out.iterdir()):
        raise ValueError(f"{out}: expected a folder that is new or empty; choose another")


def _write_shards(out: Path, content: Content) -> None:
    """Write the constants, and the shards that are not there."""
    if content.kind.constants:
        path = _constants_path(out, content)
        write_constants(path, content.kind.constants, {"population": content.name})
    shards = _shards(content)
    missing = [s for s in shards if not has_attributes(out / s.path(), s.attributes())]
    order = content.order
    wanted = [order[shard.start : shard.stop] for shard in missing]
    for number, params in content.blocks(wanted):
        shard, rows = missing[number], wanted[number]
        ids = {"network_id": np.arange(shard.start, shard.stop)}
        arrays = {name: tensor.numpy() for name, tensor in params.items()}
        columns = ids | content.columns(rows) | arrays
        write_columns(out / shard.path(), columns, shard.attributes())


def _constants_path(out: Path, content: Content) -> Path:
    return out / "constants" / f"{content.name}.h5"


def _manifest(
    out: Path,
    columns: dict[str, ColumnEntry],
    contents: list[Content],
    task: TaskEntry,
    told: Told,
) -> Manifest:
    """The manifest of a zoo whose other files are there."""
    return Manifest(
        config=None,
        config_sha256=None,
        task=task,
        columns=columns,
        paired=False,
        environment=environment(),
        source=told.source,
        populations={content.name: _entry(out, content, columns, told) for content in contents},
        views={name: tuple(members) for name, members in told.views.items()},
    )


def _entry(
    out: Path, content: Content, columns: Mapping[str, ColumnEntry], told: Told
) -> PopulationEntry:
    """What the manifest says of a population whose files are there."""
    kind, shards = content.kind, _shards(content)
    split_of = {DEFAULT: np.repeat(SPLITS, [*content.sizes.values()])}
    for name, column in columns.items():
        if column.role == "splitting":
            split_of[name] = content.table[name][content.order]
    return PopulationEntry(
        architecture=kind.description,
        asymmetry=None,
        space=json.loads(kind.space.to_json()),
        splittings={name: _splitting(of, told.origin(name)) for name, of in split_of.items()},
        constants=file_entry(_constants_path(out, content), len(kind.constants))
        if kind.constants
        else None,
        shards={s.path(): file_entry(out / s.path(), s.count) for s in shards},
    )


def _splitting(split_of: np.ndarray, origin: Origin) -> SplittingEntry:
    rows = {split: np.flatnonzero(split_of == split) for split in SPLITS}
    sizes = {split: len(ids) for split, ids in rows.items()}
    return SplittingEntry(origin=origin, sizes=sizes, sha256=splitting_digest(rows))


def _task_of(contents: list[Content]) -> TaskEntry:
    """Shapes of inputs and outputs, if all populations with a known function have the same."""
    known = [c.kind.architecture for c in contents if c.kind.architecture is not None]
    shapes = {(each.input_shape, each.num_outputs) for each in known}
    if len(shapes) > 1:
        raise ValueError(
            f"populations: architectures with several shapes of inputs and outputs, {shapes}: "
            "a zoo has one; give task=, and weight spaces in place of architectures of another"
        )
    for inputs, outputs in shapes:
        if inputs and outputs:
            return TaskEntry(kind="none", input_shape=inputs, output_shape=(outputs,))
    return TaskEntry(kind="none")
