"""What would make a later stage fail, found before the first long one."""

from __future__ import annotations

from collections.abc import Sequence

from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.experiments.config import Run
from pemeta.experiments.stages import Stages


def check_data(stages: Stages, cells: Sequence[Run]) -> None:
    """Read and encode all data of some cells, and say what was cut from it.

    Raises:
        DataError: a language is not there, or its data is not as it should be, or too little to prime on.
        ModelError: there is no backbone.
        MissingLearn2LearnError: priming needs learn2learn.
    """
    config, builder = stages.config, stages.builder
    primers = [config.primer(name) for name in dict.fromkeys(cell.setting for cell in cells)]
    algorithms = [setting.priming for setting in primers if setting is not None and setting.priming is not None]
    for algorithm in algorithms:
        algorithm.require()
    stages.say(f"device {builder.device}; reading data and backbone")
    targets = {(cell.target, config.sizes_of(cell.setting)): None for cell in cells}
    for language, sizes in targets:  # reads the data: a wrong language is found before a backbone is made
        builder.data_digest(language, sizes)
    encoded: dict[str, Examples] = {}
    if algorithms:
        sources = builder.sources()
        encoded |= {f"{task.name} train": task.train for task in sources}
        for algorithm in algorithms:
            algorithm.sampler(sources, config.seeds[0])
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
            stages.say(
                f"{what}: {data.num_truncated} of {len(data)} sentences are longer than {longest} word pieces; "
                f"{data.num_cut_words} words were cut, which count as O in scores"
            )
