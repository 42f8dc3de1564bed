"""A report from a run's folder, and back into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pemeta.config import Cell, RunConfig
from pemeta.errors import OutputError, PemetaError
from pemeta.figures import Picture, how_to_draw, picture
from pemeta.files import replaced_folder, write_text
from pemeta.registry import describe
from pemeta.report.building import build_report
from pemeta.report.content import Report
from pemeta.report.grid import Planned
from pemeta.report.markdown import FIGURES, to_markdown
from pemeta.report.page import to_html
from pemeta.report_spec import ReportSpec
from pemeta.results import Record, config_digest, read_records
from pemeta.search import CHOSEN, Choice, read_choices, with_choices
from pemeta.strict_yaml import read_yaml
from pemeta.tables import listed


def read_report(folder: Path) -> Report:
    """The report on the records of a run folder, as its ``config.yaml`` describes it under ``report``.

    Records of another configuration than ``config.yaml``, which a run would do anew, are left out, and the report says
    so.

    Raises:
        OutputError: the folder, its records or its ``config.yaml`` cannot be read, or the records do not fit
            together (see :func:`build_report`).
    """
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}; give the output folder of a run")
    config = _config(folder / "config.yaml")
    spec = _spec(folder / "config.yaml", config)
    records = read_records(folder)
    choices, current = _current(folder, config, records)
    if records and not current:
        raise OutputError(
            f"no record in {folder} is of the configuration in its config.yaml ({len(records)} are there); run the "
            "grid again"
        )
    facts = []
    if left_out := len(records) - len(current):
        kept = {record.filename for record in current}
        names = listed(dict.fromkeys(record.label for record in records if record.filename not in kept))
        what = f"{left_out} of {len(records)} records, of another configuration than config.yaml ({names})"
        facts.append(("Left out", f"{what}; run the grid again"))
    return build_report(current, f"Results: {folder.resolve().name}", _planned(config), spec, choices, facts)


def _current(
    folder: Path, raw: dict[str, Any], records: Sequence[Record]
) -> tuple[dict[str, Choice], Sequence[Record]]:
    """What was chosen, and the records that the configuration and the choices give, with the labels of today.

    Records of settings that the configuration does not have stay, and all where it is not whole: nothing is known of
    them.
    """
    try:
        config = RunConfig.model_validate(raw)
    except (ValidationError, PemetaError):
        return {}, records
    choices = read_choices(folder / CHOSEN, config)
    final = with_choices(config, choices)
    kept = []
    for record in records:
        setting = final.settings.get(record.setting)
        if setting is not None:
            cell = Cell(record.setting, record.target, record.seed)
            if record.digest == config_digest(final.cell_config(cell)):
                kept.append(record.model_copy(update={"label": setting.label or record.setting}))
        elif record.setting not in config.settings:
            kept.append(record)
    return choices, kept


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.md``, ``report.html`` and the pictures, as PNG and SVG, in ``figures/``, which is made anew.

    Without matplotlib there are no pictures, and the report says how to get them.

    Raises:
        OutputError: the folder cannot be written.
    """
    why = how_to_draw()
    pictures = {} if why else {name: picture(chart) for name, chart in report.drawn.items()}
    if pictures:
        _write_pictures(folder / FIGURES, pictures)
    write_text(folder / "report.md", to_markdown(report, why))
    write_text(folder / "report.html", to_html(report, pictures, why))


def _write_pictures(folder: Path, pictures: dict[str, Picture]) -> None:
    with replaced_folder(folder) as temporary:
        for name, drawn in pictures.items():
            (temporary / f"{name}.png").write_bytes(drawn.png)
            (temporary / f"{name}.svg").write_bytes(drawn.svg)


def _config(path: Path) -> dict[str, Any]:
    """A run's resolved configuration; empty where there is none or it is not a mapping."""
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
    """The runs that a configuration asks for; what it does not give in the expected form is left out."""
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
