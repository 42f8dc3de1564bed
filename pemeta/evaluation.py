"""Predictions of a model and their scores."""

from __future__ import annotations

import dataclasses

import torch

from pemeta.data.encoding import Encoded
from pemeta.devices import to_device
from pemeta.metrics import Scores, entity_scores
from pemeta.model import PEModel


@torch.no_grad()
def predict(model: PEModel, data: Encoded, task: str, batch_size: int = 32) -> list[list[str]]:
    """Predicted IOB2 tags of every word of every sentence, in the order of ``data``.

    A word that was cut off by truncation, or that has no piece in the vocabulary, is predicted ``O``.
    The model is put in evaluation mode and left in the mode it was in.
    """
    tags = [["O"] * len(sentence.words) for sentence in data.sentences]
    was_training = model.training
    model.eval()
    try:
        for indices in data.by_length(batch_size):
            logits = model(to_device(data.batch(indices), model.device), task)
            predicted = model.head(task).predictions(logits).tolist()
            for row, index in zip(predicted, indices, strict=True):
                for word, position in data.first_pieces[index].items():
                    tags[index][word] = data.labels.tags[row[position]]
    finally:
        model.train(was_training)
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

    Computed in evaluation mode, so for passes without dropout. Equal to computing them anew each time, but for
    rounding: a sentence is padded to the length of another batch.
    """
    size = sum(map(len, data.input_ids)) * model.hidden_size * 4
    if data.trunk is not None or not model.reuses_trunk() or size > TRUNK_BYTES:
        return data
    was_training = model.training
    model.eval()
    trunk: dict[int, torch.Tensor] = {}
    for indices in data.by_length(batch_size):
        hidden = model.trunk(to_device(data.batch(indices), model.device)).cpu()
        # Cloned, because a view would keep the whole padded batch alive.
        trunk |= {i: row[: len(data.input_ids[i])].clone() for i, row in zip(indices, hidden, strict=True)}
    model.train(was_training)
    return dataclasses.replace(data, trunk=tuple(trunk[i] for i in range(len(data))))
