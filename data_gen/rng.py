"""Counter-based random numbers: each draw is a function of a key and counters alone.

So network `i` of a zoo is the same whichever shard, chunk, worker or restart it falls into.
"""

import hashlib

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB

Counter = int | Int64[Tensor, "..."]


def key(seed: int, *names: str | int) -> int:
    """Derive a key from a seed and the names of what it is for.

    Args:
        seed: Seed of the job.
        names: Purpose, for example `"hyperparameter", "lr"`.

    Returns:
        A 63-bit integer, the same on every machine.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def fold(keys: Counter, counters: Counter) -> Int64[Tensor, "..."]:
    """Derive new keys from keys and counters (SplitMix64), broadcasting.

    Args:
        keys: Keys.
        counters: Non-negative integers.

    Returns:
        Keys, uniform over the 64-bit integers.

    References:
        Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16.
    """
    z = torch.as_tensor(keys) + (torch.as_tensor(counters) + 1) * _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _shift_right(x: Int64[Tensor, "*shape"], bits: int) -> Int64[Tensor, "*shape"]:
    """Logical shift; PyTorch's is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def uniform(keys: Counter, counters: Counter) -> Float64[Tensor, "..."]:
    """Draw from U[0, 1).

    Args:
        keys: Keys.
        counters: Non-negative integers.

    Returns:
        Multiples of 2^-53, float64.
    """
    return _shift_right(fold(keys, counters), 11).double() * 2.0**-53


def integers(keys: Counter, counters: Counter, high: Counter) -> Int64[Tensor, "..."]:
    """Draw integers below a bound (bias below `high / 2^32`).

    Args:
        keys: Keys.
        counters: Non-negative integers.
        high: Exclusive bound, below 2^31.

    Returns:
        Integers in `[0, high)`.
    """
    return (_shift_right(fold(keys, counters), 32) * high) >> 32


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A sequential generator for what is drawn once, such as the initial parameters of one network.

    Args:
        seed: Seed of the job.
        names: Purpose, for example `"init", 17`.

    Returns:
        A seeded CPU generator.
    """
    return torch.Generator().manual_seed(key(seed, *names))
