"""Load a zoo and look at it.

Run: `python examples/load_zoo.py [ZOO]`; without a folder it makes a tiny zoo.
"""

import sys
import tempfile

import zoo
from data_gen import generate, load_job

tiny = load_job("demo", ["count=40", "hyperparameters.steps=50"])
folder = sys.argv[1] if len(sys.argv) > 1 else generate(tiny, tempfile.mkdtemp(), compile=False)

networks = zoo.load(folder)
for name, population in networks.items():
    table = population.table("train")
    print(
        f"{name}: {len(population)} networks, {population.num_free} of "
        f"{population.space.num_params} parameters trained"
    )
    print(f"  mean test accuracy {table.test_accuracy.mean():.2f}, {table.diverged.sum()} diverged")

population = networks["standard"]
params = population.params("train")  # {tensor: [networks, *shape]}
print({name: tuple(tensor.shape) for name, tensor in params.items()})
print(dict(population.space.tensors))
