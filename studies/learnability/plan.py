"""What a learnability study has to do: its fits and scores, checked before anything is fitted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path

from metanet.estimator import Metanet
from metanet.inputs.treatments import NONE, parse_treatment, step_names
from metanet.models.table import METANETS
from studies.common.grid import PACKAGES, Measurement, code_fingerprint
from studies.learnability.config import FLOOR, Learnability, Steps
from studies.learnability.fits import FitCell, fit, open_population, read_labels
from studies.learnability.matching import match_labels
from studies.learnability.plugins import find_plugin, why_only_here
from studies.learnability.scores import ScoreCell, score
from studies.learnability.transfer import find_places, reads_weights
from zoo.store.population import Population
from zoo.store.zoo import load
from zoo.views import PopulationLike

FIT_MODULES = ("studies.common.computed_targets", "studies.learnability.fits")
SET_BY_STUDY = {"model", "target", "seed", "treatment"}


@dataclass(frozen=True, eq=False)
class _Scope:
    """What the fits of one target have in common.

    Attributes:
        config: What to measure.
        out: Directory of the study.
        populations: The populations of the study by name.
        target: The target.
        codes: Fingerprints of the code of both stages.
        matched: Label-matched test networks by name of the place; places of other zoos are matched
            when they come up.
    """

    config: Learnability
    out: Path
    populations: Mapping[str, Population]
    target: str
    codes: tuple[str, str]
    matched: dict[str, tuple[int, ...]]

    @property
    def folder(self) -> Path:
        """Where computed targets are kept."""
        return self.out / "derived"


def plan_study(config: Learnability, out: Path) -> list[Measurement]:
    """The fits of the study and how they are scored, checked before anything is fitted.

    Args:
        config: What to measure.
        out: Directory of the study.

    Returns:
        One measurement a fit, of its scores; it needs that of the fit.

    Raises:
        ValueError: If the zoo has no such population or column, a metanet or treatment is unknown,
            or a population has too few networks.
    """
    check(config)
    populations = load(config.zoo).choose(config.population_names)
    codes = (
        code_fingerprint(*PACKAGES, "metanet", *FIT_MODULES),
        code_fingerprint(*PACKAGES, "metanet", score.__module__),
    )
    planned = []
    for target in config.targets:
        scope = _Scope(config, out, populations, target, codes, {})
        _match(scope, {name: (config.zoo, name) for name in populations})
        for name, metanet in product(populations, config.metanets):
            planned += _plan_metanet(scope, populations[name], metanet)
    return planned


def _plan_metanet(scope: _Scope, population: Population, metanet: str) -> list[Measurement]:
    """All fits of one metanet on one population."""
    config = scope.config
    places = find_places(config, scope.populations, metanet, population.name)
    for place in places:  # those of other zoos by themselves
        if place.name not in scope.matched:
            _match(scope, {place.name: (place.zoo, place.population)})
    planned = []
    for treatment in treatments_of(config, metanet):
        cell_of = _fit_cell(scope, population, metanet, config.chains[treatment])
        counts = sizes(config, population, metanet, treatment)
        for num_train, seed in product(counts, config.seeds):
            cell = cell_of(num_train=num_train, seed=seed, elsewhere=places)
            planned.append(_plan_fit(scope, cell, treatment))
    if metanet == shuffled_metanet(config):
        most = sizes(config, population, metanet, NONE)[-1]
        cell_of = _fit_cell(scope, population, metanet, NONE)
        cell = cell_of(num_train=most, seed=config.seeds[0], shuffled=True)
        planned.append(_plan_fit(scope, cell, NONE))
    return planned


def _match(scope: _Scope, places: Mapping[str, tuple[Path, str]]) -> None:
    """Match the labels of populations, zoo and name by name of the place, with each other."""
    opened = {
        name: open_population(*place, scope.target, scope.folder) for name, place in places.items()
    }
    scope.matched.update(match_test_networks(scope.config, opened, scope.target))


def _fit_cell(
    scope: _Scope, population: Population, metanet: str, spec: Steps
) -> Callable[..., FitCell]:
    """The fits of a metanet that is treated in some way, by how many networks and by seed."""
    config = scope.config
    treatments = [find_plugin("treatment", step) for step in step_names(spec)]
    plugins = [find_plugin("metanet", metanet), *treatments]
    return partial(
        FitCell,
        zoo=config.zoo,
        folder=scope.folder,
        population=population.name,
        fingerprint=population.fingerprint,
        metanet=metanet,
        target=scope.target,
        options=config.options.get(metanet, {}),
        treatment=spec,
        steps=repr(parse_treatment(spec).steps),
        plugins=tuple(plugin for plugin in plugins if plugin is not None),
    )


def _plan_fit(scope: _Scope, cell: FitCell, treatment: str) -> Measurement:
    """Score a fit, after fitting it; fits on many networks take long and come first."""
    config, (fit_code, score_code) = scope.config, scope.codes
    common = {"cost": cell.num_train, "only_here": why_only_here(cell.plugins)}
    fitted = Measurement(fit, cell, scope.out, fit_code, **common)
    matched = {place.name: scope.matched[place.name] for place in cell.places}
    counts = (config.match_minimum, config.num_bootstrap)
    scored = ScoreCell(cell, fitted.key, treatment, matched, *counts)
    return Measurement(score, scored, scope.out, score_code, needs=(fitted,), **common)


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
    ids, labels = {}, {}
    for name, population in populations.items():
        examples = read_labels(population, "test", target)
        ids[name], labels[name] = examples.network_id, examples.y.numpy()
    chosen = match_labels(labels, num_bins=config.match_bins, seed=0)
    return {name: tuple(ids[name][chosen[name]].tolist()) for name in populations}


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
    if not config.shuffled:
        return None
    return next((name for name in config.metanets if name != FLOOR), FLOOR)


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
    available = population.sizes["train"]
    wanted = {"num_train": config.num_train} if treatment == NONE else {}
    if treatment != NONE or len(treatments_of(config, metanet)) > 1:
        wanted["treated_num_train"] = config.treated_num_train or config.num_train
    chosen = set()
    for key, counts in wanted.items():
        for count in (available if count == "all" else count for count in counts):
            if count > available:
                raise ValueError(
                    f"{key}: {count} is more than the {available} training networks of population "
                    f"{population.name!r}; use a smaller number, or 'all'"
                )
            chosen.add(count)
    return sorted(chosen)


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
                f"options of metanet {name!r}: {sorted(taken)} are set by the study, not by its "
                "options"
            )
        Metanet(name, **options).check()
    _check_treatments(config)


def _check_treatments(config: Learnability) -> None:
    parsed = {label: parse_treatment(spec) for label, spec in config.chains.items()}
    for label, other in combinations(parsed, 2):
        if parsed[label] == parsed[other]:
            raise ValueError(f"treatments {label!r} and {other!r} are the same; name each one once")
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
