"""What a user can get wrong: one sentence on stderr, exit code 2, no traceback, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import finished
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pemeta.errors import OutputError
from pemeta.heads import TokenClassificationHead
from pemeta.utils import files


def records(config: dict[str, Any]) -> list[Path]:
    return sorted(Path(config["output"]).glob("records/*"))


@pytest.fixture
def data_config(run_config, own_conll_dir):
    """A configuration on CoNLL files that the test may change."""
    return {**run_config, "data": {"name": "conll", "path": str(own_conll_dir)}}


# Data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read {path}: No such file or directory; check the path"),
        ("", "{path} holds no sentence; expected word<TAB>tag lines"),
        ("Ada\tB-PER\n\nslept O\n", "{path}, line 3: expected word<TAB>tag; found 'slept O'"),
        ("Ada\tB-PRS\n", "{path}, line 1: unknown tag 'B-PRS'; the label set is O, B-PER, I-PER, B-ORG, I-ORG, "),
        (
            "the\tO\nAda\tI-PER\n",
            "{path}, line 2: tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'; the line is 'Ada\\tI-",
        ),
        (b"\xff\xfe", "{path}: not UTF-8 at byte 0; it is UTF-16: iconv -f UTF-16 -t UTF-8 {path}"),
    ],
)
@pytest.mark.parametrize("name", ["aa/train", "cc/train", "cc/test"])
def test_a_bad_file(refused, data_config, own_conll_dir, name, content, says):
    path = own_conll_dir / f"{name}.conll"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused("run", data_config).startswith(says.format(path=path))
    assert not records(data_config)


def test_an_unknown_language(refused, run_config):
    assert refused("run", run_config, "targets=[CC]").startswith("unknown language 'CC'; did you mean 'cc'? Known: aa")
    assert refused("run", run_config, "sources=[zz]").startswith("unknown language 'zz'; Known: aa, bb, cc;")


def test_a_missing_data_folder(refused, run_config):
    assert refused("run", run_config, "data.path=nothing").startswith("there is no folder nothing; expected one with")


@pytest.mark.parametrize("algorithm", ["meta", "finetune"])
def test_a_source_with_fewer_sentences_than_an_episode(refused, run_config, algorithm):
    message = refused(
        "run", run_config, f"settings={{x: {{method: adapter, priming: {algorithm}}}}}", "priming.support_size=21"
    )
    assert message == (
        "source 'aa' has 24 sentences, but an episode needs 25 (21 support + 4 query); provide more data, or lower the "
        "sizes"
    )
    assert not records(run_config)


def test_more_tasks_in_a_batch_than_sources(refused, run_config):
    assert refused("run", run_config, "priming.tasks_per_batch=3") == (
        "tasks_per_batch must be between 1 and the number of source tasks, 2; found 3"
    )


def test_sentences_longer_than_the_limit_are_counted_and_their_words_predicted_o(
    pemeta, data_config, own_conll_dir, monkeypatch
):
    # A model that says B-PER to all it sees: it finds two of three entities, since the third is cut off, in 32 words.
    monkeypatch.setattr(
        TokenClassificationHead,
        "predictions",
        lambda _, logits, batch: torch.full(logits.shape[:2], 1, dtype=torch.long),
    )
    entity = "Анна\tB-PER\n"  # one piece, as is the other word: 32 pieces hold 30 words between [CLS] and [SEP]
    other = "мет\tO\n"
    text = f"{entity}\n{entity}\n{other * 39}{entity}"
    (own_conll_dir / "cc" / "test.conll").write_text(text, encoding="utf-8")
    outcome = pemeta("run", data_config)
    assert outcome.code == 0, outcome
    assert "cc test: 1 of 3 sentences longer than 32 tokens; 10 words cut" in outcome.out
    assert "cc train: " not in outcome.out
    assert "Truncated test sentences: cc 1 of 3" in outcome.out
    for path in records(data_config):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert (record["num_truncated"], record["num_test"]) == (1, 3)
        assert record["scores"]["recall"] == pytest.approx(2 / 3)
        assert record["scores"]["precision"] == pytest.approx(2 / 32)


def test_a_limit_that_the_model_does_not_have(refused, run_config):
    assert refused("run", run_config, "max_length=33").startswith(
        "max_length must be from 3 to the model's 32; found 33"
    )


# Models


@pytest.fixture
def model_dir(tiny_bert_dir, tmp_path):
    """A copy of the model for the test to spoil."""
    return Path(shutil.copytree(tiny_bert_dir, tmp_path / "model"))


def spoil(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "no folder":
        shutil.rmtree(folder)
    elif how == "a file":
        shutil.rmtree(folder)
        folder.write_text("not a folder")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "config is not JSON":
        (folder / "config.json").write_text("{")
    elif how == "no weights":
        weights.unlink()
    elif how == "weights are noise":
        weights.write_bytes(b"\x01" * 500)
    elif how == "weights end early":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "a weight is missing":
        state = load_file(weights)
        del state["encoder.layer.1.output.dense.weight"]
        save_file(state, weights, metadata={"format": "pt"})
    elif how == "no tokenizer":
        for path in folder.glob("token*"):
            path.unlink()
    elif how == "another model's tokenizer":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no folder", "cannot load a tokenizer from '{path}': there is no such folder"),
        ("a file", "cannot load a tokenizer from '{path}': there is no such folder"),
        ("no config", "cannot load a tokenizer from '{path}': Unrecognized model in {path}"),
        ("config is not JSON", "cannot load a tokenizer from '{path}': It looks like the config file at"),
        ("no weights", "cannot load a model from '{path}': Error no file named model.safetensors"),
        ("weights are noise", "cannot load a model from '{path}': Error while deserializing header"),
        ("weights end early", "cannot load a model from '{path}': Error while deserializing header"),
        (
            "a weight is missing",
            "cannot load a model from '{path}': its weights lack 1 of the model's parameters, e.g. encoder.layer.1.",
        ),
        ("no tokenizer", "cannot load a tokenizer from '{path}': "),
        ("another model's tokenizer", "cannot load a tokenizer from '{path}': its "),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("validate", "--load")])
def test_a_model_that_cannot_be_loaded(refused, run_config, model_dir, how, says, command):
    spoil(model_dir, how)
    message = refused(*command, run_config, f"backbone.path={model_dir}")
    assert message.startswith(says.format(path=model_dir))
    assert "; give a folder with" in message
    assert not records(run_config)


def test_a_tokenizer_without_a_limit_gets_the_models(refused, run_config, model_dir):
    path = model_dir / "tokenizer_config.json"
    said = json.loads(path.read_text())
    del said["model_max_length"]
    path.write_text(json.dumps(said))
    assert "the model's 32; found 33" in refused("run", run_config, f"backbone.path={model_dir}", "max_length=33")


def test_a_package_that_is_not_installed(refused, run_config):
    message = refused("run", run_config, "backbone={name: package, package: no_such_package_here}")
    assert message == (
        "cannot import the package 'no_such_package_here' (No module named 'no_such_package_here'); "
        "run `pip install no-such-package-here`"
    )
    assert "has no MODEL_DIR; check backbone.attribute" in refused(
        "run", run_config, "backbone={name: package, package: json}"
    )
    assert "cannot import" in refused("run", run_config, "backbone={name: package, package: no_such.module}")


def test_validate_finds_a_setting_whose_methods_exclude_each_other(refused, run_config):
    inner = "settings.primed.priming.inner_method={name: adapter, bottleneck: 3}"
    assert "the backbone already has a pemeta_adapter" in refused("validate", "--load", run_config, inner)


def test_an_offline_hub(refused, run_config, monkeypatch):
    import transformers

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    assert refused("run", run_config, "backbone.path=some/model") == (
        "cannot load a tokenizer from 'some/model': We couldn't connect to 'https://huggingface.co' to load the files; "
        "give a folder with the files of a model and its tokenizer"
    )


def test_cuda_where_there_is_none(refused, run_config, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if torch.cuda.is_available():  # its count was cached before the variable was set
        monkeypatch.setattr(torch, "zeros", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("No CUDA GPUs")))
    message = refused("run", run_config, "device=cuda")
    assert message.startswith("device 'cuda' cannot be used here: ")
    assert message.endswith("; use device: auto or cpu")


@pytest.mark.parametrize("device", ["gpu", "''", "cuda:x"])
def test_a_device_that_is_none(refused, run_config, device):
    assert "use device: auto or cpu" in refused("run", run_config, f"device={device}")


# Numbers


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["settings.primed.priming.inner_lr=1e30"], "priming, step 1: the inner loss of step "),
        (
            ["settings.primed.priming.inner_lr=1e30", "settings.primed.priming.inner_steps=1"],
            "priming, step 1: the outer loss is ",
        ),
        (["priming.outer_lr=1e30", "priming.outer_steps=9"], "priming, step 2: the "),
        (["settings.primed.priming=finetune", "priming.outer_lr=1e30"], "priming, step 2: the outer loss is "),
        (["finetuning.lr=1e30", "finetuning.epochs=9"], "fine-tuning cc, epoch "),
    ],
)
def test_a_loss_that_is_not_a_number(refused, run_config, overrides, says):
    message = refused("run", run_config, *overrides)
    assert message.startswith(says)
    assert "nan" in message or "inf" in message.split("is ")[1]
    assert "lower " in message
    out = Path(run_config["output"])
    assert not [path for path in out.rglob("*.safetensors") if path.name == "model.safetensors"] or "fine" in says


@pytest.mark.parametrize("setting", ["plain", "primed"])
def test_a_loss_that_turns_nan_somewhere(refused, run_config, monkeypatch, setting):
    run_config["settings"] = {setting: run_config["settings"][setting]}
    original = TokenClassificationHead.loss
    calls: list[int] = []

    def loss(self: TokenClassificationHead, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        value = original(self, *arguments)
        return value * float("nan") if len(calls) == 5 else value

    monkeypatch.setattr(TokenClassificationHead, "loss", loss)
    message = refused("run", run_config)
    assert re.search(r" loss( of step \d)? is nan; lower ", message)
    assert not records(run_config)


# Output


def test_an_output_below_a_regular_file(refused, run_config, tmp_path):
    (tmp_path / "file").write_text("x")
    for output in ("file", "file/below"):
        message = refused("run", run_config, f"output={tmp_path / output}")
        assert message.startswith(f"cannot write {tmp_path / output}")
        assert "choose another folder with output=..., or free up space" in message
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("override", [r'output="a\0b"', r'settings.plain.label="\ud800"'])
def test_text_that_no_file_can_hold(refused, run_config, override):
    assert "the value is not YAML (it has a character that no file can hold: " in refused("run", run_config, override)
    assert not Path(run_config["output"]).exists()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_read_only_output_folder(refused, run_config, monkeypatch):
    """As a read-only file system answers; permissions do not stop a test that runs as root."""
    original = Path.mkdir

    def read_only(self: Path, *arguments: object, **options: object) -> None:
        if str(self).startswith(run_config["output"]):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        original(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    message = refused("run", run_config)
    assert message.startswith(f"cannot write {run_config['output']}")
    assert "Read-only file system; choose another folder with output=" in message
    assert not Path(run_config["output"]).exists()


@pytest.mark.parametrize("where", ["text", "tensors", "sync"])
def test_a_full_disk(refused, run_config, monkeypatch, where):
    if where == "text":
        monkeypatch.setattr(Path, "write_text", full_disk)
        # The fixture writes the configuration itself.
        config = Path(run_config["output"]).parent / "given.yaml"
        config.write_bytes(yaml.safe_dump(run_config).encode())
        message = refused("run", config)
    else:
        monkeypatch.setattr(*((files, "save_file") if where == "tensors" else (os, "fsync")), full_disk)
        message = refused("run", run_config)
    assert "cannot write " in message
    assert ": No space left on device; choose another folder with output=..., or free up space" in message
    assert not list(Path(run_config["output"]).rglob("model.safetensors"))


def test_a_disk_that_is_full_in_the_middle_leaves_the_last_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    original = Path.write_text

    def half(self: Path, text: str, **options: Any) -> None:
        original(self, text[: len(text) // 2], **options)
        full_disk()

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OutputError, match="No space left on device"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert [child.name for child in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize("error", [SafetensorError("No space left on device (os error 28)"), KeyboardInterrupt()])
def test_tensors_that_could_not_be_saved_leave_nothing(tmp_path, monkeypatch, error):
    def half(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(files, "save_file", half)
    with pytest.raises(OutputError if isinstance(error, SafetensorError) else KeyboardInterrupt):
        files.write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt(), ValueError("x")])
def test_a_folder_that_was_not_filled_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "folder"
    with files.replaced_folder(target) as temporary:
        (temporary / "old").write_text("old")

    def fill() -> None:
        with files.replaced_folder(target) as temporary:
            (temporary / "new").write_text("new")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_a_record_that_was_spoiled(refused, pemeta, run_config):
    run_config["settings"] = {"plain": run_config["settings"]["plain"]}
    assert pemeta("run", run_config).code == 0
    (path,) = records(run_config)
    whole = path.read_text()
    for text in ("", "{", "[]", json.dumps({**json.loads(whole), "score": "high"})):
        path.write_text(text)
        message = refused("run", run_config)
        assert str(path) in message
        assert "remove it to have it recreated" in message
        assert str(path) in refused("report", run_config["output"])


def test_a_checkpoint_that_was_spoiled(refused, pemeta, run_config):
    assert pemeta("run", run_config).code == 0
    out = Path(run_config["output"])
    for folder in ("primed", "records"):
        shutil.rmtree(out / folder)
    checkpoint = out / "checkpoints" / "priming" / "primed__seed0.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"noise" * 100)
    message = refused("run", run_config)
    assert message.startswith(f"cannot read {checkpoint}: ")


def test_a_report_of_nothing(refused, tmp_path):
    assert refused("report", tmp_path / "nothing").startswith(f"{tmp_path / 'nothing'} is not a folder; ")
    assert refused("report", tmp_path).startswith(f"no records in {tmp_path / 'records'}; run")


# The command line itself


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("oops", "expected key=value, such as finetuning.epochs=3; found 'oops'"),
        ("finetuning.epoch=3", "finetuning.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("settings.plain.method=adaptor", "settings.plain.method: unknown PE method 'adaptor'; did you mean 'adapter'"),
        ("targets=[cc, cc]", "targets: duplicate value in ['cc', 'cc']; remove one"),
        ("sources=[]", "setting 'primed' primes the model, but sources is empty; add sources: [...]"),
        ("finetuning.epochs=many", "finetuning.epochs: input should be a valid integer"),
    ],
)
def test_a_configuration_that_is_wrong(refused, run_config, command, override, says):
    assert says in refused(command, run_config, override)
    assert not Path(run_config["output"]).exists()


@pytest.mark.parametrize("content", [b"[1, 2]", b"a: [", b"\xff"])
def test_a_file_that_is_no_configuration(refused, tmp_path, content):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    assert refused("run", path).startswith((f"{path}: ", f"{path} is not YAML: "))


def test_a_configuration_that_is_not_there(refused, tmp_path):
    assert (
        refused("run", tmp_path / "no.yaml")
        == f"cannot read {tmp_path / 'no.yaml'}: No such file or directory; check the path"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("frobnicate",), "no such command 'frobnicate'; see `pemeta --help`"),
        (("--fast",), "no such option: --fast; see `pemeta --help`"),
        (("run",), "missing argument 'CONFIG'; see `pemeta run --help`"),
        (("run", "--fast", "x"), "no such option: --fast; see `pemeta run --help`"),
        (("run", "x", "--device"), "option '--device' requires an argument; see `pemeta run --help`"),
        (("run", "x", "--jobs", "many"), "invalid value for '--jobs': "),  # and the rest is typer's, by its version
        (("report",), "missing argument 'DIR'; see `pemeta report --help`"),
        (("methods", "--fields"), "no such option: --fields; see `pemeta methods --help`"),
    ],
)
def test_a_wrong_command_is_one_sentence_too(refused, arguments, says):
    assert refused(*arguments).startswith(says)


def test_no_command_shows_the_help(pemeta):
    outcome = pemeta()
    assert outcome.code == 2
    assert "Usage: " in outcome.out + outcome.err


@pytest.mark.parametrize("entry", ["pemeta", "pemeta.cli"])
@pytest.mark.long
def test_an_error_in_a_process_of_its_own(entry, tmp_path):
    done = finished("-m", entry, "run", "no.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "pemeta: error: cannot read no.yaml: No such file or directory; check the path\n"


def test_a_terminal_without_the_letters_is_no_reason_to_fail(run_config, tmp_path):
    run_config["settings"] = {"plain": {"method": "head_only", "label": "θ → 名"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run_config))
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = finished("-m", "pemeta", "run", path, environment=environment, encoding="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    assert "? ? ?" in done.stdout
