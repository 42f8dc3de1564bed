"""What tests share: the methods, a tiny random BERT in float64, and made-up encoded sentences."""

import pytest
import torch
from transformers import BertConfig, BertModel

from pemeta import LabelSet, PEModel, Sentence, Task
from pemeta.data.encoding import Encoded
from pemeta.methods import (
    IA3,
    Adapter,
    BitFit,
    Compose,
    Full,
    HeadOnly,
    LayerNormTuning,
    LoRA,
    Peft,
    Prefix,
    Prompt,
)

# A row for each method: a small one, and the size of θ_a from an architecture's shape (None: the whole backbone).
D, L, F = 8, 2, 12
LINEAR = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
DOWN = r".*(\d\.output\.dense|lin2|mlp\.Wo|DenseReluDense\.wo|mlp\.c_proj|down_proj|fc2)"
DORA = {"peft_type": "LORA", "use_dora": True, "r": 2, "target_modules": DOWN}
METHODS = {
    "adapter": (Adapter(bottleneck=4), lambda shape: bottleneck(4)),
    "adapter-houlsby": (Adapter(bottleneck=4, placement="houlsby"), lambda shape: 2 * L * bottleneck(4)),
    "adapter-pfeiffer": (Adapter(bottleneck=4, placement="pfeiffer", init_std=0), lambda shape: L * bottleneck(4)),
    "adapter-parallel": (Adapter(bottleneck=4, placement="parallel", scale=4), lambda shape: L * bottleneck(4)),
    "adapter-top": (Adapter(bottleneck=4, placement="houlsby", top_layers=1), lambda shape: 2 * bottleneck(4)),
    "lora": (
        LoRA(rank=2),
        lambda shape: L * 2 * sum(D + out for out in {0: shape.qkv[0], len(shape.qkv) - 1: shape.qkv[-1]}.values()),
    ),
    "lora-everywhere": (LoRA(rank=2, targets=LINEAR, rslora=True), lambda shape: L * 2 * everywhere(shape)),
    "bitfit": (BitFit(), lambda shape: shape.biases),
    "prefix": (Prefix(length=3), lambda shape: L * 2 * 3 * shape.kv),
    "prefix-network": (
        Prefix(length=3, reparametrize=4),
        lambda shape: 3 * D + (D + 1) * 4 + L * (4 + 1) * 2 * shape.kv,
    ),
    "prompt": (Prompt(length=3), lambda shape: 3 * shape.embedding),
    "ia3": (IA3(), lambda shape: L * (sum(shape.qkv[-2:]) + F)),
    "layer_norm": (LayerNormTuning(), lambda shape: shape.norms),
    "full": (Full(), None),
    "head_only": (HeadOnly(), lambda shape: 0),
    "compose": (
        Compose(methods=(Prefix(length=2), Adapter(bottleneck=4, placement="parallel"))),
        lambda shape: L * (2 * 2 * shape.kv + bottleneck(4)),
    ),
    # DoRA on the feed-forward block's map back: A, B and a magnitude for each output.
    "peft": (Peft(config=DORA), lambda shape: L * (2 * (F + D) + D)),
}


def bottleneck(units: int) -> int:
    return 2 * D * units + units + D


def everywhere(shape) -> int:
    """in + out, summed over all maps of a layer."""
    return sum(D + out for out in shape.qkv) + 2 * D + shape.ups * (D + shape.inner) + F + D


each_method = pytest.mark.parametrize("method", [method for method, _ in METHODS.values()], ids=list(METHODS))
LABELS = LabelSet(("PER",))


def data(seed: int, size: int = 12) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 8, (size,), generator=generator).tolist()
    ids = tuple(torch.randint(0, 30, (n,), generator=generator) for n in lengths)
    label_ids = tuple(torch.randint(0, 3, (n,), generator=generator) for n in lengths)
    sentences = [Sentence(("w",) * len(ids), tuple(LABELS.tags[i] for i in ids.tolist())) for ids in label_ids]
    return Encoded(sentences, LABELS, ids, label_ids, tuple({i: i for i in range(n)} for n in lengths), 0, 0, 0)


TASKS = [Task.token_classification(name, data(seed)) for seed, name in enumerate(("en", "es"))]


ADAPTER = Adapter(bottleneck=4, init_std=0.3)


def tiny(method=ADAPTER, attention="eager", dropout=0.1) -> PEModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    return PEModel(BertModel(config, add_pooling_layer=False).double(), method)


def with_heads(model: PEModel) -> PEModel:
    for task in TASKS:
        model.add_head(task.name, task.make_head)
    return model


def shaken(model: PEModel) -> PEModel:
    """The model with noise on θ_a: methods start where many of their gradients are zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name in model.partition().theta_a:
            parameter = model.get_parameter(name)
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model
