"""Modules that nobody wrote for this package, each with its symmetry counted by hand.

The counts are permutable groups (of more than one neuron) and parameters that some permutation of
them moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A module, its inputs, and what was counted by hand."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    groups: int
    permuted: int


class Function(nn.Module):
    """A forward function over some modules and parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def draw(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(shape, generator=torch.Generator().manual_seed(0)),)


def mlp():
    return nn.Sequential(
        nn.Linear(5, 8),
        nn.ReLU(),
        nn.Linear(8, 6),
        nn.Tanh(),
        nn.Linear(6, 4),
        nn.GELU(),
        nn.Linear(4, 3),
    )


def cnn():
    return nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 5),
        )
    )


def depthwise():
    return nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(1, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
        ),
        *(nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    )


class Residual(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.short = nn.Identity()
        if stride > 1:
            self.short = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.short(x))


def resnet():
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(
        stem,
        Residual(8, 8, 1),
        Residual(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def densenet():
    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(self.norm_a(a)))
        both = torch.cat([a, b], 1)
        c = F.relu(self.c(self.norm_ab(both)))
        return self.out(torch.cat([both, c], 1).mean((2, 3)))

    convs = {
        "a": nn.Conv2d(3, 6, 3),
        "b": nn.Conv2d(6, 4, 3, padding=1),
        "c": nn.Conv2d(10, 5, 3, padding=1),
    }
    return Function(
        forward, **convs, norm_a=nn.BatchNorm2d(6), norm_ab=nn.BatchNorm2d(10), out=nn.Linear(15, 3)
    )


def squeeze_excite():
    def forward(self, x):
        h = F.relu(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(h.mean((2, 3))))))
        return self.out((h * gate[:, :, None, None]).mean((2, 3)))

    return Function(
        forward,
        conv=nn.Conv2d(3, 8, 3),
        down=nn.Linear(8, 4),
        up=nn.Linear(4, 8),
        out=nn.Linear(8, 3),
    )


def tied_autoencoder():
    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.weight, self.bias)), self.weight.t(), self.back)

    return Function(forward, weight=torch.randn(6, 10), bias=torch.randn(6), back=torch.randn(10))


def attention():
    def forward(self, x):
        h = self.inner(x)
        return self.out(self.attention(h, h, h)[0])

    return Function(
        forward,
        inner=nn.Linear(5, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        out=nn.Linear(8, 3),
    )


def packed_attention():
    """The projection of queries, keys and values is one matrix, taken apart by a reshape (as in
    many vision transformers).
    """

    def forward(self, x):
        x = self.inner(x)
        batch, length, width = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(batch, length, 3, 2, width // 2)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        mixed = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v
        return self.out(x + self.project(mixed.transpose(1, 2).reshape(batch, length, width)))

    parts = {
        "inner": nn.Linear(5, 8),
        "norm": nn.LayerNorm(8),
        "qkv": nn.Linear(8, 24),
        "project": nn.Linear(8, 8),
    }
    return Function(forward, **parts, out=nn.Linear(8, 3))


def encoder_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3))


def gru():
    def forward(self, x):
        h = torch.zeros(len(x), 6)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.out(h)

    return Function(forward, cell=nn.GRUCell(4, 6), out=nn.Linear(6, 3))


def lstm():
    return Function(
        lambda self, x: self.out(self.cells(x)[0][:, -1]),
        cells=nn.LSTM(4, 6, 2, batch_first=True),
        out=nn.Linear(6, 3),
    )


def unet():
    def forward(self, x):
        fine = F.relu(self.fine(x))
        coarse = F.relu(self.coarse(F.max_pool2d(fine, 2)))
        up = F.relu(self.up(coarse))
        return self.out(torch.cat([fine, up], 1))

    convs = {
        "fine": nn.Conv2d(3, 6, 3, padding=1),
        "coarse": nn.Conv2d(6, 8, 3, padding=1),
        "out": nn.Conv2d(11, 3, 1),
    }
    return Function(forward, **convs, up=nn.ConvTranspose2d(8, 5, 2, 2))


def mixer():
    def forward(self, x):
        x = self.inner(x)
        x = x + self.tokens2(F.gelu(self.tokens1(self.norm(x).transpose(1, 2)))).transpose(1, 2)
        return self.out((x + self.channels2(F.relu(self.channels1(x)))).mean(1))

    tokens = {"tokens1": nn.Linear(6, 7), "tokens2": nn.Linear(7, 6)}
    channels = {
        "inner": nn.Linear(5, 8),
        "channels1": nn.Linear(8, 12),
        "channels2": nn.Linear(12, 8),
        "out": nn.Linear(8, 3),
    }
    return Function(forward, norm=nn.LayerNorm(8), **tokens, **channels)


def zero_padded_shortcut():
    """The shortcut that ResNets without convolutions on it have.

    Strides, and zeros for the new channels.
    """

    def forward(self, x):
        h = F.relu(self.first(x))
        return self.out(
            F.relu(self.second(h) + F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))).mean((2, 3))
        )

    return Function(
        forward,
        first=nn.Conv2d(3, 6, 3, padding=1),
        second=nn.Conv2d(6, 10, 3, 2, 1),
        out=nn.Linear(10, 3),
    )


def channel_shuffle():
    def forward(self, x):
        h = F.relu(self.grouped(F.relu(self.first(x))))
        n, channels, height, width = h.shape
        h = h.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(h.shape)
        return self.out(F.relu(self.second(h)).mean((2, 3)))

    return Function(
        *(forward,),
        first=nn.Conv2d(3, 8, 1),
        grouped=nn.Conv2d(8, 8, 3, groups=2),
        second=nn.Conv2d(8, 6, 1),
        out=nn.Linear(6, 3),
    )


def maxout():
    return Function(
        lambda self, x: self.out(self.inner(x).view(-1, 6, 3).amax(-1)),
        inner=nn.Linear(5, 18),
        out=nn.Linear(6, 3),
    )


def low_rank():
    def forward(self, x):
        return self.out(F.relu(F.linear(x, self.weight + self.up @ self.down)))

    return Function(
        forward,
        weight=torch.randn(6, 5),
        up=torch.randn(6, 2),
        down=torch.randn(2, 5),
        out=nn.Linear(6, 3),
    )


def einsum_attention():
    def forward(self, x):
        q, k, v = (torch.einsum("bsd,hdk->bhsk", x, weight) for weight in (self.q, self.k, self.v))
        scores = torch.softmax(torch.einsum("bhsk,bhtk->bhst", q, k), -1)
        return torch.einsum("bhst,bhtk,hkd->bsd", scores, v, self.out)

    heads = {name: torch.randn(2, 5, 3) for name in ("q", "k", "v")}
    return Function(forward, **heads, out=torch.randn(2, 3, 5))


def shared_layer():
    def forward(self, x):
        h = F.relu(self.inner(x))
        return self.out(F.relu(self.again(F.relu(self.again(h)))))

    return Function(forward, inner=nn.Linear(5, 6), again=nn.Linear(6, 6), out=nn.Linear(6, 3))


CASES = {
    "mlp": Case(mlp, draw(2, 5), 3, 5 * 8 + 8 + 8 * 6 + 6 + 6 * 4 + 4 + 4 * 3),
    "cnn": Case(cnn, draw(2, 3, 10, 10), 2, 8 * 27 + 8 + 6 * 72 + 6 + 24 * 5),
    # 8 channels move as 2 norm groups of 4
    "depthwise": Case(
        depthwise, draw(2, 3, 10, 10), 3, 8 * 27 + 8 + 16 + 8 * 9 + 8 + 16 + 6 * 8 + 6 + 6 * 4
    ),
    # stream of 8, block of 8, stream of 12, block of 12; statistics move too
    "resnet": Case(
        *(resnet, draw(2, 3, 8, 8), 4),
        8 * 27
        + 8 * 4
        + 2 * (8 * 72 + 8 * 4)
        + 12 * 72
        + 12 * 4
        + 12 * 108
        + 12 * 4
        + 12 * 8
        + 12 * 4
        + 12 * 5,
    ),
    "densenet": Case(
        densenet,
        draw(2, 3, 8, 8),
        3,
        6 * 27 + 6 + 6 * 4 + 4 * 54 + 4 + 10 * 4 + 5 * 90 + 5 + 15 * 3,
    ),
    "squeeze excite": Case(
        squeeze_excite, draw(2, 3, 8, 8), 2, 8 * 27 + 8 + 8 * 4 + 4 + 4 * 8 + 8 + 8 * 3
    ),
    "tied autoencoder": Case(tied_autoencoder, draw(2, 10), 1, 60 + 6),
    # stream in, heads, query-key, value, stream out
    "attention": Case(attention, draw(2, 4, 5), 5, 5 * 8 + 8 + 8 * 24 + 24 + 64 + 8 + 8 * 3),
    "packed attention": Case(
        packed_attention, draw(2, 4, 5), 4, 5 * 8 + 8 + 16 + 8 * 24 + 24 + 64 + 8 + 8 * 3
    ),
    "encoder layer": Case(
        encoder_layer,
        draw(2, 4, 5),
        5,
        5 * 8 + 8 + 8 * 24 + 24 + 64 + 8 + 16 * 8 + 16 + 8 * 16 + 8 + 4 * 8 + 8 * 3,
    ),
    "gru": Case(gru, draw(2, 3, 4), 1, 18 * 4 + 18 * 6 + 2 * 18 + 6 * 3),
    "lstm": Case(lstm, draw(2, 3, 4), 2, 24 * 4 + 24 * 6 + 2 * 24 + 2 * 24 * 6 + 2 * 24 + 6 * 3),
    "unet": Case(unet, draw(2, 3, 8, 8), 3, 6 * 27 + 6 + 8 * 54 + 8 + 8 * 5 * 4 + 5 + 11 * 3),
    # the 6 tokens keep their order: they are positions of the input
    "mixer": Case(
        mixer,
        draw(2, 6, 5),
        3,
        5 * 8 + 8 + 16 + 6 * 7 + 7 + 7 * 6 + 8 * 12 + 12 + 12 * 8 + 8 + 8 * 3,
    ),
    "zero-padded shortcut": Case(
        zero_padded_shortcut, draw(2, 3, 8, 8), 3, 6 * 27 + 6 + 10 * 54 + 10 + 10 * 3
    ),
    "channel shuffle": Case(
        channel_shuffle, draw(2, 3, 8, 8), 4, 8 * 3 + 8 + 8 * 36 + 8 + 6 * 8 + 6 + 6 * 3
    ),
    "maxout": Case(maxout, draw(2, 5), 2, 18 * 5 + 18 + 6 * 3),
    "low rank": Case(low_rank, draw(2, 5), 2, 6 * 5 + 6 * 2 + 2 * 5 + 6 * 3),
    "einsum attention": Case(einsum_attention, draw(2, 4, 5), 3, 4 * 30),
    "shared layer": Case(shared_layer, draw(2, 5), 1, 6 * 5 + 6 + 36 + 6 + 6 * 3),
}
