"""Meta-learned priming of pretrained models for parameter-efficient fine-tuning (Gheini, Ma and May, 2023).

Public names load when they are first used, so that ``import pemeta`` and the command line start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pemeta.algorithms import (
        FineTunePriming as FineTunePriming,
    )
    from pemeta.algorithms import (
        MetaPriming as MetaPriming,
    )
    from pemeta.algorithms import (
        PrimingAlgorithm as PrimingAlgorithm,
    )
    from pemeta.data.encoding import Encoded as Encoded
    from pemeta.data.encoding import encode as encode
    from pemeta.data.sentences import Corpus as Corpus
    from pemeta.data.sentences import LabelSet as LabelSet
    from pemeta.data.sentences import Sentence as Sentence
    from pemeta.data.synthetic import SyntheticWorld as SyntheticWorld
    from pemeta.errors import PemetaError as PemetaError
    from pemeta.evaluation import evaluate as evaluate
    from pemeta.evaluation import predict as predict
    from pemeta.finetuning import FineTuning as FineTuning
    from pemeta.finetuning import finetune as finetune
    from pemeta.heads import Head as Head
    from pemeta.heads import TokenClassificationHead as TokenClassificationHead
    from pemeta.learner import PrimingLearner as PrimingLearner
    from pemeta.methods import Adapter as Adapter
    from pemeta.methods import Full as Full
    from pemeta.methods import HeadOnly as HeadOnly
    from pemeta.methods import PEMethod as PEMethod
    from pemeta.model import PEModel as PEModel
    from pemeta.partition import Partition as Partition
    from pemeta.pretraining import TinyTransformer as TinyTransformer
    from pemeta.pretraining import pretrain as pretrain
    from pemeta.priming import prime as prime
    from pemeta.tasks import Episode as Episode
    from pemeta.tasks import EpisodeSampler as EpisodeSampler
    from pemeta.tasks import Task as Task

# Where each public name lives; a test holds that the type checker is told the same above.
_HOME = {
    "Adapter": "pemeta.methods",
    "Corpus": "pemeta.data.sentences",
    "Encoded": "pemeta.data.encoding",
    "Episode": "pemeta.tasks",
    "EpisodeSampler": "pemeta.tasks",
    "FineTunePriming": "pemeta.algorithms",
    "FineTuning": "pemeta.finetuning",
    "Full": "pemeta.methods",
    "Head": "pemeta.heads",
    "HeadOnly": "pemeta.methods",
    "LabelSet": "pemeta.data.sentences",
    "MetaPriming": "pemeta.algorithms",
    "PEMethod": "pemeta.methods",
    "PEModel": "pemeta.model",
    "Partition": "pemeta.partition",
    "PemetaError": "pemeta.errors",
    "PrimingAlgorithm": "pemeta.algorithms",
    "PrimingLearner": "pemeta.learner",
    "Sentence": "pemeta.data.sentences",
    "SyntheticWorld": "pemeta.data.synthetic",
    "Task": "pemeta.tasks",
    "TinyTransformer": "pemeta.pretraining",
    "TokenClassificationHead": "pemeta.heads",
    "encode": "pemeta.data.encoding",
    "evaluate": "pemeta.evaluation",
    "finetune": "pemeta.finetuning",
    "predict": "pemeta.evaluation",
    "pretrain": "pemeta.pretraining",
    "prime": "pemeta.priming",
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
