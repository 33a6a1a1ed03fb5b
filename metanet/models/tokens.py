"""`tokens`: a transformer over the rows of the tensors."""

from collections.abc import Mapping
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.contract import InputSpec, Options, Training
from metanet.graphs.topology import MAX_SIZE, ParameterGraph, node_features, on_cpu, parameter_graph
from metanet.inputs.normalize import Normalized, ParamsNorm
from metanet.layers.head import Head
from zoo.options import Depth, Share, Width
from zoo.params import Params


class TokenTransformer(Normalized):
    """A transformer over tokens: each holds what a neuron is written by, or a piece of it.

    The mean over tokens is read. Tokens carry three position embeddings: node set, neuron, piece.
    It knows every neuron by its place, so it is not invariant.
    Fixed entries and padding read as zero.

    References:
        Schuerholt et al. 2024, arXiv 2406.09997 ("SANE": tokens, positions, encoder; here without a
        decoder, trained by the target alone).
    """

    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"token_size": 289, "width": 1024, "layers": 8, "heads": 8}
    }

    def __init__(
        self,
        spec: InputSpec,
        *,
        token_size: Width = 96,
        width: Width = 48,
        layers: Depth = 2,
        heads: Width = 4,
        dropout: Share = 0.1,
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            token_size: Entries of a token.
            width: Channels of a token.
            layers: Blocks of attention and perceptron.
            heads: Of attention, a divisor of `width`.
            dropout: Share of channels set to zero after each attention and perceptron, at each
                training step.

        Raises:
            ValueError: If `heads` does not divide `width`.
        """
        super().__init__()
        if width % heads:
            raise ValueError(
                f"tokens: expected heads a divisor of width, got {heads} heads and width {width}"
            )
        # Wide transformers need smaller steps: a tenth over the width is 1e-4 for the published
        # one, as there.
        self.recommended = Training(
            epochs=30, batch_size=32, lr=min(1e-3, 0.1 / width), weight_decay=0.1, patience=8
        )
        self.norm = ParamsNorm(spec)
        self.graph, self.token_size = parameter_graph(spec.space), token_size
        places = on_cpu(positions, self.graph, token_size)
        self.register_buffer("places", places, persistent=False)
        self.embed = nn.Linear(token_size, width)
        self.position = nn.ParameterList(
            0.3 * torch.randn(int(ids.max()) + 1, width) for ids in places
        )
        self.blocks = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.readout = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), Head(2 * width, spec.num_outputs)
        )

    def forward(self, features: Params) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        x = self.embed(tokenize(self.graph, self.norm(features), self.token_size))
        for table, ids in zip(self.position, self.get_buffer("places"), strict=True):
            x = x + table[ids]
        for block in self.blocks:
            x = block(x)
        return self.readout(self.last_norm(x).mean(1))


class EncoderLayer(nn.Module):
    """Attention and a perceptron, each after its norm and added to what comes in."""

    def __init__(self, width: int, heads: int, dropout: float):
        """Build.

        Args:
            width: Channels C.
            heads: Of attention.
            dropout: Share of added channels set to zero in training.
        """
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """New tokens."""
        query, key, value = (
            self.project(self.attention_norm(x))
            .unflatten(-1, (3, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.merge(attended))
        return x + self.dropout(self.perceptron(self.norm(x)))


def tokenize(graph: ParameterGraph, params: Params, token_size: int) -> Float[Tensor, "B T _"]:
    """Tokens of B networks, node set after node set, neuron after neuron.

    What a neuron is written by, part after part, then its vectors, is cut into tokens; the last one
    is filled up with zeros.

    Args:
        graph: Topology.
        params: Tensors `[B, *shape]`.
        token_size: Entries of a token.

    Returns:
        The tokens.
    """
    vectors, tokens = node_features(graph, params), []
    for node_set, parts in _written(graph):
        entries = [part.view(params).flatten(2) for part in parts]
        row = torch.cat([*entries, vectors[:, node_set.nodes, : node_set.channels]], dim=-1)
        if row.shape[-1]:
            padded = F.pad(row, (0, -row.shape[-1] % token_size))
            tokens.append(padded.reshape(len(row), -1, token_size))
    return torch.cat(tokens, dim=1)


def positions(graph: ParameterGraph, token_size: int) -> Int64[Tensor, "3 T"]:
    """Node set, neuron and piece of each token, in the order of `tokenize`.

    Node sets without tokens are not counted.

    Args:
        graph: Topology.
        token_size: Entries of a token.

    Returns:
        The three numbers, each from 0.

    Raises:
        ValueError: If there are too many tokens for memory.
    """
    pieces = []  # number of neurons, and tokens of each
    for node_set, parts in _written(graph):
        length = node_set.channels + sum(prod(part.shape[1:]) for part in parts)
        if length:
            pieces.append((node_set.size, -(-length // token_size)))
    if 3 * (count := sum(map(prod, pieces))) > MAX_SIZE:
        raise ValueError(f"tokens: {count} tokens a network; expected at most {MAX_SIZE // 3}")
    ids = [
        torch.cartesian_prod(torch.tensor([place]), *map(torch.arange, sizes))
        for place, sizes in enumerate(pieces)
    ]
    return torch.cat(ids).T.contiguous()


def _written(graph: ParameterGraph) -> list[tuple]:
    """Each node set and the parts that write it."""
    return [
        (node_set, [part for part in graph.tensors if part.written == at])
        for at, node_set in enumerate(graph.node_sets)
    ]
