"""What an architecture is: a weight space, constants, initial params, and a function."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.architectures.draws import Draw, GivenDraws
from zoo.params import Params, cast
from zoo.pattern import Axis, Label, labels
from zoo.weight_space import Scaling, WeightSpace

Activate = Callable[[str, Tensor], Tensor]
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""One tensor; several are for traced modules only."""

MODULE = "module"
"""Name of every architecture that is a traced module; no builder can make it again."""

# name -> (function, scales of a neuron that commute with it)
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Scaling]] = {
    "linear": (lambda x: x, "any"),
    "relu": (F.relu, "positive"),
    "leaky_relu": (F.leaky_relu, "positive"),
    "tanh": (torch.tanh, "sign"),
    "gelu": (F.gelu, "none"),
    "silu": (F.silu, "none"),
    "sine": (torch.sin, "sign"),
}


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of a module as positional and named ones."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs), {}


def check_activation(name: str) -> None:
    """Refuse the name of an activation that there is not.

    Raises:
        ValueError: If there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known are {sorted(ACTIVATIONS)}")


def figlu(
    x: Float[Tensor, "X d *positions"], mixing: Float[Tensor, "d d"]
) -> Float[Tensor, "X d *positions"]:
    """Fixed-gate linear unit `sigmoid(F x) * x`: no permutation of the neurons commutes with it.

    Args:
        x: Pre-activations; neurons or channels on axis 1.
        mixing: `F`, fixed and never trained; on images a 1x1 convolution.

    Returns:
        Activations of the same shape.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.2.
    """
    return torch.sigmoid(torch.einsum("ij,xj...->xi...", mixing, x)) * x


@dataclass(frozen=True, eq=False)
class Architecture:
    """The function of a network, apart from its parameters.

    Parameters are always *effective* ones: fixed entries are part of them, so `apply` is the same
    function for the standard and for the weight-asymmetric network. `forward` is written for one
    network; many networks go through `torch.func.vmap`.

    Attributes:
        space: Weight space of the effective parameters.
        draw: Draws the initial parameters of one network, as if all were trained, from a generator;
            `init` is what to call.
        forward: `forward(params, x, activate)` with `x` of shape `[X, *input_shape]`, to logits
            `[X, K]`. It calls `activate(group, z)` wherever the group's non-linearity acts; neurons
            or channels are on axis 1 of `z`.
        constants: Never trained, the same for every network: `free.<tensor>` (bool, True =
            trained), `fixed.<tensor>` (values at the fixed entries, 0 elsewhere), `offset.<tensor>`
            (center of the weight decay), `mixing.<group>` (FiGLU), `statistic.<tensor>` (bool, all
            True: a running statistic, which training data move and no optimizer).
        forward_training: `forward` as training runs it, to logits and the new value of every
            running statistic; needed if there are statistics, None if training runs `forward`.
        is_random: Whether `forward_training` draws random numbers, as dropout does.
        in_lock_step: Whether many networks run at once (`over_networks`); one after the other if
            not.
        name: Name in `ARCHITECTURES`, or `MODULE`; empty if it was built by hand.
        options: Options of its builder, as JSON holds them.
        input_shape: Shape of one input.
        num_outputs: Number of outputs `K`.
    """

    space: WeightSpace
    draw: Callable[[torch.Generator], Params]
    forward: Callable[[Params, Any, Activate], Tensor]
    constants: Params = field(default_factory=dict)
    forward_training: Callable[[Params, Any, Activate], tuple[Tensor, Params]] | None = None
    is_random: bool = False
    in_lock_step: bool = True
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    num_outputs: int = 0

    def __post_init__(self):
        """Check that running statistics can be updated.

        Raises:
            ValueError: If there are statistics and no `forward_training`.
        """
        if self.statistics and self.forward_training is None:
            raise ValueError(
                "an architecture with running statistics needs forward_training; "
                f"got statistics {list(self.statistics)}"
            )

    def init(self, generator: torch.Generator) -> Params:
        """Initial parameters of one network.

        Free entries have the distribution, and for equal shapes the very draws, that the standard
        network has; they are not rescaled for the entries that are fixed.

        Args:
            generator: Source of randomness.

        Returns:
            Effective parameters, float32.
        """
        params = self.draw(generator)
        fixed = constants_of(self.constants, "fixed")
        for name, mask in self.free.items():
            params[name] = torch.where(mask.cpu(), params[name], fixed[name].float().cpu())
        return params

    def apply(self, params: Params, x: Inputs) -> Float[Tensor, "X *outputs"]:
        """Run one network.

        Args:
            params: Effective parameters of one network.
            x: Inputs `[X, *input_shape]`; of a traced module, in the form of its example inputs.

        Returns:
            Logits `[X, K]`; of a traced module, its outputs.
        """
        return self.forward(params, x, self.activate)

    def apply_training(
        self, params: Params, x: Inputs, draw: Draw | None = None
    ) -> tuple[Float[Tensor, "X *outputs"], Params]:
        """Run one network as training does.

        Args:
            params: Effective parameters of one network.
            x: Inputs, as `apply` takes them.
            draw: Where an architecture that is random draws from; without it dropout is off, and
                other noise is refused.

        Returns:
            Outputs in the form of `apply`, and the running statistics after this batch; what
            `apply` gives and nothing if training runs no other function.
        """
        if self.forward_training is None:
            return self.apply(params, x), {}
        if not self.is_random:
            return self.forward_training(params, x, self.activate)
        with GivenDraws(draw):
            return self.forward_training(params, x, self.activate)

    def activate(
        self, group: str, z: Float[Tensor, "X d *positions"]
    ) -> Float[Tensor, "X d *positions"]:
        """Apply a group's non-linearity, FiGLU where the architecture is sigma-asymmetric.

        Args:
            group: Name of the group.
            z: Pre-activations; neurons or channels on axis 1.

        Returns:
            Activations of the same shape.
        """
        mixing = self.constants.get(f"mixing.{group}")
        if mixing is not None:
            return figlu(z, mixing)
        return ACTIVATIONS[self.space.groups[group].activation][0](z)

    @property
    def description(self) -> dict[str, Any]:
        """What it takes to build it again besides space and constants, as JSON holds it."""
        record = {
            "architecture": {"name": self.name, **self.options},
            "input_shape": self.input_shape,
            "num_classes": self.num_outputs,
        }
        return json.loads(json.dumps(record))

    @property
    def is_module(self) -> bool:
        """Whether it is a traced module, which runs its own non-linearities."""
        return self.name == MODULE

    def is_like(self, other: "Architecture") -> bool:
        """Whether both compute the same: described the same way, constants included.

        A description does not say what was built by hand or is a module, so those must share their
        very function.

        Args:
            other: Another architecture.

        Returns:
            True if they do.
        """
        if self.name in ("", MODULE) and self.forward is not other.forward:
            return False
        mine, theirs = self.constants, other.constants
        if self.description != other.description or mine.keys() != theirs.keys():
            return False
        return all(torch.equal(mine[name].cpu(), theirs[name].cpu()) for name in mine)

    @property
    def free(self) -> Params:
        """Masks `bool[*shape]`, True = trained, of the tensors that have fixed entries."""
        return constants_of(self.constants, "free")

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the tensors that are running statistics of the training data."""
        return tuple(constants_of(self.constants, "statistic"))

    @property
    def num_free(self) -> int:
        """Number of trained scalars; running statistics are not trained."""
        return count_free(self.space, self.constants)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Architecture":
        """The same architecture with its constants on a device.

        Args:
            device: Where the constants go.
            dtype: Floating type of the constants, unchanged if None; masks stay boolean.

        Returns:
            A copy.
        """
        return replace(self, constants=cast(self.constants, device, dtype))


def constants_of(constants: Mapping[str, Tensor], kind: str) -> Params:
    """The constants of one kind, such as `"free"`, by the name of their tensor or group."""
    prefix = f"{kind}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in constants.items()
        if name.startswith(prefix)
    }


def statistic_constants(space: WeightSpace, names: Iterable[str]) -> Params:
    """The constants that make tensors of a space running statistics."""
    return {f"statistic.{name}": torch.ones(space.shapes[name], dtype=torch.bool) for name in names}


def count_free(space: WeightSpace, constants: Mapping[str, Tensor]) -> int:
    """Number of trained scalars: all but the fixed entries and the running statistics."""
    fixed = sum(int((~mask).sum()) for mask in constants_of(constants, "free").values())
    statistics = sum(mask.numel() for mask in constants_of(constants, "statistic").values())
    return space.num_params - fixed - statistics


def written_axis(space: WeightSpace, group: str) -> Axis:
    """The axis of neurons that a group belongs to.

    It is the group alone, or a product such as `(g c)` of norm groups and channels.

    Args:
        space: The weight space.
        group: Name of the group.

    Returns:
        The first axis that is written with the group on it; the group alone if there is none.
    """
    axes = (axis for name in space.tensors for axis in space.pattern(name).written)
    return next(
        (axis for axis in axes if any(label.group == group for label in labels(axis))),
        (Label(group),),
    )


def activate_last(
    activate: Activate, group: str, z: Float[Tensor, "X *positions d"]
) -> Float[Tensor, "X *positions d"]:
    """Call `activate` on neurons that are on the last axis.

    Args:
        activate: What `forward` got.
        group: Name of the group.
        z: Pre-activations.

    Returns:
        Activations of the same shape.
    """
    return activate(group, z.movedim(-1, 1)).movedim(1, -1)
