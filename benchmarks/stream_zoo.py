"""Training a metanet on a zoo that is larger than the memory allowed.

Peak memory, speed, and the same result as in memory.

    python benchmarks/stream_zoo.py [--gigabytes 20] [--folder DIR] [--repeats 3] [--save FILE]

Makes a zoo of random networks (64-128-64-10, 68.9 kB each) under a temporary folder, after a look
at the free space, and removes it. A child process then fits a flat perceptron for one epoch and
predicts the test split. Its memory is sampled: anonymous and mapped pages apart; the page cache
belongs to the system and is in neither. The pages of the larger zoo are dropped from the cache
before its run, which is allowed 2 GiB in all. The comparison with training in memory is on a
smaller zoo, which fits.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_gen.columns import job_columns
from data_gen.config import Job
from zoo.architectures import build_architecture
from zoo.store.atomic import sha256, write_text
from zoo.store.entries import DEFAULT, ShardEntry, TaskEntry, default_splitting
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import MANIFEST_NAME, Manifest, PopulationEntry
from zoo.store.zoo import load

HIDDEN, INPUT_SHAPE, CLASSES = [128, 64], (1, 8, 8), 10
SHARD = 3_600  # networks: 248 MB
SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}
BATCH = 128
ALLOWED = (
    2 * 2**30
)  # bytes of private writable memory of the whole process, libraries included: `ulimit -d 2097152`
JOB = {
    "task": {"name": "digits"},
    "populations": {"standard": {"architecture": {"name": "mlp", "hidden": HIDDEN}}},
    "hyperparameters": {"lr": {"uniform": [0.01, 1.0]}, "steps": 1},
}


def make_zoo(folder: Path, gigabytes: float) -> None:
    """Write a zoo of random networks whose accuracy follows from the size of their weights."""
    architecture = build_architecture("mlp", {"hidden": HIDDEN}, INPUT_SHAPE, CLASSES)
    total = max(100, int(gigabytes * 1e9 / (4 * architecture.space.num_params)))
    if shutil.disk_usage(folder.parent).free < 1.1e9 * gigabytes + 5e9:
        raise SystemExit(f"{folder}: {gigabytes} GB and 5 GB to spare do not fit on the disk")
    split = {name: int(share * total) for name, share in SHARES.items()}
    job = Job.model_validate({**JOB, "count": sum(split.values())})
    shards, start, generator = {}, 0, np.random.default_rng(0)
    for name, count in split.items():
        of = -(-count // SHARD)
        for number in range(of):
            rows = min(SHARD, count - number * SHARD)
            path = f"standard/{name}-{number:05d}-of-{of:05d}.h5"
            attributes = {
                "population": "standard",
                "split": name,
                "shard": number,
                "shards": of,
                "config_sha256": job.sha256,
            }
            write_columns(
                folder / path,
                random_networks(architecture.space.shapes, start, rows, generator),
                attributes,
            )
            shards[path] = ShardEntry(
                rows=rows, bytes=(folder / path).stat().st_size, sha256=sha256(folder / path)
            )
            start += rows
    entry = PopulationEntry(
        architecture=job.populations["standard"].architecture,
        asymmetry=None,
        space=json.loads(architecture.space.to_json()),
        splittings={DEFAULT: default_splitting(split)},
        constants=None,
        shards=shards,
    )
    manifest = Manifest(
        config=json.loads(job.as_json()),
        config_sha256=job.sha256,
        task=TaskEntry(kind="classification", input_shape=INPUT_SHAPE, output_shape=(CLASSES,)),
        columns=job_columns(job, "classification", random_networks({}, 0, 1, generator)),
        paired=True,
        environment={"python": platform.python_version()},
        populations={"standard": entry},
    )
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1))


def random_networks(
    shapes: Mapping[str, Sequence[int]], start: int, rows: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Columns of one shard: normal weights, of a size that is drawn for each network."""
    size = generator.uniform(0.05, 0.5, rows)
    accuracy = 1 / (1 + np.exp(2 - 12 * size + 0.1 * generator.standard_normal(rows)))
    ones, zeros = np.ones(rows, np.int64), np.zeros(rows)
    columns: dict[str, np.ndarray] = {
        "network_id": np.arange(start, start + rows),
        "seed": np.arange(start, start + rows),
    }
    columns |= {
        "optimizer": np.full(rows, "sgd", object),
        "schedule": np.full(rows, "constant", object),
        "lr": 2 * size,
    }
    columns |= dict.fromkeys(("weight_decay", "momentum", "label_smoothing", "label_noise"), zeros)
    columns |= {
        "train_fraction": zeros + 1,
        "init_scale": zeros + 1,
        "batch_size": 64 * ones,
        "steps": ones,
    }
    columns |= {
        "train_loss": 1 - accuracy,
        "train_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "test_accuracy": accuracy,
    }
    columns |= {
        "generalization_gap": zeros,
        "train_size": 1000 * ones,
        "diverged": zeros.astype(bool),
        "diverged_at": -ones,
    }
    for name, shape in shapes.items():
        draws = generator.standard_normal((rows, *shape), dtype=np.float32)
        columns[name] = draws * size.astype(np.float32).reshape(-1, *(1,) * len(shape))
    return columns


def drop_cache(folder: Path) -> None:
    """Ask the system to forget the pages of a zoo."""
    for path in folder.rglob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def child(
    folder: Path, stream: bool, workers: int, predictions: Path | None, limit: int | None
) -> None:
    """What the measured process does: one epoch and the predictions of the test split."""
    from metanet.estimator import Metanet

    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    population = load(folder)["standard"]
    start = time.perf_counter()
    model = Metanet(
        "mlp", width=32, epochs=1, batch_size=BATCH, seed=0, stream=stream, workers=workers
    ).fit(population)
    fitted = time.perf_counter()
    predicted = model.predict(population, split="test")
    if predictions:
        np.save(predictions, predicted)
    times = {"fit": fitted - start, "predict": time.perf_counter() - fitted}
    print(
        json.dumps({**times, "r2": model.score(population), "loss": model.history_.validation_loss})
    )


def measured(
    folder: Path,
    stream: bool,
    workers: int,
    predictions: Path | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run `child` and watch its memory."""
    words = [
        sys.executable,
        __file__,
        "--child",
        str(folder),
        "--workers",
        str(workers),
        *["--stream"] * stream,
    ]
    words += ["--predictions", str(predictions)] if predictions else []
    words += ["--limit", str(limit)] if limit else []
    # Arrow's own allocator reserves a GiB and uses little of it.
    allocator = {"ARROW_DEFAULT_MEMORY_POOL": "system"} if limit else {}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | allocator)
    peak = {"VmHWM": 0, "VmPeak": 0, "RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in peak:
                peak[name] = max(peak[name], int(value.split()[0]) * 1024)
        time.sleep(0.05)
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the measured process failed with status {process.returncode}")
    return {**json.loads(output.splitlines()[-1]), **peak}


def baseline() -> dict[str, int]:
    """Memory of a process that has only imported what it needs."""
    code = (
        "import metanet.estimator, zoo, pathlib; "
        "print(pathlib.Path('/proc/self/status').read_text())"
    )
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: int(status[name].split()[0]) * 1024 for name in ("VmHWM", "VmPeak")}


def loader_rates(folder: Path, cold: bool, most: int) -> dict[int, tuple[float, float]]:
    """Batches and megabytes a second of reading alone, by number of workers."""
    population, rates = load(folder)["standard"], {}
    for workers in (0, 1, 2, 4):
        if cold:
            drop_cache(folder)
        start, batches = time.perf_counter(), 0
        for batches, _ in enumerate(
            population.batches("train", BATCH, seed=workers, num_networks=None, workers=workers), 1
        ):
            if batches == most:
                break
        seconds = time.perf_counter() - start
        rates[workers] = (
            batches / seconds,
            batches * BATCH * 4 * population.space.num_params / 1e6 / seconds,
        )
    return rates


def summary(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """Median and range over runs."""
    values = [run[name] for run in runs]
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def report(folder: Path, gigabytes: float, small: float, repeats: int) -> list[str]:
    """Make the zoos, measure, and write the tables as Markdown."""
    base = baseline()
    resident, address_space = (f"{base[name] / 1e9:.2f}" for name in ("VmHWM", "VmPeak"))
    lines = [
        f"A process that has imported symzoo: {resident} GB resident, {address_space} GB of "
        "address space.",
        "",
    ]
    titles = (
        "zoo, GB",
        "way",
        "workers",
        "peak resident, GB",
        "anonymous",
        "mapped files",
        "address space, GB",
    )
    lines += [f"| {' | '.join(titles)} | fit, s | predict, s | MB/s | R^2 |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    make_zoo(folder / "small", small)
    files = {}
    for stream, workers in [(False, 0), (True, 0), (True, 1), (True, 2)]:
        files[stream, workers] = folder / f"{stream}-{workers}.npy"
        runs = [
            measured(folder / "small", stream, workers, files[stream, workers])
            for _ in range(repeats)
        ]
        lines.append(row(small, "stream" if stream else "memory", workers, runs))
    first = np.load(files[False, 0])
    equal = all(np.array_equal(first, np.load(path)) for path in files.values())
    shutil.rmtree(folder / "small")
    make_zoo(folder / "large", gigabytes)
    reading = []
    for cold in (False, True):
        rates = loader_rates(folder / "large", cold, 200)
        what = "after the page cache was dropped" if cold else "as the page cache is"
        reading += [
            f"| {what} | {workers} | {rate:.0f} | {speed:.0f} |"
            for workers, (rate, speed) in rates.items()
        ]
    drop_cache(folder / "large")
    run = measured(folder / "large", True, 1, limit=ALLOWED)
    lines.append(row(gigabytes, "stream, `ulimit -d 2097152`", 1, [run]))
    lines += [
        "",
        f"Predictions on the zoo of {small} GB ({len(first)} networks), all ways: "
        f"{'identical' if equal else 'NOT IDENTICAL'}.",
        "",
    ]
    lines += ["| reading alone | workers | batches/s | MB/s |", "|---|---|---|---|", *reading]
    return lines


def row(gigabytes: float, way: str, workers: int, runs: Sequence[Mapping[str, Any]]) -> str:
    """One line of the table.

    An epoch reads the training networks twice: once for normalization, once to learn.
    """
    memory = [
        f"{max(run[name] for run in runs) / 1e9:.2f}"
        for name in ("VmHWM", "RssAnon", "RssFile", "VmPeak")
    ]
    speed = (
        (2 * SHARES["train"] + SHARES["validation"])
        * gigabytes
        * 1e3
        / statistics.median(run["fit"] for run in runs)
    )
    times = [summary(runs, "fit"), summary(runs, "predict"), f"{speed:.0f}", f"{runs[0]['r2']:.3f}"]
    line = f"| {gigabytes} | {way} | {workers} | {' | '.join(memory)} | {' | '.join(times)} |"
    print(line, file=sys.stderr)
    return line


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument(
        "--small", type=float, default=1.5, help="size of the zoo that fits into memory, GB"
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--predictions", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.stream, options.workers, options.predictions, options.limit)
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="stream-zoo-") as folder:
        lines = report(Path(folder), options.gigabytes, options.small, options.repeats)
    machine = (
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch "
        f"{torch.__version__}, one thread"
    )
    runs = (
        f"{options.repeats} runs of each row of the smaller zoo (median, range), one of the larger"
    )
    head = ["# Streaming", "", f"{datetime.date.today()}, {machine}; {runs}.", ""]
    text = "\n".join([*head, *lines, ""])
    print(text)
    if options.save:
        options.save.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
