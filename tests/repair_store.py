"""Damage in any file of a zoo: `verify` finds every case, `repair` mends it to the byte.

    python -m tests.repair_store [--cases 300] [--repaired 40] [--seed 0]

Each case truncates a file or flips one bit of it, any file and any bit: shards, trajectories,
constants, and the hashes, lengths and rows of the manifest. All cases go through `verify`; some
through `repair` as well, which trains again.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from tests.fuzz_store import base


def content(folder: Path) -> dict[str, bytes]:
    """Files that are part of a zoo."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not Path(name).name.startswith(".")
    }


def damage(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Damage one file.

    Returns:
        The file and what was done.
    """
    name = rng.choice([name for name in sorted(content(folder)) if name != "README.md"])
    data = bytearray((folder / name).read_bytes())
    if name == "zoo.json":  # a digit of a hash, a length, a number of rows or a size
        told = data.index(
            b'"environment"'
        )  # what is said of the machine is not checked by anything
        places = [match.start(1) for match in re.finditer(rb'": "?[0-9a-f]*([0-9])', data)]
        at = rng.choice([place for place in places if not told < place < data.index(b"}", told)])
        data[at] = rng.choice([digit for digit in b"0123456789" if digit != data[at]])
        done = f"digit {at}"
    elif rng.random() < 1 / 3:
        del data[rng.randrange(len(data)) :]
        done = f"truncated to {len(data)}"
    else:
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        done = f"bit {bit}"
    (folder / name).write_bytes(data)
    return name, done


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--repaired", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    damaged = mended = 0
    with tempfile.TemporaryDirectory() as scratch:
        original = base(Path(scratch) / "original")
        expected = content(original)
        for case in range(options.cases):
            folder = Path(scratch) / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(original, folder)
            name, done = damage(random.Random(options.seed + case), folder)
            faults = verify_zoo(folder, sample=0)
            damaged += bool(faults)
            if not faults:
                print(f"case {case}: {name}, {done}: not found", flush=True)
            if case < options.repaired:
                try:
                    repair_zoo(folder, device="cpu", compile=False, quiet=True)
                except ValueError as error:
                    print(f"case {case}: {name}, {done}: {error}", flush=True)
                same = {n for n, data in content(folder).items() if data == expected[n]} | {
                    "zoo.json"
                } == set(expected)
                mended += same and not verify_zoo(folder, sample=0)
    print(f"found {damaged} of {options.cases}, mended {mended} of {options.repaired}")
    sys.exit(damaged < options.cases or mended < options.repaired)


if __name__ == "__main__":
    main()
