"""Checks of a grid's data before the first long stage, so that no later stage fails because of it."""

from __future__ import annotations

from collections.abc import Sequence

from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.experiments.build import Builder
from pemeta.experiments.config import Run
from pemeta.training.finetuning import check_examples


def check_data(builder: Builder, runs: Sequence[Run]) -> None:
    """Read and encode all data of some runs, and report what was truncated.

    Raises:
        DataError: a language is missing, or its data is malformed or too little to prime on.
        ModelError: the backbone cannot be loaded.
        MissingLearn2LearnError: priming needs learn2learn.
    """
    config = builder.config
    primers = [config.primer(name) for name in dict.fromkeys(run.setting for run in runs)]
    algorithms = [setting.priming for setting in primers if setting is not None and setting.priming is not None]
    for algorithm in algorithms:
        algorithm.require()
    builder.say(f"device {builder.device}; reading data and backbone")
    targets = {(run.target, config.sizes_of(run.setting)): None for run in runs}
    for run in runs:  # reads the data: a wrong language is found before a backbone is pretrained
        builder.data_digest(run)
    encoded: dict[str, Examples] = {}
    if algorithms:
        sources = builder.sources()
        encoded |= {f"{task.name} train": task.train for task in sources}
        for algorithm in algorithms:
            algorithm.sampler(sources, config.seeds[0])
        validated = any(config.validates(run.setting) for run in runs)
        for task, validation in builder.validation_tasks() if validated else ():
            check_examples(task, validation)
            encoded |= {f"{task.name} train": task.train, f"{task.name} validation": validation}
    for language, sizes in targets:
        target = builder.target(language, sizes)
        parts = {"train": target.task.train, "validation": target.validation, config.scored_on: target.test}
        for split, data in parts.items():
            known = encoded.get(f"{language} {split}")
            if known is None or len(known) < len(data):  # of several sizes the largest, which has the others' sentences
                encoded[f"{language} {split}"] = data
    for what, data in encoded.items():
        if isinstance(data, Encoded) and data.num_truncated:
            longest = max(map(len, data.input_ids))
            builder.say(
                f"{what}: {data.num_truncated} of {len(data)} sentences are longer than {longest} tokens; "
                f"{data.num_cut_words} words were cut, which count as O in scores"
            )
