"""Data symmetry: what a gradient averaged over an orbit of the data does not do to the first layer.

Continuous group, `R(t) = exp(t A)` with `A` antisymmetric, mean loss `L` over the data turned by
all angles:

    <grad_W L, W A> = 0

Statement: the velocity of the first layer `W`, dense on the flattened input, has no angular
    momentum, `<W', W A> = 0`.
Proof: W R(s) applied to x is W applied to R(s) x, and a full orbit turned by s is the same orbit;
    so L(W R(s), the rest) does not depend on s;
    its derivative at s = 0 is <grad_W L, W A>.
Fails: on an orbit of finitely many angles, as the trapezoidal rule does: what remains has
    frequencies that their number divides. So it falls faster than any power of the number if loss
    and network are smooth, slowly if they have kinks. If the loss is a polynomial of degree D in
    the input, squared error of a polynomial network, it is 0 from D m + 1 angles on, with m the
    highest frequency of A (1 for a rotation of a plane). On a minibatch where each image has an
    angle of its own. If the first layer is a convolution, or a norm acts on the input. It is a law
    of the velocity and no conserved function of the weights; for special losses there are such
    functions too (squared error of a linear classifier keeps the direction of `W`).

Finite group, orthogonal `P_g`, such as flips, quarter turns, shifts around a ring; mean loss over
the orbit of the data:

    grad L(W P_g) = grad L(W) P_g

Statement: there is no generator and no momentum; the gradient is equivariant, and `W = W P_g` stays
    so if it once is.
Proof: L(W P_g) = L(W) because P_g permutes the orbit;
    differentiate by W in direction D: <grad L(W P_g), D P_g> = <grad L(W), D>;
    P_g is orthogonal, so grad L(W P_g) P_g^T = grad L(W).
Fails: if a part of the group is left out, so that what is left is no group; for the same layers as
    above.

References:
    Gluch and Urbanke 2021, arXiv 2104.05508 (data symmetry, rotation); Galley et al. 2026, arXiv
    2606.10913 (no more integrals for analytic losses that are not polynomials, some for squared
    error).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from zoo.params import Params, mapped, norms


def rotation_generator(size: int, plane: tuple[int, int] = (0, 1)) -> Float[Tensor, "d d"]:
    """The generator of rotations in the plane of two entries of the input.

    Args:
        size: Number of entries `d`.
        plane: The two entries; the first turns towards the second.

    Returns:
        `A`, antisymmetric, float64; `exp(2 pi A)` is the identity.

    >>> rotation_generator(2).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    generator = torch.zeros(size, size, dtype=torch.float64)
    generator[plane[1], plane[0]], generator[plane[0], plane[1]] = 1, -1
    return generator


def translation_generator(shape: Sequence[int], axis: int) -> Float[Tensor, "d d"]:
    """The generator of shifts of a periodic image along one axis, by its Fourier series.

    Args:
        shape: Shape of an input.
        axis: The axis, of odd length `n`.

    Returns:
        `A` on flattened inputs, antisymmetric, float64; `exp(2 pi k / n A)` is `torch.roll` by `k`
        pixels.

    Raises:
        ValueError: If the length is even: no real shift by half a pixel exists of an image that
            alternates in sign.
    """
    length = shape[axis]
    if length % 2 == 0:
        raise ValueError(
            f"translation generator: expected an axis of odd length, "
            f"got {length} in shape {tuple(shape)}"
        )
    eye = partial(torch.eye, dtype=torch.float64)
    places = torch.arange(length, dtype=torch.float64)
    offset, frequencies = places[:, None] - places, places[1 : length // 2 + 1]
    # d/dt of sum over k of cos(k (2 pi offset / n - t)), the Dirichlet kernel
    waves = frequencies * torch.sin(2 * math.pi / length * offset[..., None] * frequencies)
    along = 2 / length * waves.sum(-1)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis:][1:])
    return torch.kron(torch.kron(eye(before), along), eye(after))


def one_parameter_orbit(generator: Float[Tensor, "d d"], count: int) -> Float[Tensor, "G d d"]:
    """Evenly spaced elements `exp(2 pi g / count A)` of a one-parameter group, the identity first.

    Args:
        generator: `A`, antisymmetric, with `exp(2 pi A) = 1`.
        count: How many.

    Returns:
        Orthogonal matrices.
    """
    angles = (
        2 * math.pi / count * torch.arange(count, dtype=generator.dtype, device=generator.device)
    )
    return torch.linalg.matrix_exp(angles[:, None, None] * generator)


def matrices(
    shape: Sequence[int], maps: Sequence[Callable[[Tensor], Tensor]]
) -> Float[Tensor, "G d d"]:
    """The matrices of linear maps of images, such as `lambda x: x.flip(-1)`.

    Args:
        shape: Shape of an input, of `d` entries.
        maps: Each from `[X, *shape]` to the same shape; with the identity, if the orbit is to have
            it.

    Returns:
        Matrices on flattened inputs, float64.

    >>> matrices((2,), [lambda x: x.flip(-1)]).tolist()
    [[[0.0, 1.0], [1.0, 0.0]]]
    """
    size = math.prod(shape)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return torch.stack([move(basis).reshape(size, size).T for move in maps])


def orbit(x: Float[Tensor, "X ..."], elements: Float[Tensor, "G d d"]) -> Float[Tensor, "G X ..."]:
    """Every image moved by every element.

    Args:
        x: Inputs `[X, *input_shape]`.
        elements: Matrices on flattened inputs.

    Returns:
        The inputs moved, `[G, X, *input_shape]`.
    """
    return torch.einsum("gij,xj->gxi", elements.to(x), x.flatten(1)).unflatten(2, x.shape[1:])


def orbit_gradient(
    apply: Callable[[Params, Tensor], Tensor],
    params: Mapping[str, Tensor],
    batch: tuple[Float[Tensor, "X ..."], Tensor],
    elements: Float[Tensor, "G d d"],
    weight: str,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Float[Tensor, "N h d"]:
    """The gradient by the first layer of the loss, averaged over the orbit of the data.

    Args:
        apply: The function of one network.
        params: Tensors `[N, *shape]`.
        batch: Inputs `x` and targets `y`, the same for all networks; a target goes with an image
            wherever it is moved.
        elements: Matrices of the group.
        weight: Name of the first layer's weight, `[h, d]` on flattened inputs.
        loss: `loss(outputs, y) -> scalar`, the mean cross-entropy if not given.

    Returns:
        The gradient of each network.
    """
    x, y = batch
    turned = orbit(x, elements)

    def mean_loss(first: Tensor, network: Params) -> Tensor:
        losses = vmap(lambda images: loss(apply({**network, weight: first}, images), y))(turned)
        return losses.mean()

    networks = mapped(Tensor.detach, params)
    return vmap(grad(mean_loss))(networks[weight], networks)


def angular_momentum(
    velocity: Float[Tensor, "N h d"],
    weight: Float[Tensor, "N h d"],
    generator: Float[Tensor, "d d"],
) -> Float[Tensor, " N"]:
    """The angular momentum `<velocity, W A>` of the first layer, 0 over a full orbit.

    Args:
        velocity: Gradient, or velocity, of the first layer's weight.
        weight: The weight `W`.
        generator: `A`.

    Returns:
        The momentum of each network; statement, proof and failure are on top of this file.
    """
    return (velocity * (weight @ generator.to(weight))).flatten(1).sum(1)


def angular_momentum_residual(
    velocity: Float[Tensor, "N h d"],
    weight: Float[Tensor, "N h d"],
    generator: Float[Tensor, "d d"],
) -> Float[Tensor, " N"]:
    """The cosine of the angle between velocity and rotation.

    residual = |<velocity, W A>| / (|velocity| |W A|), and 0 for 0 / 0

    Args:
        velocity: Gradient, or velocity, of the first layer's weight.
        weight: The weight `W`.
        generator: `A`.

    Returns:
        The residual of each network, between 0 and 1; statement, proof and failure are on top of
        this file.

    References:
        Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    size = norms(velocity) * norms(weight @ generator.to(weight))
    return angular_momentum(velocity, weight, generator).abs() / torch.where(size > 0, size, 1)


def equivariance_residual(
    apply: Callable[[Params, Tensor], Tensor],
    params: Mapping[str, Tensor],
    batch: tuple[Float[Tensor, "X ..."], Tensor],
    elements: Float[Tensor, "G d d"],
    weight: str,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Float[Tensor, "N G"]:
    """How far the gradient, averaged over a set of maps, is from being equivariant to each of them.

    residual_g = |grad L(W P_g) - grad L(W) P_g| / |grad L(W)|

    Args:
        apply: The function of one network.
        params: Tensors `[N, *shape]`.
        batch: Inputs `x` and targets `y`.
        elements: Orthogonal matrices `P_g`.
        weight: Name of the first layer's weight, `[h, d]` on flattened inputs.
        loss: `loss(outputs, y) -> scalar`, the mean cross-entropy if not given.

    Returns:
        The residual of each network and element, 0 if the elements are a whole group; statement,
        proof and failure are on top of this file.

    References:
        Gluch and Urbanke 2021, arXiv 2104.05508.
    """
    gradient = orbit_gradient(apply, params, batch, elements, weight, loss)
    residuals = []
    for element in elements.to(gradient):
        turned = {**params, weight: params[weight] @ element}
        moved = orbit_gradient(apply, turned, batch, elements, weight, loss)
        residuals.append(norms(moved - gradient @ element) / norms(gradient))
    return torch.stack(residuals, dim=1)
