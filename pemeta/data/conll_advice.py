"""What a token file that cannot be read looks like, and the command that converts it: the remedies in messages.

Only a file that was refused gets here, and nothing here decides what is read.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pemeta.data.sentences import LabelSet
from pemeta.errors import shortened

MARKER = re.compile(r"-DOC(START|END)-(\s|$)")
"""The beginning of a line that marks where a document begins or ends, as in CoNLL-2003."""
KEYED = re.compile(r"# [^\t=]*(\t\w+)?=")
"""The beginning of a comment ``# key = value``, as in CoNLL-U, or ``# id NUMBER<TAB>domain=en``, as in MultiCoNER."""
TAG = re.compile(r"O|[A-Z]-\S+")
"""A tag of any scheme with prefixes."""
NUMBER = re.compile("\ufeff?" + r"(\d+)([-.]\d+)?")
"""The number of a word, a range of words, or an empty node, as in CoNLL-U."""
SCHEMES = {
    "IOBES (also BIOES)": ("BIES", {"S": "B", "E": "I"}),
    "BILOU": ("BILU", {"U": "B", "L": "I"}),
    "BMES (also BMEWO)": ("BMESW", {"S": "B", "W": "B", "M": "I", "E": "I"}),
}
"""Letters of schemes, and what stands for them in IOB2."""


def is_tag(text: str, labels: LabelSet) -> bool:
    """Whether a text is a tag, of the label set or of any scheme."""
    return text in labels.index or TAG.fullmatch(text) is not None


def _may_be_tag(text: str, labels: LabelSet) -> bool:
    """Whether a text is a tag, or the type of one."""
    return is_tag(text, labels) or text in labels.types


def about_bytes(path: Path, raw: bytes) -> str:
    """A remedy for a file that is not UTF-8."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"it is UTF-16: {_into('iconv -f UTF-16 -t UTF-8', path)}"
    return f"if it is Latin-1: {_into('iconv -f LATIN1 -t UTF-8', path)}"


def about_line(path: Path, text: str, labels: LabelSet, line: str) -> str:
    """A remedy for a line that is not a word, a tab and a tag.

    Args:
        path: The file.
        text: All of it.
        labels: Allowed tags.
        line: The line.
    """
    word, tab, tag = line.partition("\t")
    if "\0" in line:
        return f"a NUL is in binary files and in UTF-16: {_into('iconv -f UTF-16LE -t UTF-8', path)}"
    if "\r" in line:
        return f"lines end with a carriage return alone: {_into(_RETURNS, path)}"
    if MARKER.match(line):
        return "a document marker needs a blank line before it"
    if tab and "\t" not in tag:
        return "give the word a tag, or O" if word.strip() else "the word is blank; remove the line"
    if len(line.split()) == 1 and not tab:
        return "put a tab and a tag behind the word, O if it is in no entity"
    if line.startswith("#") and not (len(line.split()) == 2 and TAG.fullmatch(line.split()[1])):
        return "a comment begins with '# ' and stands before the first word of a sentence; move or remove it"
    return _about_columns(path, text, labels, "\t" if tab else " ")


def _about_columns(path: Path, text: str, labels: LabelSet, separator: str) -> str:
    """A remedy for a file with other columns, separated by tabs or by any number of blanks."""
    blanks = separator == " "
    rows = [re.findall("[^ \t]+", line) if blanks else line.split("\t") for line in _lines(text)]
    sizes = sorted({len(row) for row in rows})
    by = "separated by blanks" if blanks else "separated by tabs"
    if len(sizes) > 1:
        return f"its lines have {sizes[0]} to {sizes[-1]} columns {by}; write a word, one tab and a tag in each"
    numbered = all(NUMBER.fullmatch(row[0]) for row in rows)
    first, last = (2 if numbered else 1), sizes[0]
    words = [row for row in rows if not numbered or not re.search("[-.]", row[0])]
    tags = [n for n in range(first + 1, last + 1) if all(_may_be_tag(row[n - 1], labels) for row in words)]
    if last == 2 and not numbered:
        tags = [2]
    what = f"it has {last} columns {by}{', numbered as in CoNLL-U and Universal NER' if numbered else ''}"
    if not tags:
        return f"{what}, none of which has a tag in every line; write a word, one tab and a tag in each"
    chosen = tags[0] if numbered else tags[-1]
    # Comments may have as many columns, but no tag in that one.
    tagged = all(TAG.fullmatch(row[chosen - 1]) for row in rows)
    others = f" (tags are in the columns {', '.join(map(str, tags))})" if len(tags) > 1 else ""
    columns = f'print ${first} "\\t" ${chosen}'
    action = f"if ($1 !~ /[-.]/) {columns}" if numbered else columns
    which = f"NF == {last}{f' && ${chosen} ~ /^(O$|[A-Z]-)/' if tagged else ''}"
    awk = f"awk {'' if blanks else _TABS}'{_STRIPPED}{which} {{{action}; next}} {{print}}'"
    return f"{what}; take the word from column {first} and the tag from column {chosen}{others}: {_into(awk, path)}"


def about_tag(path: Path, text: str, labels: LabelSet, word: str, tag: str) -> str:
    """A remedy for a tag that is not in the label set, or that begins no entity in IOB2.

    Args:
        path: The file.
        text: All of it.
        labels: Allowed tags.
        word: The word of the line.
        tag: Its tag.
    """
    tags = [line.partition("\t")[2] for line in _lines(text) if "\t" in line]
    if tag in labels.index:
        script = 'q = $2; if (q ~ /^I-/ && substr(q, 3) != substr(p, 3)) $2 = "B-" substr(q, 3); p = q'
        scheme = "IOB1" if _is_iob1(tags) else "neither IOB2 nor IOB1 throughout"
        awk = _into(_awk(script, 'p = ""'), path)
        return f"its tags are {scheme}; let every entity start with B-: {awk}"
    advice = _about_spelling(path, labels, word, tag) or _about_scheme(path, labels, tags)
    if advice:
        return f"{advice}; the entity types are those of data.types, or of the LabelSet in Python"
    found = dict.fromkeys([*labels.types, *(one[2:] for one in tags if re.fullmatch(r"[BI]-\S+", one))])
    if word.startswith("#") and not TAG.fullmatch(tag):
        return "if this line is a comment, remove it, or let it begin with '# ' and hold no tab"
    if tag[2:] in found:
        types = shortened(", ".join(found), 150)
        return f"list the entity types of all its tags in data.types, or in the LabelSet in Python: [{types}]"
    return "tags are O, and B-TYPE and I-TYPE for each type in data.types, or in the LabelSet in Python"


def _about_spelling(path: Path, labels: LabelSet, word: str, tag: str) -> str | None:
    """A remedy for a known tag that is written in another way, or in another place."""
    if tag.strip() in labels.index:
        return "remove the blanks around the tag"
    known = {one.lower(): one for one in labels.tags} | {"0": "O"}
    if tag.lower() in known:
        return f"write {known[tag.lower()]}"
    if _may_be_tag(word, labels) and not is_tag(tag, labels):
        script = 'sub(/^\\357\\273\\277/, ""); print $2, $1; next'  # a byte-order mark stays at the beginning, or goes
        return f"the tag stands before the word; swap them: {_into(_awk(script), path)}"
    return None


def _about_scheme(path: Path, labels: LabelSet, tags: list[str]) -> str | None:
    """A remedy for a file whose tags are of another scheme than IOB2."""
    if set(tags) <= {"O", *labels.types}:
        script = 'q = $2; if (q != "O") $2 = (q == p ? "I-" : "B-") q; p = q'
        awk = _into(_awk(script, 'p = ""'), path)
        return f"its tags are types without B- and I-; take neighbours of one type as one entity: {awk}"
    letters = {one[0] for one in tags if one != "O" and TAG.fullmatch(one)}
    for name, (own, changes) in SCHEMES.items():
        if letters & changes.keys() and letters <= set(own):
            script = "; ".join(f'sub(/^{old}-/, "{new}-", $2)' for old, new in changes.items() if old in letters)
            return f"its tags are {name}; make them IOB2: {_into(_awk(script), path)}"
    return None


_TABS = "-F'\\t' "
_STRIPPED = '{sub(/\\r$/, "")} '
_RETURNS = "tr '\\r' '\\n' <"


def _awk(script: str, between: str = "") -> str:
    """A command that changes the two columns of each line; ``between`` is done at other lines, such as blank ones."""
    otherwise = f" NF != 2 {{{between}}}" if between else ""
    return f"awk {_TABS}-v OFS='\\t' '{_STRIPPED}NF == 2 {{{script}}}{otherwise} {{print}}'"


def _into(command: str, path: Path) -> str:
    file = shlex.quote(str(path)) if str(path).isprintable() else "FILE"
    return f"{command} {file} > NEW.conll"


def _lines(text: str) -> list[str]:
    """The lines of words, as far as they can be told from markers and comments."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip("\ufeff \t") and not MARKER.match(line) and not _is_comment(line)]


def _is_comment(line: str) -> bool:
    return KEYED.match(line) is not None or (line.startswith("# ") and not TAG.fullmatch(line.split()[-1]))


def _is_iob1(tags: list[str]) -> bool:
    """Whether B- is only where an entity of the same type is before, apart from ends of sentences."""
    pairs = zip(["O", *tags], tags, strict=False)
    return all(before[2:] == tag[2:] for before, tag in pairs if tag.startswith("B-"))
