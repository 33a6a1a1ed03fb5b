"""What a zoo is: weight spaces, architectures, and the store."""

from zoo.architectures import ARCHITECTURES, Architecture
from zoo.asymmetric_modules import asymmetric
from zoo.params import Params
from zoo.population import Population, Zoo, load
from zoo.weight_space import NeuronGroup, WeightSpace

__all__ = ["ARCHITECTURES", "Architecture", "NeuronGroup", "Params", "Population", "WeightSpace", "Zoo", "asymmetric", "load"]
