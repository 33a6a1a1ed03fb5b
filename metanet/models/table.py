"""The table of metanets: one file and one line each.

`METANETS["mine"] = builder` adds another; see `metanet.contract`.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metanet.contract import Builder, InputSpec, MetanetModule, as_metanet, declared
from metanet.models.deepsets import ScalarDeepSets
from metanet.models.dmc import DMC
from metanet.models.gbm import StatisticsBoosting
from metanet.models.gmn import GraphMetanet
from metanet.models.graph_transformer import GraphTransformer
from metanet.models.hparams import HyperparameterBoosting
from metanet.models.mlp import FlatMLP
from metanet.models.nfn import NeuralFunctional
from metanet.models.probe import Probe
from metanet.models.scale_gmn import ScaleGraphMetanet
from metanet.models.statnn import StatNN
from metanet.models.tokens import TokenTransformer
from metanet.models.width_gmn import WidthGraphMetanet
from zoo.options import check_options, plain

METANETS: dict[str, Builder] = {
    "hparams": HyperparameterBoosting,
    "gbm": StatisticsBoosting,
    "statnn": StatNN,
    "mlp": FlatMLP,
    "dmc": DMC,
    "deepsets": ScalarDeepSets,
    "gmn": GraphMetanet,
    "graph_transformer": GraphTransformer,
    "width_gmn": WidthGraphMetanet,
    "nfn": NeuralFunctional,
    "tokens": TokenTransformer,
    "scale_gmn": ScaleGraphMetanet,
    "probe": Probe,
}


def checked_builder(model: str, options: Mapping[str, Any]) -> Builder:
    """Find a metanet's builder and check its options.

    Args:
        model: Name in `METANETS`.
        options: Options for its builder; `preset` names one of its sets of options.

    Returns:
        The builder.

    Raises:
        ValueError: If the name, the preset or an option is unknown, lists the valid ones; or if an
            option is not what its annotation says.
    """
    if model not in METANETS:
        raise ValueError(f"unknown metanet {model!r}; metanets are {sorted(METANETS)}")
    builder = METANETS[model]
    presets = list(declared(builder).presets)
    given = {name: plain(value) for name, value in options.items()}
    if presets and given.pop("preset", presets[0]) not in presets:
        raise ValueError(
            f"metanet {model!r} has no preset {options['preset']!r}; its presets are {presets}"
        )
    parameters = inspect.signature(builder).parameters.values()
    networks = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    check_options(f"metanet {model!r}", builder, given, networks)
    return builder


def build(model: str, specs: Sequence[InputSpec], options: Mapping[str, Any]) -> MetanetModule:
    """Build an untrained metanet.

    Args:
        model: Name in `METANETS`.
        specs: What it will read, population by population.
        options: Its options; those of `preset`, if one is named, unless given otherwise.

    Returns:
        The module.

    Raises:
        ValueError: If there are several populations, and the metanet reads one at a time.
    """
    given = {name: plain(value) for name, value in options.items()}
    builder = checked_builder(model, given)
    contract = declared(builder)
    chosen = {**contract.presets.get(given.pop("preset", ""), {}), **given}
    if len(specs) == 1:
        return as_metanet(builder(specs[0], **chosen))
    if contract.several is None:
        able = [name for name, other in METANETS.items() if declared(other).several is not None]
        raise ValueError(
            f"metanet {model!r} reads one population at a time; "
            f"metanets that read several are {able}"
        )
    return contract.several(specs, **chosen)


def rebuild_trained(
    model: str,
    specs: Sequence[InputSpec],
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
) -> MetanetModule:
    """Build a metanet that was trained, from what a file of unknown origin holds.

    What does not fit the state is never allocated.

    Args:
        model: Name in `METANETS`.
        specs: What it reads, population by population.
        options: Its options.
        state: Of the torch module.

    Returns:
        The module.

    Raises:
        ValueError: If the state is of another metanet.
    """
    if checked_builder(model, options).__module__.startswith("metanet."):
        _with_state("meta", model, specs, options, state)
    return _with_state("cpu", model, specs, options, state)


def _with_state(
    device: str,
    model: str,
    specs: Sequence[InputSpec],
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
) -> MetanetModule:
    try:
        with torch.device(device):
            module = build(model, specs, options)
        _check_names(module.state_dict(), state)
        module.load_state_dict({name: tensor.to(device) for name, tensor in state.items()})
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"weights do not fit metanet {model!r}: {why:.1000}") from error
    types = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    if wrong := [name for name, tensor in state.items() if tensor.dtype != types[name]]:
        raise ValueError(f"weights of metanet {model!r}: another type in {wrong[:5]}")
    return module


def _check_names(expected: Iterable[str], found: Iterable[str]) -> None:
    missing, unknown = set(expected) - set(found), set(found) - set(expected)
    if missing or unknown:
        raise RuntimeError(f"missing {sorted(missing)[:5]}, unknown {sorted(unknown)[:5]}")
