"""What experiments know of a kind of task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from pemeta.data.examples import Examples
from pemeta.data.metrics import Metric
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.utils.registry import Named

Raw = TypeVar("Raw")
"""One example as it is before it is encoded, such as a :class:`~pemeta.Sentence`."""


@dataclass(frozen=True)
class Collection(Generic[Raw]):
    """The examples of one task, before they are encoded.

    Attributes:
        name: name of the task.
        splits: the examples of train, validation and test.
        digests: a digest of each split, of all that results depend on.
        notes: what was found or decided in reading, in a line each.
        about: whatever else the kind needs to encode them, such as a label set.
    """

    name: str
    splits: Mapping[Split, Sequence[Raw]]
    digests: Mapping[Split, str]
    notes: Sequence[str] = ()
    about: Any = None


class TaskKind(Named, Generic[Raw]):
    """A kind of task: how examples are read, encoded, made a task of, predicted and scored.

    Nothing in experiments, searches and reports knows more of a task than this. To add a kind, write one file in
    ``pemeta/tasks/kinds/`` with a subclass, whose fields are what a configuration can set under ``task:``; import it in
    that folder's ``__init__.py``; and add a row to the tests' ``KINDS``.
    """

    kind: ClassVar[str] = "kind of task"
    unit: ClassVar[str] = "example"
    """Word for an example in messages and reports."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of test examples; the first is the main one, by which settings are compared."""

    @property
    def validation_metric(self) -> Metric:
        """The metric of validation examples that chooses between epochs and between candidates of a search."""
        return self.metrics[0]

    @abstractmethod
    def collection(
        self, source: DataSource, task: str, sizes: Mapping[Split, int | None], streaming: bool = False
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
    def encode(
        self, data: Collection[Raw], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> Examples:
        """The examples of a split, encoded; their ``scores`` have the main metric of validation."""

    @abstractmethod
    def task(self, name: str, train: Examples) -> Task:
        """A task with these training examples, and the head that suits them."""

    @abstractmethod
    def identity(self, example: Raw) -> Hashable:
        """What two examples share if the one was seen when the other was: a test example counts as unseen without."""

    @abstractmethod
    def gold(self, data: Collection[Raw], split: Split) -> Sequence[Any]:
        """What each example of a split should be predicted to be, in the terms of the metrics."""

    def predicted(
        self, model: PEModel, examples: Examples, task: str, predict: Callable[[PEModel, Examples, str], list[Any]]
    ) -> Sequence[Any]:
        """What each example is predicted to be, in the terms of the metrics.

        Args:
            model: the fine-tuned model.
            examples: encoded examples.
            task: name of the task.
            predict: :func:`pemeta.training.evaluation.predict`, which a kind that generates has no use for.
        """
        return predict(model, examples, task)

    def shown(self, example: Raw, predicted: Any) -> str:
        """An example with its prediction, for people."""
        return f"{example}\t{predicted}"
