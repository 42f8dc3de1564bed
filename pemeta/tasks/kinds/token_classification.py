"""Token classification: a tag for each word of a sentence, as in named-entity recognition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from transformers import PreTrainedTokenizerBase

from pemeta.data.corpus import Corpus
from pemeta.data.encoding import Encoded, encode
from pemeta.data.examples import Examples
from pemeta.data.metrics import Metric, Scores, Scoring, entity_scores
from pemeta.data.metrics.base import Reads
from pemeta.data.sentences import SPLITS, LabelSet, Sentence, Split, digest
from pemeta.data.sources import DataSource
from pemeta.data.streams import Text, stored_corpus
from pemeta.errors import counted
from pemeta.heads import HeadSpec, TokenClassification
from pemeta.tasks.kinds.base import Collection, Measured, TaskKind
from pemeta.tasks.task import Task
from pemeta.utils.neutral import Neutral


class TokenClassificationTasks(TaskKind[Sentence]):
    """A tag for each word of a sentence, which are scored by the entities that the tags write.

    Attributes:
        scoring: ``conlleval``: a predicted ``I-X`` that goes on with no entity begins one; ``strict``: it is none. A
            configuration may also have this key at its top.
    """

    name: ClassVar[str] = "token_classification"
    unit: ClassVar[str] = "sentence"
    cut: ClassVar[str] = "cut words count as O"
    part: ClassVar[str] = "entity type"
    sample: ClassVar[str] = "some words to label"
    scores_only: ClassVar[tuple[str, ...]] = ("scoring",)
    at_the_top: ClassVar[tuple[str, ...]] = ("scoring",)

    scoring: Annotated[Scoring, Neutral("conlleval")] = "conlleval"

    @property
    def scored_by(self) -> tuple[Metric, ...]:
        """Micro F1 of entities, its precision and its recall."""
        names = ("f1", "precision", "recall")
        return tuple(Metric.parse({"name": name, "scoring": self.scoring}) for name in names)

    def collection(
        self, source: DataSource, task: str, sizes: Mapping[str, int | None], streaming: bool = False
    ) -> Collection[Sentence]:
        """The sentences of a task, with their label set."""
        corpus = stored_corpus(task, source.streams(task), sizes) if streaming else source.corpus(task).limited(**sizes)
        return _collected(corpus)

    def sizes(self, source: DataSource, task: str) -> Mapping[Split, int]:  # noqa: D102 - inherited
        return source.sizes(task)

    def pretraining_text(self, source: DataSource, tasks: Sequence[str]) -> Text:  # noqa: D102 - inherited
        return source.unlabelled(tasks)

    def digest(self, data: Collection[Sentence], split: Split) -> str:
        """A digest of all words and tags."""
        return digest(data.splits[split])

    def encode(
        self, data: Collection[Sentence], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> Encoded:
        """The sentences of a split, encoded."""
        labels: LabelSet = data.about
        return encode(data.splits[split], labels, tokenizer, max_length, self.scoring)

    def task(self, name: str, train: Examples) -> Task:
        """A task with a head for the tags of its data."""
        assert isinstance(train, Encoded)
        return Task.token_classification(name, train)

    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """A head for the types of entities that the source tells."""
        return TokenClassification(labels=LabelSet(source.entity_types()).tags)

    def identity(self, example: Sentence) -> tuple[str, ...]:
        """The words."""
        return example.words

    def gold(self, examples: Examples) -> list[list[str]]:
        """The tags of each sentence."""
        assert isinstance(examples, Encoded)
        return [list(sentence.tags) for sentence in examples.sentences]

    def measured(self, examples: Examples, gold: Sequence[Any], predicted: Mapping[Reads, Sequence[Any]]) -> Measured:
        """Scores by seqeval itself, to the last digit."""
        assert isinstance(examples, Encoded)
        found: Scores = entity_scores(gold, predicted["predictions"], examples.labels.types, self.scoring)
        return Measured(found.numbers(), found.f1_per_type)

    def cut_off(self, what: str, examples: Examples) -> str | None:  # noqa: D102 - inherited
        line = super().cut_off(what, examples)
        if line is None or not isinstance(examples, Encoded):
            return line
        return f"{line}; {counted(examples.num_cut_words, 'word')} cut, which count as O in scores"


def _collected(corpus: Corpus) -> Collection[Sentence]:
    splits = {split: corpus.split(split) for split in SPLITS}
    return Collection(corpus.name, splits, corpus.notes, corpus.labels)
