"""Targets that are computed from networks when a study asks for them.

    population = with_derived(zoo["standard"], ["sharpness"], folder)
    Metanet("gmn", target="sharpness").fit(population)

Rescaling the neurons of a ReLU network changes its sharpness and the norm of its weights, and
nothing that it computes: a metanet that is invariant to scales cannot know them.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import grad, jvp, vmap

from data_gen.tasks.task import TaskConfig, load_task
from studies.common.evaluation import check_shared
from zoo.params import Params, check_finite, flatten, unflatten
from zoo.store.atomic import atomic_write
from zoo.store.population import Population
from zoo.views import PopulationLike, view

NUM_IMAGES = 512
NETWORKS_AT_ONCE = 8
MAX_STEPS, STEPS_BETWEEN_CHECKS = 200, 5
TOLERANCE = 1e-3
"""Of the largest eigenvalue: bound of its error."""

ALL = torch.tensor(True)
"""Mask of a tensor without fixed entries."""
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Derived:
    """A target that is computed.

    Attributes:
        compute: `compute(population, params) -> [N]`, NaN for networks that have no finite value.
        version: To be raised when a stored value would no longer be what is computed.
    """

    compute: Callable[[Population, Params], Float[np.ndarray, "N"]]
    version: int


def with_derived(population: Population, targets: Iterable[str], folder: Path) -> PopulationLike:
    """A population with computed targets in its table; itself if none of the targets is computed.

    Args:
        population: A population of a zoo.
        targets: Names of columns, those of `DERIVED` among them.
        folder: Where computed columns are kept, one file for a target and a split, named by the
            population's fingerprint.

    Returns:
        The population.
    """
    wanted = [target for target in dict.fromkeys(targets) if target in DERIVED]
    if not wanted:
        return population
    return view(population, table=partial(_table_with, population, wanted, folder))


def _table_with(
    population: Population, targets: Sequence[str], folder: Path, split: str
) -> pd.DataFrame:
    columns = {target: _column(population, target, split, folder) for target in targets}
    return population.table(split).assign(**columns)


def _column(
    population: Population, target: str, split: str, folder: Path
) -> Float[np.ndarray, "N"]:
    """A computed target of a split, from its file if there is one."""
    derived = DERIVED[target]
    path = folder / f"{target}-{split}-v{derived.version}-{population.fingerprint}.npy"
    if not path.is_file():
        params, where = population.params(split), f"population {population.name!r}, {split!r}"
        check_finite(population.space, params, where)
        _save(path, derived.compute(population, params))
    return np.load(path, allow_pickle=False)


def squared_weight_norm(population: Population, params: Params) -> Float[np.ndarray, "N"]:
    """Sum of the squares of all trained entries.

    Args:
        population: Of the networks.
        params: Their params `[N, *shape]`.

    Returns:
        `[N]`, NaN where it is not finite.
    """
    squares = flatten(population.space, params)[:, trained(population)].double().square().sum(1)
    return torch.where(squares.isfinite(), squares, torch.nan).numpy()


def sharpness(population: Population, params: Params) -> Float[np.ndarray, "N"]:
    """Largest eigenvalue of the Hessian of the training loss, by trained entries.

        lambda_max(d^2 L / d theta^2)
        L = mean over the first 512 training examples of the task's loss of f_theta(x) and y

    The images are those of the task's training part in its own order, the same for all networks,
    with their true labels: no label noise, no label smoothing, no weight decay, no part left out.
    Fixed entries and running statistics are constants.

    Args:
        population: Of the networks.
        params: Their params `[N, *shape]`.

    Returns:
        `[N]`, NaN for networks whose loss is not finite.
    """
    task = load_task(TaskConfig.model_validate(population.manifest.job["task"]))
    check_shared(task)
    x, y = task.inputs(task.train.x[:NUM_IMAGES]), task.train.y[:NUM_IMAGES]
    apply, space, entries = population.architecture.apply, population.space, trained(population)

    def loss(flat: Tensor) -> Tensor:
        return task.loss.mean(apply(unflatten(space, flat), x), y)

    chunks = flatten(space, params).split(NETWORKS_AT_ONCE)
    return torch.cat([largest_eigenvalue(loss, chunk, entries) for chunk in chunks]).numpy()


DERIVED: dict[str, Derived] = {
    "sharpness": Derived(sharpness, version=1),
    "squared_weight_norm": Derived(squared_weight_norm, version=1),
}
"""Computed targets by name."""


def trained(population: Population) -> Bool[Tensor, "P"]:
    """Which entries of flat params are trained: neither fixed nor running statistics."""
    space, statistics = population.space, population.architecture.statistics
    masks = {
        name: torch.full(shape, name not in statistics) & population.free.get(name, ALL)
        for name, shape in space.shapes.items()
    }
    return flatten(space, masks)


def largest_eigenvalue(
    loss: Loss, at: Float[Tensor, "N P"], entries: Bool[Tensor, "P"]
) -> Float[Tensor, "N"]:
    """Largest eigenvalue of the Hessian of a loss, for N points at once, by Lanczos iteration.

        T = Q^T H Q tridiagonal, Q = basis of span(q, Hq, H^2 q, ...)
        theta = max eig T;   |theta - lambda| <= residual

    The largest, not the largest in absolute value: no shift is needed, and it takes far fewer
    products with the Hessian than power iteration. Every vector is made orthogonal to all before
    it.

    Args:
        loss: Of one point `[P]`.
        at: Points.
        entries: Entries of the Hessian; the other ones of a point are constants.

    Returns:
        Eigenvalues, float64, NaN where the loss or a product with the Hessian is not finite. Warns
        where an eigenvalue did not converge to `TOLERANCE`.

    References:
        Golub and Van Loan 2013, Matrix Computations, 4th edition, section 10.1.
    """
    krylov = _Krylov(loss, at, entries)
    eigenvalue, residual = torch.zeros(2, len(at), dtype=torch.float64)
    is_open = torch.ones(len(at), dtype=torch.bool)
    last = min(MAX_STEPS, int(entries.sum()))
    for step in range(1, last + 1):
        krylov.extend()
        if step == last or step % STEPS_BETWEEN_CHECKS == 0:
            known = torch.stack([eigenvalue, residual])
            eigenvalue, residual = torch.where(is_open, krylov.ritz(), known)
            is_open = residual > TOLERANCE * eigenvalue.abs()
            if not is_open.any():
                break
    if count := int(is_open.sum()):
        warnings.warn(
            f"sharpness: {count} of {len(at)} networks did not converge in {last} steps",
            stacklevel=2,
        )
    return torch.where(vmap(loss)(at).isfinite(), eigenvalue, torch.nan)


class _Krylov:
    """The space that a vector and its products with Hessians span, with a basis for each point.

    Attributes:
        basis: Orthonormal vectors `[N, P]`; the last is still to be multiplied.
        diagonal: Of the tridiagonal matrices, `[N]` a step.
        off_diagonal: Norms `[N]` of what each step adds; the last is outside the matrices.
    """

    def __init__(self, loss: Loss, at: Tensor, entries: Tensor):
        mask = entries.to(at)
        self.at = at
        self.product = vmap(lambda point, v: jvp(grad(loss), (point,), (v,))[1] * mask)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(len(mask), generator=generator, dtype=torch.float64).to(at) * mask
        self.basis = [(start / start.norm()).expand(len(at), -1)]
        self.diagonal: list[Tensor] = []
        self.off_diagonal: list[Tensor] = []
        self.rest = torch.empty_like(at)

    def extend(self) -> None:
        """Multiply the last vector, and take from the product what all vectors span."""
        if self.off_diagonal:
            tiny = torch.finfo(self.at.dtype).tiny
            self.basis.append(self.rest / self.off_diagonal[-1].clamp_min(tiny)[:, None])
        rest = self.product(self.at, self.basis[-1])
        self.diagonal.append((rest * self.basis[-1]).sum(1))
        q = torch.stack(self.basis, dim=1)
        for _ in range(2):  # once leaves rounding errors of the size of the products
            rest = rest - torch.einsum("nkp,nk->np", q, torch.einsum("nkp,np->nk", q, rest))
        self.rest = rest
        self.off_diagonal.append(rest.norm(dim=1))

    def ritz(self) -> Float[Tensor, "2 N"]:
        """Largest eigenvalues of the matrices, norms of their residuals; NaN if not finite."""
        diagonal = torch.stack(self.diagonal, 1).double()
        off_diagonal = torch.stack(self.off_diagonal, 1).double()
        finite = (diagonal.isfinite() & off_diagonal.isfinite()).all(1)
        inner = off_diagonal[:, :-1].diag_embed(1)
        matrix = diagonal.diag_embed() + inner + inner.mT
        values, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], matrix, 0))
        ritz = torch.stack([values[:, -1], off_diagonal[:, -1] * vectors[:, -1, -1].abs()])
        return torch.where(finite, ritz, torch.nan)


def _save(path: Path, values: Float[np.ndarray, "N"]) -> None:
    """Write a column; the file is there completely or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)
