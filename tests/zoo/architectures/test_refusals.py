"""Options and inputs that do not fit an architecture or an asymmetry are named."""

import math
import re

import pytest

from tests.zoo.architectures.twins import CLASSES, INPUT, generator
from zoo.architectures import (
    build_architecture,
    build_cnn,
    build_mlp,
    make_asymmetric,
    sigma_asymmetric,
)

MLP, CNN = build_mlp((10,), 4, (8,)), build_cnn((3, 6, 6), 4, (8, 6))


@pytest.mark.parametrize(
    ("standard", "options", "message"),
    [
        (
            MLP,
            {"n_fix": 8},
            r"'layers.1.weight': n_fix=8 would freeze all 8 entries of a row; expected n_fix < 8",
        ),
        (
            MLP,
            {"n_fix": 50},
            r"'layers.0.weight': n_fix=50 would freeze all 10 entries of a row; "
            r"expected n_fix < 10",
        ),
        (MLP, {"n_fix": 0.99}, r"'layers.0.weight': n_fix=10 would freeze all 10 entries"),
        (
            MLP,
            {"n_fix": -1},
            r"'layers.0.weight': expected n_fix as an integer >= 0 or a fraction in "
            r"\(0, 1\), got -1",
        ),
        (
            MLP,
            {"n_fix": 2.0},
            r"expected n_fix as an integer >= 0 or a fraction in \(0, 1\), got 2.0",
        ),
        (
            MLP,
            {"n_fix": float("nan")},
            r"expected n_fix as an integer >= 0 or a fraction in \(0, 1\), got nan",
        ),
        (
            CNN,
            {"n_fix": 8, "fix": "filters"},
            r"'convs.0.weight': n_fix=8 would freeze all 3 input filters of a row",
        ),
        (
            CNN,
            {"n_fix": 1, "fix": "filters"},
            r"'convs.0.weight': 8 rows cannot be distinct with n_fix=1 of 3 input filters",
        ),
        (CNN, {"n_fix": 1, "fix": "filters"}, r"there are only 3 ways to choose"),
        (MLP, {"fix": "rows"}, r"expected fix to be 'entries' or 'filters', got 'rows'"),
        (MLP, {"kappa": -0.5}, r"'layers.0.weight': expected kappa >= 0, got -0.5"),
        (MLP, {"kappa": float("nan")}, r"'layers.0.weight': expected kappa >= 0, got nan"),
        (MLP, {"kappa": math.inf}, r"'layers.0.weight': expected kappa >= 0, got inf"),
        (
            MLP,
            {"n_fix": {"layers.0.weight": 1}},
            r"n_fix as a mapping needs exactly the weights \['layers.0.weight', 'layers.1.we",
        ),
        (
            MLP,
            {"kappa": {"layers.0.bias": 1.0}},
            r"kappa as a mapping needs exactly .*, got \['layers.0.bias'\]",
        ),
        (
            MLP,
            {"kapa": 1.0},
            r"unknown option 'kapa' of asymmetry 'w'; options are \['n_fix', 'kappa', 'fix'\]",
        ),
        (MLP, {"kappa": "1"}, r"option 'kappa' of asymmetry 'w': expected .*, found '1'"),
        (MLP, {"n_fix": [1]}, r"option 'n_fix' of asymmetry 'w': expected .*, found \[1\]"),
        (MLP, {"generator": 1}, r"unknown option 'generator' of asymmetry 'w'"),
    ],
)
def test_w_asymmetric_options_that_do_not_fit(standard, options, message):
    with pytest.raises(ValueError, match=message):
        make_asymmetric(standard, "w", options, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, r"unknown architecture 'vgg'; known are \['cnn', .*'mlp', 'resnet'"),
        (
            "mlp",
            {"width": 3},
            r"unknown option 'width' of architecture 'mlp'; "
            r"options are \['hidden', 'activation', 'norm'\]",
        ),
        ("mlp", {"input_shape": (3,)}, r"unknown option 'input_shape' of architecture 'mlp'"),
        (
            "mlp",
            {"hidden": 32},
            r"option 'hidden' of architecture 'mlp': expected .*Sequence\[int\], found 32",
        ),
        (
            "mlp",
            {"hidden": "32"},
            r"option 'hidden' of architecture 'mlp': expected .*Sequence\[int\], found '32'",
        ),
        ("mlp", {"hidden": [8, 0]}, r"expected an integer >= 1, got 0"),
        (
            "mlp",
            {"activation": "swish"},
            r"unknown activation 'swish'; known are \['gelu', 'leaky_relu', 'linear', 'relu', ",
        ),
        (
            "mlp",
            {"norm": "batch"},
            r"unknown norm 'batch' for an mlp; known are \['layer', 'none'\]",
        ),
        ("cnn", {"activation": "swish"}, r"unknown activation 'swish'"),
        ("cnn", {"norm": "batch"}, r"expected norm in \('none', 'group', 'layer'\) .* got 'batch'"),
        ("cnn", {"pool": "max"}, r"pool in \('average', 'flatten'\), got .*'max'"),
        ("cnn", {"kernel": 4}, r"expected an odd kernel and at least one convolution, got 4"),
        ("cnn", {"kernel": 999}, r"cnn: kernel: expected at most 11 for images of side 6, got 999"),
        ("cnn", {"strides": 9}, r"cnn: strides: expected at most 6 for images of side 6, got 9"),
        ("mlp", {"hidden": [10**7]}, r"expected at most 268435456 parameters, got \d{9}\b"),
        ("cnn", {"channels": [10**6, 10**6]}, r"expected at most 268435456 parameters"),
        ("siren", {"hidden": [10**9]}, r"expected at most 268435456 parameters"),
        ("transformer", {"depth": 10**9}, r"'depth' .*: expected at most 2000, found"),
        ("resnet", {"depth": 8 + 6 * 10**9}, r"'depth' .*: expected at most 2000, found"),
        ("gin", {"layers": 10**9}, r"'layers' .*: expected at most 2000, found"),
        ("cnn", {"kernel": -1}, r"expected an odd kernel and at least one convolution, got -1"),
        (
            "cnn",
            {"channels": []},
            r"expected an odd kernel and at least one convolution, got 3 and \[\]",
        ),
        (
            "cnn",
            {"strides": [1, 2]},
            r"expected 3 strides >= 1, one for each convolution, got \[1, 2\]",
        ),
        (
            "cnn",
            {"strides": 0},
            r"expected 3 strides >= 1, one for each convolution, got \[0, 0, 0\]",
        ),
        (
            "cnn",
            {"norm": "group", "norm_groups": 3},
            r"norm_groups=3 does not divide every entry of channels=\[16, 16, 16\]",
        ),
        ("cnn", {"norm": "group", "norm_groups": 0}, r"norm_groups=0 does not divide"),
        (
            "resnet",
            {"depth": 10},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 10 and \[16, 32, 64\]",
        ),
        (
            "resnet",
            {"depth": 2},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 2",
        ),
        (
            "resnet",
            {"channels": [8]},
            r"resnet: expected depth 8, 14, 20, ... and three channels, got 8 and \[8\]",
        ),
        (
            "resnet",
            {"norm": "group"},
            r"unknown norm 'group' for a resnet; known are \['batch', 'layer', 'none'\]",
        ),
        ("resnet", {"width": 0.01}, r"expected an integer >= 1, got 0"),
        ("resnet", {"activation": "swish"}, r"unknown activation 'swish'"),
        ("transformer", {}, r"transformer: patch=4 does not divide \(6, 6\) of inputs \(1, 6, 6\)"),
        ("transformer", {"patch": 0}, r"transformer: patch=0 does not divide"),
        (
            "transformer",
            {"patch": 3, "heads": 3},
            r"expected dim as a multiple of heads, .* got dim=32, heads=3, depth=2, mlp",
        ),
        (
            "transformer",
            {"patch": 3, "depth": 0},
            r"expected dim as a multiple of heads, depth >= 1 .* depth=0, mlp_ratio=2",
        ),
        ("transformer", {"patch": 3, "mlp_ratio": 0}, r"mlp_ratio >= 1, got .* mlp_ratio=0"),
        ("transformer", {"patch": 3, "activation": "swish"}, r"unknown activation 'swish'"),
        (
            "gin",
            {"norm": "batch"},
            r"gin: expected norm in \('none', 'layer'\), .* got 'batch', 'mean' and 3",
        ),
        (
            "gin",
            {"pool": "max"},
            r"pool in \('mean', 'sum'\) and layers >= 1, got 'none', 'max' and 3",
        ),
        ("gin", {"layers": 0}, r"layers >= 1, got 'none', 'mean' and 0"),
        (
            "gin",
            {"edges": [[0, 36]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[0, 36\]",
        ),
        (
            "gin",
            {"edges": [[0, 1], [2, 2]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[2, 2\]",
        ),
        (
            "gin",
            {"edges": [[0, 1, 2]]},
            r"gin: expected an edge as two different nodes from 0 to 35, got \[0, 1, 2\]",
        ),
        (
            "siren",
            {"hidden": []},
            r"siren: expected at least one hidden layer and omega > 0, got \[\] and 30.0",
        ),
        (
            "siren",
            {"omega": 0.0},
            r"siren: expected at least one hidden layer and omega > 0, got \[32, 32\] and 0.0",
        ),
        ("siren", {"omega": float("nan")}, r"omega > 0, got \[32, 32\] and nan"),
    ],
)
def test_architecture_options_that_do_not_fit(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_architecture(name, options, INPUT, CLASSES)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_convolutional_networks_need_images(name):
    with pytest.raises(
        ValueError,
        match=rf"a {name} needs inputs of shape \(channels, height, width\), got \(64,\)",
    ):
        build_architecture(name, {}, (64,), CLASSES)


@pytest.mark.parametrize(
    ("name", "shape"), [("gin", (64,)), ("transformer", (64,)), ("transformer", (1, 4, 4, 4))]
)
def test_networks_of_positions_need_positions(name, shape):
    with pytest.raises(
        ValueError,
        match=rf"a {name} needs inputs of shape \(channels, .*got {re.escape(str(shape))}",
    ):
        build_architecture(name, {}, shape, CLASSES)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("v", {}, r"unknown asymmetry 'v'; known are \['bias', 'sigma', 'syre', 'w'\]"),
        ("sigma", {"std": 0.0}, r"sigma_asymmetric: expected std > 0, got 0.0"),
        ("sigma", {"std": float("nan")}, r"sigma_asymmetric: expected std > 0, got nan"),
        (
            "sigma",
            {"kappa": 1.0},
            r"unknown option 'kappa' of asymmetry 'sigma'; options are \['std'\]",
        ),
        ("syre", {"std": -1.0}, r"syre: expected std > 0, got -1.0"),
        ("bias", {"kappa": -1.0}, r"bias_asymmetric: expected kappa >= 0, got -1.0"),
        ("bias", {"kappa": float("nan")}, r"bias_asymmetric: expected kappa >= 0, got nan"),
    ],
)
def test_asymmetry_options_that_do_not_fit(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_asymmetric(MLP, kind, options, 0)


def test_a_linear_network_has_no_non_linearity_to_replace():
    with pytest.raises(ValueError, match="the architecture has no non-linearity to replace"):
        sigma_asymmetric(build_mlp((4,), 2, (3,), activation="linear"), generator(0))
