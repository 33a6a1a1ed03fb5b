"""The files that the networks of a zoo are written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from zoo.store.mapped import StoreError, open_mapped

MAX_SHARD_BYTES = 256_000_000


@dataclass(frozen=True)
class Shard:
    """One file to be written: networks `start` to `stop - 1` of a population."""

    population: str
    split: str
    number: int
    of: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of its networks."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """File name inside the population's folder."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.h5"

    def path(self, trajectory: bool = False) -> str:
        """Path relative to the zoo."""
        return f"{self.population}{'.trajectory' if trajectory else ''}/{self.name}"

    def paths(self, trajectory: bool) -> tuple[str, ...]:
        """Paths of all its files relative to the zoo, with or without checkpoints."""
        return (self.path(), self.path(True)) if trajectory else (self.path(),)

    def attributes(self, config_sha256: str | None = None) -> dict[str, str | int]:
        """Metadata of its files, with the hash of the job if there is one."""
        whose = {} if config_sha256 is None else {"config_sha256": config_sha256}
        return {
            "population": self.population,
            "split": self.split,
            "shard": self.number,
            "shards": self.of,
            **whose,
        }


def divide(population: str, sizes: Mapping[str, int], most: int) -> list[Shard]:
    """The shards of a population, the networks of a split spread evenly.

    Args:
        population: Its name.
        sizes: Networks of each split.
        most: Networks of a shard, at most.

    Returns:
        The shards, in the order of network ids.
    """
    shards, start = [], 0
    for split, count in sizes.items():
        of = ceil(count / most)
        first = start
        for k in range(of):
            stop = start + round((k + 1) * count / of)
            shards.append(Shard(population, split, k, of, first, stop))
            first = stop
        start += count
    return shards


def has_attributes(path: Path, expected: Mapping[str, str | int]) -> bool:
    """Whether a file is on disk, whole, with certain metadata.

    Args:
        path: The file.
        expected: The metadata.

    Returns:
        Whether nothing has to be done for it.
    """
    try:
        return expected.items() <= open_mapped(path).map.attributes.items()
    except StoreError:
        return False
