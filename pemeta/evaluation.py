"""Predictions of a model and their scores."""

from __future__ import annotations

import dataclasses

import torch

from pemeta.data.encoding import Encoded
from pemeta.devices import to_device
from pemeta.errors import DataError
from pemeta.metrics import Scores, entity_scores
from pemeta.model import PEModel
from pemeta.partition import modes_kept


@torch.no_grad()
def predict(model: PEModel, data: Encoded, task: str, batch_size: int = 32) -> list[list[str]]:
    """Predicted IOB2 tags of every word of every sentence, in the order of ``data``.

    A word that was cut off by truncation, or that has no piece in the vocabulary, is predicted ``O``.
    The model is put in evaluation mode and left in the mode it was in.

    Raises:
        DataError: the data has another number of labels than the task's head.
    """
    tags = [["O"] * len(sentence.words) for sentence in data.sentences]
    with modes_kept(model):
        model.eval()
        for indices in data.by_length(batch_size):
            logits = model(to_device(data.batch(indices), model.device), task)
            if logits.shape[-1] != len(data.labels):
                raise DataError(
                    f"the head of task {task!r} has {logits.shape[-1]} labels, but the data {len(data.labels)} "
                    f"({', '.join(data.labels.tags)}); evaluate on data with the labels that the head was made for"
                )
            predicted = model.head(task).predictions(logits).tolist()
            for row, index in zip(predicted, indices, strict=True):
                for word, position in data.first_pieces[index].items():
                    tags[index][word] = data.labels.tags[row[position]]
    return tags


def evaluate(model: PEModel, data: Encoded, task: str, batch_size: int = 32) -> Scores:
    """Entity-level scores of the model on sentences, against their gold tags in full length."""
    predicted = predict(model, data, task, batch_size)
    return entity_scores([list(s.tags) for s in data.sentences], predicted, data.labels.types)


TRUNK_BYTES = 2**31
"""Most memory that the hidden states kept by :func:`with_trunk` may take."""


@torch.no_grad()
def with_trunk(model: PEModel, data: Encoded, batch_size: int = 32) -> Encoded:
    """The data with its last hidden states computed once, where θ_a does not change them and they fit in memory.

    For use within one fine-tuning run: they are those of the model as it is now. Computed in evaluation mode, so
    for passes without dropout. Equal to computing them anew each time, but for rounding: a sentence is padded to
    the length of another batch.
    """
    data = dataclasses.replace(data, trunk=None)
    size = sum(map(len, data.input_ids)) * model.hidden_size * 4
    if not model.reuses_trunk() or size > TRUNK_BYTES:
        return data
    trunk: dict[int, torch.Tensor] = {}
    with modes_kept(model):
        model.eval()
        for indices in data.by_length(batch_size):
            hidden = model.trunk(to_device(data.batch(indices), model.device)).cpu()
            # Cloned, because a view would keep the whole padded batch alive.
            trunk |= {i: row[: len(data.input_ids[i])].clone() for i, row in zip(indices, hidden, strict=True)}
    return dataclasses.replace(data, trunk=tuple(trunk[i] for i in range(len(data))))
