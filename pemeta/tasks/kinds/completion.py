"""Completion: texts that a causal language model writes after prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from pemeta.backbone.output_kinds import OutputKind
from pemeta.data.completions import EncodedCompletions, LongCompletions, encode_completions
from pemeta.data.examples import Examples
from pemeta.data.labelled import digest_of
from pemeta.data.metrics import ExactMatch, Loss, Metric
from pemeta.data.metrics.base import Reads
from pemeta.data.roles import COMPLETION
from pemeta.data.rows import Row
from pemeta.data.sentences import Split
from pemeta.data.sources import DataSource
from pemeta.data.turns import Completion, completions
from pemeta.errors import counted
from pemeta.heads import CausalLM, HeadSpec
from pemeta.model.candidates import candidate_scores
from pemeta.model.generation import completions as generated
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import Prompting
from pemeta.tasks.kinds.base import AnyMetric, Collection, Predict, Tested, check_metrics
from pemeta.tasks.kinds.rows import RowTasks
from pemeta.tasks.task import Task


class CompletionTasks(RowTasks[Completion]):
    """Completions of prompts, in the columns ``prompt`` and ``completion``, or ``messages``, as TRL reads them.

    Validation compares epochs by the loss per token of the completions, which costs a pass; test examples are
    completed by the model.

    Attributes:
        template: where null, texts as they are, and messages by the tokenizer's chat template; ``chat``: that template
            also for texts, as a turn of the user and one of the assistant; or a chat template in Jinja.
        template_options: further variables of the template.
        long_completions: ``refuse`` what is longer than there is room for, our choice, or ``truncate`` its end.
        exchanged: a seed by which the training examples exchange their completions, for an experiment's control, in
            which nothing but the format can be learned; where null, they keep them.
        metrics: the metrics, the main one first; exact match and the loss per token.
        answers: ``generate`` text, our choice, or choose the most probable of the ``candidates``.
        candidates: all completions that there can be; where null, those of the task's training examples.
        length_normalised: whether candidates are compared by their log-probability per token; our choice.
        max_new_tokens: most tokens that are generated.
        batch_size: prompts that are completed at a time.
    """

    name: ClassVar[str] = "completion"
    unit: ClassVar[str] = "completion"
    sample: ClassVar[str] = "a prompt to complete"
    roles: ClassVar[Any] = COMPLETION
    output: ClassVar[OutputKind | None] = "causal_lm"
    scores_only: ClassVar[tuple[str, ...]] = (
        "metrics",
        "answers",
        "candidates",
        "length_normalised",
        "max_new_tokens",
        "batch_size",
    )

    template: str | None = Field(None, min_length=1)
    template_options: dict[str, Any] | None = None
    long_completions: LongCompletions = "refuse"
    exchanged: int | None = None
    metrics: tuple[AnyMetric, ...] = Field((ExactMatch(), Loss()), min_length=1)
    answers: Literal["generate", "candidates"] = "generate"
    candidates: tuple[str, ...] | None = Field(None, min_length=2)
    length_normalised: bool = True
    max_new_tokens: int = Field(64, gt=0)
    batch_size: int = Field(16, gt=0)

    @model_validator(mode="after")
    def _of_answers(self) -> Self:
        check_metrics(self.metrics, "text")
        return self

    @property
    def scored_by(self) -> tuple[Metric, ...]:
        """The configured metrics."""
        return self.metrics

    @property
    def validation_metric(self) -> Metric:
        """The loss per token of the completions."""
        return Loss()

    def raw(self, rows: Iterable[Row]) -> Iterator[Completion]:  # noqa: D102 - inherited
        return completions(rows)

    def text(self, example: Completion) -> str:
        """Prompt and completion."""
        return f"{example.prompt_text} {example.completion_text}"

    def about(self, train: Sequence[Completion]) -> tuple[str, ...]:
        """All completions that there can be, where one of them is chosen."""
        if self.answers == "generate":
            return ()
        return self.candidates or tuple(sorted({one.completion_text for one in train}))

    @property
    def exchange_seed(self) -> int | None:  # noqa: D102 - inherited
        return self.exchanged

    def with_answer_of(self, example: Completion, other: Completion) -> Completion:  # noqa: D102 - inherited
        return replace(example, completion=other.completion)

    def class_of(self, example: Completion) -> Hashable:
        """The completion, of which there are few where it is a label."""
        return example.completion_text

    def digest(self, data: Collection[Completion], split: Split) -> str:
        """A digest of prompts and completions."""
        return digest_of(data.splits[split])

    def encode(
        self, data: Collection[Completion], split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> EncodedCompletions:
        """The examples of a split, encoded."""
        return self._encoded(data.splits[split], tokenizer, max_length)

    def _encoded(
        self, examples: Sequence[Completion], tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> EncodedCompletions:
        return encode_completions(
            examples,
            tokenizer,
            max_length,
            template=self.template,
            template_options=self.template_options,
            long_completions=self.long_completions,
        )

    def prompting(self, train: Examples) -> Prompting | None:
        """The template, and the tokens that end the completions."""
        assert isinstance(train, EncodedCompletions)
        return Prompting(
            template=self.template,
            template_options=self.template_options or {},
            end_ids=train.end_ids,
            max_new_tokens=self.max_new_tokens,
        )

    def task(self, name: str, train: Examples) -> Task:
        """A task with the backbone's own output map."""
        assert isinstance(train, EncodedCompletions)
        return Task.causal_lm(name, train)

    def planned_head(self, source: DataSource, vocabulary: int) -> HeadSpec:
        """The backbone's own output map."""
        return CausalLM(vocab_size=vocabulary)

    def identity(self, example: Completion) -> Hashable:
        """The prompt."""
        return example.prompt_text

    def gold(self, examples: Examples) -> Sequence[str]:
        """The completions."""
        assert isinstance(examples, EncodedCompletions)
        return examples.completions

    def predicted(
        self,
        model: PEModel,
        task: str,
        tested: Tested[Completion],
        tokenizer: PreTrainedTokenizerBase,
        ways: Mapping[Reads, Predict],
    ) -> Mapping[Reads, Sequence[Any]]:
        """The texts that the model writes or chooses, and the log-probabilities of the right ones' tokens."""
        needed = {metric.reads for metric in self.metrics}
        found: dict[Reads, Sequence[Any]] = {
            reads: ways[reads](model, tested.examples, task) for reads in needed if reads != "predictions"
        }
        if "predictions" in needed:
            answers = self._generated if self.answers == "generate" else self._chosen
            found["predictions"] = answers(model, task, tested, tokenizer)
        return found

    def _generated(
        self, model: PEModel, task: str, tested: Tested[Completion], tokenizer: PreTrainedTokenizerBase
    ) -> list[str]:
        """What the model writes after each prompt."""
        examples = tested.examples
        assert isinstance(examples, EncodedCompletions)
        tokens = generated(
            model,
            task,
            examples.prompt_ids,
            max_new_tokens=self.max_new_tokens,
            stop=examples.end_ids,
            batch_size=self.batch_size,
        )
        texts = [str(tokenizer.decode(own, skip_special_tokens=True)) for own in tokens]
        return [
            _content(text, str(tokenizer.decode(whole[len(prompt) :], skip_special_tokens=True)), gold)
            for text, whole, prompt, gold in zip(
                texts, examples.input_ids, examples.prompt_ids, examples.completions, strict=True
            )
        ]

    def _chosen(
        self, model: PEModel, task: str, tested: Tested[Completion], tokenizer: PreTrainedTokenizerBase
    ) -> list[str]:
        """The most probable candidate after each prompt."""
        examples, texts = tested.examples, tested.data.about
        assert isinstance(examples, EncodedCompletions)
        answers = []
        for example in tested.data.splits[tested.split]:
            rows = [_with_completion(example, text) for text in texts]
            encoded = self._encoded(rows, tokenizer, None)
            pairs = zip(encoded.input_ids, encoded.prompt_ids, strict=True)
            answers.append([whole[len(prompt) :] for whole, prompt in pairs])
        scores = candidate_scores(
            model,
            task,
            examples.prompt_ids,
            answers,
            normalised=self.length_normalised,
            batch_size=self.batch_size,
        )
        return [texts[max(range(len(texts)), key=own.__getitem__)] for own in scores]

    def cut_off(self, what: str, examples: Examples) -> str | None:  # noqa: D102 - inherited
        line = super().cut_off(what, examples)
        if line is None or not isinstance(examples, EncodedCompletions):
            return line
        ends = examples.num_cut_completions
        of_ends = f", and the ends of {counted(ends, 'completion')}" if ends else ""
        return f"{line}; {counted(examples.num_cut_tokens, 'token')} cut at the beginning of prompts{of_ends}"


def _content(written: str, right: str, gold: str) -> str:
    r"""What a model has written, without what a template puts before contents, such as an empty thought.

    Args:
        written: What it has written.
        right: What it should have written.
        gold: The content in that.

    >>> _content("<think>\n\n</think>\n\n5", "<think>\n\n</think>\n\n4", "4"), _content(" 5", " 4", "4")
    ('5', ' 5')
    """
    whole, content = right.strip(), gold.strip()
    before = whole.removesuffix(content).strip() if content and whole.endswith(content) else ""
    return written.lstrip().removeprefix(before).lstrip() if before and written.lstrip().startswith(before) else written


def _with_completion(example: Completion, text: str) -> Completion:
    """An example with another completion, of one turn if it has turns."""
    if isinstance(example.completion, str):
        return replace(example, completion=text)
    *before, last = example.completion
    return replace(example, completion=(*before, {**last, "content": text}))
