"""Task folders, and a server that switches between them and always agrees with a freshly loaded model."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import METHODS as ROWS

from pemeta import PEMethod, PEModel, Server
from pemeta.backbone import packed_passes
from pemeta.backbone.loading import load_backbone
from pemeta.backbone.packing import is_packed
from pemeta.deploy.predictions import Entity, _entities
from pemeta.errors import ArgumentError, ConfigError, DataError, ModelError, OutputError
from pemeta.experiments import saved_models
from pemeta.heads import SequenceClassification, TokenClassification, TokenClassificationHead
from pemeta.model import manifest as about_files
from pemeta.model.model_files import theta_p_digest

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NER = TokenClassification(labels=LABELS)
TEXTS = ["Anna Otto met Rome today", "", "near", "Oslo with Globex left near Anna"]
METHODS = [method for method, _ in ROWS.values()]
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}


def shake(model: PEModel, names: tuple[str, ...], seed: int) -> None:
    """Change parameters, as training does."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


def logits(model: PEModel, task: str) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(BATCH, task)


def make(
    path: Path, folder: Path, tokenizer: Any, method: Any = ROWS["adapter"][0], tasks: str = "abc"
) -> dict[str, Any]:
    """A primed model with fine-tuned tasks as folders, and each task's logits."""
    model = PEModel(load_backbone(path), PEMethod.parse(method))
    shake(model, model.partition().theta_p, 0)
    model.save_pretrained(folder, tokenizer)
    expected = {}
    for number, task in enumerate(tasks):
        model.add_head(task, NER, seed=number)
        shake(model, model.stored_names(task), number + 1)
        model.save_task(folder / "tasks" / task, task)
        expected[task] = logits(model, task)
    return expected


@pytest.fixture
def served(tiny_bert_dir: Path, tmp_path: Path, tokenizer: Any) -> Path:
    make(tiny_bert_dir, tmp_path / "m", tokenizer)
    return tmp_path / "m"


# Task folders


@pytest.mark.parametrize("method", METHODS, ids=list(ROWS))
def test_a_task_loads_bit_equal_into_a_fresh_model(tiny_bert_dir, tmp_path, tokenizer, method):
    expected = make(tiny_bert_dir, tmp_path / "m", tokenizer, method)
    for task, wanted in expected.items():
        model = PEModel.from_pretrained(tmp_path / "m")
        assert model.load_task(tmp_path / "m" / "tasks" / task) == task
        assert torch.equal(logits(model, task), wanted)
    assert model.load_task(tmp_path / "m" / "tasks" / "a", "other.name") == "other.name"
    assert torch.equal(logits(model, "other.name"), expected["a"])


def test_a_task_folder_holds_theta_a_and_the_head(served):
    model = PEModel.from_pretrained(served)
    model.load_task(served / "tasks" / "a")
    size = model.save_task(served / "tasks" / "again", "a", max_length=20)
    assert size == sum(file.stat().st_size for file in (served / "tasks" / "again").iterdir())
    values = load_file(served / "tasks" / "again" / "task.safetensors")
    assert sum(value.numel() for value in values.values()) == model.num_stored("a")
    about = json.loads((served / "tasks" / "again" / "task.json").read_text())
    assert about["task"] == "a"
    assert about["max_length"] == 20
    assert about["head"] == {"name": "token_classification", "labels": list(LABELS), "dropout": 0.0}
    assert about["method"]["name"] == "adapter"
    assert about["theta_p_digest"] == theta_p_digest(model)


def test_a_mismatched_task_is_refused_and_nothing_changes(served, tiny_bert_dir):
    folder = served / "tasks" / "a"
    primed = PEModel.from_pretrained(served)
    for model, message in (
        (PEModel.from_pretrained(served, PEMethod.parse("lora")), r"was fine-tuned with Adapter\(.*method is LoRA\("),
        (
            PEModel(load_backbone(tiny_bert_dir), primed.method),
            "belongs to another primed model: its θ_p has the digest",
        ),
    ):
        before = model.state()
        with pytest.raises(ModelError, match=message):
            model.load_task(folder)
        assert all(torch.equal(value, before[name]) for name, value in model.state().items())
    primed.add_head("a", TokenClassification(labels=("O", "B-X", "I-X")))
    with pytest.raises(
        ModelError, match=r"task 'a' has the head .*B-X.* in the model and .*B-PER.* in the folder; load it"
    ):
        primed.load_task(folder)


def test_incomplete_task_files_are_refused(served):
    model = PEModel.from_pretrained(served)
    folder = served / "tasks" / "a"
    values, about = (folder / "task.safetensors").read_bytes(), json.loads((folder / "task.json").read_text())
    (folder / "task.safetensors").write_bytes(values[:-3])
    with pytest.raises(ModelError, match=r"cannot read .*task\.safetensors: .*; save or copy the task again"):
        model.load_task(folder)
    (folder / "task.safetensors").write_bytes(values)
    tensors = load_file(folder / "task.safetensors")
    save_file({name: value for name, value in tensors.items() if "down" not in name}, folder / "task.safetensors")
    with pytest.raises(ModelError, match=r"does not hold θ_a of this model: .*down.* is missing in the file and \("):
        model.load_task(folder)
    save_file({**tensors, "head.classifier.bias": torch.zeros(3)}, folder / "task.safetensors")
    with pytest.raises(
        ModelError, match=r"does not hold the head of this model: .*bias is \(3,\) in the file and \(5,\) in the model"
    ):
        model.load_task(folder)
    for change, message in (
        ({"head": {"name": "tagger"}}, "unknown head 'tagger'.*if it refers to your own method or head"),
        ({"method": "adaptor"}, "unknown PE method 'adaptor'"),
        ({"format": 7}, "has format 7"),
        ({"task": ""}, "task: "),
    ):
        (folder / "task.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(ModelError, match=message):
            model.load_task(folder)
    (folder / "task.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read .*task\.json: .*; save or copy the task again"):
        model.load_task(folder)
    with pytest.raises(ModelError, match=r"has no task\.json, so it is not a saved task"):
        model.load_task(served)


def test_a_custom_head_needs_a_head_spec(served):
    model = PEModel.from_pretrained(served)
    model.add_head("own", lambda width: TokenClassificationHead(width, 3))
    with pytest.raises(ModelError, match="was made by a function, so it cannot be saved; make it from a HeadSpec"):
        model.save_task(served / "tasks" / "own", "own")
    model.load_task(served / "tasks" / "a")
    with pytest.raises(OutputError, match="is not empty and is not a saved task"):
        model.save_task(served, "a")


# The server


@pytest.mark.parametrize("method", METHODS, ids=list(ROWS))
def test_switching_in_any_order_gives_what_a_fresh_model_gives(tiny_bert_dir, tmp_path, tokenizer, method):
    expected = make(tiny_bert_dir, tmp_path / "m", tokenizer, method)
    server = Server.load(tmp_path / "m", device="cpu")
    assert server.tasks == ("a", "b", "c")
    for task in "abcacbbcaacba":
        with server.using(task) as model:
            assert torch.equal(logits(model, task), expected[task])


def test_predictions_are_the_models_own(served, tokenizer):
    server = Server.load(served, ["b"], "cpu")
    found = server.predict("b", TEXTS)
    assert [one.words for one in found] == [tuple(text.split()) for text in TEXTS]
    model = PEModel.from_pretrained(served).eval()
    model.load_task(served / "tasks" / "b")
    for text, one in zip(TEXTS, found, strict=True):
        if text:
            encoded = tokenizer([text.split()], is_split_into_words=True, return_tensors="pt")
            with torch.no_grad():
                best = model({k: encoded[k] for k in ("input_ids", "attention_mask")}, "b")[0].argmax(-1)
            words = encoded.word_ids(0)
            assert one.tags == tuple(LABELS[best[words.index(i)]] for i in range(len(text.split())))
        for entity in one.entities:
            assert entity.text == " ".join(one.words[entity.start : entity.end])
            assert 1 / len(LABELS) < entity.score <= 1
    assert server.predict("b", []) == []
    alone = [server.predict("b", [text])[0] for text in TEXTS]
    assert [one.tags for one in alone] == [one.tags for one in found]


def test_texts_are_served_without_the_work_of_padding(served, monkeypatch):
    """By default where that is less work; with equal predictions."""
    texts, rows, placed = ["near " * 20, *TEXTS], [], PEModel.placed
    monkeypatch.setattr(packed_passes, "LEAST_SAVED", 0)  # of a tiny model
    monkeypatch.setattr(
        PEModel, "placed", lambda model, batch: rows.append(is_packed(made := placed(model, batch))) or made
    )
    expected = Server.load(served, ["b"], "cpu", padding="padded").predict("b", texts)
    for padding in ("auto", "packed"):
        server = Server.load(served, ["b"], "cpu", **{"padding": padding} if padding == "packed" else {})
        assert server.model.padding == padding
        found = server.predict("b", texts)
        assert [one.tags for one in found] == [one.tags for one in expected]
        scores = [[entity.score for one in some for entity in one.entities] for some in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert scores[0]
    assert rows == [False, True, True]
    server.predict("b", TEXTS[:1])
    assert Server(PEModel.from_pretrained(served), server.tokenizer).model.padding == "padded"
    with pytest.raises(ArgumentError, match=r"padding must be .*auto.*; found 'none'"):
        Server.load(served, padding="none")


def test_entities_are_those_of_the_tags():
    words, tags = ["a", "b", "c", "d", "e", "f", "g"], ["B-X", "I-X", "I-Y", "O", "B-X", "B-X", None]
    assert list(_entities(words, tags, [1.0, 0.5, 0.25, 1, 1, 1, 0])) == [
        Entity("X", 0, 2, "a b", 0.75),
        Entity("Y", 2, 3, "c", 0.25),
        Entity("X", 4, 5, "e", 1),
        Entity("X", 5, 6, "f", 1),
    ]
    assert list(_entities([], [], [])) == []


def test_words_beyond_the_limit_have_a_tag_too(served):
    long = " ".join(["near", "Oslo"] * 20)
    (found,) = Server.load(served, ["a"], "cpu").predict("a", [long])
    assert len(found.tags) == 40
    assert None not in found.tags


def test_words_without_a_token_have_no_tag(served, tokenizer):
    server = Server.load(served, ["a"], "cpu")
    whole = server.tokenizer

    class Bare:
        """A tokenizer without special tokens, like GPT-2's."""

        is_fast, model_max_length, pad_token_id = True, 32, None

        def __call__(self, texts: Any, **options: Any) -> Any:
            return whole(texts, add_special_tokens=False, **options)

    server.tokenizer = Bare()
    first, second = server.predict("a", ["\u200d", "Anna met"])
    assert first.tags == (None,)
    assert None not in second.tags


def test_tasks_are_added_and_replaced_while_serving(served, tiny_bert_dir, tmp_path):
    server = Server.load(served, ["a"], "cpu")
    before = server.predict("a", TEXTS)
    assert server.add_task(served / "tasks" / "b", "second") == "second"
    assert server.predict("a", TEXTS) == before
    assert server.predict("second", TEXTS) == Server.load(served, ["b"], "cpu").predict("b", TEXTS)
    server.add_task(served / "tasks" / "b", "a")
    assert server.predict("a", TEXTS) == server.predict("second", TEXTS)
    with pytest.raises(ModelError, match="unknown task 'c'; Known: a, second; add it with add_task"):
        server.predict("c", TEXTS)
    with pytest.raises(DataError, match="texts must be a list of strings"):
        server.predict("a", "Anna")
    with pytest.raises(DataError, match="texts must be a list of strings"):
        server.predict("a", [None])
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1; found 0"):
        server.predict("a", TEXTS, batch_size=0)


def test_threads_get_their_own_tasks_answers(served):
    server = Server.load(served, device="cpu")
    expected = {task: server.predict(task, TEXTS) for task in server.tasks}
    wrong: list[str] = []

    def ask(task: str) -> None:
        wrong.extend(task for _ in range(20) if server.predict(task, TEXTS) != expected[task])

    threads = [threading.Thread(target=ask, args=(task,)) for task in "abcabc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sequence_classification_is_served(served, tmp_path):
    model = PEModel.from_pretrained(served)
    model.add_head("mood", SequenceClassification(labels=("bad", "good")))
    model.save_task(served / "tasks" / "mood", "mood")
    server = Server.load(served, ["mood"], "cpu")
    found = server.predict("mood", ["Anna met", "near"])
    assert [one.text for one in found] == ["Anna met", "near"]
    assert {one.label for one in found} <= {"bad", "good"}
    assert all(0.5 <= one.score <= 1 for one in found)
    assert str(found[0]).endswith("  Anna met")
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        server.predict("mood", ["Anna", " "])


def test_a_missing_tokenizer_or_model_is_refused(served, tiny_bert_dir, tmp_path):
    with pytest.raises(ModelError, match=r"has no pemeta\.json, so it is not a model saved by pemeta"):
        Server.load(tiny_bert_dir)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (served / name).unlink()
    with pytest.raises(ModelError, match="cannot load a tokenizer from"):
        Server.load(served)


# The command line


def test_predict_prints_entities_or_json(pemeta, served):
    shown = pemeta("predict", served, "--task", "a", "--device", "cpu", TEXTS[0], TEXTS[3])
    assert (shown.code, shown.err) == (0, "")
    found = Server.load(served, device="cpu").predict("a", [TEXTS[0], TEXTS[3]])
    assert shown.out == "".join(f"{one}\n" for one in found)
    for one in found:
        for entity in one.entities:
            assert f" {entity.type}]" in shown.out
    lines = pemeta("predict", served, "--task", served / "tasks" / "a", "--json", TEXTS[0], TEXTS[3]).out.splitlines()
    assert [json.loads(line)["tags"] for line in lines] == [list(one.tags) for one in found]
    assert set(json.loads(lines[0])) == {"words", "tags", "entities"}


def test_predict_reads_standard_input(pemeta, served, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Anna met\n\nRome\n"))
    shown = pemeta("predict", served, "--task", "b", "--json", "-")
    assert [json.loads(line)["words"] for line in shown.out.splitlines()] == [["Anna", "met"], [], ["Rome"]]


def test_predict_says_what_is_wrong(refused, served, tiny_bert_dir, tmp_path):
    assert "unknown task 'd'" in refused("predict", served, "--task", "d", "x")
    assert "Known: a, b, c" in refused("predict", served, "--task", "d", "x")
    assert "has 3 tasks (a, b, c); specify the task" in refused("predict", served, "x")
    assert "has no pemeta.json" in refused("predict", tiny_bert_dir, "--task", "a", "x")
    assert "nowhere" in refused("predict", tmp_path / "nowhere", "--task", "a", "x")
    (served / "tokenizer.json").unlink()
    (served / "tokenizer_config.json").unlink()
    assert "cannot load a tokenizer" in refused("predict", served, "--task", "a", "x")
    assert "padding must be" in refused("predict", served, "--task", "a", "--padding", "none", "x")


def test_stored_tasks_predict_right_away_and_can_be_moved(pemeta, run_config, tmp_path):
    ran = pemeta("run", run_config)
    assert (ran.code, ran.err) == (0, "")
    out = Path(run_config["output"])
    assert f"Fine-tuned tasks are in {out / 'models'}; use one with: pemeta predict {out / 'models'}" in ran.out
    assert {path.name for path in (out / "models").iterdir()} == {"plain-seed0", "primed-seed0"}
    shutil.move(out, tmp_path / "moved")
    for setting in ("plain", "primed"):
        shown = pemeta("predict", tmp_path / "moved" / "models" / f"{setting}-seed0", "--json", "Анна мет")
        assert (shown.code, shown.err) == (0, ""), shown.err
        assert json.loads(shown.out)["words"] == ["Анна", "мет"]
    base = json.loads((tmp_path / "moved" / "models" / "primed-seed0" / "pemeta.json").read_text())["base"]
    assert base.startswith("../../primed/meta-seed0-")
    model = PEModel.from_pretrained(tmp_path / "moved" / "models" / "primed-seed0")
    assert model.load_task(tmp_path / "moved" / "models" / "primed-seed0" / "tasks" / "cc") == "cc"


def test_full_fine_tuning_is_stored_only_if_asked_for(pemeta, run_config, monkeypatch):
    monkeypatch.setattr(saved_models, "FEW", 0)  # the model is tiny
    run_config["settings"] = {"full": {"method": "full"}}
    out = Path(run_config["output"])
    assert "Fine-tuned tasks" not in pemeta("run", run_config).out
    assert not (out / "models").exists()
    assert pemeta("run", run_config, "save_tasks=true", "finetuning.epochs=1").code == 0
    assert pemeta("predict", out / "models" / "full-seed0", "Anna").code == 0
    pemeta("run", run_config, "save_tasks=false", "finetuning.epochs=1", "seeds=[1]")
    assert [path.name for path in (out / "models").iterdir()] == ["full-seed0"]


def test_a_run_does_not_ask_the_hub_for_a_folder_that_it_is_about_to_make(pemeta, run_config, tmp_path, monkeypatch):
    asked = []
    ask = about_files.cached_file
    monkeypatch.setattr(
        about_files, "cached_file", lambda path, *rest, **options: asked.append(path) or ask(path, *rest)
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # models/adapter-seed0 could be a name on the hub
    run_config["settings"] = {"adapter": {"method": "adapter"}}
    assert pemeta("run", run_config, "save_tasks=true", "output=.").code == 0
    assert Path("models/adapter-seed0/pemeta.json").is_file()
    assert asked == []


def test_tasks_of_another_primed_model_do_not_stay(pemeta, run_config):
    run_config["targets"] = ["bb", "cc"]
    run_config["settings"] = {"primed": {"method": "adapter", "priming": "meta"}}
    tasks = Path(run_config["output"]) / "models" / "primed-seed0" / "tasks"
    pemeta("run", run_config, "save_tasks=true")
    assert sorted(path.name for path in tasks.iterdir()) == ["bb", "cc"]
    pemeta("run", run_config, "save_tasks=true", "priming.outer_steps=2", "targets=[cc]")
    assert [path.name for path in tasks.iterdir()] == ["cc"]
    assert pemeta("predict", tasks.parent, "Anna").code == 0
