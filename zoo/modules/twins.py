"""Asymmetric twins of any torch module.

twin = zoo.asymmetric(module)                                    # W-asymmetric
twin = zoo.asymmetric(module, "w", n_fix={"*": 0.25, "head": 0}, kappa=0.5, seed=1)
twin = zoo.asymmetric(module, "sigma", example_inputs=x)
twin = zoo.asymmetric(module, "syre", std=0.01)
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from zoo.architectures.masks import Amount, draw_fixed, draw_offset
from zoo.architectures.table import look_up
from zoo.modules.figlu import sigma_asymmetric_
from zoo.modules.parametrizations import FixedEntries, Offset
from zoo.modules.tensors import (
    Owned,
    check_plain,
    fit_any,
    is_conv1d,
    parameters_of,
    per_tensor,
    replace_by,
    skipped_modules,
)
from zoo.options import Seed, checked

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_UNSUPPORTED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear)
_LOOKED_FOR = (
    "nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention "
    "and the Conv1D of transformers"
)


@checked
def asymmetric(module: nn.Module, kind: str = "w", *, seed: Seed = 0, **options: Any) -> nn.Module:
    """Copy a module and remove the permutation symmetries of its neurons: its asymmetric twin.

    The copy has the weights of the module where they are free, is trained, moved, compiled, copied
    and saved (`state_dict`) as any module, and shows in `print(twin)` what was done. The same seed
    gives the same masks, fixed entries, mixing matrices and offsets in every process and on every
    device.

    Args:
        module: Any module; not changed.
        kind: `"w"` (options of `w_asymmetric_`), `"sigma"` (of `sigma_asymmetric_`) or `"syre"` (of
            `syre_`).
        seed: Seed of everything that is drawn.
        **options: Options of that kind, among them `skip=[...]`: names of tensors or modules that
            stay as they are, with `*` for anything, such as `"head"` or `"blocks.*.norm"`.

    Returns:
        The twin.

    Raises:
        ValueError: If the kind or an option is unknown, or the module cannot be made asymmetric;
            names the tensor.

    References:
        Lim et al. 2024, arXiv 2405.20231.

    >>> twin = asymmetric(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), n_fix=2)
    >>> (~free_masks(twin)["0.weight"]).sum(1).tolist()
    [2, 2, 2, 2]
    """
    change = look_up("asymmetry", kind, KINDS, options, given=("module", "generator"))
    twin = copy.deepcopy(module)
    change(twin, torch.Generator().manual_seed(seed), **options)
    return twin


def check_module_asymmetry(kind: str | None, options: Mapping[str, Any]) -> Callable[..., None]:
    """Look an asymmetry of modules up and check names and types of its options.

    Args:
        kind: `"w"`, `"sigma"` or `"syre"`.
        options: Options of that kind, but the example inputs.

    Returns:
        What makes a module asymmetric, in place.

    Raises:
        ValueError: If the kind or an option is unknown, or an option has the wrong type.
    """
    return look_up("asymmetry", kind, KINDS, options, ("module", "generator", "example_inputs"))


def w_asymmetric_(
    module: nn.Module,
    generator: torch.Generator,
    n_fix: Amount | Mapping[str, Amount] = 0.25,
    kappa: Amount | Mapping[str, Amount] = 1.0,
    fix: str = "entries",
    embeddings: bool = False,
    skip: Sequence[str] = (),
) -> None:
    """Fix some entries of every weight in place: `W_eff = M * W + (1 - M) * F`.

    Weights are those of linear, convolutional and attention layers.

    `F ~ N(0, kappa^2)`; a row of `M` (one output neuron or filter) has `n_fix` zeros, no two rows
    of a tensor agree. `n_fix` and `kappa` may be mappings from names of tensors or modules, `*` for
    anything; the last that fits a weight counts.

    Args:
        module: The module.
        generator: Source of `M` and `F`, in the order of `named_modules`.
        n_fix: Fixed entries in each row; an integer is a number, a float below 1 a fraction of the
            fan-in (rounded, at least one). A weight with 0 is left as it is.
        kappa: Standard deviation of the fixed entries, 0 included.
        fix: `"entries"` fixes single scalars, `"filters"` whole input filters of a convolution
            (`n_fix` counts filters then).
        embeddings: Whether embeddings count too; a neuron reads the tokens, so that `n_fix` is a
            share of the vocabulary.
        skip: Names of what stays as it is. A tied weight has one mask, and is left if one of its
            names is.

    Raises:
        ValueError: If an option does not fit a weight, nothing is found, or a layer is of a kind
            that cannot be changed.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.1.
    """
    _check_layers(module, embeddings, skip)
    axes = {owned: _written_axis(owned, embeddings) for owned in parameters_of(module, skip)}
    weights = [owned for owned, axis in axes.items() if axis is not None]
    if not weights:
        raise ValueError(f"w: no weights to fix entries of; looked for {_LOOKED_FOR}")
    check_plain(weights)
    amounts = per_tensor("n_fix", n_fix, weights)
    scales = per_tensor("kappa", kappa, weights)
    drawn = [
        _draw_entries(owned, axes[owned] or 0, amount, scale, fix, generator)
        for owned, amount, scale in zip(weights, amounts, scales, strict=True)
    ]
    for owned, entries in zip(weights, drawn, strict=True):
        if entries is not None:
            replace_by(owned, entries)


def _draw_entries(
    owned: Owned, axis: int, n_fix: Amount, kappa: Amount, fix: str, generator: torch.Generator
) -> FixedEntries | None:
    """Fixed entries of a weight that writes its neurons along an axis; None if it has none."""
    tensor = owned.tensor
    # Drawn with outputs on the first axis, so that the mask of a layer does not depend on how it
    # stores its weight.
    shape = tuple(tensor.movedim(axis, 0).shape)
    kernel = [False, *[True] * (len(shape) - 2)]
    constants = draw_fixed(owned.name, shape, kernel, n_fix, kappa, fix, generator)
    if constants is None:
        return None
    free, fixed = (c.movedim(0, axis).contiguous().to(tensor.device) for c in constants)
    return FixedEntries(free, fixed.to(tensor.dtype))


def syre_(
    module: nn.Module, generator: torch.Generator, std: Amount = 0.01, skip: Sequence[str] = ()
) -> None:
    """Add a fixed random offset to every parameter in place: `W_eff = F + W`.

    Weight decay then pulls to `F`, not to 0.

    The effective parameters start where they were, up to rounding.

    Args:
        module: The module.
        generator: Source of `F`, in the order of `named_parameters`.
        std: Standard deviation of the entries of `F`.
        skip: Names of what stays as it is. A tied parameter has one offset, and is left if one of
            its names is.

    Raises:
        ValueError: If `std` is not positive, or a parameter has a parametrization already.

    References:
        Ziyin et al. 2024, arXiv 2408.15495.
    """
    tensors = parameters_of(module, skip)
    check_plain(tensors)
    for owned in tensors:
        offset = draw_offset(owned.tensor.shape, std, generator)
        replace_by(owned, Offset(offset.to(owned.tensor.device, owned.tensor.dtype)))


KINDS: dict[str, Callable[..., None]] = {
    "w": w_asymmetric_,
    "sigma": sigma_asymmetric_,
    "syre": syre_,
}


def free_masks(module: nn.Module) -> dict[str, Bool[Tensor, "..."]]:
    """The masks of a W-asymmetric module.

    Args:
        module: The module.

    Returns:
        By the name that the weight has in the standard module, True = trained; a tied weight by all
        its names.
    """
    return {
        name: entries.free
        for name, (entries, *_) in parametrizations_of(module).items()
        if isinstance(entries, FixedEntries)
    }


def parametrizations_of(module: nn.Module) -> dict[str, ParametrizationList]:
    """What computes tensors of an asymmetric module.

    Args:
        module: The module.

    Returns:
        By the names that the tensors have in the standard module.
    """
    lists = {}
    for prefix, layer in module.named_modules(remove_duplicate=False):
        if is_parametrized(layer):
            for name, computed in cast(nn.ModuleDict, layer.parametrizations).items():
                lists[f"{prefix}.{name}".removeprefix(".")] = computed
    return lists


def effective_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Effective parameters and buffers of an asymmetric module, named as in the standard module.

    Args:
        module: The module, of kind `"w"` or `"syre"`.

    Returns:
        What `load_state_dict` of the standard module takes to compute the same function; copies.
    """
    state = {
        name: tensor.clone()
        for name, tensor in module.state_dict().items()
        if "parametrizations" not in name.split(".")
    }
    for name, computed in parametrizations_of(module).items():
        state[name] = computed().detach().clone()
    return state


def _weights(layer: nn.Module, embeddings: bool) -> dict[str, int]:
    """Attributes of a layer that are weights, and the axis of each along which it writes."""
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return {"weight": 0}
    if isinstance(layer, nn.MultiheadAttention):
        return dict.fromkeys(_PROJECTIONS, 0)
    reads_first = is_conv1d(layer) or (embeddings and isinstance(layer, nn.Embedding))
    return {"weight": 1} if reads_first else {}


def _written_axis(owned: Owned, embeddings: bool) -> int | None:
    axes = (_weights(layer, embeddings).get(attribute) for layer, attribute in owned.owners)
    return next((axis for axis in axes if axis is not None), None)


def _check_layers(module: nn.Module, embeddings: bool, skip: Sequence[str]) -> None:
    """Refuse layers whose neurons would silently keep their symmetry."""
    skipped = skipped_modules(module, skip)
    for name, layer in module.named_modules():
        if layer in skipped:
            continue
        if isinstance(layer, _UNSUPPORTED):
            raise ValueError(
                f"w: {name!r} ({type(layer).__name__}) is not among {_LOOKED_FOR}; "
                f"leave it as it is with skip=[{name!r}]"
            )
        for tensor in _weights(layer, embeddings):
            full = f"{name}.{tensor}".removeprefix(".")
            if tensor not in layer._parameters and not fit_any(skip, [full]):
                raise ValueError(
                    f"w: {full!r} is not a parameter but computed from others "
                    f"(weight norm, pruning or another "
                    "parametrization); make the module asymmetric first, or leave it as it is "
                    f"with skip=[{full!r}]"
                )
