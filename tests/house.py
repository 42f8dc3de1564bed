"""The package's syntax trees: its folders in their order, and what each file imports. The docs draw them too."""

import ast
import functools
from pathlib import Path

import pemeta

ROOT = Path(pemeta.__file__).parent
# Each may import itself and those before it.
ORDER = [
    "errors",
    "typing",
    "utils",
    "backbone",
    "data",
    "heads",
    "methods",
    "model",
    "tasks",
    "training",
    "priming",
    "deploy",
    "reporting",
    "experiments",
    "estimate",
    "cli",
    "__main__",
    "__init__",
]


@functools.cache
def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """The full name of a module; a folder's for its ``__init__``."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(name: str) -> int:
    assert name in ORDER, f"pemeta/{name} has no place in ORDER: put it where it belongs"
    return ORDER.index(name)


def part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def import_lines(path: Path) -> list[set[str]]:
    """Full names of the modules that each import of a file names, wherever: in functions and for type checkers too."""
    known, lines = set(map(module_name, modules())), []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.module, f"{short(path)}, line {node.lineno}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}  # a folder's module may be named
            lines.append({name if name in known else node.module for name in inner})
        elif isinstance(node, ast.Import):
            lines.append({alias.name for alias in node.names})
    return lines


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports from."""
    return set().union(*import_lines(path))
