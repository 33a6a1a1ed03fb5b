"""How many independent conservation laws a network has: the dimension of the Lie algebra that its gradients generate.

    number of laws = P - dim Lie(W)(params)        W = span of the fields  params -> grad <c, f(params, x)>

A function is conserved by the gradient flow of every loss on all data if its gradient is orthogonal
to all these fields, and then to their Lie brackets `[F, G] = DG F - DF G`. By the theorem of
Frobenius there are as many independent ones, near a generic point, as dimensions are left.

References:
    Marcotte, Gribonval and Peyre 2023, arXiv 2307.00144, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.conservation.laws import Law
from zoo.conservation.quantities import bilinear
from zoo.params import Params

Function = Callable[[Tensor, Tensor], Tensor]

_RANK_TOLERANCE, _NOISE = 1e-9, 1e-4
_MAX_DEPTH = 8


@dataclass(frozen=True)
class LawCount:
    """How the number of laws was found.

    Attributes:
        num_params: Number of parameters `P`.
        dimensions: Dimension at the point of the span of the gradients, then with brackets of two,
            three, ... of them; the last two are equal.
    """

    num_params: int
    dimensions: tuple[int, ...]

    @property
    def laws(self) -> int:
        """Number of independent conservation laws."""
        return self.num_params - self.dimensions[-1]


def count_laws(
    apply: Callable[[Params, Tensor], Tensor],
    params: Mapping[str, Tensor],
    input_shape: Sequence[int],
    generator: torch.Generator,
    num_samples: int | None = None,
) -> LawCount:
    """Count the independent functions of the parameters that gradient flow conserves, whatever data and loss are.

    Fields are sampled, with Gaussian inputs `x` and covectors `c`; brackets are derivatives of
    derivatives, exact up to rounding; the rank at the point is counted. Once another bracket adds
    no dimension at a generic point, none ever does. The cost doubles with each bracket and grows
    with the cube of the number of parameters: for networks of at most some hundred.

    For losses that do not see a shift of the logits count `lambda p, x: log_softmax(f(p, x), -1)`.

    Args:
        apply: The function of one network, `apply(params, x) -> outputs` with inputs
            `[1, *input_shape]`; twice differentiable near almost every point, as piecewise linear
            networks are.
        params: Parameters of one network at a generic point, float64.
        input_shape: Shape of one input.
        generator: Source of inputs and covectors.
        num_samples: Fields of each depth, four times the number of parameters and 64 if None. A
            pattern of active neurons that is rare needs more.

    Returns:
        The number of laws, and the dimensions that it comes from.

    Raises:
        ValueError: If parameters are not float64, or brackets never stop adding dimensions.

    References:
        Marcotte, Gribonval and Peyre 2023, arXiv 2307.00144, section 3.
    """
    if any(tensor.dtype != torch.float64 for tensor in params.values()):
        raise ValueError(
            f"count_laws: expected float64 params, got {sorted({str(t.dtype) for t in params.values()})}"
        )
    point = _flat(params)
    count, samples = len(point), num_samples or 4 * len(point) + 64
    outputs = apply(dict(params), torch.zeros(1, *input_shape, dtype=torch.float64)).shape

    def function(flat: Tensor, x: Tensor) -> Tensor:
        pieces = flat.split([tensor.numel() for tensor in params.values()])
        return apply(
            {name: p.reshape(t.shape) for (name, t), p in zip(params.items(), pieces, strict=True)},
            x,
        )

    def draw(depth: int) -> tuple[Tensor, Tensor]:
        shapes = [(samples, depth + 1, 1, *input_shape), (samples, depth + 1, *outputs)]
        x, c = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
        return x, c

    size, growth = _sizes(function, point, *draw(1))
    basis, dimensions = torch.zeros(0, count, dtype=torch.float64), []
    for depth in range(_MAX_DEPTH):
        fields = torch.func.vmap(lambda x, c: _bracket(function, point, x, c))(*draw(depth))
        # Rows of rounding noise, where brackets vanish, must not be blown up to norm 1.
        floor = max(_NOISE * size * growth**depth, torch.finfo(torch.float64).tiny)
        basis = _row_space(
            torch.cat([basis, fields / fields.norm(dim=1, keepdim=True).clamp(min=floor)])
        )
        dimensions.append(len(basis))
        if dimensions[-1] == count or dimensions[-2:-1] == dimensions[-1:]:
            return LawCount(count, tuple(dimensions))
    raise ValueError(
        f"count_laws: brackets of up to {_MAX_DEPTH} fields still add dimensions: {dimensions}"
    )


def count_independent(laws: Sequence[Law], params: Mapping[str, Tensor]) -> int:
    """How many of the quantities of laws are independent: the rank of their gradients at a point.

    Args:
        laws: The laws.
        params: Parameters of one network at a generic point, float64; gradients are taken for all
            of them.

    Returns:
        The rank; at most the number of laws that `count_laws` finds.
    """
    gradients = []
    for law in laws:
        own = {name: params[name] for name in law.tensors}
        rows = torch.func.jacrev(lambda own, law=law: bilinear(law, own, own).reshape(-1))(own)
        count = next(iter(rows.values())).shape[0]
        full = [
            rows[name] if name in rows else torch.zeros(count, *tensor.shape).to(tensor)
            for name, tensor in params.items()
        ]
        gradients.append(torch.cat([tensor.reshape(count, -1) for tensor in full], dim=1))
    stacked = torch.cat(gradients)
    return len(
        _row_space(
            stacked / stacked.norm(dim=1, keepdim=True).clamp(min=torch.finfo(stacked.dtype).tiny)
        )
    )


def _field(function: Function, x: Tensor, c: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.func.grad(lambda flat: (c * function(flat, x)).sum())


def _bracket(
    function: Function, flat: Tensor, x: Float[Tensor, "depth ..."], c: Float[Tensor, "depth ..."]
) -> Float[Tensor, " P"]:
    """`[F_0, [F_1, ... F_depth]]` at a point, the field itself if there is only one."""
    first = _field(function, x[0], c[0])
    if len(x) == 1:
        return first(flat)
    rest, change = _derivative(
        lambda flat: _bracket(function, flat, x[1:], c[1:]), flat, first(flat)
    )
    return change - _derivative(first, flat, rest)[1]


def _derivative(
    field: Callable[[Tensor], Tensor], flat: Tensor, along: Tensor
) -> tuple[Tensor, Tensor]:
    """A field at a point, and its derivative along a direction."""
    value, change = torch.func.jvp(field, (flat,), (along,))[:2]
    return value, change


def _sizes(function: Function, point: Tensor, x: Tensor, c: Tensor) -> tuple[float, float]:
    """Typical norm of a field, and by what factor its derivative along another one is larger."""

    def pair(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        along = _field(function, x[1], c[1])(point)
        return _derivative(_field(function, x[0], c[0]), point, along)

    field, change = (
        values.square().sum(1).mean().sqrt().item() for values in torch.func.vmap(pair)(x, c)
    )
    return field, change / field if field else 0.0


def _row_space(rows: Float[Tensor, "n P"]) -> Float[Tensor, "rank P"]:
    """An orthonormal basis of what rows span, up to rounding."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[sizes > _RANK_TOLERANCE * sizes.max()]


def _flat(params: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
    return torch.cat([tensor.detach().reshape(-1) for tensor in params.values()])
