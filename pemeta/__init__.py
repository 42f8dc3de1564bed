"""Meta-learned priming of pretrained models for parameter-efficient fine-tuning (Gheini, Ma and May, 2023).

Public names load when they are first used, so that ``import pemeta`` and the command line start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pemeta.backbone.tokenizers import tokenizer_digest as tokenizer_digest
    from pemeta.data.blocks import EncodedBlocks as EncodedBlocks
    from pemeta.data.blocks import encode_language_model as encode_language_model
    from pemeta.data.encoding import Encoded as Encoded
    from pemeta.data.encoding import encode as encode
    from pemeta.data.examples import Examples as Examples
    from pemeta.data.sentences import Corpus as Corpus
    from pemeta.data.sentences import LabelSet as LabelSet
    from pemeta.data.sentences import Sentence as Sentence
    from pemeta.data.synthetic import SyntheticWorld as SyntheticWorld
    from pemeta.data.texts import EncodedTexts as EncodedTexts
    from pemeta.data.texts import encode_texts as encode_texts
    from pemeta.deploy.export import to_transformers as to_transformers
    from pemeta.deploy.hf_trainer import TaskModel as TaskModel
    from pemeta.deploy.peft_files import load_peft as load_peft
    from pemeta.deploy.peft_files import save_peft as save_peft
    from pemeta.deploy.serving import Server as Server
    from pemeta.errors import PemetaError as PemetaError
    from pemeta.heads import CausalLM as CausalLM
    from pemeta.heads import CausalLMHead as CausalLMHead
    from pemeta.heads import Head as Head
    from pemeta.heads import HeadSpec as HeadSpec
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
    from pemeta.model.partition import Partition as Partition
    from pemeta.model.pe_model import PEModel as PEModel
    from pemeta.priming.algorithms import (
        FineTunePriming as FineTunePriming,
    )
    from pemeta.priming.algorithms import (
        MetaPriming as MetaPriming,
    )
    from pemeta.priming.algorithms import (
        PrimingAlgorithm as PrimingAlgorithm,
    )
    from pemeta.priming.learner import PrimingLearner as PrimingLearner
    from pemeta.priming.outer_loop import prime as prime
    from pemeta.tasks.task import Episode as Episode
    from pemeta.tasks.task import EpisodeSampler as EpisodeSampler
    from pemeta.tasks.task import Task as Task
    from pemeta.training.evaluation import evaluate as evaluate
    from pemeta.training.evaluation import predict as predict
    from pemeta.training.finetuning import finetune as finetune
    from pemeta.training.finetuning_settings import FineTuning as FineTuning
    from pemeta.training.pretraining import TinyTransformer as TinyTransformer
    from pemeta.training.pretraining import pretrain as pretrain

# Where each public name lives; a test holds that the type checker is told the same above.
_HOME = {
    "Adapter": "pemeta.methods",
    "BitFit": "pemeta.methods",
    "CausalLM": "pemeta.heads",
    "CausalLMHead": "pemeta.heads",
    "Compose": "pemeta.methods",
    "Corpus": "pemeta.data.sentences",
    "Encoded": "pemeta.data.encoding",
    "EncodedBlocks": "pemeta.data.blocks",
    "EncodedTexts": "pemeta.data.texts",
    "Episode": "pemeta.tasks.task",
    "EpisodeSampler": "pemeta.tasks.task",
    "Examples": "pemeta.data.examples",
    "FineTunePriming": "pemeta.priming.algorithms",
    "FineTuning": "pemeta.training.finetuning_settings",
    "Full": "pemeta.methods",
    "Head": "pemeta.heads",
    "HeadOnly": "pemeta.methods",
    "HeadSpec": "pemeta.heads",
    "IA3": "pemeta.methods",
    "LabelSet": "pemeta.data.sentences",
    "LayerNormTuning": "pemeta.methods",
    "LoRA": "pemeta.methods",
    "MetaPriming": "pemeta.priming.algorithms",
    "PEMethod": "pemeta.methods",
    "PEModel": "pemeta.model.pe_model",
    "Partition": "pemeta.model.partition",
    "Peft": "pemeta.methods",
    "PemetaError": "pemeta.errors",
    "Prefix": "pemeta.methods",
    "PrimingAlgorithm": "pemeta.priming.algorithms",
    "PrimingLearner": "pemeta.priming.learner",
    "Prompt": "pemeta.methods",
    "Sentence": "pemeta.data.sentences",
    "SequenceClassification": "pemeta.heads",
    "SequenceClassificationHead": "pemeta.heads",
    "Server": "pemeta.deploy.serving",
    "SyntheticWorld": "pemeta.data.synthetic",
    "Task": "pemeta.tasks.task",
    "TaskModel": "pemeta.deploy.hf_trainer",
    "TinyTransformer": "pemeta.training.pretraining",
    "TokenClassification": "pemeta.heads",
    "TokenClassificationHead": "pemeta.heads",
    "encode": "pemeta.data.encoding",
    "encode_language_model": "pemeta.data.blocks",
    "encode_texts": "pemeta.data.texts",
    "evaluate": "pemeta.training.evaluation",
    "finetune": "pemeta.training.finetuning",
    "load_peft": "pemeta.deploy.peft_files",
    "predict": "pemeta.training.evaluation",
    "pretrain": "pemeta.training.pretraining",
    "prime": "pemeta.priming.outer_loop",
    "save_peft": "pemeta.deploy.peft_files",
    "to_transformers": "pemeta.deploy.export",
    "tokenizer_digest": "pemeta.backbone.tokenizers",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """The public name, on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'pemeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
