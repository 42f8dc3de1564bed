"""Records: one JSON file per fine-tuning run, with everything needed to trace its score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt, PlainSerializer, ValidationError, model_validator

from pemeta.errors import OutputError
from pemeta.reporting.old_records import is_old, upgraded
from pemeta.reporting.scale import metric_named
from pemeta.utils.digests import slug
from pemeta.utils.files import read_json, write_json
from pemeta.utils.registry import Frozen, describe
from pemeta.utils.signatures import checked


def _as_text(numbers: Sequence[float]) -> str:
    """Numbers as one line of the file, instead of one line each; whole ones without a point."""
    return " ".join(str(int(number)) if float(number).is_integer() else repr(float(number)) for number in numbers)


def _from_text(value: Any) -> Any:
    """The numbers of such a line, whole ones as integers."""
    if not isinstance(value, str):
        return value
    return [int(number) if number.lstrip("-").isdigit() else float(number) for number in value.split()]


Counts: TypeAlias = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_from_text), PlainSerializer(_as_text)]
Numbers: TypeAlias = Annotated[tuple[float, ...], BeforeValidator(_from_text), PlainSerializer(_as_text)]


class Record(Frozen):
    """The outcome of fine-tuning and testing one setting on one target with one seed.

    Scores are values of metrics: those that tables show in percent are fractions from 0 to 1 here, and a loss is not
    negated. ``fraction_adapted`` is what a task stores (θ_a and its head) over all parameters of the model with that
    head; ``seconds`` is wall time of fine-tuning and evaluation. A file of before there were several kinds of task is
    read as a record of token classification.
    """

    setting: str
    label: str
    """The setting's name in tables, such as ``meta-primed → adapter``."""
    method: str
    priming: str | None
    """The priming algorithm's name, or None without priming."""
    inner_method: str | None
    inner_steps: int | None
    sources: tuple[str, ...]
    target: str
    seed: int
    task: str
    """The kind of task, by its name in a configuration."""
    unit: str
    """The word for a test example, such as ``sentence``."""
    metric: str
    """The main metric, by its name."""
    metric_settings: dict[str, Any] = Field(default_factory=dict)
    """Its settings that are not the defaults, such as the number of bins."""
    score: float
    """The main metric of all test examples."""
    scores: dict[str, float]
    """Every metric of all test examples, the main one among them, by name."""
    scores_by: dict[str, float]
    """The main metric of each class, entity type or other part of the test examples by itself."""
    by: str = ""
    """What they are, such as ``F1 per entity type``."""
    score_unseen: float | None
    """The main metric of the test examples that are not also a training example of the target or of a source, by what
    the kind of task compares; None if there are none."""
    num_unseen: int
    outcomes: dict[str, Numbers]
    """What the main metric needs to know of each test example, by column, so that it can be computed again on any
    sample of them. A column ``gold`` is what the data says, whatever was predicted."""
    unseen: Counts
    """Indices of the test examples that ``score_unseen`` is computed on."""
    test_digest: str | None = None
    """Digest of the test examples; None in files of before it was kept."""
    validation_metric: str
    """The metric of validation examples, by which epochs are compared."""
    validation_score: float
    """The best one of ``validation_curve``."""
    validation_curve: tuple[float, ...]
    """The metric of the validation examples after each epoch of fine-tuning."""
    steps_per_epoch: int
    """Fine-tuning steps per epoch."""
    best_epoch: int
    num_train: int
    num_test: int
    num_truncated: int
    """Test examples longer than ``max_length``, which were cut."""
    cut: str = ""
    """What becomes of what is cut off, such as ``cut words count as O``."""
    num_adapted: int
    fraction_adapted: float
    seconds: float
    priming_seconds: float | None
    skipped_steps: int = 0
    """Fine-tuning steps skipped because a loss or gradient was not finite (``not_finite: skip``)."""
    skipped_priming_steps: int = 0
    """Outer steps of priming skipped for the same reason."""
    packed: bool = False
    """Whether the backbone ran on rows of examples in fine-tuning, where ``padding`` asked for it."""
    packed_priming: bool = False
    """The same of priming."""
    gradient_sentences: int | None
    """Source examples whose loss contributed to θ_p's gradient, counted as often as seen; None without priming."""
    config: dict[str, Any]
    """The resolved configuration of this one run."""
    digest: str
    """Digest of ``config``; equal exactly when the configurations are."""
    data_digest: str
    """Digest of the data that the run was trained and tested on."""
    packages: dict[str, str]
    hardware: dict[str, str | int]

    @model_validator(mode="before")
    @classmethod
    def _of_old_files(cls, value: Any) -> Any:
        """Take a record of entities' F1, as it was when there was no other metric."""
        return upgraded(value) if isinstance(value, dict) and is_old(value) else value

    @property
    def scored_on(self) -> str:
        """The split that the scores are of, which is ``test``, or ``validation`` in a search.

        It is in ``config`` alone: a field of its own would be missing in the records that exist.
        """
        return str(self.config.get("scored_on", "test"))

    @property
    def summary(self) -> str:
        """Name and value of the main metric, for the terminal."""
        metric = metric_named(self.metric)
        return f"{metric.label} {metric.shown(self.score)}"

    @property
    def filename(self) -> str:
        """The record's file name, which is readable and unique to its (setting, target, seed)."""
        return self.filename_of(self.setting, self.target, self.seed)

    @staticmethod
    def filename_of(setting: str, target: str, seed: int) -> str:
        """The file name of a record that may not exist yet."""
        return f"{slug(setting)}__{slug(target)}__seed{seed}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Write a record under ``folder/records`` and return its path."""
    path = folder / "records" / record.filename
    write_json(path, record.model_dump(mode="json"))
    return path


@checked()
def read_record(path: str | Path) -> Record:
    """Read a record from its file.

    Raises:
        OutputError: the file is missing, is not JSON, or is not a record.
    """
    try:
        return Record.model_validate(read_json(Path(path)))
    except ValidationError as error:
        raise OutputError(
            f"{path} is not a record of this version: {describe(error, Record)}; remove it to have it recreated"
        ) from None


@checked()
def read_records(folder: str | Path) -> list[Record]:
    """Read every record of an output folder, in the order of file names.

    Raises:
        OutputError: the folder has no records, or one of them cannot be read.
    """
    folder = Path(folder)
    paths = sorted((folder / "records").glob("*.json"))
    if not paths:
        raise OutputError(f"no records in {folder / 'records'}; run `pemeta run CONFIG` with output={folder} first")
    return [read_record(path) for path in paths]
