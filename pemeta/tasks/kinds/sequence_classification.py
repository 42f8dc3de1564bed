"""Sequence classification: one class for each text or pair of texts, any number of labels, or a number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from pemeta.data.examples import Examples
from pemeta.data.labelled import LabelledText, check_classes, classes_in, digest_of, labelled_texts
from pemeta.data.metrics import Metric
from pemeta.data.metrics.base import Form
from pemeta.data.roles import CLASSIFICATION
from pemeta.data.rows import Row
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.data.texts import EncodedTexts, encode_texts
from pemeta.heads import HeadSpec, SequenceClassification
from pemeta.heads.sequence_classification import Pooling
from pemeta.tasks.kinds.base import AnyMetric, Collection, check_metrics
from pemeta.tasks.kinds.rows import RowTasks
from pemeta.tasks.task import Task
from pemeta.utils.digests import config_digest
from pemeta.utils.registry import Distinct

USUAL: Mapping[str, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1", "mcc"),
    "multi_label": ("multilabel_micro_f1", "multilabel_macro_f1"),
    "regression": ("pearson", "spearman", "mse"),
}
"""The metrics where none are given."""
FORMS: Mapping[str, Form] = {"single_label": "class", "multi_label": "labels", "regression": "number"}
"""What the answers to each problem are."""


ASSUMED = 20
"""Classes of a task whose data was not read, in a plan."""


class SequenceClassificationTasks(RowTasks[LabelledText]):
    """A label for each text, or pair of texts, in the columns ``text``, ``text_pair``, and ``label`` or ``labels``.

    Attributes:
        problem: ``single_label``, one class for each text; ``multi_label``, any number of them; or ``regression``, a
            number.
        classes: all classes, in the order of their indices; where null, those of each task's training examples, sorted.
        class_weights: weights of the classes in the loss, by name; or ``balanced``: inverse to how often each occurs
            in training. All alike where null.
        pooling: how a text is reduced to one vector: ``mean`` (our choice), ``first``, or ``last``, for backbones with
            causal attention.
        dropout: dropout probability on that vector in training.
        bias: whether the map to classes has a bias.
        exchanged: a seed by which the training examples exchange their labels, for an experiment's control, in which
            nothing but the texts and how often each label occurs can be learned; where null, they keep them.
        metrics: the metrics, the main one first, by which epochs and settings are compared; where null, accuracy,
            macro F1 and MCC, or those of several labels, or of numbers.
    """

    name: ClassVar[str] = "sequence_classification"
    unit: ClassVar[str] = "text"
    sample: ClassVar[str] = "a text to classify"
    roles: ClassVar[Any] = CLASSIFICATION

    problem: Literal["single_label", "multi_label", "regression"] = "single_label"
    classes: Distinct | None = Field(None, min_length=2)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    pooling: Pooling = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    bias: bool = True
    exchanged: int | None = None
    metrics: tuple[AnyMetric, ...] | None = Field(None, min_length=1)

    scores_only: ClassVar[tuple[str, ...]] = ("metrics",)

    @model_validator(mode="after")
    def _of_numbers(self) -> Self:
        if self.problem == "regression" and (self.classes or self.class_weights):
            raise ValueError("a regression has numbers and no classes; remove classes and class_weights")
        return self

    @model_validator(mode="after")
    def _of_answers(self) -> Self:
        check_metrics(self.scored_by, FORMS[self.problem])
        if all(metric.reads != "predictions" for metric in self.scored_by):
            names = ", ".join(metric.name for metric in self.scored_by)
            raise ValueError(f"metrics: {names} cannot compare epochs, for it reads probabilities; add accuracy")
        return self

    @property
    def scored_by(self) -> tuple[Metric, ...]:
        """The configured metrics, or the usual ones."""
        return self.metrics or tuple(map(Metric.parse, USUAL[self.problem]))

    def raw(self, rows: Iterable[Row]) -> Iterator[LabelledText]:  # noqa: D102 - inherited
        return labelled_texts(rows, self.problem, self.classes)

    def text(self, example: LabelledText) -> str:
        """The text, or both of a pair."""
        return example.text if example.pair is None else f"{example.text} {example.pair}"

    def about(self, train: Sequence[LabelledText]) -> tuple[str, ...] | None:
        """The classes, if there are any."""
        return None if self.problem == "regression" else self.classes or classes_in(train)

    def check(self, data: Collection[LabelledText]) -> None:
        """Refuse labels that are not among the classes.

        Raises:
            DataError: one is not; the message names its place and the nearest class.
        """
        if data.about is not None:
            for split, examples in data.splits.items():
                check_classes(examples, data.about, split, given=self.classes is not None)

    @property
    def exchange_seed(self) -> int | None:  # noqa: D102 - inherited
        return self.exchanged

    def with_answer_of(self, example: LabelledText, other: LabelledText) -> LabelledText:  # noqa: D102 - inherited
        return replace(example, label=other.label)

    def class_of(self, example: LabelledText) -> Hashable:
        """The class."""
        return example.label if self.problem == "single_label" else super().class_of(example)

    def digest(self, data: Collection[LabelledText], split: Split) -> str:
        """A digest of texts and labels, and in training of the classes, which may be those of examples left out."""
        own = digest_of(data.splits[split])
        return config_digest([own, list(data.about or ())]) if split == "train" else own

    def encode(
        self, data: Collection[LabelledText], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> EncodedTexts:
        """The texts of a split, encoded."""
        examples = data.splits[split]
        encoded = encode_texts(
            [one.text for one in examples],
            [one.label for one in examples],
            data.about,
            tokenizer,
            max_length,
            pairs=[one.pair or "" for one in examples] if examples[0].pair is not None else None,
            problem=self.problem,
        )
        return encoded.judged_by(self.validation_metric, self.gold(encoded))

    @property
    def validation_metric(self) -> Metric:
        """The first metric of predictions; the others read probabilities, which validation does not compute."""
        return next(metric for metric in self.scored_by if metric.reads == "predictions")

    def task(self, name: str, train: Examples) -> Task:
        """A task with a head for the classes of its data."""
        assert isinstance(train, EncodedTexts)
        return Task.sequence_classification(
            name, train, self.pooling, self.dropout, bias=self.bias, class_weights=self.class_weights
        )

    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """A head for the configured classes, or for 20 of them."""
        several = self.classes or tuple(f"class {number}" for number in range(ASSUMED))
        labels = ("value",) if self.problem == "regression" else several
        return SequenceClassification(labels=labels, pooling=self.pooling, problem=self.problem, bias=self.bias)

    def identity(self, example: LabelledText) -> Hashable:
        """The text, or both of a pair."""
        return example.text, example.pair

    def gold(self, examples: Examples) -> Sequence[Any]:
        """The labels."""
        assert isinstance(examples, EncodedTexts)
        return examples.labels
