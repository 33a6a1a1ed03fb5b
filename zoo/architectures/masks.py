"""Constants of asymmetric twins, for architectures and for torch modules."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Amount = int | float


def draw_mixing(size: int, std: Amount | None, generator: torch.Generator) -> Float[Tensor, "d d"]:
    """Draw the mixing matrix of FiGLU, `F ~ N(0, std^2)`, of `1 / sqrt(d)` if `std` is None."""
    scale = size**-0.5 if std is None else std
    return scale * torch.randn(size, size, generator=generator)


def draw_offset(
    shape: Sequence[int], std: Amount, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Draw the offset of a tensor.

    Args:
        shape: Shape of the tensor.
        std: Standard deviation of the entries.
        generator: Source of randomness.

    Returns:
        The offset `F ~ N(0, std^2)`.

    Raises:
        ValueError: If `std` is not positive.
    """
    if not 0 < std < math.inf:
        raise ValueError(f"syre: expected std > 0, got {std}")
    return std * torch.randn(shape, generator=generator)


def draw_fixed(
    name: str,
    shape: Sequence[int],
    kernel: Sequence[bool],
    n_fix: Amount,
    kappa: Amount,
    fix: str,
    generator: torch.Generator,
) -> tuple[Bool[Tensor, "*shape"], Float[Tensor, "*shape"]] | None:
    """Draw the mask `M` and the fixed entries `(1 - M) * F`, `F ~ N(0, kappa^2)`, of one weight.

    Args:
        name: Name of the weight, for errors.
        shape: Its shape `[*written, *read]`: what is written first, then what is read.
        kernel: For each axis that is read whether it is one of positions, as those of a convolution
            kernel.
        n_fix: Fixed entries in each row; an integer is a number, a float below 1 a fraction of the
            fan-in (rounded, at least one); 0 for none.
        kappa: Standard deviation of the fixed entries.
        fix: `"entries"` fixes single scalars, `"filters"` all positions of a channel that is read.
        generator: Source of both. The values are drawn even if nothing is fixed, and do not depend
            on `kappa` but for scale.

    Returns:
        The mask, True = free, no two rows equal, and the values, 0 at free entries; None if nothing
        is fixed.

    Raises:
        ValueError: If an option does not fit: a row would be frozen, or rows cannot be distinct.

    References:
        Lim et al. 2024, arXiv 2405.20231, section 3.1.
    """
    if fix not in ("entries", "filters"):
        raise ValueError(f"tensor {name!r}: expected fix to be 'entries' or 'filters', got {fix!r}")
    free = _mask(name, tuple(shape), kernel, n_fix, fix, generator)
    values = torch.randn(*shape, generator=generator)
    if not 0 <= kappa < math.inf:
        raise ValueError(f"tensor {name!r}: expected kappa >= 0, got {kappa}")
    return None if free is None else (free, torch.where(free, 0.0, kappa * values))


def _mask(
    name: str,
    shape: tuple[int, ...],
    kernel: Sequence[bool],
    amount: Amount,
    fix: str,
    generator: torch.Generator,
) -> Tensor | None:
    num_written = len(shape) - len(kernel)
    written, read = shape[:num_written], shape[num_written:]
    together = [fix == "filters" and is_kernel for is_kernel in kernel]
    chosen = [1 if whole else size for size, whole in zip(read, together, strict=True)]
    rows, fan_in = math.prod(written), math.prod(chosen)
    n_fix = _num_fixed(name, amount, fan_in)
    if n_fix == 0:
        return None
    unit = "input filters" if fix == "filters" else "entries"
    _check_choices(name, rows, fan_in, n_fix, unit)
    free = distinct_rows(rows, fan_in, n_fix, generator)
    return free.reshape(*written, *chosen).expand(shape).contiguous()


def _num_fixed(name: str, amount: Amount, fan_in: int) -> int:
    if isinstance(amount, float) and 0 < amount < 1:
        return max(1, round(amount * fan_in))
    if amount != 0 and not (isinstance(amount, int) and amount > 0):
        raise ValueError(
            f"tensor {name!r}: expected n_fix as an integer >= 0 or a fraction in (0, 1), "
            f"got {amount}"
        )
    return int(amount)


def _check_choices(name: str, rows: int, fan_in: int, n_fix: int, unit: str) -> None:
    if n_fix >= fan_in:
        raise ValueError(
            f"tensor {name!r}: n_fix={n_fix} would freeze all {fan_in} {unit} of a row; "
            f"expected n_fix < {fan_in} "
            "(n_fix as a mapping gives it per tensor, 0 leaves a tensor as it is)"
        )
    choices = math.comb(fan_in, n_fix)
    if choices < rows:
        raise ValueError(
            f"tensor {name!r}: {rows} rows cannot be distinct with n_fix={n_fix} of {fan_in} "
            f"{unit}: there are only {choices} ways to choose"
        )


def distinct_rows(
    rows: int, columns: int, n_fix: int, generator: torch.Generator
) -> Bool[Tensor, "rows columns"]:
    """Draw a mask with `n_fix` False entries in every row and no two equal rows.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        n_fix: False entries in each row; at least `rows` different choices must exist.
        generator: Source of randomness.

    Returns:
        The mask.
    """
    if math.comb(columns, n_fix) <= 4 * rows:
        choices = torch.tensor(list(itertools.combinations(range(columns), n_fix)))
        picked = choices[torch.randperm(len(choices), generator=generator)[:rows]]
    else:
        distinct: dict[tuple[int, ...], None] = {}
        while len(distinct) < rows:
            row = torch.randperm(columns, generator=generator)[:n_fix].sort().values
            distinct[tuple(row.tolist())] = None
        picked = torch.tensor(list(distinct))
    return torch.ones(rows, columns, dtype=torch.bool).scatter(1, picked, False)
