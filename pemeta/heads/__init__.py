"""Task heads: from hidden states to logits, a loss and predictions; one file for each kind of task."""

from pemeta.heads.base import Head, HeadSpec
from pemeta.heads.causal_lm import CausalLM, CausalLMHead
from pemeta.heads.sequence_classification import SequenceClassification, SequenceClassificationHead
from pemeta.heads.token_classification import TokenClassification, TokenClassificationHead

__all__ = [
    "CausalLM",
    "CausalLMHead",
    "Head",
    "HeadSpec",
    "SequenceClassification",
    "SequenceClassificationHead",
    "TokenClassification",
    "TokenClassificationHead",
]
