"""What experiments know of a kind of task."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar

from pydantic import PlainSerializer, PlainValidator
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.output_kinds import OutputKind
from pemeta.data.examples import Examples
from pemeta.data.metrics import Metric
from pemeta.data.metrics.base import Form, Outcomes, Reads
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.data.streams import Text
from pemeta.errors import ConfigError, counted
from pemeta.heads import HeadSpec
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import Prompting
from pemeta.tasks.task import Task
from pemeta.utils.registry import Named

Raw = TypeVar("Raw")
"""One example as it is before it is encoded, such as a :class:`~pemeta.Sentence`."""
AnyMetric = Annotated[Metric, PlainValidator(Metric.parse), PlainSerializer(lambda metric: metric.to_config())]
"""A metric as a configuration has it: its name, or a mapping with the name and its settings."""
Predict: TypeAlias = Callable[[PEModel, Examples, str], Sequence[Any]]
"""Predictions of a model for encoded examples of a task, as :func:`pemeta.training.evaluation.predict` makes them."""
PLURALS: Mapping[Form, str] = {
    "class": "classes",
    "labels": "sets of labels",
    "number": "numbers",
    "tags": "tags",
    "text": "texts",
    "tokens": "tokens",
}
"""Answers in messages."""


@dataclass(frozen=True)
class Collection(Generic[Raw]):
    """The examples of one task, before they are encoded.

    Attributes:
        name: name of the task.
        splits: the examples of train, validation and test.
        notes: what was found or decided in reading, in a line each.
        about: whatever else the kind needs to encode them, such as a label set.
    """

    name: str
    splits: Mapping[Split, Sequence[Raw]]
    notes: Sequence[str] = ()
    about: Any = None


@dataclass(frozen=True)
class Tested(Generic[Raw]):
    """Examples to be predicted.

    Attributes:
        data: the task's examples, before they were encoded.
        split: the split that they are.
        examples: the same, encoded.
    """

    data: Collection[Raw]
    split: Split
    examples: Examples


@dataclass(frozen=True)
class Measured:
    """The scores of predictions.

    Attributes:
        values: the value of each metric, by its name.
        by: the main metric of each class or entity type by itself, where it has that.
    """

    values: Mapping[str, float]
    by: Mapping[str, float]


class TaskKind(Named, Generic[Raw]):
    """A kind of task: how examples are read, encoded, made a task of, predicted and scored.

    Nothing in experiments, searches and reports knows more of a task than this. To add a kind, write one file in
    ``pemeta/tasks/kinds/`` with a subclass, whose fields are what a configuration can set under ``task:``; import it in
    that folder's ``__init__.py``; and add a row to the tests' ``KINDS``.
    """

    kind: ClassVar[str] = "kind of task"
    unit: ClassVar[str] = "example"
    """Word for an example in messages and reports."""
    cut: ClassVar[str] = ""
    """What becomes of what is cut off from an example that is too long, where scores depend on it."""
    part: ClassVar[str] = "class"
    """What the main metric is of, where it is of a part of the examples, such as an entity type."""
    sample: ClassVar[str] = "a text"
    """An input, for a command that predicts."""
    output: ClassVar[OutputKind | None] = None
    """Which output map of a pretrained language model heads use, ``causal_lm`` or ``masked_lm``; None for none."""
    tells_unseen: ClassVar[bool] = True
    """Whether scores of test examples that are no training examples are of interest, which :meth:`identity` tells."""
    scores_only: ClassVar[tuple[str, ...]] = ()
    """Fields on which scores depend, but no training without validation."""
    at_the_top: ClassVar[tuple[str, ...]] = ()
    """Fields that configurations had at their top before there were kinds, where they are still read, and digested."""

    @property
    @abstractmethod
    def scored_by(self) -> tuple[Metric, ...]:
        """The metrics of test examples; the first is the main one, by which settings are compared."""

    @property
    def validation_metric(self) -> Metric:
        """The metric of validation examples that chooses between epochs and between candidates of a search.

        It is the ``main`` number of the examples' scores, which is negated where a lower value is better.
        """
        return self.scored_by[0]

    def validation_value(self, main: float) -> float:
        """The value of the validation metric, given the number that training maximises."""
        return main if self.validation_metric.higher_is_better else -main

    @abstractmethod
    def collection(
        self, source: DataSource, task: str, sizes: Mapping[str, int | None], streaming: bool = False
    ) -> Collection[Raw]:
        """The examples of a task, from its source.

        Args:
            source: where they are.
            task: name of the task.
            sizes: how many of each split are used, from its beginning; None for all.
            streaming: keep them in files of the cache, mapped into memory.

        Raises:
            DataError: the task is unknown, or its data is malformed.
            ConfigError: the source has no data of this kind.
        """

    @abstractmethod
    def sizes(self, source: DataSource, task: str) -> Mapping[Split, int]:
        """Number of examples in each split of a task, or an upper bound, without a download.

        Raises:
            DataError: the task is unknown, or its data is malformed.
        """

    @abstractmethod
    def pretraining_text(self, source: DataSource, tasks: Sequence[str]) -> Text:
        """Text of the tasks, to pretrain a backbone on that needs no download."""

    @abstractmethod
    def digest(self, data: Collection[Raw], split: Split) -> str:
        """A digest of all in a split that results depend on."""

    @abstractmethod
    def encode(
        self, data: Collection[Raw], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> Examples:
        """The examples of a split, encoded.

        The ``main`` number of their scores is the validation metric, negated if a lower one is better.
        """

    @abstractmethod
    def task(self, name: str, train: Examples) -> Task:
        """A task with these training examples, and the head that suits them."""

    @abstractmethod
    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """The head that a task will have, as far as it is known without reading examples.

        Args:
            source: where the examples are.
            vocabulary: number of tokens in the backbone's vocabulary.
        """

    @abstractmethod
    def identity(self, example: Raw) -> Hashable:
        """What two examples share if who has seen the one has seen the other, such as their texts without labels."""

    def prompting(self, train: Examples) -> Prompting | None:
        """How a server makes prompts as these training examples have them; None for tasks without prompts."""
        return None

    def class_of(self, example: Raw) -> Hashable:
        """The class of an example, of each of which a configuration may take a number of examples.

        Raises:
            ConfigError: examples of this kind have no class each.
        """
        raise ConfigError(f"per_class: examples of {self.name} have no class of their own each; give train: a number")

    @abstractmethod
    def gold(self, examples: Examples) -> Sequence[Any]:
        """What each of the encoded examples should be predicted to be, in the terms of the metrics."""

    def predicted(
        self,
        model: PEModel,
        task: str,
        tested: Tested[Raw],
        tokenizer: PreTrainedTokenizerBase,
        ways: Mapping[Reads, Predict],
    ) -> Mapping[Reads, Sequence[Any]]:
        """What is predicted of each example, in each of the terms that the metrics read.

        Args:
            model: the fine-tuned model.
            task: name of the task.
            tested: the examples.
            tokenizer: the backbone's tokenizer.
            ways: what makes predictions of either term by a pass of the model. A kind that generates text has its own.
        """
        needed = dict.fromkeys(metric.reads for metric in self.scored_by)
        return {reads: ways[reads](model, tested.examples, task) for reads in needed}

    def outcomes(self, examples: Examples, gold: Sequence[Any], predicted: Mapping[Reads, Sequence[Any]]) -> Outcomes:
        """What the main metric is to know of each example."""
        main = self.scored_by[0]
        return main.outcomes(gold, predicted[main.reads], examples.outputs)

    def measured(self, examples: Examples, gold: Sequence[Any], predicted: Mapping[Reads, Sequence[Any]]) -> Measured:
        """The values of all metrics.

        Args:
            examples: the encoded examples, or others of the same outputs.
            gold: what each should be predicted to be.
            predicted: what :meth:`predicted` found.
        """
        outputs = examples.outputs
        values = {metric.name: metric.score(gold, predicted[metric.reads], outputs) for metric in self.scored_by}
        main = self.scored_by[0]
        return Measured(values, main.by_output(gold, predicted[main.reads], outputs))

    def cut_off(self, what: str, examples: Examples) -> str | None:
        """A line about examples that were too long; None if none was.

        Args:
            what: what they are called.
            examples: encoded examples.
        """
        if not examples.num_truncated:
            return None
        longest = int(examples.lengths().max())
        of = counted(len(examples), examples.unit)
        return f"{what}: {examples.num_truncated} of {of} longer than {longest} tokens"


def kinds() -> dict[str, type[TaskKind[Any]]]:
    """Every kind of task by name."""
    found: dict[str, Any] = TaskKind.members()
    return found


def chosen(values: Mapping[Reads, Sequence[Any]], indices: Iterable[int]) -> dict[Reads, list[Any]]:
    """What is predicted of some examples."""
    kept = list(indices)
    return {reads: [found[i] for i in kept] for reads, found in values.items()}


def check_metrics(metrics: Sequence[Metric], form: Form) -> None:
    """Refuse metrics that do not measure the answers of a task, or that would share a place in a record.

    Args:
        metrics: what the task is scored by.
        form: what its answers are.

    Raises:
        ValueError: one measures others, or is named twice.
    """
    names = [metric.name for metric in metrics]
    fitting = [name for name, one in Metric.members().items() if not one.forms or form in one.forms]
    for name in names:
        if name not in fitting:
            raise ValueError(f"metrics: {name} does not measure answers that are {PLURALS[form]}; use one of {fitting}")
        if names.count(name) > 1:
            raise ValueError(f"metrics: {name} is named twice, but a record has one value of each; remove one")


def few_of_each(kind: TaskKind[Raw], data: Collection[Raw], most: int) -> Collection[Raw]:
    """The same examples, but of train only the first ``most`` of each class.

    Raises:
        ConfigError: examples of this kind have no class each.
    """
    found: Counter[Hashable] = Counter()
    kept = []
    for example in data.splits["train"]:
        own = kind.class_of(example)
        found[own] += 1
        if found[own] <= most:
            kept.append(example)
    return replace(data, splits={**data.splits, "train": tuple(kept)})
