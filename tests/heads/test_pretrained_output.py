"""Pretrained output: logits, loss, gradients and meta-gradients are those of transformers' own language model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from language_models import CAUSAL, EACH, MASKED, V, batch, causal, masked, theirs
from torch.func import functional_call
from torch.nn import functional as F
from unroll import Made, errors

from pemeta import BitFit, CausalLM, Full, HeadOnly, LayerNormTuning, MaskedLM, MetaPriming, PEModel
from pemeta.errors import ModelError
from pemeta.heads import labelled
from pemeta.priming.job import PrimingJob
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import only_trainable

each_model = pytest.mark.parametrize(("name", "tied"), EACH)


def model_of(whole, method=None, *tasks):
    model = PEModel(whole, method or HeadOnly()).eval()
    for task in tasks or ("text",):
        model.add_head(task, CausalLM())
    return model


def close(found, expected, size=1e-6):
    """Equal up to rounding, relative to the largest number."""
    assert (found - expected).abs().max() <= size * expected.abs().max().clamp(min=1)


@each_model
def test_logits_loss_and_gradients_are_those_of_transformers(monkeypatch, name, tied):
    whole = causal(name, tied)
    reference, given = copy.deepcopy(whole), batch(labelled=2)
    model = model_of(whole)
    assert not list(model.head("text").parameters())
    expected = reference(**given)
    close(model(given, "text"), expected.logits)
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert {theirs(model, name) for name, _ in model.named_parameters()} == set(gradients)
    untied = [name for name in model.partition().theta_p if name.startswith("output.")]
    assert len(untied) == (0 if tied else 1)
    for chunk in (labelled.CHUNK, 3 * V):
        monkeypatch.setattr(labelled, "CHUNK", chunk)
        model.zero_grad()
        loss = model.loss(given, "text")
        close(loss, expected.loss)
        loss.backward()
        largest = max(gradient.abs().max() for gradient in gradients.values())
        for name, parameter in model.named_parameters():
            close(parameter.grad / largest, gradients[theirs(model, name)] / largest)


@pytest.mark.parametrize("name", MASKED)
def test_so_they_are_for_masked_language_models(monkeypatch, name):
    whole = masked(name)
    reference, given = copy.deepcopy(whole), batch(labelled=3)
    model = PEModel(whole, HeadOnly()).eval()
    model.add_head("text", MaskedLM())
    assert model.head_spec("text") == MaskedLM()
    assert not list(model.head("text").parameters())
    expected = reference(**given)
    close(model(given, "text"), expected.logits)
    expected.loss.backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for chunk in (labelled.CHUNK, 3 * V):
        monkeypatch.setattr(labelled, "CHUNK", chunk)
        model.zero_grad()
        loss = model.loss(given, "text")
        close(loss, expected.loss)
        loss.backward()
        found = {theirs(model, name): p.grad for name, p in model.named_parameters() if p.grad is not None}
        alias = dict(reference.named_parameters(remove_duplicate=False))  # XLM-R's head comes first
        assert {id(alias[name]) for name in found} == {id(alias[name]) for name in gradients}
        for name, gradient in found.items():
            close(gradient / largest, alias[name].grad / largest)


def test_a_new_masked_head_is_that_of_bert():
    """The same values in transformers' class and in a head of the task's own."""
    whole = masked("bert")
    reference = copy.deepcopy(whole)
    model = PEModel(whole.base_model, HeadOnly()).eval()
    with pytest.raises(ModelError, match=r"came without the head that it was trained with; .* output='new'"):
        model.add_head("text", MaskedLM(output="pretrained"))
    model.add_head("text", MaskedLM(vocab_size=V))
    head, own = model.head("text"), reference.cls.predictions
    with torch.no_grad():
        for mine, other in (
            (head.dense.weight, own.transform.dense.weight),
            (head.dense.bias, own.transform.dense.bias),
            (head.norm.weight, own.transform.LayerNorm.weight),
            (head.norm.bias, own.transform.LayerNorm.bias),
            (head.bias, own.bias),
        ):
            mine.copy_(other)
    given = batch(labelled=3)
    close(model(given, "text"), reference(**given).logits, 1e-5)
    close(model.loss(given, "text"), reference(**given).loss, 1e-5)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "gpt2"])
def test_a_bare_backbone_has_it_where_all_of_it_is_tied(name):
    whole = causal(name)
    given = batch()
    expected = whole(**given)
    model = model_of(whole.base_model)
    assert model.output is None
    close(model(given, "text"), expected.logits)
    close(model.loss(given, "text"), expected.loss)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.backbone.get_input_embeddings().weight.add_(1.0)
    assert not torch.equal(copied(given, "text"), expected.logits)
    assert torch.equal(model(given, "text"), expected.logits)  # each reads its own backbone


def test_a_bare_backbone_without_is_refused():
    model = PEModel(causal("llama", False).base_model, HeadOnly())
    with pytest.raises(
        ModelError, match=r"came without an output map, and LlamaForCausalLM has parameters of its own .*lm_head.weight"
    ):
        model.add_head("text", CausalLM())
    model = PEModel(masked("bert"), HeadOnly())
    with pytest.raises(ModelError, match="BertModel sees the tokens that a causal language model has to predict"):
        model.add_head("text", CausalLM())
    model = PEModel(causal("llama", False), HeadOnly())
    with pytest.raises(ModelError, match=r"is that of a LlamaForCausalLM, whose output is not for masked_lm"):
        model.add_head("text", MaskedLM(output="pretrained"))


def test_a_class_that_computes_more_than_its_last_hidden_states_is_refused(monkeypatch):
    whole = causal("llama", False)
    inner = type(whole).forward

    def forward(self, input_ids=None, **rest):
        found = inner(self, input_ids=input_ids, **rest)
        found.logits = found.logits + input_ids[..., None]
        return found

    monkeypatch.setattr(type(whole), "forward", forward)
    with pytest.raises(ModelError, match=r"the logits of LlamaForCausalLM are other ones than those of its part"):
        PEModel(whole, HeadOnly())
    monkeypatch.setattr(type(whole), "forward", inner)
    monkeypatch.setattr(type(whole), "get_output_embeddings", lambda self: None)
    with pytest.raises(ModelError, match="LlamaForCausalLM does not say that a linear map makes its logits"):
        PEModel(whole, HeadOnly())


@pytest.mark.parametrize("more", [lambda z: z + z.flip(-1), lambda z: z * z.log_softmax(-1)], ids=["flip", "softmax"])
def test_logits_that_are_no_function_of_single_products_are_computed_whole(monkeypatch, more):
    """A map over all logits follows here, of which no chunk's derivative is known; positions are still few."""
    whole = causal("llama", False)
    inner = type(whole).forward

    def forward(self, **rest):
        found = inner(self, **rest)
        found.logits = more(found.logits)
        return found

    monkeypatch.setattr(type(whole), "forward", forward)
    monkeypatch.setattr(labelled, "CHUNK", 3 * V)
    given = batch(labelled=2)
    logits = whole(**given).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, given["labels"][:, 1:].flatten(), ignore_index=-100)
    model = model_of(whole)
    assert not model.output.factored
    close(model.loss(given, "text"), expected)


@pytest.mark.parametrize("name", ["gemma2", "llama"])
@pytest.mark.parametrize("chunk", [labelled.CHUNK, 3 * V], ids=["whole", "chunks"])
def test_lower_precision_is_that_of_transformers(monkeypatch, name, chunk):
    monkeypatch.setattr(labelled, "CHUNK", chunk)
    given = batch(labelled=2)
    whole = causal(name, False)
    half = copy.deepcopy(whole).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = whole(**given).loss
    model = model_of(whole)
    model.autocast_dtype = torch.bfloat16
    close(model.loss(given, "text"), expected, 1e-2)
    expected = half(**given)
    model = model_of(half)
    assert model.get_parameter("output.lm_head.weight").dtype == torch.bfloat16
    assert torch.equal(model(given, "text"), expected.logits.float())
    close(model.loss(given, "text"), expected.loss, 1e-5)
    model.loss(given, "text").backward()
    assert model.get_parameter("output.lm_head.weight").grad.dtype == torch.bfloat16


def loss_of(reference, values, data, shift=1):
    """In float64, where transformers' own loss is in float32."""
    logits = functional_call(reference, values, kwargs={k: v for k, v in data.items() if k != "labels"}).logits
    logits = logits[:, : logits.shape[1] - shift].flatten(0, 1)
    return F.cross_entropy(logits, data["labels"][:, shift:].flatten(), ignore_index=-100)


def unrolled(reference, adapted, episodes, algorithm, shift=1):
    """Outer gradients by an inner loop on transformers' own model, by names of its parameters."""
    start = {name: p.detach().clone().requires_grad_() for name, p in reference.named_parameters()}
    total = 0.0
    for episode in episodes:
        values = dict(start)
        for _ in range(algorithm.inner_steps):
            loss = loss_of(reference, values, episode.support, shift)
            found = torch.autograd.grad(loss, [values[n] for n in adapted], create_graph=not algorithm.first_order)
            values |= {n: values[n] - algorithm.inner_lr * g for n, g in zip(adapted, found, strict=True)}
        total = total + loss_of(reference, values, episode.query, shift)
    return dict(zip(start, torch.autograd.grad(total, list(start.values()), allow_unused=True), strict=True))


METHODS = {"norms": LayerNormTuning(), "full": Full(), "bitfit": BitFit()}
META = [
    ("llama", False, "norms"),
    ("llama", False, "full"),
    ("gemma2", True, "norms"),
    ("gemma2", True, "full"),
    ("cohere", False, "full"),
    ("gpt2", True, "bitfit"),
]


@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "chunks"])
@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(("name", "tied", "method"), META)
def test_meta_gradients_are_those_of_an_unroll_on_the_whole_model(monkeypatch, name, tied, method, order, chunks):
    """Tied: through the embedding and the output matrix; with Full, both are in θ_a, and adapted."""
    if chunks:
        monkeypatch.setattr(labelled, "CHUNK", 3 * V)
    whole = causal(name, tied, torch.float64)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.3)
    reference = copy.deepcopy(whole)
    model = model_of(whole, METHODS[method], "en", "es")
    drawn = [
        Made(SimpleNamespace(name=task), (batch(i, labelled=1),), batch(7 + i, labelled=2))
        for i, task in enumerate(("en", "es"))
    ]
    algorithm = MetaPriming(
        inner_steps=2,
        inner_lr=0.05,
        first_order=order == "first",
        outer_dropout=False,
        primes=("theta_a",) if method == "full" else ("theta_p", "theta_a"),
    )
    adapted = [theirs(model, name) for name in model.partition().theta_a]
    assert ("lm_head.weight" in adapted) == (method == "full" and not tied)
    compare(model, algorithm, drawn, unrolled(reference, adapted, drawn, algorithm))


def compare(model, algorithm, drawn, expected):
    with only_trainable(model, algorithm.trained(model)) as trained:
        job = PrimingJob(model, None, algorithm, 0, trained.values(), None, Processes())
        job.meta_gradient(drawn, 0)
        found = {name: parameter.grad for name, parameter in trained.items()}
    assert {theirs(model, name) for name in found} == set(expected)
    largest = max(float(value.abs().max()) for value in expected.values())
    wrong = errors(model, found, {name: expected[theirs(model, name)] for name in found}, {})
    assert wrong < 1e-6 * max(1.0, largest)  # norms of Llama's kind are computed in float32


@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "chunks"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_so_they_are_for_a_masked_language_model(monkeypatch, order, chunks):
    if chunks:
        monkeypatch.setattr(labelled, "CHUNK", 3 * V)
    whole = masked("bert", torch.float64)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.3)
    reference = copy.deepcopy(whole)
    model = PEModel(whole, BitFit()).eval()
    model.add_head("en", MaskedLM())
    drawn = [Made(SimpleNamespace(name="en"), (batch(0, labelled=3),), batch(7, labelled=2))]
    algorithm = MetaPriming(inner_steps=2, inner_lr=0.05, first_order=order == "first", outer_dropout=False)
    adapted = [theirs(model, name) for name in model.partition().theta_a]
    compare(model, algorithm, drawn, unrolled(reference, adapted, drawn, algorithm, shift=0))


def test_every_promised_model_is_here():
    assert set(CAUSAL) >= {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "granite", "cohere", "phi3"}


def test_checkpointed_layers_change_nothing():
    """Layers run again in the backward pass, with the values that the pass had, also where the output is in θ_a."""
    found = []
    for checkpoint in (False, True):
        model = model_of(causal("gemma2", True, torch.float64), Full(), "en", "es")
        model.checkpoint_layers(checkpoint)
        drawn = [Made(SimpleNamespace(name="en"), (batch(0),), batch(7))]
        settings = {"inner_steps": 2, "inner_lr": 0.02, "first_order": False, "outer_dropout": False}
        algorithm = MetaPriming(primes=("theta_a",), **settings)
        with only_trainable(model, algorithm.trained(model)) as trained:
            PrimingJob(model, None, algorithm, 0, trained.values(), None, Processes()).meta_gradient(drawn, 0)
            found.append({name: parameter.grad for name, parameter in trained.items()})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


@pytest.mark.parametrize(("name", "plain"), [("llama", True), ("gemma2", False), ("cohere", False), ("gpt2", True)])
def test_what_follows_the_product_is_known_without_values(name, plain):
    """As in an estimate, whose memory depends on it."""
    model = PEModel(causal(name, False).to("meta"), HeadOnly())
    assert (model.output.factored, model.output.plain) == (True, plain)
    assert PEModel(causal(name, False), HeadOnly()).output.plain == plain
