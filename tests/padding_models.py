"""Tiny random backbones that treat padding in ways of their own, and sentences of any length with it on either side."""

import torch
import transformers as t
from architectures import ARCHITECTURES
from zoo.fields import BERT, GPT2, LLAMA, MODERNBERT, ROBERTA
from zoo.named import NAMED
from zoo.row import Row
from zoo.unnamed import UNNAMED

_LOCAL = MODERNBERT | {"num_hidden_layers": 3, "local_attention": 4, "global_attn_every_n_layers": 3}
_QWEN2 = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
WINDOWS = {
    "modernbert-local": Row("modernbert", "ModernBertModel", _LOCAL),
    "mistral": Row("mistral", "MistralModel", LLAMA | {"sliding_window": 3}),
    "qwen2": Row("qwen2", "Qwen2Model", LLAMA | _QWEN2),
    **{name: NAMED[name] for name in ("gemma2", "gemma3")},
    "longformer": Row("longformer", "LongformerModel", ROBERTA | {"attention_window": 4}),
}
"""Attention to the tokens nearby only, in some layers or in all."""

RELATIVE = {
    **{name: ARCHITECTURES[name] for name in ("t5", "deberta-v2")},
    **{name: NAMED[name] for name in ("mpnet", "xlnet", "roformer", "esm", "bloom")},
}
"""Distances between tokens, in a bias, a table, or a rotation that no argument of the backbone changes."""

ABSOLUTE = {
    "bert": Row("bert", "BertModel", BERT),
    "xlm-roberta": Row("xlm_roberta", "XLMRobertaModel", ROBERTA),
    "opt": NAMED["opt"],
    "gpt2": Row("gpt2", "GPT2Model", GPT2),
}
"""A table of positions, some of which count padding."""

DEPENDENT = {
    "funnel": NAMED["funnel"],
    **{name: UNNAMED[name] for name in ("nystromformer", "mobilebert", "convbert", "fnet")},
}
"""Padding changes what is computed: pooling, landmarks, convolutions, and Fourier transforms over all positions."""

ALL = WINDOWS | RELATIVE | ABSOLUTE | DEPENDENT | {"wav2vec2": NAMED["wav2vec2"]}


def made(name: str, attention: str = "eager") -> t.PreTrainedModel:
    """A new backbone in float32 and evaluation mode; the same values each time."""
    return ALL[name].backbone(attention).float()


def pad_id(name: str) -> int:
    return ALL[name].fields.get("pad_token_id", 0)


def sentences(name: str, *lengths: int, left: int = 0, right: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """One sentence for each length, padded to the longest on the side that is padded, and beyond by a number."""
    generator, most, rows, masks = torch.Generator().manual_seed(seed), max(lengths), [], []
    for length in lengths:
        ids = torch.randint(3, 30, (length,), generator=generator)
        sides = (left + (most - length) * bool(left), right + (most - length) * (not left))
        rows.append(torch.nn.functional.pad(ids, sides, value=pad_id(name)))
        masks.append(torch.nn.functional.pad(torch.ones_like(ids), sides))
    return {"input_ids": torch.stack(rows), "attention_mask": torch.stack(masks)}
