"""Configurations of data that has been looked at: a small one, and a whole one with comments."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemeta.data.look import Reading, RowLook
from pemeta.data.token_files.formats import as_yaml
from pemeta.errors import ConfigError, unknown_name
from pemeta.methods import PEMethod
from pemeta.tasks.kinds import TaskKind
from pemeta.utils.strict_yaml import read_value

STEPS = 100
"""Steps in which a tiny backbone is pretrained: seconds."""
MODELS = {"token_classification": "bert-base-multilingual-cased", "sequence_classification": "FacebookAI/roberta-base"}
"""The model that a configuration mentions, in place of which the user is to choose one."""
CAUSAL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CAUSAL = ("completion", "language_model")
"""Kinds of tasks for causal language models."""
METHODS = {"token_classification": "adapter"}
"""The method of a kind of task: the paper's for its own, and LoRA, which every server knows, for the others."""
LINE = 100
"""Longest line of a configuration, for what can be several."""
NAMES = 12
"""Columns that the names of facts take."""
WIDTH = 80
"""Longest line of a comment, unless it is a single word, or a place in the file with what stands there."""
SET = 16
"""Examples in a support set and in a query set, the default of priming."""
LENGTHS = (64, 128, 256, 512)
"""Most tokens of an example, of which the least is taken that nearly all need."""
_WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True)
class Choices:
    """What a user has chosen for a new configuration; None where nothing was.

    Attributes:
        backbone: The name or folder of a model.
        method: A PE method as a configuration has it.
        sources: Tasks to prime on.
        targets: Tasks to fine-tune on.
        output: Folder of all that runs write.
    """

    backbone: str | None = None
    method: str | None = None
    sources: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    output: str | None = None


def small_configuration(reading: Reading, backbone: str | None = None) -> Iterator[str]:
    """Lines of a small configuration of some data.

    Args:
        reading: How the data is read.
        backbone: The name or folder of a model; None for a tiny one, and a comment on how to choose another.
    """
    tasks = list(reading.tasks)
    method = usual_method(reading)
    yield from _task(reading)
    yield from _data(reading.settings)
    yield ""
    yield f"output: {yaml_of(f'runs/{Path(tasks[0]).name}')}"
    yield from _backbone(reading, backbone)
    yield f"targets: {yaml_of(tasks)}"
    yield "settings:"
    yield f"  {method}: {{method: {method}}}"


def whole_configuration(reading: Reading, choices: Choices, file: str) -> Iterator[str]:
    """Lines of a configuration that runs as it stands, with comments.

    Args:
        reading: How the data is read.
        choices: What the user has chosen.
        file: Name of the configuration's file.

    Raises:
        ConfigError: A task is not there.
    """
    sources, targets = usual_tasks(reading, choices)
    method = choices.method or usual_method(reading)
    output = choices.output or usual_output(file)
    yield from _metrics(reading)
    yield from _whole_task(reading, choices.backbone)
    yield ""
    yield "# Where the examples are."
    yield from _data(reading.settings)
    yield ""
    yield "# All that runs write: records, models, the report. The same command goes on from there."
    yield f"output: {yaml_of(output)}"
    yield from _backbone(reading, choices.backbone)
    yield ""
    if sources:
        yield from comment("Tasks that the model is primed on; then those that it is fine-tuned and scored on.")
        yield f"sources: {yaml_of(list(sources))}"
    else:
        yield from comment(
            "Tasks that the model is fine-tuned and scored on. Priming needs others besides, as sources: [...]."
        )
    yield f"targets: {yaml_of(list(targets))}"
    yield ""
    yield from _settings(method, bool(sources))
    yield ""
    yield from _training(reading, choices, sources)


def usual_method(reading: Reading) -> str:
    """The method of a kind of task."""
    return METHODS.get(reading.look.kind, "lora")


def usual_output(file: str) -> str:
    """The folder of what a configuration's runs write."""
    return f"runs/{Path(file).stem}"


def usual_tasks(reading: Reading, choices: Choices) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tasks to prime on, and those to fine-tune on: by default the last quarter of several.

    Raises:
        ConfigError: A task that was chosen is not there, or none is left.
    """
    tasks = list(reading.tasks)
    for key, chosen in (("sources", choices.sources), ("targets", choices.targets)):
        for name in chosen or ():
            if name not in tasks:
                raise ConfigError(f"--{key}: {unknown_name('task', name, tasks)}")
    targets = choices.targets
    if targets is None:
        left = [name for name in tasks if name not in (choices.sources or ())]
        if not left:
            raise ConfigError("--sources: all tasks are sources, and none is left to fine-tune on; name fewer")
        targets = tuple(left if choices.sources else left[-math.ceil(len(left) / 4):])  # fmt: skip
    sources = choices.sources
    if sources is None:
        sources = tuple(name for name in tasks if name not in targets)
    return sources, targets


def yaml_of(value: Any) -> str:
    """A value in YAML, on one line, whatever characters a path has."""
    text = as_yaml(value)
    return text if text.isprintable() else json.dumps(value)


def comment(text: str, name: str = "") -> Iterator[str]:
    """A text as lines of comments; what has a name stands in a column beside it."""
    start = f"#   {name:<{NAMES}}" if name else "# "
    rest = "#".ljust(len(start))
    yield from textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=rest, **_WHOLE)


def task_setting(look: RowLook) -> str | dict[str, str]:
    """The kind of task, as a configuration has it."""
    if look.guess.problem == "single_label":
        return look.kind
    return {"name": look.kind, "problem": look.guess.problem}


def _task(reading: Reading) -> Iterator[str]:
    """The kind of task, unless it is the default."""
    if isinstance(reading.look, RowLook):
        yield f"task: {yaml_of(task_setting(reading.look))}"


def _whole_task(reading: Reading, backbone: str | None) -> Iterator[str]:
    """The kind of task, with the head that transformers' own class has too."""
    look = reading.look
    if not isinstance(look, RowLook) or look.kind != "sequence_classification":
        yield from _task(reading)
        return
    given = task_setting(look)
    named = {"name": given} if isinstance(given, str) else given
    head = {"pooling": "last", "bias": False} if _is_causal(backbone) else {"pooling": "first"}
    yield from comment("The head reads one token, as that of transformers' own class, so that it can be exported.")
    yield f"task: {yaml_of({**named, **head})}"


def _is_causal(backbone: str | None) -> bool:
    """Whether a folder holds a causal language model; what is on a hub is taken for an encoder."""
    try:
        config = json.loads((Path(backbone or "") / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    named = config.get("architectures") if isinstance(config, dict) else None
    return any(str(name).endswith("ForCausalLM") for name in named or ())


def _metrics(reading: Reading) -> Iterator[str]:
    """What the tasks are scored by."""
    look = reading.look
    kind: TaskKind[Any] = TaskKind.parse(task_setting(look) if isinstance(look, RowLook) else look.kind)
    first, *others = (metric.label for metric in kind.scored_by)
    also = f"; the report also has {' and '.join(others)}" if others else ""
    yield from comment(f"The kind of the tasks. Epochs and settings are compared by {first}{also}.")


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    yield "data:"
    for key, value in data.items():
        line = f"  {yaml_of(key)}: {yaml_of(value)}"
        if isinstance(value, Mapping) and len(line) > LINE:
            yield f"  {yaml_of(key)}:"
            yield from (f"    {yaml_of(name)}: {yaml_of(item)}" for name, item in value.items())
        else:
            yield line


def _backbone(reading: Reading, backbone: str | None) -> Iterator[str]:
    """The model, and how long examples are for it."""
    causal = reading.look.kind in CAUSAL
    length = _max_length(reading)
    if backbone is None:
        texts = "texts" if isinstance(reading.look, RowLook) else "sentences"
        yield from comment(f"A tiny model, trained here on these {texts}, to try things out; for results:")
        model = CAUSAL_MODEL if causal else MODELS.get(reading.look.kind, MODELS["sequence_classification"])
        yield f"#   backbone: {_pretrained(model)}"
        shape: dict[str, Any] = {"steps": STEPS}
        if length is not None and not causal:
            shape["max_length"] = length
        yield f"backbone: {yaml_of({'name': 'tiny_causal' if causal else 'tiny', 'transformer': shape})}"
    else:
        yield f"backbone: {_pretrained(backbone)}"
    if length is not None and length > 128:
        yield from comment("Most tokens of an example; what is longer is cut, and counted.")
        yield f"max_length: {length}"


def _max_length(reading: Reading) -> int | None:
    """Most tokens of an example, about what nearly all need; None for the default."""
    if not isinstance(reading.look, RowLook):
        return None
    tally = reading.look.tally
    words = tally.quantile(0.95) + max(tally.completions, default=0)
    return next((length for length in LENGTHS if length >= 3 * words), LENGTHS[-1])


def _pretrained(path: str) -> str:
    return yaml_of({"name": "pretrained", "path": path})


def _settings(method: str, primes: bool) -> Iterator[str]:
    """Rows of the table: with and without priming, if there is something to prime on."""
    value = read_value(method, "a method's name", "{name: lora, rank: 4}")
    PEMethod.parse(value)  # so that a wrong one is found before the file is there
    name = str(value.get("name", "method")) if isinstance(value, Mapping) else str(value)
    yield "# Rows of the report's table: what fine-tuning adapts, and what comes before it."
    yield "settings:"
    yield f"  {name}: {{method: {yaml_of(value)}}}"
    if primes:
        yield f"  {name}-primed: {{method: {yaml_of(value)}, priming: meta}}"


def _training(reading: Reading, choices: Choices, sources: Sequence[str]) -> Iterator[str]:
    """Defaults of the settings' fine-tuning and priming."""
    tiny = choices.backbone is None
    yield "# Fine-tuning of every setting: passes over the training examples, and AdamW's peak rate."
    yield f"finetuning: {yaml_of({'epochs': 5, 'batch_size': 16, 'lr': 1e-3})}"
    if not sources:
        return
    yield "# Priming: outer steps, and the examples of a task that its inner loop sees and is judged by."
    fewest = min(reading.tasks[name] for name in sources)
    share = 1.0 - 0.1 * len([split for split in reading.sets[0].held_out if split not in reading.again])
    size = max(1, min(SET, int(share * fewest) // 2))
    priming: dict[str, Any] = {"outer_steps": 50 if tiny else 1000, "support_size": size, "query_size": size}
    if tiny:
        priming["outer_lr"] = 1e-3
    yield f"priming: {yaml_of(priming)}"
    yield "# Every setting is run on every target once per seed; more seeds give standard errors."
    yield "seeds: [0]"
