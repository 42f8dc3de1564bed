"""A model and its tasks remember the tokenizer that their data was encoded with, and refuse another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pemeta import Adapter, PEModel, Server, TokenClassification, tokenizer_digest
from pemeta.backbone.loading import load_backbone
from pemeta.errors import ModelError

NER = TokenClassification(labels=("O", "B-PER", "I-PER"))
SAYS = r"was made with another tokenizer: its digest is [0-9a-f]{12}, but that of the given one is [0-9a-f]{12}; use"


@pytest.fixture
def saved(tiny_bert_dir, tmp_path, tokenizer) -> Path:
    """A saved model with its tokenizer and one task."""
    PEModel(load_backbone(tiny_bert_dir), Adapter(bottleneck=4)).save_pretrained(tmp_path / "m", tokenizer)
    model = PEModel.from_pretrained(tmp_path / "m")
    model.add_head("a", NER)
    model.save_task(tmp_path / "m" / "tasks" / "a", "a")
    return tmp_path / "m"


@pytest.fixture
def lower(tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with the same vocabulary that lowercases words first."""
    return spoilt(tokenizer, lambda inner: setattr(inner, "normalizer", normalizers.BertNormalizer(lowercase=True)))


def spoilt(tokenizer, change) -> PreTrainedTokenizerFast:
    inner = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    change(inner)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tokenizer.special_tokens_map)


def forget(path: Path) -> None:
    """Rewrite a manifest as an earlier version did, without the tokenizer's digest."""
    manifest = json.loads(path.read_text())
    del manifest["tokenizer_digest"]
    path.write_text(json.dumps(manifest))


def test_the_digest_covers_the_behaviour_of_a_tokenizer(tokenizer, lower, tmp_path):
    digest = tokenizer_digest(tokenizer)
    tokenizer.save_pretrained(tmp_path / "t")
    again = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert tokenizer_digest(again) == digest
    again.model_max_length = 5
    again(["a b c"], truncation=True, padding="max_length", max_length=3)  # kept by fast tokenizers
    assert tokenizer_digest(again) == digest
    assert tokenizer_digest(lower) != digest
    more = spoilt(tokenizer, lambda inner: inner.add_tokens(["another"]))
    assert tokenizer_digest(more) != digest


def test_descriptions_hold_the_digest(saved, tokenizer):
    digest = tokenizer_digest(tokenizer)
    for path in (saved / "pemeta.json", saved / "tasks" / "a" / "task.json"):
        assert json.loads(path.read_text())["tokenizer_digest"] == digest
    assert PEModel.from_pretrained(saved).tokenizer_digest == digest
    assert PEModel.from_pretrained(saved, Adapter(bottleneck=2)).tokenizer_digest == digest


def test_a_model_saved_without_a_tokenizer_knows_none(tiny_bert_dir, tmp_path):
    model = PEModel(load_backbone(tiny_bert_dir), Adapter(bottleneck=4))
    model.save_pretrained(tmp_path / "m")
    assert PEModel.from_pretrained(tmp_path / "m").tokenizer_digest is None


def test_another_tokenizer_is_not_served(saved, lower):
    with pytest.raises(ModelError, match=f"^this model {SAYS}"):
        Server(PEModel.from_pretrained(saved), lower)
    lower.save_pretrained(saved)
    with pytest.raises(ModelError, match=f"^this model {SAYS}"):
        Server.load(saved)


def test_a_task_of_another_tokenizer_is_refused(saved, lower, tmp_path):
    forget(saved / "pemeta.json")
    with pytest.raises(ModelError, match=f"^task 'a' in .* {SAYS}"):
        Server(PEModel.from_pretrained(saved), lower).add_task(saved / "tasks" / "a")
    model = PEModel.from_pretrained(saved)
    model.tokenizer_digest = tokenizer_digest(lower)
    with pytest.raises(ModelError, match=f"^task 'a' in .* {SAYS}"):
        model.load_task(saved / "tasks" / "a")
    assert model.tasks == ()


def test_a_model_is_not_saved_with_another_tokenizer(saved, lower):
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    with pytest.raises(ModelError, match=f"^this model {SAYS}"):
        PEModel.from_pretrained(saved).save_pretrained(saved, lower)
    assert before == {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}


def test_folders_of_earlier_versions_load(saved, lower):
    for path in (saved / "pemeta.json", saved / "tasks" / "a" / "task.json"):
        forget(path)
    assert PEModel.from_pretrained(saved).load_task(saved / "tasks" / "a") == "a"
    assert Server(PEModel.from_pretrained(saved), lower).add_task(saved / "tasks" / "a") == "a"


def test_a_run_remembers_it_and_refuses_a_tokenizer_that_was_changed_since(
    pemeta, refused, run_config, tiny_bert_dir, tmp_path, tokenizer, lower
):
    folder = shutil.copytree(tiny_bert_dir, tmp_path / "model")
    run_config["backbone"]["path"] = str(folder)
    assert pemeta("run", run_config).code == 0
    out = Path(run_config["output"])
    digest = tokenizer_digest(tokenizer)
    tasks = sorted(out.glob("models/*/tasks/cc/task.json"))
    assert [json.loads(path.read_text())["tokenizer_digest"] for path in tasks] == [digest, digest]
    (primed,) = out.glob("primed/*/pemeta.json")
    assert json.loads(primed.read_text())["tokenizer_digest"] == digest
    lower.save_pretrained(folder)
    assert "was made with another tokenizer" in refused("predict", out / "models" / "plain-seed0", "Anna met Otto")
    for record in out.glob("records/*"):
        record.unlink()
    assert "the primed model was made with another tokenizer: its digest is" in refused("run", run_config)
    assert pemeta("predict", out / "models" / "primed-seed0", "Anna met Otto").code == 0  # has its own tokenizer
