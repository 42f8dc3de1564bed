"""What the documentation shows is there and works; that it builds without a warning is `make docs`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

import pemeta
from pemeta.experiments.config_file import load_config
from pemeta.reporting.records import read_records

DOCS = Path(__file__).parents[2] / "docs"
CONCEPTS = (DOCS / "concepts" / "priming.md").read_text(encoding="utf-8")
GRID = (DOCS / "howto" / "run-a-grid.md").read_text(encoding="utf-8")
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md")))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_every_public_name_is_in_the_reference() -> None:
    documented = re.findall(r"^\.\. (?:auto\w+|py:data):: pemeta\.(\w+)$", REFERENCE, flags=re.MULTILINE)
    assert ".. pe-methods::" in REFERENCE  # which shows every registered method
    methods = (method.__name__ for method in pemeta.PEMethod.members().values())
    documented += [name for name in methods if name in pemeta.__all__]  # a new one need not be

    assert sorted(documented) == sorted(pemeta.__all__)


def test_every_name_of_the_reference_is_there() -> None:
    named = re.findall(r"^\.\. (?:auto\w+|py:\w+|fields):: (pemeta\.\S+)$", REFERENCE, flags=re.MULTILINE)
    missing = []
    for name in named:
        module, _, attribute = name.rpartition(".")
        if not hasattr(importlib.import_module(module), attribute):
            missing.append(name)
    assert len(named) > 100
    assert missing == []


def test_the_callbacks_and_the_options_of_the_loop_are_in_the_reference() -> None:
    from pemeta.training import callbacks

    names = [name for name in vars(callbacks) if isinstance(getattr(callbacks, name), type)]
    assert "EarlyStopping" in names
    for name in [*(f"callbacks.{name}" for name in names), "loop.LoopOptions"]:
        assert f".. autoclass:: pemeta.training.{name}\n" in REFERENCE, name


def test_every_command_is_in_the_reference() -> None:
    from typer.main import get_command

    from pemeta.cli import app

    shown = re.findall(r"^\.\. command-help:: (\S+)$", REFERENCE, flags=re.MULTILINE)
    assert sorted(shown) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_the_counts_of_mbert_are_those_that_the_snippet_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks(CONCEPTS, "python")
    exec(compile(snippet, "priming.md", "exec"), {})
    rows = capsys.readouterr().out.splitlines()

    assert len(rows) == 3
    for row in rows:
        name, *numbers, share = row.replace("[", "").replace("]", "").replace(",", "").split()
        (shown,) = re.findall(rf"^\| `{name}`.*$", CONCEPTS.split("## How many parameters")[1], flags=re.MULTILINE)
        cells = [cell.strip().replace("\N{NO-BREAK SPACE}%", "%") for cell in shown.strip("|").split("|")]
        assert [cell.replace(",", "") for cell in cells[1:5]] == numbers
        assert float(cells[5].removesuffix("%")) == float(share.removesuffix("%"))


def test_each_setting_of_table_1_is_a_configuration_that_runs(tmp_path: Path) -> None:
    from pemeta.experiments.runner import Runner

    rows = re.findall(r"^\| ([1-7])/[^|]*\| `(.*?)` \| (?:`(.*)`)? ?\|$", CONCEPTS, flags=re.MULTILINE)
    settings = {
        f"setting-{number}": {"method": method, "priming": yaml.safe_load(priming)} for number, method, priming in rows
    }
    assert list(settings) == [f"setting-{number}" for number in range(1, 8)]

    tiny = {"hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 200, "steps": 2, "batch_size": 4}
    config = {
        "output": str(tmp_path / "run"),
        "data": {"name": "synthetic", "train": 20, "validation": 4, "test": 4, "text_sentences": 50},
        "backbone": {"name": "tiny", "transformer": tiny},
        "sources": ["aru", "bex"],
        "targets": ["cim"],
        "max_length": 64,
        "device": "cpu",
        "priming": {"outer_steps": 2, "support_size": 4, "query_size": 4},
        "finetuning": {"epochs": 1},
        "settings": settings,
    }
    path = tmp_path / "table-1.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    runner = Runner(load_config(path), say=lambda line: None, progress=False)
    runner.run()

    assert len(read_records(runner.folder)) == len(runner.config.runs)


def test_the_grid_of_the_how_to_is_what_its_text_says(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(blocks(GRID, "yaml")[0], encoding="utf-8")
    config = load_config(path, ["finetuning.epochs=6", "seeds=[0, 1, 2]", "output=runs/six-epochs"])

    assert len(load_config(path).runs) == 8
    assert "8 fine-tuning runs (2 settings x 2 targets x 2 seeds) into runs/first-grid" in GRID
    assert (len(config.runs), config.settings["adapter"].finetuning.epochs) == (12, 6)
