"""Laws for architectures, weight spaces and equivariant layers, for your own as for ours.

    check_architecture("mine")                              an Architecture keeps its contract
    assert_function_preserved(space, apply, params)         a space declares true symmetries
    assert_equivariant(layer, space, features)              layer(act(g, x)) == act(g, layer(x))
    random_weight_space(generator)                          spaces and params for tests of your own
    random_params(space, generator)

The checks raise an AssertionError that says what was expected and what was found.
"""

from zoo.testing.architecture import LAWS, check_architecture
from zoo.testing.spaces import random_params, random_weight_space
from zoo.testing.symmetry import TOLERANCES, assert_equivariant, assert_function_preserved

__all__ = [
    "LAWS",
    "TOLERANCES",
    "assert_equivariant",
    "assert_function_preserved",
    "check_architecture",
    "random_params",
    "random_weight_space",
]
