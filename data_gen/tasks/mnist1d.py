"""MNIST-1D: one-dimensional templates of digits, padded, stretched, shifted and noisy."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

# Strokes of the ten digits, read from top to bottom (Greydanus and Kobak, figure 1).
_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_PADDING = (36, 60)
_SCALE, _MAX_SHIFT, _SHEAR = 0.4, 48, 0.75
_CORRELATED_NOISE, _NOISE_WIDTH, _IID_NOISE = 0.25, 2.0, 0.02
_LENGTH = 40


def make_mnist1d(
    count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "X 1 L"], Int64[Tensor, " X"]]:
    """Draw signals and labels.

    Args:
        count: Number of signals `X`; classes take turns.
        generator: Source of randomness.

    Returns:
        Signals of length 40, and their classes.

    References:
        Greydanus and Kobak 2024, "Scaling down deep learning with MNIST-1D", arXiv 2011.14439,
        section 2.
    """
    templates = np.array(_TEMPLATES)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    templates -= templates[:, :1]
    # One seed is drawn here, so that the signals are a function of the caller's generator alone.
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    labels = np.arange(count) % 10
    order = rng.permutation(count)
    signals = np.stack([_transform(templates[label] / 6, rng) for label in labels])
    return torch.from_numpy(signals[order, None].astype(np.float32)), torch.from_numpy(
        labels[order]
    )


def _transform(
    template: Float[np.ndarray, " D"], rng: np.random.Generator
) -> Float[np.ndarray, " L"]:
    padding = int(rng.integers(*_PADDING))
    signal = np.concatenate([template, np.zeros(padding)])
    signal = _resample(signal, len(template) + _PADDING[1])
    signal = signal * (1 + _SCALE * (rng.random() - 0.5))
    signal = np.roll(signal, int(rng.integers(_MAX_SHIFT)))
    noise = gaussian_filter1d(rng.standard_normal(len(signal)), _NOISE_WIDTH) * _CORRELATED_NOISE
    signal = np.where(signal != 0, signal, noise) + _IID_NOISE * rng.standard_normal(len(signal))
    signal = signal - _SHEAR * (rng.random() - 0.5) * np.linspace(-0.5, 0.5, len(signal))
    return _resample(signal, _LENGTH)


def _resample(signal: Float[np.ndarray, " D"], length: int) -> Float[np.ndarray, " L"]:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)
