"""Conserved quantities of networks, and how far gradients are from conserving them.

    conserved_quantities(space, params)    what gradient flow keeps, for each neuron, head or column
    residuals(space, params, gradients)    0 on every minibatch if the symmetry holds

What the laws state is in `zoo.conservation.laws`, which laws a loss keeps in
`zoo.conservation.find`, and how quantities move in training that is no gradient flow in
`zoo.conservation.drift`. Networks along leading axes are measured together, and nothing loops over
neurons.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.conservation.laws import Law, declared_laws
from zoo.params import Params
from zoo.symmetry import bilinear as forms
from zoo.symmetry.bilinear import pairs
from zoo.weight_space import WeightSpace

Laws = WeightSpace | Sequence[Law]
"""Laws, or a weight space for those that it declares."""

_DIAGONAL = ("balance", "scale")


def conserved_quantities(of: Laws, params: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "..."]]:
    """The conserved quantities of networks.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]`, at least those that the laws are about.

    Returns:
        For each law by name `[*batch, *law.shape]`.

    Raises:
        ValueError: If a tensor that a law is about is missing.

    >>> from zoo.architectures import build_mlp
    >>> mlp = build_mlp((4,), 3, hidden=(8,))
    >>> params = mlp.init(torch.Generator().manual_seed(0))
    >>> conserved_quantities(mlp.space, params)["h1.balance"].shape
    torch.Size([8])
    """
    return {law.name: bilinear(law, params, params) for law in checked(of, params)}


def residuals(
    of: Laws, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "..."]]:
    """How far the gradient of a minibatch is from being orthogonal to the field of each law.

    |<grad, xi>| / (|grad on the entries that xi moves| |xi|), and 0 for 0 / 0

    Of a matrix law it is the largest over all mixings of a head. Rounding limits it: where
    gradients have become much smaller than the gradients of single examples, so has the accuracy of
    the residual.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]`.
        gradients: Gradients of a loss, of the same shapes; entries that are not trained must be 0.
            Tensors that are absent have gradient 0.

    Returns:
        For each law by name `[*batch, *law.shape]`, of a matrix law `[*batch, *heads]`; between 0
        and 1.

    Raises:
        ValueError: If a tensor that a law is about is missing.

    References:
        Kunin et al. 2021, arXiv 2012.04728, section 3; Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    return measure(of, params, gradients)[1]


def measure(
    of: Laws, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> tuple[dict[str, Float[Tensor, "..."]], dict[str, Float[Tensor, "..."]]]:
    """Quantities and residuals in one go, for less than the price of both.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors `[*batch, *shape]`, at least those that the laws are about.
        gradients: As `residuals` takes them.

    Returns:
        What `conserved_quantities` gives, and what `residuals` gives.

    Raises:
        ValueError: If a tensor that a law is about is missing.
    """
    named, full = with_gradients(of, params, gradients)
    names = {name for law in named if law.kind in _DIAGONAL for name in law.tensors}
    products = pairs(params, full, names)
    values, off = {}, {}
    for law in named:
        if law.kind in _DIAGONAL:
            values[law.name] = -forms.diagonal(law.terms, products[0])
            off[law.name] = forms.diagonal_residual(law.terms, products)
        else:
            values[law.name] = bilinear(law, params, params)
            off[law.name] = residual(law, params, full)
    return values, off


def bilinear(law: Law, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """The symmetric form `Q(a, b)` of a quadratic law; of a shift, `Q(a)`.

    The quantity of the law is `Q(params, params)`.

    Args:
        law: The law.
        a: Tensors `[*batch, *shape]`.
        b: Tensors of the same shapes.

    Returns:
        `[*batch, *law.shape]`.
    """
    if law.kind == "shift":
        return forms.sums(law.terms, a, len(law.shape) - 1)
    if law.kind == "matrix":
        product = forms.matrix(law.terms, a, b)
        return -(product + product.mT) / 2
    return -forms.diagonal(law.terms, {name: a[name] * b[name] for name in law.tensors})


def checked(of: Laws, params: Mapping[str, Tensor]) -> Sequence[Law]:
    """The laws, all of whose tensors are there.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors by name.

    Returns:
        The laws.

    Raises:
        ValueError: If a tensor is missing.
    """
    named = declared_laws(of) if isinstance(of, WeightSpace) else of
    for law in named:
        if missing := [name for name in law.tensors if name not in params]:
            raise ValueError(
                f"law {law.name!r} is about tensors {list(law.tensors)}; missing are {missing}"
            )
    return named


def with_gradients(
    of: Laws, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> tuple[Sequence[Law], Params]:
    """The laws, and gradients of all tensors that they are about: 0 for those that are absent.

    Args:
        of: Laws, or a weight space for those that it declares.
        params: Tensors by name.
        gradients: Gradients of some of them.

    Returns:
        Laws and gradients.

    Raises:
        ValueError: If a tensor that a law is about is missing in the params.
    """
    named = checked(of, params)
    names = {name for law in named for name in law.tensors}
    return named, {
        name: gradients[name] if name in gradients else torch.zeros_like(params[name])
        for name in names
    }


def residual(
    law: Law, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Float[Tensor, "..."]:
    """The residual of one law; see `residuals`.

    Args:
        law: The law.
        params: Tensors `[*batch, *shape]`.
        gradients: Gradients of all its tensors, of the same shapes.

    Returns:
        `[*batch, *law.shape]`, of a matrix law `[*batch, *heads]`.
    """
    if law.kind == "shift":
        return forms.sums_residual(law.terms, gradients, len(law.shape) - 1)
    if law.kind == "matrix":
        return forms.matrix_residual(law.terms, params, gradients)
    return forms.diagonal_residual(law.terms, pairs(params, gradients, law.tensors))
