"""Fine-tuning for some epochs on synthetic sentences, with the backbone's output kept between epochs and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pemeta import PEModel, Sentence, SyntheticWorld, Task, encode
from pemeta.data.encoding import Encoded
from pemeta.training.finetuning import finetune
from pemeta.training.finetuning_settings import FineTuning
from speedbench.cases import Case
from speedbench.contenders.base import Contender
from speedbench.shapes import METHODS, make_backbone

LANGUAGE = "cim"
SENTENCES = {"train": 320, "validation": 160}
IN_A_ROW = 3
"""Sentences of the synthetic world that make one here: they are short, and the other groups' have 32 pieces."""


class Epochs(Contender):
    """``finetune`` for the case's number of epochs, evaluation on validation after each included."""

    reuse: ClassVar[bool]

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.model = PEModel(make_backbone(case.shape), METHODS[case.method]()).to(device)
        self.start = self.model.state(self.model.partition().theta_a)
        train, self.validation = sentences(**SENTENCES)
        self.task = Task.token_classification(LANGUAGE, train)
        self.settings = FineTuning(epochs=case.epochs, lr=1e-2, reuse_trunk=self.reuse)
        self.scores: tuple[float, ...] = ()

    def step(self) -> None:
        history = finetune(self.model, self.task, self.validation, self.settings, progress=False)
        self.scores = history.validation_scores

    def reset(self) -> None:
        self.model.load_state(self.start)

    def facts(self) -> dict[str, Any]:
        return {"validation_f1": list(self.scores), **{f"{split}_sentences": n for split, n in SENTENCES.items()}}


class ReusedTrunk(Epochs):
    """The backbone runs once per sentence."""

    reuse = True


class RecomputedTrunk(Epochs):
    """The backbone runs in each epoch, as in any other library."""

    reuse = False


def sentences(train: int, validation: int) -> tuple[Encoded, Encoded]:
    """Sentences of the synthetic world, and a tokenizer whose pieces are their words, frequent or not."""
    world = SyntheticWorld(languages=(LANGUAGE,), train=IN_A_ROW * train, validation=IN_A_ROW * validation, test=1)
    corpus = world.corpus(LANGUAGE)
    words = sorted({word for split in (corpus.train, corpus.validation) for one in split for word in one.words})
    vocabulary = {piece: i for i, piece in enumerate(("[PAD]", "[UNK]", *words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")
    train_set, validation_set = (
        encode(_longer(split), corpus.labels, tokenizer) for split in (corpus.train, corpus.validation)
    )
    return train_set, validation_set


def _longer(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Several sentences in a row as one."""
    groups = (sentences[i : i + IN_A_ROW] for i in range(0, len(sentences), IN_A_ROW))
    return [Sentence(sum((s.words for s in group), ()), sum((s.tags for s in group), ())) for group in groups]
