"""`dmc`: a one-dimensional convolutional network along the flat vector ("deep meta-classifier")."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, Training
from metanet.inputs.normalize import FlatNormalized
from metanet.layers.head import Head
from zoo.options import Width

NUM_LAYERS = 10
KERNEL = 5


class DMC(FlatNormalized):
    """Ten convolutions of kernel 5, a mean over positions, a small perceptron.

    No symmetry of the networks is built in.

    Channels double from width / 32 to width over six layers and stay; each layer is convolution,
    ReLU, BatchNorm; the first six and then every second one halve the length by max pooling. Then
    width -> width with LayerNorm and ReLU at every position, the mean, and width -> width -> 1.
    Borders are padded with zeros, so that networks of any size pass.

    References:
        Eilertsen et al. 2020, arXiv 2002.05688 ("DMC"); Lim et al. 2024, arXiv 2405.20231, Table 3
        (these sizes).
    """

    recommended = Training(epochs=24, batch_size=64, lr=3e-3, weight_decay=0.1, patience=6)

    def __init__(self, spec: InputSpec, *, width: Width = 64):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of the last convolutions, a multiple of 32.

        Raises:
            ValueError: If the width is not a positive multiple of 32.
        """
        super().__init__(spec)
        if width < 32 or width % 32:
            raise ValueError(f"width of dmc: expected a positive multiple of 32, got {width}")
        channels = [1] + [width // 2 ** max(5 - layer, 0) for layer in range(NUM_LAYERS)]
        pooled = [layer < 6 or layer % 2 == 1 for layer in range(NUM_LAYERS)]
        stages = [
            _stage(*ends, pool) for ends, pool in zip(pairwise(channels), pooled, strict=True)
        ]
        self.stages = nn.Sequential(*stages).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.position = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        self.readout = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), Head(width, spec.num_outputs)
        )

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        image = self.norm(features)[:, None, None, :].contiguous(memory_format=torch.channels_last)
        sequence = self.stages(image).squeeze(2).transpose(1, 2)
        return self.readout(self.position(sequence).mean(1))


def _stage(inputs: int, outputs: int, pool: bool) -> nn.Sequential:
    # Images of height 1, channels last: 2 to 7 times faster on a CPU than Conv1d at 1 to 4
    # channels.
    convolution = nn.Conv2d(inputs, outputs, (1, KERNEL), padding=(0, KERNEL // 2))
    layers = [convolution, nn.ReLU(), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.MaxPool2d((1, 2), ceil_mode=True)] if pool else []))
