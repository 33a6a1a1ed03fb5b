"""`deepsets`: a network as the set of its scalars."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, Training
from metanet.inputs.normalize import FlatNormalized
from metanet.layers.head import Head
from metanet.layers.pooled_relu import mean_relu
from zoo.options import Width


class ScalarDeepSets(FlatNormalized):
    """Every scalar through linear, LayerNorm, ReLU; the mean; a perceptron with LayerNorm.

        out = rho( mean_i relu(LayerNorm(w x_i + b)) )

    Invariant to every permutation of the entries within a tensor, neuron permutations among them.
    The LayerNorm of ``w x + b``, a function of one scalar, is computed in closed form: with ``a = w
    - mean(w)``, ``d = b - mean(b)`` and ``r = 1 / sqrt(mean((a x + d)^2) + eps)`` it is ``gain * (a
    x r + d r) + shift``, linear in the pair ``(x r, r)``.

    References:
        Zaheer et al. 2017, arXiv 1703.06114, equation 4; Lim et al. 2024, arXiv 2405.20231, Table 3
        ("DeepSets").
    """

    recommended = Training(epochs=30, batch_size=64, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"

    def __init__(self, spec: InputSpec, *, width: Width = 64):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Neurons of each hidden layer.
        """
        super().__init__(spec)
        self.lift, self.lift_norm = nn.Linear(1, width), nn.LayerNorm(width)
        hidden = [
            layer
            for _ in range(2)
            for layer in (nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        ]
        self.readout = nn.Sequential(*hidden, Head(width, spec.num_outputs))

    def pool(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B width"]:
        """Lift every scalar to `width` channels and take the mean over scalars."""
        w, b = self.lift.weight[:, 0], self.lift.bias
        a, d = w - w.mean(), b - b.mean()
        square = ((a * a).mean() * x + 2 * (a * d).mean()) * x + (d * d).mean()
        r = (square + self.lift_norm.eps).rsqrt()
        gain = self.lift_norm.weight
        return mean_relu(
            torch.stack([x * r, r], dim=-1), torch.stack([a * gain, d * gain]), self.lift_norm.bias
        )

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        return self.readout(self.pool(self.norm(features)))
