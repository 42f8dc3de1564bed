"""Fine-tuning and evaluation on WikiAnn's Dutch sentences, whose lengths vary."""

from __future__ import annotations

from typing import Any

from pemeta import PEModel, Task
from pemeta.training.evaluation import predict
from pemeta.training.finetuning import finetune
from pemeta.training.finetuning_settings import FineTuning
from speedbench.cases import Case
from speedbench.contenders.base import Contender
from speedbench.sentences import wikiann
from speedbench.shapes import CONFIGS, METHODS, make_backbone, set_padding

LANGUAGE, TRAIN, VALIDATION = "nl", 320, 32


class RealEpochs(Contender):
    """``finetune`` on 320 sentences in batches of 16; of the 32 that it is validated on little comes."""

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.model = PEModel(make_backbone(case.shape), METHODS[case.method]()).to(device)
        set_padding(self.model, case.padding)
        self.start = self.model.state(self.model.partition().theta_a)
        vocabulary = CONFIGS[case.shape]().vocab_size
        train, self.source = wikiann(LANGUAGE, "train", TRAIN, vocabulary)
        self.validation, _ = wikiann(LANGUAGE, "validation", VALIDATION, vocabulary)
        self.task = Task.token_classification(LANGUAGE, train)
        self.settings = FineTuning(
            epochs=max(1, case.epochs), bucket_by_length=case.bucket_by_length, padding=case.padding
        )
        self.scores: tuple[float, ...] = ()

    def step(self) -> None:
        history = finetune(self.model, self.task, self.validation, self.settings, progress=False)
        self.scores = history.validation_scores

    def reset(self) -> None:
        self.model.load_state(self.start)

    def facts(self) -> dict[str, Any]:
        return {"sentences": self.source, "train": TRAIN, "validation": VALIDATION, "scores": list(self.scores)}


class RealEvaluation(RealEpochs):
    """``predict`` on the 320 sentences, which sorts them by length."""

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.model.add_head(LANGUAGE, self.task.make_head)

    def step(self) -> None:
        predict(self.model, self.task.train, LANGUAGE)

    def facts(self) -> dict[str, Any]:
        return {"sentences": self.source, "predicted": TRAIN}
