"""What each module of the project imports, read from its source."""

import ast
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "data_gen", "metanet", "studies")
"""The product."""


def modules(root: Path, packages: Sequence[str] = PACKAGES) -> Iterator[tuple[str, Path]]:
    """Dotted names and files of all modules of some packages under a folder."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield name, path


@functools.cache
def parsed(text: str) -> ast.Module:
    """The syntax tree of a source; it is read by many and changed by none."""
    return ast.parse(text)


@functools.cache
def import_nodes(text: str) -> list[ast.Import | ast.ImportFrom]:
    """Imports of a source, wherever they stand, but for those that only types need."""
    tree = parsed(text)
    for_types = {
        n
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for n in node.body
    }
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [node for node in nodes if node not in for_types]


def imports(path: Path, root: Path) -> Iterator[str]:
    """Every imported module, wherever in the file the import stands."""
    for node in import_nodes(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            module = ("." * node.level) + (node.module or "")
            for alias in node.names:
                is_module = (root / module.replace(".", "/") / f"{alias.name}.py").is_file()
                yield f"{module}.{alias.name}" if is_module else module
