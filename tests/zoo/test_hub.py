"""Push and pull through a hub that is a folder: what is sent, what is checked, what an error says.

No network.
"""

import inspect
import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

import zoo
from tests.zoo.written import write_zoo
from zoo.sharing.card import render_card
from zoo.sharing.hub import HubError, pull, push
from zoo.store.atomic import publish, sha256, write_text
from zoo.store.mapped import StoreError

REPO = "someone/small-zoo"
REAL = huggingface_hub.HfApi


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = write_zoo(tmp_path_factory.mktemp("zoos") / "written")
    write_text(folder / "README.md", render_card(folder, zoo.load(folder).manifest))
    write_text(folder / ".job.json", "{}")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "zoo"))


class FakeHub:
    """The methods of `HfApi` that are used, on folders.

    Each call must fit the signature of the real one.
    """

    def __init__(self, root):
        self.root, self.calls, self.failure, self.fail_after, self.sent = root, [], None, None, 0

    def _called(self, name, arguments, options):
        inspect.signature(getattr(REAL, name)).bind(self, *arguments, **options)
        assert options.get("repo_type", "dataset") == "dataset"
        assert "token" not in options
        self.calls.append((name, options))
        if self.failure:
            raise self.failure

    def create_repo(self, repo, **options):
        self._called("create_repo", (repo,), options)
        assert options["exist_ok"]
        (self.root / repo).mkdir(parents=True, exist_ok=True)
        return f"https://hub/datasets/{repo}"

    def upload_folder(self, **options):
        self._called("upload_folder", (), options)
        source, target = Path(options["folder_path"]), self.root / options["repo_id"]
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        chosen = [
            p
            for p in files
            if any(fnmatch(str(p.relative_to(source)), one) for one in options["allow_patterns"])
        ]
        for path in [
            p
            for p in target.rglob("*")
            if any(fnmatch(str(p.relative_to(target)), one) for one in options["delete_patterns"])
        ]:
            path.unlink()
        for path in chosen:
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(source))

    def dataset_info(self, repo, **options):
        self._called("dataset_info", (repo,), options)
        assert options["files_metadata"]
        files = [path for path in (self.root / repo).rglob("*") if path.is_file()]
        siblings = [
            SimpleNamespace(rfilename=str(p.relative_to(self.root / repo)), size=p.stat().st_size)
            for p in files
        ]
        return SimpleNamespace(sha="c0ffee", siblings=siblings)

    def snapshot_download(self, repo, **options):
        self._called("snapshot_download", (repo,), options)
        assert options["revision"] == "c0ffee"
        target = Path(options["local_dir"])
        (target / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        (target / ".cache" / "huggingface" / "record").write_text("")
        for path in sorted((self.root / repo).rglob("*")):
            relative = path.relative_to(self.root / repo)
            if not path.is_file() or not any(
                fnmatch(str(relative), one) for one in options["allow_patterns"]
            ):
                continue
            if (target / relative).exists():
                continue
            if self.fail_after is not None and self.sent >= self.fail_after:
                raise errors.LocalEntryNotFoundError("the line is cut")
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / relative)
            self.sent += 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def files_of(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_pushed_zoo_is_pulled_byte_for_byte_without_hidden_files(folder, hub, tmp_path):
    (folder / "notes.txt").write_text("mine")
    (folder / "standard" / ".train.h5.tmp").write_text("half")
    assert push(folder, REPO, private=True) == f"https://hub/datasets/{REPO}"
    assert hub.calls[0] == (
        "create_repo",
        {"repo_type": "dataset", "private": True, "exist_ok": True},
    )
    expected = {
        name: data
        for name, data in files_of(folder).items()
        if name != "notes.txt" and ".tmp" not in name
    }
    del expected[".job.json"]
    assert files_of(hub.root / REPO) == expected
    out = pull(REPO, tmp_path / "pulled" / "zoo", revision="v1")
    assert files_of(out) == expected
    assert list(out.parent.iterdir()) == [out]
    assert hub.calls[2][1]["revision"] == "v1"
    assert zoo.load(out)["w_asymmetric"].fingerprint == zoo.load(folder)["w_asymmetric"].fingerprint


def test_a_second_push_leaves_no_shard_of_the_first(folder, hub):
    push(folder, REPO)
    (hub.root / REPO / "standard" / "train-00005-of-00006.h5").write_bytes(b"of an older zoo")
    push(folder, REPO)
    assert set(zoo.load(folder).manifest.entries()) | {"README.md", "zoo.json"} == set(
        files_of(hub.root / REPO)
    )


@pytest.mark.parametrize("damage", ["missing", "flipped", "longer", "no card", "no manifest"])
def test_a_zoo_that_is_not_whole_is_not_pushed(folder, hub, damage):
    shard = folder / "standard" / "test-00001-of-00003.h5"
    data = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "flipped":
        shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "longer":
        shard.write_bytes(data + b"0")
    else:
        (folder / ("README.md" if damage == "no card" else "zoo.json")).unlink()
    words = {
        "missing": "found none",
        "flipped": "expected sha256",
        "longer": "expected .* bytes",
        "no card": "README.md",
    }
    with pytest.raises(StoreError, match=words.get(damage, "zoo.json is missing")):
        push(folder, REPO)
    assert hub.calls == []


def test_a_pull_that_was_interrupted_goes_on(folder, hub, tmp_path):
    push(folder, REPO)
    hub.fail_after = 5
    with pytest.raises(
        HubError, match=r"someone/small-zoo: the Hub cannot be reached, .* run again"
    ):
        pull(REPO, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert hub.sent == 5
    hub.fail_after = None
    pull(REPO, tmp_path / "out")
    assert hub.sent == len(files_of(hub.root / REPO))
    assert files_of(tmp_path / "out") == files_of(hub.root / REPO)


def test_a_damaged_data_set_is_refused_and_leaves_nothing(folder, hub, tmp_path):
    push(folder, REPO)
    shard = hub.root / REPO / "standard" / "test-00001-of-00003.h5"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"small-zoo: .*test-00001-of-00003.h5: expected sha256"):
        pull(REPO, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    shard.write_bytes(data + b"0" * 1000)
    downloads = len(hub.calls)
    with pytest.raises(
        StoreError, match=r"test-00001-of-00003.h5: expected \d+ bytes, the Hub has \d+"
    ):
        pull(REPO, tmp_path / "out")
    assert [name for name, _ in hub.calls[downloads:]] == ["dataset_info", "snapshot_download"]


def test_a_link_in_place_of_a_file_is_refused(folder, hub, tmp_path):
    push(folder, REPO)
    secret = tmp_path / "outside"
    secret.write_bytes((folder / "standard" / "test-00001-of-00003.h5").read_bytes())
    inside = tmp_path / ".out.pull" / "standard" / "test-00001-of-00003.h5"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(secret)
    with pytest.raises(StoreError, match="expected a file inside the zoo, found none"):
        pull(REPO, tmp_path / "out")
    assert secret.exists()


@pytest.mark.parametrize(
    "path", ["../../outside.h5", "/etc/passwd", "standard/../../x.h5", "https://host/a.h5"]
)
def test_a_manifest_that_leads_out_is_refused_before_more_is_downloaded(
    folder, hub, tmp_path, path
):
    push(folder, REPO)
    manifest = json.loads((folder / "zoo.json").read_text())
    shards = manifest["populations"]["standard"]["shards"]
    shards[path] = next(iter(shards.values()))
    (hub.root / REPO / "zoo.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="is not the name of a shard"):
        pull(REPO, tmp_path / "out")
    assert [
        options["allow_patterns"] for name, options in hub.calls if name == "snapshot_download"
    ] == [["zoo.json"]]


def test_what_is_no_zoo_or_has_a_huge_manifest_is_refused(hub, tmp_path, monkeypatch):
    (hub.root / REPO).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"small-zoo: not a zoo, expected a zoo\.json of at most"):
        pull(REPO, tmp_path / "out")
    (hub.root / REPO / "zoo.json").write_text("{}")
    with pytest.raises(StoreError, match=r"zoo.json: "):
        pull(REPO, tmp_path / "out")
    monkeypatch.setattr("zoo.sharing.hub.MAX_TEXT", 1)
    with pytest.raises(StoreError, match="of at most 1 bytes"):
        pull(REPO, tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(folder, hub, tmp_path):
    push(folder, REPO)
    before = files_of(folder)
    with pytest.raises(
        ValueError, match=r"zoo: expected a folder that is new or empty; choose another"
    ):
        pull(REPO, folder)
    assert files_of(folder) == before
    (tmp_path / "empty").mkdir()
    assert pull(REPO, tmp_path / "empty") == tmp_path / "empty"


@pytest.mark.parametrize("repo", ["zoo", "a/b/c", "../x", "a/b c", "https://hub/a/b", ""])
def test_names_that_are_no_repository_are_refused(folder, hub, tmp_path, repo):
    for act in (lambda: push(folder, repo), lambda: pull(repo, tmp_path / "out")):
        with pytest.raises(ValueError, match="expected owner/name"):
            act()
    assert hub.calls == []


def http_error(kind, status=404):
    return kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


FAILURES = {
    "offline": (
        errors.OfflineModeIsEnabled("offline"),
        "cannot be reached, or HF_HUB_OFFLINE is set",
    ),
    "no connection": (errors.HTTPError("refused"), r"cannot be reached \(refused\)"),
    "no token": (
        errors.LocalTokenNotFoundError("none"),
        "no token; run `hf auth login` or set HF_TOKEN",
    ),
    "bad token": (
        http_error(errors.HfHubHTTPError, 401),
        "no token, or one that may not do this: run `hf auth login`",
    ),
    "server": (http_error(errors.HfHubHTTPError, 500), "answered with status 500; try again"),
    "no repository": (
        http_error(errors.RepositoryNotFoundError),
        "no such data set, or your token may not see it",
    ),
    "gated": (http_error(errors.GatedRepoError, 403), "access must be asked for"),
    "no revision": (
        http_error(errors.RevisionNotFoundError),
        "at revision 'v9': there is no such revision",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_every_failure_is_one_clear_line(folder, hub, tmp_path, case):
    hub.failure, message = FAILURES[case]
    with pytest.raises(HubError, match=message) as raised:
        pull(REPO, tmp_path / "out", revision="v9")
    assert str(raised.value).startswith(REPO)
    assert "\n" not in str(raised.value)
    with pytest.raises(HubError, match=message if "revision" not in case else "no such revision"):
        push(folder, REPO)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_published_whole(tmp_path):
    (tmp_path / ".half" / "inner").mkdir(parents=True)
    (tmp_path / ".half" / "inner" / "file").write_text("text")
    publish(tmp_path / ".half", tmp_path / "whole")
    assert files_of(tmp_path) == {"whole/inner/file": b"text"}
    assert sha256(tmp_path / "whole" / "inner" / "file").startswith("982d9e3e")
