"""A population of a zoo on disk, read on demand."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures import Architecture
from zoo.architectures.base import MODULE, constants_of, count_free
from zoo.options import check_value
from zoo.params import Params, free_entries
from zoo.store.bounds import rebuild
from zoo.store.entries import DEFAULT, SPLITS, ColumnEntry, SplittingEntry
from zoo.store.manifest import Manifest, PopulationEntry
from zoo.store.mapped import MappedFile, StoreError
from zoo.store.schema import check_constants, check_shard
from zoo.store.split_files import SplitFiles, rows_of_splitting
from zoo.store.streaming import Batch, StoredParams, in_batches, shuffled
from zoo.store.trajectory import read_laws, read_metrics, read_params, read_steps
from zoo.weight_space import WeightSpace

View = Literal["full", "free"]


Module = Callable[..., torch.nn.Module] | Architecture


@dataclass(frozen=True, eq=False)
class Population:
    """One population of a zoo: networks of one architecture and kind.

    Attributes:
        name: Its name, a configuration of the Hugging Face data set.
        directory: Folder of the zoo.
        manifest: Manifest of the zoo.
        splitting: How its networks are divided into splits, one of `splittings`.
        module: What makes the torch module that its networks are, if a reader has said so.
    """

    name: str
    directory: Path
    manifest: Manifest
    splitting: str = DEFAULT
    module: Module | None = None

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def __repr__(self) -> str:
        return (
            f"Population({self.name!r}, {len(self)} networks, {self.num_free} free of "
            f"{self.space.num_params} params)"
        )

    @property
    def _entry(self) -> PopulationEntry:
        return self.manifest.populations[self.name]

    @property
    def space(self) -> WeightSpace:
        """Weight space of the effective parameters."""
        return self._entry.weight_space

    @cached_property
    def constants(self) -> Params:
        """Masks, fixed entries, mixing matrices and offsets, by name."""
        arrays = check_constants(self.directory, self.manifest, self.name)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def known_architecture(self) -> Architecture | None:
        """The architecture, None if the zoo does not say what its networks compute."""
        is_module = (self._entry.architecture or {}).get("name", MODULE) == MODULE
        return None if is_module and self.module is None else self.architecture

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture with its constants; `architecture.apply(params, x)` runs a network."""
        if self.module is not None:
            from zoo.store.modules import restored  # traces, which no other reader pays for

            return restored(self.module, self._entry, self.manifest.task, self.constants)
        return rebuild(self._entry.description(self.manifest.task), self.space, self.constants)

    @property
    def free(self) -> Params:
        """Boolean masks, True = trained, of the tensors that have fixed entries."""
        return constants_of(self.constants, "free")

    @property
    def num_free(self) -> int:
        """Number of trained scalars of a network."""
        return count_free(self.space, self.constants)

    @property
    def columns(self) -> dict[str, ColumnEntry]:
        """What the columns of `table` hold: role, type, unit, range, which direction is better."""
        return self.manifest.columns

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the columns of `table` that are hyperparameters."""
        return self.manifest.columns_of("hyperparameter")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have networks."""
        return tuple(split for split in SPLITS if self.sizes[split])

    @property
    def splittings(self) -> dict[str, SplittingEntry]:
        """How networks are divided into splits, by name: who decided it, sizes, hash of the ids."""
        return self._entry.splittings

    @property
    def sizes(self) -> dict[str, int]:
        """Networks of each split."""
        return self.splittings[self.splitting].sizes

    def split_as(self, splitting: str) -> "Population":
        """The same networks, divided into splits in another way.

        Args:
            splitting: Name of a splitting.

        Returns:
            The population.

        Raises:
            ValueError: If there is no such splitting.
        """
        if splitting not in self.splittings:
            known = list(self.splittings)
            raise ValueError(
                f"population {self.name!r}: no splitting {splitting!r}; splittings are {known}"
            )
        return replace(self, splitting=splitting)

    @property
    def fingerprint(self) -> str:
        """Identity of files, architecture and splitting, hexadecimal."""
        return hashlib.sha256((self._entry.model_dump_json() + self.splitting).encode()).hexdigest()

    def params(self, split: str, view: View = "full") -> Params:
        """Final parameters of the networks of a split, ordered by network id.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            view: `"full"` for all effective parameters; `"free"` without the fixed entries (such a
                tensor becomes `[N, F]`).

        Returns:
            Tensors `[N, *shape]`, float32.

        Raises:
            ValueError: If the view is unknown.
        """
        masks = self._masks(view)
        return free_entries(self._open(split).tensors(self.space.shapes), masks)

    def _masks(self, view: View) -> Params:
        check_value("view", View, view)
        return self.free if view == "free" else {}

    def stored(self, split: str, view: View = "full") -> StoredParams:
        """The networks of a split without reading them, for zoos that do not fit into memory.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            view: As for `params`.

        Returns:
            What reads any of them, in the order of `params(split)`.
        """
        masks = self._masks(view)
        return self._open(split).stored(dict(self.space.shapes), masks)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        columns: Sequence[str] = (),
        view: View = "full",
        num_networks: int | None = None,
        drop_last: bool = False,
        workers: int = 0,
    ) -> Iterator[Batch]:
        """One pass over the networks of a split, read while it goes: memory holds a few batches.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            batch_size: Networks in a batch; the last has what is left.
            seed: Of the order, a uniformly random one; None for the order of network ids.
            epoch: Number of the pass; under one seed each has an order of its own.
            columns: Columns of `table(split)` that are wanted, too.
            view: As for `params`.
            num_networks: Only the first networks by id, all if None.
            drop_last: Whether to leave out a last batch that is not full.
            workers: Threads that read ahead, which changes nothing else; 0 reads in this thread.

        Returns:
            Batches of params `[B, *shape]` and columns `[B]`.

        Raises:
            ValueError: If a size is out of range or there is no such split or column.
        """
        stored = self.stored(split, view)
        count = len(stored) if num_networks is None else num_networks
        if batch_size < 1 or workers < 0 or not 1 <= count <= len(stored):
            raise ValueError(
                f"population {self.name!r}, split {split!r}: expected batch_size >= 1, workers >= "
                f"0 and num_networks from 1 to {len(stored)}, got {batch_size}, {workers} and "
                f"{num_networks}"
            )
        if unknown := [name for name in columns if name not in self.columns]:
            raise ValueError(
                f"population {self.name!r}: no columns {unknown}; columns are {list(self.columns)}"
            )
        order = torch.arange(count) if seed is None else shuffled(count, seed, epoch)
        batches = [b for b in order.split(batch_size) if len(b) == batch_size or not drop_last]
        table = self._open(split).columns(columns) if columns else {}
        return in_batches(stored, table, batches, workers)

    def flat(self, split: str) -> Float[Tensor, "N P"]:
        """Final parameters as one tensor, which `zoo.params.unflatten` turns back.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            `[N, P]`, float32: the same as `zoo.params.flatten(space, params(split))`, read at once.
        """
        return self._open(split).flat(self.space.shapes)

    def trajectory(self, split: str) -> tuple[np.ndarray, Params]:
        """Checkpoints along training.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            Steps `[N, T]` and tensors `[N, T, *shape]`.

        Raises:
            StoreError: If the zoo was generated without checkpoints.
        """
        files = self._open_trajectory(split)
        return read_steps(files), read_params(files, self.space)

    def conservation(self, split: str) -> tuple[np.ndarray, Params, Params]:
        """Conserved quantities along training, and how far gradients were from conserving them.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            Steps `[N, T]`, quantities `[N, T, *law.shape]` and residuals by the name of the law.

        Raises:
            StoreError: If the zoo has no checkpoints, or no conserved quantities.
        """
        files = self._open_trajectory(split)
        return read_steps(files), *read_laws(files)

    def checkpoint_metrics(self, split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Metrics along training.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            Steps `[N, T]`, and metrics `[N, T]` by name.

        Raises:
            StoreError: If the zoo has no checkpoints, or no metrics of them.
        """
        files = self._open_trajectory(split)
        return read_steps(files), read_metrics(files)

    def _open_trajectory(self, split: str) -> SplitFiles:
        if not self._entry.trajectory:
            raise StoreError(
                f"population {self.name!r}: no trajectory; the job asked for no checkpoints"
            )
        return self._open(split, trajectory=True)

    def table(self, split: str) -> pd.DataFrame:
        """Hyperparameters, metrics and labels of the networks of a split, ordered by network id.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            One row a network, in the order of `params`.
        """
        return pd.DataFrame(self._open(split).columns(list(self.columns)))

    def _open(self, split: str, trajectory: bool = False) -> SplitFiles:
        check_value("split", str, split)
        if split not in self.splits:
            raise ValueError(
                f"population {self.name!r}: no split {split!r}; splits are {list(self.splits)}"
            )
        if self.splitting == DEFAULT:
            return SplitFiles(self._files(split, trajectory), slice(None))
        return SplitFiles(self._files(None, trajectory), self._rows[split])

    def _files(self, split: str | None, trajectory: bool = False) -> list[MappedFile]:
        return [
            check_shard(self.directory, self.manifest, self.name, file, trajectory)
            for file in self.manifest.files(self.name, trajectory)
            if split in (None, file.split)
        ]

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Networks of each split of a splitting that the files do not follow."""
        name = self.splitting
        split_of = SplitFiles(self._files(None), slice(None)).columns([name])[name]
        return rows_of_splitting(split_of, name, self.splittings[name])
