"""The shape of the code: folders by role, imports that point one way, small files, and public names that agree."""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from house import ROOT, imports, layer, module_name, modules, part, short, tree
from processes import finished

import pemeta
from pemeta.priming.algorithms import PrimingAlgorithm

TOP = 6
"""Modules beside the folders, at most."""
LINES, FUNCTION = 330, 60
"""Of a file and of a function, at most."""


@pytest.mark.parametrize("path", modules(), ids=short)
def test_imports_point_one_way(path):
    own = layer(part(path))
    for name in imports(path):
        if name.startswith("pemeta."):
            assert layer(name.split(".")[1]) <= own, f"{path.name} imports {name} from a later layer"
        assert name.split(".")[0] not in {"benchmarks", "tests"}


def test_no_modules_import_each_other_in_a_circle():
    """Within a folder neither."""
    waits = {module_name(path): imports(path) - {module_name(path)} for path in modules()}
    waits = {name: on & waits.keys() for name, on in waits.items()}
    # What imports nothing of what is left, or what nothing of it imports, is in no circle.
    while free := {name for name, on in waits.items() if not on} | waits.keys() - set().union(*waits.values()):
        waits = {name: on - free for name, on in waits.items() if name not in free}
    assert waits == {}


def test_few_modules_stand_at_the_top():
    assert len(list(ROOT.glob("*.py"))) <= TOP


@pytest.mark.parametrize("folder", sorted({path.parent for path in modules()}), ids=short)
def test_a_folder_says_what_belongs_there(folder):
    assert (ast.get_docstring(tree(folder / "__init__.py")) or "").strip()


def test_files_and_functions_are_short():
    found = {short(path) for path in modules() if len(path.read_text(encoding="utf-8").splitlines()) > LINES}
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= FUNCTION:
                    found.add(f"{short(path)}: {node.name}")
    assert found == set()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_attributes(path: Path) -> set[str]:
    """Names of the private methods and attributes of a file's classes, and of its own functions and values."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in found if is_private(name)}


def test_private_attributes_are_not_reached_from_another_module():
    """By name: those of torch's modules are torch's."""
    private = {path: private_attributes(path) - set(dir(torch.nn.Module())) for path in modules()}
    found = set()
    for path in modules():
        elsewhere = set().union(*(names for other, names in private.items() if other != path)) - private[path]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in elsewhere:
                own = ast.unparse(node.value) in {"self", "cls", "super()"}
                found |= set() if own else {f"{short(path)}: {ast.unparse(node)}"}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pemeta":
                private_names = {alias.name for alias in node.names if is_private(alias.name)}
                found |= {f"{short(path)}: {node.module}.{name}" for name in private_names & elsewhere}
    assert found == set()


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
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Import):
                    assert not any(alias.name.startswith("pemeta.methods") for alias in node.names), path
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pemeta.methods"):
                    base = node.module == "pemeta.methods.base"
                    assert base or {alias.name for alias in node.names} == {"PEMethod"}, path


def test_nothing_outside_of_priming_tests_which_algorithm_it_has():
    """What others ask of an algorithm is a method or a property of ``PrimingAlgorithm``."""
    algorithms = {algorithm.__name__ for algorithm in PrimingAlgorithm.members().values()}
    assert algorithms >= {"MetaPriming", "FineTunePriming"}
    for path in modules():
        if part(path) != "priming":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and called(node) in {"isinstance", "issubclass"}:
                    assert not algorithms & names_in(node), path
                if isinstance(node, ast.MatchClass):
                    assert not algorithms & names_in(node.cls), path


def called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def names_in(tree: ast.AST) -> set[str]:
    """Names and attributes that occur anywhere in a tree."""
    nodes = list(ast.walk(tree))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


def test_a_test_of_an_algorithms_class_is_found():
    assert "MetaPriming" in names_in(ast.parse("isinstance(a, (algorithms.MetaPriming, B))"))


def test_one_file_imports_learn2learn():
    named = [p.name for p in modules() if any(n.split(".")[0] == "learn2learn" for n in imports(p))]
    loading = [p.name for p in modules() if "learn2learn.algorithms" in p.read_text(encoding="utf-8")]
    assert (named, loading) == ([], ["_learn2learn.py"])


def test_public_names_are_there_and_the_type_checker_is_told_the_same():
    told = {
        alias.asname: node.module
        for node in ast.walk(tree(ROOT / "__init__.py"))
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
