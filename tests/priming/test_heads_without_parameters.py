"""Tasks whose θ_h is empty: every algorithm, kind of source head and way to resume takes them, or says why not."""

import pytest
import torch
from interrupted_runs import interrupt_at, same
from language_models import V, causal
from tiny_tasks import blocks

from pemeta import (
    Adapter,
    CausalLM,
    FineTunePriming,
    FineTuning,
    HeadOnly,
    LoRA,
    MetaPriming,
    PEModel,
    PersistentPriming,
    PrimingAlgorithm,
    PrimingLearner,
    ReptilePriming,
    Task,
    evaluate,
    finetune,
    prime,
)
from pemeta.errors import ConfigError

SIZES = {"outer_steps": 3, "support_size": 2, "query_size": 2, "tasks_per_batch": 2}
TASKS = [Task.causal_lm(name, blocks(seed)) for seed, name in enumerate(("one", "two"))]
ALGORITHMS = {
    "meta": MetaPriming(inner_steps=2, **SIZES),
    "second order": MetaPriming(inner_steps=2, first_order=False, **SIZES),
    "fresh": MetaPriming(inner_steps=2, source_heads="fresh", **SIZES),
    "zero": MetaPriming(inner_steps=2, source_heads="zero", **SIZES),
    "shared": MetaPriming(inner_steps=2, source_heads="shared", primes=("theta_p", "theta_a", "theta_h"), **SIZES),
    "together": MetaPriming(inner_steps=2, batch_tasks=True, **SIZES),
    "reptile": ReptilePriming(inner_steps=2, **{**SIZES, "query_size": 0}),
    "persistent": PersistentPriming(**SIZES),
    "persistent mean": PersistentPriming(start="mean", **SIZES),
    "finetune": FineTunePriming(**SIZES),
}


def model_of(method=None, tied=True):
    return PEModel(causal("llama", tied), method or LoRA(rank=2), seed=1)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_primes(tmp_path, name):
    model = model_of(tied=False)
    before = model.state()
    prime(model, TASKS, ALGORITHMS[name], progress=False)
    after = model.state()
    assert not any(key.startswith("heads.") for key in after)
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert ("output.lm_head.weight" in moved) == (name != "reptile" or "output.lm_head.weight" in moved)
    assert "backbone.embed_tokens.weight" in moved or name == "reptile"
    result = finetune(model, TASKS[0], blocks(5), FineTuning(epochs=1, batch_size=4), progress=False)
    assert result is not None
    assert evaluate(model, blocks(5), "one").loss > 0


def test_resuming_gives_the_same(tmp_path, monkeypatch):
    algorithm = ALGORITHMS["meta"]
    whole = model_of(tied=False)
    prime(whole, TASKS, algorithm, progress=False)
    part = model_of(tied=False)
    interrupt_at(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        prime(part, TASKS, algorithm, checkpoint=tmp_path / "c", progress=False)
    monkeypatch.undo()
    again = model_of(tied=False)
    prime(again, TASKS, algorithm, checkpoint=tmp_path / "c", progress=False)
    assert same(whole, again)


def test_where_nothing_adapts_it_is_said():
    model = model_of(HeadOnly())
    for algorithm in (
        MetaPriming(inner_steps=1, **SIZES),
        PrimingAlgorithm.parse({"name": "anil", "inner_steps": 1, **SIZES}),
    ):
        with pytest.raises(ConfigError, match=r"the inner loop adapts nothing, because its method leaves θ_a empty"):
            prime(model, TASKS, algorithm, progress=False)
    with pytest.raises(ConfigError, match="fine-tuning changes nothing, because head_only leaves θ_a empty"):
        finetune(model, TASKS[0], blocks(5), FineTuning(epochs=1), progress=False)


def test_a_primed_head_is_one_without_values():
    model = model_of(Adapter(bottleneck=2))
    model.add_head("one", CausalLM(vocab_size=V))
    finetune(model, Task.causal_lm("two", blocks(2)), blocks(5), FineTuning(epochs=1, head="primed"), progress=False)
    assert model.num_stored("two") == sum(p.numel() for n, p in model.named_parameters() if "adapter" in n)


def test_a_clone_of_a_task_adapts_theta_a_alone():
    model = model_of()
    model.add_head("one", CausalLM(vocab_size=V))
    learner = PrimingLearner(model)
    clone = learner.clone("one")
    clone.adapt_to([blocks(0).batch(range(3))] * 2, "one")
    assert set(clone.adapted_parameters()) == set(model.partition().theta_a)
