"""Arguments that nobody should give: every public entry point refuses them in words.

    python -m tests.fuzz_arguments [--cases 2000] [--seed 0] [--only TEXT]

A case gives one argument of one entry point one value of `VALUES`: of a wrong type, negative, zero,
huge, not a number, infinite, empty, too long, in another script. The call runs in a process of its
own with limits of memory and time. It may work. Else it raises a `ValueError`, `TypeError` or
`OSError` that this project wrote, or ends a command with a message; the message is printable.
"""

import argparse
import collections
import inspect
import io
import linecache
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pydantic
import torch
from click.testing import CliRunner
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

import metanet
import zoo
from data_gen.cli import main as generate_zoo
from data_gen.config import HYPERPARAMETERS, Job, load_job
from data_gen.generation import generate
from data_gen.tasks.task import TaskConfig
from metanet.testing import random_population
from studies.cli import main as symzoo
from tests.forks import in_a_process
from zoo.architectures import ARCHITECTURES, ASYMMETRIES, build_architecture, make_asymmetric
from zoo.config import ConfigError

SECONDS = 5
MEMORY = 500 * 2**20
ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / package) for package in ("zoo", "data_gen", "metanet", "studies"))
VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "no": False,
    "text": "gelu",
    "number in a text": "3",
    "empty text": "",
    "blank": " ",
    "long text": "x" * 5000,
    "other script": "ünï\u2603\u202e",
    "zero character": "a\0b",
    "escape": "\x1b[31m",
    "path": "/dev/null/there",
    "up": "../../../etc/passwd",
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "half": 0.5,
    "not whole": 2.5,
    "negative": -0.1,
    "large": 10**7,
    "huge": 10**18,
    "beyond 64 bits": 2**70,
    "huge float": 1e300,
    "nan": float("nan"),
    "infinite": float("inf"),
    "empty list": [],
    "list": [1, 2],
    "nested list": [[[1]]],
    "long list": [1] * 5000,
    "list of texts": ["a", "b"],
    "list of nan": [float("nan")],
    "empty mapping": {},
    "mapping": {"a": 1},
    "nested mapping": {"uniform": {"a": [1]}},
}
OBJECTS: dict[str, Any] = {
    "object": object(),
    "bytes": b"x",
    "array": np.arange(3.0),
    "tensor": torch.arange(3.0),
    "array of nan": np.array([np.nan]),
    "function": lambda *_: 1 / 0,
    "class": dict,
    "complex": 1j,
}
JOB: dict[str, Any] = {
    "task": {"name": "digits", "train_size": 40, "test_size": 20},
    "populations": {"p": {"architecture": {"name": "mlp", "hidden": [3]}}},
    "hyperparameters": {"steps": 2},
    "count": 4,
}


@dataclass(frozen=True)
class Entry:
    """One argument of one entry point.

    Attributes:
        name: Of both.
        call: Given a value and an empty folder.
        objects: Whether the value may be an object that no file can hold.
    """

    name: str
    call: Callable[[Any, Path], object]
    objects: bool = True

    def values(self) -> dict[str, Any]:
        """What it is given."""
        return VALUES | OBJECTS if self.objects else VALUES


def options_of(builder: Callable[..., object]) -> list[str]:
    """Names of the keyword arguments of a function."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(builder).parameters.values()
    return [p.name for p in parameters if p.kind not in kinds and p.name != "self"]


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """A job in this process."""
    generate(Job.model_validate(job), folder / "zoo", device="cpu", compile=False, quiet=True)


def job_entries() -> list[Entry]:
    """Keys of a job."""

    def key(*path: str, base: Mapping[str, Any] = JOB) -> Entry:
        def call(value: Any, folder: Path) -> None:
            run_job(placed(base, path, value), folder)

        return Entry("job: " + ".".join(path), call, objects=False)

    keys = [key(name) for name in Job.model_fields]
    keys += [key("task", name) for name in TaskConfig.model_fields]
    # As many steps as are asked for are done, however long that takes.
    bounded = [name for name in HYPERPARAMETERS if name not in ("steps", "epochs")]
    keys += [key("hyperparameters", name) for name in bounded]
    keys += [key("split", name) for name in ("train", "validation", "test")]
    keys += [key("populations", "p", name) for name in ("architecture", "asymmetry")]
    for name, builder in ARCHITECTURES.items():
        task = {"name": "graph", "train_size": 40} if name == "gin" else JOB["task"]
        base = JOB | {"task": task, "populations": {"p": {"architecture": {"name": name}}}}
        place = ("populations", "p", "architecture")
        keys += [key(*place, option, base=base) for option in options_of(builder)[2:]]
    for kind, builder in ASYMMETRIES.items():
        population = {**JOB["populations"]["p"], "asymmetry": {"kind": kind}}
        base = JOB | {"populations": {"p": population}}
        place = ("populations", "p", "asymmetry")
        keys += [key(*place, option, base=base) for option in options_of(builder)[2:]]
    return keys


def placed(tree: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with another value at one place."""
    first, *rest = path
    return {**tree, first: placed(tree.get(first, {}), tuple(rest), value) if rest else value}


def metanet_entries() -> list[Entry]:
    """Arguments of `Metanet`, and what `fit` and `predict` take."""
    population = random_population(sizes=(12, 6, 6))

    def option(model: str, name: str) -> Entry:
        def call(value: Any, folder: Path) -> None:
            arguments = {"model": model, "epochs": 1, "batch_size": 8, name: value}
            metanet.Metanet(**arguments).fit(population).predict(population)

        return Entry(f"Metanet({model!r}): {name}", call)

    def fitted(value: Any, folder: Path) -> None:
        metanet.Metanet("mlp", epochs=1).fit(value)

    def predicted(value: Any, folder: Path) -> None:
        metanet.Metanet("mlp", epochs=1).fit(population).predict(value)

    left_out = ("options", "epochs")  # as many epochs as are asked for are done
    names = [name for name in options_of(metanet.Metanet.__init__) if name not in left_out]
    entries = [option("mlp", name) for name in names]
    for model, builder in metanet.METANETS.items():
        entries += [option(model, name) for name in options_of(builder)[1:]]
    load = Entry("metanet.load: path", lambda value, _: metanet.load(value))
    return [*entries, Entry("fit: population", fitted), Entry("predict: networks", predicted), load]


def zoo_entries(folder: Path) -> list[Entry]:
    """Functions of `zoo` and `data_gen`."""
    run_job(JOB, folder)
    opened = zoo.load(folder / "zoo")["p"]
    space, generator = opened.space, torch.Generator().manual_seed(0)
    params = {name: tensor[0] for name, tensor in opened.params("train").items()}
    first = next(iter(params))
    module, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(2, 4)
    element = zoo.sample(space, generator)
    calls: dict[str, Callable[[Any], object]] = {
        "zoo.load: directory": zoo.load,
        "population.params: split": opened.params,
        "population.params: view": lambda value: opened.params("train", view=value),
        "population.table: split": opened.table,
        "population.flat: split": opened.flat,
        "zoo.align: params": lambda value: zoo.align(space, {**params, first: value}, params),
        "zoo.align: reference": lambda value: zoo.align(space, params, {**params, first: value}),
        "zoo.align: num_restarts": lambda value: zoo.align(space, params, params, value),
        "zoo.align: generator": lambda value: zoo.align(space, params, params, 1, value),
        "zoo.canonicalize: params": lambda value: zoo.canonicalize(space, {first: value}),
        "zoo.canonicalize: tensor": lambda value: zoo.canonicalize(space, params | {first: value}),
        "zoo.act: tensor": lambda value: zoo.act(space, element, params | {first: value}),
        "zoo.sample: generator": lambda value: zoo.sample(space, value),
        "zoo.sample: batch": lambda value: zoo.sample(space, generator, value),
        "zoo.trace: module": lambda value: zoo.trace(value, x),
        "zoo.trace: example_inputs": lambda value: zoo.trace(module, value),
        "zoo.trace: statistics": lambda value: zoo.trace(module, x, statistics=value),
        "zoo.asymmetric: module": zoo.asymmetric,
        "zoo.asymmetric: kind": lambda value: zoo.asymmetric(module, value),
        "zoo.asymmetric: seed": lambda value: zoo.asymmetric(module, "w", seed=value),
        "zoo.asymmetric: n_fix": lambda value: zoo.asymmetric(module, "w", n_fix=value),
        "zoo.asymmetric: kappa": lambda value: zoo.asymmetric(module, "w", kappa=value),
        "zoo.asymmetric: std": lambda value: zoo.asymmetric(module, "syre", std=value),
        "NeuronGroup: size": zoo.NeuronGroup,
        "NeuronGroup: permutable": lambda value: zoo.NeuronGroup(3, value),
        "NeuronGroup: scaling": lambda value: zoo.NeuronGroup(3, True, value),
        "NeuronGroup: activation": lambda value: zoo.NeuronGroup(3, True, "none", value),
        "WeightSpace: groups": lambda value: zoo.WeightSpace(value, {"w": "h"}),
        "WeightSpace: tensors": lambda value: zoo.WeightSpace({"h": zoo.NeuronGroup(3)}, value),
        "WeightSpace: pattern": lambda value: zoo.WeightSpace(
            {"h": zoo.NeuronGroup(3)}, {"w": value}
        ),
        "load_job: job": load_job,
        "load_job: overrides": lambda value: load_job("demo", value),
        "build_architecture: name": lambda value: build_architecture(value, {}, (1, 8, 8), 3),
        "build_architecture: options": lambda value: build_architecture("mlp", value, (1, 8, 8), 3),
        "build_architecture: input_shape": lambda value: build_architecture("mlp", {}, value, 3),
        "build_architecture: num_classes": lambda value: build_architecture("mlp", {}, (4,), value),
        "make_asymmetric: seed": lambda value: make_asymmetric(
            build_architecture("mlp", {}, (4,), 3), "w", {}, value
        ),
    }
    generated = {
        name: partial(generate_with, name) for name in ("out", "device", "workers", "chunk_size")
    }
    return [
        *(Entry(name, lambda value, _, call=call: call(value)) for name, call in calls.items()),
        *(Entry(f"generate: {name}", call) for name, call in generated.items()),
    ]


def generate_with(name: str, value: Any, folder: Path) -> None:
    """A small job with another argument of `generate`."""
    arguments = {"out": folder / "zoo", "device": "cpu", "compile": False, "quiet": True}
    generate(Job.model_validate(JOB), **(arguments | {name: value}))


def command_entries(folder: Path) -> list[Entry]:
    """Options and arguments of the commands, but for those that speak to the Hub."""
    made = folder / "zoo"
    saved = folder / "metanet.safetensors"
    population = zoo.load(made)["p"]
    metanet.Metanet("mlp", epochs=1).fit(population).save(saved)
    entries = [Entry("generate-zoo: JOB", partial(command, generate_zoo, []), False)]
    base = [str(made), "p", "--model", "mlp", "--out", "metanet"]
    written = {
        "generate-zoo": (generate_zoo, ["demo", "--set", "count=4", "--out", "there"]),
        "info": (symzoo, ["info", str(made)]),
        "train": (symzoo, ["train", *base, "--set", "epochs=1"]),
        "evaluate": (symzoo, ["evaluate", str(saved), str(made), "p"]),
        "predict": (symzoo, ["predict", str(saved), str(made), "p"]),
        "export": (symzoo, ["export", str(made), "there"]),
        "verify": (symzoo, ["verify", str(made)]),
        "repair": (symzoo, ["repair", str(made)]),
        "merge": (symzoo, ["merge", str(made), "there"]),
        "study": (symzoo, ["study", "learnability", "--zoo", str(made), "--out", "there"]),
    }
    for name, (main, words) in written.items():
        target = main if main is generate_zoo else symzoo.commands[name]
        if name == "study":
            target = target.commands["learnability"]
        for parameter in target.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                option = parameter.opts[0]
                entries.append(
                    Entry(f"{name}: {option}", partial(command, main, [*words, option]), False)
                )
        entries.append(Entry(f"{name}: first argument", partial(command, main, words[:1]), False))
    return entries


def command(main: click.Command, words: list[str], value: Any, folder: Path) -> None:
    """A command line that ends with a value."""
    os.chdir(folder)
    result = CliRunner().invoke(main, [*words, str(value)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code and (not result.output or "Traceback" in result.output):
        raise RuntimeError(f"status {result.exit_code}, no message: {result.output!r:.200}")


def outcome_of(entry: Entry, value: Any, folder: Path) -> str:
    """What an entry point does with a value: it works, or refuses it; else what it does."""
    try:
        entry.call(value, folder)
    except (ConfigError, pydantic.ValidationError, InvalidParameterError):
        return "refused"
    except Exception as error:  # every kind counts
        last = traceback.extract_tb(error.__traceback__)[-1]
        if str(error) == "embedded null byte":  # of a path, in Python's own words
            return "refused"
        line = linecache.getline(last.filename, last.lineno or 0).strip()
        written = last.filename.startswith(OURS) and line.startswith("raise")
        told = str(error).replace(str(value), "it")  # what was given may be shown as it is
        if isinstance(error, ValueError | TypeError | OSError) and written and is_message(told):
            return "refused"
        return f"{type(error).__name__} at {last.filename}:{last.lineno}: {error!s:.200}"
    return "works"


def in_silence(entry: Entry, value: Any, folder: Path) -> str:
    """The outcome, without what the entry point prints."""
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        return outcome_of(entry, value, folder)


def is_message(text: str) -> bool:
    """Whether a text can be shown to a person."""
    return 10 < len(text) < 20_000 and all(line.isprintable() for line in text.splitlines())


def fuzz(
    cases: int, seed: int, folder: Path, log: Callable[[str], object], only: str = ""
) -> tuple[collections.Counter[str], list[str]]:
    """Run cases.

    Args:
        cases: How many, drawn without repetition.
        seed: Of the choice.
        folder: An empty one.
        log: Told what goes wrong.
        only: A text in the names of the entries.

    Returns:
        Counts of outcomes, and what went wrong.
    """
    torch.set_num_threads(1)
    made = folder / "made"
    entries = [*job_entries(), *metanet_entries(), *zoo_entries(made), *command_entries(made)]
    pairs = [(entry, kind) for entry in entries if only in entry.name for kind in entry.values()]
    chosen = random.Random(seed).sample(pairs, min(cases, len(pairs)))
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for number, (entry, kind) in enumerate(chosen):
        place = folder / str(number)
        place.mkdir()
        work = partial(in_silence, entry, entry.values()[kind], place)
        outcome, memory, _ = in_a_process(work, SECONDS, MEMORY)
        fault = f"{memory} bytes of memory" if memory > MEMORY else outcome
        if fault in ("works", "refused"):
            counts[fault] += 1
        else:
            wrong.append(f"{entry.name} = {kind}: {fault}")
            log(wrong[-1])
    return counts, wrong


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="A text in the names of the entries.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts, wrong = fuzz(
            options.cases, options.seed, Path(name), partial(print, flush=True), options.only
        )
    print(f"{dict(counts)}, {len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
