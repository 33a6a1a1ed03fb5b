"""Running statistics of norms are state, neither trained nor made asymmetric."""

import pytest
import torch

from tests.zoo.architectures.twins import CLASSES, INPUT, generator
from zoo.architectures import Architecture, build_resnet, syre, w_asymmetric
from zoo.architectures.base import constants_of


def test_running_statistics_are_neither_offset_nor_counted():
    standard = build_resnet(INPUT, CLASSES, channels=(4, 4, 4))
    both = syre(w_asymmetric(standard, generator(0), n_fix=2), generator(1))
    assert standard.statistics == both.statistics
    assert set(standard.statistics) == {
        name for name in standard.space.tensors if "running" in name
    }
    assert set(constants_of(both.constants, "offset")) == set(standard.space.tensors) - set(
        standard.statistics
    )
    assert standard.num_free == standard.space.num_params - 2 * 4 * (1 + 2 * 3 + 2)


def test_statistics_need_a_way_to_move():
    standard = build_resnet(INPUT, CLASSES, channels=(4, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"with running statistics needs forward_training; got statistics \['stem_norm.run",
    ):
        Architecture(standard.space, standard.draw, standard.forward, standard.constants)


def test_batch_norm_refuses_a_batch_of_one_value():
    architecture = build_resnet((1, 4, 4), CLASSES, channels=(4, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"'blocks.2.norm1': expected more than one value for each channel, "
        r"got .*\[1, 4, 1, 1\]",
    ):
        architecture.apply_training(architecture.init(generator(0)), torch.zeros(1, 1, 4, 4))
