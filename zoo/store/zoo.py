"""A zoo on disk as Python sees it: a mapping of populations."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zoo.options import checked
from zoo.store.manifest import Manifest, read_manifest
from zoo.store.population import Population


class Zoo(Mapping[str, Population]):
    """The populations of a zoo by name."""

    def __init__(self, directory: Path, manifest: Manifest):
        """Wrap a manifest; use `load`.

        Args:
            directory: Folder of the zoo.
            manifest: Its manifest.
        """
        self.directory = directory
        self.manifest = manifest
        self._populations = {
            name: Population(name, directory, manifest) for name in manifest.populations
        }

    def __getitem__(self, name: str) -> Population:
        if name not in self._populations:
            raise KeyError(
                f"no population {name!r} in {self.directory}; populations are "
                f"{list(self._populations)}"
            )
        return self._populations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._populations)

    def __len__(self) -> int:
        return len(self._populations)

    @property
    def views(self) -> dict[str, tuple[Population, ...]]:
        """Populations that are one set of networks of several architectures, by its name."""
        return {
            name: tuple(self[member] for member in members)
            for name, members in self.manifest.views.items()
        }

    def choose(self, names: Sequence[str] | None) -> dict[str, Population]:
        """Populations by name.

        Args:
            names: Their names, or names of views, all populations if None.

        Returns:
            The populations, in the order of the names.

        Raises:
            ValueError: If there is no such population.
        """
        views = self.manifest.views
        chosen = list(self) if names is None else list(names)
        if unknown := [name for name in chosen if name not in self and name not in views]:
            raise ValueError(
                f"no populations {unknown} in {self.directory}; populations are {[*self, *views]}"
            )
        return {member: self[member] for name in chosen for member in views.get(name, (name,))}

    def __repr__(self) -> str:
        return f"Zoo({str(self.directory)!r}, {list(self._populations.values())})"


@checked
def load(directory: str | Path) -> Zoo:
    """Open a zoo.

    Args:
        directory: Folder that `generate-zoo` wrote.

    Returns:
        The zoo; nothing but its manifest has been read yet.
    """
    return Zoo(Path(directory), read_manifest(Path(directory)))
