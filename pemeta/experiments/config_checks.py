"""What the keys of a configuration must have in common, so that every run of its grid is possible."""

from __future__ import annotations

from typing import Any

from pemeta.errors import ConfigError, unknown_name
from pemeta.experiments.config_keys import GridKeys
from pemeta.experiments.setting import Setting


def check(config: GridKeys) -> None:
    """Refuse a grid whose keys contradict each other.

    Raises:
        ValueError: a list names something twice, a setting names what is not there, or a task would be learned from
            data that it must not see.
        ConfigError: a data source cannot tell the tasks apart, or has none of their kind.
    """
    _check_lists(config)
    for name, setting in config.settings.items():
        _check_primer(config, name, setting)
    primed = [name for name, setting in config.settings.items() if setting.priming is not None]
    if primed and not config.sources:
        raise ValueError(f"setting {primed[0]!r} primes the model, but sources is empty; add sources: [...]")
    for name, setting in config.settings.items():
        _check_parts(config, name, setting)
        _check_search(config, name, setting)
    searches = any(setting.candidates for setting in config.settings.values())
    if searches and (both := set(config.seeds) & set(config.search.seeds)):
        raise ValueError(f"search.seeds: {min(both)} is also one of the grid's seeds; search with other seeds")
    _check_validation_tasks(config)
    _check_tasks(config)
    _check_report(config)


def _check_lists(config: GridKeys) -> None:
    lists: list[tuple[str, tuple[Any, ...]]] = [
        ("targets", config.targets),
        ("sources", config.sources),
        ("seeds", config.seeds),
        ("validation_tasks", config.validation_tasks),
        ("trackers", config.trackers),
        ("search.seeds", config.search.seeds),
        ("search.targets", config.search.targets or ()),
    ]
    for name, setting in config.settings.items():
        lists += [(f"settings.{name}.{key}", getattr(setting, key) or ()) for key in ("targets", "seeds")]
    for what, values in lists:
        if len(set(values)) < len(values):
            raise ValueError(f"{what}: duplicate value in {list(values)}; remove one")


def _check_tasks(config: GridKeys) -> None:
    for name in config.source_tasks:
        if name not in config.sources:
            raise ValueError(f"source_tasks: {unknown_name('source', name, config.sources)}")
    for key, kind in config.kinds.items():
        if kind.output not in (None, config.language_model):
            raise ValueError(
                f"{key}: {kind.name} needs a backbone that is a {kind.output}, and other tasks need a "
                f"{config.language_model}; choose one of the two"
            )
    _check_apart(config)


def _check_apart(config: GridKeys) -> None:
    """Refuse tasks that a source cannot tell apart; those of a source of their own need not differ from others."""
    sources, targets = config.sources, (*config.targets, *config.validation_tasks, *(config.search.targets or ()))
    if config.data_of_sources == config.data:
        config.data.check_tasks(tuple(dict.fromkeys((*sources, *targets))))
        return
    config.data.check_tasks(tuple(dict.fromkeys(targets)))
    try:
        config.data_of_sources.check_tasks(tuple(dict.fromkeys(sources)))
    except ConfigError as error:
        raise ConfigError(f"source_data: {error}") from None


def _check_validation_tasks(config: GridKeys) -> None:
    taken = {"sources": config.sources, "targets": config.targets, "search.targets": config.search.targets or ()}
    for key, others in taken.items():
        if both := sorted(set(config.validation_tasks) & set(others)):
            raise ValueError(f"validation_tasks: {both[0]!r} is one of the {key} too; validate on other tasks")
    validated = [
        name
        for name, setting in config.settings.items()
        if any(one.validates for one in [setting, *map(setting.having, setting.candidates)])
    ]
    if validated and not config.validation_tasks:
        raise ValueError(f"setting {validated[0]!r} has validate_every; add validation_tasks: [...]")
    if config.validation_tasks and not validated:
        raise ValueError("validation_tasks: no setting's priming has validate_every; add it, or remove this key")


def _check_parts(config: GridKeys, name: str, setting: Setting) -> None:
    for key, whole in (("targets", config.targets), ("seeds", config.seeds)):
        for value in getattr(setting, key) or ():
            if value not in whole:
                there = f"{value!r} is not one of the grid's {key}, {list(whole)}"
                raise ValueError(f"settings.{name}.{key}: {there}; add it to {key}, or remove it here")


def _check_primer(config: GridKeys, name: str, setting: Setting) -> None:
    if setting.primed_as is None:
        return
    if setting.primed_as not in config.settings:
        unknown = unknown_name("setting", setting.primed_as, config.settings)
        raise ValueError(f"settings.{name}.primed_as: {unknown}")
    if config.settings[setting.primed_as].priming is None:
        raise ValueError(f"settings.{name}.primed_as: setting {setting.primed_as!r} has no priming of its own")


def _check_search(config: GridKeys, name: str, setting: Setting) -> None:
    values: dict[str, Any] = {}
    for chooser in setting.chosen_by:
        other = config.settings.get(chooser)
        if other is None:
            raise ValueError(f"settings.{name}.search: {unknown_name('setting', chooser, config.settings)}")
        if not other.candidates:
            raise ValueError(f"settings.{name}.search: setting {chooser!r} has no candidates of its own")
        values |= other.candidates[0]
    for candidate in [values, *setting.candidates]:
        tried = setting.having(candidate)
        tried.check_head(name, config.settings)
        of_sources = {config.kind_of_source(source).name for source in config.sources}
        if tried.finetuning.head == "primed" and config.task.name not in of_sources:
            raise ValueError(
                f"settings.{name}.finetuning.head: a primed head is one for {' or '.join(sorted(of_sources))}, which "
                f"the sources are, and the targets are {config.task.name}; set head: new"
            )


def _check_report(config: GridKeys) -> None:
    for what, named, known in (
        ("setting", config.report.settings_named(), config.settings),
        ("target", config.report.targets_named(), config.targets),
    ):
        for name in sorted(named - set(known)):
            raise ValueError(f"report: {unknown_name(what, name, known)}")
