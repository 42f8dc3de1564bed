"""The inner loops of several tasks at once: one pass over the examples of all, in which each has θ_a of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pemeta.backbone.joined_batches import split_hidden
from pemeta.backbone.layer_reuse import TRANSFORMED, SharedGraph, is_compiled
from pemeta.backbone.row_groups import Groups, NotByRowsError, by_groups, find_holders
from pemeta.priming.group_trial import Examined, joined_rows, number_of_rows, own_tensors, trial_of, unlike
from pemeta.priming.inner_checks import InnerLosses, check_used
from pemeta.priming.inner_rules.base import Moments
from pemeta.priming.learner import PrimingLearner
from pemeta.priming.narrow_copies import narrow_once
from pemeta.priming.placing import find_places, placed
from pemeta.typing import Batch


class Values(NamedTuple):
    """What the tasks of a group compute with.

    Attributes:
        theta_a: by name, the values of all tasks (G, ...).
        heads: by name, for each task those of its head.
    """

    theta_a: dict[str, Tensor]
    heads: list[dict[str, Tensor]]

    def of(self, task: int) -> dict[str, Tensor]:
        """The values of one task."""
        return {**{name: value[task] for name, value in self.theta_a.items()}, **self.heads[task]}


class TaskGroup:
    """Clones of a learner for several tasks, whose inner loops run as one.

    The examples of all tasks go through the backbone behind each other. What holds θ_a computes with each task's values
    on that task's examples, as batched products (:mod:`pemeta.backbone.row_groups`); each task's head gets its own
    hidden states. The tasks do not depend on each other, so that one derivative of the sum of their losses has each
    task's gradients. Memory is that of all tasks' passes.

    Args:
        clones: fresh clones of one learner, each for a task.

    Attributes:
        clones: the clones, which have no values of the group's until :meth:`part`.
        values: the present values.
        path: the values after each step, if the clones keep them.
    """

    def __init__(self, clones: Sequence[PrimingLearner]) -> None:
        self.clones, first = list(clones), clones[0]
        theta_a = set(first.partition.theta_a)
        own = [clone.adapted_parameters() for clone in clones]
        with torch.inference_mode(False), torch.enable_grad():
            stacked = {name: torch.stack([values[name] for values in own]) for name in first.partition.theta_a}
        heads = [{name: value for name, value in values.items() if name not in theta_a} for values in own]
        self.values, self.path = Values(stacked, heads), list[Values]()
        self._model = first.model
        self._trial = trial_of(self._model)
        self._holders = find_holders(self._model, theta_a)
        self._places = find_places(self._model, theta_a)
        self._places_of_heads = [find_places(self._model, values) for values in heads]
        self._moments: list[Moments] = [{kind: dict(own) for kind, own in clone.moments.items()} for clone in clones]
        self._by_element = first.rule.joins_tasks and not any(self._moments)
        self._joined: dict[tuple[int, ...], tuple[Sequence[Batch], Batch | None]] = {}

    @staticmethod
    def fits(learner: PrimingLearner) -> bool:
        """Whether clones of a learner may form a group, as far as is known without a pass."""
        if type(learner) is not PrimingLearner or learner.method is None:  # a subclass may adapt in another way
            return False
        compiled = is_compiled(learner.model)
        return learner.method.by_example and bool(learner.partition.theta_a) and not compiled

    def joins(self, batches: Sequence[Batch]) -> bool:
        """Whether a batch for each task can run as one with the losses that each has by itself; tried on first use."""
        return self._whole(batches) is not None

    def losses(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The loss of each task on its batch, at the present values.

        Raises:
            NotByRowsError: they depend on each other in this pass; :meth:`joins` says no from then on.
        """
        return self.losses_at(self.values, batches)

    def losses_at(self, values: Values, batches: Sequence[Batch]) -> list[Tensor]:
        """The same at other values."""
        return [loss for _, loss in self._verified_results(values, batches)]

    def _verified_results(self, values: Values, batches: Sequence[Batch]) -> list[tuple[Tensor, Tensor]]:
        first, whole = self.clones[0], self._whole(batches)
        if whole is None:
            raise NotByRowsError
        try:
            with first.attention(), torch.inference_mode(False), torch.enable_grad(), self._all_verified():
                return self._results(values, batches, whole)
        except NotByRowsError:
            self._trial.refuse(self._examined(batches, whole))
            self._joined.clear()
            raise

    def _results(self, values: Values, batches: Sequence[Batch], whole: Batch) -> list[tuple[Tensor, Tensor]]:
        """For each task its hidden states and loss; within a block that lets nothing else compute with the model."""
        found, owner = [], self.clones[0]
        groups = Groups(len(batches), number_of_rows(whole))
        with placed(self._model, owner, self._places, values.theta_a), by_groups(self._holders, groups):
            parts = split_hidden(self._model.transformed(whole), batches)
        for clone, batch, hidden, places, own in zip(
            self.clones, batches, parts, self._places_of_heads, values.heads, strict=True
        ):
            with placed(self._model, owner, places, own):
                loss = self._model.loss({**own_tensors(batch), TRANSFORMED: hidden}, clone.task or "")
            found.append((hidden, loss))
        return found

    @contextmanager
    def _all_verified(self) -> Iterator[None]:
        """Let nothing else compute with the model, which is what it was when the clones were made."""

        def verify() -> None:
            for clone in self.clones:
                clone.verify()

        with placed(self._model, self.clones[0], (), {}, verify):
            yield

    def adapt_to(self, batches: Sequence[Sequence[Batch]]) -> bool:
        """Run the inner loops: a step of all tasks on each batch of theirs; losses are left for who reads them.

        Args:
            batches: for each task, as many batches as there are steps.

        Returns:
            Whether that was possible; if not, the tasks have to run one after the other, with new clones.

        Raises:
            ModelError: what :meth:`PrimingLearner.adapt_to` refuses.
        """
        first, measured = self.clones[0], list[list[Tensor]]()
        if not all(map(self.joins, zip(*batches, strict=True))):
            return False
        try:
            with first.theta_p_constant() if first.first_order else nullcontext(), self._narrow(batches):
                for number, together in enumerate(zip(*batches, strict=True)):
                    losses = self.losses(together)
                    measured.append([loss.detach() for loss in losses])
                    self._step(losses, number)
        except NotByRowsError:
            return False
        except BaseException:
            self.values, self.path, self._moments = Values({}, []), [], []  # an error's traceback may keep the group
            raise
        for clone, own, before in zip(self.clones, batches, zip(*measured, strict=True), strict=True):
            clone.inner_losses = InnerLosses(before, [batch.get("labels") for batch in own], clone.inner_lr)
        return True

    def _narrow(self, batches: Sequence[Sequence[Batch]]) -> AbstractContextManager[None]:
        """Copies of θ_p in autocast's type within the block, whose passes are on these batches."""
        first, together = self.clones[0], [own[0] for own in batches]

        def results() -> list[Tensor]:
            return [one for pair in self._verified_results(self.values, together) for one in pair]

        values = [*self.values.theta_a.values(), *(value for own in self.values.heads for value in own.values())]
        return narrow_once(first, first.partition.theta_p if first.first_order else (), batches[0], results, values)

    def _step(self, losses: Sequence[Tensor], number: int) -> None:
        first, (theta_a, heads) = self.clones[0], self.values
        every = [*theta_a.items(), *(pair for values in heads for pair in values.items())]
        with torch.inference_mode(False), torch.enable_grad():
            total = torch.stack(list(losses)).sum() * first.loss_scale
            found: Sequence[Tensor | None] = torch.autograd.grad(
                total, [value for _, value in every], create_graph=not first.first_order, allow_unused=True
            )
            if first.loss_scale != 1:
                found = [None if gradient is None else gradient / first.loss_scale for gradient in found]
            own = iter(found)
            of_theta_a = _there(zip(theta_a, own, strict=False))
            of_heads = [_there(zip(values, [next(own) for _ in values], strict=True)) for values in heads]
            for clone, values, gradients in zip(self.clones, heads, of_heads, strict=True):
                used = {*of_theta_a, *gradients}
                check_used(used, first.partition.theta_a, tuple(values), True, self._model)
                clone.reached |= used
            move = self._moved_together if self._by_element else self._moved_apart
            self.values = move(of_theta_a, of_heads, number)
        if first.keep_path:
            self.path.append(self.values)

    def _moved_together(
        self, theta_a: Mapping[str, Tensor], heads: Sequence[Mapping[str, Tensor]], number: int
    ) -> Values:
        """The values after a step of a rule that moves each element by itself."""
        first, values = self.clones[0], dict(self.values.theta_a)
        # Names of heads are others, so that the first task's moments can hold those of all tasks' θ_a.
        values.update(first.rule.step(values, theta_a, self._moments[0], number, first.inner_lr))
        moved = []
        for own, gradients, of_head in zip(self.values.heads, heads, self._moments, strict=True):
            moved.append({**own, **first.rule.step(own, gradients, of_head, number, first.inner_lr)})
        return Values(values, moved)

    def _moved_apart(self, theta_a: Mapping[str, Tensor], heads: Sequence[Mapping[str, Tensor]], number: int) -> Values:
        """The values after a step of each task by itself: of a rule that looks at several elements."""
        first, moved = self.clones[0], []
        for task, (gradients, moments) in enumerate(zip(heads, self._moments, strict=True)):
            own, every = self.values.of(task), {name: gradient[task] for name, gradient in theta_a.items()}
            moved.append({**own, **first.rule.step(own, {**every, **gradients}, moments, number, first.inner_lr)})
        stacked = {name: torch.stack([values[name] for values in moved]) for name in self.values.theta_a}
        heads_now = [{name: moved[task][name] for name in own} for task, own in enumerate(self.values.heads)]
        return Values(stacked, heads_now)

    def part(self) -> SharedGraph:
        """Give each clone its own values, and return the graph that they have in common, to differentiate at the end.

        The clones can then be used one after the other.
        """
        common = SharedGraph()
        given, moments = self.with_shared(common, self.values), self._moments_apart(common)
        for task, clone in enumerate(self.clones):
            clone.values, clone.moments, clone.steps = given.of(task), moments[task], len(clone.inner_losses.measured)
        for values in self.path:
            there = given if values is self.values else self.with_shared(common, values)
            for task, clone in enumerate(self.clones):
                clone.path = [*clone.path, there.of(task)]
        return common

    def _moments_apart(self, common: SharedGraph) -> list[Moments]:
        """The moments of each task, as leaves like its values."""
        shared = [
            {kind: {name: common.share(value) for name, value in own.items()} for kind, own in moments.items()}
            for moments in self._moments
        ]
        if not self._by_element:
            return shared
        found: list[Moments] = []
        for task, moments in enumerate(shared):
            of_theta_a = {
                kind: {name: value[task] for name, value in own.items() if name in self.values.theta_a}
                for kind, own in shared[0].items()
            }
            heads = self.values.heads[task]
            found.append(
                {
                    kind: {**own, **{n: v for n, v in moments.get(kind, {}).items() if n in heads}}
                    for kind, own in of_theta_a.items()
                }
            )
        return found

    def conclude(self) -> None:
        """Give each clone its values without the graph, for those who want to know them."""
        for task, clone in enumerate(self.clones):
            clone.values = {name: value.detach() for name, value in self.values.of(task).items()}

    def with_shared(self, common: SharedGraph, values: Values) -> Values:
        """Values as leaves, below which there is a graph that several losses have in common."""
        theta_a = {name: common.share(value) for name, value in values.theta_a.items()}
        return Values(theta_a, [{name: common.share(v) for name, v in own.items()} for own in values.heads])

    def _whole(self, batches: Sequence[Batch]) -> Batch | None:
        """The batches as one; None if they do not go together."""
        key = tuple(map(id, batches))
        if key not in self._joined:
            whole = joined_rows(self._model, batches)
            if whole is not None and not self._trial.same(self._examined(batches, whole)):
                whole = None
            self._joined[key] = batches, whole  # both: an id is one of a batch that lives
        return self._joined[key][1]

    def _examined(self, batches: Sequence[Batch], whole: Batch) -> Examined:
        """What a trial compares: these batches, with values that differ from task to task."""
        owner, model = self.clones[0], self._model

        @cache
        def drawn() -> Values:  # only where there is a trial
            return Values({name: unlike(value) for name, value in self.values.theta_a.items()}, self.values.heads)

        @contextmanager
        def apart(task: int) -> Iterator[None]:
            places = [*self._places, *self._places_of_heads[task]]
            with self._all_verified(), placed(model, owner, places, drawn().of(task)):
                yield

        def together() -> list[tuple[Tensor, Tensor]]:
            with self._all_verified():
                return self._results(drawn(), batches, whole)

        return Examined(model, batches, whole, self.clones, apart, together)


def _there(pairs: Iterable[tuple[str, Tensor | None]]) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in pairs if gradient is not None}
