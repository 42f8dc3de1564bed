"""A model's predictions and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from pemeta.backbone.masks import masks_once
from pemeta.data.examples import Decoded, Examples, Scored
from pemeta.data.metrics.base import Reads
from pemeta.errors import DataError, ModelError, counted
from pemeta.heads import Head
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.training.finetuning_settings import cut_by_tokens
from pemeta.typing import Batch
from pemeta.utils.ahead import in_turn
from pemeta.utils.devices import pinned
from pemeta.utils.modules import modes_kept
from pemeta.utils.signatures import checked


@checked(model=None, batch_size=1, max_tokens=1)
@torch.no_grad()
def predict(
    model: PEModel, data: Examples[Decoded, Scored], task: str, batch_size: int = 32, max_tokens: int | None = None
) -> list[Decoded]:
    """The model's predictions for all examples, in the order of ``data``.

    For sentences, a list of tags, one per word (``O`` for a word that was cut off, or that has no token in the
    vocabulary; :meth:`pemeta.Server.predict` cuts nothing off); for texts, the name of a class; for blocks of running
    text, the log-probability of each token after the first. The model is run in evaluation mode, and its mode is
    restored afterwards.

    Args:
        model: the model; its ``padding`` says how examples of different lengths run.
        data: the examples.
        task: name of the task.
        batch_size: number of examples in a batch, which are of similar length.
        max_tokens: most tokens of a batch, in place of ``batch_size``.

    Raises:
        DataError: the task's head is for another kind of task, other labels, or a vocabulary of another size.
        ModelError: a token is not in the model's vocabulary.
    """
    require_model(model, "predict")
    found = _of_all(model, data, task, _Passes(batch_size, max_tokens), _predictions)
    return [data.decode(row, index) for index, row in enumerate(found)]


@checked(model=None, batch_size=1, max_tokens=1)
@torch.no_grad()
def probabilities(
    model: PEModel, data: Examples[Decoded, Scored], task: str, batch_size: int = 32, max_tokens: int | None = None
) -> list[list[float]]:
    """The probability of each class (C,) for all examples, in the order of ``data``.

    The arguments are those of :func:`predict`; the examples are texts of which each is of one class.

    Raises:
        DataError: the task's head is for another kind of task, other labels, or it makes a prediction per position.
        ModelError: a token is not in the model's vocabulary.
    """
    require_model(model, "probabilities")
    if data.per_position:
        raise DataError(
            f"probabilities are those of the classes of a whole example; found examples of {data.kind}, with a "
            "prediction per position; use predict"
        )
    return _of_all(model, data, task, _Passes(batch_size, max_tokens), _softmax)


def _predictions(logits: torch.Tensor, batch: Batch, head: Head) -> torch.Tensor:
    return head.predictions(logits, batch)


def _softmax(logits: torch.Tensor, batch: Batch, head: Head) -> torch.Tensor:
    return logits.double().softmax(-1)


class _Passes(NamedTuple):
    """How many examples a pass has."""

    batch_size: int
    max_tokens: int | None


def _of_all(
    model: PEModel,
    data: Examples[Any, Any],
    task: str,
    passes: _Passes,
    of_logits: Callable[[torch.Tensor, Batch, Head], torch.Tensor],
) -> list[Any]:
    """What is made of the logits of each example, as numbers, in the order of the data."""
    found: dict[int, Any] = {}
    _check_labels(model, data, task)
    with modes_kept(model), masks_once(model.backbone):
        model.eval()
        parts = list(_batches(model, data, *passes))
        batches = in_turn(lambda part: pinned(data.batch(parts[part]), model.device), len(parts), model.device)
        for indices, made in zip(parts, batches, strict=True):
            batch = model.placed(made)
            logits = model(batch, task)
            _check_outputs(logits, data, task)
            found |= zip(indices, of_logits(logits, batch, model.head(task)).tolist(), strict=True)
    return [found[i] for i in range(len(data))]


def _batches(
    model: PEModel, data: Examples[Decoded, Scored], batch_size: int, max_tokens: int | None
) -> Iterator[list[int]]:
    """Indices of all examples in batches of similar length, longest first."""
    if max_tokens is None:
        return data.by_length(batch_size)
    lengths = data.lengths()
    order = np.argsort(-lengths, kind="stable")
    own = model.padding == "packed" and model.packs
    cut = cut_by_tokens(order, lengths, max_tokens, padded=not own)
    return (indices.tolist() for indices in cut)


def _check_labels(model: PEModel, data: Examples[Decoded, Scored], task: str) -> None:
    """Refuse data with as many labels as the head but different ones, whose indices would be misread.

    And pairs of texts for a head that labels single ones, or the reverse.
    """
    try:
        spec = model.head_spec(task)
    except ModelError:  # the head was made by a function, or is missing, which is reported when it is used
        return
    labels: tuple[str, ...] | None = getattr(spec, "labels", None)
    same = labels is None or spec.name != data.kind or len(labels) != len(data.outputs) or labels == data.outputs
    if not same:
        raise DataError(
            f"the head of task {task!r} has the labels {', '.join(labels or ())}, but the data "
            f"{data.describe_outputs()}; encode it with the head's labels, in their order"
        )
    problem: str | None = getattr(spec, "problem", None)
    if problem is not None and spec.name == data.kind and problem != getattr(data, "problem", problem):
        raise DataError(
            f"the head of task {task!r} is for {problem}, but the data is {getattr(data, 'problem', '')}; encode it "
            f"with problem={problem!r}"
        )
    pairs: bool | None = getattr(spec, "pairs", None)
    if pairs is not None and spec.name == data.kind and pairs != data.pairs:
        raise DataError(
            f"the head of task {task!r} labels {_texts(pairs)}, but the data has {_texts(data.pairs)}; encode it as "
            f"the training examples were, or make the head with pairs={data.pairs}"
        )


def _texts(pairs: bool) -> str:
    return "pairs of texts" if pairs else "single texts"


def _check_outputs(logits: torch.Tensor, data: Examples[Decoded, Scored], task: str) -> None:
    """Refuse data of a kind, or with a number of labels, that the head was not made for."""
    if (logits.dim() == 3) != data.per_position:
        given, needed = ("position", "example") if logits.dim() == 3 else ("example", "position")
        raise DataError(
            f"the head of task {task!r} makes one prediction per {given}, but {data.kind} needs one per {needed}; "
            "evaluate on data of the kind that the head was made for"
        )
    if logits.shape[-1] != len(data.outputs):
        raise DataError(
            f"the head of task {task!r} has {counted(logits.shape[-1], 'label')}, but the data has {len(data.outputs)} "
            f"({data.describe_outputs()}); evaluate on data with the labels that the head was made for"
        )


@checked(model=None, batch_size=1, max_tokens=1)
def evaluate(
    model: PEModel, data: Examples[Decoded, Scored], task: str, batch_size: int = 32, max_tokens: int | None = None
) -> Scored:
    """Scores of the model's predictions: for entities, for classes, or perplexity, depending on the kind of ``data``.

    The arguments are those of :func:`predict`.

    Raises:
        DataError: the task's head is for another kind of task, other labels, or a vocabulary of another size.
    """
    require_model(model, "evaluate")
    judge: Any = data.judge or data.scores
    return judge(predict(model, data, task, batch_size, max_tokens))  # type: ignore[no-any-return]


WAYS: Mapping[Reads, Callable[..., list[Any]]] = {
    "predictions": predict,
    "probabilities": probabilities,
    "log_probabilities": predict,
}
"""What makes predictions in the terms that metrics read; those of running text are log-probabilities."""
