"""Generate a zoo from your own YAML file.

Run: `python examples/own_job.py [JOB]`; own_job.yaml by default.

On the command line the same is `generate-zoo examples/own_job.yaml --out runs/own_job`.
"""

import sys
import tempfile
from pathlib import Path

import zoo
from data_gen import generate, load_job

job = load_job(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("own_job.yaml")))
folder = generate(job, tempfile.mkdtemp(), compile=False)
for name, population in zoo.load(folder).items():
    print(
        name,
        population.table("train")[["optimizer", "lr", "steps", "test_accuracy"]].head(),
        sep="\n",
    )
