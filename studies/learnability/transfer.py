"""Transfer.

On which other populations a metanet that was fitted on one can be scored, and why not on the rest.
"""

from collections.abc import Mapping
from pathlib import Path

from metanet.contract import InputSpec, declared
from metanet.inputs.checks import check_spec, width_difference
from metanet.models.table import METANETS
from studies.learnability.config import Learnability
from studies.learnability.fits import Place
from zoo.store.population import Population
from zoo.store.zoo import load


def reads_weights(metanet: str) -> bool:
    """Whether a metanet of the table reads weights, and not hyperparameters."""
    return declared(METANETS[metanet]).reads == "params"


def other_populations(
    config: Learnability, populations: Mapping[str, Population], fitted_on: str
) -> dict[str, Population]:
    """Where a metanet might be scored besides its own population.

    Args:
        config: The study's config.
        populations: Its populations by name.
        fitted_on: The population that the metanet is fitted on.

    Returns:
        Populations by what the rows call them: their name, or `zoo/name` in another zoo.

    Raises:
        ValueError: If two zoos have the same name.
    """
    names = [directory.name for directory in config.transfer_zoos]
    if len(set(names)) < len(names):
        raise ValueError(f"transfer_zoos: expected folders of different names, got {names}")
    others = dict(populations) if config.transfer else {}
    others.pop(fitted_on, None)
    for directory in config.transfer_zoos:
        if fitted_on in (zoo := load(directory)):
            others[f"{directory.name}/{fitted_on}"] = zoo[fitted_on]
    return others


def why_not(metanet: str, fitted_on: Population, other: Population) -> str:
    """Why a metanet cannot be scored on another population than it was fitted on.

    Args:
        metanet: Name of the metanet.
        fitted_on: Population that it was fitted on.
        other: The other one.

    Returns:
        The reason, empty if there is none.
    """
    if not reads_weights(metanet):
        missing = [name for name in fitted_on.hyperparameters if name not in other.hyperparameters]
        return f"it has no hyperparameters {', '.join(missing)}" if missing else ""
    contract = declared(METANETS[metanet])
    if contract.transfers and fitted_on.space != other.space:
        return "more than widths differ" if width_difference(fitted_on.space, other.space) else ""
    architecture = fitted_on.architecture if contract.runs_networks else None
    spec = InputSpec(fitted_on.space, fitted_on.free, architecture=architecture)
    try:
        check_spec(spec, other.space, other.free, "")
    except ValueError:
        if dict(fitted_on.space.shapes) != dict(other.space.shapes):
            return "its tensors have other shapes"
        return (
            "its declared symmetry is another"
            if fitted_on.space != other.space
            else "other entries of it are fixed"
        )
    return (
        ""
        if spec.architecture is None or other.architecture.is_like(spec.architecture)
        else "its networks compute another function"
    )


def find_places(
    config: Learnability, populations: Mapping[str, Population], metanet: str, fitted_on: str
) -> tuple[Place, ...]:
    """Where a metanet is scored besides its own population.

    Args:
        config: The study's config.
        populations: Its populations by name.
        metanet: Name of the metanet.
        fitted_on: The population that it is fitted on.

    Returns:
        The places.
    """
    others = other_populations(config, populations, fitted_on)
    return tuple(
        Place(Path(other.directory), other.name, other.fingerprint, name)
        for name, other in others.items()
        if not why_not(metanet, populations[fitted_on], other)
    )


def impossible(config: Learnability, populations: Mapping[str, Population]) -> list[str]:
    """Combinations that have no row.

    Args:
        config: The study's config.
        populations: Its populations by name.

    Returns:
        One sentence for each population and reason.
    """
    sentences = []
    for fitted_on, population in populations.items():
        others = other_populations(config, populations, fitted_on)
        for metanets, reasons in _refusals(config, population, others).items():
            told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
            who = f"{', '.join(metanets)} fitted on {fitted_on}"
            sentences.append(f"{who} cannot be scored on {told}.")
        for directory in config.transfer_zoos:
            if fitted_on not in load(directory):
                sentences.append(f"The zoo {directory.name} has no population {fitted_on}.")
    return sentences


def _refusals(
    config: Learnability, fitted_on: Population, others: Mapping[str, Population]
) -> dict[tuple[str, ...], dict[str, list[str]]]:
    """By the metanets that share it: each reason, and the populations that it is for."""
    refusals: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name, other in others.items():
        metanets_of: dict[str, list[str]] = {}
        for metanet in config.metanets:
            metanets_of.setdefault(why_not(metanet, fitted_on, other), []).append(metanet)
        metanets_of.pop("", None)
        for reason, metanets in metanets_of.items():
            refusals.setdefault(tuple(metanets), {}).setdefault(reason, []).append(name)
    return refusals
