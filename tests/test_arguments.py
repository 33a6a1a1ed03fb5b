"""The short form of `tests/fuzz_arguments.py`: wrong arguments are refused in words."""

import pytest
import torch
from torch import nn

import zoo
from tests.fuzz_arguments import fuzz
from zoo.architectures import build_architecture, make_asymmetric
from zoo.options import Count, checked
from zoo.weight_space import NeuronGroup, WeightSpace

SPACE = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
PARAMS = {"bias": torch.zeros(3)}
MODULE, X = nn.Linear(4, 2), torch.randn(2, 4)


def test_arguments_drawn_at_random(tmp_path, unchecked):
    counts, wrong = fuzz(25, 0, tmp_path, print)
    assert wrong == []
    assert counts["refused"] > counts["works"] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.load([1]), r"load: directory: expected str .* pathlib.Path, found \[1\]"),
        (lambda: zoo.align(SPACE, PARAMS, PARAMS, 0), "align: num_restarts: expected at least 1"),
        (lambda: zoo.align(SPACE, PARAMS, PARAMS, True), "align: num_restarts: expected int"),
        (lambda: zoo.align(SPACE, PARAMS, PARAMS, generator=1), "align: generator: .*Generator"),
        (lambda: zoo.canonicalize(SPACE, {"bias": [0.0]}), "canonicalize: params: .*Tensor"),
        (lambda: zoo.canonicalize(SPACE, [1]), "canonicalize: params: expected Mapping"),
        (lambda: zoo.sample(SPACE, None), "sample: generator: expected .*Generator, found None"),
        (lambda: zoo.sample(SPACE, torch.Generator(), -1), "sample: batch: expected Sequence"),
        (lambda: zoo.sample(SPACE, torch.Generator(), [-1]), "sample: batch: expected at least 0"),
        (lambda: zoo.act(SPACE, None, PARAMS), "act: element: expected .*GroupElement"),
        (lambda: zoo.trace("net", X), "trace: module: expected .*Module, found 'net'"),
        (lambda: zoo.trace(MODULE, X, statistics=3), "trace: statistics: expected Sequence"),
        (lambda: zoo.asymmetric(None), "asymmetric: module: expected .*Module, found None"),
        (lambda: zoo.asymmetric(MODULE, []), r"asymmetric: kind: expected str, found \[\]"),
        (lambda: zoo.asymmetric(MODULE, seed=-1), "asymmetric: seed: expected at least 0"),
        (lambda: WeightSpace([], {}), "groups of a weight space: expected a mapping"),
        (lambda: WeightSpace({"h": 3}, {}), "groups of a weight space: .* NeuronGroup"),
        (lambda: WeightSpace({"h": NeuronGroup(3)}, {"w": 1}), "tensors of a weight space: .* str"),
        (lambda: build_architecture("mlp", {}, "a", 2), "build_architecture: input_shape"),
        (
            lambda: build_architecture("siren", {"hidden": [1] * 2001}, (2,), 2),
            "'hidden' of architecture 'siren': expected a length of at most 2000",
        ),
        (lambda: make_asymmetric(None, "w", {}, 0), "make_asymmetric: architecture"),
    ],
)
def test_what_is_no_argument_is_named(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_checked_function_is_what_it_was():
    @checked
    def scaled(value: Count, *, by: float = 2.0, **rest: object) -> float:
        """Doc."""
        return value * by

    assert (scaled(3), scaled(value=3, by=1), scaled(3, other="x")) == (6, 3, 6)
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Doc.")
    with pytest.raises(TypeError, match="missing a required argument"):
        scaled()
