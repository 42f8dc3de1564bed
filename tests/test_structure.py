"""The shape of the code: imports point one way, one file imports learn2learn, public names agree."""

import ast
import importlib
from pathlib import Path

import pytest
from processes import finished

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


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def layer(name: str) -> int:
    assert name in ORDER, f"pemeta/{name} has no place in ORDER: put it where it belongs"
    return ORDER.index(name)


def part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports from, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = layer(part(path))
    for name in imports(path):
        if name.startswith("pemeta."):
            assert layer(name.split(".")[1]) <= own, f"{path.name} imports {name} from a later layer"
        assert name.split(".")[0] not in {"benchmarks", "tests"}


def test_methods_and_heads_do_not_know_each_other():
    for path in modules():
        if part(path) == "methods":
            assert not any(name.startswith(("pemeta.heads", "pemeta.model.pe_model")) for name in imports(path))
        if part(path) == "heads":
            assert not any(name.startswith("pemeta.methods") for name in imports(path))


def test_nothing_tests_which_method_it_has():
    """Outside ``methods/`` only the abstract class's file is imported; ``__init__`` hands public names on."""
    for path in modules():
        if part(path) not in {"methods", "__init__"}:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pemeta.methods"):
                    base = node.module == "pemeta.methods.base"
                    assert base or {alias.name for alias in node.names} == {"PEMethod"}, path


def test_one_file_imports_learn2learn():
    named = [p.name for p in modules() if any(n.split(".")[0] == "learn2learn" for n in imports(p))]
    loading = [p.name for p in modules() if "learn2learn.algorithms" in p.read_text(encoding="utf-8")]
    assert (named, loading) == ([], ["_learn2learn.py"])


def test_public_names_are_there_and_the_type_checker_is_told_the_same():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    told = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pemeta.")
        for alias in node.names
    }
    assert told == pemeta._HOME
    for name in pemeta._HOME:
        assert getattr(pemeta, name) is getattr(importlib.import_module(pemeta._HOME[name]), name)
        assert name in dir(pemeta)
    with pytest.raises(AttributeError, match="no attribute 'Adaptor'"):
        _ = pemeta.Adaptor


def test_importing_pemeta_loads_nothing_heavy():
    code = (
        "import sys, pemeta, pemeta.cli; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    found = finished("-c", code, check=True)
    assert found.stdout.strip() == "[]"
