"""Neural tangent kernels: of finite networks, of infinite width, and what they say of training."""

from zoo.ntk.dynamics import first_order_change, kernel_drift, prediction_error
from zoo.ntk.infinite_width import relu_tangent_kernel
from zoo.ntk.kernel import tangent_kernel, tangent_kernel_trace, trained_masks

__all__ = [
    "first_order_change",
    "kernel_drift",
    "prediction_error",
    "relu_tangent_kernel",
    "tangent_kernel",
    "tangent_kernel_trace",
    "trained_masks",
]
