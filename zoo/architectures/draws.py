"""Dropout and noise in training: each network draws its own, at each step, and nobody else's."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Draw = Callable[[int, Sequence[int]], Tensor]
"""`draw(call, shape)`: numbers in [0, 1), float64; others for each number of a call."""

_SQRT_2 = 2**0.5


class GivenDraws(TorchFunctionMode):
    """Within it random operations use the numbers that they are given.

    Those are dropout of all kinds, attention with dropout, `rand`, `randn`, `bernoulli`, and their
    variants for the shape of a tensor or in its place. Any other one draws from torch's state,
    which `torch.func.vmap` refuses.
    """

    def __init__(self, draw: Draw | None):
        """Start with call 0.

        Args:
            draw: Where numbers come from. None turns dropout off, and refuses all else that is
                random.
        """
        super().__init__()
        self._draw = draw
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch."""
        given = kwargs or {}
        if func in _DROPOUT:
            return _DROPOUT[func](self, *args, **given)
        if func in _NOISE:
            return _NOISE[func](self, *args, **given)
        if func in _MADE_OF_OTHERS:
            with self:
                return _MADE_OF_OTHERS[func](*args, **given)
        return func(*args, **given)

    @property
    def drops(self) -> bool:
        """Whether dropout is on."""
        return self._draw is not None

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers that no other call gets.

        Args:
            shape: Their shape.

        Returns:
            Numbers in [0, 1), float64.

        Raises:
            ValueError: If there is nothing to draw from.
        """
        if self._draw is None:
            raise ValueError(
                "a module that draws random numbers in training needs a source of them: expected "
                "apply_training(params, x, draw)"
            )
        self._calls += 1
        return self._draw(self._calls - 1, shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """As `uniform`, from the standard normal distribution."""
        return _SQRT_2 * torch.erfinv(2 * self.uniform(shape) - 1 + 2.0**-53)


def _dropout(mode: GivenDraws, x: Tensor, p: float = 0.5, train: bool = True) -> Tensor:
    return _dropped(mode, x, p, train, x.shape)


def _feature_dropout(mode: GivenDraws, x: Tensor, p: float = 0.5, train: bool = True) -> Tensor:
    """Whole channels are dropped."""
    return _dropped(mode, x, p, train, (*x.shape[:2], *[1] * (x.dim() - 2)))


def _dropped(mode: GivenDraws, x: Tensor, p: float, train: bool, shape: Sequence[int]) -> Tensor:
    if not train or not mode.drops or p == 0:
        return x
    scale = 1 / (1 - p) if p < 1 else 0.0
    return torch.where(mode.uniform(shape) >= p, x * scale, 0.0)


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def write(mode: GivenDraws, x: Tensor, p: float = 0.5, train: bool = True) -> Tensor:
        return x.copy_(function(mode, x, p, train))

    return write


def _attention(
    mode: GivenDraws,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention; its weights are dropped."""
    if dropout_p == 0 or not mode.drops:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _dropout(mode, scores.softmax(-1), dropout_p) @ value


def _like(draw: str) -> Callable[..., Tensor]:
    def like(mode: GivenDraws, x: Tensor, **options: Any) -> Tensor:
        return getattr(mode, draw)(x.shape).to(options.get("dtype") or x.dtype)

    return like


def _of_size(draw: str) -> Callable[..., Tensor]:
    def of_size(mode: GivenDraws, *size: Any, **options: Any) -> Tensor:
        shape = size[0] if size and not isinstance(size[0], int) else size
        dtype = options.get("dtype") or torch.get_default_dtype()
        return getattr(mode, draw)(options.get("size", shape)).to(dtype)

    return of_size


def _bernoulli(mode: GivenDraws, x: Tensor, p: float | None = None) -> Tensor:
    return (mode.uniform(x.shape) < (x if p is None else p)).to(x.dtype)


def _bernoulli_(mode: GivenDraws, x: Tensor, p: float | Tensor = 0.5) -> Tensor:
    return x.copy_(mode.uniform(x.shape) < p)


def _uniform_(mode: GivenDraws, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return x.copy_(low + (high - low) * mode.uniform(x.shape))


def _normal_(mode: GivenDraws, x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return x.copy_(mean + std * mode.normal(x.shape))


_DROPOUT: dict[Any, Callable[..., Any]] = {
    torch.dropout: _dropout,
    torch.dropout_: _in_place(_dropout),
    torch.feature_dropout: _feature_dropout,
    torch.feature_dropout_: _in_place(_feature_dropout),
    F.scaled_dot_product_attention: _attention,
}
_NOISE: dict[Any, Callable[..., Any]] = {
    torch.rand: _of_size("uniform"),
    torch.randn: _of_size("normal"),
    torch.rand_like: _like("uniform"),
    torch.randn_like: _like("normal"),
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    Tensor.bernoulli_: _bernoulli_,
    Tensor.uniform_: _uniform_,
    Tensor.normal_: _normal_,
}


def _no(*_: Any) -> bool:
    return False


def _seen_inside(function: Any) -> Callable[..., Any]:
    """A copy of a function of torch whose calls a mode sees, which sees only the whole of it."""
    asks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    globals_ = {**function.__globals__, **dict.fromkeys(asks, _no)}
    copy = types.FunctionType(
        function.__code__, globals_, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_MADE_OF_OTHERS: dict[Any, Callable[..., Any]] = {
    function: _seen_inside(function)
    for function in (
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.multi_head_attention_forward,
    )
}
