"""The tangent kernel of an infinitely wide two-layer ReLU network, and how far finite ones scatter.

    f(x) = n^-1/2 sum over j of a_j relu(w_j . x),    w_j, a_j standard normal, all trained
    K_n(x, x') = 1/n sum over j of Z_j
    Z_j = relu(w_j . x) relu(w_j . x') + a_j^2 1[w_j . x > 0] 1[w_j . x' > 0] x . x'

Statement: K_n tends to E[Z], and (K_n - E[Z]) sqrt(n / Var[Z]) to a standard normal variable.
Proof: differentiate f by a_j and w_j; the neurons are independent and alike, so the mean over them
    obeys the law of large numbers and the central limit theorem; the moments are arc-cosine kernels
    of order 0, 1 and 2, and a_j, independent of w_j, has second moment 1 and fourth 3.
Fails: for weights that are not normal (uniform ones come near it only for inputs of many entries),
    and for more layers.

A bias of standard deviation s is one more entry s of every input; inputs divided by the root of
their size give PyTorch's usual scale. A bias of the output adds 1.

References:
    Cho and Saul 2009, "Kernel methods for deep learning", section 2; Jacot et al. 2018, arXiv
    1806.07572, theorem 1.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def arc_cosine_kernel(
    order: int, x: Float[Tensor, "X d"], other: Float[Tensor, "Y d"]
) -> Float[Tensor, "X Y"]:
    """The mean of `relu(w . x)^p relu(w . x')^p` over standard normal `w`.

    mean = |x|^p |x'|^p J_p(angle) / (2 pi)
    relu(z)^0 = 1[z > 0]
    J_0 = pi - angle,  J_1 = sin + (pi - angle) cos,  J_2 = 3 sin cos + (pi - angle) (1 + 2 cos^2)

    Args:
        order: `p`: 0, 1 or 2.
        x: Inputs `[X, d]`.
        other: Inputs `x'`.

    Returns:
        The kernel, half of Cho and Saul's.

    Raises:
        ValueError: If the order is another.

    References:
        Cho and Saul 2009, section 2.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"arc-cosine kernel: expected order 0, 1 or 2, got {order}")
    # Half-angles keep precision where the two inputs are nearly parallel, as arccos does not.
    one, two = (torch.nn.functional.normalize(t, dim=1) for t in (x, other))
    angle = 2 * torch.atan2((one[:, None] - two).norm(dim=2), (one[:, None] + two).norm(dim=2))
    cos, sin, rest = angle.cos(), angle.sin(), math.pi - angle
    angular = (rest, sin + rest * cos, 3 * sin * cos + rest * (1 + 2 * cos**2))[order]
    sizes = x.norm(dim=1)[:, None] * other.norm(dim=1)
    return sizes**order * angular / (2 * math.pi)


def relu_tangent_kernel(
    x: Float[Tensor, "X d"], other: Float[Tensor, "Y d"]
) -> Float[Tensor, "X Y"]:
    """The kernel of the network of infinite width, `E[Z] = k_1 + (x . x') k_0`.

    Args:
        x: Inputs `[X, d]`.
        other: Inputs `x'`.

    Returns:
        The kernel; `k_p` is `arc_cosine_kernel(p, ...)`.

    References:
        Jacot et al. 2018, arXiv 1806.07572, theorem 1; the module's docstring for statement, proof
        and failure.
    """
    return arc_cosine_kernel(1, x, other) + x @ other.T * arc_cosine_kernel(0, x, other)


def relu_tangent_variance(
    x: Float[Tensor, "X d"], other: Float[Tensor, "Y d"]
) -> Float[Tensor, "X Y"]:
    """The variance of one neuron's share.

    The kernel of a network of width `n` has standard error `sqrt(Var[Z] / n)`.

    Var[Z] = k_2 + 2 (x . x') k_1 + 3 (x . x')^2 k_0 - E[Z]^2

    Args:
        x: Inputs `[X, d]`.
        other: Inputs `x'`.

    Returns:
        The variance, from `E[a^2] = 1`, `E[a^4] = 3` and `relu(z) 1[z > 0] = relu(z)`.
    """
    k0, k1, k2 = (arc_cosine_kernel(order, x, other) for order in (0, 1, 2))
    product = x @ other.T
    return k2 + 2 * product * k1 + 3 * product**2 * k0 - (k1 + product * k0) ** 2
