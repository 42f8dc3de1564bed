"""One row of a grid's table: its method, its priming, and the search for its hyper-parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, ValidationError, model_validator
from typing_extensions import Self

from pemeta.errors import ConfigError, FieldError
from pemeta.methods.base import AnyMethod
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.training.finetuning_settings import FineTuning
from pemeta.utils.neutral import Neutral
from pemeta.utils.registry import Frozen, problems

_to_config = PlainSerializer(lambda value: value.to_config())
AnyAlgorithm = Annotated[PrimingAlgorithm, PlainValidator(PrimingAlgorithm.parse), _to_config]


def _printable(text: str) -> str:
    """Refuse control characters and line ends: they break tables, file names and YAML."""
    if not text.isprintable():
        raise ValueError(f"expected printable characters; found {text!r}")
    return text


Printable: TypeAlias = Annotated[str, AfterValidator(_printable)]
# A name becomes part of file names.
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]


class Sizes(Frozen):
    """Number of examples used of each split, from its beginning; all of them where null.

    Attributes:
        train: of the training examples.
        validation: of the validation examples.
        test: of the test examples.
        per_class: of the training examples, the first so many of each class; of those that ``train`` leaves.
    """

    train: int | None = Field(None, gt=0)
    validation: int | None = Field(None, gt=0)
    test: int | None = Field(None, gt=0)
    per_class: Annotated[int | None, Neutral(None)] = Field(None, gt=0)

    @property
    def of_splits(self) -> dict[str, int | None]:
        """The limit on each split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


Grid: TypeAlias = dict[Name, Annotated[tuple[Any, ...], Field(min_length=1)]]
"""Candidate values by dotted key, for example ``{"finetuning.lr": [1e-3, 3e-3]}``."""


class Setting(Frozen):
    """One row of the table: a fine-tuning method, and optionally the priming before it.

    Attributes:
        method: the method that fine-tuning adapts.
        priming: the priming algorithm; no priming where null.
        primed_as: instead of ``priming``, the name of another setting: fine-tuning starts from that setting's primed
            model, including the parameters that its method added, so that one primed model can be fine-tuned in several
            ways.
        priming_seed: seed of its priming, so that one primed model is fine-tuned with several seeds; where null, that
            of each run.
        finetuning: fine-tuning's settings.
        label: the row's name in tables; by default the setting's key.
        targets: the grid's targets that this row has; all of them where null.
        seeds: the grid's seeds that this row has; all of them where null.
        target_sizes: limits on the targets' data; the grid's for those that are not given.
        search: candidate values by dotted keys that begin with ``method``, ``priming`` or ``finetuning``; every
            combination is tried first, and the best on validation data is used (see ``search`` of the grid). Or names
            of other settings, whose choices are used; where they differ, the last one's. No search where null.
    """

    method: AnyMethod
    priming: AnyAlgorithm | None = None
    primed_as: Name | None = None
    priming_seed: Annotated[int | None, Neutral(None)] = None
    finetuning: FineTuning = FineTuning()
    label: Printable | None = None
    targets: tuple[Name, ...] | None = Field(None, min_length=1)
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    target_sizes: Sizes | None = None
    search: Grid | Name | tuple[Name, ...] | None = None

    @model_validator(mode="after")
    def _primed_once(self) -> Self:
        if self.priming_seed is not None and self.priming is None:
            where = f"; give it to {self.primed_as!r}" if self.primed_as is not None else ""
            raise ValueError(f"priming_seed: the setting has no priming of its own{where}, or remove it here")
        if self.primed_as is None:
            return self
        if self.priming is not None:
            raise ValueError(f"primed_as: {self.primed_as!r} and priming exclude each other; remove one")
        if isinstance(self.search, dict):
            raise ValueError(
                "search: a setting with primed_as can only use the choices of other settings; give their names"
            )
        return self

    def having(self, values: Mapping[str, Any]) -> Setting:
        """The setting with other values.

        Args:
            values: values by dotted key, for example ``priming.inner_lr``.

        Raises:
            ConfigError: a key does not exist, or cannot have that value.
        """
        raw = self.model_dump(mode="json")
        for key, value in values.items():
            *path, last = key.split(".")
            place: Any = raw
            for part in path:
                place = place.get(part) if isinstance(place, dict) else None
            if path[:1] not in (["method"], ["priming"], ["finetuning"]) or not isinstance(place, dict):
                raise ConfigError(
                    f"{key!r}: expected a key of this setting below method, priming or finetuning, e.g. finetuning.lr"
                )
            if key == "priming.name" and str(value) in PrimingAlgorithm.presets:  # the other keys would override it
                raise ConfigError(
                    f"priming.name: {value!r} is a preset of several keys; write a setting for each preset"
                )
            place[last] = value
        try:
            return type(self).model_validate(raw)
        except ValidationError as error:
            raise FieldError("values", problems(error, type(self))) from None

    def check_head(self, name: str, settings: Mapping[str, Setting]) -> None:
        """Refuse fine-tuning from a primed head where the priming that it starts from leaves none.

        Args:
            name: the setting's name.
            settings: all settings by name, of which ``primed_as`` names one.

        Raises:
            ValueError: there is no priming, or its source tasks have a head each.
        """
        priming = self.priming if self.primed_as is None else settings[self.primed_as].priming
        if self.finetuning.head == "primed" and (priming is None or not priming.shares_heads):
            raise ValueError(
                f"settings.{name}.finetuning.head: primed needs priming with source_heads: shared, so that there is a "
                "head to start from; set that (algorithms with an inner loop have it), or head: new"
            )

    @property
    def validates(self) -> bool:
        """Whether the setting's priming is validated."""
        return self.priming is not None and self.priming.validate_every is not None

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values to search; none without a search."""
        if not isinstance(self.search, dict):
            return []
        return [dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values())]

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """Names of the settings whose choices are used."""
        if isinstance(self.search, str):
            return (self.search,)
        return self.search if isinstance(self.search, tuple) else ()


class Search(Frozen):
    """How the settings' ``search`` chooses: by the best mean score on validation data, over these runs.

    Test data is not used. The chosen values are used for all targets and seeds. All our choice.

    Attributes:
        targets: tasks that candidates are tried on; all of the grid's where null.
        seeds: seeds of the candidates' runs; none of them may be one of the grid's.
        target_sizes: limits on the targets' data; the grid's for those that are not given; each setting's own
            where null.
    """

    targets: tuple[Name, ...] | None = Field(None, min_length=1)
    seeds: tuple[int, ...] = Field((1000,), min_length=1)
    target_sizes: Sizes | None = None


def candidate_name(setting: str, values: Mapping[str, Any]) -> str:
    """The name of a candidate in the search: a setting with some values.

    >>> candidate_name("adapter", {"finetuning.lr": 0.003})
    'adapter, finetuning.lr=0.003'
    """
    return ", ".join([setting, *(f"{key}={value}" for key, value in values.items())])
