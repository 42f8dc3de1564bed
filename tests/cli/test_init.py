"""``pemeta init``: what it writes is accepted and runs as it stands, and nothing that is there is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pemeta.cli import init as command
from pemeta.experiments.config_schema import NAME, schema_text

SUMS = [{"prompt": f"Add {a} and {b}.", "completion": f"It is {a + b}."} for a in range(5) for b in range(5)]
CHATS = [
    {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
    for row in SUMS
]
ORDERS = [
    {"text": f"{verb} the {thing} {when}", "label": label}
    for label, verb in (("open", "unlock"), ("close", "shut"))
    for thing in ("door", "box", "gate", "lid")
    for when in ("now", "later", "again")
]
SCORES = [{**row, "label": len(row["text"]) / 7} for row in ORDERS]
TOPICS = [{"text": row["text"], "labels": [row["label"], "thing"][: 1 + i % 2]} for i, row in enumerate(ORDERS)]
TEXTS = [{"text": row["text"]} for row in ORDERS]
WORDS = [{"tokens": row["text"].split(), "ner_tags": ["O", "O", "B-PER", "O"]} for row in ORDERS]
KINDS: Mapping[str, tuple[Sequence[Mapping[str, Any]], str, str]] = {
    "classes": (ORDERS, "task: {name: sequence_classification, pooling: first}", "accuracy"),
    "several labels": (
        TOPICS,
        "task: {name: sequence_classification, problem: multi_label, pooling: first}",
        "micro F1",
    ),
    "numbers": (SCORES, "task: {name: sequence_classification, problem: regression, pooling: first}", "Pearson"),
    "completions": (SUMS, "task: completion", "exact match"),
    "chats": (CHATS, "task: completion", "exact match"),
    "texts": (TEXTS, "task: language_model", "loss"),
    "words": (WORDS, "adapter: {method: adapter}", "F1"),
}


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def intents(*tasks: str) -> None:
    for task in tasks:
        for split in ("train", "validation", "test"):
            written(
                Path("intents") / task / f"{split}.jsonl", [{**row, "text": f"{task} {row['text']}"} for row in ORDERS]
            )


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_any_kind_becomes_a_configuration_that_is_accepted(name: str, pemeta: Callable[..., Any]) -> None:
    rows, line, metric = KINDS[name]
    written(Path("mine.jsonl"), rows)
    made = pemeta("init", "mine.jsonl")
    assert (made.code, made.err) == (0, "")
    text = Path("grid.yaml").read_text()
    assert line in text
    assert metric in text
    checked = pemeta("validate", "grid.yaml", "--load", "backbone.transformer.steps=1", "device=cpu")
    assert (checked.code, checked.err) == (0, "")
    assert "1 fine-tuning run" in checked.out


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_it_runs_as_it_stands(name: str, pemeta: Callable[..., Any]) -> None:
    written(Path("mine.jsonl"), KINDS[name][0])
    pemeta("init", "mine.jsonl")
    ran = pemeta("run", "grid.yaml", "device=cpu")
    assert (ran.code, ran.err) == (0, "")
    assert "Results: grid\n" in ran.out


def test_several_tasks_are_primed_on_and_fine_tuned_on(pemeta: Callable[..., Any]) -> None:
    intents("bank", "home", "travel", "work")
    assert pemeta("init", "intents").code == 0
    found = yaml.safe_load(Path("grid.yaml").read_text())
    assert (found["sources"], found["targets"]) == (["bank", "home", "travel"], ["work"])
    assert found["settings"] == {"lora": {"method": "lora"}, "lora-primed": {"method": "lora", "priming": "meta"}}
    assert found["priming"]["support_size"] + found["priming"]["query_size"] <= len(ORDERS)
    pemeta(
        "init", "intents", "--targets", "bank,home", "--method", "{name: adapter, bottleneck: 8}", "--config", "b.yaml"
    )
    found = yaml.safe_load(Path("b.yaml").read_text())
    assert (found["sources"], found["targets"], found["output"]) == (["travel", "work"], ["bank", "home"], "runs/b")
    assert found["settings"]["adapter-primed"]["method"] == {"name": "adapter", "bottleneck": 8}
    checked = pemeta("validate", "b.yaml")
    assert "1 priming run and 4 fine-tuning runs" in checked.out
    pemeta("init", "intents", "--sources", "work", "--model", "some/model", "--output", "x", "--config", "c.yaml")
    found = yaml.safe_load(Path("c.yaml").read_text())
    assert (found["sources"], found["targets"]) == (["work"], ["bank", "home", "travel"])
    assert (found["backbone"], found["output"]) == ({"name": "pretrained", "path": "some/model"}, "x")


def test_a_decoder_classifies_by_its_last_token(pemeta: Callable[..., Any]) -> None:
    written(Path("mine.jsonl"), ORDERS)
    Path("lm").mkdir()
    Path("lm/config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert pemeta("init", "mine.jsonl", "--model", "lm").code == 0
    task = yaml.safe_load(Path("grid.yaml").read_text())["task"]
    assert task == {"name": "sequence_classification", "pooling": "last", "bias": False}


def test_a_column_of_tasks_makes_each_of_its_values_one(pemeta: Callable[..., Any]) -> None:
    rows = [{**row, "domain": domain} for domain in ("bank", "home") for row in ORDERS]
    written(Path("mine.jsonl"), rows)
    assert pemeta("init", "mine.jsonl").code == 0
    found = yaml.safe_load(Path("grid.yaml").read_text())
    assert (found["data"]["task_column"], found["sources"], found["targets"]) == ("domain", ["bank"], ["home"])
    checked = pemeta("validate", "grid.yaml", "--load", "backbone.transformer.steps=1", "device=cpu")
    assert (checked.code, checked.err) == (0, "")


def test_what_is_there_is_not_overwritten(pemeta: Callable[..., Any], refused: Callable[..., str]) -> None:
    written(Path("mine.jsonl"), ORDERS)
    Path("grid.yaml").write_text("mine")
    assert refused("init", "mine.jsonl").startswith("grid.yaml is there already, and is not overwritten; give another")
    assert Path("grid.yaml").read_text() == "mine"
    Path(NAME).write_text("own")
    assert pemeta("init", "mine.jsonl", "--config", "other.yaml", "--schema").code == 0
    assert Path(NAME).read_text() == "own"


def test_the_schema_is_written_beside_it_if_asked_for(pemeta: Callable[..., Any]) -> None:
    written(Path("mine.jsonl"), ORDERS)
    assert pemeta("init", "mine.jsonl", "--schema", "--config", "grid.yaml").code == 0
    assert Path("grid.yaml").read_text().startswith(f"# yaml-language-server: $schema={NAME}\n")
    assert Path(NAME).read_text(encoding="utf-8") == schema_text()


def test_wrong_words_are_refused_with_the_nearest(refused: Callable[..., str]) -> None:
    intents("bank", "home")
    for arguments, says in {
        ("--task", "completions"): "--task: unknown kind of task 'completions'; did you mean 'completion'?",
        ("--column", "text"): "--column: expected ROLE=COLUMN, such as text=review; found 'text'",
        ("--column", "texts=text"): "--column: unknown role 'texts'; did you mean 'text'?",
        ("--column", "text=texts"): "--column text=texts: unknown column 'texts'; did you mean 'text'?",
        ("--targets", "hom"): "--targets: unknown task 'hom'; did you mean 'home'?",
        ("--sources", "bank,home"): "--sources: all tasks are sources, and none is left to fine-tune on; name fewer",
        ("--method", "lorra"): "unknown PE method 'lorra'; did you mean 'lora'?",
        ("--model", " "): "--model: expected a model's name or folder",
        ("--config", "no/grid.yaml"): "cannot write no/grid.yaml: No such file or directory; check the path",
    }.items():
        assert says in refused("init", "intents", *arguments), arguments
    assert not Path("grid.yaml").exists()


def test_without_a_terminal_it_asks_nothing(refused: Callable[..., str]) -> None:
    assert refused("init") == "missing argument 'DATA'; see `pemeta init --help`"


def test_on_a_terminal_it_asks(pemeta: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    intents("bank", "home", "work")
    asked: list[tuple[str, object]] = []
    answers = {"File or folder of examples": "intents", "Tasks to fine-tune on": "bank", "Folder for results": "out"}

    def prompt(question: str, default: str | None = None) -> str:
        asked.append((question, default))
        return answers.get(question, default or "")

    monkeypatch.setattr(command, "is_terminal", lambda: True)
    monkeypatch.setattr(command.typer, "prompt", prompt)
    made = pemeta("init", "--method", "adapter")
    assert (made.code, made.err) == (0, "")
    assert asked == [
        ("File or folder of examples", None),
        ("Tasks to fine-tune on", "work"),
        ("Tasks to prime on", "home, work"),
        ("Model, its name or folder", "tiny"),
        ("Folder for results", "runs/grid"),
    ]
    found = yaml.safe_load(Path("grid.yaml").read_text())
    assert (found["targets"], found["sources"], found["output"]) == (["bank"], ["home", "work"], "out")
    assert found["backbone"]["name"] == "tiny"
    assert "adapter-primed" in found["settings"]
