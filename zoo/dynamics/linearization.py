"""What a tangent kernel says about training: how far it drifts, and what it predicts of outputs.

With a kernel that stays, gradient flow of `1/2 |f - y|^2`, summed over images and outputs, is
linear and solved in closed form:

    f(t) = y + exp(-K t) (f(0) - y)

A kernel stays in the limit of large width. At finite width the error falls with width; by what
power is measured in `docs/ntk.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from zoo.dynamics.finite_width import MAX_ENTRIES, Apply, tangent_kernel, tangent_kernel_trace
from zoo.params import mapped, norms, select


@dataclass(frozen=True, eq=False)
class KernelDrift:
    """How far the kernel of each checkpoint is from that of the first.

    Attributes:
        distance: `|K_t - K_0| / |K_0|`, Frobenius norms, `[N, T]`.
        alignment: Cosine of the angle between `K_t` and `K_0`, `[N, T]`; blind to a common factor.
    """

    distance: Float[Tensor, "N T"]
    alignment: Float[Tensor, "N T"]


def kernel_distance(
    kernel: Float[Tensor, "N ..."], reference: Float[Tensor, "N ..."]
) -> Float[Tensor, " N"]:
    """The Frobenius distance `|kernel - reference| / |reference|` of each network's kernels.

    Args:
        kernel: Kernels `[N, ...]` of either form.
        reference: Kernels of the same shape.

    Returns:
        The distances; NaN where the reference is 0.

    >>> kernel_distance(torch.eye(2)[None] * 3, torch.eye(2)[None])
    tensor([2.])
    """
    return norms(kernel - reference) / norms(reference)


def kernel_alignment(
    kernel: Float[Tensor, "N ..."], reference: Float[Tensor, "N ..."]
) -> Float[Tensor, " N"]:
    """The cosine `<kernel, reference> / (|kernel| |reference|)` of each network's kernels.

    Args:
        kernel: Kernels `[N, ...]` of either form.
        reference: Kernels of the same shape.

    Returns:
        The cosines, from 0 to 1 because kernels are positive semidefinite; NaN where a kernel is 0.

    References:
        Cristianini et al. 2001 (alignment of kernels); Fort et al. 2020, arXiv 2010.15110 (1 -
        cosine as kernel distance).

    >>> kernel_alignment(torch.eye(4)[None] * 3, torch.eye(4)[None])
    tensor([1.])
    """
    product = (kernel * reference).flatten(1).sum(1)
    return product / (norms(kernel) * norms(reference))


def kernel_drift(
    apply: Apply,
    checkpoints: Mapping[str, Tensor],
    x: Float[Tensor, "X ..."],
    *,
    free: Mapping[str, Tensor] | None = None,
    max_entries: int = MAX_ENTRIES,
) -> KernelDrift:
    """How the trace of the kernel moves along training.

    Args:
        apply: The function of one network.
        checkpoints: Tensors `[N, T, *shape]`, as `Population.trajectory` gives them, the first
            being the reference.
        x: Inputs `[X, *input_shape]`.
        free: Masks `[*shape]`, True where an entry is trained.
        max_entries: Bound on the entries of Jacobians held at once.

    Returns:
        Distance and alignment at each checkpoint, 0 and 1 at the first.
    """
    count = next(iter(checkpoints.values())).shape[1]
    kernels = []
    for t in range(count):
        params = select(checkpoints, (slice(None), t))
        kernels.append(tangent_kernel_trace(apply, params, x, free=free, max_entries=max_entries))
    distances = [kernel_distance(kernel, kernels[0]) for kernel in kernels]
    alignments = [kernel_alignment(kernel, kernels[0]) for kernel in kernels]
    return KernelDrift(torch.stack(distances, dim=1), torch.stack(alignments, dim=1))


def linearized_outputs(
    kernel: Float[Tensor, "N X K X K"],
    outputs: Float[Tensor, "N X K"],
    targets: Float[Tensor, "X K"],
    times: Float[Tensor, " T"],
) -> Float[Tensor, "N T X K"]:
    """Outputs under gradient flow of `1/2 |f - y|^2` if the kernel stayed as it is.

    f(t) = y + exp(-K t) (f(0) - y)

    Proof: f' = -K (f - y) is linear with constant coefficients; K is symmetric, so exp(-K t) is
        taken on its eigenvalues.
    Fails: as far as the kernel moves, see `kernel_drift`. For the mean over images instead of the
        sum, divide times by `X`.

    Args:
        kernel: Kernel of the training images at time 0.
        outputs: `f(0)` at them.
        targets: `y`, the same for all networks.
        times: Times from 0; a step of gradient descent takes as much time as its step size.

    Returns:
        The outputs at each time.

    References:
        Jacot et al. 2018, arXiv 1806.07572, section 5; Lee et al. 2019, arXiv 1902.06720, section
        2.2.
    """
    values, vectors = torch.linalg.eigh(kernel.flatten(3).flatten(1, 2))
    error = vectors.mT @ (outputs - targets).flatten(1)[..., None]
    decay = torch.exp(-values.clamp_min(0)[..., None] * times)
    return targets + (vectors @ (decay * error)).mT.unflatten(-1, targets.shape)


def prediction_error(
    apply: Apply,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    x: Float[Tensor, "X ..."],
    targets: Float[Tensor, "X K"],
    time: float,
    *,
    free: Mapping[str, Tensor] | None = None,
    max_entries: int = MAX_ENTRIES,
) -> Float[Tensor, " N"]:
    """How wrong the kernel at the start is about what training on squared error did to the outputs.

    error = |f_linearized(t) - f(t)| / |f(t) - f(0)|

    Args:
        apply: The function of one network.
        before: Params `[N, *shape]` at time 0.
        after: The same networks after gradient flow, or gradient descent, on `1/2 |f - y|^2` over
            all of `x`.
        x: Training inputs `[X, *input_shape]`.
        targets: `y`.
        time: How long the flow took: for gradient descent the sum of its step sizes.
        free: Masks `[*shape]`, True where an entry is trained.
        max_entries: Bound on the entries of Jacobians held at once.

    Returns:
        The error of each network; gradient descent adds its own, of the order of the step size.
    """
    kernel = tangent_kernel(apply, before, x, free=free, max_entries=max_entries)
    start, end = (
        vmap(apply, (0, None))(mapped(Tensor.detach, params), x) for params in (before, after)
    )
    predicted = linearized_outputs(kernel, start, targets, kernel.new_tensor([time]))[:, 0]
    return norms(predicted - end) / norms(end - start)


def first_order_change(
    kernel: Float[Tensor, "N Y K X K"],
    outputs: Float[Tensor, "N X K"],
    targets: Tensor,
    rate: float,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Float[Tensor, "N Y K"]:
    """What one step of gradient descent does to outputs, to first order in its size, for any loss.

    df = -eta K grad_f L

    Args:
        kernel: Kernel between the images that are asked about and the training images.
        outputs: `f` at the training images.
        targets: Second argument of the loss, the same for all networks.
        rate: Step size `eta`.
        loss: `loss(outputs, targets) -> scalar` of one network, the mean cross-entropy if not
            given.

    Returns:
        The change of the outputs at the images that are asked about; the next term is of the order
        of `eta^2`.
    """
    gradients = vmap(grad(lambda logits: loss(logits, targets)))(outputs.detach())
    return -rate * torch.einsum("nykxl,nxl->nyk", kernel, gradients)
