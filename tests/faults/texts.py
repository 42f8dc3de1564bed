"""Wrong rows of texts and completions, and backbones that do not suit them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from faults.room import Cases, Room, edit

CASES = Cases("texts")
VERBS = {"open": "unlock", "close": "shut"}
ORDERS = [{"text": f"{verb} the door {i}", "label": label} for i in range(12) for label, verb in VERBS.items()]
SUMS = [{"prompt": f"Add {i} and 2.", "completion": f"It is {i + 2}."} for i in range(24)]
CHATS = [
    {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
    for row in SUMS
]
Rows = Sequence[Mapping[str, Any]]


def given(room: Room, task: object, train: Rows, test: Rows | None = None, **changes: Any) -> Sequence[object]:
    """A run on rows of a kind of task."""
    folder = room.tmp / "rows" / "cc"
    folder.mkdir(parents=True)
    for split, rows in (("train", train), ("validation", test or train), ("test", test or train)):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    del room.config["sources"], room.config["settings"]["primed"]
    name = task if isinstance(task, str) else dict(task)["name"]  # type: ignore[call-overload]
    if name in ("completion", "language_model"):
        room.config["backbone"] = {"name": "pretrained", "path": str(causal())}
        room.config["settings"]["plain"]["method"] = "lora"
        room.config["max_length"] = 48
    data = {"name": "table", "path": str(room.tmp / "rows")}
    room.config |= {"task": task, "data": data, "targets": ["cc"], **changes}
    return ("run", room.config)


@cache
def causal() -> Path:
    """A folder with a tiny causal language model and its tokenizer, which has a chat template."""
    from pemeta.training.pretraining_causal import TinyCausalTransformer, pretrain_causal

    folder = Path(tempfile.mkdtemp(prefix="pemeta-causal-"))
    tiny = TinyCausalTransformer(
        hidden_size=16, heads=2, layers=1, vocab_size=300, max_length=48, block_size=8, steps=1
    )
    model, tokenizer = pretrain_causal([[row["prompt"] + row["completion"]] for row in SUMS], tiny, progress=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(rows: Rows, number: int, **values: Any) -> list[dict[str, Any]]:
    """The rows, of which one has other values; ``...`` removes one."""
    made = [dict(row) for row in rows]
    made[number] = {key: value for key, value in {**made[number], **values}.items() if value is not ...}
    return made


def renamed(rows: Rows, **names: str) -> list[dict[str, Any]]:
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


SEVERAL = {"name": "sequence_classification", "problem": "multi_label"}
NUMBERS = {"name": "sequence_classification", "problem": "regression"}
ROWS: dict[str, tuple[object, Rows, str]] = {
    "a renamed text": ("sequence_classification", renamed(ORDERS, text="txt"), "unknown column 'text'; .*'txt'"),
    "a renamed label": (
        "sequence_classification",
        renamed(ORDERS, label="lable"),
        "unknown column 'label'; did you mean 'lable'",
    ),
    "rows of completions for classes": ("sequence_classification", SUMS, "expected the columns text and label"),
    "rows of classes for completions": (
        "completion",
        ORDERS,
        "expected the columns prompt and completion, or messages",
    ),
    "an empty text": (
        "sequence_classification",
        changed(ORDERS, 3, text=" "),
        "train.jsonl, line 4: the text is empty",
    ),
    "no text": ("sequence_classification", changed(ORDERS, 3, text=None), "train.jsonl, line 4: the text is missing"),
    "a number for a text": ("sequence_classification", changed(ORDERS, 3, text=7), "train.jsonl, line 4: the text .*7"),
    "no label": ("sequence_classification", changed(ORDERS, 3, label=None), "train.jsonl, line 4 has no label"),
    "the label -1": (
        "sequence_classification",
        changed(ORDERS, 3, label=-1),
        "line 4: the label -1 marks texts without",
    ),
    "several labels of one": (
        "sequence_classification",
        changed(ORDERS, 3, label=["open"]),
        "line 4: .*problem: multi_label",
    ),
    "numbers for classes": ("sequence_classification", changed(ORDERS, 3, label=0.5), "line 4: .*problem: regression"),
    "one class alone": ("sequence_classification", ORDERS[::2], "two or more different"),
    "a class twice": (
        SEVERAL,
        changed(renamed(ORDERS, label="labels"), 3, labels=["a", "a"]),
        "line 4: a class is there twice",
    ),
    "a word for a number": (NUMBERS, ORDERS, "line 1: expected a number to predict; found 'open'"),
    "no finite number": (NUMBERS, changed([{**row, "label": 1} for row in ORDERS], 3, label="nan"), "line 4.*number"),
    "an empty completion": (
        "completion",
        changed(SUMS, 3, completion=""),
        "train.jsonl, line 4: the completion is empty",
    ),
    "blanks for a completion": ("completion", changed(SUMS, 3, completion=" \n"), "line 4: the completion is empty"),
    "no completion": ("completion", changed(SUMS, 3, completion=None), "line 4: the completion is missing"),
    "an empty prompt": ("completion", changed(SUMS, 3, prompt=""), "line 4: the prompt is empty"),
    "a renamed prompt": (
        "completion",
        renamed(SUMS, prompt="prompts"),
        "unknown column 'prompt'; did you mean 'prompts'",
    ),
    "a renamed completion": (
        "completion",
        renamed(SUMS, completion="completions"),
        "'completion'; did you mean 'completions'",
    ),
    "a chat that ends with the user": (
        "completion",
        changed(CHATS, 3, messages=CHATS[0]["messages"][:1]),
        "line 4: the last turn",
    ),
    "a chat without turns": ("completion", changed(CHATS, 3, messages=[]), "line 4: messages are empty"),
    "turns without roles": (
        "completion",
        changed(CHATS, 3, messages=[{"from": "human", "value": "x"}]),
        "line 4: .*a role and a content",
    ),
    "a turn that says nothing": (
        "completion",
        changed(CHATS, 3, messages=[*CHATS[0]["messages"][:1], {"role": "assistant", "content": ""}]),
        "line 4: the completion is empty, the assistant's last turn",
    ),
    "a completion longer than the model": (
        "completion",
        changed(SUMS, 3, completion="so " * 60),
        "line 4: the completion has .* tokens, .*long_completions: truncate",
    ),
    "a template that is no Jinja": (
        {"name": "completion", "template": "{% for %}"},
        CHATS,
        "the chat template is no Jinja: .*in line 1",
    ),
    "a template that refuses": (
        {"name": "completion", "template": "{{ raise_exception('only systems speak') }}"},
        CHATS,
        r"test.jsonl, line 1: the chat template fails for turns of user, assistant: only systems speak",
    ),
    "a template that loses what is said": (
        {"name": "completion", "template": "{% for message in messages %}{{ message.role }}{% endfor %}"},
        CHATS,
        r"test.jsonl, line 1: the chat template shows the beginning of the conversation otherwise",
    ),
    "texts that are empty": (
        "language_model",
        changed([{"text": row["text"]} for row in ORDERS], 3, text=""),
        "line 4: the text is empty",
    ),
}
for _name, (_task, _rows, _says) in ROWS.items():
    CASES.add(_name, _says, lambda room, task=_task, rows=_rows: given(room, task, rows))

KEYS: dict[str, tuple[object, dict[str, Any], str]] = {
    "an unknown kind of task": (
        "completions",
        {},
        "task: unknown kind of task 'completions'; did you mean 'completion'",
    ),
    "an unknown metric": ({"name": "completion", "metrics": ["rogue"]}, {}, "task.metrics.0: unknown metric 'rogue'"),
    "a key of another kind": (
        {"name": "completion", "problem": "regression"},
        {},
        "task.problem: unknown key 'problem'",
    ),
    "an unknown problem": (
        {"name": "sequence_classification", "problem": "multi"},
        {},
        "task.problem: input should be",
    ),
    "weights of an unknown class": (
        {"name": "sequence_classification", "class_weights": {"opne": 2.0}},
        {},
        "class_weights: unknown class 'opne'; did you mean 'open'",
    ),
    "weights of a class without examples": (
        {"name": "sequence_classification", "classes": ["open", "close", "lock"], "class_weights": "balanced"},
        {},
        "need an example of each class; there is none of lock",
    ),
    "rows that are streamed": ("sequence_classification", {"streaming": True}, "streaming: .*cannot; remove it"),
    "a number of each class of numbers": (NUMBERS, {"target_sizes": {"per_class": 2}}, "per_class: "),
    "rows of a source that has sentences": ("sequence_classification", {"data": {"name": "synthetic"}}, "synthetic"),
}
for _name, (_task, _changes, _says) in KEYS.items():
    CASES.add(
        _name,
        _says,
        lambda room, task=_task, changes=_changes: given(
            room,
            task,
            [{**row, "label": 0.5} for row in ORDERS] if task is NUMBERS else ORDERS,
            **changes,
        ),
    )


@CASES.case("jsonl, line 1: the label 'opne' of 1 text in (validation|test) is not among .*; did you mean 'open'")
def a_label_of_test_that_train_lacks(room: Room) -> Sequence[object]:
    return given(room, "sequence_classification", ORDERS, changed(ORDERS, 0, label="opne"))


@CASES.case("columns.text: unknown column 'tekst'; did you mean 'text'")
def a_column_that_is_not_there(room: Room) -> Sequence[object]:
    data = {"name": "table", "path": str(room.tmp / "rows"), "columns": {"text": "tekst"}}
    return given(room, "sequence_classification", ORDERS, data=data)


@CASES.case("data.columns: unknown column of sequence_classification 'prompt'")
def a_column_of_another_kind(room: Room) -> Sequence[object]:
    data = {"name": "table", "path": str(room.tmp / "rows"), "columns": {"prompt": "text"}}
    return given(room, "sequence_classification", ORDERS, data=data)


@CASES.case("needs a chat template, and the tokenizer has none, as those of base models; give one")
def chats_for_a_base_model(room: Room) -> Sequence[object]:
    folder = Path(shutil.copytree(causal(), room.tmp / "base"))
    (folder / "chat_template.jinja").unlink()
    return given(room, "completion", CHATS, backbone={"name": "pretrained", "path": str(folder)})


@CASES.case("completion|causal|language model")
def completions_by_an_encoder(room: Room) -> Sequence[object]:
    backbone = {"name": "pretrained", "path": str(room.model())}
    return given(room, "completion", SUMS, backbone=backbone, max_length=32)


@CASES.case("tokenizer|vocabulary")
def a_tokenizer_of_another_language_model(room: Room) -> Sequence[object]:
    folder = Path(shutil.copytree(causal(), room.tmp / "mixed"))
    edit(folder / "config.json", {"vocab_size": 270})
    weights = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    values = load_file(weights)
    save_file({name: value[:270].clone() if len(value) > 270 else value for name, value in values.items()}, weights,
              {"format": "pt"})  # fmt: skip
    return given(room, "completion", SUMS, backbone={"name": "pretrained", "path": str(folder)})


# What is written for a new user

LOOKS: dict[str, tuple[tuple[object, ...], Rows, str]] = {
    "a look for a column that is not there": (
        ("--column", "text=texts"),
        ORDERS,
        "unknown column 'texts'; did you mean",
    ),
    "a look for a role that is none": (
        ("--column", "texts=text"),
        ORDERS,
        "--column: unknown role 'texts'; did you mean",
    ),
    "a look for a kind that is none": (("--task", "classes"), ORDERS, "--task: unknown kind of task 'classes'"),
    "a look at rows of another kind": (
        ("--task", "completion"),
        ORDERS,
        "cannot tell which columns are what for completion",
    ),
}
for _verb in ("data", "init"):
    for _name, (_words, _rows, _says) in LOOKS.items():

        def _look(
            room: Room, verb: str = _verb, words: Sequence[object] = _words, rows: Rows = _rows
        ) -> Sequence[object]:
            file = room.write("".join(f"{json.dumps(row)}\n" for row in rows), "mine.jsonl")
            return (verb, file, *words)

        CASES.add(f"{_name}, by {_verb}", _says, _look)


@CASES.case("grid.yaml is there already, and is not overwritten")
def a_configuration_that_is_there(room: Room) -> Sequence[object]:
    file = room.write("".join(f"{json.dumps(row)}\n" for row in ORDERS), "mine.jsonl")
    room.write("mine", "grid.yaml")
    return ("init", file)


@CASES.case("missing argument 'DATA'")
def nobody_to_ask(room: Room) -> Sequence[object]:
    return ("init",)
