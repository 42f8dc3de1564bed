"""Why a method has nothing to act on in a backbone, found in its modules by other means than the methods have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import transformers as t
from tiny_models import METHODS
from torch import nn

from pemeta import Peft, PEMethod

ROWS: dict[str, PEMethod] = {name: method for name, (method, _) in METHODS.items() if name != "peft"}
"""The methods of the test table; a tuner of the peft package finds its maps by itself here."""
ROWS["peft"] = Peft(config={"peft_type": "LORA", "r": 2, "target_modules": "all-linear"})


def has_biases(backbone: t.PreTrainedModel) -> bool:
    return any(name.rpartition(".")[2].endswith("bias") for name, _ in backbone.named_parameters())


def has_norms(backbone: t.PreTrainedModel) -> bool:
    return any(
        "norm" in type(part).__name__.lower() and any(True for _ in part.parameters()) for part in backbone.modules()
    )


def has_tokens(backbone: t.PreTrainedModel) -> bool:
    """Tokens, or an image's patches."""
    takes = inspect.signature(backbone.forward).parameters.keys()
    return bool(takes & {"input_ids", "inputs_embeds", "pixel_values"})


def has_attention(backbone: t.PreTrainedModel) -> bool:
    return named(backbone, r"attention|attn") and not named(backbone, r"fourier")


def has_feed_forward(backbone: t.PreTrainedModel) -> bool:
    return named(backbone, r"mlp|ffn|feed|intermediate|fc1|lin1|layer_1|experts|dense_?relu|i_dense")


def named(backbone: nn.Module, pattern: str) -> bool:
    """Whether a module's class or own name matches."""
    found = ((path.rpartition(".")[2], type(part).__name__) for path, part in backbone.named_modules())
    return any(re.search(pattern, word, re.IGNORECASE) for pair in found for word in pair)


Needs = tuple[tuple[Callable[[t.PreTrainedModel], bool], str], ...]
BIASES: Needs = ((has_biases, "no biases"),)
NORMS: Needs = ((has_norms, "no norms"),)
TOKENS: Needs = ((has_tokens, "no tokens and no patches"),)
ATTENTION: Needs = ((has_attention, "no attention"),)
FEED_FORWARD: Needs = ((has_feed_forward, "no feed-forward block"),)
NEEDS: dict[str, Needs] = {
    "adapter-houlsby": FEED_FORWARD,
    "adapter-pfeiffer": FEED_FORWARD,
    "adapter-parallel": FEED_FORWARD,
    "adapter-top": FEED_FORWARD,
    "lora": ATTENTION,
    "lora-everywhere": ATTENTION + FEED_FORWARD,
    "bitfit": BIASES,
    "prefix": ATTENTION,
    "prefix-network": ATTENTION,
    "prompt": TOKENS,
    "ia3": ATTENTION + FEED_FORWARD,
    "layer_norm": NORMS,
    "compose": ATTENTION + FEED_FORWARD,
}
"""What each method needs of a backbone; the others need nothing but its output."""


def nothing_to_act_on(backbone: t.PreTrainedModel, row: str) -> str | None:
    """What a backbone lacks; None if it has what the method of a row needs."""
    return next((lack for has, lack in NEEDS.get(row, ()) if not has(backbone)), None)
