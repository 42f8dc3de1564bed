"""Keys at the top of a configuration that belong elsewhere: defaults of settings, and keys of the kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pemeta.errors import ConfigError, FieldError, excerpt, unknown_name
from pemeta.experiments.setting import Sizes
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.tasks.kinds import TaskKind, kinds
from pemeta.training.finetuning_settings import FineTuning
from pemeta.utils.registry import Frozen, problems

DEFAULTED = ("priming", "finetuning")
"""Top-level keys whose mappings are defaults for the settings."""
OF_KINDS = tuple(dict.fromkeys(key for kind in kinds().values() for key in kind.at_the_top))
"""Top-level keys that belong to the kind of task."""
MOVED = (*DEFAULTED, *OF_KINDS)
"""Top-level keys that stand elsewhere in what is read."""


def with_defaults(whole: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its defaults merged into its settings, and what belongs to the kind of task within ``task``.

    Raises:
        ConfigError: no setting could use one of the defaults, or the tasks are of another kind than a key is for.
    """
    _check_defaults(whole)
    rest = {key: item for key, item in whole.items() if key not in MOVED}
    if own := {key: whole[key] for key in OF_KINDS if key in whole}:
        rest["task"] = _with_own(whole.get("task", "token_classification"), own)
    if isinstance(whole.get("settings"), Mapping):
        settings = whole["settings"].items()
        rest["settings"] = {name: _with_defaults(str(name), setting, whole) for name, setting in settings}
    if "search" in whole:
        rest["search"] = _with_sizes(whole["search"], whole)
    return rest


def _with_own(task: Any, own: Mapping[str, Any]) -> Any:
    """A kind of task with keys that stand at the top of the configuration; where it has one too, both must be equal."""
    given = task.to_config() if isinstance(task, TaskKind) else {"name": task} if isinstance(task, str) else task
    if not isinstance(given, Mapping):
        return task  # what is wrong with it is said where it is read
    kind = kinds().get(str(given.get("name")))
    for key, value in own.items():
        if kind is not None and key not in kind.at_the_top:
            of = " and ".join(name for name, one in kinds().items() if key in one.at_the_top)
            raise ConfigError(f"{key}: a key of {of}; the tasks are {kind.name}; remove it")
        if given.get(key, value) != value:
            raise ConfigError(f"{key}: expected {excerpt(given[key])} as in task; found {excerpt(value)}; remove one")
    return {**own, **given}


def _check_defaults(whole: Mapping[str, Any]) -> None:
    """Refuse defaults that no setting could use, with the path where they were given."""
    for key in DEFAULTED:
        if not isinstance(whole.get(key, {}), Mapping | None):
            raise ConfigError(f"{key}: expected a mapping of defaults; found {excerpt(whole[key])}")
    try:
        FineTuning.model_validate(whole.get("finetuning") or {})
    except ValidationError as error:
        found = [(f"finetuning.{path}", text) for path, text in problems(error, FineTuning)]
        raise FieldError("defaults", found) from None
    known = {"name"}.union(*(member.model_fields for member in PrimingAlgorithm.members().values()))
    unknown = [str(key) for key in whole.get("priming") or {} if key not in known]
    if unknown:
        raise FieldError("defaults", [(f"priming.{key}", unknown_name("key", key, known)) for key in unknown])


def _with_defaults(name: str, setting: Any, whole: Mapping[str, Any]) -> Any:
    """A setting, with the top-level defaults for keys that it does not give itself."""
    setting = _with_sizes(setting, whole)
    if not isinstance(setting, Mapping):
        return setting
    merged = dict(setting)
    for key in DEFAULTED:
        default = whole.get(key)
        if default is None or (key == "priming" and setting.get(key) is None):
            continue
        own = setting.get(key) or {}
        own = {"name": own} if isinstance(own, str) else own
        if not isinstance(own, Mapping):
            raise ConfigError(f"settings.{name}.{key}: expected a name or a mapping; found {excerpt(own)}")
        if key == "priming":  # a preset's values go with its name: a setting of another name has none of the default's
            named = {item: value for item, value in default.items() if item != "name"}
            own, default = (
                PrimingAlgorithm.expanded(own),
                named if "name" in own else PrimingAlgorithm.expanded(default),
            )
        merged[key] = {**_suitable(key, default, own), **own}
    return merged


def _with_sizes(part: Any, whole: Mapping[str, Any]) -> Any:
    """A part of a configuration, with the grid's limits on the targets' data where it gives none itself."""
    own, run = _sizes_given(part), _sizes_given(whole)
    if not own or not run:
        return part
    merged = {**run, **own}
    if isinstance(part, Frozen):
        return part.model_copy(update={"target_sizes": Sizes.model_validate(merged)})
    return {**part, "target_sizes": merged}


def _sizes_given(part: Any) -> dict[str, Any]:
    """The limits on the targets' data that a part of a configuration gives, as a mapping or parsed."""
    sizes = part.get("target_sizes") if isinstance(part, Mapping) else getattr(part, "target_sizes", None)
    if isinstance(sizes, Sizes):
        return sizes.model_dump(exclude_unset=True)
    return dict(sizes) if isinstance(sizes, Mapping) else {}


def _suitable(key: str, default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that a setting can use: of those for priming, only the keys of its own algorithm."""
    algorithm = PrimingAlgorithm.members().get(str(own.get("name", default.get("name"))))
    if key != "priming" or algorithm is None:
        return dict(default)
    return {name: value for name, value in default.items() if name == "name" or name in algorithm.model_fields}
