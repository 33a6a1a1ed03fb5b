"""What a metanet is: a torch module from networks to one raw number each.

A builder is any callable ``builder(spec, *, option=default, ...) -> nn.Module``; one line
``METANETS["mine"] = builder`` makes it known. Keyword-only arguments are the options that `Metanet`
accepts for it. A module that has ``forward(params)`` and nothing else is taken as it is; what a
metanet declares or does besides is a class attribute or a method of `MetanetModule`, its base.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.columns import HyperparameterColumn
from metanet.feature_rows import Features
from zoo.architectures import Architecture
from zoo.options import Count, NotNegative, Positive, check_options
from zoo.params import Params
from zoo.weight_space import WeightSpace

Networks = Params | pd.DataFrame
Reads = Literal["params", "hyperparameters"]
Invariance = Literal["nothing", "permutations", "symmetries"]
Options = Mapping[str, int | float]
Precision = Literal["float32", "bfloat16"]


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

    epochs: Count = 60
    batch_size: Count = 64
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.1
    patience: Count = 15
    precision: Precision = "float32"

    def __post_init__(self):
        """Check the settings.

        Raises:
            ValueError: If one is out of range.
        """
        check_options("training", Training, vars(self))


@dataclass(frozen=True)
class History:
    """Course of one training run.

    Attributes:
        validation_loss: After each pass (for trees, by number of trees).
        best_epoch: Index of the lowest validation loss: the weights that were kept.
    """

    validation_loss: list[float]
    best_epoch: int


@dataclass(frozen=True)
class InputSpec:
    """What a builder is told about the networks that its metanet will read.

    Attributes:
        space: Weight space of the full parameters.
        free: Boolean masks ``[*shape]``, True = trained, of the tensors with fixed entries.
        hyperparameters: Hyperparameter columns.
        architecture: What the networks compute; None if it is not known, or the metanet runs no
            networks.
        num_outputs: Raw outputs K of the metanet for each network, ``[B, K]``; None for one number
            without an axis of its own, ``[B]``.
    """

    space: WeightSpace
    free: Mapping[str, Tensor] = field(default_factory=dict)
    hyperparameters: Mapping[str, HyperparameterColumn] = field(default_factory=dict)
    architecture: Architecture | None = None
    num_outputs: int | None = None

    def num_free(self, tensor: str) -> int:
        """Number of trained entries of a tensor."""
        if tensor in self.free:
            return int(self.free[tensor].sum())
        return torch.Size(self.space.shapes[tensor]).numel()

    @property
    def free_sizes(self) -> dict[str, int]:
        """Number of trained entries of every tensor that has any, in the order of the space."""
        return {name: count for name in self.space.tensors if (count := self.num_free(name))}

    @property
    def key(self) -> str:
        """Identity of the weight space with its masks, hexadecimal."""
        masks = b"".join(
            name.encode() + self.free[name].bool().cpu().numpy().tobytes()
            for name in sorted(self.free)
        )
        return hashlib.sha256(self.space.fingerprint.encode() + masks).hexdigest()


class MetanetModule(nn.Module):
    """Base of metanets: what each may declare or do, with what holds if it does not.

    A metanet has ``forward(features) -> Float[Tensor, "B"]``, raw and of order one: the target
    scales and bounds it. What `calibrate` measures must be kept in buffers, so that it is saved.

    Attributes:
        recommended: Training settings that suit it.
        reads: What `features` receives.
        invariant: What leaves the output unchanged, held to it by `check_metanet`: permutations of
            neurons, or all declared symmetries, scales and signs among them.
        compact: Whether features are much smaller than networks, so that those of all networks fit
            into memory where the networks do not.
        runs_networks: Whether it needs `InputSpec.architecture`, to run the networks on inputs.
        transfers: Whether `transfer` takes it to other weight spaces.
        several: Builder ``several(specs, *, option=default, ...)`` of a metanet for several weight
            spaces; None if networks of one are all that it can read.
        presets: Named sets of options, for ``Metanet(..., preset="published")``.
    """

    recommended: Training = Training()
    reads: ClassVar[Reads] = "params"
    invariant: ClassVar[Invariance] = "nothing"
    compact: ClassVar[bool] = False
    runs_networks: ClassVar[bool] = False
    transfers: ClassVar[bool] = False
    several: ClassVar[Callable[..., "MetanetModule"] | None] = None
    presets: ClassVar[Mapping[str, Options]] = {}

    def features(self, networks: Any) -> Features:
        """What `forward` reads, computed once for each population; nothing here is learned.

        Args:
            networks: Full params ``[N, *shape]``, or a table of hyperparameters with N rows.

        Returns:
            Tensor or tensors with leading axis N; the params as they are, by default.
        """
        return networks

    def features_in(self, networks: Any, spec: InputSpec) -> Features:
        """`features` of a metanet that reads several weight spaces.

        Args:
            networks: Networks of one of them.
            spec: Which.

        Returns:
            Features.
        """
        del spec  # all networks are of the weight space that it was built for
        return self.features(networks)

    def calibrate(self, pieces: Iterable[Any]) -> None:
        """Set normalization buffers.

        Args:
            pieces: Features of the training networks, some networks after the other: an iterator,
                since all of them may be more than fits into memory.
        """

    def fit(
        self,
        learn: tuple[Any, Float[Tensor, "N"]],
        held_out: tuple[Any, Float[Tensor, "M"]],
        training: Training,
        seed: int,
    ) -> History:
        """Learn in another way than by gradient descent, as trees do.

        Args:
            learn: Features and raw targets of the training networks.
            held_out: Those of the validation networks.
            training: Settings.
            seed: Of random choices.

        Raises:
            NotImplementedError: By default: gradients train the metanet.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained by gradient descent")

    @property
    def has_gradients(self) -> bool:
        """Whether gradient descent trains it: unless it has a `fit` of its own."""
        return type(self).fit is MetanetModule.fit

    def transfer(self, spec: InputSpec) -> "MetanetModule":
        """The same metanet for networks of another weight space.

        Args:
            spec: The other networks.

        Returns:
            A module that shares what was learned.

        Raises:
            ValueError: If it cannot read them; by default, it never can.
        """
        del spec
        raise ValueError(f"{type(self).__name__} reads the weight space that it was built for only")


class PlainMetanet(MetanetModule):
    """A metanet of a module that has nothing but `forward`."""

    def __init__(self, module: nn.Module):
        """Wrap.

        Args:
            module: Maps params ``[B, *shape]`` to ``[B]``.
        """
        super().__init__()
        self.module = module

    def forward(self, features: Features) -> Float[Tensor, "B"]:
        """Raw prediction."""
        return self.module(features)


def as_metanet(module: nn.Module) -> MetanetModule:
    """A metanet of what a builder gave.

    Args:
        module: A metanet, or a plain module.

    Returns:
        The metanet.

    Raises:
        ValueError: If a plain module has what only a metanet can have, and nobody would look at.
    """
    if isinstance(module, MetanetModule):
        return module
    names = sorted(vars(type(module)).keys() & vars(MetanetModule).keys())
    if unread := [name for name in names if not name.startswith("_") and name != "forward"]:
        raise ValueError(
            f"{type(module).__name__} defines {', '.join(unread)}: "
            "expected a subclass of metanet.contract.MetanetModule, which has them"
        )
    return PlainMetanet(module)


@runtime_checkable
class Builder(Protocol):
    """Makes an untrained metanet; its keyword-only arguments are the metanet's options."""

    def __call__(self, spec: InputSpec, /) -> nn.Module:
        """Build the module."""
        ...


def declared(builder: Builder) -> type[MetanetModule]:
    """The class that says what a builder's metanets are; a function declares nothing."""
    if isinstance(builder, type) and issubclass(builder, MetanetModule):
        return builder
    return MetanetModule


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
    """The device of a name.

    Args:
        device: Such as `"cuda"`; `"auto"` is a GPU where there is one.

    Returns:
        The device.

    Raises:
        ValueError: If there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones((), device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        here = [f"cuda:{place}" for place in range(torch.cuda.device_count())]
        raise ValueError(
            f"device: expected one of {['auto', 'cpu', *here]}, got {device!r}"
        ) from error
    return torch.device(device)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The floating type of a module's weights; float32 if it has none, as trees."""
    return next((w.dtype for w in module.parameters() if w.is_floating_point()), torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's tensors."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
