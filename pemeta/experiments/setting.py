"""One row of a run's table: what is fine-tuned, what primed, and how open values are chosen."""

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
from pemeta.utils.registry import Frozen, problems

_to_config = PlainSerializer(lambda value: value.to_config())
AnyAlgorithm = Annotated[PrimingAlgorithm, PlainValidator(PrimingAlgorithm.parse), _to_config]


def _printable(text: str) -> str:
    """No control characters and line ends: they break tables, file names and YAML."""
    if not text.isprintable():
        raise ValueError(f"expected printable characters; found {text!r}")
    return text


Printable: TypeAlias = Annotated[str, AfterValidator(_printable)]
# It becomes part of a file's name.
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]


class Sizes(Frozen):
    """How many sentences of each split are used, from its beginning; all of them where null."""

    train: int | None = Field(None, gt=0)
    validation: int | None = Field(None, gt=0)
    test: int | None = Field(None, gt=0)


Grid: TypeAlias = dict[Name, Annotated[tuple[Any, ...], Field(min_length=1)]]
"""Candidate values by dotted key, such as ``{"finetuning.lr": [1e-3, 3e-3]}``."""


class Setting(Frozen):
    """One row of the table: a fine-tuning method, and the priming before it if there is any.

    Attributes:
        method: what fine-tuning adapts.
        priming: how the model is primed; not at all where null.
        primed_as: in place of ``priming``, the name of another setting: fine-tuning starts from that setting's primed
            model, with what its method added. So one primed model can be fine-tuned in several ways.
        finetuning: fine-tuning's settings.
        label: the row's name in tables; by default the setting's key.
        targets: of the run's targets those that this row has; all of them where null.
        seeds: of the run's seeds those that this row has; all of them where null.
        target_sizes: limits on the targets' data; the run's for those that are not given.
        search: values of which the best on validation data is chosen first (see ``search`` of the run), by dotted
            keys that begin with ``method``, ``priming`` or ``finetuning``; every combination is tried. Or names of
            other settings, whose choices are taken over, the last one's first. No search where null.
    """

    method: AnyMethod
    priming: AnyAlgorithm | None = None
    primed_as: Name | None = None
    finetuning: FineTuning = FineTuning()
    label: Printable | None = None
    targets: tuple[Name, ...] | None = Field(None, min_length=1)
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    target_sizes: Sizes | None = None
    search: Grid | Name | tuple[Name, ...] | None = None

    @model_validator(mode="after")
    def _primed_once(self) -> Self:
        if self.primed_as is None:
            return self
        if self.priming is not None:
            raise ValueError(f"primed_as: {self.primed_as!r} and priming exclude each other; leave one of them out")
        if isinstance(self.search, dict):
            raise ValueError(
                "search: a setting that is primed as another one takes over what others have chosen; give their names"
            )
        return self

    def having(self, values: Mapping[str, Any]) -> Setting:
        """The setting with other values.

        Args:
            values: by dotted key, such as ``priming.inner_lr``.

        Raises:
            ConfigError: there is no such key, or it cannot have such a value.
        """
        raw = self.model_dump(mode="json")
        for key, value in values.items():
            *path, last = key.split(".")
            place: Any = raw
            for part in path:
                place = place.get(part) if isinstance(place, dict) else None
            if path[:1] not in (["method"], ["priming"], ["finetuning"]) or not isinstance(place, dict):
                raise ConfigError(
                    f"{key!r}: expected a key of this setting below method, priming or finetuning, such as "
                    "finetuning.lr"
                )
            place[last] = value
        try:
            return type(self).model_validate(raw)
        except ValidationError as error:
            raise FieldError("values", problems(error, type(self))) from None

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values that the search is to try; none where there is nothing to search."""
        if not isinstance(self.search, dict):
            return []
        return [dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values())]

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """Names of the settings whose choices are taken over."""
        if isinstance(self.search, str):
            return (self.search,)
        return self.search if isinstance(self.search, tuple) else ()


class Search(Frozen):
    """How the settings' ``search`` is done: the best mean F1 on validation data, over these runs.

    Test data is not looked at. What is chosen is used for all targets and seeds. All our choice.

    Attributes:
        targets: languages that candidates are tried on; all of the run's where null.
        seeds: of the candidates' runs; they are none of the run's.
        target_sizes: limits on the targets' data, the run's for those that are not given; each setting's own where
            null.
    """

    targets: tuple[Name, ...] | None = Field(None, min_length=1)
    seeds: tuple[int, ...] = Field((1000,), min_length=1)
    target_sizes: Sizes | None = None


def candidate_name(setting: str, values: Mapping[str, Any]) -> str:
    """What the search calls a setting with these values.

    >>> candidate_name("adapter", {"finetuning.lr": 0.003})
    'adapter, finetuning.lr=0.003'
    """
    return ", ".join([setting, *(f"{key}={value}" for key, value in values.items())])
