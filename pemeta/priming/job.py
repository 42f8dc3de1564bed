"""Priming as the training loop sees it: a step is the outer gradient of a meta-batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import nn

from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import OuterStep, PrimingAlgorithm, StepLosses
from pemeta.priming.history import PrimingHistory
from pemeta.priming.validation import PrimingValidation
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.training.callbacks.base import StepReport, Validation
from pemeta.training.checkpoints import prefixed, unprefixed
from pemeta.training.job import Gradient, Job
from pemeta.training.optimizer import LossScale, Optimization
from pemeta.training.reach import check_theta_a, check_theta_p
from pemeta.typing import State
from pemeta.utils.ahead import Ahead
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import parameter_dict, state_digest
from pemeta.utils.numerics import precision_of
from pemeta.utils.precision import wide


class PrimingJob(Job):
    """Priming as the training loop sees it.

    Args:
        model: What is primed.
        sampler: Of the meta-batches.
        algorithm: Whose gradients these are.
        seed: Of the run.
        trained: The parameters that the outer optimiser updates.
        validation: What decides which step's values are kept; None keeps the last.
        processes: Those that prime together.
    """

    kind: ClassVar[Literal["priming", "fine-tuning"]] = "priming"
    unit: ClassVar[str] = "step"

    def __init__(
        self,
        model: PEModel,
        sampler: EpisodeSampler,
        algorithm: PrimingAlgorithm,
        seed: int,
        trained: Iterable[nn.Parameter],
        validation: PrimingValidation | None,
        processes: Processes,
    ) -> None:
        self.model, self.sampler, self.algorithm, self.seed = model, sampler, algorithm, seed
        self.validation, self.processes = validation, processes
        self.name, self.total = "priming", algorithm.outer_steps
        self.losses: list[StepLosses] = []
        self.sentences = 0
        self.best: State = {}
        self._unprimed = model.state(model.partition().theta_p) if algorithm.interpolate < 1 else State()
        self._found = StepLosses((), 0.0)
        self._meta_batches = Ahead(self._meta_batch, self.total, model.device)
        self._asked: tuple[tuple[int, int], ...] = ()
        self.optimization = Optimization(
            trained,
            algorithm.outer_lr,
            algorithm.outer_steps,
            algorithm.weight_decay,
            algorithm.warmup_steps,
            algorithm.max_grad_norm,
            LossScale.suited_to(model.compute_dtype),
            kind=algorithm.optimizer,
        )
        self._moved = set(map(id, self.optimization.parameters))
        self._reach_checked = False
        self._packed_before, self._was_packed = model.packed_batches, False
        heads = parameter_dict(model, model.partition().theta_h)
        self._adapted = tuple(name for name, parameter in heads.items() if id(parameter) not in self._moved)

    def history(self) -> PrimingHistory:
        """What has happened so far."""
        best = self.state.best
        return PrimingHistory(
            losses=self.losses,
            seconds=self.state.seconds,
            sentences=self.sentences,
            skipped=self.state.skipped,
            validation_scores=[(one.step, one.score) for one in self.state.validations],
            best_step=None if best is None else best.step,
            packed=self._was_packed or self._has_packed(),
        )

    def _has_packed(self) -> bool:
        """Whether a batch was packed, by priming and not only by a validation's fine-tuning."""
        return self.algorithm.padding != "padded" and self.model.packed_batches > self._packed_before

    def settings(self) -> dict[str, Any]:
        """Methods, source tasks, seed and the algorithm's settings."""
        return {
            "methods": [method.to_config() for method in self.model.attached],
            "sources": [task.name for task in self.sampler.tasks],
            "seed": self.seed,
            "priming": self.algorithm.to_config(),
        }

    def identity(self) -> dict[str, Any]:
        """Everything that the run depends on, the initial values included."""
        tasks = self.sampler.tasks
        validated = {} if self.validation is None else {"validation": self.validation.digests()}
        return {
            "settings": self.algorithm.to_config(),
            "methods": [method.to_config() for method in self.model.attached],
            "data": {task.name: task.train.digest() for task in tasks},
            "heads": {task.name: task.head_config for task in tasks},
            "initial values": state_digest(self.model),
            "seed": self.seed,
            "precision": precision_of(self.model.autocast_dtype, self.model.device),
            **self.model.padding_identity(),
            **validated,
        }

    def values(self) -> State:
        """All values now, and the best ones so far."""
        return prefixed(now=self.model.state(), best=self.best)

    def progress(self) -> dict[str, Any]:
        """The history."""
        return self.history().to_json()

    def restore(self, values: State, progress: Mapping[str, Any]) -> None:
        """Put back values and history."""
        parts = unprefixed(values, "now", "best")
        history = PrimingHistory.from_json(progress)
        self.model.load_state(parts["now"])
        self.losses, self.sentences, self.best = history.losses, history.sentences, parts["best"]
        self._was_packed = history.packed

    def before_step(self) -> State:
        """The heads that take their new values with the gradient, and not from the optimiser."""
        return self.model.state(self._adapted)

    def undo(self, values: State) -> None:
        """Put the heads back."""
        self.model.load_state(values)

    def gradient(self, number: int) -> Gradient:
        """The gradient of a meta-batch."""
        episodes = self._meta_batches.take(number)
        self._found = self.meta_gradient(episodes, number)
        if not self._reach_checked:
            self._check_reach()
        self._asked = next((one.asked for one in self.processes.share(episodes)), ())
        inner = {f"inner/{step}": loss for step, loss in enumerate(self._found.inner, start=1)}
        return Gradient({**inner, "outer": self._found.outer}, sum(map(len, episodes)), sum(map(_tokens, episodes)))

    def _meta_batch(self, number: int) -> list[Episode]:
        """The meta-batch of a step; if it is made ahead, with the batches that the last step has asked for."""
        episodes = self.sampler[number]
        if self._meta_batches.on:
            for episode in self.processes.share(episodes):
                episode.make_ahead(self._asked, self.model.device)
        return episodes

    def meta_gradient(self, episodes: Sequence[Episode], number: int = 0) -> StepLosses:
        """Compute meta-gradient and new heads, in every process; each works on its share of the tasks."""
        own = self.processes.share(episodes)
        step = OuterStep(number, self.optimization.scale.value, self.optimization.optimizer)
        parts = self.processes.all(
            lambda: (len(own), self.algorithm.accumulate(self.model, own, step)) if own else (0, StepLosses((), 0.0))
        )
        self.processes.sum_gradients(self.optimization.parameters)
        self._exchange_heads(episodes)
        return parts[0][1] if self.processes.size == 1 else _mean(parts, len(episodes))

    def _check_reach(self) -> None:
        """Check, once in a session, that a gradient has reached what the run should move; alike in all processes.

        Raises:
            ModelError: None has reached θ_p, θ_a, or what a method has added to a part in use.
        """
        parts = self.model.partition(self.algorithm.adapted_method)
        for names, check in ((parts.theta_a, check_theta_a), (parts.theta_p, check_theta_p)):
            tensors = self.algorithm.tensors_of(self.model, names)
            moved = {name: own for name, own in tensors.items() if any(id(tensor) in self._moved for tensor in own)}
            unreached = [name for name, own in moved.items() if all(tensor.grad is None for tensor in own)]
            check(self.model, tuple(moved), unreached)
        self._reach_checked = True

    def _exchange_heads(self, episodes: Sequence[Episode]) -> None:
        """Give every process the heads that the inner loops of others have adapted."""
        if self.processes.size == 1:
            return
        trained = set(map(id, self.optimization.parameters))
        for index, episode in enumerate(episodes):
            head = self.model.head(episode.task.name).parameters()
            self.processes.copy_from(self.processes.owner(index), [p for p in head if id(p) not in trained])

    def taken(self, gradient: Gradient) -> None:
        """Add the step's losses to the history."""
        self.losses.append(self._found)
        self.sentences += gradient.examples

    def where(self, number: int) -> str:
        """The step."""
        return f"priming, step {number + 1}"

    def summary(self, report: StepReport) -> str:
        """The first and the last inner loss, the outer loss, and the speed."""
        if not self.losses:
            return f"{len(self.state.skipped)} skipped"
        last, speed = self.losses[-1], report.examples / report.seconds if report.seconds else 0.0
        inner = f"inner {last.inner[0]:.3f}→{last.inner[-1]:.3f}, " if last.inner else ""
        return f"{inner}outer {last.outer:.3f}, {speed:.0f}/s"

    def validation_due(self) -> bool:
        """Every ``validate_every`` steps, and after the last step."""
        every = self.algorithm.validate_every
        if self.validation is None or every is None:
            return False
        step = self.state.step
        return len(self.state.validations) < step // every + (step == self.total and step % every != 0)

    def validate(self) -> Validation:
        """Fine-tune briefly on the validation tasks, and keep the values if they are the best."""
        assert self.validation is not None  # or none is due
        self.algorithm.conclude(self.model)
        found = self.validation.score(self.model, self.state.step)
        best = self.state.best
        if best is None or found.score > best.score:
            self.best = self.model.state()
        return found

    def end(self) -> None:
        """What fine-tuning starts from, if the run has come to its end: of the best values, if validation decides."""
        self._meta_batches.close()
        if self.state.outcome not in ("finished", "stopped early"):
            return
        self.model.load_state(self.best)
        self.algorithm.conclude(self.model)
        share, primed = self.algorithm.interpolate, self.model.state(tuple(self._unprimed))
        between = {name: wide(before).lerp(wide(primed[name]), share) for name, before in self._unprimed.items()}
        self.model.load_state(between)


def _mean(parts: Sequence[tuple[int, StepLosses]], tasks: int) -> StepLosses:
    """The mean losses of a meta-batch, from the numbers of tasks and the mean losses of each process."""
    shares = [(size / tasks, losses) for size, losses in parts if size]
    inner = zip(*([share * loss for loss in losses.inner] for share, losses in shares), strict=True)
    return StepLosses(tuple(map(sum, inner)), sum(share * losses.outer for share, losses in shares))


def _tokens(episode: Episode) -> int:
    """Tokens of an episode's examples, without padding."""
    train = episode.task.train
    return sum(train.length(index) for index in (*episode.support_indices, *episode.query_indices))
