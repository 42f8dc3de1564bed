"""Checks of a grid's data before the first long stage, so that no later stage fails because of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pemeta.data.examples import Examples
from pemeta.errors import ConfigError
from pemeta.experiments.build import Builder
from pemeta.experiments.config import Run
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.priming.algorithms.primes import BACKBONE
from pemeta.tasks.kinds import TaskKind
from pemeta.training.example_checks import check_examples


def check_data(builder: Builder, runs: Sequence[Run]) -> None:
    """Read and encode all data of some runs, and report what was truncated.

    Raises:
        ConfigError: ``primes`` lists what a model does not have, heads cannot be shared, or a
            metric's package is missing.
        DataError: a task is missing, or its data is malformed or too little to prime on.
        ModelError: the backbone cannot be loaded.
        MissingLearn2LearnError: priming needs learn2learn.
    """
    config = builder.config
    settings = dict.fromkeys(config.settings[run.setting].primed_as or run.setting for run in runs)
    found = {name: config.settings[name].priming for name in settings}
    algorithms = [algorithm for algorithm in found.values() if algorithm is not None]
    for algorithm in algorithms:
        algorithm.require()
    for metric in (config.task.validation_metric, *config.task.scored_by):
        metric.require()
    builder.say(f"device {builder.device}; reading data and backbone")
    targets = {(run.target, config.sizes_of(run.setting)): None for run in runs}
    for run in runs:  # reads the data: a wrong name is found before a backbone is pretrained
        builder.data_digest(run)
    of_sources = [read.collection(name, config.source_sizes) for name, read in builder.of_source.items()]
    collections = [*of_sources, *(builder.of_targets.collection(*one) for one in targets)]
    for note in dict.fromkeys(note for one in collections for note in one.notes):
        builder.say(note)
    encoded: dict[str, tuple[TaskKind[Any], Examples]] = {}
    kind = config.task
    if algorithms:
        sources = builder.sources()
        encoded |= {f"{task.name} train": (config.kind_of_source(task.name), task.train) for task in sources}
        for algorithm in algorithms:
            algorithm.sampler(sources, config.seeds[0])
        validated = any(config.validates(run.setting) for run in runs)
        for task, validation in builder.validation_tasks() if validated else ():
            check_examples(task, validation)
            both = {f"{task.name} train": task.train, f"{task.name} validation": validation}
            encoded |= {what: (kind, data) for what, data in both.items()}
    for name, primer in found.items():
        if primer is not None:
            _check_primes(builder, name, primer)
    for name, sizes in targets:
        target = builder.target(name, sizes)
        check_examples(target.task, target.validation)
        parts = {"train": target.task.train, "validation": target.validation, config.scored_on: target.tested.examples}
        for split, data in parts.items():
            what = f"{name} {split}"
            known = encoded.get(what)
            if known is None or len(known[1]) < len(data):  # of several sizes the largest, which has the others' too
                encoded[what] = (kind, data)
    for what, (kind, data) in encoded.items():
        if line := kind.cut_off(what, data):
            builder.say(line)


def _check_primes(builder: Builder, setting: str, algorithm: PrimingAlgorithm) -> None:
    """Check that the model has what a setting primes; the defaults fit every model, so that none is made for them."""
    usual = type(algorithm)()
    same_method = algorithm.adapted_method == usual.adapted_method
    if algorithm.primes == usual.primes and (same_method or algorithm.primes == BACKBONE):
        return
    model = builder.model(setting, 0)
    algorithm.prepare(model, 0)
    try:
        algorithm.make_heads(model, builder.sources(), 0)
        algorithm.trained(model)
    except ConfigError as error:
        raise ConfigError(f"settings.{setting}.priming: {error}") from None
