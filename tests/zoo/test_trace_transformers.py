"""The tracer on small, randomly initialized models of the `transformers` library."""

import pytest
import torch
import transformers as t

from tests.reference.zoo_equivalence import count_permuted
from tests.tiers import tiered
from zoo.tracing.tracer import trace


def images(size: int):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def tokens():
    return {"input_ids": torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))}


TEXT = {"vocab_size": 30, "num_labels": 4}
BERT = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
}
GPT2 = {
    "n_positions": 16,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
RESNET = {"embedding_size": 8, "depths": [2, 2], "num_labels": 4}
SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 4],
    "window_size": 4,
}

# model class, configuration, inputs; permutable groups and entries that no permutation moves,
# counted by hand
MODELS = {
    # two streams, one group inside each of four blocks; only the bias of the classifier stays
    "ResNet": (
        *(
            t.ResNetForImageClassification,
            t.ResNetConfig(hidden_sizes=[8, 12], layer_type="basic", **RESNET),
            images(32),
        ),
        *(2 + 4, 4),
    ),
    # three streams (8 of the stem, 16, 32), two groups inside each of four blocks
    "ResNet bottleneck": (
        *(
            t.ResNetForImageClassification,
            t.ResNetConfig(hidden_sizes=[16, 32], layer_type="bottleneck", **RESNET),
            images(32),
        ),
        *(3 + 4 * 2, 4),
    ),
    # the stream; heads, query-key, value and hidden neurons of two layers
    "ViT": (
        t.ViTForImageClassification,
        t.ViTConfig(image_size=16, patch_size=8, num_labels=4, **BERT),
        images(16),
        9,
        4,
    ),
    # and the pooler
    "BERT": (t.BertForSequenceClassification, t.BertConfig(**BERT, **TEXT), tokens(), 10, 4),
    # tied embeddings; the key-value cache that it returns does not count
    "GPT-2": (t.GPT2LMHeadModel, t.GPT2Config(vocab_size=30, **GPT2), tokens(), 9, 0),
    # a stream and a hidden layer for each of two stages
    "ConvNeXt": (
        *(
            t.ConvNextForImageClassification,
            t.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, num_labels=4),
        ),
        *(images(32), 4, 4),
    ),
    # rotary positions fix the query-key dimension; key-value groups, heads in each, value, hidden
    # of two layers
    "Llama": (t.LlamaForCausalLM, t.LlamaConfig(vocab_size=30, **LLAMA), tokens(), 9, 0),
    # streams, heads, query-key, value, hidden
    "Swin": (
        t.SwinForImageClassification,
        t.SwinConfig(num_labels=4, **SWIN),
        images(16),
        2 + 4 * 2,
        4,
    ),
}


QUICK = ("ResNet", "ViT", "BERT", "Llama")
"""Convolutions with batch norm, an encoder of images and one of texts, rotary embeddings."""


@pytest.mark.parametrize("name", tiered([(name,) for name in MODELS], lambda name: name in QUICK))
def test_models_counted_by_hand(name):
    build, config, inputs, groups, still = MODELS[name]
    traced = trace(build(config), inputs)
    assert count_permuted(traced.space) == (groups, traced.space.num_params - still)
