"""What a token file that cannot be read looks like, and the setting that reads it: the remedies in messages.

Only a file that was refused gets here, and nothing here decides what is read. A setting is named only after the whole
file has been read with it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pemeta.data.schemes import SCHEMES, Detected, SchemeError, split_tag
from pemeta.data.sentences import LabelSet
from pemeta.data.tables.table import about_content
from pemeta.data.token_files.columns import token_rows
from pemeta.data.token_files.formats import TokenFormat, as_yaml
from pemeta.data.token_files.layout import find_layout, is_conllu
from pemeta.data.token_files.lines import MARKER, RETURNS, TAG, into, shown
from pemeta.data.token_files.shapes import named
from pemeta.data.token_rows import detect_rows
from pemeta.errors import DataError, shortened

NAMES = {"IOBES": "IOBES (also BIOES)", "BMES": "BMES (also BMEWO)", "types": "types without B- and I-"}
"""What schemes are called in messages, where not by their names."""
SETTING = "read it with data: "
"""What stands before a setting in messages."""


def is_tag(text: str, labels: LabelSet) -> bool:
    """Whether a text is a tag, of the label set or of any scheme."""
    return text in labels.index or TAG.fullmatch(text) is not None


def about_line(path: Path, text: str, labels: LabelSet, line: str) -> str:
    """A remedy for a line that is not a word, a tab and a tag.

    Args:
        path: The file.
        text: All of it.
        labels: Allowed tags.
        line: The line.
    """
    word, tab, tag = line.partition("\t")
    if kind := about_content(path):
        return kind
    if "\0" in line:
        return f"a NUL is in binary files and in UTF-16: {into('iconv -f UTF-16LE -t UTF-8', path)}"
    if "\r" in line:
        return f"lines end with a carriage return alone: {into(RETURNS, path)}"
    if MARKER.match(line):
        return "a document marker needs a blank line before it"
    if tab and "\t" not in tag:
        return "give the word a tag, or O" if word.strip() else "the word is blank; remove the line"
    setting = _setting(path, text, labels)
    if setting:
        return setting
    if len(line.split()) == 1 and not tab:
        return "put a tab and a tag behind the word, O if it is in no entity"
    if line.startswith("#") and not (len(line.split()) == 2 and TAG.fullmatch(line.split()[1])):
        return "a comment begins with '# ' and stands before the first word of a sentence; move or remove it"
    return _about_columns(path, text, labels, "tab" if tab else "blanks")


def about_tag(path: Path, text: str, labels: LabelSet, word: str, tag: str) -> str:
    """A remedy for a tag that is not in the label set, or that begins no entity in IOB2.

    Args:
        path: The file.
        text: All of it.
        labels: Allowed tags.
        word: The word of the line.
        tag: Its tag.
    """
    spelling = _about_spelling(labels, tag)
    setting = None if spelling else _setting(path, text, labels)
    if spelling or setting:
        return f"{spelling or setting}; the entity types are those of data.types, or of the LabelSet in Python"
    if tag in labels.index:
        return "let every entity start with B-"
    if word.startswith("#") and not TAG.fullmatch(tag):
        return "if this line is a comment, remove it, or let it begin with '# ' and hold no tab"
    tags = [line.partition("\t")[2] for line in _lines(text) if "\t" in line]
    if split_tag(tag)[0] not in ("", "B", "I"):
        return f"its tags are of another scheme, but not throughout: {_misfit(path, text, labels)}"
    found = dict.fromkeys([*labels.types, *(one[2:] for one in tags if re.fullmatch(r"[BI]-\S+", one))])
    if tag[2:] in found:
        types = shortened(", ".join(found), 150)
        return f"list the entity types of all its tags in data.types, or in the LabelSet in Python: [{types}]"
    return "tags are O, and B-TYPE and I-TYPE for each type in data.types, or in the LabelSet in Python"


def _setting(path: Path, text: str, labels: LabelSet) -> str | None:
    """What the file is, and the setting that reads it; None if none does, or the types alone are unknown."""
    try:
        what, form, tags = _recognised(path, text, labels)
    except DataError:
        return None
    if form.is_usual:
        return None
    setting: dict[str, Any] = form.described()
    unknown = [kind for kind in tags.types if kind not in labels.types]
    if unknown:
        setting["types"] = [*labels.types, *unknown]
    scheme = f"its tags are {NAMES.get(form.scheme, form.scheme)}"
    if form.scheme == "conlleval":
        scheme = "its tags are neither IOB2 nor IOB1 throughout, which conlleval reads all the same"
    elif form.scheme == "IOB1":
        scheme += ", in which an entity may start with I-"
    if form == TokenFormat(scheme=form.scheme):
        what = scheme
    elif form.scheme != "IOB2":
        what = f"{what}; {scheme}"
    return f"{what}: {SETTING}{as_yaml(setting)}"


def _recognised(path: Path, text: str, labels: LabelSet) -> tuple[str, TokenFormat, Detected]:
    """What a file seems to be, the format that it has then, and its tags, after reading all of it so.

    Raises:
        DataError: It is like nothing that is known, or cannot be read so.
    """
    lines = text.split("\n")
    if is_conllu([line.removesuffix("\r") for line in lines]):
        what, form = "it is CoNLL-U", TokenFormat("conllu")
    else:
        layout = find_layout(lines, shown(path), types=labels.types)
        what, form = f"it has {layout}", layout.form
    found = detect_rows(token_rows(path, replace(form, scheme="detect")), among=SCHEMES)
    return what, replace(form, scheme=found.scheme), found


def _about_columns(path: Path, text: str, labels: LabelSet, separator: str) -> str:
    """A remedy for a file with other columns that cannot be read as it is."""
    rows = [re.findall("[^ \t]+", line) if separator == "blanks" else line.split("\t") for line in _lines(text)]
    sizes = sorted({len(row) for row in rows})
    by = f"separated by {named(separator)}"
    if len(sizes) > 1:
        return f"its lines have {sizes[0]} to {sizes[-1]} columns {by}; write a word, one tab and a tag in each"
    return f"it has {sizes[0]} columns {by}, but cannot be read: {_misfit(path, text, labels)}"


def _misfit(path: Path, text: str, labels: LabelSet) -> str:
    """Why a file cannot be read as what it seems to be."""
    try:
        _recognised(path, text, labels)
    except SchemeError as error:
        return str(error)
    except DataError as error:
        return str(error).removeprefix(shown(path)).lstrip(":, ")
    return "write a word, one tab and a tag in each line"


def _about_spelling(labels: LabelSet, tag: str) -> str | None:
    """A remedy for a known tag that is written in another way."""
    if tag.strip() in labels.index and tag != tag.strip():
        return "remove the blanks around the tag, or drop them with data: {separator: tab}"
    known = {one.lower(): one for one in labels.tags} | {"0": "O"}
    if tag not in labels.index and tag.lower() in known:
        return f"write {known[tag.lower()]}"
    return None


def _lines(text: str) -> list[str]:
    """The lines that seem to be words: neither blank, nor markers, nor comments."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip("\ufeff \t") and not MARKER.match(line) and not line.startswith("# ")]
