"""The pages on priming algorithms: their configurations and code run, and their tables are what the algorithms say."""

from __future__ import annotations

import importlib
import re
from itertools import pairwise
from pathlib import Path

import algorithm_cases
import pytest
import torch
import unroll
import yaml
from tiny_models import TASKS, data, tiny

from pemeta import LoRA, Task, prime
from pemeta.errors import ConfigError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.setting import Setting
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.priming.algorithms.presets import PRESETS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "concepts" / "algorithms.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


YAML, PYTHON = blocks("yaml"), blocks("python")
GRID = {"output": "runs/page", "data": "synthetic", "backbone": "tiny", "sources": ["aru", "bex"], "targets": ["cim"]}
SETTINGS = {name: raw for block in YAML for name, raw in yaml.safe_load(block)["settings"].items()}
ASKED_FOR = {
    "reptile": {"reptile"},
    "ANIL with the head's start": {"anil", "anil-to-the-end"},
    "a multi-step loss": {"multi-step"},
    "inner Adam": {"inner-adam"},
    "persistent": {"persistent"},
    "θ_a alone": {"theta-a-alone"},
}


def few(algorithm: PrimingAlgorithm) -> PrimingAlgorithm:
    """The same on two examples for two steps."""
    return algorithm.model_copy(
        update={"outer_steps": 2, "support_size": 2, "query_size": min(2, algorithm.query_size), "tasks_per_batch": 2}
    )


def test_each_block_is_short_and_a_part_of_a_valid_grid() -> None:
    assert len(YAML) > 10
    for block in YAML:
        assert len(block.splitlines()) <= 15
        raw = yaml.safe_load(block)
        assert list(raw) == ["settings"]
        assert len(GridConfig(**GRID, **raw).settings) == len(raw["settings"])
    assert sum(len(yaml.safe_load(block)["settings"]) for block in YAML) == len(SETTINGS)  # no name twice


@pytest.mark.parametrize("what", ASKED_FOR)
def test_what_a_user_may_look_for_is_there(what: str) -> None:
    assert set(SETTINGS) >= ASKED_FOR[what]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_primes(name: str) -> None:
    setting = Setting.model_validate(SETTINGS[name])
    assert setting.priming is not None
    model = tiny(setting.method)

    history = prime(model, TASKS, few(setting.priming), progress=False)

    assert len(history.losses) == 2
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("block", PYTHON)
def test_each_block_of_python_runs(block: str) -> None:
    sources = [Task.token_classification(name, data(seed, size=40)) for seed, name in enumerate(("en", "es"))]

    exec(compile(block, "algorithms.md", "exec"), {"model": tiny(LoRA(rank=2)), "sources": sources})


def rows(header: str) -> dict[str, list[str]]:
    """The cells of a table by the name in its first column."""
    table = PAGE.split(f"| {header} |", 1)[1].split("\n\n", 1)[0]
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {cells[0].strip("`"): cells[1:] for cells in found}


def test_the_table_has_the_algorithms_and_presets_with_their_passes() -> None:
    table = rows("algorithm")

    assert set(table) >= {"meta", "reptile", "persistent", "finetune", *PRESETS}  # a new algorithm need not be there
    assert set(table) <= {*PrimingAlgorithm.members(), *PRESETS}
    for name, cells in table.items():
        for steps in (3, 7):
            given = {"name": name, "inner_steps": steps} if "S" in cells[2] else {"name": name}
            passes = {"S + 1": steps + 1, "2S": 2 * steps, "S": steps, "1": 1}[cells[2]]
            assert PrimingAlgorithm.parse(given).passes == passes, name


def test_the_table_of_presets_is_what_they_stand_for() -> None:
    shown = {name: yaml.safe_load(cells[0].strip("`")) for name, cells in rows("preset").items()}

    assert shown == {name: dict(preset) for name, preset in PRESETS.items()}
    assert all(PrimingAlgorithm.parse(name) == PrimingAlgorithm.parse(raw) for name, raw in shown.items())


# The how-to


def test_the_algorithm_that_the_how_to_adds_has_the_gradient_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "howto" / "add-an-algorithm.md").read_text(encoding="utf-8")
    file, _, row, by_hand, _ = blocks("python", page)
    (tmp_path / "leap_of_the_page.py").write_text(file, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PrimingAlgorithm._members, "leap", None)  # type: ignore[arg-type]  # afterwards there is none
    kind = importlib.import_module("leap_of_the_page").LeapPriming
    monkeypatch.setitem(unroll.OUTER_GRADIENTS, "leap", None)
    names = {**vars(algorithm_cases), "pairwise": pairwise}
    exec(compile(by_hand, "add-an-algorithm.md", "exec"), names)
    algorithm, method = eval(f"{{{row}}}", {**names, "LeapPriming": kind})["leap"]

    model = unroll.model_of(algorithm_cases.PE[method], "bert")
    assert algorithm_cases.error_of_a_step(algorithm, model, "bert") < 1e-10
    (setting,) = (yaml.safe_load(block)["settings"]["leap"] for block in blocks("yaml", page))
    assert Setting.model_validate(setting).priming == kind(inner_steps=3)
    for wrong in ({"inner_rule": "adam"}, {"primes": ["theta_p"]}, {"query_size": 1}):
        with pytest.raises(ConfigError):
            PrimingAlgorithm.parse({"name": "leap", **wrong})
