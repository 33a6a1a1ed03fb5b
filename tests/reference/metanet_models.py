"""The metanets of Lim et al. (2024, Table 3) as their text says, from our weights."""

import torch
from torch import nn


def flat_mlp(metanet, x):
    hidden = torch.stack(
        [torch.relu(metanet.hidden.weight @ row + metanet.hidden.bias) for row in x]
    )
    return metanet.readout(metanet.hidden_norm(hidden))


def deepsets(metanet, x):
    """Every scalar lifted, normalized by a plain LayerNorm, rectified; then the mean."""
    lifted = torch.relu(metanet.lift_norm(metanet.lift(x[..., None])))
    return metanet.readout(lifted.mean(1))


def dmc(metanet, x):
    """Ten one-dimensional convolutions."""
    sequence = x[:, None]
    for number, stage in enumerate(metanet.stages):
        weight, bias = stage[0].weight[:, :, 0], stage[0].bias
        norm = stage[2]
        sequence = torch.relu(nn.functional.conv1d(sequence, weight, bias, padding=2))
        sequence = nn.functional.batch_norm(
            sequence, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        if number < 6 or number in (7, 9):
            sequence = nn.functional.max_pool1d(sequence, 2, ceil_mode=True)
    return metanet.readout(metanet.position(sequence.transpose(1, 2)).mean(1))
