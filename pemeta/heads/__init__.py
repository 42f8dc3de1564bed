"""Task heads: from hidden states to logits, a loss and predictions; one file for each kind of task."""

from pemeta.heads.base import Head, HeadSpec
from pemeta.heads.causal_lm import CausalLM, CausalLMHead
from pemeta.heads.masked_lm import MaskedLM, MaskedLMHead
from pemeta.heads.sequence_classification import SequenceClassification, SequenceClassificationHead
from pemeta.heads.token_classification import TokenClassification, TokenClassificationHead
from pemeta.heads.vocabulary import VocabularyHead

__all__ = [
    "CausalLM",
    "CausalLMHead",
    "Head",
    "HeadSpec",
    "MaskedLM",
    "MaskedLMHead",
    "SequenceClassification",
    "SequenceClassificationHead",
    "TokenClassification",
    "TokenClassificationHead",
    "VocabularyHead",
]
