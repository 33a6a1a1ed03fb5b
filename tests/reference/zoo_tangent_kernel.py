"""Tangent kernels one derivative at a time, and the moments of one neuron's share by quadrature."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor


def gradient(
    apply: Callable,
    params: Mapping[str, Tensor],
    image: Tensor,
    output: int,
    free: Mapping[str, Tensor],
) -> Tensor:
    """The derivatives of one output at one image by all trained entries of one network."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    value = apply(leaves, image[None])[0, output]
    parts = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    masks = [
        free.get(name, torch.ones(tensor.shape, dtype=torch.bool))
        for name, tensor in leaves.items()
    ]
    return torch.cat([part[mask] for part, mask in zip(parts, masks, strict=True)])


def tangent_kernel(
    apply: Callable,
    params: Mapping[str, Tensor],
    x: Tensor,
    other: Tensor,
    free: Mapping[str, Tensor],
) -> Tensor:
    """`[X, K, Y, K]` of one network."""
    outputs = range(apply(params, x[:1]).shape[1])
    rows, columns = (
        [[gradient(apply, params, image, k, free) for k in outputs] for image in images]
        for images in (x, other)
    )
    return torch.tensor(
        [
            [[[float(left @ right) for right in there] for there in columns] for left in here]
            for here in rows
        ],
        dtype=torch.float64,
    )


def relu_moments(x: np.ndarray, other: np.ndarray, power: int, angles: int = 20_000) -> float:
    """The mean of `Z^power` by quadrature.

    `Z = relu(u) relu(v) + a^2 1[u > 0] 1[v > 0] x . x'`, with `u = w . x` and `v = w . x'`.

    In the plane of both inputs `w` has a uniform angle and a squared length of mean 2 that is
    exponential; `a` is normal.
    """
    cosine = np.clip(x @ other / (np.linalg.norm(x) * np.linalg.norm(other)), -1, 1)
    turn = 2 * np.pi * (np.arange(angles) + 0.5) / angles
    u, v = np.cos(turn), np.cos(turn - np.arccos(cosine))
    on = (u > 0) & (v > 0)
    lengths, length_weights = np.polynomial.laguerre.laggauss(12)
    normals, normal_weights = np.polynomial.hermite_e.hermegauss(12)
    total = 0.0
    for length, length_weight in zip(2 * lengths, length_weights, strict=True):
        for a, normal_weight in zip(normals, normal_weights / np.sqrt(2 * np.pi), strict=True):
            share = length * u * v * np.linalg.norm(x) * np.linalg.norm(other) + a**2 * (x @ other)
            total += length_weight * normal_weight * float(np.mean(on * share**power))
    return total
