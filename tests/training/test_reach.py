"""What a run should move and no gradient reaches: kept, with a line, where passes do not use it; refused elsewhere."""

import pytest
import torch
from tiny_models import TASKS, data, tiny, with_heads
from torch import nn
from zoo.animals import backbone, batch

from pemeta import (
    Adapter,
    BitFit,
    FineTunePriming,
    FineTuning,
    Full,
    LayerNormTuning,
    LoRA,
    MetaPriming,
    Peft,
    PEModel,
    PersistentPriming,
    PrimingLearner,
    ReptilePriming,
    finetune,
    prime,
)
from pemeta.errors import ModelError
from pemeta.methods.inserted import Insertion

FEW = {"outer_steps": 2, "outer_lr": 0.05, "support_size": 3, "query_size": 3}
# Backbones of the zoo with parts that passes do not use, and a name, or a part of one, that is among these.
UNUSED = {
    "xlnet": "mask_emb",
    "longformer": "query_global",
    "layoutlm": "",
    "esm": "contact_head",
    "squeezebert": "pooler",
    "luke": "entity",
    "clip-text": "",
    "clip-vision": "post_layernorm",
    "siglip-vision": "head",
    "dinov2": "mask_token",
    "roformer": "embed_positions",
    "wav2vec2": "masked_spec_embed",
}
METHODS = {"full": Full(), "bitfit": BitFit(), "layer_norm": LayerNormTuning()}


def model(architecture, method):
    return with_heads(PEModel(backbone(architecture), method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", UNUSED)
def test_meta_gradients_where_passes_do_not_use_all(architecture, method, capsys):
    """Against an explicit unroll, in which what has no gradient keeps its value."""
    primed = model(architecture, METHODS[method])
    support, query, parts = batch(architecture, 1), batch(architecture, 2), primed.partition()
    start = {name: p.detach().clone().requires_grad_() for name, p in primed.named_parameters()}
    values, adapted = dict(start), [*parts.theta_a, *primed.head_names("en")]

    def loss(data):
        logits = torch.func.functional_call(primed, values, (data, "en"))
        return nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten())

    for _ in range(2):
        gradients = torch.autograd.grad(loss(support), [values[name] for name in adapted], allow_unused=True)
        values |= {n: values[n] - 0.1 * g for n, g in zip(adapted, gradients, strict=True) if g is not None}
    outer = parts.theta_p + parts.theta_a
    expected = torch.autograd.grad(loss(query), [start[name] for name in outer], allow_unused=True)

    clone = PrimingLearner(primed, 0.1).clone("en")
    for _ in range(2):
        clone.adapt(clone.loss(support, "en"))
    clone.loss(query, "en").backward()
    for name, gradient in zip(outer, expected, strict=True):
        found = primed.get_parameter(name).grad
        assert (found is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(found, gradient, rtol=0, atol=1e-10, msg=name)
    told = capsys.readouterr().err
    unused = [name for name, gradient in zip(outer, expected, strict=True) if gradient is None]
    left_out = [name for name in parts.theta_a if name in unused]
    assert bool(left_out) == (f"no gradient reaches {left_out[0] if left_out else ''}" in told)
    assert told.count("\n") == bool(left_out)
    if method == "full" and UNUSED[architecture]:
        assert any(UNUSED[architecture] in name for name in left_out)


ALGORITHMS = {
    "meta": MetaPriming(**FEW),
    "maml": MetaPriming(**FEW, inner_method=Full(), inner_lr=1e-3),
    "plain steps": MetaPriming(**FEW, hybrid=0.5),
    "finetune": FineTunePriming(**FEW),
    "persistent": PersistentPriming(**FEW, start="mean"),
    "reptile": ReptilePriming(**FEW | {"query_size": 0}),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("architecture", ["xlnet", "luke"])
def test_priming_keeps_what_passes_do_not_use(architecture, algorithm, capsys):
    """AdamW's decay included; and says so once, whatever the number of steps, tasks and runs."""
    primed, before = model(architecture, BitFit()), model(architecture, BitFit()).state()
    prime(primed, TASKS, ALGORITHMS[algorithm], progress=False)
    told = capsys.readouterr().err
    whole = model(architecture, BitFit())
    whole.loss(TASKS[0].train.batch([0, 1]), "en").backward()
    unused = {name for name, parameter in whole.backbone.named_parameters(prefix="backbone") if parameter.grad is None}
    after = primed.state()
    assert unused
    assert {n for n in before if n.startswith("backbone.") and torch.equal(after[n], before[n])} == unused
    assert 1 <= told.count("no gradient reaches") <= 2  # for θ_a, and for θ_p
    prime(primed, TASKS, ALGORITHMS[algorithm], progress=False)
    assert capsys.readouterr().err == ""


def test_fine_tuning_keeps_it_too(capsys):
    tuned, before = model("luke", Full()), model("luke", Full()).state()
    finetune(tuned, TASKS[0], data(5), FineTuning(epochs=1, batch_size=4, lr=0.01), progress=False)
    moved = {name for name in before if not torch.equal(tuned.state()[name], before[name])}
    assert moved
    assert not any("entity" in name for name in moved)
    assert "no gradient reaches backbone.entity_embeddings" in capsys.readouterr().err


class Experts(nn.Module):
    """A map of which each pass uses one, chosen by its input."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.used = nn.ModuleList(maps), []

    def forward(self, x):
        index = int(x.detach().sum().mul(1e6).abs()) % len(self.maps)
        self.used.append(index)
        return self.maps[index](x)


def with_experts(method):
    made = tiny(BitFit()).backbone
    part = made.encoder.layer[1].output
    part.dense = Experts([nn.Linear(12, 8).double() for _ in range(4)])
    return PEModel(made, method), part.dense


@pytest.mark.parametrize(
    "method",
    [Full(), BitFit(), Peft(config={"peft_type": "LORA", "target_modules": r".*maps\.\d"})],
    ids=lambda m: m.name,
)
def test_experts_that_a_pass_has_not_chosen_move_when_one_does(method):
    prime(with_experts(method)[0], TASKS, MetaPriming(**FEW), progress=False)
    primed, experts = with_experts(method)
    before, steps = primed.state(), 0
    while set(experts.used) < {0, 1, 2, 3}:
        experts.used.clear()
        primed.load_state({name: value for name, value in before.items() if ".maps." in name})
        steps += 1
        prime(primed, TASKS, FineTunePriming(**FEW | {"outer_steps": steps}), progress=False)
        after = primed.state()
        moved = {n.partition(".maps.")[2][0] for n in before if ".maps." in n and not torch.equal(after[n], before[n])}
        assert moved == set(map(str, experts.used))


class Forgets(LoRA):
    """Adds what it should, and in some places does not use it."""

    where: str

    def insertions(self, backbone):
        found = super().insertions(backbone)
        return [Insertion(one.path, one.make) if self.where in one.path else one for one in found]


@pytest.fixture
def untried(monkeypatch):
    """Backbones whose passes use everything when a method is attached, and not later."""
    monkeypatch.setattr("pemeta.model.attach_trial.AttachTrial.check", lambda self: None)


@pytest.mark.parametrize("where", ["", "value"])
def test_what_a_method_adds_and_does_not_use_is_refused_when_it_is_attached(where):
    named = r"reaches encoder\.layer\.0\.attention\.self\.(query|value)\.pemeta_lora.*; choose other targets"
    with pytest.raises(ModelError, match=rf"lora cannot be attached to BertModel: no gradient of a tiny batch {named}"):
        tiny(Forgets(where=where, rank=2))


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("where", ["", "value"])
def test_what_a_method_adds_and_does_not_use_is_an_error(where):
    method = Forgets(where=where, rank=2)
    named = r"θ_a without a gradient: backbone\.encoder\.layer\.0\.attention\.self\.(query|value)\.pemeta_lora"
    made = with_heads(tiny(method))
    clone, batch = PrimingLearner(made).clone("en"), TASKS[0].train.batch([0, 1])
    with pytest.raises(ModelError, match=named):
        clone.adapt(clone.loss(batch, "en"))
    before = tiny(method).state()
    for algorithm in ("meta", "finetune", "persistent", "reptile"):
        primed = tiny(method)
        with pytest.raises(ModelError, match=named):
            prime(primed, TASKS, ALGORITHMS[algorithm].model_copy(update={"inner_method": None}), progress=False)
        assert all(torch.equal(value, primed.state()[name]) for name, value in before.items())
    with pytest.raises(ModelError, match=named):
        finetune(tiny(method), TASKS[0], data(5), FineTuning(epochs=1), progress=False)


def test_a_layer_without_any_of_it_may_be_one_that_was_dropped(capsys):
    prime(tiny(Forgets(where="layer.0.", rank=2)), TASKS, ALGORITHMS["meta"], progress=False)
    assert "no gradient reaches backbone.encoder.layer.0." in capsys.readouterr().err


class Names(BitFit):
    """Declares parameters by name."""

    names: tuple[str, ...]

    def theta_a(self, backbone):
        return self.names


def test_a_method_that_declares_only_what_no_pass_reaches():
    for names in (("mask_emb",), ("mask_emb", "layer.0.rel_attn.seg_embed")):
        with pytest.raises(ModelError, match=r"θ_a without a gradient: backbone\.mask_emb"):
            prime(model("xlnet", Names(names=names)), TASKS, ALGORITHMS["meta"], progress=False)
        with pytest.raises(ModelError, match=r"θ_a without a gradient: backbone\.mask_emb"):
            finetune(model("xlnet", Names(names=names)), TASKS[0], data(5), FineTuning(epochs=1), progress=False)


class Apart(Adapter):
    """Takes the backbone's output out of the graph."""

    def transform(self, backbone, hidden):
        return super().transform(backbone, hidden.detach())


@pytest.mark.parametrize("algorithm", ["meta", "finetune", "persistent"])
def test_a_method_that_keeps_gradients_from_all_of_theta_p(algorithm):
    with pytest.raises(ModelError, match=r"θ_p without a gradient: backbone\.embeddings"):
        prime(tiny(Apart(bottleneck=4)), TASKS, ALGORITHMS[algorithm], progress=False)
    only = ALGORITHMS["meta"].model_copy(update={"primes": ("theta_a",)})  # the remedy
    prime(tiny(Apart(bottleneck=4)), TASKS, only, progress=False)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_nothing_is_said_where_all_is_reached(precision, capsys):
    """With frozen parameters that priming leaves as they are, rows of embeddings that no token has, and checkpoints."""
    primed = tiny(LoRA(rank=2))
    primed.autocast_dtype = precision
    primed.checkpoint_layers()
    primed.get_parameter("backbone.embeddings.LayerNorm.weight").requires_grad_(False)
    prime(primed, TASKS, MetaPriming(**FEW, primes=("encoder.*", "*.word_embeddings.*", "theta_a")), progress=False)
    finetune(primed, TASKS[0], data(5), FineTuning(epochs=1), progress=False)
    assert capsys.readouterr().err == ""


def test_a_run_that_is_continued_is_checked_again(tmp_path, capsys):
    path = tmp_path / "checkpoint.safetensors"
    whole, again = model("luke", BitFit()), model("luke", BitFit())
    prime(whole, TASKS, ALGORITHMS["meta"], progress=False, checkpoint=path, checkpoint_every=1)
    assert capsys.readouterr().err.count("no gradient reaches") == 2
    prime(again, TASKS, ALGORITHMS["meta"], progress=False, checkpoint=path)
    assert all(torch.equal(value, again.state()[name]) for name, value in whole.state().items())
