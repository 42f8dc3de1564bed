"""Damaged files of an earlier run: records, primed models, tasks, checkpoints."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from faults.room import Cases, Room, edit
from safetensors.torch import load_file, save_file

CASES = Cases("run")


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file; a share of 1 omits the last two bytes, one of which may be a line end."""
    content = path.read_bytes()
    path.write_bytes(content[: min(int(len(content) * share), len(content) - 2)])


def flip(path: Path, at: int, bit: int = 4) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def places(path: Path) -> dict[str, int]:
    """Positions of bytes throughout a safetensors file."""
    content = path.read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    values = len(content) - 8 - header
    return {
        "the length's first byte": 0,
        "the length's second byte": 1,
        "the length's last byte": 7,
        "the header's first byte": 8,
        "the header's third byte": 10,
        "a quarter into the header": 8 + header // 4,
        "half into the header": 8 + header // 2,
        "three quarters into the header": 8 + 3 * header // 4,
        "the first value": 8 + header,
        "a quarter into the values": 8 + header + values // 4,
        "half into the values": 8 + header + values // 2,
        "three quarters into the values": 8 + header + 3 * values // 4,
        "the last byte": len(content) - 1,
    }


PLACES = (
    "the length's first byte",
    "the length's second byte",
    "the length's last byte",
    "the header's first byte",
    "the header's third byte",
    "a quarter into the header",
    "half into the header",
    "three quarters into the header",
    "the first value",
    "a quarter into the values",
    "half into the values",
    "three quarters into the values",
    "the last byte",
)
SHARES = (0.0, 0.02, 0.25, 0.5, 0.75, 0.99, 1.0)

# Records


def record(room: Room) -> Path:
    return sorted((room.run() / "records").glob("*.json"))[0]


def spoilt_record(change: Callable[[Path], object], *command: str) -> Callable[[Room], Sequence[object]]:
    def prepare(room: Room) -> Sequence[object]:
        change(record(room))
        return ("report", room.run()) if command == ("report",) else ("run", room.config)

    return prepare


RECORD = "records/.*json.*; remove it to have it recreated"
for _share in SHARES:
    for _command in ("run", "report"):
        CASES.add(
            f"{_command} with a record cut to {_share:.0%}",
            RECORD,
            spoilt_record(lambda path, share=_share: cut(path, share), _command),
        )
NEW = (
    *("task", "unit", "metric", "score", "scores", "scores_by", "by", "score_unseen", "outcomes", "validation_metric"),
    *("validation_score", "cut"),
)
OLD: dict[str, Any] = {
    **dict.fromkeys(NEW, ...),
    **dict.fromkeys(("f1", "precision", "recall", "f1_unseen", "validation_f1"), 0.5),
    **dict.fromkeys(("correct", "predicted", "gold"), "1 0"),
    "f1_per_type": {"LOC": 0.5},
}
"""What makes a record one of before there were other kinds of task."""
RECORDS: dict[str, dict[str, Any]] = {
    "a score that is a text": {"score": "high"},
    "a score that is not a number": {"score": float("nan")},
    "a score that is infinite": {"scores": {"f1": float("inf")}},
    "no score": {"score": ...},
    "a seed that is a list": {"seed": [0]},
    "indices that are negative": {"unseen": "-1 -2"},
    "outcomes that are words": {"outcomes": {"gold": "one two"}},
    "outcomes that are a number": {"outcomes": {"gold": 3.5}},
    "outcomes that are infinite": {"outcomes": {"gold": "1 inf"}},
    "indices that are fractions": {"unseen": "1.5"},
    "an old score that is a text": OLD | {"f1": "high"},
    "an old record without counts": {name: value for name, value in OLD.items() if name != "gold"},
    "old counts that are words": OLD | {"correct": "one two"},
    "a curve that is a number": {"validation_curve": 1},
    "a key that nobody knows": {"colour": "red"},
    "a configuration that is a text": {"config": "none"},
    "sources that are a text": {"sources": "aa"},
    "a flag for a number": {"num_test": True},
}
for _name, _changes in RECORDS.items():
    CASES.add(f"report of {_name}", RECORD, spoilt_record(lambda path, c=_changes: edit(path, c), "report"))
for _name, _content in {"a list": "[]", "null": "null", "a text": '"x"', "two values": "{} {}"}.items():
    CASES.add(f"report of {_name}", RECORD, spoilt_record(lambda path, c=_content: path.write_text(c), "report"))


@CASES.case("cannot read .*records/.*json.*remove it")
def a_record_that_is_a_folder(room: Room) -> Sequence[object]:
    path = record(room)
    path.unlink()
    path.mkdir()
    return ("report", room.run())


@CASES.case("cannot read .*records/.*json.*(utf-8|UTF-8).*remove it")
def a_record_that_is_not_utf_8(room: Room) -> Sequence[object]:
    record(room).write_bytes(b"\xff\xfe")
    return ("report", room.run())


@CASES.case("no records in .*; run `pemeta run CONFIG`")
def no_records(room: Room) -> Sequence[object]:
    shutil.rmtree(room.run() / "records")
    return ("report", room.run())


@CASES.case("records|two|same")
def two_records_of_one_run(room: Room) -> Sequence[object]:
    path = record(room)
    shutil.copy(path, path.with_name("again.json"))
    return ("report", room.run())


YAMLS = {
    "no YAML": (b"settings: [", "cannot read .*config.yaml"),
    "not UTF-8": (b"\xff\xfe", "cannot read .*config.yaml"),
    "deep": (b"[" * 100_000, "cannot read .*config.yaml"),
    "a Python object": (b"report: !!python/object/apply:os.system [echo]", "cannot read .*config.yaml"),
    "a report that is a number": (b"report: 3", "config.yaml: report: "),
    "a report with an unknown key": (b"report: {tabels: []}", "config.yaml: report: .*unknown key 'tabels'"),
    "aliases to itself": (b"report: &x {title: *x}", "config.yaml"),
}
for _name, (_content, _says) in YAMLS.items():

    def _prepare(room: Room, content: bytes = _content) -> Sequence[object]:
        (room.run() / "config.yaml").write_bytes(content)
        return ("report", room.run())

    CASES.add(f"a run's configuration: {_name}", _says, _prepare)

# The primed model, which the run has to fine-tune again


def from_primed(change: Callable[[Path], object]) -> Callable[[Room], Sequence[object]]:
    def prepare(room: Room) -> Sequence[object]:
        for path in (room.run() / "records").iterdir():
            path.unlink()
        change(room.primed())
        return ("run", room.config)

    return prepare


def served(change: Callable[[Path], object]) -> Callable[[Room], Sequence[object]]:
    """Damage the primed model of a task that is then served."""

    def prepare(room: Room) -> Sequence[object]:
        change(room.primed())
        return ("predict", room.served(), "Анна мет Отто")

    return prepare


for _file in ("model.safetensors", "theta_a.safetensors"):
    for _share in SHARES:
        CASES.add(
            f"a primed {_file} cut to {_share:.0%}",
            f"cannot (load|read) .*({_file}|primed)",
            from_primed(lambda folder, f=_file, share=_share: cut(folder / f, share)),
        )
    for _place in PLACES:
        CASES.add(
            f"a primed {_file} with a bit turned in {_place}",
            f"{_file}|θ_p in .* does not match pemeta.json|cannot load a model|lack",
            served(lambda folder, f=_file, p=_place: flip(folder / f, places(folder / f)[p])),
        )
for _file in ("pemeta.json", "config.json", "theta_a.safetensors", "model.safetensors"):
    for _how, _prepared in {"": from_primed, "to serve ": served}.items():
        CASES.add(
            f"{_how}a primed model without {_file}",
            "primed/.*(remove that folder|give a folder|download)",
            _prepared(lambda folder, f=_file: (folder / f).unlink()),
        )
for _share in SHARES[:-2]:
    for _file in ("pemeta.json", "priming.json"):
        CASES.add(
            f"a primed {_file} cut to {_share:.0%}",
            f"{_file}|not a primed model|primed",
            from_primed(lambda folder, f=_file, share=_share: cut(folder / f, share)),
        )
ABOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "a later format": ({"format": 2}, "has format 2, but this version of pemeta reads format 1"),
    "no format": ({"format": ...}, "has format None"),
    "an unknown method": ({"methods": ["adaptor"]}, "unknown PE method 'adaptor'"),
    "a field that a method does not have": ({"methods": [{"name": "adapter", "size": 3}]}, "unknown key 'size'"),
    "no method": ({"methods": []}, "methods: "),
    "a method that is not there": ({"finetuning": 3}, "finetuning is 3, but must be below the number of methods, 1"),
    "another digest of θ_p": (
        {"theta_p_digest": "0" * 12},
        "does not match pemeta.json beside it|another primed model",
    ),
    "no digest of θ_p": ({"theta_p_digest": ...}, "theta_p_digest: this key is required"),
    "another digest of θ_a": ({"theta_a_digest": "0" * 12}, "theta_a.safetensors .*does not match pemeta.json"),
    "another tokenizer": ({"tokenizer_digest": "0" * 12}, "was made with another tokenizer"),
    "a function for a type of number": ({"dtype": "load"}, "dtype: "),
    "integers": ({"dtype": "int8"}, "dtype: "),
    "a base that is not there": ({"base": "./nowhere"}, "itself refers to another base"),
    "itself for a base": ({"base": "."}, "itself refers to another base"),
    "a key that nobody knows": ({"colour": "red"}, "unknown key 'colour'"),
}
for _name, (_changes, _says) in ABOUTS.items():
    CASES.add(f"pemeta.json: {_name}", _says, served(lambda folder, c=_changes: edit(folder / "pemeta.json", c)))
for _name, _content in {"a list": "[]", "null": "null", "a number": "3", "nothing": ""}.items():
    CASES.add(
        f"pemeta.json: {_name}",
        "pemeta.json",
        served(lambda folder, c=_content: (folder / "pemeta.json").write_text(c)),
    )
HISTORIES: dict[str, dict[str, Any]] = {
    "no history": {"history": ...},
    "a history that is a list": {"history": []},
    "a history without losses": {"history": {"seconds": 1, "sentences": 3}},
    "losses that are texts": {"history": {"losses": ["low"], "seconds": 1, "sentences": 3}},
}
for _name, _changes in HISTORIES.items():
    CASES.add(
        f"priming.json: {_name}",
        "is not a primed model of this version; remove that folder",
        from_primed(lambda folder, c=_changes: edit(folder / "priming.json", c)),
    )


def changed_tensors(edited: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        save_file(edited(load_file(path)), path)

    return change


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "one tensor less": lambda state: dict(list(state.items())[1:]),
    "one tensor more": lambda state: {**state, "more": torch.zeros(1)},
    "none": lambda state: {},
    "another shape": lambda state: {name: value[:1].contiguous() for name, value in state.items()},
    "values that are not numbers": lambda state: {name: value * float("nan") for name, value in state.items()},
    "other values": lambda state: {name: value + 1 for name, value in state.items()},
}
for _name, _edited in TENSORS.items():
    CASES.add(
        f"a primed θ_a: {_name}",
        "theta_a.safetensors|has shape",
        served(lambda folder, e=_edited: changed_tensors(e)(folder / "theta_a.safetensors")),
    )

# Tasks


def task(change: Callable[[Path], object], *arguments: str) -> Callable[[Room], Sequence[object]]:
    def prepare(room: Room) -> Sequence[object]:
        change(room.served() / "tasks" / "cc")
        return ("predict", room.served(), *arguments, "Анна мет Отто")

    return prepare


for _share in SHARES:
    CASES.add(
        f"a task.safetensors cut to {_share:.0%}",
        "cannot read .*task.safetensors",
        task(lambda f, s=_share: cut(f / "task.safetensors", s)),
    )
    CASES.add(
        f"a task.json cut to {_share:.0%}",
        "cannot read .*task.json",
        task(lambda f, s=_share: cut(f / "task.json", s * 0.9)),
    )
for _place in PLACES:
    CASES.add(
        f"a task.safetensors with a bit turned in {_place}",
        "task.safetensors",
        task(lambda f, p=_place: flip(f / "task.safetensors", places(f / "task.safetensors")[p])),
    )
for _name, _edited in TENSORS.items():
    CASES.add(
        f"a task: {_name}", "task.safetensors", task(lambda f, e=_edited: changed_tensors(e)(f / "task.safetensors"))
    )
NER = {"name": "token_classification"}
ABOUT_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "a later format": ({"format": 2}, "has format 2"),
    "no name": ({"task": ""}, "task: "),
    "a name that is a number": ({"task": 3}, "task: "),
    "an unknown head": ({"head": {"name": "tagger"}}, "unknown head 'tagger'"),
    "a head without labels": ({"head": NER}, "head.labels: this key is required"),
    "no labels": ({"head": {**NER, "labels": []}}, "head.labels: "),
    "labels twice": ({"head": {**NER, "labels": ["O", "O"]}}, "labels must be distinct"),
    "fewer labels": ({"head": {**NER, "labels": ["O", "B-PER"]}}, "does not hold the head of this model"),
    "a head that labels no texts": (
        {"head": {"name": "causal_lm", "vocab_size": 160}},
        "does not hold|does not label texts",
    ),
    "another method": ({"method": {"name": "lora"}}, "was fine-tuned with LoRA"),
    "an unknown method": ({"method": "adaptor"}, "unknown PE method"),
    "another θ_p": ({"theta_p_digest": "0" * 12}, "belongs to another primed model"),
    "another tokenizer": ({"tokenizer_digest": "0" * 12}, "was made with another tokenizer"),
    "another digest of its values": ({"values_digest": "0" * 12}, "does not match task.json beside it"),
    "a max_length of nothing": ({"max_length": 0}, "max_length: "),
    "a negative max_length": ({"max_length": -5}, "max_length: "),
    "a max_length that is a text": ({"max_length": "long"}, "max_length: "),
    "a key that nobody knows": ({"colour": "red"}, "unknown key 'colour'"),
}
for _name, (_changes, _says) in ABOUT_TASKS.items():
    CASES.add(f"task.json: {_name}", _says, task(lambda f, c=_changes: edit(f / "task.json", c)))
for _name, _content in {"a list": "[]", "null": "null", "not UTF-8": "\udcff"}.items():
    CASES.add(
        f"task.json: {_name}",
        "task.json",
        task(lambda f, c=_content: (f / "task.json").write_bytes(c.encode(errors="surrogateescape"))),
    )
CASES.add(
    "a task without its values", "cannot read .*task.safetensors", task(lambda f: (f / "task.safetensors").unlink())
)
CASES.add("a task without its description", "has 0 tasks \\(none\\)", task(lambda f: (f / "task.json").unlink()))
CASES.add("an unknown task", "unknown task 'dd'; Known: cc", task(lambda f: None, "--task", "dd"))
CASES.add("a task's folder that is none", "unknown task '/'", task(lambda f: None, "--task", "/"))
CASES.add(
    "two tasks and none of them named",
    "has 2 tasks \\(cc, dd\\); specify the task",
    task(lambda f: edit(Path(shutil.copytree(f, f.parent / "dd")) / "task.json", {"task": "dd"})),
)
CASES.add("the task of another primed model", "belongs to another primed model|was fine-tuned with", lambda room: (
    "predict", room.served(), "--task", room.served("plain") / "tasks" / "cc", "words"))  # fmt: skip

# A checkpoint of priming that was interrupted


def checkpoint(change: Callable[[Path], object]) -> Callable[[Room], Sequence[object]]:
    def prepare(room: Room) -> Sequence[object]:
        config = {**room.config, "checkpoint_every": 1}
        change(room.interrupted())
        return ("run", config)

    return prepare


CHECKPOINT = "primed__seed0.safetensors.*remove it to"
for _share in SHARES:
    CASES.add(f"a checkpoint cut to {_share:.0%}", CHECKPOINT, checkpoint(lambda path, s=_share: cut(path, s)))
for _place in PLACES[:8]:
    CASES.add(
        f"a checkpoint with a bit turned in {_place}",
        CHECKPOINT,
        checkpoint(lambda path, p=_place: flip(path, places(path)[p])),
    )
CASES.add("a checkpoint without anything in it", CHECKPOINT, checkpoint(lambda path: save_file({}, path)))
CASES.add("a checkpoint of another kind", CHECKPOINT, checkpoint(lambda path: save_file({"x": torch.zeros(2)}, path)))
CASES.add("a checkpoint that is a pickle", CHECKPOINT, checkpoint(lambda path: torch.save({"x": 1}, path)))


@CASES.case("checkpoint must be a file to write to; found the folder .*primed__seed0.safetensors")
def a_checkpoint_that_is_a_folder(room: Room) -> Sequence[object]:
    path = room.interrupted()
    path.unlink()
    path.mkdir()
    return ("run", {**room.config, "checkpoint_every": 1})
