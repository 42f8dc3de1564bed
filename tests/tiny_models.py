"""What tests share: the methods, a tiny random BERT in float64, and made-up encoded sentences."""

import pytest
import torch
from transformers import BertConfig, BertModel

from pemeta import Adapter, Full, HeadOnly, LabelSet, PEModel, Sentence, Task
from pemeta.data.encoding import Encoded

# A row for each method: a small one, and how many parameters it adapts on a backbone of width 8; None is all of them.
METHODS = {
    "adapter": (Adapter(bottleneck=4), 2 * 8 * 4 + 4 + 8),
    "full": (Full(), None),
    "head_only": (HeadOnly(), 0),
}
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
