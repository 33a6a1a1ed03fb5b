"""Modules of users, on inputs `[X, 1, 8, 8]`; nothing in the project was written for them."""

import torch
import torch.nn.functional as F
from torch import nn


class DropoutAndNorm(nn.Module):
    """Batch norm, dropout of neurons and of channels."""

    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.of_channels = nn.Dropout2d(0.3)
        self.of_neurons = nn.Dropout(0.2)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        h = self.of_channels(F.relu(self.norm(self.conv(x))))
        return self.head(self.of_neurons(h.mean((2, 3))))


class GRU(nn.Module):
    """Rows of an image, one after the other."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 6, batch_first=True)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.rnn(x[:, 0])[0][:, -1])


class WritesInPlace(nn.Module):
    """It adds to a tensor that has no batch of networks, which `vmap` does not allow."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 5), nn.Linear(5, 10)

    def forward(self, x):
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        h += torch.tanh(self.first(x.flatten(1)))
        return self.head(h)


class UNet(nn.Module):
    """Down, up, and a shortcut over both."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 10, 1)

    def forward(self, x):
        wide = F.gelu(self.down(x))
        narrow = F.gelu(self.middle(F.avg_pool2d(wide, 2)))
        return self.head(torch.cat([wide, self.up(narrow)], dim=1)).mean((2, 3))


class Mixer(nn.Module):
    """An MLP-Mixer with one block on the rows of an image."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 6)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
        self.tokens = nn.Sequential(nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 8))
        self.channels = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        h = self.embed(x[:, 0])
        h = h + self.tokens(self.norms[0](h).transpose(1, 2)).transpose(1, 2)
        h = h + self.channels(self.norms[1](h))
        return self.head(h.mean(1))


class Tied(nn.Module):
    """One weight twice, the second time transposed."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(64, 7)
        self.middle = nn.Linear(7, 7)
        self.again = nn.Linear(7, 7)
        self.again.weight = self.middle.weight
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        h = torch.tanh(self.again(torch.tanh(self.middle(torch.tanh(self.encode(x.flatten(1)))))))
        return self.head(F.linear(h, self.encode.weight.T))


class CustomInitialization(nn.Module):
    """Orthogonal weights, constant biases, a scalar of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ELU(), nn.Linear(8, 10))
        self.scale = nn.Parameter(torch.tensor(0.5))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.constant_(layer.bias, 0.1)

    def forward(self, x):
        return self.scale * self.layers(x)


class Frozen(nn.Module):
    """Random features: a buffer that differs between networks, a parameter without a gradient."""

    features: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("features", torch.randn(64, 9))
        self.register_buffer("shift", torch.linspace(0, 1, 9))
        self.middle = nn.Linear(9, 8).requires_grad_(False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        h = torch.sin(x.flatten(1) @ self.features / 8 + self.shift)
        return self.head(F.silu(self.middle(h)))


class Attention(nn.Module):
    """A torch encoder on the rows of an image."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 6)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.layer(self.embed(x[:, 0])).mean(1))


class Noisy(nn.Module):
    """Gaussian noise on the hidden neurons while it trains."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 6), nn.Linear(6, 10)

    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        return self.head(h + 0.1 * torch.randn_like(h) if self.training else h)


def resnet():
    import transformers as t

    config = t.ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
    )
    return t.ResNetForImageClassification(config)


def vit():
    import transformers as t

    config = t.ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=10,
    )
    return t.ViTForImageClassification(config)


class Bert(nn.Module):
    """A text model on the grey levels of one row."""

    def __init__(self):
        super().__init__()
        import transformers as t

        config = t.BertConfig(
            vocab_size=8,
            hidden_size=6,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
            num_labels=10,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = t.BertForSequenceClassification(config)

    def forward(self, x):
        tokens = (2 * x[:, 0, 3] + 3).round().clamp(0, 7).long()
        return self.bert(tokens).logits


MODULES = {
    "dropout and norm": DropoutAndNorm,
    "gru": GRU,
    "u-net": UNet,
    "mixer": Mixer,
    "tied": Tied,
    "custom initialization": CustomInitialization,
    "frozen": Frozen,
    "writes in place": WritesInPlace,
    "attention": Attention,
    "noisy": Noisy,
    "resnet": resnet,
    "vit": vit,
    "bert": Bert,
}
