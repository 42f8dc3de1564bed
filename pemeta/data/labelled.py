"""Texts as data has them, with labels or without, before they are encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pemeta.data.classes import Problem, number_of, written
from pemeta.data.rows import Row
from pemeta.data.tables.cells import NUMBER, list_in, shows_list
from pemeta.data.turns import Completion
from pemeta.errors import ConfigError, DataError, counted, excerpt, shortened, unknown_name
from pemeta.utils.values import missing, text_problem


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, with its label.

    Attributes:
        text: The text.
        label: Its class; its classes, in the data's order; or its number.
        pair: The second text of a pair.
        where: Where the data has it, for messages; it does not count for equality.
    """

    text: str
    label: str | tuple[str, ...] | float
    pair: str | None = None
    where: str = field(default="", compare=False, repr=False)

    def to_json(self) -> str:
        """All of it as one line of JSON, from which digests are made."""
        return json.dumps([self.text, self.pair, self.label], ensure_ascii=False)


def labelled_texts(
    rows: Iterable[Row], problem: Problem = "single_label", classes: Sequence[str] | None = None
) -> Iterator[LabelledText]:
    """The texts with labels that rows hold, in order.

    Args:
        rows: Rows with the roles :data:`pemeta.data.roles.CLASSIFICATION`.
        problem: What a label is. With ``multi_label`` it is a list, or a text that shows one as JSON or Python write
            it; a text that shows none is one class, and an empty one is no class.
        classes: All classes, if they were given. The label -1 is refused where it is none of them.

    Raises:
        DataError: A text or a label is missing, or of another kind; the message names the row's place.
    """
    pairs: bool | None = None
    known = frozenset(classes or ())
    for row in rows:
        text, pair = _text(row, "text"), _text(row, "text_pair") if "text_pair" in row.values else None
        if pairs is not None and pairs != (pair is not None):
            raise DataError(f"{row.where}: some rows have a second text, and others have none; give each row one")
        pairs = pair is not None
        given = row.values.get("labels", row.values.get("label"))
        label = number_of(given, row.where) if problem == "regression" else _LABELS[problem](given, row.where, known)
        yield LabelledText(text, label, pair, row.where)


def plain_texts(rows: Iterable[Row]) -> Iterator[str]:
    """The texts that rows hold, with the role ``text``, in order.

    Raises:
        DataError: One is missing, empty, or no text; the message names the row's place.
    """
    return (_text(row, "text") for row in rows)


def _text(row: Row, role: str) -> str:
    value = row.values.get(role)
    what = "the text" if role == "text" else "the second text"
    problem = "is missing; remove the row" if missing(value) else text_problem(value)
    if problem is None and not str(value).strip():
        problem = "is empty; remove the row"
    if problem is not None:
        raise DataError(f"{row.where}: {what} {problem}")
    return str(value)


def _class(value: Any, where: str, known: Collection[str]) -> str:
    if isinstance(value, list | tuple | set | dict):
        raise DataError(
            f"{where}: expected one class; found {excerpt(value)}; if a text may have several, set problem: multi_label"
        )
    if missing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where} has no label; remove the row, or give it one")
    name = written(value)
    if name == "-1" and name not in known:
        raise DataError(
            f"{where}: the label -1 marks texts without a label, as in GLUE's test sets: remove them; or, if it is a "
            "class, list all of them: classes: ['-1', ...]"
        )
    if isinstance(value, float):
        raise DataError(f"{where}: expected a class; found the number {value}; for numbers set problem: regression")
    return name


def _classes(value: Any, where: str, known: Collection[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = list_in(value, where, "labels") if shows_list(value) else [value] if value.strip() else []
    if missing(value):
        raise DataError(f"{where} has no labels; give [] for a text of no class, or remove the row")
    if not isinstance(value, list | tuple):
        value = [value]
    names = [_class(one, where, known) for one in value]
    if len(set(names)) < len(names):
        each = "; a row lists the classes of its text, not 0 or 1 for each class" if {*names} <= {"0", "1"} else ""
        raise DataError(f"{where}: a class is there twice in {excerpt(names)}; remove one{each}")
    return tuple(names)


_LABELS: dict[Problem, Any] = {"single_label": _class, "multi_label": _classes}


def classes_in(examples: Iterable[LabelledText]) -> tuple[str, ...]:
    """The classes of texts, sorted: as numbers if all are whole numbers, else as words.

    >>> classes_in([LabelledText("met", "10"), LabelledText("near", "9")])
    ('9', '10')
    """
    found = {name for one in examples for name in _names(one.label)}
    numbers = all(NUMBER.fullmatch(name) for name in found)
    return tuple(sorted(found, key=(lambda name: (int(name), name)) if numbers else None))  # "1" and "01" are two


def check_classes(examples: Iterable[LabelledText], classes: Sequence[str], split: str, given: bool = False) -> None:
    """Refuse texts of a class that is not among those that are learned.

    Args:
        examples: Texts of a split.
        classes: The classes.
        split: Name of the split.
        given: Whether the classes were given, and not found in train.

    Raises:
        DataError: One has another class; the message names the nearest, and how many texts have it.
    """
    known = set(classes)
    odd: dict[str, tuple[str, int]] = {}
    for one in examples:
        for name in _names(one.label):
            if name not in known:
                first, number = odd.get(name, (one.where, 0))
                odd[name] = first, number + 1
    if not odd:
        return
    name, (where, number) = next(iter(odd.items()))
    among = "classes" if given else "the labels of train"
    remedy = "add it to classes" if given else "list all classes: classes: [...], or remove these rows"
    others = f", and {counted(len(odd) - 1, 'other label')}," if len(odd) > 1 else ""
    raise DataError(
        f"{where or split}: the label {name!r} of {counted(number, 'text')} in {split}{others} is not among {among}; "
        f"{shortened(unknown_name('class', name, classes), 300)}; {remedy}"
    )


def _names(label: str | tuple[str, ...] | float) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label if isinstance(label, tuple) else ()


def check_problem(problem: Problem, classes: Sequence[str] | None) -> None:
    """Refuse classes where numbers are learned.

    Raises:
        ConfigError: There are both.
    """
    if problem == "regression" and classes is not None:
        raise ConfigError("regression predicts a number and has no classes; remove classes")


def digest_of(examples: Iterable[LabelledText | Completion | str]) -> str:
    """A digest of examples before they are encoded, as twelve hexadecimal digits.

    >>> digest_of(["met"]) == digest_of(["met"]), digest_of(["met"]) == digest_of(["near"])
    (True, False)
    """
    sha = hashlib.sha256()
    for one in examples:
        line = json.dumps(one, ensure_ascii=False) if isinstance(one, str) else one.to_json()
        sha.update(f"{line}\n".encode(errors="surrogatepass"))
    return sha.hexdigest()[:12]
