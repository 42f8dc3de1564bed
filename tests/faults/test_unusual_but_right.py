"""Unusual but valid inputs work, from the data to a prediction."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.room import Room
from faults.token_files import FORMATS, in_format

from pemeta.data.sources import DataSource


def works(room: Room, pemeta: Callable[..., Any], config: Any, *overrides: str) -> Path:
    """Run, report and predict; return the run's folder."""
    outcome = pemeta("run", config, *overrides)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    folder = Path(room.config["output"])
    assert pemeta("report", folder).code == 0
    served = next(folder.glob("models/*-seed*"))
    outcome = pemeta("predict", served, "--json", "Анна мет Отто")
    assert outcome.code == 0, outcome
    assert json.loads(outcome.out)["words"] == ["Анна", "мет", "Отто"]
    return folder


@pytest.mark.parametrize("name", ["with a space", "ünï → 名", "'quotes' & $HOME", "dots.and,commas", "#hash", "-dash"])
def test_any_folder_will_do(room: Room, pemeta: Any, name: str) -> None:
    place = room.tmp / name
    shutil.copytree(room.data(), place / "the data")
    shutil.copytree(room.model(), place / "the model")
    room.config["data"]["path"] = str(place / "the data")
    room.config["backbone"]["path"] = str(place / "the model")
    room.config["output"] = str(place / "the run")
    works(room, pemeta, room.config)


def test_relative_paths(room: Room, pemeta: Any) -> None:
    room.data(), room.model()
    room.config |= {"output": "out put", "data": {"name": "conll", "path": "conll"}}
    room.config["backbone"]["path"] = "./model"
    works(room, pemeta, room.config)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: "\n\n" + text.replace("\n\n", "\n \n\t\n\n") + "\n\n\n",
        lambda text: "\r\n".join(text.split("\n")[:20]) + "\n" + "\n".join(text.split("\n")[20:]),
        lambda text: text.replace("Отто\t", "От\u2028то\u0085\t"),
        lambda text: text.replace("\tO\n", "x" * 5000 + "\tO\n", 1),
        lambda text: text + "\n" + "мет\tO\n" * 5000,
        lambda text: (
            f"-DOCSTART-\tO\n\n# text = x\n{text}\n\ufeff-DOCSTART- -X- -X- O\n\n# sent_id = 2\n#\tO\n\n\ufeff#\tO\n"
        ),
    ],
    ids=[
        "CRLF",
        "a byte order mark",
        "no line end at the end",
        "blank lines",
        "both line ends",
        "other line ends within words",
        "a long word",
        "a long sentence",
        "document markers, comments and marks of files that were joined",
    ],
)
def test_data_files(room: Room, pemeta: Any, change: Callable[[str], str]) -> None:
    for path in room.data().rglob("*.conll"):
        path.write_bytes(change(path.read_bytes().decode()).encode())
    works(room, pemeta, room.config)


@pytest.mark.parametrize("name", FORMATS)
def test_data_files_of_every_format(room: Room, pemeta: Any, name: str, conll_dir: Path) -> None:
    usual = DataSource.parse({"name": "conll", "path": str(conll_dir)})
    in_format(room, name)
    for language in ("aa", "cc"):
        found, expected = DataSource.parse(room.config["data"]).corpus(language), usual.corpus(language)
        assert (list(found.train), list(found.validation)) == (list(expected.train), list(expected.validation))
        assert list(found.test) == list(expected.test)
        assert found.labels == expected.labels
    outcome = pemeta("validate", room.config, "--load")
    assert (outcome.code, outcome.err) == (0, ""), outcome


def test_a_run_on_data_of_another_format(room: Room, pemeta: Any) -> None:
    in_format(room, "HIPE-2022")
    works(room, pemeta, room.config, "scoring=strict")


def test_configuration_files(room: Room, pemeta: Any) -> None:
    """Try a byte order mark, CRLF, aliases, numbers as strings (to YAML `1e-3` is one) and names for mappings."""
    room.config["finetuning"] = {"epochs": "1", "batch_size": 8, "lr": "1e-2"}
    text = room.written().replace("settings:", "x: &x adapter\nsettings:").replace("method: adapter", "method: *x")
    text = text.replace("x: &x adapter\n", "").replace("method: *x", "method: &x adapter", 1)
    assert text.count("*x") == 1
    works(room, pemeta, room.write(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))


LOW = {
    "finetuning": {"batch_size": 1, "epochs": 1, "lr": 1e-12, "weight_decay": 0, "max_grad_norm": None},
    "priming": {"outer_steps": 1, "outer_lr": 1e-12, "support_size": 1, "query_size": 1, "tasks_per_batch": 1},
    "settings": {
        "plain": {"method": {"name": "adapter", "bottleneck": 1, "init_std": 0}, "label": "a | b * c"},
        "primed": {
            "method": {"name": "lora", "rank": 1, "top_layers": 1},
            "priming": {"name": "meta", "inner_steps": 1},
        },
    },
    "target_sizes": {"train": 1, "validation": 1, "test": 1},
    "max_length": 3,
    "checkpoint_every": 1,
    "threads": 1,
    "seeds": [0],
    "save_tasks": True,
}
HIGH = {
    "finetuning": {"batch_size": 10**9, "epochs": 1, "warmup_steps": 10**9, "max_grad_norm": 1e30, "weight_decay": 1e3},
    "priming": {"outer_steps": 1, "support_size": 12, "query_size": 12, "tasks_per_batch": 2, "warmup_steps": 10**9},
    "target_sizes": {"train": 10**12, "validation": 10**12, "test": 10**12},
    "checkpoint_every": 2**62,
    "seeds": [-(2**62), 2**62],
}


@pytest.mark.parametrize("edges", [LOW, HIGH], ids=["low", "high"])
def test_the_edges_of_all_numbers(room: Room, pemeta: Any, edges: dict[str, Any]) -> None:
    works(room, pemeta, {**room.config, **edges})


def test_what_an_earlier_version_wrote(room: Room, pemeta: Any) -> None:
    """Try manifests without the digests that this version writes."""
    for path in [*room.run().rglob("pemeta.json"), *room.run().rglob("task.json")]:
        about = json.loads(path.read_text())
        for key in ("tokenizer_digest", "theta_a_digest", "values_digest"):
            about.pop(key, None)
        path.write_text(json.dumps(about))
    for path in (room.run() / "records").iterdir():
        path.unlink()
    works(room, pemeta, room.config)


def test_what_others_put_in_a_run_folder(room: Room, pemeta: Any) -> None:
    out = room.run()
    (out / "running.json").write_text("noise")
    (out / "chosen.json").write_bytes(b"\xff")
    (out / "records" / "notes.txt").write_text("mine")
    (out / ".DS_Store").write_bytes(bytes(10))
    works(room, pemeta, room.config)
    assert "2 of 2 runs are done" in pemeta("run", room.config).out
    assert yaml.safe_load((out / "config.yaml").read_text())["targets"] == ["cc"]


def test_every_file_of_a_run_has_the_mode_of_a_new_one(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    modes = {str(file): file.stat().st_mode for file in finished_run.rglob("*") if file.is_file()}
    assert len(modes) > 10
    assert {file for file, mode in modes.items() if mode != usual} == set()
