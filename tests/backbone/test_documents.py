"""Blocks of documents: each document's hidden states, losses and gradients are those that it has alone."""

import pytest
import torch
from tiny_models import tiny
from tiny_tasks import VOCABULARY, tiny_gpt2
from transformers import GemmaConfig, GemmaModel, LlamaConfig, LlamaModel, MistralConfig, MistralModel

from pemeta import (
    Adapter,
    EncodedBlocks,
    Full,
    LoRA,
    MetaPriming,
    PEModel,
    Prefix,
    Prompt,
    Task,
    evaluate,
    prime,
)
from pemeta.backbone.documents import DOCUMENTS, document_facts
from pemeta.backbone.packing import is_packed
from pemeta.errors import DataError, ModelError

SIZES = ((3, 5, 2), (8,), (4, 4))
"""Documents of each block."""


def blocks(seed=0, sizes=SIZES) -> EncodedBlocks:
    generator = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(1, VOCABULARY, (sum(one),), generator=generator) for one in sizes)
    return EncodedBlocks(VOCABULARY, ids, 0, documents=sizes)


def alone(data: EncodedBlocks) -> EncodedBlocks:
    """The documents, each as a block of its own."""
    parts = [part for ids, own in zip(data.input_ids, data.documents, strict=True) for part in ids.split(own)]
    return EncodedBlocks(data.vocab_size, tuple(parts), data.pad_id)


def small(kind, **options):
    torch.manual_seed(0)
    return kind[1](
        kind[0](
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=32,
            attn_implementation="eager",
            **options,
        )
    ).double()


MODELS = {
    "gpt2": lambda method: tiny_gpt2(method, dropout=0.0),
    "llama": lambda method: PEModel(small((LlamaConfig, LlamaModel), tie_word_embeddings=True), method),
    "gemma": lambda method: PEModel(small((GemmaConfig, GemmaModel)), method),
    "window": lambda method: PEModel(small((MistralConfig, MistralModel), sliding_window=3), method),
}
METHODS = {
    "full": Full(),
    "lora": LoRA(rank=2),
    "prefix": Prefix(length=2),
    "prompt": Prompt(length=2),
    "adapter": Adapter(bottleneck=4),
}


@pytest.mark.parametrize("padding", ["padded", "packed", "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_each_document_alone(name, padding):
    model = MODELS[name](LoRA(rank=2)).eval()
    model.padding = padding
    data = blocks()
    batch = model.placed(data.batch([0, 1, 2]))
    assert is_packed(batch)
    rows = batch["packed.input_ids"].shape[0]
    assert rows == (6 if padding != "packed" else rows)
    assert rows < 6 or padding != "packed"
    with torch.no_grad():
        found = model.hidden_states(batch)
        apart = [model.hidden_states(alone(data).batch([i])) for i in range(6)]
    assert found.shape[:2] == (3, 10)
    places = torch.cat([found[i, : sum(own)] for i, own in enumerate(SIZES)])
    assert torch.allclose(places, torch.cat([one[0] for one in apart]), atol=1e-9)
    assert not found[1, 8:].any()


@pytest.mark.parametrize("padding", ["padded", "packed"])
@pytest.mark.parametrize("method", METHODS)
def test_losses_gradients_and_scores_are_those_of_the_documents(method, padding):
    """The mean over predicted tokens of all documents, whatever the blocks."""
    found = []
    for data in (blocks(), alone(blocks())):
        model = tiny_gpt2(METHODS[method], dropout=0.0).eval()
        model.padding = padding
        task = Task.causal_lm("text", data, output="tied")
        model.add_head("text", task.make_head)
        loss = model.loss(model.placed(data.batch(range(len(data)))), "text")
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss, gradients, evaluate(model, data, "text")))
    assert found[0][0].item() == pytest.approx(found[1][0].item(), abs=1e-9)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-9), name
    assert found[0][2].loss == pytest.approx(found[1][2].loss, abs=1e-9)


@pytest.mark.parametrize("method", [LoRA(rank=2), LoRA(rank=2, top_layers=1), Adapter(bottleneck=4)], ids=repr)
def test_joined_batches_and_reused_hidden_states_stay_the_same(method):
    """An inner loop over two batches, with hidden states computed once where the method allows it."""
    results = []
    for data in (blocks(), alone(blocks())):
        model = tiny_gpt2(method, dropout=0.0).eval()
        model.padding = "packed"
        model.add_head("text", Task.causal_lm("text", data, output="tied").make_head)
        half = len(data) // 3
        batches = [model.placed(data.batch(range(half))), model.placed(data.batch(range(half)))]
        held = model.reusing(batches)
        results.append(sum(model.loss(batch, "text").item() for batch in held))
        plain = sum(model.loss(batch, "text").item() for batch in batches)
        assert results[-1] == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("method", [LoRA(rank=2), Adapter(bottleneck=4)], ids=lambda method: method.name)
def test_priming_is_the_same_in_rows_of_one_document_and_of_several(method):
    sizes = ((3, 5, 2), (8,), (4, 4), (2, 2, 2, 2), (6, 3), (5,))
    found = []
    for padding in ("padded", "packed"):
        model = tiny_gpt2(method, dropout=0.0)
        tasks = [Task.causal_lm(name, blocks(seed, sizes), output="tied") for seed, name in enumerate("ab")]
        settings = MetaPriming(outer_steps=2, inner_steps=2, support_size=3, query_size=3, padding=padding)
        history = prime(model, tasks, settings)
        assert history.packed == (padding == "packed")
        found.append((history.losses, {name: value.detach().clone() for name, value in model.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-9)
    for name, value in found[0][1].items():
        assert torch.allclose(value, found[1][1][name], atol=1e-9), name


def test_refusals():
    model = tiny_gpt2(LoRA(rank=2))
    batch = blocks().batch([0, 1])
    with pytest.raises(ModelError, match=r"blocks of documents runs in rows of these.*give it to placed\(\) first"):
        model.hidden_states(batch)
    with pytest.raises(DataError, match="each token that attention_mask marks must be of a document"):
        document_facts({**batch, DOCUMENTS: torch.zeros_like(batch[DOCUMENTS])}, ())
    with pytest.raises(DataError, match="need input_ids and attention_mask of one shape"):
        document_facts({**batch, DOCUMENTS: batch[DOCUMENTS][:1]}, ())


def test_an_encoder_takes_documents_too():
    model = tiny(LoRA(rank=2)).double().eval()
    data = blocks()
    with torch.no_grad():
        found = model.hidden_states(model.placed(data.batch([0])))
        apart = [model.hidden_states(alone(data).batch([i]))[0] for i in range(3)]
    assert torch.allclose(found[0], torch.cat(apart), atol=1e-9)
