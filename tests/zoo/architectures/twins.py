"""What tests of architectures start from: draws, and the comparison with a plain module."""

import torch

from zoo.architectures import Architecture

INPUT, CLASSES = (1, 6, 6), 3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(params):
    return {name: tensor.double() for name, tensor in params.items()}


def inputs(seed: int, count: int = 7, shape=INPUT) -> torch.Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator(seed))


def assert_equal_up_to_rounding(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Fixed entries make some networks large, and rounding errors with them."""
    assert (logits - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))


def spread(params, seed: int):
    """Params that are nowhere special: norms neither 1 nor 0, variances positive."""
    source = generator(seed)
    moved = {
        name: tensor.double() + 0.3 * torch.randn(tensor.shape, generator=source)
        for name, tensor in params.items()
    }
    return {
        name: tensor.abs() + 0.1 if name.endswith("running_var") else tensor
        for name, tensor in moved.items()
    }


def assert_equals_module(
    architecture: Architecture, module: torch.nn.Module, seed: int = 0, shape=(2, 9, 7)
) -> None:
    params = spread(architecture.init(generator(seed)), seed)
    module = module.double().eval()
    assert set(module.state_dict()) == set(params)
    module.load_state_dict(
        params, strict=False
    )  # the names have just been compared; batch norm adds a counter of its own
    x = inputs(seed, shape=shape)
    assert_equal_up_to_rounding(architecture.apply(params, x), module(x).detach())
