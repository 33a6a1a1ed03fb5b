"""Random programs of tensor operators with random parameters in between.

What a tracer must never be wrong about.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUNCTIONS = (
    *(
        torch.relu,
        torch.tanh,
        F.gelu,
        torch.sigmoid,
        F.leaky_relu,
        torch.sin,
        torch.abs,
        torch.square,
        F.silu,
        torch.neg,
    ),
    *(
        F.softplus,
        torch.exp,
        lambda x: x.clamp(-1, 1),
        lambda x: x.clamp(min=0),
        lambda x: 2 * x,
        lambda x: x + 1,
    ),
)
MAX_ENTRIES, MAX_RANK = 5000, 6


class Program(nn.Module):
    """A program drawn from a seed: ten operators or so, each on one of the latest values."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed
        self.steps: list[str] = []
        self.building = True
        with torch.no_grad():
            self(self.example())
        self.building = False

    def example(self) -> Tensor:
        shape = (2, 3, 5) if self.seed % 2 else (2, 5)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))

    def forward(self, x: Tensor) -> Tensor:
        draw, self.count = random.Random(self.seed), 0
        values = [self.linear(draw, x)]
        for step in range(draw.randint(4, 11)):
            value = draw.choice(values[-3:])
            moves = self.moves(draw, value, values)
            name = draw.choice(sorted(moves))
            result = moves[name]()
            if 0 < result.numel() <= MAX_ENTRIES and 2 <= result.dim() <= MAX_RANK:
                values.append(result)
                self.steps += [f"{step}: {name} {tuple(result.shape)}"] if self.building else []
        return sum(torch.tanh(self.linear(draw, v)).flatten(1).mean(1) for v in values[-3:])  # pyright: ignore

    def parameter(self, *shape: int) -> Tensor:
        name = f"p{self.count}"
        self.count += 1
        if self.building:
            setattr(
                self,
                name,
                nn.Parameter(
                    0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(self.count))
                ),
            )
        return getattr(self, name)

    def linear(self, draw, value, axis=-1):
        weight, bias = (
            self.parameter(draw.choice([4, 6, 8, 12]), value.shape[axis]),
            draw.random() < 0.7,
        )
        result = F.linear(value.movedim(axis, -1), weight)
        return (result + self.parameter(len(weight)) if bias else result).movedim(-1, axis)

    def moves(self, draw, v, values):
        """The operators that fit a value, by name."""
        axis = draw.randrange(1, v.dim())
        size, last = v.shape[axis], v.shape[-1]
        order = [0, *draw.sample(range(1, v.dim()), v.dim() - 1)]
        start = draw.randrange(size)
        length, number = draw.randint(1, size - start), draw.randrange(len(FUNCTIONS))
        same = draw.choice([u for u in values if u.shape == v.shape])
        beside = draw.choice([u for u in values if u.shape[:-1] == v.shape[:-1]])
        moves = {
            "linear": lambda: self.linear(draw, v, axis),
            "linear again": lambda: self.linear(draw, v),
            f"function {number}": lambda: FUNCTIONS[number](v),
            "add": lambda: v + same,
            "multiply": lambda: v * same,
            "permute": lambda: v.permute(order),
            "narrow": lambda: v.narrow(axis, start, length),
            "cat": lambda: torch.cat([v, beside], -1),
            "stack": lambda: torch.stack([v, same], axis),
            "mean": lambda: v.mean(axis, keepdim=size % 2 == 0),
            "max": lambda: v.amax(axis),
            "variance": lambda: v.var(axis, correction=0, keepdim=True),
            "softmax": lambda: v.softmax(axis),
            "layer norm": lambda: F.layer_norm(
                v, (last,), self.parameter(last), self.parameter(last)
            ),
            "batch norm": lambda: F.batch_norm(
                v,
                torch.zeros(v.shape[1]),
                torch.ones(v.shape[1]),
                self.parameter(v.shape[1]),
                self.parameter(v.shape[1]),
            ),
            "select": lambda: v.select(axis, start),
            "expand": lambda: v.unsqueeze(1).expand(-1, 3, *v.shape[1:]),
            "repeat": lambda: v.repeat_interleave(2, axis),
            "pad": lambda: F.pad(v, (1, 2)),
            "gate": lambda: v * torch.sigmoid(self.parameter(last)),
            "scale": lambda: v * self.parameter(*v.shape[axis:]),
            "bias": lambda: v + self.parameter(*v.shape[axis:]),
            "weighted sum": lambda: (v * self.parameter(last)).sum(-1),
            "roll": lambda: v.roll(1, axis),
            "look up": lambda: v.index_select(axis, torch.tensor([0, size - 1, 0])),
        }
        if size % 2 == 0:
            moves["unflatten"] = lambda: v.unflatten(axis, (2, size // 2))
            moves["gated half"] = lambda: v.chunk(2, axis)[0] * v.chunk(2, axis)[1].sigmoid()
            moves["group norm"] = lambda: F.group_norm(
                v.movedim(axis, 1), 2, self.parameter(size), self.parameter(size)
            )
        if v.dim() > 2:
            moves["flatten"] = lambda: v.flatten(v.dim() - 2)
            moves["attend"] = lambda: v @ same.transpose(-1, -2)
        return moves
