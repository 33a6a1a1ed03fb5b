"""The function of a network is preserved, as far as `max_output_change` sees."""

import math
from dataclasses import replace

import pytest
import torch

from tests.zoo.action.elements import SPACE, generator, params_of
from zoo.architectures import build_architecture
from zoo.symmetry.residual import max_output_change
from zoo.weight_space import NeuronGroup, WeightSpace


def test_max_output_change_sees_what_is_declared_and_no_symmetry():
    gelu = build_architecture("mlp", {"hidden": (4, 5), "activation": "gelu"}, (6,), 3)
    params = {name: tensor.double() for name, tensor in gelu.init(generator(0)).items()}
    x = torch.randn(5, 6, generator=generator(1), dtype=torch.float64)
    wrong = WeightSpace(
        {
            n: replace(g, scaling="positive") if n == "h2" else g
            for n, g in gelu.space.groups.items()
        },
        gelu.space.tensors,
    )

    def change(groups) -> float:
        return max_output_change(
            wrong, lambda p: gelu.apply(p, x), params, generator(2), groups=groups
        )

    assert change(["h1"]) < 1e-10
    assert change([]) == 0
    assert change(["h2"]) > 1e-3
    assert change(None) > 1e-3


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (lambda h: h / 4, 0.75),
        (lambda h: 10 * h, 0.75),
        (lambda h: [None, {"a": h, "b": (h, h)}, "text"], 0.75),
        (lambda h: h[:0], 0.0),
        (lambda h: h / 0, 0.0),
        (lambda h: h * math.nan, 0.0),
        (lambda h: h.long(), 0.75),
        (lambda h: h > 2, 1.0),
        (lambda h: torch.where(h > 2, math.nan, h), math.inf),
        (lambda h: torch.where(h > 2, math.inf, h), math.inf),
    ],
    ids=[
        "below 1",
        "relative",
        "tree",
        "empty",
        "infinite on both sides",
        "nan on both sides",
        "integers",
        "booleans",
        "nan",
        "inf",
    ],
)
def test_max_output_change_of_outputs_of_any_form(outputs, expected):
    space = WeightSpace({"h": NeuronGroup(4)}, {"bias": "h"})
    params = {"bias": torch.tensor([1.0, 2, 3, 4])}
    # One of 200 permutations at least brings neuron 4 to the place of neuron 1.
    assert max_output_change(
        space, lambda p: outputs(p["bias"]), params, generator(0), 200
    ) == pytest.approx(expected)


def test_max_output_change_names_unknown_groups():
    with pytest.raises(
        ValueError, match=r"unknown groups \['h9'\]; groups of the space are \['h', 'x'\]"
    ):
        max_output_change(
            SPACE, lambda p: p["bias"], params_of(SPACE, 0), generator(0), groups=["h", "h9"]
        )


def test_max_output_change_wants_outputs_to_compare():
    for outputs in (None, [], "text"):
        with pytest.raises(ValueError, match="expected tensors of the same shapes"):
            max_output_change(
                SPACE, lambda p, outputs=outputs: outputs, params_of(SPACE, 0), generator(0)
            )
