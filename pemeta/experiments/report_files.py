"""The report of an output folder: the records that belong to its configuration, in the tables that it describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pemeta.errors import OutputError, PemetaError, counted
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.search import CHOSEN, read_choices, with_choices
from pemeta.reporting.building import build_report
from pemeta.reporting.choices import Choice
from pemeta.reporting.content import Report
from pemeta.reporting.grid import Planned
from pemeta.reporting.records import Record, read_records
from pemeta.reporting.spec import ReportSpec
from pemeta.reporting.tables import listed
from pemeta.utils.registry import describe
from pemeta.utils.signatures import checked
from pemeta.utils.strict_yaml import read_yaml


@checked()
def read_report(folder: str | Path) -> Report:
    """The report on the records of an output folder, as its ``config.yaml`` describes it under ``report``.

    Outdated records, whose configuration is not that of ``config.yaml``, are excluded, and the report says so.

    Raises:
        OutputError: the folder, its records or its ``config.yaml`` cannot be read, or the records do not fit
            together (see :func:`~pemeta.reporting.build_report`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; give the output folder of a grid")
    config = _config(folder / "config.yaml")
    spec = _spec(folder / "config.yaml", config)
    records = read_records(folder)
    choices, current = _current(folder, config, records)
    if records and not current:
        raise OutputError(
            f"{folder} has {counted(len(records), 'record')}, but none of the configuration in its config.yaml; run "
            "the grid again"
        )
    facts = []
    if excluded := len(records) - len(current):
        kept = {record.filename for record in current}
        names = listed(dict.fromkeys(record.label for record in records if record.filename not in kept))
        what = f"{excluded} of {counted(len(records), 'record')}, of another configuration than config.yaml ({names})"
        facts.append(("Excluded", f"{what}; run the grid again"))
    return build_report(current, f"Results: {folder.resolve().name}", _planned(config), spec, choices, facts)


def _current(
    folder: Path, raw: dict[str, Any], records: Sequence[Record]
) -> tuple[dict[str, Choice], Sequence[Record]]:
    """The choices of the search, and the records of the configuration with these choices, with their present labels.

    Records of settings that the configuration does not have are kept, and all records if it is incomplete: nothing is
    known about them.
    """
    try:
        config = GridConfig.model_validate(raw)
    except (ValidationError, PemetaError):
        return {}, records
    choices = read_choices(folder / CHOSEN, config)
    final = with_choices(config, choices)
    kept = []
    for record in records:
        setting = final.settings.get(record.setting)
        if setting is not None:
            run = Run(record.setting, record.target, record.seed)
            if record.digest == final.run_digest(run):
                kept.append(record.model_copy(update={"label": setting.label or record.setting}))
        elif record.setting not in config.settings:
            kept.append(record)
    return choices, kept


def _config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a grid; empty if there is none or it is not a mapping."""
    try:
        config = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # a ConfigError is a ValueError
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot read {path}: {reason}; repair it, or remove it to order rows by name") from None
    return config if isinstance(config, dict) else {}


def _spec(path: Path, config: dict[str, Any]) -> ReportSpec:
    try:
        return ReportSpec.model_validate(config.get("report", {}))
    except ValidationError as error:
        raise OutputError(
            f"{path}: report: {describe(error, ReportSpec)}; repair it, or remove `report` for a table of all scores"
        ) from None


def _planned(config: dict[str, Any]) -> Planned:
    """The runs that a configuration asks for; values of another form than expected are ignored."""
    settings = config.get("settings")
    of_setting = {
        name: setting if isinstance(setting, dict) else {}
        for name, setting in (settings.items() if isinstance(settings, dict) else ())
        if isinstance(name, str)
    }
    return Planned(
        tuple(of_setting),
        _texts(config.get("targets")),
        _integers(config.get("seeds")),
        {name: targets for name, setting in of_setting.items() if (targets := _texts(setting.get("targets")))},
        {name: seeds for name, setting in of_setting.items() if (seeds := _integers(setting.get("seeds")))},
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _integers(value: Any) -> tuple[int, ...]:
    return tuple(item for item in value if type(item) is int) if isinstance(value, list) else ()
