"""Loading reads safetensors, JSON and YAML, and never runs code that comes with a model."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pemeta import Adapter, PEModel, Server, TokenClassification, load_peft, save_peft
from pemeta.backbone.loading import empty_backbone, load_backbone
from pemeta.backbone.tokenizers import load_tokenizer
from pemeta.errors import ModelError, OutputError
from pemeta.methods import LoRA
from pemeta.utils.files import read_tensors


class Evil:
    """An object that creates a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """A file that exists after the test only if code was run that should not be."""
    path = tmp_path / "was-run"
    yield path
    assert not path.exists()


@pytest.fixture
def model_dir(tiny_bert_dir, tmp_path):
    """A copy of the model that the test may damage."""
    return Path(shutil.copytree(tiny_bert_dir, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def both_kinds(evil: Evil) -> list[bytes]:
    """A bare pickle, and one as `torch.save` writes it."""
    import io

    buffer = io.BytesIO()
    torch.save({"weight": evil}, buffer)
    return [pickle.dumps(evil), buffer.getvalue()]


def test_the_pickle_of_these_tests_runs_code(tmp_path):
    pickle.loads(both_kinds(Evil(tmp_path / "run"))[0])
    assert (tmp_path / "run").exists()


# Pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "model.pkl"])
def test_weights_that_are_a_pickle_are_not_read(refused, run_config, model_dir, marker, name):
    (model_dir / "model.safetensors").unlink()
    for content in both_kinds(Evil(marker)):
        (model_dir / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"the weights in '.*' are a pickle, {name}, which .* convert it:"):
            load_backbone(model_dir)
        assert f"are a pickle, {name}" in refused("run", run_config, f"backbone.path={model_dir}")


def test_pickles_beside_safetensors_are_left_alone(model_dir, marker):
    for name in ("pytorch_model.bin", "optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"):
        (model_dir / name).write_bytes(both_kinds(Evil(marker))[1])
    load_backbone(model_dir)
    load_tokenizer(str(model_dir))


def test_an_index_that_names_a_pickle_is_refused(model_dir, marker):
    names = list(load_file(model_dir / "model.safetensors"))
    (model_dir / "model.safetensors").unlink()
    (model_dir / "shard.bin").write_bytes(both_kinds(Evil(marker))[1])
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "shard.bin")}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"are a pickle, shard\.bin"):
        load_backbone(model_dir)


def test_a_pickle_in_place_of_any_file_is_not_run(tiny_bert_dir, tmp_path, marker, tokenizer):
    """Every file that pemeta reads in a model, its task and a PEFT adapter, one after another."""
    model = PEModel(load_backbone(tiny_bert_dir), LoRA(rank=2))
    model.add_head("a", TokenClassification(labels=("O", "B-PER", "I-PER")))
    model.save_pretrained(tmp_path / "whole", tokenizer)
    model.save_task(tmp_path / "whole" / "tasks" / "a", "a")
    save_peft(model, tmp_path / "whole" / "peft")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) >= 9
    for file in files:
        for content in both_kinds(Evil(marker)):
            folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / "spoilt", dirs_exist_ok=True))
            (folder / file).write_bytes(content)
            loads = [
                lambda: Server.load(folder, device="cpu"),  # noqa: B023 - called in this turn of the loop
                lambda: load_peft(folder / "peft", load_backbone(folder)),  # noqa: B023
            ]
            failed = 0
            for load in loads:
                try:
                    load()
                except ModelError:
                    failed += 1
            unread = ("README.md", "model.safetensors.index.json")  # the latter is for servers
            assert failed or file.name in unread, file
            assert not marker.exists()
            shutil.rmtree(folder)


def test_a_checkpoint_that_is_a_pickle_is_not_run(tmp_path, marker):
    for content in both_kinds(Evil(marker)):
        (tmp_path / "checkpoint.safetensors").write_bytes(content)
        with pytest.raises(OutputError, match="cannot read"):
            read_tensors(tmp_path / "checkpoint.safetensors")


# Code


@pytest.fixture
def with_code(model_dir, marker):
    """A model of a custom architecture, with its code, which also creates the marker."""
    (model_dir / "own.py").write_text(
        f"open({str(marker)!r}, 'w')\n"
        "from transformers import BertConfig, BertModel, BertTokenizerFast\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
        "class OwnTokenizer(BertTokenizerFast):\n    pass\n"
    )
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    edit(model_dir / "config.json", model_type="own", architectures=["OwnModel"], auto_map=auto)
    return model_dir


@pytest.mark.parametrize("load", [load_backbone, empty_backbone, lambda path: load_tokenizer(str(path))])
def test_code_that_comes_with_a_model_is_neither_run_nor_prompted_for(with_code, monkeypatch, load):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    with pytest.raises(ModelError, match=r"needs Python code of its own, which pemeta does not run by default; if you"):
        load(with_code)


def test_commands_do_not_run_it_either(refused, run_config, with_code):
    for command in (("run", run_config), ("validate", "--load", run_config)):
        message = refused(*command, f"backbone.path={with_code}")
        assert "needs Python code of its own" in message
    assert "needs Python code of its own" in refused("methods", "--model", with_code)


def test_code_of_a_tokenizer_is_not_run(model_dir, with_code):
    shutil.copy(model_dir / "own.py", model_dir / "own_tokenizer.py")
    config = json.loads((model_dir / "config.json").read_text())
    del config["auto_map"]
    (model_dir / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    auto = {"AutoTokenizer": ["own_tokenizer.OwnTokenizer", "own_tokenizer.OwnTokenizer"]}
    edit(model_dir / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=auto)
    assert type(load_tokenizer(str(model_dir))).__module__.startswith("transformers.")


def test_code_of_a_known_architecture_is_not_needed(with_code):
    edit(with_code / "config.json", model_type="bert")
    assert type(load_backbone(with_code)).__module__.startswith("transformers.models.bert")


def test_kernels_that_a_configuration_names_are_not_fetched(model_dir):
    edit(model_dir / "config.json", attn_implementation="somebody/kernels")
    with pytest.raises(ModelError, match=r"requests attention from code on the hub, 'somebody/kernels'"):
        load_backbone(model_dir)


def test_code_is_run_if_the_caller_allows_it(with_code, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (with_code / "own.py").write_text((with_code / "own.py").read_text().partition("\n")[2])  # without the marker
    model = PEModel.from_pretrained(with_code, Adapter(bottleneck=4), trust_remote_code=True)
    assert type(model.backbone).__name__ == "OwnModel"
