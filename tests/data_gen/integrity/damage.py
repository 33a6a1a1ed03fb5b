"""Changes of the files of a zoo, as an accident or a stranger would make them."""

import json
from pathlib import Path

from tests.fuzz_mutations import tell
from tests.stored import read_attributes, read_columns
from zoo.sharing.card import digest_of
from zoo.store.hdf5 import write_columns
from zoo.store.manifest import read_manifest

SHARD = "w_asymmetric/train-00000-of-00001.h5"
TRAJECTORY = "w_asymmetric.trajectory/train-00000-of-00001.h5"


def edit(folder: Path, change) -> None:
    data = json.loads((folder / "zoo.json").read_text())
    change(data)
    (folder / "zoo.json").write_text(json.dumps(data))


def rewrite(folder: Path, change, name: str = SHARD, attributes=()) -> None:
    """Change a file as a stranger would: columns, attributes, its hash in manifest and card."""
    columns = read_columns([folder / name])
    kept = {
        key: value
        for key, value in read_attributes(folder / name).items()
        if key != "format_version"
    }
    change(columns)
    write_columns(folder / name, columns, kept | dict(attributes), equal_rows=False)
    before = digests(folder)
    tell(folder, folder / name)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for old, new in zip(before, digests(folder), strict=True):
        card = card.replace(old, new)
    (folder / "README.md").write_text(card, encoding="utf-8")


def digests(folder: Path) -> list[str]:
    """What the card must say of the files of each configuration."""
    populations = read_manifest(folder).populations.items()
    return [
        digest_of(shards)
        for name, population in populations
        for shards in population.configurations(name).values()
    ]


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
