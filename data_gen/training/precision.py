"""Arithmetic of the training step: float32 throughout, or faster and coarser products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["tf32", "bfloat16"]


@contextmanager
def products_in(precision: Precision | None, device: torch.device) -> Iterator[None]:
    """Run a block with matrix products and convolutions in a given arithmetic.

    Parameters and optimizers stay float32.

    Args:
        precision: None for float32, in which convolutions on a GPU are float32 too (PyTorch's own
            default is TF32); `"tf32"` for TensorFloat-32 products on a GPU, which changes nothing
            on a CPU; `"bfloat16"` for autocast.
        device: Where the block computes.

    Yields:
        Nothing.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
        ):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
