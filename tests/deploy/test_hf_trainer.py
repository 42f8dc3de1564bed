"""A task in transformers' own Trainer: our loss, only θ_a and the head move, and checkpoints resume."""

from __future__ import annotations

import pytest
import torch
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

from pemeta import LabelSet, PEMethod, PEModel, TaskModel
from pemeta.backbone.loading import load_backbone
from pemeta.data.conll import read_conll_corpus
from pemeta.data.encoding import encode
from pemeta.errors import ModelError
from pemeta.heads import TokenClassification

pytest.importorskip("accelerate")
METHODS = [{"name": "adapter", "bottleneck": 4}, {"name": "lora", "rank": 2}, "bitfit", {"name": "prefix", "length": 2}]


@pytest.fixture
def data(conll_dir, tokenizer):
    corpus = read_conll_corpus(conll_dir, "aa", LabelSet(("PER", "ORG", "LOC")))
    return encode(corpus.train, corpus.labels, tokenizer)


def new(path, data, method=METHODS[0]) -> PEModel:
    model = PEModel(load_backbone(path), PEMethod.parse(method))
    model.add_head("aa", TokenClassification(labels=data.labels.tags))
    return model


def trainer(task: TaskModel, data, tokenizer, folder, **options) -> Trainer:
    rows = [
        {"input_ids": i.tolist(), "labels": n.tolist()} for i, n in zip(data.input_ids, data.label_ids, strict=True)
    ]
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "report_to": "none"}
    settings |= {"save_steps": 3, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "seed": 0}
    return Trainer(
        model=task,
        args=TrainingArguments(output_dir=str(folder), **settings | options),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )


def test_the_loss_is_our_own(tiny_bert_dir, data):
    model = new(tiny_bert_dir, data)
    batch = data.batch(range(5))
    output = TaskModel(model, "aa")(**batch)
    assert torch.equal(output.loss, model.loss(batch, "aa"))
    assert torch.equal(output.logits, model(batch, "aa"))
    assert TaskModel(model, "aa")(batch["input_ids"], batch["attention_mask"]).loss is None


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_trainer_moves_theta_a_and_the_head_only(tiny_bert_dir, data, tokenizer, tmp_path, method, capsys):
    model = new(tiny_bert_dir, data, method)
    before, stored = model.state(), set(model.stored_names("aa"))
    task = TaskModel(model, "aa")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == stored
    training = trainer(task, data, tokenizer, tmp_path / "out")
    first = training.evaluate()["eval_loss"]
    training.train()
    assert training.evaluate()["eval_loss"] < first
    after = model.state()
    assert {name for name in after if not torch.equal(after[name], before[name])} <= stored
    assert not torch.equal(after["heads.task_aa.classifier.weight"], before["heads.task_aa.classifier.weight"])
    assert task.release() is model
    assert all(parameter.requires_grad for parameter in model.parameters())

    again = new(tiny_bert_dir, data, method)
    resumed = trainer(TaskModel(again, "aa"), data, tokenizer, tmp_path / "out")
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert all(torch.equal(value, after[name]) for name, value in again.state().items())
    batch = data.batch(range(5))
    with torch.no_grad():
        assert torch.equal(again.eval()(batch, "aa"), model.eval()(batch, "aa"))
    size = (tmp_path / "out" / "checkpoint-3" / "model.safetensors").stat().st_size
    assert size < 4 * model.num_stored("aa") + 8000


def test_a_checkpoint_of_another_task_is_refused(tiny_bert_dir, data):
    adapter, lora = (TaskModel(new(tiny_bert_dir, data, method), "aa") for method in METHODS[:2])
    with pytest.raises(ModelError, match="this checkpoint belongs to another task or method"):
        lora.load_state_dict(adapter.state_dict())
    with pytest.raises(ModelError, match="unknown task 'bb'"):
        TaskModel(adapter.release(), "bb")


def test_the_state_within_another_module(tiny_bert_dir, data):
    """As torch's DistributedDataParallel wraps it."""
    task = TaskModel(new(tiny_bert_dir, data), "aa")
    wrapped = torch.nn.ModuleDict({"module": task})
    assert list(wrapped.state_dict()) == [f"module.{name}" for name in task.state_dict()]
    assert task.state_dict()
