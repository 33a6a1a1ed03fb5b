"""Zoos on the Hugging Face Hub: push a complete zoo, pull one and check every byte of it.

The token is the one of `hf auth login` or of the environment variable `HF_TOKEN`; none is ever
taken as an argument.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from zoo.store.atomic import check_new, publish
from zoo.store.bounds import check_bytes
from zoo.store.entries import ShardEntry
from zoo.store.manifest import CARD_NAME, MANIFEST_NAME, Manifest, read_manifest
from zoo.store.mapped import StoreError

MAX_TEXT = 10**8
"""Most bytes of a manifest or card that are downloaded."""
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


class HubError(OSError):
    """What the Hub, or the way to it, refused."""


def check_files(directory: Path, files: Mapping[str, ShardEntry]) -> None:
    """Hold files to their hashes.

    Args:
        directory: Folder of the zoo.
        files: What each file must be.

    Raises:
        StoreError: If one is missing, is not a plain file inside the folder, or has other bytes.
    """
    for relative, entry in files.items():
        path = directory / relative
        if not path.is_file() or path.resolve() != (directory.resolve() / relative):
            raise StoreError(f"{path}: expected a file inside the zoo, found none")
        check_bytes(directory, relative, entry)


def push(directory: str | Path, repo: str, private: bool = False) -> str:
    """Upload a complete zoo as a data set, in one commit: all of it appears, or nothing.

    Args:
        directory: Folder of the zoo.
        repo: Name on the Hub, `owner/name`; made if there is none.
        private: Whether a repository that is made is private.

    Returns:
        Its address.

    Raises:
        StoreError: If the zoo is not complete, or a file has other bytes than the manifest says.
        HubError: If the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    directory, repo = Path(directory), _checked_name(repo)
    files = read_manifest(directory).entries()
    if not (directory / CARD_NAME).is_file():
        raise StoreError(
            f"{directory / CARD_NAME}: the file is missing; run the same generate-zoo command to "
            "write it"
        )
    check_files(directory, files)
    api = HfApi()
    with _clear_errors(repo):
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=directory,
            allow_patterns=[CARD_NAME, MANIFEST_NAME, *files],
            delete_patterns=["*.h5"],
            commit_message="Upload a zoo with symzoo",
        )
    return str(url)


def pull(repo: str, out: str | Path, revision: str | None = None) -> Path:
    """Download a zoo; it appears under its name when all of it has been checked.

    Files go to a hidden folder beside it first. Where that was interrupted, the same call goes on.

    Args:
        repo: Name on the Hub, `owner/name`.
        out: Folder that the zoo will be; must not exist, or be empty.
        revision: Branch, tag or commit; the main branch if None.

    Returns:
        The folder.

    Raises:
        StoreError: If what is there is not a whole zoo, or a file has other bytes than its manifest
            says.
        HubError: If the Hub cannot be reached or refuses.
        ValueError: If the folder holds something already.
    """
    from huggingface_hub import HfApi

    out = Path(out)
    repo = _checked_name(repo)
    check_new(out)
    temporary = out.with_name(f".{out.name}.pull")
    with _clear_errors(repo, revision):
        info = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if not 0 < sizes.get(MANIFEST_NAME, 0) <= MAX_TEXT:
        raise StoreError(
            f"{repo}: not a zoo, expected a {MANIFEST_NAME} of at most {MAX_TEXT} bytes"
        )
    at = _Snapshot(repo, revision, info.sha, temporary)
    at.download([MANIFEST_NAME])
    files = _manifest_of(temporary, repo).entries()
    _check_sizes(repo, files, sizes)
    at.download([*files, *([CARD_NAME] if sizes.get(CARD_NAME, 0) <= MAX_TEXT else [])])
    _check_downloaded(repo, temporary, files)
    _keep_only(temporary, {MANIFEST_NAME, CARD_NAME, *files})
    publish(temporary, out)
    return out


class _Snapshot(NamedTuple):
    """One commit of a data set on the Hub, and the folder that its files go to."""

    repo: str
    revision: str | None
    commit: str | None
    folder: Path

    def download(self, names: list[str]) -> None:
        """Download files."""
        from huggingface_hub import HfApi

        with _clear_errors(self.repo, self.revision):
            HfApi().snapshot_download(
                self.repo,
                repo_type="dataset",
                revision=self.commit,
                local_dir=self.folder,
                allow_patterns=names,
                max_workers=4,
            )


def _check_downloaded(repo: str, temporary: Path, files: Mapping[str, ShardEntry]) -> None:
    """Compare hashes; a download with a wrong one is removed."""
    try:
        check_files(temporary, files)
    except StoreError as error:
        shutil.rmtree(temporary)
        raise StoreError(
            f"{repo}: {error}; nothing was kept: the data set itself is damaged, or try again"
        ) from error


def _check_sizes(repo: str, files: Mapping[str, ShardEntry], sizes: Mapping[str, int]) -> None:
    """Refuse files of other lengths than the manifest says before they are downloaded."""
    for name, entry in files.items():
        if sizes.get(name) != entry.bytes:
            there = sizes.get(name, "no such file")
            raise StoreError(f"{repo}: {name}: expected {entry.bytes} bytes, the Hub has {there}")


def _checked_name(repo: str) -> str:
    if not _REPO.fullmatch(repo):
        raise ValueError(
            f"repository {repo!r}: expected owner/name, as in the address of a data set on the Hub"
        )
    return repo


def _manifest_of(temporary: Path, repo: str) -> Manifest:
    path = temporary / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{repo}: not a zoo, it has no {MANIFEST_NAME}")
    return read_manifest(temporary)


def _keep_only(directory: Path, files: set[str]) -> None:
    """Remove what the download left beside the files of the zoo, its own records among them."""
    folders = {str(parent) for name in files for parent in Path(name).parents}
    for path in sorted(directory.rglob("*"), reverse=True):
        relative = str(path.relative_to(directory))
        if path.is_dir() and not path.is_symlink():
            if relative not in folders:
                path.rmdir()
        elif relative not in files:
            path.unlink()


@contextmanager
def _clear_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's library raises into one line that says what to do."""
    from huggingface_hub import errors

    at = f"{repo} at revision {revision!r}" if revision else repo
    unreachable = "the Hub cannot be reached, or HF_HUB_OFFLINE is set; run again when it is"
    hints = {
        errors.RevisionNotFoundError: "there is no such revision; give a branch, a tag or a whole "
        "commit hash",
        errors.GatedRepoError: "access must be asked for on the page of the data set, with the "
        "account of your token",
        errors.RepositoryNotFoundError: "no such data set, or your token may not see it; check the "
        "name or run `hf auth login`",
        errors.LocalTokenNotFoundError: "no token; run `hf auth login` or set HF_TOKEN",
        errors.OfflineModeIsEnabled: unreachable,
        errors.LocalEntryNotFoundError: unreachable,
    }
    try:
        yield
    except tuple(hints) as error:
        hint = next(text for kind, text in hints.items() if isinstance(error, kind))
        raise HubError(f"{at}: {hint}") from error
    except errors.HfHubHTTPError as error:
        status = "unknown" if error.response is None else error.response.status_code
        hint = "try again"
        if status in (401, 403):
            hint = "no token, or one that may not do this: run `hf auth login` or set HF_TOKEN"
        raise HubError(f"{at}: the Hub answered with status {status}; {hint}") from error
    except errors.HTTPError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise HubError(
            f"{at}: the Hub cannot be reached ({error}); run again when it can"
        ) from error
