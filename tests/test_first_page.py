"""The first page of the documentation, as a newcomer follows it: files, commands, Python."""

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_gen.cli import main as generate_zoo
from tests.forks import in_a_process

PAGE = Path(__file__).parents[1] / "docs" / "own_modules.md"
MARKED = re.compile(r"<!-- run from an empty folder -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.M)
LONGEST = {"mylab.py": 12, "my.yaml": 10}


def test_it_runs_from_an_empty_folder(tmp_path):
    python = []
    for language, code in MARKED.findall(PAGE.read_text(encoding="utf-8")):
        name = code.split("\n")[0].removeprefix("# ")
        if name in LONGEST:
            lines = [line for line in code.splitlines() if line and not line.startswith("#")]
            assert len(lines) <= LONGEST[name]
            (tmp_path / name).write_text(code)
        elif language == "bash":
            command, *words = shlex.split(code)
            assert command == "generate-zoo"
            arguments = [*words, "--quiet", "--workers", "0"]
            command = partial(generate_zoo.main, arguments, standalone_mode=False)
            run(tmp_path, command)
        else:
            python.append(code)
    assert len(python) == 2
    program = compile("\n".join(python), str(PAGE), "exec")
    printed = run(tmp_path, partial(exec, program, {"__name__": "__main__"}), path=[""])
    assert "torch.Size([5, 10])" in printed


def run(folder: Path, program: Callable[[], object], path: Sequence[str] = ()) -> str:
    """What a program prints in a fork, which need not import again what tests have imported.

    Python looks into the current folder first, an installed command does not.
    """

    def work() -> str:
        os.chdir(folder)
        sys.path[:0] = path
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            program()
        return f"done\n{printed.getvalue()}"

    printed, _, _ = in_a_process(work, limit_s=300, memory=2**33)
    assert printed.startswith("done\n"), printed
    return printed
