"""The table of metanets: one file and one line each. `METANETS["mine"] = builder` adds another; see `metanet.contract`."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from metanet.contract import Builder, InputSpec
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


def check_options(model: str, options: Mapping[str, Any]) -> Builder:
    """Find a metanet's builder and check its options by name.

    Args:
        model: Name in `METANETS`.
        options: Options for its builder; `preset` names one of its sets of options.

    Returns:
        The builder.

    Raises:
        ValueError: If the name, the preset or an option is unknown; lists the valid ones.
    """
    if model not in METANETS:
        raise ValueError(f"unknown metanet {model!r}; metanets are {sorted(METANETS)}")
    presets = getattr(METANETS[model], "presets", {})
    if "preset" in options and options["preset"] not in presets:
        raise ValueError(
            f"metanet {model!r} has no preset {options['preset']!r}; its presets are {list(presets)}"
        )
    parameters = inspect.signature(METANETS[model]).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    valid += ["preset"] * bool(presets)
    unknown = [name for name in options if name not in valid]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(
            f"metanet {model!r} has no option {', '.join(map(repr, unknown))}; its options are {valid}"
        )
    return METANETS[model]


def build(model: str, spec: InputSpec, options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained metanet.

    Args:
        model: Name in `METANETS`.
        spec: What it will read.
        options: Its options; those of `preset`, if one is named, unless given otherwise.

    Returns:
        The module.
    """
    return check_options(model, options)(spec, **_resolved(model, options))


def build_mixed(model: str, specs: Sequence[InputSpec], options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained metanet for several populations.

    Args:
        model: Name in `METANETS`.
        specs: What it will learn from.
        options: Its options, as for `build`.

    Returns:
        The module.

    Raises:
        ValueError: If the metanet reads one population at a time, or there is none.
    """
    check_options(model, options)
    able = [name for name, builder in METANETS.items() if hasattr(builder, "mixed")]
    if model not in able:
        raise ValueError(
            f"metanet {model!r} reads one population at a time; metanets that read several are {able}"
        )
    if not specs:
        raise ValueError(f"metanet {model!r}: expected at least one population, got none")
    return METANETS[model].mixed(specs, **_resolved(model, options))  # type: ignore[attr-defined]


def _resolved(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, with those of the preset that they name."""
    preset = (
        getattr(METANETS[model], "presets", {})[options["preset"]] if "preset" in options else {}
    )
    return {**preset, **{name: value for name, value in options.items() if name != "preset"}}
