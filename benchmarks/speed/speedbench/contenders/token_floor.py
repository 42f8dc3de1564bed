"""The least that any exact first-order step of an output method can do without computing padding."""

from __future__ import annotations

import torch
from torch import Tensor

from pemeta.typing import Batch
from speedbench.contenders.base import GradientContender


class TokenFloor(GradientContender):
    """As the floor, over tokens only: the sentences of a set behind each other in rows, with positions that restart.

    Of its own, so that pemeta's way of packing is compared with something: rows of the length that makes the fewest
    operations, filled with the longest sentences first, and a mask that lets a token see its own sentence. For
    backbones whose positions are counted from 0.
    """

    def accumulate(self) -> None:
        for task, support, query in self.sets():
            with torch.no_grad():
                self._hidden_states(support)
            hidden, labels = self._hidden_states(query)
            self.model.loss({"trunk": hidden, "labels": labels}, task).backward()

    def _hidden_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The last hidden states (R, L, D) in rows, and their labels (R, L)."""
        mask = batch["attention_mask"].bool()
        lengths = mask.sum(1).tolist()
        rows = best_rows(lengths, self.model.hidden_size)
        longest = max(sum(lengths[i] for i in row) for row in rows)
        ids, positions = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
        labels, owner = (torch.full((len(rows), longest), -100) for _ in range(2))
        for number, row in enumerate(rows):
            start = 0
            for i in row:
                place = slice(start, start + lengths[i])
                ids[number, place] = batch["input_ids"][i, : lengths[i]].cpu()
                labels[number, place] = batch["labels"][i, : lengths[i]].cpu()
                positions[number, place] = torch.arange(lengths[i])
                owner[number, place] = i
                start += lengths[i]
        apart = owner[:, None, :, None] != owner[:, None, None, :]
        bias = torch.zeros(apart.shape).masked_fill(apart, torch.finfo(torch.float32).min)
        device = self.model.device
        found = self.model.backbone(
            input_ids=ids.to(device), position_ids=positions.to(device), attention_mask=bias.to(device)
        )
        return found.last_hidden_state, labels.to(device)


def best_rows(lengths: list[int], width: int) -> list[list[int]]:
    """Sentences in rows, of the length at which maps and attention take the fewest operations."""
    longest, whole = max(lengths), sum(lengths)
    choices = [in_rows(lengths, size) for size in {longest, *range(longest, whole, 32), whole}]

    def operations(rows: list[list[int]]) -> int:
        size = max(sum(lengths[i] for i in row) for row in rows)
        return len(rows) * size * (6 * width + size)  # times 4 · width: 12 width² of maps, 2 width · size of attention

    return min(choices, key=operations)


def in_rows(lengths: list[int], size: int) -> list[list[int]]:
    """Sentences in rows of up to ``size`` tokens: the longest first, each in the first row that has room."""
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = next((row for row, room in enumerate(left) if room >= lengths[i]), None)
        if fitting is None:
            rows.append([])
            left.append(size)
            fitting = len(rows) - 1
        rows[fitting].append(i)
        left[fitting] -= lengths[i]
    return rows
