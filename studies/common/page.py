"""Pages of studies.

One HTML file with figures inside, readable without a network, scripts or color.
"""

import base64
import html
import io
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from zoo.store.atomic import write_text

PACKAGES = ("symzoo", "torch", "scikit-learn", "numpy", "pandas")

CSS = """
body { margin: 2.2rem auto; max-width: 66rem; padding: 0 1.5rem; color: #222; background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.55rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } .wide { overflow-x: auto; }
p { max-width: 48rem; margin: .4rem 0; }
.quiet, figcaption { color: #555; font-size: .88rem; max-width: 52rem; }
figure { margin: 1rem 0 1.6rem; } figure img { width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0;
        font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .22rem 1.1rem .22rem 0; white-space: nowrap; }
thead th { border-bottom: 1.5px solid #444; }
td.long { white-space: normal; }
tr.first td { border-top: 1px solid #ccc; } tbody tr:first-child td { border-top: 0; }
pre { background: #f6f6f6; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem;
      line-height: 1.4; }
"""


@dataclass(frozen=True, eq=False)
class Table:
    """A table of texts with its heading.

    Attributes:
        title: The heading.
        cells: The texts, by column.
        note: What the numbers are; may be empty.
    """

    title: str
    cells: pd.DataFrame
    note: str = ""


@dataclass(frozen=True, eq=False)
class Report:
    """What a study puts on its page.

    Attributes:
        title: Title of the page.
        parts: HTML, as the functions of this module make it.
        facts: What is worth knowing about how it was made, by name.
    """

    title: str
    parts: list[str]
    facts: Mapping[str, str]


def write_page(out: Path, title: str, parts: Iterable[str]) -> Path:
    """Write `report.html`.

    Args:
        out: Directory of the study.
        title: Shown by browsers; the heading is one of the parts.
        parts: HTML, as the other functions make it.

    Returns:
        The file.
    """
    path = out / "report.html"
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    write_text(path, page)
    return path


def section(shown: Table, level: int = 2) -> list[str]:
    """A table as parts of a page: its heading, its cells, its note."""
    notes = [quiet(shown.note)] if shown.note else []
    return [heading(shown.title, level), table(shown.cells), *notes]


def sections(tables: Iterable[Table]) -> list[str]:
    """Tables as parts of a page, one after the other."""
    return [part for shown in tables for part in section(shown)]


def table_text(shown: Table) -> str:
    """A table for the terminal."""
    return "\n".join([shown.title, render(shown.cells), *([shown.note] if shown.note else [])])


def render(cells: pd.DataFrame) -> str:
    """A table of texts in columns, with an empty line where the first column changes.

    Args:
        cells: Texts.

    Returns:
        Lines of text.
    """
    widths = [max(map(len, [name, *cells[name]])) for name in cells.columns]
    text, before = [_join(cells.columns, widths)], cells.iloc[0, 0]
    for values in cells.to_numpy().tolist():
        text += [""] * (values[0] != before) + [_join(values, widths)]
        before = values[0]
    return "\n".join(text)


def _join(values: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(
        value.ljust(width) for value, width in zip(values, widths, strict=True)
    ).rstrip()


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def quiet(text: str) -> str:
    """A remark."""
    return f'<p class="quiet">{escape(text)}</p>'


def figure(drawn: Figure, caption: str) -> str:
    """A figure, drawn inside the page; its caption is what those hear who do not see it."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" '
        f'src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'
    )


def table(cells: pd.DataFrame) -> str:
    """A table of texts; a line is drawn wherever the first column changes."""
    head = "".join(f"<th>{escape(name)}</th>" for name in cells.columns)
    lines, before = [], None
    for values in cells.to_numpy().tolist():
        start = '<tr class="first">' if values[0] != before else "<tr>"
        lines.append(start + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>")
        before = values[0]
    rows = "".join(lines)
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def details(name: str, out: Path, facts: Mapping[str, str], config: str) -> str:
    """How the page was made.

    The command, what else is worth knowing, versions, hardware, and the config.

    Args:
        name: The study's command.
        out: Directory of the study.
        facts: What else is worth knowing, by name.
        config: The config as YAML.

    Returns:
        HTML.
    """
    command = ["symzoo", "study", name, "--config", str(out / "config.yaml"), "--out", str(out)]
    python = f"Python {platform.python_version()}"
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    told = {
        "command": shlex.join(command),
        **facts,
        "versions": ", ".join([python, *(f"{name} {_version(name)}" for name in PACKAGES)]),
        "hardware": f"{machine} (where this page was written)",
    }
    lines = "".join(
        f'<tr><td>{name}</td><td class="long">{escape(text)}</td></tr>'
        for name, text in told.items()
    )
    return (
        f"<h2>How it was made</h2><table><tbody>{lines}</tbody></table><pre>{escape(config)}</pre>"
    )


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
