"""Broken token files of every format: the message names the file, the line, what is there, and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pemeta.data.sentences import LabelSet
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.reading import read_token_file
from pemeta.errors import DataError

LABELS = LabelSet(("PER", "LOC"))
TABS = TokenFormat(columns={"word": 1, "tag": 2})
BLANKS = TokenFormat(separator="blanks")
FOUR = TokenFormat(columns={"word": 1, "tag": 4}, scheme="IOB1")
CONLLU = TokenFormat("conllu")
NAMED = TokenFormat("conllu", columns={"tag": "name"})
HIPE = TokenFormat(columns={"word": "TOKEN", "tag": "NE-COARSE-LIT"})
DETECT = TokenFormat(scheme="detect")


def misc(*values: str, number: int = 1) -> str:
    """A sentence of CoNLL-U with these MISC columns."""
    return "".join(f"{i}\tw{i}\t_\tX\t_\t_\t0\troot\t_\t{value}\n" for i, value in enumerate(values, number))


BROKEN: dict[str, tuple[str, TokenFormat, str]] = {
    # Columns
    "a word without a tag": (
        "Ada\tB-PER\nslept\n",
        TABS,
        "line 2: expected 2 columns separated by tabs, as in line 1; found 'slept'; give the word a tag, or O",
    ),
    "a column that would take its neighbour's place": (
        "1\tAda\tB-PER\tO\n2 Bo\tO\tB-PER\n",
        TokenFormat(columns={"word": 2, "tag": 3}),
        "line 2: expected 4 columns separated by tabs, as in line 1; found '2 Bo\\tO\\tB-PER'; it has 3: mend it",
    ),
    "a last column that is missing": (
        "Ada\tB-PER\tx\nBo\tO\n",
        TABS,
        "line 2: expected 3 columns separated by tabs, as in line 1; found 'Bo\\tO'; it has 2: mend it",
    ),
    "a blank tag": (
        "Ada\t \n",
        TABS,
        "line 1: expected a tag; found 'Ada\\t '",
    ),
    "a blank word": (
        "\u3000\tO\n",
        TABS,
        "line 1: expected a word; found '\\u3000\\tO'; the word is blank; remove the line",
    ),
    "a column more": (
        "a x O\nb O\n",
        TokenFormat(columns={"word": 1, "tag": -1}),
        "line 2: expected 3 columns separated by blanks, as in line 1; found 'b O'; it has 2: mend it",
    ),
    "a blank in a word": (
        "lo O\nNew York B-LOC\n",
        BLANKS,
        "line 2: expected 2 columns separated by blanks, as in line 1; found 'New York B-LOC'; it has 3",
    ),
    "a tab in a word": (
        "lo\tx\tO\nNew\tYork\tx\tB-LOC\n",
        TokenFormat(columns={"word": 1, "tag": -1}),
        "line 2: expected 3 columns separated by tabs, as in line 1; found 'New\\tYork\\tx\\tB-LOC'; it has 4",
    ),
    "more columns than are said": (
        "Ada NNP B-PER\n",
        BLANKS,
        (
            "line 1: expected a word and its tag; found 3 columns separated by blanks: 'Ada NNP B-PER'; say "
            "which are which, such as columns: {word: 1, tag: 3}"
        ),
    ),
    "fewer columns than are said": (
        "Ada B-PER\n",
        FOUR,
        "line 1: expected a column 4; found 2 columns: 'Ada B-PER'",
    ),
    "no column so far from the end": (
        "Ada B-PER\n",
        TokenFormat(columns={"word": -3, "tag": 2}),
        "line 1: expected a column -3; found 2 columns",
    ),
    "one column for two": (
        "Ada B-PER\n",
        TokenFormat(columns={"word": -1, "tag": 2}),
        "line 1: expected a column for each; found one for two in columns: {'word': -1, 'tag': 2}",
    ),
    "another separator": (
        "Ada,B-PER\n",
        TABS,
        "line 1: expected a column 2; found 1 column: 'Ada,B-PER'",
    ),
    "a quote that is not closed": (
        'Ada,B-PER\n",O\n',
        TokenFormat(separator=","),
        "line 2: expected",
    ),
    "a comma as a word, without quotes": (
        "Ada,B-PER\n,,O\n",
        TokenFormat(separator=","),
        "line 2: expected 2 columns separated by ',', as in line 1; found ',,O'; it has 3",
    ),
    "a comment within a sentence": (
        "Ada x x I-PER\n# by hand\n",
        FOUR,
        "line 2: a comment stands before the first word of a sentence; found '# by hand'; move or remove it",
    ),
    "a NUL": (
        "Ada\tO\nB\0o\tO\n",
        TABS,
        "line 2: found a NUL in 'B\\x00o\\tO'; a NUL is in binary files and in UTF-16: iconv",
    ),
    "a carriage return for line ends": (
        "Ada\tO\rBo\tO\r",
        TABS,
        "line 1: expected lines that end with a line feed",
    ),
    "a mark within a sentence": (
        "Ada\tO\n\ufeffBo\tO\n",
        TABS,
        "line 2: found a byte-order mark within a sentence",
    ),
    "nothing": (
        "",
        TABS,
        "holds no sentence; expected a line for each word",
    ),
    "comments alone": (
        "# a = b\n\n-DOCSTART- -X- O O\n",
        FOUR,
        "holds no sentence",
    ),
    # Headers
    "a name that the header lacks": (
        "TOKEN\tNE-COARSE\nAda\tB-PER\n",
        HIPE,
        (
            "line 1: unknown column 'NE-COARSE-LIT'; did you mean 'NE-COARSE'? Known: NE-COARSE, TOKEN; the "
            "header line is 'TOKEN\\tNE-COARSE'"
        ),
    ),
    "no header": (
        "Ada\tB-PER\nBo\tB-PER\n",
        HIPE,
        "line 1: unknown column 'TOKEN'; Known: Ada, B-PER; the header line is",
    ),
    "a name twice": (
        "TOKEN\tNE-COARSE-LIT\tNE-COARSE-LIT\nAda\tO\tO\n",
        HIPE,
        "line 1: two columns are called 'NE-COARSE-LIT'",
    ),
    "a header alone": (
        "TOKEN\tNE-COARSE-LIT\n",
        HIPE,
        "holds no sentence",
    ),
    "a header of other names where columns are numbers": (
        "Wort\tTyp\nAda\tB-PER\n",
        TABS,
        (
            "line 1: tag 'Typ' is no tag of IOB2, which has O, B-TYPE, I-TYPE; the word is 'Wort', its tag 'Typ'; mend "
            "it"
        ),
    ),
    "a column that is not annotated": (
        "TOKEN\tNE-COARSE-LIT\nAda\t_\n",
        HIPE,
        "line 2: tag '_' is no tag of IOB2",
    ),
    # CoNLL-U
    "no number": (
        misc("name=O") + "w\tx\t_\n",
        NAMED,
        "line 2: expected the number of a word; found 'w\\tx\\t_'|line 2: expected 10 columns",
    ),
    "a number left out": (
        misc("name=B-PER") + misc("name=O", number=3),
        NAMED,
        "line 2: expected the number 2; found '3\\tw3",
    ),
    "no blank line": (
        misc("name=B-PER") + misc("name=O"),
        NAMED,
        "line 2: expected the number 2; found '1\\tw1",
    ),
    "no CoNLL-U": (
        "Ada\tB-PER\n",
        NAMED,
        "line 1: expected CoNLL-U: a number, a word and more, separated by tabs; found 'Ada",
    ),
    "blanks for tabs": (
        "1 Ada _ _ _ _ _ _ _ name=B-PER\n",
        NAMED,
        "line 1: expected CoNLL-U",
    ),
    "no key in MISC": (
        misc("NE=B-PER"),
        NAMED,
        "no line where MISC has the key 'name'; say where tags are with columns",
    ),
    "no tag in a column": (
        misc("_"),
        TokenFormat("conllu", columns={"tag": 10}),
        "no line where column 10 has a tag",
    ),
    "no tag anywhere": (
        misc("SpaceAfter=No", "_"),
        CONLLU,
        (
            "expected one column of tags, or one key of MISC that has them, such as name=B-PER; found "
            "neither; say which with columns: {tag: ...}"
        ),
    ),
    "two keys": (
        misc("NE=B-PER|name=B-LOC"),
        CONLLU,
        "found several: key 'NE', key 'name'; say which",
    ),
    "a key without MISC": (
        "1\tAda\tB-PER\t-\t-\n",
        NAMED,
        (
            "line 1: expected a column 'name', or MISC with that key; found 5 columns without names: "
            "'1\\tAda\\tB-PER\\t-\\t-'; give the column's number"
        ),
    ),
    "a comment among words": (
        misc("name=O") + "# text = w\n" + misc("name=O", number=2),
        NAMED,
        "line 2: a comment stands before the first word",
    ),
    "an entity of a range alone": (
        "1-2\tx\t_\t_\t_\t_\t_\t_\t_\tname=B-PER\n" + misc("name=O", "_"),
        NAMED,
        (
            "line 1: the range of 2 words has the tag 'B-PER', but its words, which are what CoNLL-U "
            "annotates, have none"
        ),
    ),
    "a range of which a word is missing": (
        "1-3\tx\t_\t_\t_\t_\t_\t_\t_\t_\n" + misc("name=B-PER", "_"),
        NAMED,
        "line 1: the range of 3 words has 2 of them after it; give all, or correct the range",
    ),
    "words that were taken out": (
        misc("name=O") + "\n" + misc("name=B-PER", "name=I-PER").replace("w1", "_").replace("w2", "___"),
        NAMED,
        "line 3: the words of the sentence were taken out: found '_ ___'; put them back as the data set says",
    ),
    "two tags of a key": (
        misc("name=B-PER|name=B-LOC"),
        NAMED,
        "line 1: tag 'B-PER|B-LOC' is several in one; nested or",
    ),
    "numbers that begin anew": (
        "# sent_id = 1\n1\tAda\tB-PER\n2\tBo\tO\n# sent_id = 2\n1-2\tCy\tO\n1\tCy\tO\n",
        TokenFormat(columns={"word": 2, "tag": 3}),
        "line 5: expected a blank line before a sentence; found '1-2\\tCy\\tO'; its numbers begin anew; add one",
    ),
    # Brackets
    "entities within entities": (
        misc("Entity=(LOC(PER)", "Entity=)"),
        CONLLU,
        "line 1: entity '(PER' begins within another; nested or overlapping entities need one tag per word",
    ),
    "two on one word": (
        misc("Entity=(LOC)(PER)"),
        CONLLU,
        "line 1: entity '(PER' begins within another",
    ),
    "an entity that does not end": (
        misc("Entity=(LOC", "_"),
        CONLLU,
        "line 2: the entity of the type 'LOC' does not end",
    ),
    "an entity that does not begin": (
        misc("Entity=(LOC)", "Entity=LOC)"),
        CONLLU,
        "line 2: 'LOC)' closes an entity that did not begin; mend the brackets",
    ),
    "an entity without its type": (
        "# global.Entity = eid-etype-head\n" + misc("Entity=(e1)"),
        CONLLU,
        (
            "line 2: expected the type of an entity as the part 'etype' of 'eid-etype-head', which # "
            "global.Entity says; found"
        ),
    ),
    # Tags
    "an unknown type": (
        "Ada\tB-PER\nBo\tB-ORG\n",
        TABS,
        (
            "line 2: unknown type 'ORG' of the tag 'B-ORG'; the types are PER, LOC; list those of all tags "
            "in types, or map them; the word is 'Bo', its tag 'B-ORG'"
        ),
    ),
    "a tag of another scheme": (
        "Ada x\nBo x\n\nCy x\n".replace("x", "U-PER"),
        BLANKS,
        (
            "line 1: tag 'U-PER' is no tag of IOB2, which has O, B-TYPE, I-TYPE; the word is 'Ada', its tag "
            "'U-PER'; its tags are BILOU: 3 entities of the types PER; say scheme: BILOU"
        ),
    ),
    "IOB1 for IOB2": (
        "Ada I-PER\nBo O\n",
        BLANKS,
        (
            "line 1: tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'; the word is 'Ada', "
            "its tag 'I-PER'; its tags are IOB1: 1 entity of the types PER; say scheme: IOB1"
        ),
    ),
    "IOB2 for IOB1": (
        "Ada x x I-PER\n\nBo x x B-PER\n",
        FOUR,
        (
            "line 3: tag 'B-PER' follows 'O', but in IOB1 'B-PER' stands only right after an entity of the "
            "same type; the word is 'Bo', its tag 'B-PER'; mend it, or say scheme: conlleval if"
        ),
    ),
    "both": (
        "Ada\tI-PER\n\nBo\tB-PER\nCy\tO\n",
        DETECT,
        "no scheme fits all tags; IOB2 is closest, but",
    ),
    "an entity cut off": (
        "Ada\tB-PER\n\nBo\tO\n",
        TokenFormat(scheme="IOBES"),
        (
            "line 1: the sentence ends after 'B-PER', but in IOBES an entity of several words ends with "
            "'E-PER'; the word is 'Ada', its tag 'B-PER'; its tags are IOB2: 1 entity of the types PER; say "
            "scheme: IOB2"
        ),
    ),
    "several tags in one, in another form": (
        "Ada\t['B-PER', 'O']\n",
        DETECT,
        "line 1: tag \"['B-PER', 'O']\" is several in one; nested",
    ),
    "a cell that is longer than any word": (
        'Ada,O\n"' + 200_000 * "a" + '",O\n',
        TokenFormat(separator=","),
        "line 2: expected 2 columns separated by ','",
    ),
    "several tags in one": (
        "Ada\tB-PER|B-LOC\n",
        DETECT,
        (
            "line 1: tag 'B-PER|B-LOC' is several in one; nested or overlapping entities need one tag per "
            "word in each of several columns; choose one of them"
        ),
    ),
    "no tag at all in types alone": (
        "Ada x PER\nBo x O\n".replace(" ", "\t").replace("O", ""),
        TokenFormat(columns={"word": 1, "tag": 3}, scheme="detect"),
        "line 2: expected a tag; found 'Bo\\tx\\t'; give the word a tag, or O",
    ),
    "letters alone": (
        "Ada\tB\nBo\tI\n",
        DETECT,
        "line 1: tag 'B' is a letter without a type, and may be a type too",
    ),
}


def refusal(path: Path, form: TokenFormat, types: dict[str, str | None] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_token_file(path, LABELS, form, types)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    return message


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_line_and_a_remedy(tmp_path, name):
    text, form, says = BROKEN[name]
    path = tmp_path / "broken.txt"
    path.write_bytes(text.encode())
    message = refusal(path, form)
    assert message.startswith(str(path)) or "no folder" in message
    assert any(one in message for one in says.split("|line")) if "|line" in says else says in message, message


@pytest.mark.parametrize(("raw", "says"), [
    (b"Ada\tO\n\nJ\xfcrgen\tO\n", "not UTF-8 at byte 8; convert the file to UTF-8; if it is Latin-1: iconv"),
    (b"J\xfcrgen\tO\n", "> NEW.txt, or say encoding: latin-1"),
    ("Ada\tO\n".encode("utf-16"), "not UTF-8 at byte 0; it is UTF-16: iconv"),
    (b"\x1f\x8b\x08\x00" + bytes(range(256)), "not UTF-8 at byte 1; it is compressed by gzip: let its name end"),
    (b"PAR1" + bytes(range(256)), "it is a Parquet file: set name: table, format: parquet"),
    (b"version https://git-lfs.github.com/spec/v1\noid\n", "it is a pointer of Git LFS: fetch the file itself"),
])  # fmt: skip
def test_files_that_are_not_utf8(tmp_path, raw, says):
    path = tmp_path / "broken.txt"
    path.write_bytes(raw)
    for form in (TABS, TokenFormat()):
        assert says in refusal(path, form)


def test_files_that_are_not_what_encoding_or_their_name_says(tmp_path):
    path = tmp_path / "broken.gz"
    path.write_bytes(b"Ada\tO\n")
    assert "Not a gzipped file" in refusal(path, TABS)
    path.write_bytes(gzip.compress(b"J\xfcrgen\tO\n"))
    assert "if it is Latin-1: iconv -f LATIN1 -t UTF-8 FILE > NEW.gz" in refusal(path, TABS)
    path.write_bytes(gzip.compress(b"Ada\tO\n")[:-9])
    assert "Compressed file ended before the end" in refusal(path, TABS)
    path = tmp_path / "broken.txt"
    path.write_bytes(b"Ada\tO\n")
    assert "not utf-16, but UTF-16 stream does not start with BOM; correct encoding" in refusal(
        path, TokenFormat(encoding="utf-16")
    )


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file or directory; check the path" in refusal(tmp_path / "nothing", TABS)
    assert "Is a directory" in refusal(tmp_path, TABS)
    assert "cannot read 'a\\x00b'" in refusal(Path("a\0b"), TABS)
    assert "expected the path of a file; found 3" in refusal(3, TABS)  # type: ignore[arg-type]


def test_a_type_that_the_map_lacks_is_refused(tmp_path):
    path = tmp_path / "broken.txt"
    path.write_text("Ada\tB-PERS\nthe\tO\nyear\tI-DATE\n", encoding="utf-8")
    form = TokenFormat(scheme="conlleval")
    message = refusal(path, form, {"PERS": "PER"})
    assert message == (
        f"{path}, line 3: type 'DATE' of the tag 'I-DATE' is not among those that types maps (PERS); add 'DATE: TYPE', "
        "or 'DATE: null' to leave it out; the word is 'year', its tag 'I-DATE'"
    )
    assert read_token_file(path, LABELS, form, {"PERS": "PER", "DATE": None}).sentences[0].tags == ("B-PER", "O", "O")
    assert read_token_file(path, LABELS, form, {"PERS": "PER", "DATE": "LOC"}).sentences[0].tags == (
        "B-PER",
        "O",
        "B-LOC",
    )
