"""The parameters of a torch module as a list: each tensor once, with every name it has.

What is computed can take their place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

# They keep their weights in lists of their own, or compute their non-linearities inside; a
# parametrization would be ignored.
_CLOSED = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True, eq=False)
class Owned:
    """A parameter and all that hold it: more than one if it is tied.

    Attributes:
        tensor: The parameter.
        owners: Modules that hold it, and under which attribute.
        names: All its names, such as `["embed.weight", "head.weight"]`.
    """

    tensor: nn.Parameter
    owners: list[tuple[nn.Module, str]]
    names: list[str]

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]


def parameters_of(module: nn.Module, skip: Sequence[str]) -> list[Owned]:
    """List the parameters of a module that are not skipped, in the order of `named_modules`.

    Args:
        module: The module.
        skip: Names of tensors or modules, as in `fits`; a tied tensor is skipped if one of its
            names is.

    Returns:
        The parameters, tied ones once.

    Raises:
        ValueError: If a name in `skip` fits nothing, or the module has a recurrent layer or a
            parameter without a shape.
    """
    check_open(module, skip)
    tensors: dict[int, Owned] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        prefix, _, attribute = name.rpartition(".")
        owner = module.get_submodule(prefix)
        owned = tensors.setdefault(id(tensor), Owned(tensor, [], []))
        owned.names.append(name)
        if (owner, attribute) not in owned.owners:
            owned.owners.append((owner, attribute))
    kept = [owned for owned in tensors.values() if not fit_any(skip, owned.names)]
    lazy = [owned.name for owned in kept if is_lazy(owned.tensor) or owned.tensor.is_meta]
    if lazy:
        raise ValueError(
            f"parameters {lazy} have no values yet; materialize the module first "
            "(run it once if it is lazy)"
        )
    return kept


def check_open(module: nn.Module, skip: Sequence[str]) -> None:
    """Check that every name in `skip` names something, and that what cannot be changed is skipped.

    Args:
        module: The module.
        skip: Names of tensors or modules, as in `fits`.

    Raises:
        ValueError: If a name in `skip` fits nothing, or the module has a recurrent layer.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    tensors = dict(module.named_parameters(remove_duplicate=False))
    check_patterns("skip", skip, [*modules, *tensors])
    closed = [
        f"{name!r} ({type(layer).__name__})"
        for name, layer in modules.items()
        if isinstance(layer, _CLOSED) and layer not in skipped_modules(module, skip)
    ]
    if closed:
        raise ValueError(
            f"recurrent layers cannot be made asymmetric: {', '.join(closed)}; "
            "leave them as they are with skip=[...]"
        )


def skipped_modules(module: nn.Module, skip: Sequence[str]) -> set[nn.Module]:
    """The modules that are skipped; one that has several names is if one of them is.

    Args:
        module: The module.
        skip: Names of modules, as in `fits`.

    Returns:
        The modules, those inside others included.
    """
    return {m for name, m in module.named_modules(remove_duplicate=False) if fit_any(skip, [name])}


def is_conv1d(layer: nn.Module) -> bool:
    """Whether a layer is the `Conv1D` of transformers: linear, with a weight `[in, out]`."""
    # Known by name, so that transformers need not be installed.
    return any(
        (c.__module__, c.__name__) == ("transformers.pytorch_utils", "Conv1D")
        for c in type(layer).__mro__
    )


def check_plain(tensors: Sequence[Owned]) -> None:
    """Check that parameters can be computed from now on.

    Args:
        tensors: The parameters.

    Raises:
        ValueError: If a layer that holds one has a parametrization.
    """
    # A parametrized layer shares the class that computes its weights with all its copies: a change
    # would reach the original.
    computed = [
        owned.name
        for owned in tensors
        for layer, _ in owned.owners
        if isinstance(layer, parametrize.ParametrizationList) or parametrize.is_parametrized(layer)
    ]
    if computed:
        raise ValueError(
            f"layers that have a parametrization (weight norm, or asymmetric already) "
            f"cannot get another: {computed}; make the "
            "module asymmetric first, or leave those layers as they are with skip=[...]"
        )


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern means a tensor: its name or that of a module it is in; `*` is anything.

    Args:
        pattern: Such as `"head"`, `"blocks.*.attention"` or `"*.bias"`.
        name: Name of a tensor or module.

    Returns:
        Whether it fits.

    >>> fits("blocks.*.mlp", "blocks.0.mlp.up.weight"), fits("head", "head2.weight")
    (True, False)
    """
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def fit_any(patterns: Iterable[str], names: Sequence[str]) -> bool:
    """Whether one of the patterns fits one of the names."""
    return any(fits(pattern, name) for pattern in patterns for name in names)


def check_patterns(option: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Check that every pattern fits something.

    Args:
        option: Name of the option, for errors.
        patterns: The patterns.
        names: Names of what they may mean.

    Raises:
        ValueError: If one fits nothing.
    """
    unknown = [pattern for pattern in patterns if not fit_any([pattern], names)]
    if unknown:
        raise ValueError(
            f"{option}: {unknown} fit nothing; names are {[name for name in names if name]}"
        )


def per_tensor(option: str, value: Any | Mapping[str, Any], tensors: Sequence[Owned]) -> list[Any]:
    """Give every tensor its value of an option.

    Args:
        option: Name of the option, for errors.
        value: One value for all, or a mapping from names as in `fits`; the last that fits a tensor
            counts.
        tensors: The tensors.

    Returns:
        One value a tensor.

    Raises:
        ValueError: If a name fits nothing, or a tensor has no value.
    """
    if not isinstance(value, Mapping):
        return [value] * len(tensors)
    check_patterns(option, value, [name for owned in tensors for name in owned.names])
    fitting = {
        owned.name: [chosen for pattern, chosen in value.items() if fit_any([pattern], owned.names)]
        for owned in tensors
    }
    missing = [name for name, values in fitting.items() if not values]
    if missing:
        raise ValueError(
            f"{option}: no value for {missing}; "
            "start the mapping with '*' to give all the others one"
        )
    return [values[-1] for values in fitting.values()]


def replace_by(owned: Owned, computed: nn.Module) -> None:
    """Let all owners of a parameter compute it with one shared parametrization; see `check_plain`.

    Args:
        owned: The parameter; it stays the one that is trained, and tied as it was.
        computed: The parametrization.
    """
    start = owned.tensor.detach().clone()
    for owner, attribute in owned.owners:
        # Each registration applies the inverse to the parameter, which must happen once.
        with torch.no_grad():
            owned.tensor.copy_(start)
        parametrize.register_parametrization(owner, attribute, computed)
