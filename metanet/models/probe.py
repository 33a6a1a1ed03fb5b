"""`probe`: learned inputs, run through the network itself; a perceptron reads its answers."""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from metanet.contract import InputSpec, MetanetModule, Options, Training
from metanet.inputs.normalize import joined
from metanet.layers.head import Head
from zoo.options import Depth, Share, Width

NETWORKS_AT_ONCE = {"cpu": 8, "cuda": 256}
"""On a CPU, activations of more networks leave the cache: 64 at once took three times as long."""

HUGE = 1e15
"""Largest logit that is told apart from a larger one; those of diverged networks may overflow."""


class Probe(MetanetModule):
    """A network is what it answers to X probe inputs, which are learned with the rest.

    It is invariant to all declared symmetries.

        probes = (codes @ first^T) @ second^T + bias                  [X, *input_shape]
        answers = -log softmax(logits of the network at probes)       [B, X, K]
        z = log(1 + answers / scale)                                  -> perceptron -> [B]

    The linear generator, shared by all probes, learns better probes than free pixels are. Probes
    are in the units of the networks' inputs. The logarithm keeps networks with huge logits in
    range. The one output of a network with K = 1 is read as the logit of two classes. Fixed entries
    are read where the function has them, as constants of it.

    References:
        Kahana et al. 2024, arXiv 2410.10811, section 4 ("ProbeGen"). Theirs reads logits, and its
        generator of images is made of transposed convolutions; this one is dense for inputs of
        every shape, as theirs of coordinates is.
    """

    recommended = Training(epochs=60, batch_size=64, lr=1e-2, weight_decay=0.01, patience=15)
    invariant = "symmetries"
    runs_networks = True
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"num_probes": 128, "latent": 32, "width": 256, "layers": 5, "dropout": 0.0}
    }
    scale: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        num_probes: Width = 32,
        latent: Width = 32,
        width: Width = 128,
        layers: Depth = 2,
        dropout: Share = 0.2,
    ):
        """Build.

        Args:
            spec: Weight space, and what the networks compute.
            num_probes: Probe inputs X.
            latent: Length of the code of a probe.
            width: Neurons of each hidden layer of the perceptron.
            layers: Hidden layers of the perceptron.
            dropout: Share of hidden neurons set to zero at each training step.

        Raises:
            ValueError: If it is not known what the networks compute.
        """
        super().__init__()
        if spec.architecture is None:
            raise ValueError(
                "metanet 'probe' runs networks on inputs: "
                "expected a population whose `architecture` says what they compute, "
                "as those of zoos do, got none"
            )
        self.architecture = spec.architecture
        self.codes = nn.Parameter(torch.randn(num_probes, latent))
        self.generator = _generator(latent, math.prod(self.architecture.input_shape))
        answers = num_probes * max(self.architecture.num_outputs, 2)
        sizes = [answers, *[width] * layers]
        hidden = [_hidden(read, written, dropout) for read, written in pairwise(sizes)]
        self.perceptron = nn.Sequential(*hidden, Head(width, spec.num_outputs))
        self.register_buffer("scale", torch.ones(()))

    def probes(self) -> Float[Tensor, "X *shape"]:
        """The probe inputs, as learned so far."""
        return self.generator(self.codes).reshape(-1, *self.architecture.input_shape)

    def answers(self, features: Mapping[str, Tensor]) -> Float[Tensor, "B X K"]:
        """What every network says about every probe: -log of the probability of each class."""
        probes = self.probes()
        if probes.requires_grad:
            # The gradient of a network that overflows is not a number: its batch then moves
            # everything but the probes.
            probes.register_hook(lambda gradient: gradient.nan_to_num(0, 0, 0))
        architecture = self.architecture.to(probes.device, probes.dtype)
        run = vmap(
            architecture.apply,
            in_dims=(0, None),
            chunk_size=NETWORKS_AT_ONCE.get(probes.device.type),
        )
        logits = run(dict(features), probes).nan_to_num(0, HUGE, -HUGE).clamp(-HUGE, HUGE)
        if logits.shape[-1] == 1:
            logits = torch.cat([logits, torch.zeros_like(logits)], dim=-1)
        return -logits.log_softmax(-1)

    @torch.no_grad()
    def calibrate(self, pieces: Iterable[Any]) -> None:
        """Fit the scale of answers at the initial probes: the median of the networks' means."""
        typical = joined(self.answers(piece).flatten(1).mean(1) for piece in pieces).median()
        self.scale.copy_(typical.clamp_min(torch.finfo(typical.dtype).tiny))

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        return self.perceptron((self.answers(features) / self.scale).log1p().flatten(1))


def _generator(latent: int, num_inputs: int) -> nn.Sequential:
    """From codes to inputs; at the start, probes are about as large as inputs."""
    first, second = nn.Linear(latent, latent, bias=False), nn.Linear(latent, num_inputs)
    for layer in (first, second):
        nn.init.normal_(layer.weight, std=latent**-0.5)
    return nn.Sequential(first, second)


def _hidden(read: int, written: int, dropout: float) -> nn.Sequential:
    layers = nn.Linear(read, written), nn.ReLU(), nn.LayerNorm(written), nn.Dropout(dropout)
    return nn.Sequential(*layers)
