"""Local reparametrization of an `mlp`: each image samples pre-activations, not weights."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studies.bayesian.posterior import Posterior, spread, support_of
from zoo.architectures.base import Architecture
from zoo.params import Params, unflatten


def is_mlp(architecture: Architecture) -> bool:
    """Whether the tensors are those of an `mlp`: linear layers in a row, maybe with norms.

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
    """Logits of one network, as if each image drew weights of its own from the posterior.

    A layer with inputs `h` has, for neuron `i` and standard normal `e`, `z`,

        a_i = mean_i h + bias_i + sum_k z_k (V_k h)_i
            + sqrt(sum_j std_ij^2 h_j^2 + bias_std_i^2) e_i

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
    layers = _Layers(mean, std, factor, len(posterior.factor), noise)
    depth = sum(name.startswith("layers.") for name in mean) // 2
    h = x.flatten(1)
    for i in range(depth):
        a = layers.linear(i, h)
        if f"norms.{i}.weight" in mean:
            a = layers.norm(i, a)
        h = a if i == depth - 1 else architecture.activate(f"h{i + 1}", a)
    return h


class _Layers:
    """The layers of one network, sampled image by image; each takes the noise that it needs."""

    def __init__(self, mean: Params, std: Params, factor: Params, rank: int, noise: Tensor):
        self.mean, self.std, self.factor = mean, std, factor
        self.rank, self.noise = rank, noise
        self.num_used = 0

    def draw(self, count: int) -> Tensor:
        """The next numbers of each image, `[X, count]`."""
        start = self.num_used
        self.num_used += count
        return self.noise[:, start : self.num_used]

    def linear(self, i: int, h: Tensor) -> Tensor:
        """Pre-activations of layer i."""
        weight, bias = f"layers.{i}.weight", f"layers.{i}.bias"
        variance = F.linear(h**2, self.std[weight] ** 2, self.std[bias] ** 2)
        a = F.linear(h, self.mean[weight], self.mean[bias])
        # an input of zeros and a narrow posterior must not meet the infinite slope of the root at 0
        a = a + (variance + torch.finfo(a.dtype).tiny).sqrt() * self.draw(a.shape[1])
        if self.rank:
            z = self.draw(self.rank)
            spanned = (z[:, :, None] * h[:, None, :]).flatten(1)
            a = a + spanned @ self.factor[weight].transpose(1, 2).flatten(0, 1)
        return a

    def norm(self, i: int, a: Tensor) -> Tensor:
        """Layer norm i, scale and shift sampled."""
        weight, bias = f"norms.{i}.weight", f"norms.{i}.bias"
        of_scale, of_shift = self.draw(2 * a.shape[1]).chunk(2, 1)
        scale = self.mean[weight] + self.std[weight] * of_scale
        shift = self.mean[bias] + self.std[bias] * of_shift
        return F.layer_norm(a, (a.shape[1],)) * scale + shift


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
