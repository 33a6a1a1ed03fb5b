"""The order of training images for a network: endless shuffled passes, computed where needed.

No permutation is stored and none has to be replayed: position `p` of a network's sequence is a
function of its key.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from data_gen.rng import fold, integers

_ROUNDS = 4


@dataclass(frozen=True)
class Kernels:
    """The two elementwise computations of a shuffle, as they are or compiled."""

    round_tables: Callable[..., Tensor]
    feistel: Callable[..., Tensor]


def shuffled(
    keys: Int64[Tensor, " N"],
    position: Int64[Tensor, "N M"],
    length: Int64[Tensor, " N"],
    kernels: Kernels | None = None,
) -> Int64[Tensor, "N M"]:
    """Look positions up in endless shuffled passes over `range(length)`.

    Position `p` is in pass `p // length`; each pass is a keyed bijection of `Z_a x Z_b` with
    `a b >= length`, applied again until it lands below `length`.

    Args:
        keys: One key a network.
        position: Positions in the endless sequence.
        length: Length of a pass for each network.
        kernels: How to compute, `EAGER` if None.

    Returns:
        Indices in `[0, length)`; each occurs exactly once in a pass.

    References:
        Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 5 (generalized
        Feistel, cycle walking).
    """
    kernels = kernels or EAGER
    device = keys.device
    a, b = _factors(length)
    epoch, x = divide(position, length[:, None])
    first = epoch.amin(1, keepdim=True)  # networks may be at different places of their training
    since = epoch - first
    passes = first + _up_to(int(since.max()) + 1, device)
    width = int(torch.maximum(a, b).max())
    arguments, rounds = _up_to(width, device), _up_to(_ROUNDS, device)
    tables = kernels.round_tables(keys, passes, rounds, arguments, a, b)
    row = _up_to(len(keys), device)[:, None]
    start = (row * passes.shape[1] + since) * (_ROUNDS * width)
    index = kernels.feistel(tables, width, start, x, a[:, None], b[:, None])
    _walk(index, tables, width, start, length, a, b)
    return index


def _up_to(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def _factors(length: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of about the same size with a product of at least `length`."""
    b = length.double().sqrt().ceil().long()
    return -(-length // b), b


def _walk(
    index: Tensor, tables: Tensor, width: int, start: Tensor, length: Tensor, a: Tensor, b: Tensor
) -> None:
    """Apply the bijection again where it has led outside of `range(length)`, in place."""
    rows, columns = (index >= length[:, None]).nonzero(as_tuple=True)
    while len(rows):
        here = rows, columns
        walked = feistel(tables, width, start[here], index[here], a[rows], b[rows])
        index[here] = walked
        outside = walked >= length[rows]
        rows, columns = rows[outside], columns[outside]


def divide(
    x: Int64[Tensor, "*shape"], by: Int64[Tensor, "..."]
) -> tuple[Int64[Tensor, "*shape"], Int64[Tensor, "*shape"]]:
    """Quotient and remainder of integers below 2^52, by way of float64: several times faster.

    The quotient of such integers is rounded to an integer above it only if it is one.

    Args:
        x: Non-negative integers.
        by: Positive integers.

    Returns:
        `x // by` and `x % by`.
    """
    quotient = (x.double() / by.double()).floor().long()
    return quotient, x - quotient * by


def round_tables(
    keys: Int64[Tensor, " N"],
    passes: Int64[Tensor, "N E"],
    rounds: Int64[Tensor, " R"],
    arguments: Int64[Tensor, " W"],
    a: Int64[Tensor, " N"],
    b: Int64[Tensor, " N"],
) -> Int64[Tensor, " T"]:
    """Random round functions of every network and pass.

    Even rounds map `Z_b` to `Z_a`, odd rounds `Z_a` to `Z_b`.

    The ranges are arguments, not made here: a compiled `arange` is folded into index arithmetic
    that overflows.

    Args:
        keys: One key a network.
        passes: Numbers of each network's passes.
        rounds: Numbers of the rounds, from 0.
        arguments: Arguments of a round function, from 0.
        a: First factor of each network's domain.
        b: Second factor.

    Returns:
        All round functions, flat, networks first, then passes, rounds and arguments.
    """
    round_keys = fold(fold(keys[:, None], passes)[..., None], rounds)
    bound = torch.where(rounds % 2 == 0, a[:, None], b[:, None])
    return integers(round_keys[..., None], arguments, bound[:, None, :, None]).reshape(-1)


def feistel(
    tables: Int64[Tensor, " T"],
    width: int,
    start: Int64[Tensor, "*shape"],
    x: Int64[Tensor, "*shape"],
    a: Int64[Tensor, "..."],
    b: Int64[Tensor, "..."],
) -> Int64[Tensor, "*shape"]:
    """A bijection of `Z_a x Z_b` for each element: four Feistel rounds, from tables.

    Args:
        tables: Round functions of all bijections, flat; round `r` maps `v` to
            `tables[start + r * width + v]`.
        width: Length of one round function.
        start: Where the round functions of an element's bijection start.
        x: Elements below `a * b`.
        a: First factor of each element's domain.
        b: Second factor.

    Returns:
        Images below `a * b`.

    References:
        Luby and Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom
        functions".
    """
    left, right = divide(x, b)
    for r in range(_ROUNDS):
        if r % 2 == 0:
            left = left + tables[start + (r * width + right)]
            left = torch.where(left >= a, left - a, left)
        else:
            right = right + tables[start + (r * width + left)]
            right = torch.where(right >= b, right - b, right)
    return left * b + right


EAGER = Kernels(round_tables, feistel)
