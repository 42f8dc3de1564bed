"""A language model's loss from labelled positions alone, in chunks: equal to that of all logits, and smaller."""

import pytest
import torch
from tiny_models import BitFit
from tiny_tasks import VOCABULARY, blocks, tiny_gpt2
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pemeta import CausalLM, HeadOnly, PEModel, Prompt
from pemeta.errors import DataError
from pemeta.estimate.counter import CostCounter
from pemeta.estimate.fake import fake_tensors
from pemeta.heads import CausalLMHead, labelled

each_size = pytest.mark.parametrize("chunk", [labelled.CHUNK, 3 * VOCABULARY], ids=["whole", "chunks"])


def language_model(method=None, output="tied", spec=None):
    model = tiny_gpt2(method or BitFit(), dropout=0.0).eval()
    model.add_head("text", spec or CausalLM(vocab_size=VOCABULARY, output=output))
    with torch.no_grad():
        for parameter in model.head("text").parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def some_labelled():
    batch = blocks(5).batch(range(6))
    batch["labels"] = batch["labels"].clone()
    batch["labels"][:, 2] = -100
    batch["labels"][3] = -100
    return batch


def of_all_logits(model, batch, task="text"):
    logits = model(batch, task)[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, batch["labels"][:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_derivatives_of_the_chunks_by_finite_differences_and_against_pytorch(monkeypatch, dtype):
    monkeypatch.setattr(labelled, "CHUNK", 4 * 7)
    torch.manual_seed(0)
    shapes = ((13, 5), (7, 5), (7,))
    hidden, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    labels = torch.randint(0, 7, (13,))

    def loss(*values):
        return labelled.summed_cross_entropy(*values, labels)

    if dtype == torch.float64:
        assert torch.autograd.gradcheck(loss, (hidden, weight, bias))
        assert torch.autograd.gradgradcheck(loss, (hidden, weight, bias))
        for frozen in (hidden, weight, bias):
            frozen.requires_grad_(False)
            assert torch.autograd.gradgradcheck(loss, (hidden, weight, bias))
            frozen.requires_grad_(True)
    expected = F.cross_entropy(hidden @ weight.T + bias, labels, reduction="sum")
    torch.testing.assert_close(loss(hidden, weight, bias), expected)
    large = loss(1e4 * hidden.detach(), weight.detach(), bias.detach())
    torch.testing.assert_close(large, F.cross_entropy(1e4 * hidden @ weight.T + bias, labels, reduction="sum").detach())


@each_size
@pytest.mark.parametrize("output", ["tied", "own"])
@pytest.mark.parametrize("method", [BitFit(), Prompt(length=2)], ids=lambda method: method.name)
def test_loss_and_gradients_of_both_orders_are_those_of_all_logits(monkeypatch, method, output, chunk):
    monkeypatch.setattr(labelled, "CHUNK", chunk)
    model, batch = language_model(method, output), some_labelled()
    names = [name for name, _ in model.named_parameters()]
    values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    def derivatives(loss):
        def stepped(these):
            first = torch.autograd.grad(loss(these), list(these.values()), create_graph=True, allow_unused=True)
            return first, {n: v if g is None else v - 0.5 * g for (n, v), g in zip(these.items(), first, strict=True)}

        first, moved = stepped(values)
        second = torch.autograd.grad(loss(moved), list(values.values()), allow_unused=True)
        return loss(values), first, second

    class Of(torch.nn.Module):
        def __init__(self, loss):
            super().__init__()
            self.model, self.loss = model, loss

        def forward(self):
            return self.loss(self.model)

    def named(these):
        return {f"model.{name}": value for name, value in these.items()}

    few = derivatives(lambda these: functional_call(Of(lambda m: m.loss(batch, "text")), named(these), ()))
    all_logits = derivatives(lambda these: functional_call(Of(lambda m: of_all_logits(m, batch)), named(these), ()))
    for found, expected in zip(few, all_logits, strict=True):
        pairs = (
            [(None, found, expected)] if isinstance(found, torch.Tensor) else zip(names, found, expected, strict=True)
        )
        for name, one, other in pairs:
            assert (one is None) == (other is None), name
            if one is not None:
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=name)


@each_size
def test_in_lower_precision_it_is_as_near(monkeypatch, chunk):
    monkeypatch.setattr(labelled, "CHUNK", chunk)
    batch = some_labelled()
    autocast = language_model().float()
    autocast.autocast_dtype = torch.bfloat16
    half = language_model().to(torch.bfloat16)
    for model in (autocast, half):
        few = torch.autograd.grad(model.loss(batch, "text"), [model.head("text").bias, model.backbone.wte.weight])
        expected = of_all_logits(model, batch)
        torch.testing.assert_close(model.loss(batch, "text"), expected, rtol=1e-5, atol=1e-5)
        for one, other in zip(
            few, torch.autograd.grad(expected, [model.head("text").bias, model.backbone.wte.weight]), strict=True
        ):
            assert one.dtype == other.dtype
            assert (one - other).norm() < 0.02 * other.norm()


@each_size
@pytest.mark.parametrize(("change", "says"), [
    (lambda labels: labels.fill_(-100), "no position or example of the batch has a label: all are -100"),
    (lambda labels: labels.masked_fill(labels >= 0, 31), "labels must be from 0 to 29, .* found 31"),
    (lambda labels: labels.masked_fill(labels < 0, -7), "labels must be from 0 to 29, .* found -7"),
    (lambda labels: labels.int(), "labels must be of type int64, .* found int32"),
    (lambda labels: labels[:, :-1], r"found labels of shape \(6, 5\)"),
    (lambda labels: labels[:, 1], "labels of shape|index|dimension"),
])  # fmt: skip
def test_labels_are_refused_in_the_same_words(monkeypatch, change, says, chunk):
    monkeypatch.setattr(labelled, "CHUNK", chunk)
    model, batch = language_model(), some_labelled()
    batch["labels"] = change(batch["labels"])
    errors = DataError if "shape|" not in says else (DataError, IndexError)
    for loss in (lambda: model.loss(batch, "text"), lambda: model.head("text").loss(model(batch, "text"), batch)):
        with pytest.raises(errors, match=says):
            loss()


def test_labels_that_change_in_place_are_seen():
    model, batch = language_model(), some_labelled()
    before = model.loss(batch, "text")
    batch["labels"][0] = -100
    assert model.loss(batch, "text") != before
    torch.testing.assert_close(model.loss(batch, "text"), of_all_logits(model, batch), rtol=0, atol=1e-12)
    with torch.inference_mode():
        copied = {key: value.clone() for key, value in batch.items()}
        model.loss(copied, "text")
        copied["labels"][1] = -100
        torch.testing.assert_close(model.loss(copied, "text"), of_all_logits(model, copied), rtol=0, atol=1e-12)


class Scaled(CausalLMHead):
    def forward(self, hidden, batch, backbone):
        return 3 * super().forward(hidden, batch, backbone)


class Doubled(CausalLMHead):
    def loss(self, logits, batch):
        return 2 * super().loss(logits, batch)


def test_whatever_changes_logits_or_loss_is_heeded():
    batch = some_labelled()
    plain = language_model()
    expected = plain.loss(batch, "text").item()

    def with_bias(kind):
        model = language_model(spec=lambda width: kind(width, VOCABULARY, "tied"))
        model.load_state(plain.state())
        return model

    assert with_bias(CausalLMHead).loss(batch, "text").item() == expected
    assert with_bias(Doubled).loss(batch, "text").item() == pytest.approx(2 * expected)
    scaled = of_all_logits(with_bias(Scaled), batch).item()
    assert with_bias(Scaled).loss(batch, "text").item() == pytest.approx(scaled)
    assert scaled != pytest.approx(expected)
    for part in (plain.head("text"), plain):
        hook = part.register_forward_hook(lambda module, arguments, logits: 3 * logits)
        assert plain.loss(batch, "text").item() == pytest.approx(scaled)
        hook.remove()
    assert plain.loss(batch, "text").item() == expected

    class Other(PEModel):
        def forward(self, batch, task):
            return 3 * super().forward(batch, task)

    other = Other(tiny_gpt2(HeadOnly(), dropout=0.0).backbone, HeadOnly())
    other.add_head("text", CausalLM(vocab_size=VOCABULARY, output="tied"))
    assert other.loss(batch, "text").item() == pytest.approx(of_all_logits(other, batch).item())


class Largest(TorchDispatchMode):
    """The largest tensor of logits, or of their size, that an operation has made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves(out) if isinstance(one, torch.Tensor)]
        made = [one for one in tensors if one.shape[-1:] == (VOCABULARY,) and one.shape[0] != 8]  # W has 8 columns
        self.size = max([self.size, *(one.numel() for one in made)])
        return out


def test_unlabelled_positions_take_no_logits(monkeypatch):
    """At 2 of 36 positions labelled, and in chunks, nothing of the size of all logits is made."""
    model, batch = language_model(), some_labelled()
    everything = batch["labels"].numel() * VOCABULARY
    with Largest() as before:
        of_all_logits(model, batch).backward()
    assert before.size >= 5 / 6 * everything
    batch["labels"][1:] = -100
    with Largest() as few:
        model.loss(batch, "text").backward()
    assert 0 < few.size <= 6 * VOCABULARY
    monkeypatch.setattr(labelled, "CHUNK", 3 * VOCABULARY)
    with Largest() as chunks:
        model.loss(some_labelled(), "text").backward()
    assert 0 < chunks.size <= 3 * VOCABULARY


def test_an_estimate_counts_one_chunk(monkeypatch):
    """The peak above the weights, without values: all positions are taken to be labelled, in chunks of 64 of 512."""
    model = language_model()
    vocabulary, chunk = 3000, 64 * 3000
    monkeypatch.setattr(labelled, "CHUNK", chunk)
    model.backbone.resize_token_embeddings(vocabulary)
    model.add_head("text", CausalLM(vocab_size=vocabulary, output="tied"))
    model = model.to("meta")
    with fake_tensors(model), CostCounter() as counter:
        held = counter.known(model.parameters())
        ids = torch.zeros(4, 16, dtype=torch.long).repeat(8, 1)
        counter.begin()
        model.loss({"input_ids": ids, "labels": ids}, "text").backward()
        peak = max(one.held for one in counter.peaks.values()) - held
    logits = ids.numel() * vocabulary * 8
    assert chunk * 8 < peak < logits / 2
