"""Types of a configuration's keys, with how they are read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator

from pemeta.data.sources import DataSource
from pemeta.errors import unknown_name
from pemeta.experiments.backbones import Backbone
from pemeta.tasks.kinds import TaskKind
from pemeta.training.callbacks import TRACKERS
from pemeta.utils.in_schema import InSchema

_to_config = PlainSerializer(lambda value: value.to_config())
AnyBackbone = Annotated[Backbone, PlainValidator(Backbone.parse), _to_config]
AnyData = Annotated[DataSource, PlainValidator(DataSource.parse), _to_config]
AnyKind = Annotated[TaskKind[Any], PlainValidator(TaskKind.parse), _to_config]


def _not_empty(path: Any) -> Any:
    """Refuse an empty path, which would mean the working directory."""
    if isinstance(path, str) and not path:
        raise ValueError("input should be a path; found ''")
    return path


def _known_tracker(name: str) -> str:
    if name not in TRACKERS:
        raise ValueError(unknown_name("tracker", name, TRACKERS))
    return name


Output = Annotated[Path, BeforeValidator(_not_empty), InSchema(lambda: {"minLength": 1})]
Tracker = Annotated[str, AfterValidator(_known_tracker), InSchema(lambda: {"enum": sorted(TRACKERS)})]
