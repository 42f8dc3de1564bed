"""Saved models load bit-equal, transformers can read them, and incomplete ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import METHODS as ROWS
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    BertModel,
    GPT2Config,
    GPT2Model,
    SqueezeBertConfig,
    SqueezeBertModel,
    T5Config,
    T5EncoderModel,
)

from pemeta import PEMethod, PEModel
from pemeta.backbone.loading import load_backbone
from pemeta.errors import ModelError, OutputError
from pemeta.heads import TokenClassification
from pemeta.model.manifest import read_manifest
from pemeta.model.model_files import describe_model, theta_p_digest
from pemeta.utils.hub import quiet

METHODS = [method for method, _ in ROWS.values()]
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}


def shaken(model: PEModel) -> PEModel:
    """A model with all parameters changed, as by priming."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def hidden(model: PEModel) -> torch.Tensor:
    with torch.no_grad():
        states = model.hidden_states(BATCH)
        for method in model.attached:
            states = method.transform(model.backbone, states)
    return states


def saved(path: Path, folder: Path, method: Any = None, **options: Any) -> PEModel:
    model = shaken(PEModel(load_backbone(path), PEMethod.parse(method or ROWS["adapter"][0])))
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("method", METHODS, ids=list(ROWS))
def test_a_saved_model_loads_bit_equal_and_saving_changes_nothing(tiny_bert_dir, tmp_path, method):
    model = shaken(PEModel(load_backbone(tiny_bert_dir), PEMethod.parse(method)))
    before, names, config = hidden(model), model.state(), model.backbone.config.to_dict()
    implementation = model.backbone.config._attn_implementation
    model.save_pretrained(tmp_path / "m")

    assert torch.equal(hidden(model), before)
    assert model.state().keys() == names.keys()
    assert (model.backbone.config.to_dict(), model.backbone.config._attn_implementation) == (config, implementation)
    again = PEModel.from_pretrained(tmp_path / "m")
    assert again.method == model.method
    state = again.state()
    assert state.keys() == names.keys()
    assert all(torch.equal(state[name], names[name]) for name in names)
    assert torch.equal(hidden(again.eval()), before)
    assert "pemeta_prefix" not in (tmp_path / "m" / "config.json").read_text()
    assert not list(tmp_path.rglob(".*.pemeta-*"))


@pytest.mark.parametrize("method", METHODS, ids=list(ROWS))
def test_transformers_reads_it_alone(tiny_bert_dir, tmp_path, method):
    model = saved(tiny_bert_dir, tmp_path / "m", method)
    with quiet():
        plain, info = AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all("pooler" in name for name in info["missing_keys"])
    for one in reversed(model.attached):
        model.detach(one)
    own = dict(model.backbone.named_parameters())
    theirs = {name: p for name, p in plain.named_parameters() if "pooler" not in name}
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_several_methods_and_the_choice_among_them(tiny_bert_dir, tmp_path):
    model = PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("adapter"))
    lora = PEMethod.parse({"name": "lora", "rank": 2})
    model.attach(lora)
    shaken(model).save_pretrained(tmp_path / "m")

    assert torch.equal(hidden(PEModel.from_pretrained(tmp_path / "m").eval()), hidden(model))
    other = PEModel.from_pretrained(tmp_path / "m", lora).eval()
    assert (other.method, torch.equal(hidden(other), hidden(model))) == (lora, True)
    fresh = PEModel.from_pretrained(tmp_path / "m", PEMethod.parse("ia3"))
    assert fresh.attached == (PEMethod.parse("ia3"),)
    assert torch.equal(
        fresh.get_parameter("backbone.embeddings.word_embeddings.weight"),
        model.get_parameter("backbone.embeddings.word_embeddings.weight"),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept(tiny_bert_dir, tmp_path, dtype):
    model = shaken(PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("lora"))).to(dtype)
    model.save_pretrained(tmp_path / "m")
    again = PEModel.from_pretrained(tmp_path / "m").eval()
    theta_a = set(model.partition().theta_a)
    assert {p.dtype for name, p in again.named_parameters() if name not in theta_a} == {dtype}
    assert {again.get_parameter(name).dtype for name in theta_a} == {
        torch.float64 if dtype is torch.float64 else torch.float32
    }
    assert all(torch.equal(value, again.state()[name]) for name, value in model.state().items())
    if dtype != torch.float64:
        assert theta_p_digest(PEModel.from_pretrained(tmp_path / "m", dtype=torch.float32)) == theta_p_digest(model)


def test_tied_weights_and_an_encoder_of_an_encoder_decoder(tmp_path):
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(vocab_size=30, d_model=8, d_ff=12, num_layers=2, num_heads=2, d_kv=4))
    gpt2 = GPT2Model(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=16))
    for backbone, auto in ((t5, AutoModelForTextEncoding), (gpt2, AutoModel)):
        model = shaken(PEModel(backbone.eval(), PEMethod.parse({"name": "lora", "rank": 2})))
        folder = tmp_path / type(backbone).__name__
        model.save_pretrained(folder)
        assert torch.equal(hidden(PEModel.from_pretrained(folder).eval()), hidden(model))
        with quiet():
            plain, info = auto.from_pretrained(folder, output_loading_info=True)
        assert not info["unexpected_keys"]
        assert not info["missing_keys"]
        assert auto.__name__ in (folder / "README.md").read_text()
        assert type(plain) is type(backbone)


def test_the_folder_has_a_tokenizer_and_a_card(tiny_bert_dir, tmp_path, tokenizer):
    facts = {"sources": ["en", "ru"], "note": "a | b"}
    saved(tiny_bert_dir, tmp_path / "m", tokenizer=tokenizer, facts=facts)
    assert AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab() == tokenizer.get_vocab()
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\ntags:\n- pemeta\n")
    assert "| sources | en, ru |\n| note | a \\| b |" in card
    manifest = json.loads((tmp_path / "m" / "pemeta.json").read_text())
    assert manifest["format"] == 1
    assert manifest["methods"][0]["name"] == "adapter"
    assert manifest["facts"] == facts
    assert manifest["packages"]["torch"] == torch.__version__


def test_the_card_names_a_base_on_the_hub(tiny_bert_dir, tmp_path):
    model = PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("adapter"))
    model.backbone.config._name_or_path = "bert-base-multilingual-cased"
    model.save_pretrained(tmp_path / "m")
    assert "\nbase_model: bert-base-multilingual-cased\n" in (tmp_path / "m" / "README.md").read_text()


def test_only_an_earlier_model_is_replaced_and_its_tasks_stay_if_they_fit(tiny_bert_dir, tmp_path):
    model = saved(tiny_bert_dir, tmp_path / "m")
    (tmp_path / "m" / "tasks" / "nl").mkdir(parents=True)
    (tmp_path / "m" / "tasks" / "nl" / "task.json").write_text("{}")
    model.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m" / "tasks" / "nl" / "task.json").is_file()
    with pytest.raises(OutputError, match=r"tasks holds tasks of the model previously saved in .*m, which do not fit"):
        shaken(model).save_pretrained(tmp_path / "m")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis is not empty and is not a saved model \(it has no pemeta\.json\)"):
        model.save_pretrained(tmp_path / "thesis")
    with pytest.raises(OutputError, match=r"chapter\.txt is a file; give a folder"):
        model.save_pretrained(tmp_path / "thesis" / "chapter.txt")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_folder(tiny_bert_dir, tmp_path, monkeypatch):
    model = saved(tiny_bert_dir, tmp_path / "m")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BertModel, "save_pretrained", full)
    with pytest.raises(OutputError, match="No space left on device"):
        model.save_pretrained(tmp_path / "m")
    assert torch.equal(hidden(PEModel.from_pretrained(tmp_path / "m").eval()), hidden(model))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_incomplete_folders_are_refused(tiny_bert_dir, tmp_path):
    folder = tmp_path / "m"
    saved(tiny_bert_dir, folder)
    values = (folder / "theta_a.safetensors").read_bytes()
    (folder / "theta_a.safetensors").write_bytes(values[:-7])
    with pytest.raises(ModelError, match=r"cannot read .*theta_a\.safetensors: .*; save or download the model again"):
        PEModel.from_pretrained(folder)
    (folder / "theta_a.safetensors").unlink()
    with pytest.raises(ModelError, match=r"does not hold exactly the parameters that its methods add: .* is missing"):
        PEModel.from_pretrained(folder)
    (folder / "theta_a.safetensors").write_bytes(values)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="cannot load a model from"):
        PEModel.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(weights[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(ModelError, match=r"θ_p in .* does not match pemeta\.json beside it"):
        PEModel.from_pretrained(folder)


def test_an_invalid_manifest_is_refused(tiny_bert_dir, tmp_path):
    saved(tiny_bert_dir, tmp_path / "m")
    file = tmp_path / "m" / "pemeta.json"
    manifest = json.loads(file.read_text())
    for change, message in (
        ({"format": 2}, "has format 2, but this version of pemeta reads format 1; upgrade pemeta"),
        ({"methods": ["adaptor"]}, "unknown PE method 'adaptor'; did you mean 'adapter'.*import its module first"),
        ({"methods": []}, "at least 1 item"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ):
        file.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ModelError, match=message):
            PEModel.from_pretrained(tmp_path / "m")
    file.write_text("{")
    with pytest.raises(ModelError, match=r"cannot read pemeta\.json in"):
        PEModel.from_pretrained(tmp_path / "m")


def test_an_encoder_that_pemeta_did_not_save_needs_a_method(tiny_bert_dir):
    with pytest.raises(ModelError, match=r"has no pemeta\.json, so it is not .*; give the method"):
        PEModel.from_pretrained(tiny_bert_dir)
    with pytest.raises(ModelError, match=r"has no pemeta\.json"):
        read_manifest(tiny_bert_dir)
    assert PEModel.from_pretrained(tiny_bert_dir, PEMethod.parse("bitfit")).method.name == "bitfit"


class Hub:
    """Stands in for ``HfApi``, and keeps what it was given."""

    calls: list[tuple[str, Any]] = []  # noqa: RUF012

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append((repo_id, options))
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_pushing_uploads_the_folder(tiny_bert_dir, monkeypatch, tokenizer):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.calls.clear()
    model = PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("adapter"))
    assert model.push_to_hub("primed", tokenizer, private=True) == "https://huggingface.co/me/primed"
    (created, options), (uploaded, files) = Hub.calls
    assert (created, options["private"], options["exist_ok"]) == ("primed", True, True)
    assert uploaded == "me/primed"
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "pemeta.json",
        "theta_a.safetensors",
        "tokenizer.json",
    } <= set(files)

    def refuse(self: Hub, *_: Any, **__: Any) -> None:
        raise RuntimeError("401 Client Error.\nRequest ID: 1")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(OutputError, match="cannot push to 'primed': 401 Client Error; check the name, and log in"):
        model.push_to_hub("primed")


def test_a_name_on_the_hub_is_read_file_by_file(tiny_bert_dir, tmp_path, monkeypatch):
    from pemeta.model import manifest, model_files

    expected = saved(tiny_bert_dir, tmp_path / "m")
    asked = []

    def cached(repo: str, name: str, **_: Any) -> str | None:
        asked.append((repo, name))
        return str(tmp_path / "m" / name)

    load = model_files.load_backbone
    monkeypatch.setattr(manifest, "cached_file", cached)
    monkeypatch.setattr(model_files, "load_backbone", lambda path, *rest: load(tmp_path / "m", *rest))
    assert torch.equal(hidden(PEModel.from_pretrained("me/primed").eval()), hidden(expected))
    assert asked == [("me/primed", "pemeta.json"), ("me/primed", "theta_a.safetensors")]


def test_a_saved_model_without_its_manifest_is_not_taken_for_a_plain_one(tiny_bert_dir, tmp_path):
    """As in a cache that transformers filled, without a connection: θ_a* would be dropped silently."""
    model = saved(tiny_bert_dir, tmp_path / "m", "lora")
    (tmp_path / "m" / "pemeta.json").unlink()
    with pytest.raises(ModelError, match=r"shows that pemeta saved this model, but pemeta\.json is missing"):
        PEModel.from_pretrained(tmp_path / "m", model.method)
    with quiet():
        plain = AutoModel.from_pretrained(tmp_path / "m", add_pooling_layer=False)
    fresh = PEModel(plain, model.method)  # the explicit way
    assert not hasattr(fresh.backbone.config, "pemeta_format")


def test_without_a_connection_a_cached_backbone_is_found_and_a_saved_model_asks_for_its_theta_a(
    tiny_bert_dir, tmp_path, monkeypatch
):
    """The cache holds what ``AutoModel.from_pretrained`` puts there, for a plain encoder and for a saved model."""
    saved(tiny_bert_dir, tmp_path / "m", "lora")
    for name, source in (("plain", tiny_bert_dir), ("primed", tmp_path / "m")):
        cache = tmp_path / "cache" / f"models--me--{name}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text("a" * 40)
        (cache / "snapshots" / ("a" * 40)).mkdir(parents=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(source / file, cache / "snapshots" / ("a" * 40) / file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    method = PEMethod.parse("lora")
    here, there = (PEModel.from_pretrained(path, method) for path in (tiny_bert_dir, "me/plain"))
    assert theta_p_digest(there) == theta_p_digest(here)
    with pytest.raises(ModelError, match=r"'me/primed' shows that pemeta saved this model"):
        PEModel.from_pretrained("me/primed", method)


def test_methods_act_in_the_same_order_after_loading(tiny_bert_dir, tmp_path):
    """Two methods on one part do not commute; fine-tuning may use the later one."""
    first = PEMethod.parse({"name": "lora", "rank": 2, "targets": ["attention_output"]})
    second = PEMethod.parse({"name": "adapter", "bottleneck": 4, "placement": "houlsby"})
    model = PEModel(load_backbone(tiny_bert_dir), first)
    model.attach(second)
    model.method = second
    shaken(model).eval().save_pretrained(tmp_path / "m")
    again = PEModel.from_pretrained(tmp_path / "m").eval()
    assert (again.method, again.attached) == (second, (first, second))
    assert torch.equal(hidden(again), hidden(model))


def test_a_pooler_is_refused(tiny_bert_dir):
    with quiet():
        pooled = AutoModel.from_pretrained(tiny_bert_dir)
    with pytest.raises(ModelError, match="has a pooler, which tasks do not use; load it with add_pooling_layer=False"):
        PEModel(pooled, PEMethod.parse("adapter"))
    pooled.pooler = None
    PEModel(pooled, PEMethod.parse("adapter"))


def test_a_pooler_that_cannot_be_omitted_is_saved(tmp_path):
    groups = {f"{part}_groups": 1 for part in ("q", "k", "v", "post_attention", "intermediate", "output")}
    sizes = {"vocab_size": 30, "hidden_size": 8, "embedding_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    backbone = SqueezeBertModel(SqueezeBertConfig(**groups, **sizes, intermediate_size=8)).eval()
    model = PEModel(backbone, PEMethod.parse("adapter"))
    model.save_pretrained(tmp_path / "m")
    assert theta_p_digest(PEModel.from_pretrained(tmp_path / "m")) == theta_p_digest(model)


def test_other_files_in_the_folder_stay_and_old_weights_go(tiny_bert_dir, tmp_path):
    model = saved(tiny_bert_dir, tmp_path / "m", "lora")
    (tmp_path / "m" / ".git").mkdir()
    (tmp_path / "m" / ".git" / "HEAD").write_text("ref")
    for name in ("notes.txt", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / "m" / name).write_text("mine")
    for name in ("model_of_mine.safetensors", "pytorch_model.bin"):  # saving never writes these
        (tmp_path / "m" / name).write_text("mine")
    (tmp_path / "m" / "link").symlink_to(tmp_path / "elsewhere")  # a broken link
    (tmp_path / "m.tmp").mkdir()
    other = PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("bitfit"))
    other.save_pretrained(tmp_path / "m")
    names = {file.name for file in (tmp_path / "m").iterdir()}
    mine = {".git", "notes.txt", "model_of_mine.safetensors", "pytorch_model.bin", "link"}
    assert names == mine | {
        "README.md",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "pemeta.json",
    }
    assert (tmp_path / "m" / "model.safetensors.index.json").read_text() != "mine"
    assert (tmp_path / "m.tmp").is_dir()
    assert (tmp_path / "m" / "link").readlink() == tmp_path / "elsewhere"
    assert (tmp_path / "m" / "model_of_mine.safetensors").read_text() == "mine"
    assert not any(file.name.startswith(".m") for file in tmp_path.iterdir())
    assert PEModel.from_pretrained(tmp_path / "m").method == other.method != model.method


def test_tasks_of_another_method_do_not_stay(tiny_bert_dir, tmp_path):
    model = saved(tiny_bert_dir, tmp_path / "m", {"name": "lora", "rank": 2})
    model.add_head("nl", TokenClassification(labels=("O", "B-X", "I-X")))
    model.save_task(tmp_path / "m" / "tasks" / "nl", "nl")
    wider = PEModel(load_backbone(tmp_path / "m"), PEMethod.parse({"name": "lora", "rank": 4}))
    with pytest.raises(OutputError, match=r"holds tasks of the model previously saved in .*, which do not fit"):
        wider.save_pretrained(tmp_path / "m")
    model.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m" / "tasks" / "nl" / "task.json").is_file()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tasks_load_in_another_precision(tiny_bert_dir, tmp_path, dtype):
    model = saved(tiny_bert_dir, tmp_path / "m", "lora")
    model.add_head("nl", TokenClassification(labels=("O", "B-X", "I-X")))
    model.save_task(tmp_path / "task", "nl")
    again = PEModel.from_pretrained(tmp_path / "m", dtype=dtype)
    assert again.load_task(tmp_path / "task") == "nl"
    with torch.no_grad():
        again.get_parameter("backbone.embeddings.word_embeddings.weight").add_(1.0)
    with pytest.raises(ModelError, match="belongs to another primed model"):
        again.load_task(tmp_path / "task")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_saved_in_another_precision_keeps_its_tasks(tiny_bert_dir, tmp_path, dtype):
    model = saved(tiny_bert_dir, tmp_path / "m", "lora")
    model.add_head("nl", TokenClassification(labels=("O", "B-X", "I-X")))
    model.save_task(tmp_path / "m" / "tasks" / "nl", "nl")
    PEModel.from_pretrained(tmp_path / "m", dtype=dtype).save_pretrained(tmp_path / "m")
    for loaded_in in (None, torch.float32):
        again = PEModel.from_pretrained(tmp_path / "m", dtype=loaded_in)
        assert next(again.parameters()).dtype == (loaded_in or dtype)
        assert again.load_task(tmp_path / "m" / "tasks" / "nl") == "nl"
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0] += 1
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="one of the files was changed"):
        PEModel.from_pretrained(tmp_path / "m")


def test_tasks_on_a_plain_backbone_load_in_another_precision(tiny_bert_dir, tmp_path):
    model = PEModel.from_pretrained(tiny_bert_dir, PEMethod.parse("lora"))
    model.add_head("nl", TokenClassification(labels=("O", "B-X", "I-X")))
    model.save_task(tmp_path / "tasks" / "nl", "nl")
    manifest = describe_model(model, base=str(tiny_bert_dir))
    (tmp_path / "pemeta.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    again = PEModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.load_task(tmp_path / "tasks" / "nl") == "nl"
    shaken(again)
    with pytest.raises(ModelError, match="belongs to another primed model"):
        again.load_task(tmp_path / "tasks" / "nl")


def test_the_index_of_a_missing_method_is_refused(tiny_bert_dir, tmp_path):
    saved(tiny_bert_dir, tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "pemeta.json").read_text())
    (tmp_path / "m" / "pemeta.json").write_text(json.dumps({**manifest, "finetuning": 3}))
    with pytest.raises(ModelError, match="finetuning is 3, but must be below the number of methods, 1"):
        PEModel.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("where", [".", ".."])
def test_the_working_directory_is_not_replaced(tiny_bert_dir, tmp_path, monkeypatch, where):
    model = saved(tiny_bert_dir, tmp_path / "m")
    (tmp_path / "m" / "in").mkdir()
    monkeypatch.chdir(tmp_path / "m" / ("in" if where == ".." else ""))
    with pytest.raises(OutputError, match="while the working directory is inside it; choose another folder"):
        model.save_pretrained(where)
    assert Path.cwd().is_dir()


def test_a_task_without_a_name_is_refused(tiny_bert_dir):
    model = PEModel(load_backbone(tiny_bert_dir), PEMethod.parse("adapter"))
    for odd in (np.zeros((2, 2)), None, 3):
        with pytest.raises(ModelError, match="a task needs a name; found"):
            model.add_head(odd, TokenClassification(labels=("O", "B-X", "I-X")))
    with pytest.raises(ModelError, match="a task needs a name"):
        model.add_head("", TokenClassification(labels=("O", "B-X", "I-X")))


def test_files_get_the_usual_permissions(tiny_bert_dir, tmp_path):
    saved(tiny_bert_dir, tmp_path / "m")
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "m").iterdir()}
    assert modes["theta_a.safetensors"] == modes["pemeta.json"]


def test_every_file_follows_the_umask(tiny_bert_dir, tmp_path, tokenizer):
    model = saved(tiny_bert_dir, tmp_path / "m", tokenizer=tokenizer)
    model.add_head("nl", TokenClassification(labels=("O", "B-X", "I-X")))
    model.save_task(tmp_path / "m" / "tasks" / "nl", "nl")
    (tmp_path / "m" / "private").write_text("mine")
    (tmp_path / "m" / "private").chmod(0o600)
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "m").rglob("*") if file.is_file()}
    assert modes.pop("private") & 0o777 == 0o600
    assert "model.safetensors" in modes
    assert set(modes.values()) == {usual}, modes


ROUNDED = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def whisper_encoder() -> Any:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "vocab_size": 30}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "num_mel_bins": 4}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return WhisperEncoder(WhisperConfig(**sizes, **tokens, max_source_positions=6))


def deberta() -> Any:
    """Its biases are float32 in every precision, as transformers makes them."""
    from transformers import DebertaConfig, DebertaModel

    return DebertaModel(DebertaConfig(**ROUNDED, relative_attention=True, pos_att_type=["c2p", "p2c"]))


def xlnet() -> Any:
    from transformers import XLNetConfig, XLNetModel

    return XLNetModel(XLNetConfig(vocab_size=30, d_model=8, n_layer=1, n_head=2, d_inner=8))


def llama() -> Any:
    """Its rotary frequencies are a buffer that is not saved."""
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(**ROUNDED))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [whisper_encoder, deberta, xlnet, llama])
def test_values_and_dtypes_come_back_whatever_transformers_makes_of_them(make, dtype, tmp_path):
    torch.manual_seed(0)
    backbone = make()
    model = shaken(PEModel(backbone, PEMethod.parse("head_only")).to(dtype))
    model.save_pretrained(tmp_path / "m")
    again = PEModel.from_pretrained(tmp_path / "m").eval()
    assert type(again.backbone) is type(model.backbone)
    for kind in ("named_parameters", "named_buffers"):
        found, expected = (dict(getattr(one, kind)()) for one in (again, model))
        assert found.keys() == expected.keys()
        assert all(found[n].dtype == expected[n].dtype and torch.equal(found[n], expected[n]) for n in expected)
    sound = {"input_features": torch.randn(1, 4, 12, dtype=dtype)}
    batch = sound if make is whisper_encoder else BATCH
    with torch.no_grad():
        assert torch.equal(again.hidden_states(batch), model.hidden_states(batch))
    assert ("WhisperEncoder" in (tmp_path / "m" / "README.md").read_text()) == (make is whisper_encoder)


def test_a_parameter_in_another_dtype_than_the_rest(tiny_bert_dir, tmp_path):
    model = PEModel(load_backbone(tiny_bert_dir, dtype=torch.bfloat16), PEMethod.parse({"name": "lora", "rank": 2}))
    for name in ("backbone.embeddings.LayerNorm.weight", model.partition().theta_a[0]):
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.float() + 1e-5
    model.save_pretrained(tmp_path / "m")
    for dtype in (None, torch.bfloat16):
        again = PEModel.from_pretrained(tmp_path / "m", dtype=dtype)
        assert all(p.dtype == model.get_parameter(n).dtype for n, p in again.named_parameters())
        assert all(torch.equal(value, again.state()[name]) for name, value in model.state().items())


def test_a_manifest_of_an_earlier_version_loads(tiny_bert_dir, tmp_path):
    model = saved(tiny_bert_dir, tmp_path / "m")
    file = tmp_path / "m" / "pemeta.json"
    manifest = json.loads(file.read_text())
    assert manifest.pop("dtypes") == {}
    file.write_text(json.dumps(manifest))
    assert torch.equal(hidden(PEModel.from_pretrained(tmp_path / "m").eval()), hidden(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [{"peft_type": "SHIRA", "r": 1}, {"peft_type": "VERA", "r": 2}], ids=str)
def test_random_buffers_of_a_tuner_come_back(tiny_bert_dir, tmp_path, config):
    """SHiRA's mask and VeRA's projections are drawn when they are attached."""
    pytest.importorskip("peft")
    method = PEMethod.parse({"name": "peft", "config": {**config, "target_modules": ["query", "value"]}})
    try:
        model = PEModel(load_backbone(tiny_bert_dir), method, seed=3)
    except ModelError:
        pytest.skip("this tuner is refused")
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "pemeta_peft" in name and buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    shaken(model).save_pretrained(tmp_path / "m")
    again = PEModel.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(hidden(again), hidden(model))
    assert not torch.equal(hidden(PEModel(load_backbone(tmp_path / "m"), method, seed=3).eval()), hidden(model))
