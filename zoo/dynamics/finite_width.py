"""Empirical neural tangent kernels of many networks, by contraction of Jacobians, block by block.

    K(x, x')_kl = sum over trained parameters p of  df_k(x)/dtheta_p  df_l(x')/dtheta_p

Statement: under gradient flow of a loss `L(f)` the outputs move by `f' = -K grad_f L`, for squared
    error `f' = -K (f - y)`.
Proof: theta' = -J^T grad_f L by the chain rule, with J the Jacobian of all outputs; f' = J theta' =
    -J J^T grad_f L, and K is J J^T; nothing but differentiability of f at theta was used, so it
    holds at every instant, with the kernel of that instant.
Fails: for momentum, Adam and weight decay (theta' is not -grad L); after a finite step, by
    O(eta^2); with BatchNorm in training
mode (an image's outputs depend on the others). What is predicted from one kernel, see
`zoo.dynamics.linearization`, needs K to stay.

Cost: X K backward passes and a product of [X K, P] matrices. Products of Jacobians with vectors,
    the other way to the same
kernel, are about twice as fast for a small MLP of 10 outputs, 4 to 8 times slower for a CNN and a
transformer, and slower than any trace (`benchmarks/tangent_kernel.py`); so there is one way here.

References:
    Jacot et al. 2018, arXiv 1806.07572, section 4; Gluch and Urbanke 2021, arXiv 2104.05508 (time
    symmetry); Novak et al. 2022, arXiv 2206.08720 (contraction of Jacobians against products with
    vectors).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from zoo.architectures.base import constants_of
from zoo.params import Params, mapped, select

Apply = Callable[[Params, Tensor], Tensor]

MAX_ENTRIES = 2**26
"""Entries of Jacobians held at once: half a gigabyte in float64."""


def trained_masks(constants: Mapping[str, Tensor]) -> Params:
    """Which entries training moves, for `free`: neither fixed entries nor running statistics.

    Args:
        constants: Constants of an `Architecture` or a `Population`.

    Returns:
        Masks `{tensor: bool[*shape]}`, True where an entry is trained; a tensor that is trained
        altogether has none.

    >>> trained_masks({"statistic.norm.running_mean": torch.ones(2, dtype=torch.bool)})
    {'norm.running_mean': tensor([False, False])}
    """
    return constants_of(constants, "free") | mapped(
        torch.bitwise_not, constants_of(constants, "statistic")
    )


def tangent_kernel(
    apply: Apply,
    params: Mapping[str, Tensor],
    x: Float[Tensor, "X ..."],
    other: Float[Tensor, "Y ..."] | None = None,
    *,
    free: Mapping[str, Tensor] | None = None,
    max_entries: int = MAX_ENTRIES,
) -> Float[Tensor, "N X K Y K"]:
    """The kernel between all outputs at all images, for each network.

    kernel[n, i, k, j, l] = <df_k(x_i)/dtheta, df_l(x'_j)/dtheta> at network n

    Args:
        apply: The function of one network, `apply(params, x)` from `[X, *input_shape]` to `[X, K]`;
            the outputs of an image may not depend on the other images.
        params: Tensors `[N, *shape]`.
        x: Inputs `[X, *input_shape]`.
        other: Inputs `x'` of the second argument, `x` if None.
        free: Masks `[*shape]`, True where an entry is trained, of tensors that have entries that
            are not; see `trained_masks`.
        max_entries: Bound on the entries of Jacobians held at once. Fewer networks are taken at a
            time, then fewer images, at the least one network's Jacobians at two images; the result
            is not counted.

    Returns:
        The kernel, in the type of the params.

    Raises:
        ValueError: If params have no common leading axis, a mask does not fit its tensor, or no
            entry is trained.

    References:
        Jacot et al. 2018, arXiv 1806.07572, section 4; statement, proof and failure are on top of
        this file.
    """
    gram = _gram(apply, params, x, other, free or {}, max_entries, lambda rows: rows.flatten(1, 2))
    outputs = gram.shape[1] // len(x)
    return gram.unflatten(2, (-1, outputs)).unflatten(1, (-1, outputs))


def tangent_kernel_trace(
    apply: Apply,
    params: Mapping[str, Tensor],
    x: Float[Tensor, "X ..."],
    other: Float[Tensor, "Y ..."] | None = None,
    *,
    free: Mapping[str, Tensor] | None = None,
    max_entries: int = MAX_ENTRIES,
) -> Float[Tensor, "N X Y"]:
    """The trace of the kernel over outputs: `K` times less work, `K^2` times less memory.

    kernel[n, i, j] = sum over k of <df_k(x_i)/dtheta, df_k(x'_j)/dtheta> at network n

    Args:
        apply: The function of one network, as for `tangent_kernel`.
        params: As for `tangent_kernel`, and so are the others.
        x: Inputs `[X, *input_shape]`.
        other: Inputs `x'`.
        free: Masks.
        max_entries: Bound on the entries of Jacobians held at once.

    Returns:
        The trace, a sum and not a mean over outputs.

    Raises:
        ValueError: If params have no common leading axis, a mask does not fit its tensor, or no
            entry is trained.

    References:
        Jacot et al. 2018, arXiv 1806.07572, section 4; statement, proof and failure are on top of
        this file.
    """
    return _gram(apply, params, x, other, free or {}, max_entries, lambda rows: rows.flatten(2))


def _gram(
    apply: Apply,
    params: Mapping[str, Tensor],
    x: Tensor,
    other: Tensor | None,
    free: Mapping[str, Tensor],
    max_entries: int,
    as_rows: Callable[[Tensor], Tensor],
) -> Float[Tensor, "N R S"]:
    """Inner products of the rows that `as_rows` makes of Jacobians, summed over tensors."""
    _check(params, free)
    trained = _trained(params, free)
    with torch.no_grad():
        outputs = apply(select(params, 0), x[:1])
    entries = outputs.shape[1] * sum(params[name][0].numel() for name in trained)
    total = len(x) + (0 if other is None else len(other))
    images = total if entries * total <= max_entries else max(1, max_entries // (2 * entries))
    others = None if other is None else other.split(images)
    jacobians = partial(_jacobians, as_rows, apply, trained, free)
    grams = []
    for networks in _split(params, max(1, max_entries // (entries * total))):
        grams.append(_blockwise(partial(jacobians, networks), x.split(images), others))
    return torch.cat(grams)


def _split(params: Mapping[str, Tensor], size: int) -> Iterator[Params]:
    """So many networks at a time, without gradients."""
    for parts in zip(*(tensor.detach().split(size) for tensor in params.values()), strict=True):
        yield dict(zip(params, parts, strict=True))


def _trained(params: Mapping[str, Tensor], free: Mapping[str, Tensor]) -> set[str]:
    """The tensors with trained entries; refuses params without any."""
    trained = {
        name
        for name, tensor in params.items()
        if tensor.is_floating_point() and (name not in free or bool(free[name].any()))
    }
    if not trained:
        raise ValueError(
            f"tangent kernel: expected a tensor with trained entries, got none in {list(params)}"
        )
    return trained


def _blockwise(
    rows: Callable[[Tensor], list[Tensor]],
    blocks: tuple[Tensor, ...],
    others: tuple[Tensor, ...] | None,
) -> Float[Tensor, "N R S"]:
    """All inner products, two blocks of images at a time; half of them if `others` is None."""
    grid: list[list[Tensor]] = []
    for i, block in enumerate(blocks):
        left = rows(block)
        line = [] if others is not None else [grid[j][i].mT for j in range(i)]
        for j, other in enumerate(blocks[i:] if others is None else others):
            right = left if others is None and j == 0 else rows(other)
            products = [one @ two.mT for one, two in zip(left, right, strict=True)]
            line.append(reduce(torch.add, products))
        grid.append(line)
    return torch.cat([torch.cat(line, dim=2) for line in grid], dim=1)


def _jacobians(
    as_rows: Callable[[Tensor], Tensor],
    apply: Apply,
    names: set[str],
    free: Mapping[str, Tensor],
    params: Params,
    x: Tensor,
) -> list[Float[Tensor, "N R _"]]:
    """For each trained tensor the derivatives of all outputs by its trained entries, as rows."""
    trained = {name: tensor for name, tensor in params.items() if name in names}
    rest = {name: tensor for name, tensor in params.items() if name not in names}
    one_image = jacrev(lambda moved, fixed, image: apply({**moved, **fixed}, image[None])[0])
    jacobians = vmap(vmap(one_image, (None, None, 0)), (0, 0, None))(trained, rest, x)
    rows = []
    for name, jacobian in jacobians.items():
        flat = jacobian.reshape(*jacobian.shape[:3], -1)
        moving = flat[..., free[name].flatten().to(flat.device)] if name in free else flat
        rows.append(as_rows(moving))
    return rows


def _check(params: Mapping[str, Tensor], free: Mapping[str, Tensor]) -> None:
    """Refuse params without a common leading axis, and wrong masks."""
    counts = {len(tensor) if tensor.dim() else 0 for tensor in params.values()}
    if len(counts) != 1 or 0 in counts:
        shapes = {name: list(tensor.shape) for name, tensor in params.items()}
        raise ValueError(
            f"tangent kernel: expected params [N, *shape] with one N of at least 1, got {shapes}"
        )
    for name, mask in free.items():
        expected = list(params[name].shape[1:]) if name in params else None
        if list(mask.shape) != expected:
            raise ValueError(
                f"tangent kernel, mask {name!r}: expected the shape of its tensor, {expected}, "
                f"got {list(mask.shape)}"
            )
