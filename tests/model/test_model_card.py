"""A model card's front matter: what is known, and nothing else, as the hub reads it."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from pemeta import PEMethod, PEModel
from pemeta.backbone.loading import load_backbone


def card(path: Any, folder: Any, facts: Any = None, name: str = "") -> dict[str, Any]:
    model = PEModel(load_backbone(path), PEMethod.parse("lora"))
    model.backbone.config._name_or_path = str(name or path)
    model.save_pretrained(folder, facts=facts)
    return dict(ModelCard.load(folder / "README.md").data.to_dict())


def test_nothing_is_invented(tiny_bert_dir, tmp_path):
    found = card(tiny_bert_dir, tmp_path / "m", {"sources": ["aru", "bex"], "seed": 0})
    assert found == {"library_name": "transformers", "tags": ["pemeta", "parameter-efficient", "priming", "lora"]}


def test_the_facts_say_what_the_front_matter_may_hold(tiny_bert_dir, tmp_path):
    facts = {
        "license": "apache-2.0",
        "language": ["nl", "fy"],
        "tags": ["ner", "lora"],
        "metrics": {"f1": 0.81, "accuracy": 0.93},
        "datasets": ("wikiann",),
        "base_model": "me/other",
        "note": "a: b\n# | ---",
    }
    found = card(tiny_bert_dir, tmp_path / "m", facts, "bert-base-multilingual-cased")
    assert found == {
        "library_name": "transformers",
        "tags": ["pemeta", "parameter-efficient", "priming", "lora", "ner"],
        "base_model": "me/other",
        "language": ["nl", "fy"],
        "license": "apache-2.0",
        "metrics": ["f1", "accuracy"],
        "datasets": ["wikiann"],
    }
    text = (tmp_path / "m" / "README.md").read_text()
    assert "| note | a: b # \\| --- |" in text
    assert "0.81" in text


@pytest.mark.parametrize(("sources", "expected"), [(["en", "ru"], ["en", "ru"]), (["en", "zz"], None), ([], None)])
def test_sources_that_are_languages(tiny_bert_dir, tmp_path, sources, expected):
    assert card(tiny_bert_dir, tmp_path / "m", {"sources": sources}).get("language") == expected


def test_license_and_language_of_the_base(tiny_bert_dir, tmp_path):
    front = "---\nlicense: mit\nlanguage: multilingual\nbase_model: me/first\npipeline_tag: fill-mask\n---\n# Base\n"
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(front)
    found = card(tiny_bert_dir, tmp_path / "m", None, str(tmp_path / "base"))
    assert (found["license"], found["language"], found["base_model"]) == ("mit", "multilingual", "me/first")
    assert "pipeline_tag" not in found
    (tmp_path / "base" / "README.md").write_text("---\n[\n---\n")
    assert "license" not in card(tiny_bert_dir, tmp_path / "n", None, str(tmp_path / "base"))
