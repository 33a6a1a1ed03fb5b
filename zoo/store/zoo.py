"""A zoo on disk as Python sees it: a mapping of populations."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zoo.imports import import_attribute, is_allowed
from zoo.options import checked
from zoo.store.manifest import Manifest, PopulationEntry, read_manifest
from zoo.store.population import Module, Population


class Zoo(Mapping[str, Population]):
    """The populations of a zoo by name."""

    def __init__(
        self, directory: Path, manifest: Manifest, modules: Mapping[str, Module] | None = None
    ):
        """Wrap a manifest; use `load`.

        Args:
            directory: Folder of the zoo.
            manifest: Its manifest.
            modules: What makes the modules of populations.
        """
        self.directory = directory
        self.manifest = manifest
        makers = modules or {}
        self._populations = {
            name: Population(
                name, directory, manifest, module=makers.get(name) or trusted_module(entry)
            )
            for name, entry in manifest.populations.items()
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


def trusted_module(entry: PopulationEntry) -> Module | None:
    """What makes the modules of a population, if its name is code that is allowed here.

    Args:
        entry: What the manifest says of the population.

    Returns:
        The class or function; None if networks are no modules, or of code that nobody named.
    """
    name = (entry.architecture or {}).get("module")
    if name is None or not is_allowed(name):
        return None
    return import_attribute(name, "architecture.module")


@checked
def load(directory: str | Path, modules: Mapping[str, Module] | None = None) -> Zoo:
    """Open a zoo.

    A zoo is data: of networks that are torch modules of somebody's own it has parameters, tables
    and weight spaces, and no code. To run them, say what makes such a module, or trust the name
    that the zoo has for it (`zoo.import_plugin`).

    Args:
        directory: Folder that `generate-zoo` wrote.
        modules: Of populations by name, the class or function that makes the module, called with
            the options that the zoo holds; or an architecture that `zoo.from_module` made, if
            inputs are not one tensor of floating numbers.

    Returns:
        The zoo; nothing but its manifest has been read yet.

    Raises:
        StoreError: If there is no zoo.
        ValueError: If there is no such population.
    """
    manifest = read_manifest(Path(directory))
    if unknown := sorted(set(modules or {}) - set(manifest.populations)):
        raise ValueError(
            f"modules: no populations {unknown} in {directory}; populations are "
            f"{list(manifest.populations)}"
        )
    return Zoo(Path(directory), manifest, modules)
