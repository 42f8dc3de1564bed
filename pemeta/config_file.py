"""Reading a configuration from a YAML file and overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pemeta.config import RunConfig
from pemeta.errors import ConfigError, excerpt, reason, unknown_name
from pemeta.registry import describe


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not the loss of the first, and text is what files can hold."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if re.search("[\0\ud800-\udfff]", node.value):
            raise yaml.composer.ComposerError(
                None, None, f"text that no file can hold, {node.value!r}", node.start_mark
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return node


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A configuration from a YAML file and ``key=value`` overrides.

    Args:
        path: the file.
        overrides: such as ``finetuning.epochs=3``; keys are dotted paths, values YAML.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; its path is named.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), _StrictLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date with a 13th month, for one
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping with {', '.join(RunConfig.model_fields)}; found {excerpt(raw)}")
    for override in overrides:
        _override(raw, override)
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, RunConfig)}") from None


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"expected key=value, such as finetuning.epochs=3; found {override!r}")
    try:
        value = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or reason(error)
        raise ConfigError(f"{override!r}: the value is not YAML ({problem}); put quotes around text") from None
    settings = raw.get("settings")
    if parts[0] == "settings" and len(parts) > 2 and isinstance(settings, dict) and parts[1] not in settings:
        raise ConfigError(f"{override!r}: {unknown_name('setting', parts[1], map(str, settings))}")
    place = raw
    for depth, part in enumerate(parts[:-1]):
        here = ".".join(parts[: depth + 1])
        below = place.get(part, {})
        if isinstance(below, str):  # a name stands for a mapping with only that name
            below = {"name": below}
        if not isinstance(below, dict):
            raise ConfigError(f"{override!r}: {here} is {excerpt(below)} and has no keys")
        place[part] = dict(below)  # a copy, because a YAML alias may have put the same mapping elsewhere too
        place = place[part]
    place[parts[-1]] = value
