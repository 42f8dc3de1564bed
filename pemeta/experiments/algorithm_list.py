"""Descriptions of the priming algorithms and presets: settings, papers and cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pemeta.errors import counted
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.priming.algorithms.presets import PAPERS, PRESETS
from pemeta.utils.strict_yaml import read_value

_EXAMPLE = "{name: meta, inner_steps: 10}"


def describe_algorithms(chosen: Sequence[str]) -> Iterator[str]:
    """Lines that describe each algorithm.

    Args:
        chosen: names of algorithms or presets, or YAML mappings with the key ``name``; their settings are given in
            full. If empty, every algorithm and preset, and the settings that all have in common once, at the end.

    Raises:
        ConfigError: a name or a key is unknown.
    """
    given = [PrimingAlgorithm.parse(read_value(text, "an algorithm's name", _EXAMPLE)) for text in chosen]
    common: Mapping[str, Any] = {} if given else _common()
    for one in given or [kind() for kind in PrimingAlgorithm.members().values()]:
        yield f"{one.name}: {(type(one).__doc__ or '').strip().splitlines()[0].replace('``', '')}"
        yield f"    paper: {one.paper}"
        yield f"    cost: {counted(one.passes, 'forward pass', 'forward passes')} for each task in an outer step"
        yield from (f"    {key} = {_text(item)}" for key, item in _settings(one).items() if key not in common)
    if given:
        return
    for name, preset in PRESETS.items():
        settings = (f"{key}: {_text(item)}" for key, item in preset.items() if key != "name")
        yield f"{name}: {preset['name']} with {', '.join(settings)}"
        yield f"    paper: {PAPERS[name]}"
        passes = counted(PrimingAlgorithm.parse(name).passes, "forward pass", "forward passes")
        yield f"    cost: {passes} for each task in an outer step"
    yield "every algorithm:"
    yield from (f"    {key} = {_text(item)}" for key, item in common.items())


def _common() -> dict[str, Any]:
    """Settings that all algorithms have, with the same defaults."""
    first, *others = (_settings(kind()) for kind in PrimingAlgorithm.members().values())
    return {key: item for key, item in first.items() if all(key in one and one[key] == item for one in others)}


def _settings(algorithm: PrimingAlgorithm) -> dict[str, Any]:
    return {key: item for key, item in algorithm.to_config().items() if key != "name"}


def _text(item: object) -> str:
    """A value as a configuration has it."""
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in item.items()) + "}"
    return item if isinstance(item, str) else json.dumps(item)
