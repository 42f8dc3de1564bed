"""Reading a configuration from a YAML file and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pemeta.errors import ConfigError, excerpt, reason, shortened, unknown_name
from pemeta.experiments.config import GridConfig
from pemeta.utils.registry import describe
from pemeta.utils.signatures import checked
from pemeta.utils.strict_yaml import read_yaml


@checked()
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> GridConfig:
    """A configuration from a YAML file and ``key=value`` overrides.

    Args:
        path: the file.
        overrides: for example ``finetuning.epochs=3``; keys are dotted paths, values YAML.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; its path is named.
    """
    path = Path(path)
    try:
        raw = read_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from None
    except ConfigError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    except ValueError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {reason(error)}; check the path") from None
    if not isinstance(raw, dict):
        keys = ", ".join((*GridConfig.model_fields, *GridConfig.other_keys))
        raise ConfigError(f"{path}: expected a mapping with {keys}; found {excerpt(raw)}")
    for override in overrides:
        _override(raw, override)
    try:
        return GridConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, GridConfig)}") from None


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"expected key=value, such as finetuning.epochs=3; found {excerpt(override)}")
    try:
        value = read_yaml(text)
    except ConfigError as error:
        problem = getattr(error.__cause__, "problem", None) or reason(error)
        shown = f"{excerpt(override)}: the value is not YAML ({shortened(problem)})"
        raise ConfigError(f"{shown}; put quotes around text") from None
    settings = raw.get("settings")
    if parts[0] == "settings" and len(parts) > 2 and isinstance(settings, dict) and parts[1] not in settings:
        raise ConfigError(f"{excerpt(override)}: {unknown_name('setting', parts[1], map(str, settings))}")
    place = raw
    for depth, part in enumerate(parts[:-1]):
        here = ".".join(parts[: depth + 1])
        below = place.get(part, {})
        if isinstance(below, str):  # a name stands for a mapping with only that name
            below = {"name": below}
        if not isinstance(below, dict):
            raise ConfigError(f"{excerpt(override)}: {here} is {excerpt(below)} and has no keys")
        place[part] = dict(below)  # a copy, because a YAML alias may have put the same mapping elsewhere too
        place = place[part]
    place[parts[-1]] = value
