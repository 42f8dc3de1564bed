"""Meta-learned priming of pretrained models for parameter-efficient fine-tuning (Gheini, Ma and May, 2023).

Public names load on first use, so that ``import pemeta`` and the command line start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pemeta.backbone import tokenizer_digest as tokenizer_digest
    from pemeta.data import Completion as Completion
    from pemeta.data import Corpus as Corpus
    from pemeta.data import Encoded as Encoded
    from pemeta.data import EncodedBlocks as EncodedBlocks
    from pemeta.data import EncodedCompletions as EncodedCompletions
    from pemeta.data import EncodedMasked as EncodedMasked
    from pemeta.data import EncodedTexts as EncodedTexts
    from pemeta.data import Examples as Examples
    from pemeta.data import LabelSet as LabelSet
    from pemeta.data import Sentence as Sentence
    from pemeta.data import SyntheticWorld as SyntheticWorld
    from pemeta.data import encode as encode
    from pemeta.data import encode_completions as encode_completions
    from pemeta.data import encode_language_model as encode_language_model
    from pemeta.data import encode_masked_language_model as encode_masked_language_model
    from pemeta.data import encode_prompts as encode_prompts
    from pemeta.data import encode_texts as encode_texts
    from pemeta.data import store_sentences as store_sentences
    from pemeta.deploy import Server as Server
    from pemeta.deploy import TaskModel as TaskModel
    from pemeta.deploy import load_peft as load_peft
    from pemeta.deploy import save_peft as save_peft
    from pemeta.deploy import to_transformers as to_transformers
    from pemeta.deploy import vllm_refusals as vllm_refusals
    from pemeta.errors import PemetaError as PemetaError
    from pemeta.heads import CausalLM as CausalLM
    from pemeta.heads import CausalLMHead as CausalLMHead
    from pemeta.heads import Head as Head
    from pemeta.heads import HeadSpec as HeadSpec
    from pemeta.heads import MaskedLM as MaskedLM
    from pemeta.heads import MaskedLMHead as MaskedLMHead
    from pemeta.heads import SequenceClassification as SequenceClassification
    from pemeta.heads import SequenceClassificationHead as SequenceClassificationHead
    from pemeta.heads import TokenClassification as TokenClassification
    from pemeta.heads import TokenClassificationHead as TokenClassificationHead
    from pemeta.methods import IA3 as IA3
    from pemeta.methods import Adapter as Adapter
    from pemeta.methods import BitFit as BitFit
    from pemeta.methods import Compose as Compose
    from pemeta.methods import Full as Full
    from pemeta.methods import HeadOnly as HeadOnly
    from pemeta.methods import LayerNormTuning as LayerNormTuning
    from pemeta.methods import LoRA as LoRA
    from pemeta.methods import Peft as Peft
    from pemeta.methods import PEMethod as PEMethod
    from pemeta.methods import Prefix as Prefix
    from pemeta.methods import Prompt as Prompt
    from pemeta.model import Partition as Partition
    from pemeta.model import PEModel as PEModel
    from pemeta.model import Prompting as Prompting
    from pemeta.priming import FineTunePriming as FineTunePriming
    from pemeta.priming import InnerLoopPriming as InnerLoopPriming
    from pemeta.priming import MetaPriming as MetaPriming
    from pemeta.priming import PersistentPriming as PersistentPriming
    from pemeta.priming import PrimingAlgorithm as PrimingAlgorithm
    from pemeta.priming import PrimingLearner as PrimingLearner
    from pemeta.priming import ReptilePriming as ReptilePriming
    from pemeta.priming import prime as prime
    from pemeta.reporting import load_records as load_records
    from pemeta.tasks import Episode as Episode
    from pemeta.tasks import EpisodeSampler as EpisodeSampler
    from pemeta.tasks import Task as Task
    from pemeta.training import FineTuning as FineTuning
    from pemeta.training import TinyTransformer as TinyTransformer
    from pemeta.training import evaluate as evaluate
    from pemeta.training import finetune as finetune
    from pemeta.training import predict as predict
    from pemeta.training import pretrain as pretrain

    __version__: str

_PUBLIC = {
    "pemeta.backbone": ("tokenizer_digest",),
    "pemeta.data": (
        "Completion",
        "Corpus",
        "Encoded",
        "EncodedBlocks",
        "EncodedCompletions",
        "EncodedMasked",
        "EncodedTexts",
        "Examples",
        "LabelSet",
        "Sentence",
        "SyntheticWorld",
        "encode",
        "encode_completions",
        "encode_language_model",
        "encode_prompts",
        "encode_masked_language_model",
        "encode_texts",
        "store_sentences",
    ),
    "pemeta.deploy": (
        "Server",
        "TaskModel",
        "load_peft",
        "save_peft",
        "to_transformers",
        "vllm_refusals",
    ),
    "pemeta.errors": ("PemetaError",),
    "pemeta.heads": (
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
    ),
    "pemeta.methods": (
        "IA3",
        "Adapter",
        "BitFit",
        "Compose",
        "Full",
        "HeadOnly",
        "LayerNormTuning",
        "LoRA",
        "PEMethod",
        "Peft",
        "Prefix",
        "Prompt",
    ),
    "pemeta.model": (
        "PEModel",
        "Partition",
        "Prompting",
    ),
    "pemeta.priming": (
        "FineTunePriming",
        "InnerLoopPriming",
        "MetaPriming",
        "PersistentPriming",
        "PrimingAlgorithm",
        "PrimingLearner",
        "ReptilePriming",
        "prime",
    ),
    "pemeta.reporting": ("load_records",),
    "pemeta.tasks": (
        "Episode",
        "EpisodeSampler",
        "Task",
    ),
    "pemeta.training": (
        "FineTuning",
        "TinyTransformer",
        "evaluate",
        "finetune",
        "predict",
        "pretrain",
    ),
}
"""The public names by the folder that they come from; a test holds that the type checker is told the same above."""
_HOME = {name: folder for folder, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """The public name, on its first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pemeta")
    if name not in _HOME:
        raise AttributeError(f"module 'pemeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
