"""What a first look at a file has found, as names and texts."""

from __future__ import annotations

from collections.abc import Iterator

from pemeta.data.look import Look, RowLook, SentenceLook
from pemeta.errors import counted

MOST = 12
"""Most entity types that are shown."""
PROBLEMS = {
    "single_label": "one label for each text",
    "multi_label": "any number of labels for each text",
    "regression": "a number for each text",
}
"""What each problem of a classification is."""
UNITS = {"completion": "prompt", "language_model": "text", "masked_language_model": "text"}


def unit(look: Look) -> str:
    """The word for an example."""
    return "sentence" if isinstance(look, SentenceLook) else UNITS.get(look.kind, "text")


def facts(look: Look) -> Iterator[tuple[str, str]]:
    """What a file holds."""
    yield "format", look.likeness
    if look.encoding:
        yield "encoding", look.encoding
    if isinstance(look, SentenceLook):
        yield from _of_sentences(look)
    elif isinstance(look, RowLook):
        yield from _of_rows(look)
    tally, noun = look.tally, unit(look)
    if tally.first_repeated is None:
        yield "duplicates", "none"
    else:
        where, first = tally.first_repeated
        verb = "repeats" if tally.repeated == 1 else "repeat"
        share = f"{100 * tally.repeated / tally.examples:.2g} %"
        repeated = f"{number(tally.repeated, noun)} ({share}) {verb} an earlier one"
        yield "duplicates", f"{repeated}, first in {where}, which repeats {first}"


def _of_sentences(look: SentenceLook) -> Iterator[tuple[str, str]]:
    tally = look.tally
    yield "scheme", _scheme(look)
    documents = len(tally.documents - {None})
    within = f" in {counted(documents, 'document')}" if documents else ""
    share = f"{100 * tally.with_entity / tally.examples:.0f} %"
    yield "sentences", f"{number(tally.examples, 'sentence')}{within}; {share} with an entity"
    yield "lengths", f"{number(tally.words, 'word')}; by sentence: {_lengths(look)}"
    yield "labels", _entities(look)


def purpose(look: RowLook) -> Iterator[tuple[str, str]]:
    """What rows are for, and why their columns are what they are."""
    guess = look.guess
    what = f": {PROBLEMS[guess.problem]}" if look.kind == "sequence_classification" else ""
    yield "task", f"{look.kind}{what}"
    for role, name in guess.columns.items():
        why = guess.why.get(role)
        yield role, f"in {name}{f' ({why})' if why else ''}"
    for text in guess.other:
        yield "besides", text


def _of_rows(look: RowLook) -> Iterator[tuple[str, str]]:
    guess, noun = look.guess, unit(look)
    yield from purpose(look)
    yield f"{noun}s", number(look.tally.examples, noun)
    yield "lengths", f"{number(look.tally.words, 'word')}; by {noun}: {_lengths(look)}"
    yield from look.tally.described()
    if look.tally.by_task:
        shown = [f"{name} {rows:,}" for name, rows in look.tally.by_task.most_common(MOST)]
        more = f", and {len(look.tally.by_task) - MOST} more" if len(look.tally.by_task) > MOST else ""
        yield "tasks", f"the values of {guess.tasks}, by its name: {', '.join(shown)}{more}"


def _lengths(look: Look) -> str:
    tally = look.tally
    median, most, longest = tally.quantile(0.5), tally.quantile(0.95), max(tally.lengths)
    return f"{median} (median), {most} (95 %), {longest} (longest: {tally.longest})"


def _scheme(look: SentenceLook) -> str:
    if look.scheme is None:
        return f"none that fits all tags; {look.closest} comes closest"
    if not look.tally.entities:
        return "no tag but O"
    if look.scheme == "conlleval" != look.closest:
        return (
            f"nearly {look.closest}; read as conlleval does, for which an I- that goes on with nothing begins an entity"
        )
    return str(look.scheme)


def _entities(look: SentenceLook) -> str:
    found = look.tally.entities
    if not found:
        return "none"
    shown_types = [f"{kind} {times:,}" for kind, times in found.most_common(MOST)]
    more = f", and {len(found) - MOST} types more" if len(found) > MOST else ""
    return f"{number(sum(found.values()), 'entity', 'entities')}: {', '.join(shown_types)}{more}"


def number(given: int, noun: str, plural: str | None = None) -> str:
    """A number, with commas between its thousands, and its noun.

    >>> number(1200, "sentence")
    '1,200 sentences'
    """
    return counted(given, noun, plural).replace(str(given), f"{given:,}", 1)
