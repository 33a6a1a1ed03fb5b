"""Everything that the documentation shows runs: Python blocks, jobs, links, recipes, examples."""

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import datasets
import pytest
import yaml

import metanet
import zoo
from data_gen.cli import main as generate_zoo
from data_gen.config import HYPERPARAMETERS, Job, load_job, recipe_names
from data_gen.generation import generate
from data_gen.integrity.recompute import needs_files
from data_gen.populations import build_population
from data_gen.tasks.task import TASKS, TaskConfig, load_task
from metanet.inputs.treatments import TREATMENTS
from studies.cli import main as symzoo
from zoo.architectures import ASYMMETRIES
from zoo.store.entries import (
    ColumnEntry,
    DroppedRows,
    ShardEntry,
    SourceEntry,
    SourceFile,
    SplittingEntry,
    TaskEntry,
)
from zoo.store.manifest import Manifest, PopulationEntry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(
    r"(?P<before>[^\n]*\n)```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
SOURCE = re.compile(
    r"`((?:zoo|data_gen|metanet|studies|tests|benchmarks|docs)/[\w./-]*(?:/|\.\w+))`"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NOT_RUN = ("<!-- not run -->", "<!-- run from an empty folder -->")  # tests/test_first_page.py
SMALL_JOB = {
    "task": {"name": "digits"},
    "count": 4,
    "hyperparameters": {"steps": 1},
    "populations": {"standard": {"architecture": {"name": "mlp"}}},
}
COMMANDS = {"generate-zoo": generate_zoo, "symzoo": symzoo}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and code of the blocks of a page, without those marked as not run."""
    text = page.read_text(encoding="utf-8")
    matches = [
        match
        for match in BLOCK.finditer(text)
        if match["language"] == language and not any(mark in match["before"] for mark in NOT_RUN)
    ]
    return [(text.count("\n", 0, match.start("code")) + 1, match["code"]) for match in matches]


def prose(page: Path) -> str:
    return re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three populations of the demo, few networks, trained for a moment."""
    job = load_job("demo", ["count=48", "hyperparameters.steps={int_range: [5, 15]}"])
    shown = {
        name: job.populations[name] for name in ("standard", "w_asymmetric", "sigma_asymmetric")
    }
    job = job.model_copy(update={"populations": shown})
    return generate(job, tmp_path_factory.mktemp("docs") / "demo", compile=False, quiet=True)


@pytest.fixture
def workplace(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `runs/demo` to run in; tables that a page or example adds to are put back."""
    shutil.copytree(demo, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tables = (zoo.ARCHITECTURES, ASYMMETRIES, TASKS, metanet.METANETS, TREATMENTS)
    before = [dict(table) for table in tables]
    yield tmp_path
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_blocks_run(page: Path, workplace: Path):
    """The blocks of a page run in order and see what the ones above them defined."""
    namespace = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        # Empty lines in front give errors the line numbers of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_run(example: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = [] if example.stem == "own_job" else ["runs/demo"]
    monkeypatch.setattr(sys, "argv", [str(example), *arguments])
    monkeypatch.setenv("TMPDIR", str(workplace))
    runpy.run_path(str(example), run_name="__main__")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name_of)
def test_yaml_blocks_are_jobs(page: Path):
    """A block is a whole job, or some keys of one, or plain YAML of another kind."""
    for line, text in blocks(page, "yaml"):
        data = yaml.safe_load(text)
        if not set(data) <= set(Job.model_fields):
            assert page.name == "store_format.md", (
                f"{name_of(page)}:{line}: not keys of a job: {sorted(data)}"
            )
            continue
        job = Job.model_validate(data if set(data) >= set(SMALL_JOB) else SMALL_JOB | data)
        if job.task.name == "graph" or not needs_files(job.task):
            task = load_task(job.task)
            for name in job.populations:
                build_population(job, name, task)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=name_of)
def test_commands_parse(page: Path):
    for line, text in blocks(page, "bash"):
        for words in map(shlex.split, text.splitlines()):
            if words and words[0] in COMMANDS and not any(word.startswith("[") for word in words):
                try:
                    parse(COMMANDS[words[0]], words[0], words[1:])
                except click.ClickException as error:
                    pytest.fail(
                        f"{name_of(page)}:{line}: {shlex.join(words)}: {error.format_message()}"
                    )


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Check a command line as click does, without running it."""
    context = command.make_context(name, list(arguments))
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        parse(inner, name, rest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.startswith("docs/images/"):
            continue  # made by a study; a release without it still reads
        assert target.exists(), f"{name_of(page)}: {link} does not exist"
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path):
    named = SOURCE.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipes_load_and_are_listed(recipe: str):
    job = load_job(recipe)
    row = table_rows(ROOT / "docs" / "jobs.md")[recipe]
    assert f"{job.count:,}" == row[3]
    assert row[1] == f"`{job.task.name}`" or job.task.name == "images"


def test_every_key_of_a_job_is_listed():
    rows = table_rows(ROOT / "docs" / "jobs.md")
    names = [*Job.model_fields, *TaskConfig.model_fields, *HYPERPARAMETERS, *TASKS, *ASYMMETRIES]
    assert [name for name in names if name not in rows] == []
    for name, rule in HYPERPARAMETERS.items():
        shown = rows[name][1]
        assert (
            shown == "none"
            if rule.default is None
            else yaml.safe_load(shown.strip("`")) == rule.default
        )


def test_every_key_of_the_manifest_is_listed():
    text = (ROOT / "docs" / "store_format.md").read_text(encoding="utf-8")
    parts = (
        ShardEntry,
        ColumnEntry,
        SplittingEntry,
        TaskEntry,
        SourceEntry,
        SourceFile,
        DroppedRows,
    )
    for model in (Manifest, PopulationEntry, *parts):
        assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def test_every_metanet_is_listed():
    rows = table_rows(ROOT / "docs" / "metanets.md")
    assert [name for name in metanet.METANETS if name not in rows] == []


def table_rows(page: Path) -> dict[str, list[str]]:
    """Rows of the tables of a page by their first cell, where that is a name in backticks.

    Earlier tables win.
    """
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in prose(page).splitlines()
        if line.startswith("|")
    ]
    return {
        name.strip("`"): row
        for row in reversed(rows)
        for name in row[0].split(", ")
        if name.startswith("`")
    }
