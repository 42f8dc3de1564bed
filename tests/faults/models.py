"""Wrong backbones and tokenizers: truncated, corrupted, edited, mixed up, or missing."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from faults.room import Cases, Room, edit
from safetensors.torch import load_file, save_file

CASES = Cases("model")
LOADS = "cannot load a (model|tokenizer) from '.*model'"


def spoil(change: Callable[[Path], object], *words: str) -> Callable[[Room], Sequence[object]]:
    """A case in which the model's folder is changed."""

    def prepare(room: Room) -> Sequence[object]:
        change(room.model())
        return (*(words or ("run",)), room.config)

    return prepare


# The weights: a safetensors file is a length of eight bytes, a header in JSON, and the values.


def cut(at: Callable[[int, int], int]) -> Callable[[Path], object]:
    """Keep the first bytes of the weights, by the length of the header and of the file."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[: at(struct.unpack("<Q", content[:8])[0], len(content))])

    return change


CUTS: dict[str, Callable[[int, int], int]] = {
    "at once": lambda header, whole: 0,
    "after a byte": lambda header, whole: 1,
    "within the length": lambda header, whole: 7,
    "after the length": lambda header, whole: 8,
    "after the header's first byte": lambda header, whole: 9,
    "within the header": lambda header, whole: 8 + header // 2,
    "before the header's last byte": lambda header, whole: 7 + header,
    "after the header": lambda header, whole: 8 + header,
    "after the first value": lambda header, whole: 8 + header + 4,
    "within the values": lambda header, whole: (8 + header + whole) // 2,
    "before the last byte": lambda header, whole: whole - 1,
}
for _name, _at in CUTS.items():
    CASES.add(
        f"weights end {_name}", "cannot load a model .*(header|file|EOF|[Ii]ncomplete|[Ii]nvalid)", spoil(cut(_at))
    )


def with_length(length: int) -> Callable[[Path], object]:
    """Weights whose header declares another length."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return change


for _length in (0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1):
    CASES.add(f"a header of {_length} bytes", "cannot load a model .*header", spoil(with_length(_length)))


def with_header(edited: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    """Weights with another header before the same values."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        end = 8 + struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8:end])
        raw = json.dumps(edited(header)).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[end:])

    return change


FIRST = "embeddings.word_embeddings.weight"


def entry(header: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The header with another entry for the word embeddings."""
    return {**header, FIRST: {**header[FIRST], **changes}}


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda header: list(header),
    "a text": lambda header: "header",
    "nothing in it": lambda header: {},
    "an unknown type of number": lambda header: entry(header, dtype="F99"),
    "offsets beyond the end": lambda header: entry(header, data_offsets=[0, 2**40]),
    "offsets that are negative": lambda header: entry(header, data_offsets=[-4, 0]),
    "offsets that go back": lambda header: entry(header, data_offsets=[8, 4]),
    "offsets that overlap": lambda header: entry(header, data_offsets=[4, header[FIRST]["data_offsets"][1] + 4]),
    "a shape of another size": lambda header: entry(header, shape=[3, 3]),
    "a shape that is no list": lambda header: entry(header, shape="3x3"),
    "a negative shape": lambda header: entry(header, shape=[-1, 16]),
    "a huge shape": lambda header: entry(header, shape=[2**62, 2**62]),
    "no shape": lambda header: {**header, FIRST: {"dtype": "F32", "data_offsets": [0, 4]}},
    "metadata that is no text": lambda header: {**header, "__metadata__": {"format": 3}},
}
for _name, _edited in HEADERS.items():
    CASES.add(f"header: {_name}", "cannot load a model ", spoil(with_header(_edited)))


@CASES.case("cannot load a model .*header")
def a_header_that_is_no_text(room: Room) -> Sequence[object]:
    path = room.model() / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc" + path.read_bytes()[12:])
    return ("run", room.config)


def with_values(edited: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    """Weights in a valid file with other values."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(edited(load_file(path)), path, metadata={"format": "pt"})

    return change


def of_first(edited: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    return with_values(lambda state: {**state, FIRST: edited(state[FIRST])})


def last_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[-1, -1] = float("nan")
    return tensor


VALUES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no parameter": (with_values(lambda state: {}), "lack|cannot load a model"),
    "one parameter less": (
        with_values(lambda state: {name: value for name, value in state.items() if name != FIRST}),
        f"lack 1 of the model's parameters, e.g. {FIRST}",
    ),
    "names of another model": (
        with_values(lambda state: {f"their.{name}": value for name, value in state.items()}),
        "lack \\d+ of the model's parameters",
    ),
    "a row less": (
        of_first(lambda value: value[1:].contiguous()),
        "cannot load a model .*embeddings.word_embeddings.weight is .* in its weights",
    ),
    "a dimension less": (
        of_first(lambda value: value[0].contiguous()),
        "cannot load a model .*embeddings.word_embeddings.weight is .* in its weights",
    ),
    "a parameter of no size": (
        of_first(lambda value: value[:0].contiguous()),
        "cannot load a model .*embeddings.word_embeddings.weight is .* in its weights",
    ),
    "integers": (
        of_first(lambda value: value.to(torch.int8)),
        f"cannot load a model .*its weights are quantised: {FIRST} is stored as I8",
    ),
    "one value that is not a number": (of_first(last_nan), f"not finite: {FIRST} holds"),
    "values that are infinite": (of_first(lambda value: value / 0), f"not finite: {FIRST} holds"),
}
for _name, (_change, _says) in VALUES.items():
    CASES.add(f"weights: {_name}", _says, spoil(_change))


@CASES.case("the weights in '.*model' are a pickle, pytorch_model.bin")
def weights_that_are_a_pickle(room: Room) -> Sequence[object]:
    state = load_file(room.model() / "model.safetensors")
    (room.model() / "model.safetensors").unlink()
    torch.save(state, room.model() / "pytorch_model.bin")
    return ("run", room.config)


@CASES.case("cannot load a model .*model.safetensors")
def no_weights(room: Room) -> Sequence[object]:
    (room.model() / "model.safetensors").unlink()
    return ("run", room.config)


@CASES.case("cannot load a model ")
def a_folder_for_weights(room: Room) -> Sequence[object]:
    (room.model() / "model.safetensors").unlink()
    (room.model() / "model.safetensors").mkdir()
    return ("run", room.config)


@CASES.case("cannot load a model .*header")
def a_pointer_of_git_lfs_for_weights(room: Room) -> Sequence[object]:
    (room.model() / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    return ("run", room.config)


def with_index(index: object) -> Callable[[Path], object]:
    """Weights in shards, as an index declares."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / "model.safetensors.index.json").write_text(text)

    return change


INDICES: dict[str, object] = {
    "no JSON": "{",
    "a list": [],
    "no map": {"metadata": {}},
    "a map that is a list": {"metadata": {}, "weight_map": ["part.safetensors"]},
    "an empty map": {"metadata": {}, "weight_map": {}},
    "a part that is not there": {"metadata": {}, "weight_map": {FIRST: "other.safetensors"}},
    "a part that is a pickle": {"metadata": {}, "weight_map": {FIRST: "part.bin"}},
    "a part that is a number": {"metadata": {}, "weight_map": {FIRST: 3}},
}
for _name, _index in INDICES.items():
    CASES.add(f"index: {_name}", "cannot load a model|are a pickle|lack", spoil(with_index(_index)))

# The configuration

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown architecture": ({"model_type": "brt"}, f"{LOADS}: .*brt"),
    "no architecture": ({"model_type": ..., "architectures": ...}, f"{LOADS}: .*[Uu]nrecognized model"),
    "an architecture that is a number": ({"model_type": 3}, LOADS),
    "code of its own": (
        {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}},
        "needs Python code of its own, which pemeta does not run by default",
    ),
    "kernels from the hub": ({"attn_implementation": "some/kernels"}, "requests attention from code on the hub"),
    "an unknown attention": ({"attn_implementation": "quick"}, f"{LOADS}: .*quick"),
    "a width that is a text": ({"hidden_size": "wide"}, LOADS),
    "a width of zero": ({"hidden_size": 0}, LOADS),
    "a negative width": ({"hidden_size": -16}, LOADS),
    "a width that heads do not divide": ({"hidden_size": 17}, f"{LOADS}: .*multiple"),
    "another width": ({"hidden_size": 32}, f"{LOADS}: .* in its weights but .* by its configuration"),
    "no heads": ({"num_attention_heads": 0}, LOADS),
    "more layers than weights": ({"num_hidden_layers": 3}, "lack \\d+ of the model's parameters"),
    "layers that are a text": ({"num_hidden_layers": "two"}, LOADS),
    "a negative vocabulary": ({"vocab_size": -1}, LOADS),
    "a smaller vocabulary": (
        {"vocab_size": 20},
        f"{LOADS}: its vocabulary of \\d+ tokens does not fit",
    ),
    "a larger vocabulary": ({"vocab_size": 5000}, f"{LOADS}: .* in its weights but .* by its configuration"),
    "a vocabulary that is a text": ({"vocab_size": "many"}, LOADS),
    "an unknown activation": ({"hidden_act": "gulp"}, f"{LOADS}: .*gulp"),
    "no dropout that could be": ({"hidden_dropout_prob": 2}, f"{LOADS}: .*dropout"),
    "an unknown type of number": ({"dtype": "float7"}, LOADS),
    "a quantised model": ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, LOADS),
    "fewer positions than max_length": ({"max_position_embeddings": 8}, "max_length must be from 3 to the model's 8"),
}
for _name, (_changes, _says) in CONFIGS.items():
    CASES.add(f"config: {_name}", _says, spoil(lambda folder, c=_changes: edit(folder / "config.json", c)))

# Each file of the folder, broken in the same ways

BROKEN: dict[str, bytes] = {
    "is empty": b"",
    "is cut": b'{"model_type": "bert", "hid',
    "is a list": b"[]",
    "is null": b"null",
    "is not UTF-8": b"\xff\xfe{}",
    "is deep": b"[" * 100_000,
    "is a web page": b"<!DOCTYPE html>",
}
for _file, _what in (
    ("config.json", LOADS),
    ("tokenizer.json", "cannot load a tokenizer"),
    ("tokenizer_config.json", "cannot load a tokenizer"),
):
    for _how, _content in BROKEN.items():
        CASES.add(f"{_file} {_how}", _what, spoil(lambda folder, f=_file, c=_content: (folder / f).write_bytes(c)))


@CASES.case("cannot load a tokenizer .*[Uu]nrecognized model")
def no_config(room: Room) -> Sequence[object]:
    (room.model() / "config.json").unlink()
    return ("run", room.config)


@CASES.case("cannot load a tokenizer")
def no_tokenizer(room: Room) -> Sequence[object]:
    for path in room.model().glob("token*"):
        path.unlink()
    return ("run", room.config)


def with_tokenizer(edited: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        edited(value)
        (folder / "tokenizer.json").write_text(json.dumps(value))

    return change


TOKENIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no model": lambda value: value.pop("model"),
    "an unknown model": lambda value: value["model"].update(type="Guess"),
    "a vocabulary that is a list": lambda value: value["model"].update(vocab=[]),
    "an empty vocabulary": lambda value: value["model"].update(vocab={}),
    "indices that are texts": lambda value: value["model"].update(vocab={"a": "b"}),
    "a piece with a huge index": lambda value: value["model"]["vocab"].update(huge=2**31),
    "a piece with a negative index": lambda value: value["model"]["vocab"].update(negative=-1),
    "one piece too many": lambda value: value["model"]["vocab"].update(more=len(value["model"]["vocab"])),
    "an unknown normaliser": lambda value: value.update(normalizer={"type": "Guess"}),
    "another version": lambda value: value.update(version="99.0"),
}
for _name, _edited in TOKENIZERS.items():
    CASES.add(f"tokenizer: {_name}", "cannot load a tokenizer", spoil(with_tokenizer(_edited)))

# Where the model is


@CASES.case("cannot load a tokenizer from '.*nothing': there is no such folder; give a folder")
def no_folder(room: Room) -> Sequence[object]:
    return ("run", room.config, f"backbone.path={room.tmp / 'nothing'}")


@CASES.case("cannot load a tokenizer from '.*file': there is no such folder")
def a_file_for_a_folder(room: Room) -> Sequence[object]:
    return ("run", room.config, f"backbone.path={room.write('x', 'file')}")


@CASES.case("cannot load a tokenizer from '.*empty'")
def an_empty_folder(room: Room) -> Sequence[object]:
    (room.tmp / "empty").mkdir()
    return ("run", room.config, f"backbone.path={room.tmp / 'empty'}")


@CASES.case("cannot load a configuration from '.*nothing': there is no such folder")
def methods_of_no_model(room: Room) -> Sequence[object]:
    return ("methods", "--model", room.tmp / "nothing")


@CASES.case("cannot load a configuration from '.*model': ")
def methods_of_a_broken_model(room: Room) -> Sequence[object]:
    (room.model() / "config.json").write_text("{")
    return ("methods", "--model", room.model())


@CASES.case("cannot load a configuration from '.*model': |hidden_size|zero")
def methods_of_a_model_without_width(room: Room) -> Sequence[object]:
    edit(room.model() / "config.json", {"hidden_size": 0})
    return ("methods", "--model", room.model())


@CASES.case("has no pemeta.json, so it is not a model saved by pemeta")
def predict_with_a_plain_model(room: Room) -> Sequence[object]:
    return ("predict", room.model(), "some words")


@CASES.case("'.*model' has no pemeta.json, so it is not a model saved by pemeta")
def predict_with_half_of_a_primed_model(room: Room) -> Sequence[object]:
    folder = shutil.copytree(room.primed(), room.tmp / "model")
    (folder / "pemeta.json").unlink()
    return ("predict", folder, "some words")
