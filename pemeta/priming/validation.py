"""Validation during priming: brief fine-tuning on tasks that are neither primed on nor tested."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pemeta.data.examples import Examples
from pemeta.errors import ConfigError, TrainingError
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.training.callbacks.base import Validation
from pemeta.training.example_checks import check_examples
from pemeta.training.finetuning import finetune
from pemeta.training.finetuning_settings import FineTuning
from pemeta.utils.distributed import Processes
from pemeta.utils.signals import Stopped


class PrimingValidation:
    """Scores a model that is being primed by what it is primed for: fine-tuning on other tasks.

    The score is the mean, over the tasks, of the best main score of a brief fine-tuning. The model is afterwards what
    it was before. Of several processes each fine-tunes on its share of the tasks.

    Args:
        tasks: Pairs of a task with its training examples, and the examples that score it.
        settings: Of the fine-tuning.
        seed: Of the heads and the order of examples, the same each time.
        processes: Those that prime together.

    Raises:
        ConfigError: Two tasks have one name, or they are of different kinds, whose scores have no mean.
    """

    def __init__(
        self, tasks: Sequence[tuple[Task, Examples]], settings: FineTuning, seed: int, processes: Processes
    ) -> None:
        names = [task.name for task, _ in tasks]
        kinds = {task.train.kind for task, _ in tasks}
        if len(set(names)) < len(names):
            raise ConfigError(f"validation tasks need different names; found {names}")
        if len(kinds) > 1:
            raise ConfigError(
                f"validation tasks must be of one kind, or their scores have no mean; found {', '.join(sorted(kinds))}"
            )
        self.tasks, self.settings, self.seed, self.processes = tuple(tasks), settings, seed, processes

    def check(self, sources: Sequence[Task], model: PEModel) -> None:
        """Refuse a validation task that is a source task too, has a head already, or cannot be fine-tuned.

        Raises:
            ConfigError: One is a source task, the model has a head for it, which validation would replace, or there
                will be no head that it could start from.
            DataError: One has no training or validation examples, or they do not fit each other.
        """
        primed_on = {task.name for task in sources}
        if both := [task.name for task, _ in self.tasks if task.name in primed_on]:
            raise ConfigError(f"validation task {both[0]!r} is a source task too; validate on tasks not primed on")
        if kept := [task.name for task, _ in self.tasks if task.name in model.tasks]:
            raise ConfigError(
                f"the model has a head for validation task {kept[0]!r}, which validation would replace; remove it with "
                "drop_head, or give the validation task another name"
            )
        heads = [task.make_head for task in sources]
        odd = [task.name for task, _ in self.tasks if task.make_head not in heads]
        if odd and self.settings.head == "primed":
            raise ConfigError(
                f"validation task {odd[0]!r} cannot start from a primed head, because no source task has its labels; "
                "validate on other tasks, or set validation_finetuning.head: new"
            )
        for task, examples in self.tasks:
            check_examples(task, examples)

    def digests(self) -> dict[str, list[str]]:
        """Of each task's data."""
        return {task.name: [task.train.digest(), examples.digest()] for task, examples in self.tasks}

    def score(self, model: PEModel, step: int) -> Validation:
        """The model's score after a step.

        Raises:
            TrainingError: A loss or score is not finite; the step and the task are named.
            Stopped: The run was interrupted meanwhile.
        """

        def own() -> dict[str, float] | None:
            try:
                return {
                    task.name: self._fine_tuned(model, task, data) for task, data in self.processes.share(self.tasks)
                }
            except Stopped:  # an error of one process alone would leave the others waiting
                return None
            except TrainingError as error:
                raise TrainingError(f"validation of priming after step {step}: {error}") from None

        found = self.processes.all(own)
        if any(part is None for part in found):
            raise Stopped("priming was interrupted in its validation")
        scores = {name: score for part in found if part is not None for name, score in part.items()}
        mean = statistics.fmean(scores[task.name] for task, _ in self.tasks)
        return Validation(step, mean, f"validation {mean:.3f}", scores)

    def _fine_tuned(self, model: PEModel, task: Task, data: Examples) -> float:
        """The best validation score of fine-tuning on a task; the model is as before."""
        before = model.state(model.partition().theta_a)
        try:
            return max(finetune(model, task, data, self.settings, seed=self.seed, progress=False).validation_scores)
        finally:
            model.load_state(before)
            if task.name in model.tasks:
                model.drop_head(task.name)
