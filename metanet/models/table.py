"""The table of metanets: one file and one line each.

`METANETS["mine"] = builder` adds another; see `metanet.contract`.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from metanet.contract import Builder, InputSpec, MetanetModule, as_metanet, check_names, declared
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
    builder = METANETS[model]
    presets = declared(builder).presets
    if "preset" in options and options["preset"] not in presets:
        raise ValueError(
            f"metanet {model!r} has no preset {options['preset']!r}; "
            f"its presets are {list(presets)}"
        )
    parameters = inspect.signature(builder).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return builder
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    valid += ["preset"] if presets else []
    check_names(f"metanet {model!r}", options, valid)
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
        ValueError: If there is no population, or several and the metanet reads one at a time.
    """
    builder = check_options(model, options)
    contract = declared(builder)
    given = dict(options)
    chosen = {**contract.presets.get(given.pop("preset", ""), {}), **given}
    if not specs:
        raise ValueError(f"metanet {model!r}: expected at least one population, got none")
    if len(specs) == 1:
        return as_metanet(builder(specs[0], **chosen))
    if contract.several is None:
        able = [name for name, other in METANETS.items() if declared(other).several is not None]
        raise ValueError(
            f"metanet {model!r} reads one population at a time; "
            f"metanets that read several are {able}"
        )
    return contract.several(specs, **chosen)
