"""The command that makes the results of what works where: what it takes, leaves out and keeps."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "architectures" / "run.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("architectures_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def called(run, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    with warnings.catch_warnings():  # the command changes which are shown
        run.main()


def test_unknown_names_are_refused(run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        called(run, monkeypatch, "--only", "bert,brt")
    assert "unknown: brt; there are bert, xlm-roberta," in capsys.readouterr().err


def test_pairs_of_other_versions_are_not_kept(run, monkeypatch, tmp_path, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setattr(run, "LACKING", ("nomic-bert",))
    for versions, kept in ((run.VERSIONS, True), (run.VERSIONS | {"torch": "1.0"}, False)):
        path.write_text(
            json.dumps({"versions": versions, "pairs": {"t5": {"bitfit": ["nothing", "says", "no biases"]}}})
        )
        called(run, monkeypatch, "--only", "bert", "--methods", "head_only", "--output", path)
        found = json.loads(path.read_text())
        assert found["versions"] == run.VERSIONS
        assert found["pairs"]["bert"] == {"head_only": ["exact", "", ""]}
        assert ("t5" in found["pairs"]) == kept
    assert "nomic-bert: left out, since transformers" in capsys.readouterr().out
