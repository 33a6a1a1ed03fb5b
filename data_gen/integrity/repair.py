"""`symzoo repair`.

Make damaged files of a zoo again, and put them in place if they are those that were lost, byte for
byte.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_gen.config import Job
from data_gen.folder import JOB_NAME, claim, claimed, job_record, read_job
from data_gen.generation import generate
from data_gen.integrity.justified import check_justified
from data_gen.integrity.population_files import Fault
from data_gen.integrity.recompute import described, needs_files
from data_gen.integrity.verify import NO_JOB, verify_zoo
from zoo.imports import is_allowed
from zoo.sharing.card import render_card
from zoo.store.atomic import publish, sha256, write_text
from zoo.store.bounds import MANIFEST_NAME, check_bytes, inside, read_json
from zoo.store.entries import ShardEntry
from zoo.store.manifest import CARD_NAME, Manifest, read_manifest
from zoo.store.mapped import StoreError, escape

STAGE = ".repair"


class NoJob(ValueError):
    """A zoo that no job made."""


def repair_zoo(
    directory: str | Path,
    device: str = "auto",
    workers: int = 0,
    chunk_size: int | None = None,
    compile: bool = True,
    accept_changed: bool = False,
    trust_task: bool = False,
    quiet: bool = False,
    report: Callable[[str], object] = lambda _: None,
) -> list[Fault]:
    """Make every file that `verify_zoo` finds wrong again, from the job in the manifest.

    Files are made in a hidden folder of the zoo and compared with the hashes of the manifest; if
    they differ, the step is tried compiled instead of uncompiled, or the other way round. A damaged
    file is kept under a hidden name, `.<name>.damaged`.

    Args:
        directory: The zoo.
        device: `"auto"`, `"cpu"` or `"cuda"`, as the zoo was made.
        workers: Processes to spawn; 0 trains in this process.
        chunk_size: Networks in lock step, at most, as the zoo was made.
        compile: Whether to try compiled steps first.
        accept_changed: Whether files may take the place of damaged ones whose hash they do not
            have.
        trust_task: Whether files and downloads that the manifest names may be used for the task,
            and networks be trained for longer than twice what the files at hand took.
        quiet: Whether to show no progress.
        report: Told each thing that was done, in words.

    Returns:
        What was wrong; nothing is wrong afterwards.

    Raises:
        ValueError: If the job is lost as well, or files came out otherwise than they were.
    """
    directory = Path(directory)
    faults: list[Fault] = []
    # Of a zoo without a manifest, the first round makes one, and the second what it then finds.
    for _ in range(2):
        wrong = verify_zoo(directory, sample=0)
        if not wrong:
            return faults
        faults += wrong
        manifest, job = _job(directory)
        if not trust_task:
            _check_harmless(directory, job)
            check_justified(directory, job)
        _own(directory, manifest, job)
        with claimed(directory, job):
            make = partial(
                generate, job, directory / STAGE, device, workers, chunk_size, quiet=quiet
            )
            attempts = (partial(make, compile=compile), partial(make, compile=not compile))
            paths = {fault.path for fault in wrong}
            _repair_once(directory, manifest, job, paths, attempts, accept_changed, report)
    if left := verify_zoo(directory, sample=0):
        raise ValueError(f"{directory}: still wrong after the repair: {left[0]}")
    return faults


def _check_harmless(directory: Path, job: Job) -> None:
    """Refuse a job that opens files or imports code which nobody here asked for."""
    if needs_files(job.task):
        raise ValueError(
            f"{directory}: the task is {described(job.task)}, which is not opened unasked; "
            "give --trust-task"
        )
    if code := sorted(module for module in job.code if not is_allowed(module)):
        raise ValueError(
            f"{directory}: the job names the modules {code}, which are not imported unasked; "
            "give symzoo --plugin MODULE repair, or --trust-task"
        )


def _own(directory: Path, manifest: Manifest | None, job: Job) -> None:
    """Write the record of the job that generation looks for, if there is none."""
    try:
        read_job(directory)
    except ValueError:
        if manifest is not None:
            write_text(directory / JOB_NAME, job_record(job))


def _repair_once(
    directory: Path,
    manifest: Manifest | None,
    job: Job,
    wrong: set[str],
    attempts: tuple[Callable[[], Path], Callable[[], Path]],
    accept_changed: bool,
    report: Callable[[str], object],
) -> None:
    stage = directory / STAGE

    def attempt(generate_missing: Callable[[], Path]) -> tuple[Manifest, set[str], set[str]]:
        _stage(directory, stage, job, wrong)
        made = read_manifest(generate_missing())
        return made, *_compare(directory, manifest, made)

    try:
        made, changed, misdescribed = attempt(attempts[0])
        if changed:
            made, changed, misdescribed = attempt(attempts[1])
        if changed and not accept_changed:
            raise ValueError(_explain(changed, manifest, made))
        if misdescribed:
            wrong.add(MANIFEST_NAME)
        if manifest is not None and not changed:
            # The same job may have been written in another order.
            write_text(stage / CARD_NAME, render_card(stage, manifest))
        _install(directory, stage, _order(directory, wrong, made, bool(changed)), report)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _order(directory: Path, wrong: set[str], made: Manifest, rewrite: bool) -> list[str]:
    """What is to be put in place or moved aside, the manifest last."""
    entries = made.entries()
    files = {path for path, entry in entries.items() if not _is(directory, path, entry)}
    ours = (CARD_NAME, MANIFEST_NAME)
    strays = {path for path in wrong if path not in entries and path not in ours}
    last = [name for name in ours if rewrite or name in wrong]
    return [*sorted(files | strays), *last]


def _is(directory: Path, relative: str, entry: ShardEntry) -> bool:
    try:
        check_bytes(directory, relative, entry)
    except StoreError:
        return False
    return True


def _job(directory: Path) -> tuple[Manifest | None, Job]:
    """The manifest, if it can be read; its job, or else that of the generator's record."""
    try:
        manifest = read_manifest(directory)
        if manifest.config is None:
            raise NoJob(
                f"{directory}: no job made this zoo, so that no file of it can be made again; "
                "get it anew from where it came"
            )
        job = Job.model_validate_json(json.dumps(manifest.config))
        if job.sha256 == manifest.config_sha256:
            names = [name for name in manifest.populations if name in job.populations]
            in_order = {name: job.populations[name] for name in names} | job.populations
            return manifest, job.model_copy(update={"populations": in_order})
    except NoJob:
        raise
    except NO_JOB:
        manifest = None
    try:
        job = Job.model_validate_json(read_json(directory / JOB_NAME, "the record of a job"))
    except NO_JOB as error:
        raise ValueError(
            f"{directory}: the job is lost: neither {MANIFEST_NAME} nor {JOB_NAME} holds it "
            f"({escape(str(error)):.200}); generate the zoo again"
        ) from error
    return None, job


def _stage(directory: Path, stage: Path, job: Job, wrong: set[str]) -> None:
    """A folder that holds all of the zoo but what is wrong, the files shared with it."""
    if stage.is_symlink():
        stage.unlink()
    shutil.rmtree(stage, ignore_errors=True)
    claim(stage, job)
    for path in sorted(directory.glob("*/*.h5")):
        relative = str(path.relative_to(directory))
        is_hidden = "/." in f"/{relative}"
        if is_hidden or path.is_symlink() or not path.is_file():
            continue
        inside(directory, relative)
        if relative not in wrong:
            target = stage / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            _share(path, target)


def _share(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another kind of file system
        shutil.copyfile(path, target)


def _compare(directory: Path, old: Manifest | None, new: Manifest) -> tuple[set[str], set[str]]:
    """Files that are not those of the old manifest, and those that it describes wrongly.

    A file that lies in the zoo as it was made now is right, whatever the manifest says. Without a
    manifest nothing is known.

    Args:
        directory: The zoo.
        old: Its manifest.
        new: Manifest of what was made.

    Returns:
        Paths of either kind.
    """
    expected = old.entries() if old is not None else {}
    changed, misdescribed = set(), set()
    for path, entry in new.entries().items():
        before = expected.get(path, entry)
        if before != entry:
            is_right = before.sha256 == entry.sha256 or _is(directory, path, entry)
            (misdescribed if is_right else changed).add(path)
    return changed, misdescribed


def _explain(changed: set[str], old: Manifest | None, new: Manifest) -> str:
    then = old.environment if old is not None else {}
    return (
        f"{len(changed)} files came out otherwise than they were, the first {sorted(changed)[0]}: "
        "another kind of machine, "
        f"version, chunk size or device (then {then}, now {new.environment}). "
        "Nothing was changed. Run again with the options "
        "that the zoo was made with, or with --accept-changed to take networks "
        "that are the same up to rounding"
    )


def _install(
    directory: Path, stage: Path, paths: Sequence[str], report: Callable[[str], object]
) -> None:
    """Put files in place, each at once, the manifest last; hide what they replace."""
    for relative in paths:
        path, made = directory / relative, stage / relative
        hidden = path.with_name(f".{path.name}.damaged")
        if path.is_dir() and not path.is_symlink():
            raise ValueError(f"{path}: a folder is in the place of a file; remove it and run again")
        inside(directory, str(Path(relative).parent))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            hidden.unlink(missing_ok=True)
            path.rename(hidden) if not made.exists() else _keep(path, hidden)
        if made.exists():
            publish(made, path)
            report(f"{relative}: repaired, sha256 {sha256(path)[:16]}")
        else:
            report(f"{relative}: not part of the zoo; it is now {hidden.name}")


def _keep(path: Path, hidden: Path) -> None:
    """Keep a damaged file under another name; its own name is never empty, if that can be had."""
    try:
        os.link(path, hidden, follow_symlinks=False)
    except OSError:
        path.rename(hidden)
