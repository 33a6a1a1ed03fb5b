"""What a learnability study has to do: its tasks, checked before anything is fitted."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from metanet.estimator import Metanet
from metanet.inputs.population import PopulationLike
from metanet.inputs.treatments import NONE, parse_treatment
from metanet.models.table import METANETS
from studies.common.grid import code_fingerprint
from studies.learnability.config import FLOOR, Learnability, Steps
from studies.learnability.fits import Cell, Place, open_population, read_labels
from studies.learnability.matching import match_labels
from studies.learnability.plugins import find_plugin
from studies.learnability.scores import Task
from studies.learnability.transfer import find_places, reads_weights
from zoo.store.population import Population, Zoo

SET_BY_STUDY = {"model", "target", "seed", "treatment"}


def plan_tasks(config: Learnability, zoo: Zoo, out: Path) -> list[Task]:
    """The tasks of the study, checked before anything is fitted.

    Args:
        config: What to measure.
        zoo: The zoo that it is measured on.
        out: Directory of the study.

    Returns:
        One task a fit.

    Raises:
        ValueError: If the zoo has no such population or column, a metanet or treatment is unknown,
            or a population has too few networks.
    """
    check(config)
    populations = zoo.choose(config.population_names)
    tasks = []
    for target in config.targets:
        scorer = _Scorer(config, out, target)
        opened = {name: open_population(config.zoo, name, target, out) for name in populations}
        scorer.match(opened)
        for name, metanet in product(populations, config.metanets):
            places = find_places(config, populations, metanet, name)
            scorer.match_elsewhere(places)
            for treatment in treatments_of(config, metanet):
                for num_train, seed in product(
                    sizes(config, populations[name], metanet, treatment), config.seeds
                ):
                    tasks.append(
                        scorer.task(populations[name], metanet, treatment, num_train, seed, places)
                    )
            if metanet == shuffled_metanet(config):
                num_train = sizes(config, populations[name], metanet, NONE)[-1]
                tasks.append(
                    scorer.task(
                        populations[name],
                        metanet,
                        NONE,
                        num_train,
                        config.seeds[0],
                        (),
                        shuffled=True,
                    )
                )
    return tasks


class _Scorer:
    """Makes the tasks of one target."""

    def __init__(self, config: Learnability, out: Path, target: str):
        self.config, self.out, self.target = config, out, target
        self.code = code_fingerprint("metanet")
        self.matched: dict[str, tuple[int, ...]] = {}

    def match(self, populations: Mapping[str, PopulationLike]) -> None:
        self.matched |= match_test_networks(self.config, populations, self.target)

    def match_elsewhere(self, places: Sequence[Place]) -> None:
        """Match the populations of another zoo by themselves; those of this zoo are matched already."""
        for place in places:
            if place.name not in self.matched:
                population = open_population(place.zoo, place.population, self.target, self.out)
                self.match({place.name: population})

    def task(
        self,
        population: Population,
        metanet: str,
        treatment: str,
        num_train: int,
        seed: int,
        places: tuple[Place, ...],
        shuffled: bool = False,
    ) -> Task:
        config, spec = self.config, self.config.chains[treatment]
        used = [
            find_plugin("metanet", metanet),
            *(find_plugin("treatment", step) for step in _steps(spec)),
        ]
        plugins = tuple(plugin for plugin in used if plugin is not None)
        cell = Cell(
            zoo=config.zoo,
            population=population.name,
            fingerprint=population.fingerprint,
            metanet=metanet,
            target=self.target,
            num_train=num_train,
            seed=seed,
            code="+".join([self.code, *(plugin.code for plugin in plugins)]),
            options=config.options.get(metanet, {}),
            treatment=spec,
            shuffled=shuffled,
            elsewhere=places,
        )
        matched = {place.name: self.matched[place.name] for place in cell.places}
        return Task(
            cell, treatment, matched, config.match_minimum, config.num_bootstrap, self.out, plugins
        )


def match_test_networks(
    config: Learnability, populations: Mapping[str, PopulationLike], target: str
) -> dict[str, tuple[int, ...]]:
    """Choose the test networks on which the populations' labels agree.

    Args:
        config: The study's config.
        populations: Populations by name.
        target: The column whose histograms agree.

    Returns:
        Increasing network ids for each population, equally many.
    """
    found = {
        name: read_labels(population, "test", target) for name, population in populations.items()
    }
    labels = {name: examples.y.numpy() for name, examples in found.items()}
    chosen = match_labels(labels, num_bins=config.match_bins, seed=0)
    return {name: tuple(found[name].network_id[chosen[name]].tolist()) for name in populations}


def treatments_of(config: Learnability, metanet: str) -> list[str]:
    """Labels of the treatments that a metanet runs with, `none` first."""
    if not reads_weights(metanet):
        return [NONE]
    treated = config.treated
    if isinstance(treated, dict):
        return list(dict.fromkeys((NONE, *treated.get(metanet, ()))))
    return list(config.chains) if treated == "all" or metanet in treated else [NONE]


def shuffled_metanet(config: Learnability) -> str | None:
    """The metanet that is fitted on shuffled labels too, None for none."""
    if isinstance(config.shuffled, str):
        return config.shuffled
    return (
        next((name for name in config.metanets if name != FLOOR), FLOOR)
        if config.shuffled
        else None
    )


def sizes(config: Learnability, population: Population, metanet: str, treatment: str) -> list[int]:
    """Numbers of training networks of one line of the study, increasing, without repetition.

    Without treatment a metanet runs with those of `num_train` and, as what the treatments are
    compared with, of `treated_num_train` if it is treated.

    Args:
        config: The study's config.
        population: Where the networks come from.
        metanet: Name of the metanet.
        treatment: Label of its treatment.

    Returns:
        The numbers.

    Raises:
        ValueError: If the population has not that many.
    """
    available = population.manifest.split["train"]
    asked = {"num_train": config.num_train} if treatment == NONE else {}
    if treatment != NONE or len(treatments_of(config, metanet)) > 1:
        asked["treated_num_train"] = config.treated_num_train or config.num_train
    for key, counts in asked.items():
        for count in counts:
            if count != "all" and count > available:
                raise ValueError(
                    f"{key}: {count} is more than the {available} training networks of population {population.name!r}; "
                    f"use a smaller number, or 'all'"
                )
    return sorted(
        {available if count == "all" else count for counts in asked.values() for count in counts}
    )


def _steps(spec: Steps) -> list[str]:
    if isinstance(spec, dict):
        return list(spec)
    return [] if spec == NONE else [name.strip() for name in spec.split("+")]


def check(config: Learnability) -> None:
    """Check names and options of metanets and treatments.

    Args:
        config: What to measure.

    Raises:
        ValueError: If a name is unknown, an option is not valid, or two labels stand for the same
            treatment.
    """
    named = [config.shuffled] if isinstance(config.shuffled, str) else []
    _check_names("metanet", (*config.metanets, *config.options), METANETS)
    _check_names("metanet of the study", named, config.metanets)
    for name, options in config.options.items():
        if taken := SET_BY_STUDY & set(options):
            raise ValueError(
                f"options of metanet {name!r}: {sorted(taken)} are set by the study, not by its options"
            )
        Metanet(name, **options).check()
    _check_treatments(config)


def _check_treatments(config: Learnability) -> None:
    chains: list[tuple[str, Any]] = []
    for label, spec in config.chains.items():
        parsed = parse_treatment(spec)
        same = [other for other, chain in chains if chain == parsed]
        if same:
            raise ValueError(
                f"treatments {same[0]!r} and {label!r} are the same; name each one once"
            )
        chains.append((label, parsed))
    if config.treated == "all":
        return
    _check_names("metanet of the study", config.treated, config.metanets)
    for name in config.treated:
        if not reads_weights(name):
            raise ValueError(
                f"treated: metanet {name!r} reads no weights; there is nothing to treat"
            )
    if isinstance(config.treated, dict):
        for labels in config.treated.values():
            _check_names("treatment", labels, config.chains)


def _check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    options = list(known)
    for name in names:
        if name not in options:
            raise ValueError(f"unknown {what}: {name!r}; known are {options}")
