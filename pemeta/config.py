"""A run's configuration: frozen pydantic models, read from YAML and overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import yaml
from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, ValidationError, model_validator
from typing_extensions import Self

from pemeta.algorithms import PrimingAlgorithm
from pemeta.backbones import Backbone
from pemeta.data.sources import DataSource
from pemeta.errors import ConfigError, FieldError, excerpt, reason, unknown_name
from pemeta.finetuning import FineTuning
from pemeta.methods.base import AnyMethod
from pemeta.registry import Frozen, describe, problems
from pemeta.results import config_digest

_to_config = PlainSerializer(lambda value: value.to_config())
AnyAlgorithm = Annotated[PrimingAlgorithm, PlainValidator(PrimingAlgorithm.parse), _to_config]
AnyBackbone = Annotated[Backbone, PlainValidator(Backbone.parse), _to_config]
AnyData = Annotated[DataSource, PlainValidator(DataSource.parse), _to_config]


def _printable(text: str) -> str:
    """No control characters and line ends: they break tables, file names and YAML."""
    if not text.isprintable():
        raise ValueError(f"expected printable characters; found {text!r}")
    return text


Printable: TypeAlias = Annotated[str, AfterValidator(_printable)]
# It becomes part of a file's name.
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]

PRIMED_BY = ("backbone", "data", "sources", "source_sizes", "max_length", "precision")
"""Top-level keys that a primed model depends on."""

DEFAULTED = ("priming", "finetuning")
"""Top-level keys whose mappings are the settings' defaults."""


class Sizes(Frozen):
    """How many sentences of each split are used, from its beginning; all of them where null."""

    train: int | None = Field(None, gt=0)
    validation: int | None = Field(None, gt=0)
    test: int | None = Field(None, gt=0)


class Setting(Frozen):
    """One row of the table: a fine-tuning method, and the priming before it if there is any.

    Attributes:
        method: what fine-tuning adapts.
        priming: how the model is primed; not at all where null.
        finetuning: fine-tuning's settings.
        label: the row's name in tables; by default the setting's key.
    """

    method: AnyMethod
    priming: AnyAlgorithm | None = None
    finetuning: FineTuning = FineTuning()
    label: Printable | None = None


class Cell(NamedTuple):
    """One fine-tuning run of a grid."""

    setting: str
    target: str
    seed: int


class RunConfig(Frozen):
    """A grid of settings × targets × seeds on one backbone and one collection of data.

    The top-level keys ``priming`` and ``finetuning`` hold defaults for those of the settings, and are merged
    into them when a configuration is read.

    Attributes:
        output: folder for everything that the run writes.
        backbone: the pretrained encoder.
        data: where the sentences come from.
        targets: languages to fine-tune on.
        settings: rows of the table, in their order.
        sources: languages to prime on.
        seeds: one run of every cell per seed.
        max_length: word pieces per sentence, special tokens included; where null 128, our choice, or the model's
            limit if that is less.
        source_sizes: limits on the source languages' data.
        target_sizes: limits on the target languages' data.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        precision: ``fp32``, or ``bf16`` or ``fp16`` to compute in lower precision where PyTorch's autocast holds that
            safe; parameters stay in their own. float16's losses are scaled.
        checkpoint_layers: gradient checkpointing: keep only what enters each layer for the backward pass, and run the
            layer again there. Less memory, more time, the same results; off, our choice.
        checkpoint_every: outer steps of priming between two checkpoints; 100, our choice.
        save_tasks: keep each cell's fine-tuned values in ``models/``; where null, if they are at most a tenth of the
            model's parameters or a million, our choice: full fine-tuning would fill disks.
        threads: processor threads of PyTorch's operations; its own choice where null. Tiny models are fastest
            with one.
    """

    output: Path
    backbone: AnyBackbone
    data: AnyData
    targets: tuple[Name, ...] = Field(min_length=1)
    settings: dict[Name, Setting] = Field(min_length=1)
    sources: tuple[Name, ...] = ()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    max_length: int | None = Field(None, ge=3)
    source_sizes: Sizes = Sizes()
    target_sizes: Sizes = Sizes()
    device: str = "auto"
    threads: int | None = Field(None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpoint_layers: bool = False
    checkpoint_every: int = Field(100, gt=0)
    save_tasks: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        _check_defaults(value)
        rest = {key: item for key, item in value.items() if key not in DEFAULTED}
        if isinstance(value.get("settings"), Mapping):
            settings = value["settings"].items()
            rest["settings"] = {name: _with_defaults(str(name), setting, value) for name, setting in settings}
        return rest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, values in (("targets", self.targets), ("sources", self.sources), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what} holds a value twice: {list(values)}")
        primed = [name for name, setting in self.settings.items() if setting.priming is not None]
        if primed and not self.sources:
            raise ValueError(f"setting {primed[0]!r} primes the model, but there are no sources; add sources: [...]")
        return self

    @property
    def cells(self) -> list[Cell]:
        """Every fine-tuning run; those that share a primed model follow each other."""
        return [Cell(setting, target, s) for s in self.seeds for setting in self.settings for target in self.targets]

    def priming_config(self, setting: str, seed: int) -> dict[str, Any]:
        """All that a setting's primed model depends on."""
        row = self.settings[setting].model_dump(mode="json")
        whole = self.model_dump(mode="json")
        shared = {key: whole[key] for key in PRIMED_BY}
        return {**shared, "method": row["method"], "priming": row["priming"], "seed": seed}

    def cell_config(self, cell: Cell) -> dict[str, Any]:
        """All that a cell's record depends on."""
        row = self.settings[cell.setting].model_dump(mode="json", exclude={"label"})
        whole = self.model_dump(mode="json")
        # The sources count without priming too: test sentences that they repeat are not scored as unseen.
        shared = {key: whole[key] for key in (*PRIMED_BY, "target_sizes")}
        return {"setting": cell.setting, **row, **shared, "target": cell.target, "seed": cell.seed}

    def primed_name(self, setting: str, seed: int, data_digest: str = "") -> str:
        """Folder name of a primed model; settings that are primed alike, on the same data, share it."""
        algorithm = self.settings[setting].priming
        assert algorithm is not None
        return f"{algorithm.name}-seed{seed}-{config_digest([self.priming_config(setting, seed), data_digest])}"


def _check_defaults(whole: Mapping[str, Any]) -> None:
    """Refuse defaults that no setting could take, at the path where they were given."""
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
    """A setting with the top-level defaults of its own keys under it."""
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
        merged[key] = {**_suitable(key, default, own), **own}
    return merged


def _suitable(key: str, default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that a setting can take: a priming algorithm only those of its own keys."""
    algorithm = PrimingAlgorithm.members().get(str(own.get("name", default.get("name"))))
    if key != "priming" or algorithm is None:
        return dict(default)
    return {name: value for name, value in default.items() if name == "name" or name in algorithm.model_fields}


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
