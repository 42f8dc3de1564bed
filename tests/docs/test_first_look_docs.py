"""The page on a first look at data shows what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "first-look.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)[number]


def test_the_output_is_what_the_command_prints(tmp_path, monkeypatch, pemeta):
    monkeypatch.chdir(tmp_path)
    Path("eng.train").write_text(block("text"))
    Path("eng.testa").write_text("EU NNP I-NP I-ORG\ncalled VBD I-VP O\n")
    Path("eng.testb").write_text("Peter NNP I-NP I-PER\nBlackburn NNP I-NP I-PER\n")
    shown = pemeta("data", "eng.train")
    assert (shown.code, shown.err, shown.out) == (0, "", block("yaml"))


def test_the_refusal_is_what_the_command_says(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    Path("predicted.txt").write_text("Tuva B-PER O\nlo O B-LOC\n\nx O O\n")
    assert f"pemeta: error: {refused('data', 'predicted.txt')}\n" in PAGE


def test_what_is_said_of_texts_is_what_the_command_prints(tmp_path, monkeypatch, pemeta):
    monkeypatch.chdir(tmp_path)
    Path("orders.jsonl").write_text(block("json"))
    shown = pemeta("data", "orders.jsonl")
    assert (shown.code, shown.err, shown.out) == (0, "", block("text", 1))
