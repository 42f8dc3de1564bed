"""The page from a file to a served model: each kind's commands run as they stand, and peft predicts the same."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "from-a-file.md").read_text(encoding="utf-8")
MOST = 6
THINGS, TIMES, NAMES = ("door", "gate", "box", "lid"), ("now", "later", "again"), ("Tuva", "Ada", "Bo", "Ida")
ROWS: dict[str, list[dict[str, Any]]] = {
    "Classes of texts": [
        {"text": f"{verb} the {thing} {when}", "label": label}
        for when in TIMES
        for thing in THINGS
        for verb, label in (("unlock", "open"), ("shut", "close"))
    ],
    "Completions": [
        {"prompt": f"Add {a} and {b}.", "completion": f"It is {a + b}."} for a in range(5) for b in range(5)
    ],
    "Texts": [
        {"text": f"The {thing} is {state} {when}."} for state in ("open", "shut") for when in TIMES for thing in THINGS
    ],
    "Words with tags": [
        {"tokens": [name, "went", "to", place], "ner_tags": ["B-PER", "O", "O", "B-LOC"]}
        for place in ("Oslo", "Rome", "Lima", "Bonn", "Kyiv")
        for name in NAMES
    ],
}


class Section(NamedTuple):
    rows: str
    commands: list[list[str]]
    python: str


def section(heading: str) -> Section:
    text = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = {
        name: re.findall(rf"^```{name}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) for name in ("json", "console")
    }
    (python,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (rows,), (console,) = found["json"], found["console"]
    return Section(rows, [shlex.split(line)[1:] for line in console.splitlines()], python)


@pytest.mark.parametrize("heading", ROWS)
def test_it_takes_at_most_six_commands(heading: str) -> None:
    shown = section(heading)
    assert len(shown.commands) + 1 <= MOST  # and the Python at the end
    assert shown.rows == "".join(f"{json.dumps(row)}\n" for row in ROWS[heading][:2])


LONG = [pytest.param(heading, marks=[pytest.mark.long] if heading != "Classes of texts" else []) for heading in ROWS]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft about transformers
@pytest.mark.parametrize("heading", LONG)
def test_a_newcomer_gets_from_a_file_to_a_folder_that_peft_loads(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pemeta: Callable[..., Any], capsys: Any
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    shown = section(heading)
    name = next(word for word in shown.commands[0] if word.endswith(".jsonl"))
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[heading]), encoding="utf-8")
    outputs = {}
    for program, verb, *words in shown.commands:
        assert program == "pemeta"
        done = pemeta(verb, *words)
        assert (done.code, done.err) == (0, ""), (verb, done)
        outputs[verb] = done.out
    names: dict[str, Any] = {}
    exec(compile(shown.python, "from-a-file.md", "exec"), names)
    assert capsys.readouterr().out.strip()
    same(heading, shown, names, outputs["predict"], pemeta)


def same(heading: str, shown: Section, names: dict[str, Any], said: str, pemeta: Callable[..., Any]) -> None:
    """That peft predicts what pemeta does."""
    (_, _, folder, text, *_) = next(words for words in shown.commands if words[1] == "predict")
    model, tokenizer = names["model"].eval(), names["tokenizer"]
    with torch.no_grad():
        if heading in ("Completions", "Texts"):
            whole = tokenizer.decode(names["tokens"][0], skip_special_tokens=True)
            assert whole.startswith(text)
            assert whole.removeprefix(text).strip() == said.strip()
            return
        logits = model(**tokenizer(text, return_tensors="pt")).logits
    labels = sorted({row["label"] for row in ROWS[heading]}) if heading == "Classes of texts" else None
    told = json.loads(pemeta("predict", folder, text, "--json").out)
    if labels is not None:
        assert labels[int(logits.argmax())] == told["label"]
    else:
        assert logits.shape[-1] == 7
