"""What a zoo is: weight spaces, architectures, and the store."""

from zoo.architectures import ARCHITECTURES, Architecture
from zoo.modules.twins import asymmetric
from zoo.params import Params
from zoo.store.population import Population, Zoo, load
from zoo.weight_space import NeuronGroup, WeightSpace

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "NeuronGroup",
    "Params",
    "Population",
    "WeightSpace",
    "Zoo",
    "asymmetric",
    "load",
]
