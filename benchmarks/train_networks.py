"""Throughput of training many small networks.

Lock step against the plain loop, JAX, and the machine's own matrix products.

    python benchmarks/train_networks.py [--repeats 5] [--save FILE] [--variants traced,loop]
        [--against CHECKOUT]

Everything is timed in one run, the variants in turn, so that ratios hold while the machine's speed
drifts. Times are microseconds of wall clock for one step of one network, all cores working:
`lock step` as generate-zoo runs it (one process a core; data order, metrics and transfers included;
compilation reported apart), `traced` the same of an equal `nn.Module`, `before` the same as
`lock step` with the code of another checkout, `loop` one `nn.Module` with `torch.optim` at a time
with all threads,
`loops` one such loop a core, `jax` vmap + jit + scan with all threads (skipped if jax is not
installed).
"""

import argparse
import datetime
import importlib.util
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from data_gen.config import Job
from data_gen.executors.processes import keep_memory, num_cores
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.tasks.data import Part, Task

WIDTHS = (64, 32, 32, 10)
CASES: dict[str, dict[str, Any]] = {
    "MLP 64-32-32-10, batch 64": {
        "shape": (1, 8, 8),
        "architecture": {"name": "mlp", "hidden": [32, 32]},
        "batch": 64,
        "chunks": 3,
        "steps": 256,
        "loop_steps": 600,
    },
    "CNN 1-16-16-16-10, 14x14, batch 32": {
        "shape": (1, 14, 14),
        "architecture": {"name": "cnn", "channels": [16, 16, 16]},
        "batch": 32,
        "chunks": 1,
        "steps": 256,
        "loop_steps": 600,
    },
    "ResNet8 of width 1, 32x32, batch 64": {
        "shape": (3, 32, 32),
        "architecture": {"name": "resnet"},
        "batch": 64,
        "chunks": 1,
        "steps": 64,
        "loop_steps": 24,
    },
}
_state: dict[Any, Any] = {}


def synthetic_task(shape: tuple[int, ...]) -> Task:
    """Random uint8 images; throughput does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1300, *shape), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 10, (1300,), generator=generator)
    ones = (1,) * len(shape)
    return Task(
        Part(x[:1200], y[:1200]),
        Part(x[1200:], y[1200:]),
        10,
        torch.full(ones, 127.0),
        torch.full(ones, 70.0),
    )


def start_process(threads: int) -> None:
    """Settings of a process of generate-zoo (one thread), or of a plain script (all threads)."""
    torch.set_num_threads(threads)
    if threads == 1:
        keep_memory()


def lock_step(case: str, traced: bool = False) -> tuple[float, int, int]:
    """Seconds for some chunks, number of network-steps, and networks in a chunk.

    The first call compiles.
    """
    spec, key = CASES[case], (case, "traced") if traced else case
    if key not in _state:
        module = {"module": "benchmarks.train_networks:plain_module", "options": {"case": case}}
        hyperparameters = {
            "steps": spec["steps"],
            "batch_size": spec["batch"],
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 1e-4,
        }
        populations = {"p": {"architecture": module if traced else spec["architecture"]}}
        job = Job.model_validate(
            {
                "task": {},
                "populations": populations,
                "hyperparameters": hyperparameters,
                "count": 10**6,
            }
        )
        worker = ShardWorker(job, Path(), torch.device("cpu"), allow_compile=True)
        worker.set_up(0)
        worker.__dict__["task"] = synthetic_task(spec["shape"])
        size = worker.chunk_size("p", full_table(job, worker.task, torch.arange(10**6)))
        _state[key] = (worker, size)
    worker, size = _state[key]
    ids = torch.arange(spec["chunks"] * size)
    start = time.perf_counter()
    worker.train("p", ids, lambda _: None)
    return time.perf_counter() - start, len(ids) * CASES[case]["steps"], size


def traced(case: str) -> tuple[float, int, int]:
    """`lock_step` of the module that anyone would write."""
    return lock_step(case, traced=True)


def plain_module(case: str) -> nn.Module:
    """The network as anyone would write it."""
    if case.startswith("MLP"):
        first, second, third, last = WIDTHS
        hidden = (nn.Linear(first, second), nn.ReLU(), nn.Linear(second, third), nn.ReLU())
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(third, last))
    if case.startswith("ResNet"):
        return plain_resnet()
    convs = [layer for i in (1, 16, 16) for layer in (nn.Conv2d(i, 16, 3, 2, 1), nn.ReLU())]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


class Block(nn.Module):
    """Two convolutions and a shortcut, as anyone would write them."""

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        conv1, conv2 = (
            nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False),
            nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False),
        )
        self.body = nn.Sequential(
            conv1, nn.BatchNorm2d(fan_out), nn.ReLU(), conv2, nn.BatchNorm2d(fan_out)
        )
        projection = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
        self.shortcut = (
            nn.Identity()
            if fan_in == fan_out
            else nn.Sequential(projection, nn.BatchNorm2d(fan_out))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        return F.relu(self.body(x) + self.shortcut(x))


def plain_resnet() -> nn.Module:
    """ResNet8 of width 1."""
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def plain_loop(case: str) -> tuple[float, int]:
    """Seconds and steps of one network trained by a plain loop."""
    task, module, batch = (
        synthetic_task(CASES[case]["shape"]),
        plain_module(case),
        CASES[case]["batch"],
    )
    x, y = task.inputs(task.train.x), task.train.y
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    steps = CASES[case]["loop_steps"]
    start = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(0, len(y), (batch,), generator=generator)
        loss = F.cross_entropy(module(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start, steps


def jax_lock_step(case: str) -> tuple[float, int]:
    """Seconds and network-steps of JAX; the first call compiles."""
    from benchmarks.jax_lock_step import compiled_training

    if ("jax", case) not in _state:
        _state["jax", case] = compiled_training(case, CASES[case]["shape"], CASES[case]["batch"])
    run, network_steps = _state["jax", case]
    start = time.perf_counter()
    run()
    return time.perf_counter() - start, network_steps


def product_rate(_case: str) -> tuple[float, float]:
    """Seconds and arithmetic operations of batched 64 x 64 x 32 products."""
    a, b = torch.randn(64, 64, 64), torch.randn(64, 64, 32)
    torch.bmm(a, b)
    start = time.perf_counter()
    for _ in range(500):
        torch.bmm(a, b)
    return time.perf_counter() - start, 500 * 64 * 2 * 64 * 64 * 32


def operations(case: str, batch: int) -> float:
    """Multiplications and additions of the products in one training step of one network."""
    if case.startswith("MLP"):
        layers = [fan_in * fan_out for fan_in, fan_out in pairwise(WIDTHS)]
    elif case.startswith("CNN"):
        layers = [49 * 16 * 9, 16 * 16 * 144, 4 * 16 * 144, 160]
    else:
        first, second, third = 1024 * 16, 256 * 32, 64 * 64
        layers = [
            first * 27,
            first * 144,
            first * 144,
            second * (144 + 288 + 16),
            third * (288 + 576 + 32),
            640,
        ]
    return 2 * batch * (3 * sum(layers) - layers[0])


KINDS = {
    "matrix products": ("aten::bmm", "aten::baddbmm", "aten::mm", "aten::addmm"),
    "convolutions": ("mkldnn", "convolution"),
    "compiled elementwise kernels (non-linearities, loss, optimizer)": ("CompiledFxGraph",),
    "guards and entry of compiled functions": (
        "Dynamo",
        "Torch-Compiled",
        "AOTDispatcher",
        "Pregraph",
    ),
    "gathering images": ("aten::index_select",),
}


def where_time_goes(case: str) -> list[str]:
    """Shares of one process's time, from a profile of one chunk, as rows of a table."""
    from torch.profiler import ProfilerActivity, profile

    worker, size = _state[case]
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        worker.train("p", torch.arange(size), lambda _: None)
    times = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    total = sum(times.values())
    shares = {
        name: sum(t for key, t in times.items() if any(p in key for p in parts)) / total
        for name, parts in KINDS.items()
    }
    shares["the rest (data order, data view, metrics, copies)"] = 1 - sum(shares.values())
    return [f"| {name} | {share:.0%} |" for name, share in shares.items()]


def checkout(_case: str) -> Path:
    """Where the code comes from."""
    return Path(sys.modules["data_gen"].__path__[0]).parent.resolve()


def peak_memory(_case: str) -> float:
    """Largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Bench:
    """Two pools: one single-threaded process a core, and one process with all threads.

    With another checkout, a third: one process a core that runs the code there.
    """

    def __init__(self, cores: int, variants: list[str], against: Path | None = None):
        context = multiprocessing.get_context("spawn")
        self.cores = cores
        self.each = [ProcessPoolExecutor(1, context, start_process, (1,)) for _ in range(cores)]
        self.whole = ProcessPoolExecutor(1, context, start_process, (cores,))
        self.variants, self.before = variants, []
        if against is not None:
            self.before = [
                ProcessPoolExecutor(1, context, start_process, (1,)) for _ in range(cores)
            ]
            sys.path.insert(0, str(against.resolve()))  # what is started now has this path
            for folder in self.run(self.before, checkout, ""):
                assert folder == against.resolve(), folder
            sys.path.pop(0)

    def everywhere(self, function: Any, case: str) -> list[Any]:
        """Run on every core at once."""
        return self.run(self.each, function, case)

    def run(self, pools: list[ProcessPoolExecutor], function: Any, case: str) -> list[Any]:
        """Run in some processes at once."""
        return [future.result() for future in [pool.submit(function, case) for pool in pools]]

    def per_step(self, results: list[Any]) -> float:
        """Microseconds for one network-step, all cores together."""
        return 1e6 / sum(result[1] / result[0] for result in results)

    def measure(self, case: str, with_jax: bool) -> dict[str, float]:
        """One round of all variants, in turn."""
        row = {"lock step": self.per_step(self.everywhere(lock_step, case))}
        if self.before:
            row["before"] = self.per_step(self.run(self.before, lock_step, case))
        if "traced" in self.variants:
            row["traced"] = self.per_step(self.everywhere(traced, case))
        if "loop" in self.variants:
            row["loop"] = self.per_step([self.whole.submit(plain_loop, case).result()])
            row["loops"] = self.per_step(self.everywhere(plain_loop, case))
        if with_jax:
            row["jax"] = self.per_step([self.whole.submit(jax_lock_step, case).result()])
        row["GFLOP/s"] = (
            sum(flops / seconds for seconds, flops in self.everywhere(product_rate, case)) / 1e9
        )
        return row


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to "
        f"{max(values):.{digits}f})"
    )


def report(case: str, bench: Bench, repeats: int, with_jax: bool) -> list[str]:
    """Measure one case and describe it."""
    start = time.perf_counter()
    size = bench.everywhere(lock_step, case)[0][2]
    first = time.perf_counter() - start
    if bench.before:
        bench.run(bench.before, lock_step, case)
    if "traced" in bench.variants:
        bench.everywhere(traced, case)
    with_jax = with_jax and "jax" in bench.variants and not case.startswith("ResNet")
    if with_jax:
        bench.whole.submit(jax_lock_step, case).result()
    rows = [bench.measure(case, with_jax) for _ in range(repeats)]
    lines = [
        f"### {case}",
        "",
        "| variant | us a network-step | times faster is lock step |",
        "|---|---|---|",
    ]
    for name in [name for name in rows[0] if name != "GFLOP/s"]:
        ratios = [row[name] / row["lock step"] for row in rows]
        lines.append(f"| {name} | {spread([row[name] for row in rows])} | {spread(ratios, 2)} |")
    rate = [row["GFLOP/s"] for row in rows]
    needed = operations(case, CASES[case]["batch"])
    share = [needed / row["lock step"] / 1e3 / row["GFLOP/s"] for row in rows]
    memory = bench.everywhere(peak_memory, case)
    shares = bench.each[0].submit(where_time_goes, case).result()
    return [
        *lines,
        "",
        f"Batched 64x64x32 products reach {spread(rate, 0)} GFLOP/s on {bench.cores} cores; a step "
        "needs "
        f"{needed / 1e6:.2f} MFLOP of products, "
        f"so lock step runs at {spread(share, 2)} of that rate.",
        "",
        "| where a process spends its time | share |",
        "|---|---|",
        *shares,
        "",
        f"Chunk: {size} networks; largest resident size of a process {max(memory):.0f} MB, PyTorch "
        "and its compiler included. "
        f"First chunks with compilation: {first:.0f} s.",
        "",
    ]


def main() -> None:
    """Run and print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--variants", default="traced,loop,jax", help="what to time besides")
    parser.add_argument("--cases", default="MLP,CNN,ResNet")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    options = parser.parse_args()
    with_jax = importlib.util.find_spec("jax") is not None
    cores = options.cores or num_cores()
    bench = Bench(cores, options.variants.split(","), options.against)
    title = (
        f"{datetime.date.today()}, {cores} cores of {platform.machine()}, torch "
        f"{torch.__version__}, n = {options.repeats}"
    )
    lines = ["## Training networks", "", f"{title}. Median (smallest to largest).", ""]
    if not with_jax:
        lines += ["jax is not installed: its row is left out.", ""]
    for case in [case for case in CASES if case.split()[0].rstrip("8") in options.cases]:
        lines += report(case, bench, options.repeats, with_jax)
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
