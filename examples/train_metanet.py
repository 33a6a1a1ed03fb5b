"""Train two metanets and compare them.

Run: `python examples/train_metanet.py [ZOO]`; without a folder it makes a tiny zoo.
"""

import sys
import tempfile

import metanet
import zoo
from data_gen import generate, load_job

tiny = load_job("demo", ["count=160", "hyperparameters.steps={int_range: [20, 60]}"])
folder = sys.argv[1] if len(sys.argv) > 1 else generate(tiny, tempfile.mkdtemp(), compile=False)

networks = zoo.load(folder)
for name in ("standard", "w_asymmetric"):
    for model in ("hparams", "gbm", "mlp"):
        fitted = metanet.Metanet(model, target="test_accuracy", seed=0).fit(networks[name])
        tau = fitted.evaluate(networks[name])["kendall_tau"]
        print(f"{name:14}{model:10}Kendall tau {tau.value:5.2f} [{tau.low:5.2f}, {tau.high:5.2f}]")
