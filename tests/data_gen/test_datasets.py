"""`datasets.load_dataset` reads what generation writes, and not an older zoo out of its cache."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from data_gen.config import Job
from data_gen.generation import generate
from tests.fuzz_store import JOB

READ = """
import json
import sys
import datasets

datasets.disable_progress_bars()
folder, cache, *names = sys.argv[1:]
rows_of = {}
for name in names:
    splits = datasets.load_dataset(folder, name, cache_dir=cache)
    rows_of[name] = {split: rows.to_dict() for split, rows in splits.items()}
print(json.dumps(rows_of))
"""


def generated(folder: Path, seed: int) -> Path:
    job = Job.model_validate({**JOB, "seed": seed})
    return generate(job, folder, device="cpu", compile=False, quiet=True)


def loaded(folder: Path, cache: Path, names: list[str]) -> dict:
    """All configurations as `datasets` gives them in a process of its own."""
    environment = {**os.environ, "HF_HOME": str(cache), "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", READ, str(folder), str(cache), *names]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def expected(folder: Path) -> dict:
    """The same as symzoo reads it."""
    rows = {}
    for name, population in zoo.load(folder).items():
        final, along = {}, {}
        for split in population.splits:
            params = {key: tensor.tolist() for key, tensor in population.params(split).items()}
            final[split] = {**population.table(split).to_dict("list"), **params}
            steps, checkpoints = population.trajectory(split)
            along[split] = {key: tensor.tolist() for key, tensor in checkpoints.items()}
            along[split]["checkpoint_steps"] = steps.tolist()
            along[split]["network_id"] = final[split]["network_id"]
        rows |= {name: final, f"{name}.trajectory": along}
    return rows


@pytest.mark.filterwarnings("ignore")
def test_a_zoo_that_takes_the_place_of_another_is_read_in_its_place(tmp_path):
    folder, cache = tmp_path / "zoo", tmp_path / "cache"
    first = expected(generated(folder, 0))
    assert loaded(folder, cache, list(first)) == first
    shutil.rmtree(folder)
    second = expected(generated(folder, 1))
    assert second.keys() == first.keys()
    assert second != first
    assert loaded(folder, cache, list(second)) == second
