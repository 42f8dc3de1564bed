"""Wrong data files, whether as CoNLL, text or files; and data that does not suit the run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.room import Cases, Room

CASES = Cases("data")
TAGS = "O, B-PER, I-PER"

# Contents of one file, and the message; `line N` is the wrong line.
CONTENTS = {
    "empty": (b"", "train.conll holds no sentence; expected word<TAB>tag lines"),
    "blank lines alone": (b"\n\n \n\t\n", "train.conll holds no sentence|line 4"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "train.conll holds no sentence"),
    "spaces for tabs": (b"Ada B-PER\n", "line 1: expected word<TAB>tag; found 'Ada B-PER'"),
    "a word without a tag": (b"Ada\tB-PER\nslept\n", "line 2: expected word<TAB>tag; found 'slept'"),
    "an empty tag": (b"Ada\t\n", "line 1: expected word<TAB>tag"),
    "an empty word": (b"\tO\n", "line 1: expected word<TAB>tag"),
    "three columns": (b"Ada\tNNP\tB-PER\n", "line 1: expected word<TAB>tag"),
    "four columns as in CoNLL-2003": (b"Ada NNP B-NP B-PER\n", "line 1: expected word<TAB>tag"),
    "a document mark within a sentence": (
        b"Ada\tB-PER\n-DOCSTART-\tO\n",
        "line 2: .*a document marker needs a blank line",
    ),
    "a comment within a sentence": (b"Ada\tB-PER\n# text = x y\n", "line 2: .*a comment begins with '# ' and stands"),
    "a comment or a word": (b"# O\n", "line 1: expected word<TAB>tag; found '# O'"),
    "a byte order mark within a sentence": (b"Ada\tB-PER\n\xef\xbb\xbfslept\tO\n", "line 2: found a byte-order mark"),
    "a NUL in a word": (b"A\0da\tB-PER\n", "line 1: .*a NUL is in binary files"),
    "UNER's columns": (
        b"# text = Ada\n1\tAda\tB-PER\t-\t-\n",
        "line 2: .*in column 2, its tag in column 3: read it with",
    ),
    "a tab at the end": (b"Ada\tB-PER\t\n", "line 1: .*in column 1, its tag in column 2: read it with"),
    "tags of BILOU": (b"Ada\tU-PER\n", "line 1: .*its tags are BILOU: read it with data: {scheme: BILOU}"),
    "types for tags throughout": (b"Ada\tPER\nslept\tO\n", "line 1: .*its tags are types without B- and I-"),
    "IOB1": (b"Ada\tI-PER\nslept\tO\n", "line 1: .*its tags are IOB1"),
    "a type that data.types lacks": (b"Ada\tB-MISC\n", r"line 1: .*data.types, .*: \[PER, ORG, LOC, MISC\]"),
    "a blank word": ("\u3000\tO\n".encode(), "line 1: .*the word is blank; remove the line"),
    "commas for tabs": (b"Ada,B-PER\n", "line 1: expected word<TAB>tag"),
    "the tag before the word": (b"B-PER\tAda\n", "line 1: unknown tag 'Ada'; the label set is " + TAGS),
    "JSON lines": (b'{"words": ["Ada"], "tags": ["B-PER"]}\n', "line 1: expected word<TAB>tag"),
    "a tag in lower case": (b"Ada\tb-per\n", "line 1: unknown tag 'b-per'"),
    "a type that is not there": (b"Ada\tB-MISC\n", "line 1: unknown tag 'B-MISC'"),
    "a type without a prefix": (b"Ada\tPER\n", "line 1: unknown tag 'PER'"),
    "a tag of BIOES": (b"Ada\tS-PER\n", "line 1: unknown tag 'S-PER'"),
    "a zero for O": (b"the\t0\n", "line 1: unknown tag '0'"),
    "a space behind a tag": (b"Ada\tB-PER \n", "line 1: unknown tag 'B-PER '"),
    "an I at the start": (b"Ada\tI-PER\n", "line 1: tag 'I-PER' follows 'O', but in IOB2"),
    "an I after an O": (b"the\tO\nAda\tI-PER\n", "line 2: tag 'I-PER' follows 'O'"),
    "an I of another type": (b"Ada\tB-PER\nRome\tI-LOC\n", "line 2: tag 'I-LOC' follows 'B-PER'"),
    "an I after a blank line": (b"Ada\tB-PER\n\nLovelace\tI-PER\n", "line 3: tag 'I-PER' follows 'O'"),
    "a carriage return alone for line ends": (b"Ada\tB-PER\rslept\tO\r", "line 1: expected word<TAB>tag"),
    "text that ends within a letter": ("Ада\tB-PER".encode()[:5], "not UTF-8 at byte 4"),
    "Latin-1": ("Müller\tB-PER\n".encode("latin-1"), "not UTF-8 at byte 1; convert the file to UTF-8"),
    "UTF-16": ("Ada\tB-PER\n".encode("utf-16"), "not UTF-8 at byte 0"),
    "UTF-16 without a mark": ("Ada\tB-PER\n".encode("utf-16-le"), "line 1: .*(expected|unknown tag)"),
    "half a surrogate pair": (b"\xed\xa0\x80\tO\n", "not UTF-8 at byte 0"),
    "a compressed file": (b"\x1f\x8b\x08\x00" + bytes(range(256)), "not UTF-8 at byte 1"),
    "a parquet file": (b"PAR1\x15\x04" + bytes(20) + b"PAR1", "line 1: expected word<TAB>tag"),
    "a spreadsheet": (b"PK\x03\x04\x14\x00" + bytes(10) + b"\xff", "not UTF-8 at byte 16"),
    "a line of ten megabytes": (b"x" * 10_000_000, "line 1: expected word<TAB>tag; found 'xxxx"),
    "a tag of a megabyte": (b"x\t" + b"y" * 1_000_000, "line 1: unknown tag 'yyyy"),
    "a NUL for a tab": (b"Ada\0B-PER\n", "line 1: expected word<TAB>tag"),
    "the page that says that the file was not found": (
        b"<!DOCTYPE html>\n<html>404</html>\n",
        "line 1: expected word<TAB>",
    ),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "line 1: expected word<TAB>tag",
    ),
    "a merge conflict": (b"Ada\tB-PER\n<<<<<<< HEAD\n", "line 2: expected word<TAB>tag; found '<<<<<<< HEAD'"),
}


def spoilt(room: Room, name: str, content: bytes) -> Sequence[object]:
    (room.data() / name).write_bytes(content)
    return ("run", room.config)


for _name, (_content, _says) in CONTENTS.items():
    CASES.add(
        _name,
        _says if "train.conll" in _says or "byte" in _says else f"train.conll, {_says}",
        lambda room, content=_content: spoilt(room, "aa/train.conll", content),
    )
for _file in ("cc/train.conll", "cc/validation.conll", "cc/test.conll", "bb/validation.conll"):
    CASES.add(
        f"a wrong line in {_file}",
        f"{_file}, line 2: expected word<TAB>tag; found 'wrong'",
        lambda room, file=_file: spoilt(room, file, b"Ada\tB-PER\nwrong\n"),
    )

# Files and folders


@CASES.case("cannot read .*train.conll: No such file or directory; check the path")
def a_file_is_missing(room: Room) -> Sequence[object]:
    (room.data() / "cc" / "train.conll").unlink()
    return ("run", room.config)


@CASES.case("cannot read .*train.conll: Is a directory; check the path")
def a_folder_in_place_of_a_file(room: Room) -> Sequence[object]:
    (room.data() / "cc" / "train.conll").unlink()
    (room.tmp / "conll" / "cc" / "train.conll").mkdir()
    return ("run", room.config)


@CASES.case("unknown language 'cc'; .*Known: aa, bb; expected a folder")
def a_file_in_place_of_a_folder(room: Room) -> Sequence[object]:
    shutil.rmtree(room.data() / "cc")
    (room.tmp / "conll" / "cc").write_text("x")
    return ("run", room.config)


@CASES.case("cannot read .*train.conll: No such file or directory")
def a_link_to_nothing(room: Room) -> Sequence[object]:
    path = room.data() / "cc" / "train.conll"
    path.unlink()
    path.symlink_to("nothing")
    return ("run", room.config)


@CASES.case("cannot read .*train.conll: Too many levels of symbolic links")
def a_link_to_itself(room: Room) -> Sequence[object]:
    path = room.data() / "cc" / "train.conll"
    path.unlink()
    path.symlink_to("train.conll")
    return ("run", room.config)


@CASES.case("cannot read .*train.conll: Permission denied")
def a_file_that_may_not_be_read(room: Room) -> Sequence[object]:
    """Raise the system's error for users other than root."""
    return _when_opened(room, PermissionError(13, "Permission denied"))


@CASES.case("cannot read .*train.conll: Input/output error")
def a_disk_that_fails(room: Room) -> Sequence[object]:
    return _when_opened(room, OSError(5, "Input/output error"))


def _when_opened(room: Room, error: OSError) -> Sequence[object]:
    """A run in which one file of the data cannot be opened."""
    path, original = room.data() / "cc" / "train.conll", Path.open

    def broken(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise error
        return original(self, *args, **options)

    config = room.write(room.written())
    room.patch.setattr(Path, "open", broken)
    return ("run", config)


@CASES.case("there is no folder nothing; expected one with a folder per language")
def no_data_folder(room: Room) -> Sequence[object]:
    return ("run", room.config, "data.path=nothing")


@CASES.case("there is no folder .*file; expected one with")
def a_file_for_the_data_folder(room: Room) -> Sequence[object]:
    return ("run", room.config, f"data.path={room.write('x', 'file')}")


@CASES.case("unknown language 'aa'; Known: none; expected a folder")
def a_data_folder_with_nothing_in_it(room: Room) -> Sequence[object]:
    (room.tmp / "empty").mkdir()
    return ("run", room.config, "data.path=empty", "targets=[aa]")


@CASES.case("there is no folder .*elsewhere for the language 'cc'; check data.folders")
def folders_that_lead_nowhere(room: Room) -> Sequence[object]:
    return ("run", room.config, "data.folders={cc: elsewhere}")


# Tables

TABLES = {
    "half a line of JSON": ("a.jsonl", b'{"tokens": ["Ada"], "ta', "a.jsonl, line 1: not JSON at character "),
    "JSON over several lines": (
        "a.jsonl",
        b'{\n "tokens": ["a"]}',
        "a.jsonl, line 1: not JSON .*one JSON object in a line",
    ),
    "columns of JSON": (
        "a.json",
        b'{"tokens": [["a"]], "tags": [["O"]]}',
        "line 1: expected one tag for each word; found",
    ),
    "JSON without a column": ("a.jsonl", b'{"text": "a b"}', "a.jsonl: expected a column of tags .* it has 'text'"),
    "JSON of spans": (
        "a.jsonl",
        b'{"tokens": "a b", "tags": [[0, 1, "PER"]]}',
        "line 1: expected one tag for each word; .*spans of char",
    ),
    "a JSON number": ("a.jsonl", b"3", "a.jsonl, line 1: expected a JSON object"),
    "a row with a tag too many": ("a.jsonl", b'{"tokens": ["a"], "tags": ["O", "O"]}', "line 1: 1 word but 2 tags"),
    "integers for tags": ("a.jsonl", b'{"tokens": ["a"], "tags": [1]}', "line 1: tag 1 is the integer 1; .*names: "),
    "tags of IOB1": ("a.jsonl", b'{"tokens": ["a"], "tags": ["I-PER"]}', "its tags are IOB1.*set scheme: IOB1"),
    "a type that is not there in a table": (
        "a.jsonl",
        b'{"tokens": ["a"], "tags": ["B-X"]}',
        "line 1: unknown type 'X'.*list those",
    ),
    "CSV in Latin-1": (
        "a.csv",
        "tokens,tags\nM\xfcller a,O O\n".encode("latin-1"),
        "a.csv, line 2: not UTF-8.*iconv -f LATIN1",
    ),
    "CSV in UTF-16": ("a.csv", "tokens,tags\n".encode("utf-16"), "it is UTF-16: iconv -f UTF-16"),
    "CSV with semicolons": ("a.csv", b"tokens;tags\na b;O O\n", "a.csv: .*separator: ';'"),
    "CSV without a header": ("a.csv", b"a b,O O\nc d,O O\n", "a.csv: expected a column of tags"),
    "CSV with a value too many": ("a.csv", b"tokens,tags\na b,O,O\n", "a.csv, line 2: expected 2 values, .*found 3"),
    "CSV with a quotation mark for a word": ("a.csv", b'tokens,tags\n",O\n",O\n', "a.csv, line 2: .*set quotes: false"),
    "CSV with a word in each row": ("a.csv", b"s,tokens,tags\n1,a,O\n1,b,O\n", "each row seems to hold one word"),
    "a spreadsheet as CSV": ("a.csv", b"PK\x03\x04\xff", "it is an archive or a spreadsheet"),
    "a page as TSV": ("a.tsv", b"<!DOCTYPE html>\n<html>404</html>\n", "it is a web page: fetch the file itself"),
    "TSV without tags": ("a.tsv", b"tokens\ttags\na b\t\n", "a.tsv, line 2: 2 words but 0 tags"),
    "a Parquet file that was cut": ("a.parquet", b"PAR1" + bytes(90), "cannot read .*a.parquet: "),
    "no Parquet": ("a.parquet", b"tokens,tags\na b,O O\n", "cannot read .*a.parquet: "),
    "an empty Arrow file": ("a.arrow", b"", "cannot read .*a.arrow: "),
    "a packed file that was cut": ("a.jsonl.gz", b"\x1f\x8b\x08\x00" + bytes(9), "cannot read .*a.jsonl.gz: "),
    "an ending of no format": ("a.xlsx", b"x", "has no ending that tells its format; set format: jsonl, csv"),
    "an empty table": ("a.csv", b"", "a.csv holds no row"),
    "a sentence alone": (
        "a.jsonl",
        b'{"tokens": ["a"], "tags": ["O"]}',
        "has no validation and test, and 1 sentence to train",
    ),
}


def spoilt_table(room: Room, name: str, content: bytes) -> Sequence[object]:
    path = room.write(content, name)
    room.config["targets"] = ["cc"]
    del room.config["sources"], room.config["settings"]["primed"]
    return ("run", room.config, f"data={{name: table, path: '{path}'}}")


for _name, (_file, _content, _says) in TABLES.items():
    CASES.add(
        _name,
        _says,
        lambda room, file=_file, content=_content: spoilt_table(room, file, content),
    )


@CASES.case("cannot load the data set 'nothing/there \\(aa\\)': .*check its name and the network")
def a_data_set_that_the_hub_does_not_have(room: Room) -> Sequence[object]:
    room.patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return ("run", room.config, "data={name: hub, repository: nothing/there, config: '{task}'}")


@CASES.case("would give the tasks aa, bb, cc the same sentences; .*task_column")
def one_table_for_all_tasks(room: Room) -> Sequence[object]:
    return ("run", room.config, "data={name: table, path: x, splits: {train: a.csv}}")


@CASES.case("there is no file or folder nothing; check data.path")
def a_folder_of_tables_that_is_not_there(room: Room) -> Sequence[object]:
    return ("run", room.config, "data={name: table, path: nothing}")


@CASES.case("unknown task 'aa'; Known: none; expected a folder .*say where with splits")
def a_folder_without_tables(room: Room) -> Sequence[object]:
    (room.tmp / "empty").mkdir()
    return ("run", room.config, "data={name: table, path: empty}")


# Data that does not suit the run


@CASES.case("source 'aa' has 3 sentences, but an episode needs 8 \\(4 support \\+ 4 query\\)")
def too_few_sentences_for_an_episode(room: Room) -> Sequence[object]:
    return ("run", room.config, "source_sizes.train=3")


@CASES.case("source 'bb' has 1 sentence")
def a_source_of_one_sentence(room: Room) -> Sequence[object]:
    return spoilt(room, "bb/train.conll", b"Ana\tB-PER\n")


@CASES.case("unknown tag 'B-...'; the label set is O, B-X, I-X")
def types_of_another_data_set(room: Room) -> Sequence[object]:
    return ("run", room.config, "data.types=[X]")


@CASES.case("unknown language 'aa'; Known: aru, bex")
def languages_that_the_made_up_world_does_not_have(room: Room) -> Sequence[object]:
    return ("run", room.config, "data={name: synthetic}")
