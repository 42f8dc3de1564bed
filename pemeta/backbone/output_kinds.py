"""The kinds of language models that transformers has classes for, and which of them a model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

OutputKind: TypeAlias = Literal["causal_lm", "masked_lm"]
"""What a language model was trained to predict: the next token, or masked ones."""
AUTO: Mapping[str, Any] = {"causal_lm": AutoModelForCausalLM, "masked_lm": AutoModelForMaskedLM}
"""The class of transformers that loads each kind."""
CLASSES: Mapping[str, Any] = {"causal_lm": MODEL_FOR_CAUSAL_LM_MAPPING, "masked_lm": MODEL_FOR_MASKED_LM_MAPPING}
"""For each kind, the classes of transformers by their configurations."""
_ENDINGS = {"causal_lm": ("ForCausalLM", "LMHeadModel"), "masked_lm": ("ForMaskedLM",)}
"""How classes are named that are not part of transformers."""


def kinds_of(model: object) -> frozenset[OutputKind]:
    """The kinds of language models that a model is one of, by its class; none for a backbone, or another head."""
    kind, config = type(model), getattr(model, "config", None)
    found: set[Any] = {name for name, known in CLASSES.items() if kind in _several(known.get(type(config), ()))}
    if not found and not kind.__module__.startswith("transformers."):
        found = {name for name, endings in _ENDINGS.items() if kind.__name__.endswith(endings)}
    return frozenset(found)


def _several(known: Any) -> tuple[Any, ...]:
    return known if isinstance(known, tuple) else (known,)
