"""Slow twin of lock-step training.

One `nn.Module`, one `torch.optim` optimizer, one Python loop.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from data_gen.rng import fold, integers, key, uniform
from data_gen.tasks.augmentation import draw_moves
from data_gen.training.order import shuffled


class Effective(nn.Module):
    """A network whose trained tensors are raw parameters, as the papers write it.

    `W_eff = M * W + (1 - M) * F` or `W + F`.
    """

    def __init__(self, params, constants):
        super().__init__()
        self.names = self.trained = list(params)
        self.constants = constants
        self.raw = nn.ParameterList()
        for name in self.trained:
            offset = constants.get(f"offset.{name}", 0.0)
            self.raw.append(nn.Parameter(params[name] - offset))

    def effective(self, name):
        raw = self.raw[self.trained.index(name)]
        if f"free.{name}" in self.constants:
            m = self.constants[f"free.{name}"].double()
            return m * raw + (1 - m) * self.constants[f"fixed.{name}"]
        return raw + self.constants.get(f"offset.{name}", 0.0)

    def sigma(self, z, group, activation):
        if f"mixing.{group}" in self.constants:
            mixing = self.constants[f"mixing.{group}"]
            gate = F.linear(z, mixing) if z.dim() == 2 else F.conv2d(z, mixing[:, :, None, None])
            return torch.sigmoid(gate) * z
        return getattr(F, activation)(z)


class PlainMLP(Effective):
    def __init__(self, params, constants, depth, activation, norm):
        super().__init__(params, constants)
        self.depth, self.activation, self.norm = depth, activation, norm

    def forward(self, x):
        x = x.reshape(len(x), -1)
        for i in range(self.depth):
            x = F.linear(
                x, self.effective(f"layers.{i}.weight"), self.effective(f"layers.{i}.bias")
            )
            if self.norm == "layer":
                weight, bias = (
                    self.effective(f"norms.{i}.weight"),
                    self.effective(f"norms.{i}.bias"),
                )
                x = F.layer_norm(x, x.shape[1:], weight, bias)
            x = self.sigma(x, f"h{i + 1}", self.activation)
        return F.linear(
            x,
            self.effective(f"layers.{self.depth}.weight"),
            self.effective(f"layers.{self.depth}.bias"),
        )


class PlainCNN(Effective):
    def __init__(self, params, constants, depth, activation, norm, norm_groups, strides, pool):
        super().__init__(params, constants)
        self.depth, self.activation, self.norm, self.norm_groups = (
            depth,
            activation,
            norm,
            norm_groups,
        )
        self.strides, self.pool = strides, pool

    def forward(self, x):
        for i in range(self.depth):
            weight = self.effective(f"convs.{i}.weight")
            x = F.conv2d(
                x, weight, self.effective(f"convs.{i}.bias"), self.strides, weight.shape[-1] // 2
            )
            if self.norm != "none":
                groups = self.norm_groups if self.norm == "group" else 1
                x = F.group_norm(
                    x,
                    groups,
                    self.effective(f"norms.{i}.weight"),
                    self.effective(f"norms.{i}.bias"),
                )
            x = self.sigma(x, f"c{i + 1}", self.activation)
        x = x.flatten(1) if self.pool == "flatten" else F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.linear(x, self.effective("classifier.weight"), self.effective("classifier.bias"))


class PlainModule(Effective):
    """Any module of `tests/reference/zoo_modules.py`, in training mode.

    Its buffers are its running statistics.
    """

    def __init__(self, params, constants, module):
        buffers = dict(module.named_buffers())
        super().__init__(
            {name: tensor for name, tensor in params.items() if name not in buffers}, constants
        )
        self.names = list(params)
        self.module = [
            module.double().train()
        ]  # in a list, so that its own parameters are not trained
        for name in buffers:
            module.get_buffer(name).copy_(params[name])

    def effective(self, name):
        return super().effective(name) if name in self.trained else self.module[0].get_buffer(name)

    def forward(self, x):
        effective = {name: self.effective(name) for name in self.trained}
        return torch.func.functional_call(self.module[0], effective, (x,))


def factor(schedule, step, steps):
    progress = (step + 0.5) / steps
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if schedule == "triangular":
        return 2 * progress if progress < 0.5 else 2 * (1 - progress)
    return 1.0


def make_optimizer(name, module, row):
    if name == "adamw":
        return torch.optim.AdamW(
            module.parameters(), lr=row["lr"], weight_decay=row["weight_decay"]
        )
    return torch.optim.SGD(
        module.parameters(),
        lr=row["lr"],
        momentum=row["momentum"],
        weight_decay=row["weight_decay"],
        nesterov=name == "nesterov",
    )


def own_part(task, seed, network_id, train_size):
    """Images that a network owns, and all labels as it sees them, one image at a time."""
    total = len(task.train.y)
    network = torch.tensor([network_id])
    if train_size == total:
        return list(range(total))
    every = torch.arange(total)[None]
    return shuffled(fold(key(seed, "subset"), network), every, torch.tensor([total]))[
        0, :train_size
    ].tolist()


def labels_seen(task, seed, network_id, noise):
    """Targets of all training images as a network sees them."""
    if task.num_classes is None:
        return task.train.y
    network, images = torch.tensor(network_id), torch.arange(len(task.train.y))
    coin = uniform(fold(key(seed, "noise"), network), images).tolist()
    drawn = integers(fold(key(seed, "noisy label"), network), images, task.num_classes).tolist()
    return torch.tensor([drawn[i] if coin[i] < noise else int(task.train.y[i]) for i in images])


def seen_images(task, seed, network_id, images, step):
    """Images of one batch after augmentation, one at a time, by slicing."""
    if task.augmentation is None:
        return task.train.x[images]
    position = torch.arange(step * len(images), (step + 1) * len(images))[None]
    size = tuple(task.train.x.shape[2:])
    moves = draw_moves(task.augmentation, seed, torch.tensor([network_id]), position, size)[
        0
    ].tolist()
    return torch.stack(
        [moved(task.train.x[i], *m, task) for i, m in zip(images.tolist(), moves, strict=True)]
    )


def moved(image, flip, down, right, row, column, task):
    """Flip, shift, cut, by what they mean.

    A mirrored image, a window of a padded one, a square painted over.
    """
    augmentation = task.augmentation
    image = image.flip(-1) if flip else image
    most, (height, width) = augmentation.shift, image.shape[1:]
    image = F.pad(image, (most,) * 4)[
        :, most - down : most - down + height, most - right : most - right + width
    ].clone()
    for i in range(height):
        for j in range(width):
            half = augmentation.cutout // 2
            if (
                -half <= i - row < augmentation.cutout - half
                and -half <= j - column < augmentation.cutout - half
            ):
                image[:, i, j] = task.mean[:, 0, 0].round()
    return image


def plain_loss(outputs, targets, row):
    """Cross-entropy of classes, as torch has it."""
    return F.cross_entropy(outputs, targets, label_smoothing=row["label_smoothing"])


def train_alone(module, task, seed, network_id, row, loss_of=plain_loss):
    """Train one network; `row` holds its hyperparameters, `steps` and `train_size` included."""
    optimizer = make_optimizer(row["optimizer"], module, row)
    subset = torch.tensor(own_part(task, seed, network_id, row["train_size"]))
    labels = labels_seen(task, seed, network_id, row["label_noise"])
    order = fold(key(seed, "order"), torch.tensor([network_id]))
    positions = torch.arange(row["steps"] * row["batch_size"])[None]
    batches = shuffled(order, positions, torch.tensor([row["train_size"]])).reshape(
        row["steps"], row["batch_size"]
    )
    for step, batch in enumerate(batches):
        images = subset[batch]
        x = (seen_images(task, seed, network_id, images, step).double() - task.mean) / task.std
        for group in optimizer.param_groups:
            group["lr"] = row["lr"] * factor(row["schedule"], step, row["steps"])
        loss = loss_of(module(x), labels[images], row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: module.effective(name).detach() for name in module.names}
