"""Checks of the examples of a fine-tuning run."""

from __future__ import annotations

from pemeta.data.examples import Examples
from pemeta.errors import DataError
from pemeta.tasks.task import Task


def check_examples(task: Task, validation: Examples) -> None:
    """Check that a task can be fine-tuned with its validation examples.

    Raises:
        DataError: There is no training or no validation example, none to train on has a label, or they are of different
            kinds or labels.
    """
    for what, data in (("training", task.train), ("validation", validation)):
        if not len(data):
            raise DataError(f"task {task.name!r} has no {what} {data.unit}; fine-tuning needs some")
    if not any(map(task.train.has_label, range(len(task.train)))):
        raise DataError(
            f"no training {task.train.unit} of task {task.name!r} has a label: none of its words has a token in the "
            "vocabulary; use a backbone with a tokenizer for this language"
        )
    if validation.kind != task.train.kind:
        raise DataError(
            f"task {task.name!r} is trained on {task.train.kind} and validated on {validation.kind}; encode both alike"
        )
    if validation.outputs != task.train.outputs:
        raise DataError(
            f"task {task.name!r} is trained on the labels {task.train.describe_outputs()} and validated on "
            f"{validation.describe_outputs()}; encode both with one label set"
        )
    problems = [getattr(data, "problem", None) for data in (task.train, validation)]
    if problems[0] != problems[1]:
        raise DataError(
            f"task {task.name!r} is trained on texts with {problems[0]} and validated on {problems[1]}; encode both "
            "with one problem"
        )
    if validation.pairs != task.train.pairs:
        pairs, single = ("trained", "validated") if task.train.pairs else ("validated", "trained")
        raise DataError(
            f"task {task.name!r} is {pairs} on pairs of texts and {single} on single ones; encode both alike"
        )
