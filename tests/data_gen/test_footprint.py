"""The memory that networks are said to need is what a process takes for them."""

import json
import os
import subprocess
import sys

import pytest
import torch

from data_gen.training.memory import running_bytes

MEASURE = """
import json, re, sys
from pathlib import Path
import torch
from data_gen.config import Job
from data_gen.training.memory import training_bytes
from data_gen.training.runs import draw_view
from data_gen.shard import ShardWorker
from data_gen.table import full_table

torch.set_num_threads(1)
job, counts = Job.model_validate(json.loads(sys.argv[1])), json.loads(sys.argv[2])
worker, peaks = ShardWorker(job, Path(), torch.device("cpu")), []
trainer = worker.trainer("p")
for count in counts:
    networks, state = worker.start(trainer, full_table(job, worker.task, torch.arange(count)))
    trainer.advance(networks, draw_view(networks, trainer.task, 0), state, 32)
    status = Path("/proc/self/status").read_text()
    peaks.append(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]))
    del networks, state
one = full_table(job, worker.task, torch.arange(1))
found = training_bytes(trainer, worker.runs(one), worker.initial(trainer, one))
print(json.dumps({"predicted": found, "measured": (peaks[1] - peaks[0]) / (counts[1] - counts[0])}))
"""
# Large blocks come from the system and go back to it at once, so that what the process holds is
# what it uses.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_MMAP_MAX_": "1000000", "OMP_NUM_THREADS": "1"}


@pytest.mark.deep
@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc's allocator")
@pytest.mark.parametrize(
    ("architecture", "optimizer", "counts"),
    [
        ({"name": "mlp", "hidden": [32, 32]}, "adamw", (200, 800)),
        ({"name": "cnn", "channels": [16, 16, 16]}, "sgd", (50, 200)),
        ({"name": "resnet"}, "sgd", (2, 6)),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_memory_is_predicted_within_a_fifth(architecture, optimizer, counts):
    job = {
        "task": {"name": "digits"},
        "populations": {"p": {"architecture": architecture}},
        "hyperparameters": {
            "optimizer": optimizer,
            "lr": 1e-3,
            "momentum": 0.9,
            "batch_size": 64,
            "steps": 32,
        },
        "count": 10**4,
    }
    words = [sys.executable, "-c", MEASURE, json.dumps(job), json.dumps(counts)]
    output = subprocess.run(
        words, env=os.environ | EXACT, capture_output=True, text=True, check=True
    ).stdout
    report = json.loads(output)
    assert report["predicted"] == pytest.approx(report["measured"], rel=0.2)


def test_what_was_freed_does_not_count():
    def run():
        kept = torch.ones(100)
        for _ in range(5):
            kept = kept + torch.ones(100)
        return kept.reshape(10, 10)

    assert running_bytes(run) == 3 * 400  # the sum so far, the next term, their sum
    assert running_bytes(lambda: None) == 0
