"""A task in transformers' own Trainer: our loss, only θ_a and the head move, and checkpoints resume."""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import torch
from transformers import DataCollatorForTokenClassification, GPT2Config, GPT2Model, Trainer, TrainingArguments

from pemeta import LabelSet, PEMethod, PEModel, TaskModel
from pemeta.backbone.loading import load_backbone
from pemeta.data.conll import read_conll_corpus
from pemeta.data.encoding import encode
from pemeta.errors import ModelError
from pemeta.heads import CausalLM, TokenClassification

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


ARGUMENTS: dict[str, dict[str, Any]] = {
    "activation checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "neftune": {"neftune_noise_alpha": 5.0, "use_cache": True},
    "bf16": {"bf16": True, "label_names": ["labels"], "include_num_input_tokens_seen": "all"},
    "bf16 in evaluation": {"bf16_full_eval": True, "eval_strategy": "epoch", "full_determinism": True, "data_seed": 4},
    "label smoothing": {"label_smoothing_factor": 0.1, "train_sampling_strategy": "group_by_length"},
    "batch size": {"auto_find_batch_size": True, "remove_unused_columns": False, "dataloader_drop_last": True},
    "evaluation": {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_do_concat_batches": False,
        "include_for_metrics": ["inputs", "loss"],
        "eval_accumulation_steps": 1,
    },
    "the best": {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    },
    "optimiser": {
        "optim": "adafactor",
        "weight_decay": 0.1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 1,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.1,
    },
}
"""Arguments of Trainer that touch the model, the data or the precision; docs/howto/save-and-serve.md lists them."""


@pytest.mark.parametrize("options", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.long
def test_trainer_s_arguments(tiny_bert_dir, data, tokenizer, tmp_path, options, capsys):
    model = new(tiny_bert_dir, data)
    before, stored = model.state(), set(model.stored_names("aa"))
    torch.use_deterministic_algorithms(False)
    training = trainer(TaskModel(model, "aa"), data, tokenizer, tmp_path, **{"max_steps": 2, **options})
    try:
        training.train()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in training.state.log_history if "loss" in row)
    assert training.state.total_flos > 0
    task = training.model
    assert task.release() is model
    assert not task.is_activation_checkpointing
    assert not model.backbone.get_input_embeddings()._forward_hooks
    moved = {name for name, value in model.state().items() if not torch.equal(value, before[name].to(value.dtype))}
    assert moved
    assert moved <= stored
    assert set(task.state_dict()) == {f"model.{name}" for name in stored}
    training.create_model_card()
    assert (tmp_path / "README.md").is_file()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_checkpointing_changes_no_value_and_noise_does(tiny_bert_dir, data, tokenizer, tmp_path, capsys):
    found = []
    for options in ({}, {"gradient_checkpointing": True}, {"neftune_noise_alpha": 5.0}):
        model = new(tiny_bert_dir, data, {"name": "lora", "rank": 2})
        trainer(TaskModel(model, "aa"), data, tokenizer, tmp_path, max_steps=2, **options).train()
        found.append(model.state())
    plain, checkpointed, noisy = found
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)
    assert not all(torch.allclose(plain[name], noisy[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize("architecture", ["bert", "t5", "gpt2", "vit"])
def test_noise_is_added_where_tokens_are_embedded(architecture):
    """T5 does not call the part that it names."""
    model = PEModel(architectures.backbone(architecture), PEMethod.parse("lora"))
    model.add_head("t", TokenClassification(labels=("O", "B-PER", "I-PER")))
    task, inputs = TaskModel(model.eval(), "t"), architectures.batch(architecture)
    plain = task(**inputs).logits
    hook = task.get_input_embeddings().register_forward_hook(lambda *call: call[-1] + torch.rand_like(call[-1]))
    assert not torch.allclose(task(**inputs).logits, plain, atol=1e-4)
    hook.remove()


@pytest.mark.parametrize(
    "options", [{"every_n_layers": 2}, {"offload": True}, {"activation": 1}, {"use_reentrant": True}]
)
def test_other_checkpointing_is_refused(tiny_bert_dir, data, options):
    with pytest.raises(ModelError, match=f"but {next(iter(options))} is"):
        TaskModel(new(tiny_bert_dir, data), "aa").gradient_checkpointing_enable(options)


def language_model(method="lora") -> PEModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    model = PEModel(GPT2Model(config).eval(), PEMethod.parse(method))
    model.add_head("lm", CausalLM(vocab_size=30))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_labels_of_a_language_model_are_smoothed_after_the_shift(tmp_path):
    task = TaskModel(language_model(), "lm")
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", label_smoothing_factor=0.2)
    found = Trainer(task, arguments).compute_loss(task, {"input_ids": ids, "labels": ids})
    log_p = task(ids).logits[:, :-1].log_softmax(-1)
    nll = -log_p.gather(-1, ids[:, 1:, None]).mean()
    assert torch.allclose(found, 0.8 * nll - 0.2 * log_p.mean())


@pytest.mark.parametrize(
    "method", ["lora", {"name": "prompt", "length": 2}, {"name": "prefix", "length": 2}, "adapter"]
)
def test_generation_is_that_of_the_task(method):
    model = language_model(method)
    model.train()
    ids = torch.tensor([[5, 6, 7]])
    mask = torch.ones_like(ids)
    found = TaskModel(model, "lm").generate(
        input_ids=ids, attention_mask=mask, labels=ids, max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert all(part.training for part in model.modules())
    expected = ids
    model.eval()
    for _ in range(5):
        with torch.no_grad():
            logits = model({"input_ids": expected, "attention_mask": torch.ones_like(expected)}, "lm")
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, expected)


def test_a_task_that_does_not_generate_says_so(tiny_bert_dir, data):
    task = TaskModel(new(tiny_bert_dir, data), "aa")
    assert not task.can_generate()
    with pytest.raises(ModelError, match="has a TokenClassificationHead, which does not generate"):
        task.generate(torch.tensor([[1, 2]]))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_evaluation_by_generation(tmp_path):
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    rows = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 4
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", predict_with_generate=True, generation_max_length=6
    )
    found = Seq2SeqTrainer(TaskModel(language_model(), "lm"), arguments).predict(rows)
    assert (found.predictions[:, :3] == [5, 6, 7]).all()
    assert found.predictions[:, 3:6].any()
    assert not found.predictions[:, 6:].any()  # padding


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_compilation(tiny_bert_dir, data, tokenizer, tmp_path, capsys):
    model = new(tiny_bert_dir, data)
    before = model.state()
    trainer(TaskModel(model, "aa"), data, tokenizer, tmp_path, max_steps=2, torch_compile=True).train()
    assert any(not torch.equal(value, before[name]) for name, value in model.state().items())


def test_a_task_model_saves_a_task(tiny_bert_dir, data, tmp_path):
    model = new(tiny_bert_dir, data)
    TaskModel(model, "aa").save_pretrained(tmp_path / "task")
    assert new(tiny_bert_dir, data).load_task(tmp_path / "task") == "aa"
    task = TaskModel(model, "aa")
    assert task.num_parameters() == sum(p.numel() for p in model.parameters())
    assert task.num_parameters(only_trainable=True) == model.num_stored("aa")
    tables = sum(p.numel() for n, p in model.named_parameters() if "_embeddings." in n)
    assert task.num_parameters(exclude_embeddings=True) == task.num_parameters() - tables
    assert (task.dtype, task.device.type, task.main_input_name) == (torch.float32, "cpu", "input_ids")
