"""The first page of the documentation, as a newcomer follows it: files, commands, Python."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own_modules.md"
MARKED = re.compile(r"<!-- run from an empty folder -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.M)
LONGEST = {"mylab.py": 12, "my.yaml": 10}
PROGRAM = "from data_gen.cli import main; main()"


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
            run(tmp_path, PROGRAM, *words, "--quiet", "--workers", "0")
        else:
            python.append(code)
    assert len(python) == 2
    printed = run(tmp_path, "\n".join(python))
    assert "torch.Size([5, 10])" in printed


def run(folder, program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
