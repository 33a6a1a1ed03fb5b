"""Lock step on one device by the number of networks.

Time of a step, ratio to the plain loop there, share of the peak, memory.

    python -m benchmarks.lock_step_device [--device cuda] [--sizes 16 64 256 1024 4096 16384]
    [--repeats 3] [--save FILE]

For a GPU; `--device cpu --sizes 2 4` tries the script without one. Times are of compiled training
steps alone (no compilation, no evaluation), the variants in turn, in one run. The last lines
project the seed zoo of Lim et al. 2024 (arXiv 2405.20231): 20,000 ResNet8s, batch 512, 10 to 40
epochs of 50,000 images.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.train_networks import CASES, operations, plain_module, spread, synthetic_task
from data_gen.config import Job
from data_gen.executors.processes import prepare_process
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.memory import training_bytes
from data_gen.training.runs import draw_view
from data_gen.training.trainer import STEPS_AHEAD

PROJECTED, NETWORKS, MEAN_STEPS = "ResNet8 of width 1, 32x32, batch 512", 20_000, 25 * 50_000 // 512
STEPS = STEPS_AHEAD


def synchronized(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a run, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class LockStep:
    """Some networks of a case that train on a device."""

    def __init__(self, spec: dict[str, Any], device: torch.device, count: int):
        hyperparameters = {
            "steps": 10**6,
            "batch_size": spec["batch"],
            "lr": 0.001,
            "momentum": 0.9,
            "weight_decay": 1e-4,
        }
        populations = {"p": {"architecture": spec["architecture"]}}
        job = Job.model_validate(
            {
                "task": {},
                "populations": populations,
                "hyperparameters": hyperparameters,
                "count": count,
            }
        )
        worker = ShardWorker(job, Path(), device, allow_compile=True)
        worker.__dict__["task"] = synthetic_task(spec["shape"]).to(device, torch.float32)
        self.trainer, table = worker.trainer("p"), full_table(job, worker.task, torch.arange(count))
        one = {name: column[:1] for name, column in table.items()}
        per_network = training_bytes(
            self.trainer.uncompiled(), worker.runs(one), worker.initial(self.trainer, one)
        )
        self.predicted = count * per_network
        self.networks, self.state = worker.start(self.trainer, table)
        self.seen = draw_view(self.networks, self.trainer.task, 0)

    def run(self) -> None:
        """Train for `STEPS` steps."""
        self.trainer.advance(self.networks, self.seen, self.state, STEPS)


def plain_loop(spec: dict[str, Any], case: str, device: torch.device) -> Callable[[], None]:
    """Steps of one network as anyone would write them, images on the device."""
    task, module = (
        synthetic_task(spec["shape"]).to(device, torch.float32),
        plain_module(case).to(device),
    )
    x, y = task.inputs(task.train.x), task.train.y
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)

    def run() -> None:
        for _ in range(STEPS):
            index = torch.randint(0, len(y), (spec["batch"],), device=device)
            loss = F.cross_entropy(module(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def peak_rate(device: torch.device) -> float:
    """Measured floating point operations a second of a large product in float32, TF32 off."""
    a, b = (torch.randn(4096, 4096, device=device) for _ in range(2))
    synchronized(lambda: a @ b, device)
    return 2 * 4096**3 * 10 / synchronized(lambda: [a @ b for _ in range(10)], device)


def row(
    case: str, spec: dict[str, Any], device: torch.device, count: int, repeats: int, peak: float
) -> tuple[str, float]:
    """One line of the table, and microseconds of a network-step."""
    is_cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated() if is_cuda else 0
    lock_step, loop = LockStep(spec, device, count), plain_loop(spec, case, device)
    compiling = sum(
        synchronized(lock_step.run, device) for _ in range(2)
    )  # the second may compile the order of later passes
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    synchronized(loop, device)
    times, ratios = [], []
    for _ in range(repeats):
        times.append(1e6 * synchronized(lock_step.run, device) / STEPS / count)
        ratios.append(1e6 * synchronized(loop, device) / STEPS / times[-1])
    share = operations(case, spec["batch"]) / (sorted(times)[len(times) // 2] * 1e-6) / peak
    memory = f"{lock_step.predicted / 1e9:.2f}"
    if is_cuda:
        memory += f" / {(torch.cuda.max_memory_allocated() - before) / 1e9:.2f}"
    columns = [
        f"{count:,}",
        spread(times, 2),
        spread(ratios, 1),
        f"{share:.3f}",
        memory,
        f"{compiling:.0f}",
    ]
    return f"| {' | '.join(columns)} |", sorted(times)[len(times) // 2]


def profile_of(spec: dict[str, Any], device: torch.device, count: int) -> list[str]:
    """Where a step spends the time of the device, as rows of a table."""
    from torch.profiler import ProfilerActivity, profile

    lock_step = LockStep(spec, device, count)
    lock_step.run()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        synchronized(lock_step.run, device)
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = sorted(
        ((getattr(event, kind), event.key) for event in recorded.key_averages()), reverse=True
    )
    total = sum(value for value, _ in times) or 1.0
    return [f"| `{name[:70]}` | {value / total:.0%} |" for value, name in times[:12]]


def main() -> None:
    """Run and print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 1024, 4096, 16384])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    prepare_process(torch.get_num_threads())
    name, peak = torch.cuda.get_device_name() if device.type == "cuda" else "CPU", peak_rate(device)
    lines = ["## Lock step by the number of networks", ""]
    lines += [
        f"{datetime.date.today()}, {name}, torch {torch.__version__}, n = {options.repeats}. "
        "Median (smallest to largest)."
    ]
    lines += [f"Products of 4096 x 4096 in float32 reach {peak / 1e12:.2f} TFLOP/s.", ""]
    cases = CASES | {PROJECTED: {**CASES["ResNet8 of width 1, 32x32, batch 64"], "batch": 512}}
    for case, spec in cases.items():
        lines += [
            f"### {case}",
            "",
            "| networks | us a network-step | times faster than the plain loop | of the peak |",
        ]
        lines[-1] += " GB predicted / taken | compilation and first block, s |"
        lines += ["|---|---|---|---|---|---|"]
        best = float("inf")
        for count in options.sizes:
            try:
                line, fastest = row(case, spec, device, count, options.repeats, peak)
            except torch.OutOfMemoryError:
                lines.append(f"| {count:,} | does not fit | | | | |")
                break
            lines.append(line)
            best = min(best, fastest)
        if case == PROJECTED:
            hours = best * 1e-6 * NETWORKS * MEAN_STEPS / 3600
            lines += [
                "",
                f"{NETWORKS:,} networks with {MEAN_STEPS:,} steps on average: {hours:.1f} hours.",
            ]
        lines += [
            "",
            "| kernel | share of a step |",
            "|---|---|",
            *profile_of(spec, device, options.sizes[0]),
            "",
        ]
    print("\n".join(lines))
    if options.save:
        options.save.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
