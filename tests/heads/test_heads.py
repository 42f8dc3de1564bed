"""Heads: losses and predictions by hand, pooling, padding, refusals, descriptions."""

import math

import pytest
import torch
from architectures import backbone
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny
from tiny_tasks import EACH_KIND, VOCABULARY, tiny_gpt2
from torch import nn
from transformers import BertConfig, BertModel, ElectraConfig, ElectraModel, ViTConfig, ViTModel

from pemeta import CausalLM, HeadOnly, HeadSpec, PEModel, Prefix, Prompt, SequenceClassification, TokenClassification
from pemeta.errors import ConfigError, DataError, ModelError
from pemeta.heads import SequenceClassificationHead, TokenClassificationHead
from pemeta.heads.sequence_classification import pool

SPECS = [
    TokenClassification(labels=("O", "B-X", "I-X"), dropout=0.5),
    SequenceClassification(labels=("a", "b"), pooling="last"),
    CausalLM(vocab_size=VOCABULARY, output="own"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_description_comes_back_from_its_configuration_and_the_model_remembers_it(spec):
    assert HeadSpec.parse(spec.to_config()) == spec
    model = tiny_gpt2()
    model.add_head("task", spec)
    assert model.head_spec("task") == spec
    model.add_head("task", lambda width: spec(width))
    with pytest.raises(ModelError, match=r"the head of task 'task' is a \w+Head that was made by a function"):
        model.head_spec("task")
    model.add_head("task", spec)
    model.drop_heads()
    with pytest.raises(ModelError, match="unknown task 'task'"):
        model.head_spec("task")


def test_wrong_descriptions():
    with pytest.raises(ConfigError, match="labels must be distinct; found a, a"):
        HeadSpec.parse({"name": "sequence_classification", "labels": ["a", "a"]})
    with pytest.raises(ConfigError, match="unknown head 'token_clasification'; did you mean 'token_classification'"):
        HeadSpec.parse("token_clasification")
    with pytest.raises(ConfigError, match="labels"):
        HeadSpec.parse({"name": "token_classification", "labels": []})


def test_the_loss_and_prediction_of_a_sequence_by_hand():
    head = SequenceClassification(labels=("a", "b"))(1).double()
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[0.0], [0.0], [0.0]]]).double()
    batch = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]), "labels": torch.tensor([1, 0])}
    logits = head(hidden, batch, nn.Identity())
    assert logits.tolist() == [[2.0, -1.0], [0.0, 1.0]]  # the means are 2 and 0
    first, second = math.log(math.exp(2) + math.exp(-1)) + 1, math.log(1 + math.e)
    assert head.loss(logits, batch).item() == pytest.approx((first + second) / 2)
    assert head.predictions(logits, batch).tolist() == [0, 1]
    one = {**batch, "labels": torch.tensor([-100, 0])}
    assert head.loss(logits, one).item() == pytest.approx(second)
    assert head.loss(logits.detach(), {"labels": torch.tensor([-100, -100])}).item() == 0.0


def test_the_loss_and_predictions_of_a_language_model_by_hand():
    """Two tokens and an embedding that makes the logits of a hidden state x equal to (x, 0)."""
    backbone = nn.Module()
    backbone.get_input_embeddings = lambda: nn.Embedding.from_pretrained(torch.tensor([[1.0], [0.0], [7.0]]))
    head = CausalLM(vocab_size=2, output="tied")(1)
    hidden = torch.tensor([[[0.0], [math.log(3)], [5.0]]])
    batch = {"labels": torch.tensor([[1, 0, 1]])}
    logits = head(hidden, batch, backbone)
    assert logits.shape == (1, 3, 2)
    # After the first token both are equally likely; after the second, token 0 is three times as likely as 1, the next.
    expected = [0.0, math.log(1 / 2), math.log(1 / 4)]
    assert head.predictions(logits, batch)[0].tolist() == pytest.approx(expected)
    assert head.loss(logits, batch).item() == pytest.approx(-(expected[1] + expected[2]) / 2)
    padded = {"labels": torch.tensor([[1, 0, -100]])}
    assert head.loss(logits, padded).item() == pytest.approx(math.log(2))
    assert head.predictions(logits, padded)[0].tolist() == pytest.approx([0.0, math.log(1 / 2), 0.0])
    assert head.loss(logits.detach(), {"labels": torch.full((1, 3), -100)}).item() == 0.0


@pytest.mark.parametrize(
    "spec", [TokenClassification(labels=("O", "B-X", "I-X")), CausalLM(vocab_size=3, output="own")]
)
@pytest.mark.parametrize(("change", "says"), [
    (lambda labels: labels.fill_(-100), "no position or example of the batch has a label: all are -100"),
    (lambda labels: labels.fill_(3), "labels must be from 0 to 2, or -100 where there is none; found 3"),
    (lambda labels: labels.index_fill_(1, torch.tensor([2]), -1), "labels must be from 0 to 2, .* found -1; encode"),
    (lambda labels: labels.float(), "labels must be of type int64, from 0 to 2 or -100; found float32; convert them"),
    (lambda labels: labels.int(), "labels must be of type int64, .* found int32; convert them with .long"),
    (lambda labels: labels.bool(), "labels must be of type int64, .* found bool"),
    (lambda labels: labels[:, :-1], "found labels of shape \\(2, [23]\\); give them the shape of the batch"),
    (lambda labels: labels.T, "there must be one label for each of the \\(2, [34]\\) predictions; found labels of"),
])  # fmt: skip
def test_labels_that_a_head_cannot_learn_from(spec, change, says):
    head = spec(5)
    logits = head(torch.randn(2, 4, 5), {}, nn.Identity())
    labels = torch.ones(2, 4, dtype=torch.long)
    assert head.loss(logits, {"labels": labels}).isfinite()
    with pytest.raises(DataError, match=says):
        head.loss(logits, {"labels": change(labels)})
    with pytest.raises(DataError, match="a loss needs labels; found a batch of input_ids; add batch"):
        head.loss(logits, {"input_ids": labels})


def test_so_it_is_for_labels_of_texts():
    head = SequenceClassification(labels=("a", "b"))(5)
    logits = head(torch.randn(3, 4, 5), {}, nn.Identity())
    for labels, says in (
        ([-100, -100, -100], "no position or example of the batch has a label"),
        ([0, 1, 2], "labels must be from 0 to 1, .*; found 2"),
        ([0, 1], r"one label for each of the \(3,\) predictions; found labels of shape \(2,\)"),
        ([[0], [1], [0]], r"found labels of shape \(3, 1\)"),
        ([0.5, 1.0, 0.0], "labels must be of type int64"),
    ):
        with pytest.raises(DataError, match=says):
            head.loss(logits, {"labels": torch.tensor(labels)})


def test_sizes_and_poolings_that_are_none():
    for make in (TokenClassificationHead, SequenceClassificationHead):
        for sizes in ((0, 2), (8, 0), (8, -1), (8.0, 2), ("8", 2), (True, 2)):
            with pytest.raises(ConfigError, match="must be a whole number of at least 1; found"):
                make(*sizes)
    with pytest.raises(ConfigError, match="unknown pooling 'maen'; did you mean 'mean'"):
        SequenceClassificationHead(8, 2, pooling="maen")
    with pytest.raises(ConfigError, match="unknown pooling 'max'"):
        pool(torch.zeros(1, 2, 3), None, "max")


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=3))
def test_pooling_takes_what_the_mask_shows_and_nothing_else(rows):
    mask = torch.tensor(rows).long()
    hidden = torch.randn(len(rows), 5, 2, generator=torch.Generator().manual_seed(0)).double()
    hidden = hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.inf)
    for number, row in enumerate(rows):
        shown = hidden[number][torch.tensor(row)]
        for how, expected in (("first", shown[0]), ("mean", shown.mean(0)), ("last", shown[-1])):
            torch.testing.assert_close(pool(hidden, mask, how)[number], expected)


@pytest.mark.parametrize("how", ["first", "mean", "last"])
def test_without_a_mask_all_positions_count(how):
    hidden = torch.randn(2, 4, 3)
    assert torch.equal(pool(hidden, None, how), pool(hidden, torch.ones(2, 4), how))


def test_an_image_backbone_has_no_mask_and_no_tokens():
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=4, patch_size=2
    )
    model = PEModel(ViTModel(config, add_pooling_layer=False), HeadOnly())
    model.add_head("image", SequenceClassification(labels=("cat", "dog"), pooling="first"))
    batch = {"pixel_values": torch.randn(3, 3, 4, 4), "labels": torch.tensor([0, 1, 1])}
    assert model(batch, "image").shape == (3, 2)
    assert model.loss(batch, "image").isfinite()
    with pytest.raises(ModelError, match="a language model needs a word embedding, but ViTModel has none"):
        model.add_head("text", CausalLM(vocab_size=9, output="tied"))


@pytest.mark.parametrize(("task", "examples"), EACH_KIND, ids=lambda value: getattr(value, "name", ""))
def test_padding_changes_nothing(task, examples):
    """Compare a batch with its examples one by one."""
    model = tiny_gpt2().eval()
    model.add_head(task.name, task.make_head)
    batch = examples.batch(range(len(examples)))
    together = model(batch, task.name)
    predictions = model.head(task.name).predictions(together, batch)
    losses, counts = [], []
    for index in range(len(examples)):
        alone = examples.batch([index])
        logits = model(alone, task.name)
        width = logits.shape[1]
        torch.testing.assert_close(together[index : index + 1, :width], logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            predictions[index : index + 1][..., :width].squeeze(),
            model.head(task.name).predictions(logits, alone).squeeze(),
        )
        labels = alone["labels"][:, 1:] if task is EACH_KIND[2][0] else alone["labels"]
        counts.append(labels.numel())
        losses.append(model.head(task.name).loss(logits, alone) * counts[-1])
    torch.testing.assert_close(model.loss(batch, task.name), sum(losses) / sum(counts), rtol=0, atol=1e-12)


def test_the_sizes_that_a_task_stores_and_where_its_own_matrix_starts():
    model = tiny_gpt2(HeadOnly()).eval()
    model.add_head("tied", CausalLM(vocab_size=VOCABULARY, output="tied"))
    model.add_head("own", CausalLM(vocab_size=VOCABULARY, output="own"))
    assert model.num_stored("tied") == VOCABULARY
    assert model.num_stored("own") == VOCABULARY + VOCABULARY * 8
    assert torch.equal(model.head("own").weight, model.backbone.wte.weight)
    assert model.head("own").weight is not model.backbone.wte.weight
    batch = {"input_ids": torch.tensor([[3, 4, 5]]), "labels": torch.tensor([[3, 4, 5]])}
    assert torch.equal(model(batch, "own"), model(batch, "tied"))


def test_logits_are_those_of_transformers_own_language_model():
    from transformers import GPT2LMHeadModel

    model = tiny_gpt2(HeadOnly()).eval()
    whole = GPT2LMHeadModel(model.backbone.config).double().eval()
    whole.transformer.load_state_dict(model.backbone.state_dict())
    model.add_head("text", CausalLM(vocab_size=VOCABULARY, output="tied"))
    ids = torch.randint(0, VOCABULARY, (2, 6))
    batch = {"input_ids": ids, "labels": ids}
    theirs = whole(input_ids=ids, labels=ids)
    torch.testing.assert_close(model(batch, "text"), theirs.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.loss(batch, "text"), theirs.loss.double(), rtol=0, atol=1e-6)  # theirs: float32


@pytest.mark.parametrize("output", ["tied", "own"])
def test_a_backbone_that_sees_the_future_is_refused_and_left_as_it_was(output):
    model = tiny().train()
    model.backbone.encoder.eval()
    modes = {name: part.training for name, part in model.named_modules()}
    with pytest.raises(ModelError, match="BertModel sees the tokens that a causal language model has to predict"):
        model.add_head("text", CausalLM(vocab_size=VOCABULARY, output=output))
    assert model.tasks == ()
    assert {name: part.training for name, part in model.named_modules()} == modes


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
def test_so_it_is_where_another_part_than_is_named_embeds_tokens(architecture):
    model = PEModel(backbone(architecture), HeadOnly())
    with pytest.raises(ModelError, match="EncoderModel sees the tokens that a causal language model has to predict"):
        model.add_head("text", CausalLM(vocab_size=10, output="own"))
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_future_is_seen_however_faintly(dtype):
    """Check weights so small that 16 bits hardly resolve them; methods that prepend to the sequence are accepted."""
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = BertConfig(vocab_size=30, initializer_range=0.002, **shape)
    for seed in range(5):
        torch.manual_seed(seed)
        model = PEModel(BertModel(config, add_pooling_layer=False).to(dtype), HeadOnly())
        with pytest.raises(ModelError, match="sees the tokens that a causal language model has to predict"):
            model.add_head("text", CausalLM(vocab_size=30, output="tied"))
    model = tiny_gpt2().to(dtype)
    for method in (Prompt(length=2), Prefix(length=2)):
        model.attach(method)
    with torch.no_grad():
        model.add_head("text", CausalLM(vocab_size=30, output="tied"))


def test_an_embedding_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="predicts 31 tokens, but the word embedding of GPT2Model has 30 rows"):
        tiny_gpt2().add_head("text", CausalLM(vocab_size=31, output="tied"))
    tiny_gpt2().add_head("text", CausalLM(vocab_size=29, output="tied"))  # rows that no token uses are common
    electra = ElectraConfig(
        vocab_size=30, embedding_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    electra.is_decoder = True  # causal attention
    model = PEModel(ElectraModel(electra), HeadOnly())
    with pytest.raises(ModelError, match=r"is 4 wide but its hidden states are 8 wide.*use a head with output='own'"):
        model.add_head("text", CausalLM(vocab_size=30, output="tied"))
    model.add_head("text", CausalLM(vocab_size=30, output="own"))


def test_a_backbone_that_needs_more_than_tokens_is_refused(monkeypatch):
    model = tiny_gpt2()
    monkeypatch.setattr(type(model.backbone), "forward", lambda self, input_ids, boxes: None)
    with pytest.raises(ModelError, match="GPT2Model does not run on input_ids alone, as a language model does"):
        model.add_head("text", CausalLM(vocab_size=30, output="tied"))
