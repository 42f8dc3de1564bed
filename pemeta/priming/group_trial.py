"""Whether several tasks can share a pass, each with θ_a of its own, which is tried before it is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pemeta.backbone.attention import attention_of
from pemeta.backbone.checks import check_batch
from pemeta.backbone.joined_batches import agree, compared, concatenate, lengths_of, with_states
from pemeta.backbone.layer_reuse import TRANSFORMED, inputs_of
from pemeta.backbone.packing import is_packed, without_rows
from pemeta.model.pe_model import PEModel
from pemeta.priming.learner import PrimingLearner
from pemeta.typing import Batch


class Examined(NamedTuple):
    """Batches of several tasks that might run as one.

    Attributes:
        model: the model.
        batches: a batch for each task.
        whole: the same as one.
        clones: a clone for each task.
        apart: a block in which the model computes with the values of one task, by its number.
        together: hidden states and loss of each task, from one pass.
    """

    model: PEModel
    batches: Sequence[Batch]
    whole: Batch
    clones: Sequence[PrimingLearner]
    apart: Callable[[int], AbstractContextManager[None]]
    together: Callable[[], list[tuple[Tensor, Tensor]]]

    @property
    def kind(self) -> Hashable:
        """What the answer depends on."""
        model, method = self.model, self.clones[0].method
        heads = frozenset(type(model.head(clone.task or "")) for clone in self.clones)
        how = attention_of(model.backbone), model.backbone.dtype, frozenset(self.whole)
        return method, model.attached, heads, how, *lengths_of(self.batches)


class Trial:
    """What was found about a model: whether the tasks of a group have the hidden states and losses of each by itself.

    They do not where a part that holds θ_a sees something else than the examples one behind the other (an expert's
    tokens), where examples depend on each other or on padding, or where a head reads θ_a. Both are computed once for
    each kind and length, with values that differ from task to task, as they do not before the first step; without
    dropout, without a graph, and without a random number.
    """

    def __init__(self) -> None:
        self._found: list[tuple[Hashable, bool]] = []  # attached methods need not have a hash

    def same(self, examined: Examined) -> bool:
        """Whether a pass of all tasks equals those of each, up to rounding."""
        if any(type(value) is not Tensor for value in examined.whole.values()):
            return True  # tensors without values, when cost is counted
        kind = examined.kind
        for known, answer in self._found:
            if known == kind:
                return answer
        answer = _same(examined)
        self._found.append((kind, answer))
        return answer

    def refuse(self, examined: Examined) -> None:
        """Note that a pass of all tasks was not possible after all."""
        self._found.insert(0, (examined.kind, False))


_trials: WeakKeyDictionary[nn.Module, Trial] = WeakKeyDictionary()


def trial_of(model: PEModel) -> Trial:
    """What was found about a model."""
    return _trials.setdefault(model, Trial())


def _same(examined: Examined) -> bool:
    model = examined.model
    with compared(model), _not_narrowed(model):
        expected = []
        for task, batch in enumerate(examined.batches):
            with examined.apart(task):
                own, name = own_tensors(batch), examined.clones[task].task or ""
                hidden = model.transformed(own)
                expected.append((hidden, model.loss({**own, TRANSFORMED: hidden}, name)))
        try:
            found = examined.together()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a part that holds θ_a may do anything with it
            return False
        tolerance = 1e-3 if model.compute_dtype.itemsize >= 4 else 5e-2
        return all(
            agree(states, others, batch, tolerance) and bool((loss - other).abs() <= tolerance * other.abs())
            for (states, loss), (others, other), batch in zip(found, expected, examined.batches, strict=True)
        )


@contextmanager
def _not_narrowed(model: PEModel) -> Iterator[None]:
    """Compute without autocast, whose rounding would hide a difference, if all parameters are wide anyway."""
    before = model.autocast_dtype
    if all(parameter.dtype.itemsize >= 4 for parameter in model.parameters()):
        model.autocast_dtype = None
    try:
        yield
    finally:
        model.autocast_dtype = before


def unlike(value: Tensor) -> Tensor:
    """Values of several tasks that differ from each other, drawn by a generator of its own."""
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    return value.detach() * (1 + 0.5 * noise) + 0.1 * noise


def joined_rows(model: PEModel, batches: Sequence[Batch]) -> Batch | None:
    """A batch for each task as one, the tasks behind each other; None if they differ in more than their lengths.

    Nor do batches go together that a pass would take in rows of sentences: such a row has no place for a task's values,
    and tasks would have unequally many.
    """
    batches = [own_tensors(batch) for batch in batches]
    if any(is_packed(batch) and "trunk" not in batch for batch in batches):
        return None
    batches = [without_rows(batch) for batch in batches]
    if any(batch.keys() != batches[0].keys() for batch in batches):
        return None
    whole = concatenate(batches, getattr(model.backbone.config, "pad_token_id", None) or 0)
    if whole is None or len({number_of_rows(batch) for batch in batches}) > 1:
        return None
    return with_states(whole, batches)


def number_of_rows(batch: Batch) -> int:
    """Number of examples of a batch."""
    return len(next(iter(inputs_of(batch).values())))


def own_tensors(batch: Batch) -> Batch:
    """A batch that a graph can be made of: tensors of inference mode are copied."""
    return {key: value.clone() if value.is_inference() else value for key, value in check_batch(batch).items()}
