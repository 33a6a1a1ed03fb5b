"""Neural tangent kernels: of finite networks, of infinite width, and what they say of training."""

from zoo.dynamics.finite_width import tangent_kernel, tangent_kernel_trace, trained_masks
from zoo.dynamics.infinite_width import relu_tangent_kernel
from zoo.dynamics.linearization import first_order_change, kernel_drift, prediction_error

__all__ = [
    "first_order_change",
    "kernel_drift",
    "prediction_error",
    "relu_tangent_kernel",
    "tangent_kernel",
    "tangent_kernel_trace",
    "trained_masks",
]
