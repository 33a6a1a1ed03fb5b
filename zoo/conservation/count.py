"""How many independent conservation laws a network has, from the Lie algebra of its gradients.

    number of laws = P - dim Lie(W)(params)
    W = span of the fields  params -> grad <c, f(params, x)>

A function is conserved by the gradient flow of every loss on all data if its gradient is orthogonal
to all these fields, and then to their Lie brackets `[F, G] = DG F - DF G`. By the theorem of
Frobenius there are as many independent ones, near a generic point, as dimensions are left.

References:
    Marcotte, Gribonval and Peyre 2023, arXiv 2307.00144, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
    """Count the independent functions that gradient flow conserves, whatever data and loss are.

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
    dtypes = {str(tensor.dtype) for tensor in params.values()}
    if dtypes - {"torch.float64"}:
        raise ValueError(f"count_laws: expected float64 params, got {sorted(dtypes)}")
    point = torch.cat([tensor.detach().reshape(-1) for tensor in params.values()])
    function = partial(_apply_flat, apply, params)
    samples = num_samples or 4 * len(point) + 64
    fields = _Fields(function, point, tuple(input_shape), samples, generator)
    return LawCount(len(point), _dimensions(fields))


def _dimensions(fields: "_Fields") -> tuple[int, ...]:
    """Dimensions of what fields span with ever longer brackets, until two are equal."""
    size, growth = fields.sizes()
    basis, dimensions = torch.zeros(0, len(fields.point), dtype=torch.float64), []
    for depth in range(_MAX_DEPTH):
        # Rows of rounding noise, where brackets vanish, must not be blown up to norm 1.
        floor = max(_NOISE * size * growth**depth, torch.finfo(torch.float64).tiny)
        rows = _normalized(fields.brackets(depth), floor)
        basis = _row_space(torch.cat([basis, rows]))
        dimensions.append(len(basis))
        if dimensions[-1] == len(fields.point) or dimensions[-2:-1] == dimensions[-1:]:
            return tuple(dimensions)
    raise ValueError(
        f"count_laws: brackets of up to {_MAX_DEPTH} fields still add dimensions: {dimensions}"
    )


@dataclass(frozen=True)
class _Fields:
    """Random gradient fields at a point, with Gaussian inputs and covectors.

    Attributes:
        function: Outputs by all parameters in one vector, and inputs.
        point: The parameters.
        input_shape: Shape of one input.
        samples: How many are drawn at a time.
        generator: Source of inputs and covectors.
    """

    function: Function
    point: Float[Tensor, " P"]
    input_shape: tuple[int, ...]
    samples: int
    generator: torch.Generator

    def brackets(self, depth: int) -> Float[Tensor, "n P"]:
        """Brackets of one field more than `depth`."""
        one = partial(_bracket, self.function, self.point)
        return torch.func.vmap(one)(*self._draw(depth + 1))

    def sizes(self) -> tuple[float, float]:
        """Typical norm of a field, and by what factor its derivative along another is larger."""
        pairs = torch.func.vmap(self._pair)(*self._draw(2))
        field, change = (values.square().sum(1).mean().sqrt().item() for values in pairs)
        return field, change / field if field else 0.0

    def _pair(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        along = _field(self.function, x[1], c[1])(self.point)
        return _derivative(_field(self.function, x[0], c[0]), self.point, along)

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and covectors of so many fields for each sample."""
        blank = torch.zeros(1, *self.input_shape, dtype=torch.float64)
        draw = partial(torch.randn, generator=self.generator, dtype=torch.float64)
        x = draw(self.samples, count, *blank.shape)
        return x, draw(self.samples, count, *self.function(self.point, blank).shape)


def _apply_flat(
    apply: Callable[[Params, Tensor], Tensor], like: Mapping[str, Tensor], flat: Tensor, x: Tensor
) -> Tensor:
    """The outputs of the network that has all its parameters in one vector."""
    pieces = flat.split([tensor.numel() for tensor in like.values()])
    shaped = zip(like.items(), pieces, strict=True)
    return apply({name: piece.reshape(tensor.shape) for (name, tensor), piece in shaped}, x)


def count_independent(laws: Sequence[Law], params: Mapping[str, Tensor]) -> int:
    """How many of the quantities of laws are independent: the rank of their gradients at a point.

    Args:
        laws: The laws.
        params: Parameters of one network at a generic point, float64; gradients are taken for all
            of them.

    Returns:
        The rank; at most the number of laws that `count_laws` finds.
    """
    gradients = [_quantity_gradients(law, params) for law in laws]
    stacked = torch.cat(gradients)
    return len(_row_space(_normalized(stacked, torch.finfo(stacked.dtype).tiny)))


def _quantity_gradients(law: Law, params: Mapping[str, Tensor]) -> Float[Tensor, "n P"]:
    """Of each quantity of a law the gradient by all parameters, in one row."""
    rows = torch.func.jacrev(lambda point: bilinear(law, point, point).reshape(-1))(dict(params))
    return torch.cat([rows[name].reshape(len(rows[name]), -1) for name in params], dim=1)


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
    return torch.func.jvp(field, (flat,), (along,))[:2]


def _row_space(rows: Float[Tensor, "n P"]) -> Float[Tensor, "rank P"]:
    """An orthonormal basis of what rows span, up to rounding."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[sizes > _RANK_TOLERANCE * sizes.max()]


def _normalized(rows: Float[Tensor, "n P"], floor: float) -> Float[Tensor, "n P"]:
    """Rows of norm 1; those shorter than a floor stay short."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=floor)
