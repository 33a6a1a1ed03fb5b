"""The order in which a network sees its training images: endless shuffled passes, computed where they are needed.

No permutation is stored and none has to be replayed: position `p` of a network's sequence is a function of its key.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from data_gen.rng import fold, integers

_ROUNDS = 4


def shuffled(
    keys: Int64[Tensor, " N"],
    position: Int64[Tensor, "N M"],
    length: Int64[Tensor, " N"],
    bijection: Callable[..., Tensor] | None = None,
) -> Int64[Tensor, "N M"]:
    """Look positions up in endless shuffled passes over `range(length)`.

    Position `p` is in pass `p // length`; each pass is a keyed bijection of `Z_a x Z_b` with `a b >= length`, applied again
    until it lands below `length`.

    Args:
        keys: One key a network.
        position: Positions in the endless sequence.
        length: Length of a pass for each network.
        bijection: Replacement for `feistel`, such as its compiled form.

    Returns:
        Indices in `[0, length)`; each occurs exactly once in a pass.

    References:
        Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 5 (generalized Feistel, cycle walking).
    """
    bijection = bijection or feistel
    b = length.double().sqrt().ceil().long()
    a = -(-length // b)
    epoch = position // length[:, None]
    first, epochs = epoch.min(), int(epoch.max() - epoch.min()) + 1
    tables = _round_tables(keys, first, epochs, a, b)
    width = tables.shape[-1]
    cell = torch.arange(len(keys), device=keys.device)[:, None] * epochs + (epoch - first)

    def flat(per_network: Tensor) -> Tensor:
        return per_network[:, None].expand_as(position).reshape(-1)

    start, limit, a, b = (cell * (_ROUNDS * width)).reshape(-1), flat(length), flat(a), flat(b)
    index = bijection(tables.reshape(-1), width, start, (position % length[:, None]).reshape(-1), a, b)
    outside = (index >= limit).nonzero()[:, 0]
    while len(outside):
        walked = feistel(tables.reshape(-1), width, start[outside], index[outside], a[outside], b[outside])
        index[outside] = walked
        outside = outside[walked >= limit[outside]]
    return index.reshape(position.shape)


def _round_tables(
    keys: Int64[Tensor, " N"], first: Int64[Tensor, ""], epochs: int, a: Int64[Tensor, " N"], b: Int64[Tensor, " N"]
) -> Int64[Tensor, "N E R W"]:
    """Random round functions of every network and epoch: even rounds map `Z_b` to `Z_a`, odd rounds `Z_a` to `Z_b`."""
    rounds = torch.arange(_ROUNDS, device=keys.device)
    values = torch.arange(int(torch.maximum(a, b).max()), device=keys.device)
    epoch_keys = fold(keys[:, None], first + torch.arange(epochs, device=keys.device))
    round_keys = fold(epoch_keys[..., None], rounds)
    bound = torch.where(rounds % 2 == 0, a[:, None], b[:, None])
    return integers(round_keys[..., None], values, bound[:, None, :, None])


def feistel(
    tables: Int64[Tensor, " T"],
    width: int,
    start: Int64[Tensor, " M"],
    x: Int64[Tensor, " M"],
    a: Int64[Tensor, " M"],
    b: Int64[Tensor, " M"],
) -> Int64[Tensor, " M"]:
    """A bijection of `Z_a x Z_b` for each element: four Feistel rounds with tabulated round functions.

    Args:
        tables: Round functions of all bijections, flat; round `r` maps `v` to `tables[start + r * width + v]`.
        width: Length of one round function.
        start: Where the round functions of an element's bijection start.
        x: Elements below `a * b`.
        a: First factor of each element's domain.
        b: Second factor.

    Returns:
        Images below `a * b`.

    References:
        Luby and Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom functions".
    """
    left, right = x // b, x % b
    for r in range(_ROUNDS):
        if r % 2 == 0:
            left = left + tables[start + (r * width + right)]
            left = torch.where(left >= a, left - a, left)
        else:
            right = right + tables[start + (r * width + left)]
            right = torch.where(right >= b, right - b, right)
    return left * b + right
