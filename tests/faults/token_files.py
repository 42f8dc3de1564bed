"""Token files of every format in place of the usual ones, and what is wrong in each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults.room import Cases, Room

CASES = Cases("token files")
Tagged = list[tuple[str, str]]
"""A sentence: words with their tags in IOB2."""
HEADER = "TOKEN NE-COARSE-LIT NE-COARSE-METO NE-FINE-LIT NE-FINE-METO NE-FINE-COMP NE-NESTED NEL-LIT NEL-METO MISC"


def sentences_of(text: str) -> list[Tagged]:
    blocks = [block.split("\n") for block in text.strip("\n").split("\n\n")]
    return [[(line.split("\t")[0], line.split("\t")[1]) for line in block] for block in blocks]


def in_blocks(line: Callable[[int, str, str], str], before: str = "", end: str = "\n") -> Callable[[list[Tagged]], str]:
    """A function that writes sentences as lines of number, word and tag, with something before each sentence."""

    def write(sentences: list[Tagged]) -> str:
        blocks = ("".join(line(i, word, tag) + "\n" for i, (word, tag) in enumerate(one, 1)) for one in sentences)
        return end.join(before.replace("@", str(i // 5)) + block for i, block in enumerate(blocks))

    return write


def with_tags(change: Callable[[Sequence[str]], list[str]], write: Callable[[list[Tagged]], str]) -> Any:
    """The same with tags of another scheme."""

    def changed(sentences: list[Tagged]) -> str:
        made = [zip([w for w, _ in one], change([t for _, t in one]), strict=True) for one in sentences]
        return write([list(one) for one in made])

    return changed


def iob1(tags: Sequence[str]) -> list[str]:
    last = ["O", *tags]
    return [f"I-{t[2:]}" if t[0] == "B" and last[i][2:] != t[2:] else t for i, t in enumerate(tags)]


def chunks(end: str, single: str) -> Callable[[Sequence[str]], list[str]]:
    def change(tags: Sequence[str]) -> list[str]:
        following = [*tags[1:], "O"]
        ends = [following[i][0] != "I" for i in range(len(tags))]
        letters = {("B", True): single, ("I", True): end}
        return [t if t == "O" else letters.get((t[0], ends[i]), t[0]) + t[1:] for i, t in enumerate(tags)]

    return change


def brackets(tags: Sequence[str]) -> list[str]:
    ends = [one[0] != "I" for one in (*tags[1:], "O")]
    return [
        f"({tag[2:]}" * (tag[0] == "B") + "*" + ")" * (tag != "O" and end) for tag, end in zip(tags, ends, strict=True)
    ]


def hipe(sentences: list[Tagged]) -> str:
    lines = [HEADER.replace(" ", "\t"), "# hipe2022:document_id = a"]
    for one in sentences:
        for i, (word, tag) in enumerate(one, 1):
            misc = "NoSpaceAfter|EndOfSentence" if i == len(one) else "_"
            lines.append("\t".join([word, tag[:2] + tag[2:].lower(), *"OOOOO", "_", "_", misc]))
    return "\n".join(lines) + "\n"


FORMATS: dict[str, tuple[dict[str, Any], Callable[[list[Tagged]], str]]] = {
    "CoNLL-2003": (
        {"columns": {"word": 1, "tag": 4}, "scheme": "IOB1"},
        with_tags(iob1, in_blocks(lambda i, word, tag: f"{word} NNP I-NP {tag}", "-DOCSTART- -X- -X- O\n\n")),
    ),
    "CoNLL-U": (
        {"format": "conllu"},
        in_blocks(
            lambda i, word, tag: (
                (f"1-2\t{word}x\t_\t_\t_\t_\t_\t_\t_\t_\n" if i == 1 else "")
                + f"{i}\t{word}\t_\tX\t_\t_\t0\troot\t_\tname={tag}\n{i}.1\tx\t_\tX\t_\t_\t_\t_\t_\tname=B-PER"
            ),
            "# newdoc id = @\n# text = # x\n",
        ),
    ),
    "Universal NER": (
        {"columns": {"word": 2, "tag": 3}},
        in_blocks(lambda i, word, tag: f"{i}\t{word}\t{tag}\t-\t-", "# sent_id = a-1\n# text = a # b\n"),
    ),
    "GermEval 2014": (
        {"columns": {"word": 2, "tag": 3}},
        in_blocks(lambda i, word, tag: f"{i}\t{word}\t{tag}\tO", "#\thttp://example.org/@ [2009-10-17]\n"),
    ),
    "HIPE-2022": (
        {"columns": {"word": "TOKEN", "tag": "NE-COARSE-LIT"}, "types": {"per": "PER", "org": "ORG", "loc": "LOC"}},
        hipe,
    ),
    "IOBES": ({"scheme": "IOBES"}, with_tags(chunks("E", "S"), in_blocks(lambda i, word, tag: f"{word}\t{tag}"))),
    "BILOU": ({"scheme": "detect"}, with_tags(chunks("L", "U"), in_blocks(lambda i, word, tag: f"{word}\t{tag}"))),
    "CoNLL-2012": (
        {"columns": {"word": 4, "tag": 11}},
        with_tags(
            brackets,
            lambda sentences: (
                "#begin document (a); part 000\n"
                + in_blocks(lambda i, word, tag: f"a 0 {i} {word} NNP (NP*) - - - - {tag} -")(sentences)
                + "#end document\n"
            ),
        ),
    ),
    "UTF-16": (
        {"encoding": "utf-16", "separator": ";"},
        in_blocks(lambda i, word, tag: f"{word};{tag}", "-DOCSTART-;O\n", ";\n"),
    ),
    "blanks": ({"separator": "blanks"}, in_blocks(lambda i, word, tag: f"{word}   {tag}")),
    "CSV": (
        {"columns": {"sentence": "Sentence", "word": "Word", "tag": "Tag"}, "separator": ","},
        lambda one: (
            "Sentence,Word,Tag\n" + in_blocks(lambda i, word, tag: f'{"@" * (i == 1)},"{word}",{tag}', end="")(one)
        ),
    ),
}


def numbered(text: str) -> str:
    """A CSV whose sentences are numbered where they begin."""
    first, *parts = text.split("@")
    return "Sentence,Word,Tag\n" + first + "".join(f"{i}{part}" for i, part in enumerate(parts, 1))


def in_format(room: Room, name: str) -> Path:
    """The data folder with every file in a format, which the configuration says."""
    keys, write = FORMATS[name]
    folder = room.data()
    for path in folder.rglob("*.conll"):
        text = write(sentences_of(path.read_text(encoding="utf-8")))
        path.write_text(numbered(text) if name == "CSV" else text, encoding=keys.get("encoding", "utf-8"))
    room.config["data"] |= keys
    return folder


def broken(name: str, what: str, old: str, new: str, says: str, **keys: Any) -> None:
    """Register a case: in one file of a format, the first place that a pattern matches is replaced."""

    def prepare(room: Room) -> Sequence[object]:
        path = in_format(room, name) / "aa" / "train.conll"
        encoding = FORMATS[name][0].get("encoding", "utf-8")
        text, number = re.subn(old, new, path.read_text(encoding=encoding), count=1, flags=re.MULTILINE)
        assert number == 1
        path.write_text(text, encoding=encoding)
        room.config["data"] |= keys
        return ("run", room.config)

    CASES.add(f"{name}, {what}", f"aa/train.conll(, line \\d+)?: .*{says}", prepare)


broken(
    "CoNLL-2003",
    "a column less",
    r"\n(\S+) NNP I-NP O$(?=\n\n)",
    r"\n\1 NNP O",
    "expected 4 columns separated by blanks",
)
broken(
    "CoNLL-2003", "a tag of IOB2", r"^(\S+) NNP I-NP I-\w+", r"\1 NNP I-NP B-PER", "in IOB1 'B-PER' stands only right"
)
broken(
    "CoNLL-2003", "a comment among words", r"NP O$", "NP O\n# by hand", "a comment stands before the first word of a"
)
broken("CoNLL-2003", "a NUL", r"^(\S+) NNP", r"\1\0 NNP", "found a NUL")
broken("CoNLL-2003", "no such column", "-", "-", "expected a column 5; found 4 columns", columns={"word": 1, "tag": 5})
broken("CoNLL-U", "a key that is missing", "-", "-", "no line where MISC has the key 'NE'", columns={"tag": "NE"})
broken("CoNLL-U", "a number left out", r"^2\t", "3\t", "expected the number 2; found '3.t")
broken(
    "CoNLL-U",
    "an entity of a range alone",
    r"^(1-2.*\t)_\n(.*)name=\S+\n(.*\n.*)name=\S+$",
    r"\1name=B-PER\n\2_\n\3_",
    "the range of 2 words has the tag 'B-PER', but its words",
)
broken("CoNLL-U", "a tag that is none", "name=O$", "name=X-PER", "'X-PER' is no tag of IOB2|found neither")
broken(
    "CoNLL-U", "nested brackets", r"name=\S+$", "Entity=(LOC(PER))", "begins within another", columns={"tag": "Entity"}
)
broken(
    "Universal NER",
    "blanks for tabs",
    r"^2\t(\S+)\t",
    r"2 \1 ",
    "expected 5 columns separated by tabs",
)
broken("Universal NER", "an unknown type", r"\tB-\w+", "\tB-OTH", "unknown type 'OTH' of the tag 'B-OTH'")
broken(
    "GermEval 2014", "several tags in one", r"\tB-(\w+)", r"\tB-\1|B-ORG", "is several in one; nested or overlapping"
)
broken(
    "GermEval 2014",
    "a derived type",
    r"\tB-LOC\t",
    r"\tB-LOCderiv\t",
    "unknown type 'LOCderiv' .* in types, or map them",
)
broken("HIPE-2022", "another header", "NE-COARSE-LIT", "NE_COARSE_LIT", "unknown column 'NE-COARSE-LIT'; did you mean")
broken(
    "HIPE-2022", "a type that the map lacks", "\tB-loc", "\tB-time", "type 'time' .* add 'time: TYPE', or 'time: null'"
)
broken("HIPE-2022", "what is not annotated", r"^(\S+)\tO\t", r"\1\t_\t", "tag '_' is no tag of IOB2")
broken(
    "IOBES", "an entity that does not end", r"\tE-(\w+)", r"\tI-\1", "in IOBES an entity of several words ends with 'E-"
)
broken(
    "BILOU",
    "another scheme in one place",
    r"\tU-(\w+)",
    r"\tS-\1",
    "no scheme fits all tags; BILOU is closest, but tag 'S-",
)
broken(
    "CoNLL-2012",
    "an entity that does not end",
    r"\*\)(?= -$)",
    "*",
    "does not end; mend the brackets|begins within another",
)
broken("CoNLL-2012", "a word that is split", r"^(a 0 2 \S+)", r"\1 x", "expected 12 columns separated by blanks")
broken("UTF-16", "another encoding", "-", "-", "not ascii, but .*; correct encoding", encoding="ascii")
broken("UTF-16", "no encoding", "-", "-", "not UTF-8 at byte 0; it is UTF-16: iconv", encoding=None)
broken("blanks", "a blank in a word", r"\n(\S+)   O$(?=\n\n)", r"\n\1 \1   O", "expected 2 columns separated by blanks")
broken("CSV", "a comma without quotes", r'"(\S+)",O', r"\1,\1,O", "expected 3 columns separated by ','")
