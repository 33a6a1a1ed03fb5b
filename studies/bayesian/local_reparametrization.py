"""Local reparametrization of an `mlp`: pre-activations are sampled, not weights, each image with noise of its own."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studies.bayesian.posterior import Posterior, spread, support_of
from zoo.architectures.base import Architecture
from zoo.params import unflatten


def is_mlp(architecture: Architecture) -> bool:
    """Whether the tensors are those of the architecture `mlp`: linear layers in a row, maybe with norms.

    Args:
        architecture: Any architecture.

    Returns:
        Whether `sample_outputs` can run it.
    """
    space = architecture.space
    return all(
        name.split(".")[0] in ("layers", "norms") and len(shape) <= 2
        for name, shape in space.shapes.items()
    )


def sample_outputs(
    architecture: Architecture,
    posterior: Posterior,
    x: Float[Tensor, "X ..."],
    noise: Float[Tensor, "X E"],
) -> Float[Tensor, "X K"]:
    """Logits of one network, each image with weights of its own drawn from the posterior, none of which is ever made.

    A layer with inputs `h` has, for neuron `i` and standard normal `e`, `z`,

        a_i = mean_i h + bias_i + sum_k z_k (V_k h)_i + sqrt(sum_j std_ij^2 h_j^2 + bias_std_i^2)
        e_i

    which is distributed as `W h + b`, jointly over the neurons. Gradients have a lower variance
    than those of one draw of the weights for the whole batch. Scales and shifts of norms are
    sampled likewise, one draw an image.

    Args:
        architecture: An mlp, `is_mlp`; its masks, fixed entries and non-linearities are respected.
        posterior: Of this network.
        x: Inputs.
        noise: Standard normal, `output_noise_size` numbers an image.

    Returns:
        Logits.

    References:
        Kingma, Salimans and Welling 2015, arXiv 1506.02557, section 2.3; Tomczak, Swaroop and
        Turner 2020, "Efficient low rank Gaussian variational inference for neural networks",
        NeurIPS, section 3.
    """
    support = support_of(architecture)
    mean, std, factor = (unflatten(support.space, part) for part in spread(support, posterior))
    rank, h, start = len(posterior.factor), x.flatten(1), 0
    depth = sum(name.startswith("layers.") for name in mean) // 2
    for i in range(depth):
        weight, bias = f"layers.{i}.weight", f"layers.{i}.bias"
        variance = F.linear(h**2, std[weight] ** 2, std[bias] ** 2)
        a = F.linear(h, mean[weight], mean[bias])
        width = a.shape[1]
        # an input of zeros and a narrow posterior must not meet the infinite slope of the root at 0
        a = a + (variance + torch.finfo(a.dtype).tiny).sqrt() * noise[:, start : start + width]
        start += width
        if rank:
            z = noise[:, start : start + rank]
            spanned = (z[:, :, None] * h[:, None, :]).flatten(1)
            a = a + spanned @ factor[weight].transpose(1, 2).flatten(0, 1)
            start += rank
        if f"norms.{i}.weight" in mean:
            scale, shift = (
                mean[name] + std[name] * part
                for name, part in zip(
                    (f"norms.{i}.weight", f"norms.{i}.bias"),
                    noise[:, start : start + 2 * width].chunk(2, 1),
                    strict=True,
                )
            )
            a = F.layer_norm(a, (width,)) * scale + shift
            start += 2 * width
        h = a if i == depth - 1 else architecture.activate(f"h{i + 1}", a)
    return h


def output_noise_size(architecture: Architecture, rank: int) -> int:
    """Numbers that `sample_outputs` uses up for one image.

    Args:
        architecture: An mlp.
        rank: Columns of `V`.

    Returns:
        `E`.
    """
    shapes = architecture.space.shapes
    vectors = sum(shape[0] for shape in shapes.values() if len(shape) == 1)
    return vectors + rank * sum(len(shape) == 2 for shape in shapes.values())
