"""What a metanet is: a torch module from networks to one raw number each, and what its builder may look at.

A builder is any callable ``builder(spec, *, option=default, ...) -> nn.Module``; one line
``METANETS["mine"] = builder`` makes it known. Keyword-only arguments are the options that `Metanet`
accepts for it. The module must have

* ``forward(features) -> Float[Tensor, "B"]``, raw and of order one; bounded and scaled outside, by
  the target.

and may have, each with the default that its absence means:

* ``features(networks) -> tensor or dict of tensors``, leading axis = networks, computed once per
  population, nothing learned (default: the full parameters as they are, ``dict[str, Tensor]``, each
  ``[B, *shape]``);
* ``calibrate(features)``: set normalization buffers from the *training* networks (default:
  nothing);
* ``summarize(features) -> tensor [B, ...]`` and ``settle(summaries)``: the same in two steps, what
  must be known of each network and what follows for all, so that no more than some networks are in
  memory at a time (default: ``calibrate``);
* ``compact``: whether features are much smaller than networks, so that those of all networks fit
  into memory where the networks do not (default: False);
* ``fit(train, validation, training, seed) -> History``: replaces gradient descent, for trees
  (default: `metanet.train.train_module`);
* ``recommended``: `Training` settings that suit it (default: ``Training()``);
* ``reads``: ``"params"`` or ``"hyperparameters"``, what ``features`` receives (default:
  ``"params"``);
* ``invariant``: what leaves the output unchanged, held to it by `check_metanet`: ``"permutations"``
  of neurons, or all declared ``"symmetries"``, scales and signs among them (default:
  ``"nothing"``);
* ``runs_networks``: whether it needs ``spec.network``, to run the networks on inputs (default:
  False);
* ``mixed``: a builder ``mixed(specs, *, option=default, ...)`` of a metanet for several
  populations, whose ``features(networks, spec)`` gives `Mixed` and whose ``admit(spec)`` makes
  a new weight space readable or raises ValueError (default: populations are read one at a time);
* ``presets``: named sets of options, such as ``"published"`` sizes, for ``Metanet(...,
  preset="published")`` (default: none).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor, nn

from zoo.network import Network
from zoo.params import Params
from zoo.weight_space import WeightSpace

Networks = Params | pd.DataFrame
Reads = Literal["params", "hyperparameters"]
Invariance = Literal["nothing", "permutations", "symmetries"]


@dataclass(frozen=True)
class Mixed:
    """Networks of several weight spaces.

    Attributes:
        parts: Flat params ``[N, P]`` of the networks of each spec, by its key.
        order: For each network, its place when the parts are laid one after the other.
    """

    parts: dict[str, Tensor]
    order: Tensor

    def take(self, index: Tensor | slice) -> "Mixed":
        """Some of the networks, in the order of the index."""
        chosen, parts, start = self.order[index], {}, 0
        kept = chosen.sort()
        for key, tensor in self.parts.items():
            own = kept.values[(kept.values >= start) & (kept.values < start + len(tensor))] - start
            start += len(tensor)
            if len(own):
                parts[key] = tensor[own]
        return Mixed(parts, kept.indices.argsort())


Features = Tensor | dict[str, Tensor] | Mixed


PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """Settings of one training run.

    Attributes:
        epochs: Most passes over the training networks; for trees, most boosting rounds.
        batch_size: Networks per step (about: batches of a pass differ by at most one network).
        lr: Peak learning rate; for trees, shrinkage.
        weight_decay: Decoupled decay of matrices and kernels (not of biases and norms); for trees,
            the L2 penalty of leaves.
        patience: Stop after this many passes (rounds) without a better validation loss.
        precision: `"float32"`, or `"bfloat16"` for the products of training steps; weights and
            predictions stay float32.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.1
    patience: int = 15
    precision: str = "float32"

    def __post_init__(self):
        """Check the settings.

        Raises:
            ValueError: If one is out of range.
        """
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise ValueError(
                f"expected lr > 0 and weight_decay >= 0, got lr={self.lr}, weight_decay={self.weight_decay}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {list(PRECISIONS)}, got {self.precision!r}"
            )


@dataclass(frozen=True)
class InputSpec:
    """What a builder is told about the networks that its metanet will read.

    Attributes:
        space: Weight space of the full parameters.
        free: Boolean masks ``[*shape]``, True = trained, of the tensors with fixed entries.
        hyperparameters: Hyperparameter columns; the sorted values of a column of strings, None for
            a numeric column.
        network: What the networks compute; None if it is not known, or the metanet does not run
            networks.
    """

    space: WeightSpace
    free: Mapping[str, Tensor] = field(default_factory=dict)
    hyperparameters: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    network: Network | None = None

    def num_free(self, tensor: str) -> int:
        """Number of trained entries of a tensor."""
        if tensor in self.free:
            return int(self.free[tensor].sum())
        return torch.Size(self.space.shapes[tensor]).numel()

    @property
    def free_sizes(self) -> dict[str, int]:
        """Number of trained entries of every tensor that has any, in the order of the space."""
        return {name: count for name in self.space.tensors if (count := self.num_free(name))}


def spec_key(spec: InputSpec) -> str:
    """Identity of a weight space with its masks, hexadecimal."""
    masks = b"".join(
        name.encode() + spec.free[name].bool().cpu().numpy().tobytes() for name in sorted(spec.free)
    )
    return hashlib.sha256(spec.space.fingerprint.encode() + masks).hexdigest()


@runtime_checkable
class Builder(Protocol):
    """Makes an untrained metanet for a spec; its keyword-only arguments are the metanet's options."""

    def __call__(self, spec: InputSpec, /) -> nn.Module:
        """Build the module."""
        ...


@runtime_checkable
class PopulationLike(Protocol):
    """The part of `zoo.store.population.Population` that metanets use; those that run networks also use its `network`."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def space(self) -> WeightSpace: ...  # noqa: D102

    @property
    def free(self) -> Mapping[str, Tensor]: ...  # noqa: D102

    @property
    def hyperparameters(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def splits(self) -> tuple[str, ...]: ...  # noqa: D102

    def params(self, split: str) -> Params: ...  # noqa: D102

    def table(self, split: str) -> pd.DataFrame: ...  # noqa: D102


def reads(module: nn.Module) -> Reads:
    """What the metanet reads of a network: its parameters or its hyperparameters."""
    return getattr(module, "reads", "params")


def network_of(builder: Builder, population: PopulationLike) -> Network | None:
    """What the networks of a population compute, if it is known and the metanet runs networks; else None."""
    return (
        getattr(population, "network", None) if getattr(builder, "runs_networks", False) else None
    )


def invariant_to(module: nn.Module) -> Invariance:
    """What the metanet declares to leave its output unchanged."""
    return getattr(module, "invariant", "nothing")


def is_mixed(module: nn.Module) -> bool:
    """Whether the metanet reads several weight spaces."""
    return hasattr(module, "admit")


def recommended_training(module: nn.Module) -> Training:
    """The training settings that a metanet recommends for itself."""
    return getattr(module, "recommended", Training())


def features_of(module: nn.Module, networks: Networks) -> Features:
    """The inputs of a metanet, computed once per population.

    Args:
        module: A metanet.
        networks: Full params ``[N, *shape]``, or a table of hyperparameters with N rows.

    Returns:
        Tensor or tensors with leading axis N.
    """
    compute = getattr(module, "features", None)
    return networks if compute is None else compute(networks)  # type: ignore[return-value]


def needs_all(module: nn.Module) -> str | None:
    """Why a metanet cannot learn from networks that do not fit into memory; None if it can."""
    if getattr(module, "compact", False):
        return None
    if hasattr(module, "fit"):
        return (
            "it trains on the features of all networks at once and does not declare them `compact`"
        )
    if hasattr(module, "calibrate") and not hasattr(module, "summarize"):
        return "its `calibrate` takes all networks at once; give it `summarize` and `settle`, or declare its features `compact`"
    return None


def rows(features: Features, index: Tensor | slice) -> Features:
    """Some of the networks."""
    if isinstance(features, Mixed):
        return features.take(index)
    return (
        features[index]
        if isinstance(features, Tensor)
        else {name: tensor[index] for name, tensor in features.items()}
    )


def count_rows(features: Features) -> int:
    """Number of networks."""
    if isinstance(features, Mixed):
        return len(features.order)
    return len(features if isinstance(features, Tensor) else next(iter(features.values())))


def concatenate(parts: Sequence[Features]) -> Features:
    """Networks of several features, one after the other."""
    if len(parts) == 1:
        return parts[0]
    tensors, groups = (
        [p for p in parts if isinstance(p, Tensor)],
        [p for p in parts if isinstance(p, dict)],
    )
    mixed = [p for p in parts if isinstance(p, Mixed)]
    if mixed:
        return _concatenate_mixed(mixed)
    return (
        torch.cat(tensors)
        if tensors
        else {name: torch.cat([part[name] for part in groups]) for name in groups[0]}
    )


def _concatenate_mixed(parts: Sequence[Mixed]) -> Mixed:
    """Networks of the same spec, wherever they stand, become one part."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    first = 0
    for part in parts:
        ranks, start = part.order.argsort() + first, 0
        for key, tensor in part.parts.items():
            found.setdefault(key, []).append((tensor, ranks[start : start + len(tensor)]))
            start += len(tensor)
        first += len(part.order)
    ranks = torch.cat([rank for own in found.values() for _, rank in own])
    return Mixed(
        {key: torch.cat([tensor for tensor, _ in own]) for key, own in found.items()},
        ranks.argsort(),
    )


def to_device(features: Features, device: torch.device | str) -> Features:
    """Move to a device."""
    if isinstance(features, Mixed):
        return Mixed(
            {key: tensor.to(device) for key, tensor in features.parts.items()},
            features.order.to(device),
        )
    return (
        features.to(device)
        if isinstance(features, Tensor)
        else {n: t.to(device) for n, t in features.items()}
    )


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block under a seed and give the global random state back as it was."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def resolve_device(device: str) -> torch.device:
    """The device of a name, `"auto"` being a GPU where there is one."""
    return torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
