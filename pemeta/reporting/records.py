"""Records: one JSON file per fine-tuning run, with everything needed to trace its score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, NonNegativeInt, PlainSerializer, ValidationError

from pemeta.errors import OutputError
from pemeta.utils.digests import slug
from pemeta.utils.files import read_json, write_json
from pemeta.utils.registry import Frozen, describe
from pemeta.utils.signatures import checked


def _as_text(counts: tuple[int, ...]) -> str:
    """Counts as one line of the file, instead of one line per number."""
    return " ".join(map(str, counts))


def _from_text(value: Any) -> Any:
    return [int(count) for count in value.split()] if isinstance(value, str) else value


Counts: TypeAlias = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_from_text), PlainSerializer(_as_text)]


class Record(Frozen):
    """The outcome of fine-tuning and testing one setting on one target with one seed.

    Scores are fractions from 0 to 1; ``fraction_adapted`` is what a task stores (θ_a and its head) over all
    parameters of the model with that head; ``seconds`` is wall time of fine-tuning and evaluation.
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
    f1: float
    precision: float
    recall: float
    f1_per_type: dict[str, float]
    f1_unseen: float
    """F1 on the test sentences whose words are not also a training sentence of the target or of a source."""
    num_unseen: int
    correct: Counts
    """Entities found with the right type and boundaries in each test sentence; micro F1 follows from these three."""
    predicted: Counts
    gold: Counts
    unseen: Counts
    """Indices of the test sentences that ``f1_unseen`` is computed on."""
    validation_f1: float
    validation_curve: tuple[float, ...]
    """F1 on the validation sentences after each epoch of fine-tuning."""
    steps_per_epoch: int
    """Fine-tuning steps per epoch."""
    best_epoch: int
    num_train: int
    num_test: int
    num_truncated: int
    """Test sentences longer than ``max_length``; the words cut off are scored as ``O``."""
    num_adapted: int
    fraction_adapted: float
    seconds: float
    priming_seconds: float | None
    skipped_steps: int = 0
    """Fine-tuning steps skipped because a loss or gradient was not finite (``not_finite: skip``)."""
    skipped_priming_steps: int = 0
    """Outer steps of priming skipped for the same reason."""
    packed: bool = False
    """Whether the backbone ran on rows of sentences in fine-tuning, where ``padding`` asked for it."""
    packed_priming: bool = False
    """The same of priming."""
    gradient_sentences: int | None
    """Source sentences whose loss contributed to θ_p's gradient, counted as often as seen; None without priming."""
    config: dict[str, Any]
    """The resolved configuration of this one run."""
    digest: str
    """Digest of ``config``; equal exactly when the configurations are."""
    data_digest: str
    """Digest of the data that the run was trained and tested on."""
    packages: dict[str, str]
    hardware: dict[str, str | int]

    @property
    def scored_on(self) -> str:
        """The split that the scores are of, which is ``test``, or ``validation`` in a search.

        It is in ``config`` alone: a field of its own would be missing in the records that exist.
        """
        return str(self.config.get("scored_on", "test"))

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
