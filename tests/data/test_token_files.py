"""Token files of every format, with the oddities of real ones: what is read, written out by hand."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from pemeta.data.conll import read_conll
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.data.token_files.columns import token_rows
from pemeta.data.token_files.formats import TokenFormat
from pemeta.data.token_files.reading import read_token_file
from pemeta.errors import ConfigError, DataError

LABELS = LabelSet(("PER", "LOC", "ORG"))
REAL = Path(__file__).parents[3] / "shared" / "data" / "ner"

CONLL_2003 = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
. . O O

-DOCSTART- -X- -X- O

Oslo NNP I-NP I-LOC
Rome NNP B-NP B-LOC
# # I-NP O

"""
CONLLU = """# newdoc id = a
# sent_id = a-1
# text = vámonos a Oslo
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\tname=O
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\tname=O
2.1\tx\t_\tVERB\t_\t_\t_\t_\t1:dep\tname=B-PER
3\ta\ta\tADP\t_\t_\t4\tcase\t_\t_
4\tOslo\tOslo\tPROPN\t_\t_\t1\tobl\t_\tGloss=a|name=B-LOC|SpaceAfter=No

# sent_id = a-2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\tname=O

# newdoc
# sent_id = b-1
1\tNova\tNova\tPROPN\t_\t_\t0\troot\t_\tname=B-LOC
2\tScotia\tScotia\tPROPN\t_\t_\t1\tflat\t_\tname=I-LOC
"""
CONLLU_SENTENCES = [
    ("vamos nos a Oslo", "O O O B-LOC", 0), ("#", "O", 0), ("Nova Scotia", "B-LOC I-LOC", 1),
]  # fmt: skip
UNER = """# sent_id = email-1
# text = Tuva slept in Nova Scotia .
1\tTuva\tB-PER\t-\tann
2-3\tsleptin\t_\t-\t-
2\tslept\tO\t-\t-
3\tin\tO\t-\t-
4\tNova\tB-LOC\t-\tann
5\tScotia\tI-LOC\t-\tann
6\t.\tO\t-\t-

# text = # of
1\t#\tO\t-\t-
2\tof\tO\t-\t-
"""
GERMEVAL = """#\thttp://de.wikipedia.org/wiki/Ada [2009-10-17]
1\tAda\tB-PER\tO
2\tNova\tB-ORG\tB-LOC
3\tScotias\tI-ORG\tI-LOC
4\t#\tO\tO

#\thttp://de.wikipedia.org/wiki/Ada [2009-10-17]
1\t"\tO\tO
2\tOslo-Reise\tB-LOCpart\tO

#\thttp://de.wikipedia.org/wiki/Bo [2009-10-17]
1\tBo\tB-PER\tO
"""
HEADER = "TOKEN NE-COARSE-LIT NE-COARSE-METO NE-FINE-LIT NE-FINE-METO NE-FINE-COMP NE-NESTED NEL-LIT NEL-METO MISC"
HIPE = f"""{HEADER.replace(" ", chr(9))}
# hipe2022:document_id = NZZ-1798
# hipe2022:date = 1798-01-20
# hipe2022:applicable_columns = TOKEN NE-COARSE-LIT NE-COARSE-METO
# segment_iiif_link = https://example.org/1
Paris\tB-loc\tB-org\tB-loc.adm.town\tO\tO\tO\tQ90\tNIL\t_
schrieb\tO\tO\tO\tO\tO\tO\t_\t_\tEndOfLine
# segment_iiif_link = https://example.org/2
Ada\tB-pers\tO\tB-pers.ind\tO\tB-comp.name\tO\tNIL\t_\tNoSpaceAfter
.\tO\tO\tO\tO\tO\tO\t_\t_\tEndOfSentence|EndOfLine
#\tO\tO\tO\tO\tO\tO\t_\t_\t_
Oslo\tB-loc\tO\tB-loc.adm.town\tO\tO\tO\tQ585\t_\tPySBDSegment

# hipe2022:document_id = NZZ-1808
Rom\tB-loc\tO\tO\tO\tO\tO\t_\t_\tNoSpaceAfter|EndOfSentence
"""
HIPE_TYPES = {"pers": "PER", "loc": "LOC", "org": "ORG"}
CSV = 'Sentence #,Word,POS,Tag\nSentence: 1,"Ada, Bo",NNP,B-PER\n,",",",",O\nSentence: 2,"""",``,O\n,Oslo,NNP,B-LOC\n'
ENTITY = """# global.Entity = eid-etype-head
# newdoc
1\tNova\t_\tPROPN\t_\t_\t0\troot\t_\tEntity=(e1-LOC-1
2\tScotia\t_\tPROPN\t_\t_\t1\tflat\t_\tEntity=e1)|SpaceAfter=No
3\tis\t_\tAUX\t_\t_\t1\tcop\t_\t_
4\tAda\t_\tPROPN\t_\t_\t1\tflat\t_\tEntity=(e2-PER-1)
"""
PLUS = """# global.columns = ID FORM UPOS PARSEME:MWE NE
1\tNova\tPROPN\t*\tB-LOC
2\tScotia\tPROPN\t*\tI-LOC
3\tis\tAUX\t*\t_
"""
ONTONOTES = """#begin document (nw/wsj/24/wsj_2400); part 000
wsj/24   0   0   Tuva   NNP   (TOP(S(NP*   -   -   -   -   (PERSON*   (ARG0*   (0
wsj/24   0   1     Lo   NNP            *)   -   -   -   -         *)        *)   0)
wsj/24   0   2   left   VBD         (VP*  leave 01 1 -          *       (V*)   -
wsj/24   0   3   Oslo   NNP      (NP*)))   -   -   -   -     (GPE)    (ARG1*)   -

wsj/24   0   0    Yes    UH     (TOP(INTJ*))   -   -   -   -   *   -
#end document
#begin document (nw/wsj/24/wsj_2400); part 001
wsj/24   1   0   Rome   NNP   (TOP(NP*))   -   -   -   -   (GPE)   -

#end document
"""
KEYS = ({"tag": "name"}, {"tag": "name", "word": 2}, {"tag": "name", "word": "FORM"}, {})

GOOD: dict[str, tuple[str, TokenFormat, dict[str, str | None] | None, list[tuple[Any, ...]]]] = {
    "CoNLL-2003": (
        CONLL_2003, TokenFormat(columns={"word": 1, "tag": 4}, scheme="IOB1"), None,
        [("U.N. official Ekeus .", "B-ORG O B-PER O", 0), ("Oslo Rome #", "B-LOC B-LOC O", 1)],
    ),
    "CoNLL-2003 from the end": (
        CONLL_2003.replace(" ", "   \t"),
        TokenFormat(columns={"word": -4, "tag": -1}, separator="blanks", scheme="detect"), None,
        [("U.N. official Ekeus .", "B-ORG O B-PER O", 0), ("Oslo Rome #", "B-LOC B-LOC O", 1)],
    ),
    "CoNLL-2003's chunks": (
        CONLL_2003, TokenFormat(columns={"word": 1, "tag": 3}, scheme="IOB1"), {"NP": "LOC"},
        [("U.N. official Ekeus .", "B-LOC I-LOC I-LOC O", 0), ("Oslo Rome #", "B-LOC B-LOC I-LOC", 1)],
    ),
    **{
        f"CoNLL-U {number}": (CONLLU, TokenFormat("conllu", columns=columns), None, CONLLU_SENTENCES)
        for number, columns in enumerate(KEYS)
    },
    "CoNLL-U without tags where there is no entity": (
        CONLLU.replace("\tname=O", "\t_").replace("name=", "NE="), TokenFormat("conllu"), None, CONLLU_SENTENCES,
    ),
    "CoNLL-U with a column of its own": (
        CONLLU.replace("Gloss=a|", "").replace("|SpaceAfter=No", "").replace("name=", "").replace("SpaceAfter=No", "_"),
        TokenFormat("conllu", columns={"tag": 10}), None, CONLLU_SENTENCES,
    ),
    **{
        f"CoNLL-U Plus {number}": (PLUS, form, None, [("Nova Scotia is", "B-LOC I-LOC O", None)])
        for number, form in enumerate((TokenFormat("conllu", columns={"tag": "NE"}), TokenFormat("conllu")))
    },
    "CoNLL-U with brackets": (ENTITY, TokenFormat("conllu"), None, [("Nova Scotia is Ada", "B-LOC I-LOC O B-PER", 0)]),
    **{
        f"Universal NER {number}": (UNER, form, None, [
            ("Tuva slept in Nova Scotia .", "B-PER O O B-LOC I-LOC O", None), ("# of", "O O", None),
        ])
        for number, form in enumerate((
            TokenFormat(columns={"word": 2, "tag": 3}),
            TokenFormat("conllu", columns={"tag": 3}),
            TokenFormat("conllu"),
        ))
    },
    "GermEval's outer entities": (
        GERMEVAL, TokenFormat(columns={"word": 2, "tag": 3}),
        {"PER": "PER", "ORG": "ORG", "LOC": "LOC", "LOCpart": None},
        [("Ada Nova Scotias #", "B-PER B-ORG I-ORG O", 0), ('" Oslo-Reise', "O O", 0), ("Bo", "B-PER", 1)],
    ),
    "GermEval's inner entities": (
        GERMEVAL, TokenFormat(columns={"word": 2, "tag": -1}, scheme="detect"), None,
        [("Ada Nova Scotias #", "O B-LOC I-LOC O", 0), ('" Oslo-Reise', "O O", 0), ("Bo", "O", 1)],
    ),
    "HIPE-2022, literal": (
        HIPE, TokenFormat(columns={"word": "TOKEN", "tag": "NE-COARSE-LIT"}), HIPE_TYPES,
        [("Paris schrieb Ada .", "B-LOC O B-PER O", 0), ("# Oslo", "O B-LOC", 0), ("Rom", "B-LOC", 1)],
    ),
    "HIPE-2022, metonymic": (
        HIPE, TokenFormat(columns={"word": "TOKEN", "tag": "NE-COARSE-METO", "flags": "MISC"}), HIPE_TYPES,
        [("Paris schrieb Ada .", "B-ORG O O O", 0), ("# Oslo", "O O", 0), ("Rom", "O", 1)],
    ),
    "two HIPE files joined": (
        HIPE + "\n" + HIPE.splitlines()[0] + "\nRom\tB-loc\tO\tO\tO\tO\tO\t_\t_\t_\n",
        TokenFormat(columns={"word": "TOKEN", "tag": "NE-COARSE-LIT"}), HIPE_TYPES,
        [
            ("Paris schrieb Ada .", "B-LOC O B-PER O", 0), ("# Oslo", "O B-LOC", 0), ("Rom", "B-LOC", 1),
            ("Rom", "B-LOC", 2),
        ],
    ),
    "CSV, a sentence for each value": (
        CSV, TokenFormat(columns={"sentence": "Sentence #", "word": "Word", "tag": "Tag"}, separator=","), None,
        [("Ada, Bo|,", "B-PER O", None), ('"|Oslo', "O B-LOC", None)],
    ),
    "a blank for the tab": (
        "Tuva B-PER\nlo O\n\nNova  B-LOC\n", TokenFormat(separator="blanks"), None,
        [("Tuva lo", "B-PER O", None), ("Nova", "B-LOC", None)],
    ),
    "a separator of several characters": (
        "Tuva ||| B-PER\nlo ||| O\n", TokenFormat(separator="|||"), None, [("Tuva lo", "B-PER O", None)],
    ),
    "IOBES with tabs": (
        "Tuva\tS-PER\nbor\tO\nNova\tB-LOC\nScotia\tE-LOC", TokenFormat(scheme="IOBES"), None,
        [("Tuva bor Nova Scotia", "B-PER O B-LOC I-LOC", None)],
    ),
    "MultiCoNER": (
        "# id 1f-2\tdomain=en\nTuva _ _ B-PER\nlo _ _ O\n\n\n# id 1f-3\tdomain=en\n# _ _ O\n",
        TokenFormat(columns={"word": 1, "tag": 4}), None, [("Tuva lo", "B-PER O", None), ("#", "O", None)],
    ),
    "documents without blank lines around their marks": (
        "-DOCSTART-\tO\nTuva\tB-PER\n-DOCEND-\tO\n-DOCSTART-\tO\nlo\tO\n\nlo\tO\n",
        TokenFormat(separator="tab", scheme="detect"), None, [("Tuva", "B-PER", 0), ("lo", "O", 1), ("lo", "O", 1)],
    ),
    "a marker in the column of words, and lines of separators": (
        "-DOCSTART-,O\n,\n\"Tuva\",B-PER\n,\n-DOCSTART-,B-ORG\n-DOCSTART-,O\nlo,O\n", TokenFormat(separator=","), None,
        [("Tuva", "B-PER", 0), ("-DOCSTART-", "B-ORG", 0), ("lo", "O", 1)],
    ),
    "a marker with a number": (
        "1\t-DOCSTART-\tO\n\n1\tTuva\tB-PER\n2\t-DOCSTART-\tO\n3\tlo\tO\n", TokenFormat(columns={"word": 2, "tag": 3}),
        None, [("Tuva -DOCSTART- lo", "B-PER O O", 0)],
    ),
    "a header where columns are numbers": (
        HIPE, TokenFormat(columns={"word": 1, "tag": 2}, scheme="detect"), HIPE_TYPES,
        [("Paris schrieb Ada .", "B-LOC O B-PER O", 0), ("# Oslo", "O B-LOC", 0), ("Rom", "B-LOC", 1)],
    ),
    "a header of two columns": (
        "Word\tTag\nTuva\tB-PER\n", TokenFormat(scheme="detect"), None, [("Tuva", "B-PER", None)],
    ),
    "blanks after tags": (
        "Tuva\tB-PER  \nlo\tO \n", TokenFormat(scheme="detect", separator="tab"), None, [("Tuva lo", "B-PER O", None)],
    ),
    "types alone, with words that look like comments": (
        "# sent_id = 1\n# org-other\nlo O\n# O\n", TokenFormat(separator="blanks", scheme="types"),
        {"org-other": "ORG"}, [("# lo #", "B-ORG O O", None)],
    ),
    "brackets around stars, as in OntoNotes": (
        "Nova NNP (LOC*\nScotia NNP *)\nis V *\nTuva NNP (PER)\n\nlo V *\n",
        TokenFormat(columns={"word": 1, "tag": 3}, scheme="detect"), None,
        [("Nova Scotia is Tuva", "B-LOC I-LOC O B-PER", None), ("lo", "O", None)],
    ),
    "CoNLL-2012, with another number of columns in each sentence": (
        ONTONOTES, TokenFormat(columns={"word": 4, "tag": 11}, scheme="detect"), {"PERSON": "PER", "GPE": "LOC"},
        [("Tuva Lo left Oslo", "B-PER I-PER O B-LOC", 0), ("Yes", "O", 0), ("Rome", "B-LOC", 1)],
    ),
    "brackets with the numbers of coreference": (
        ENTITY.partition("\n")[2].replace("(e1-LOC-1", "(LOC-1").replace("e1)", "LOC-1)").replace("(e2-PER", "(PER"),
        TokenFormat("conllu"), None, [("Nova Scotia is Ada", "B-LOC I-LOC O B-PER", 0)],
    ),
    "empty columns missing at the end": (
        "Tuva\tB-PER\t\t\nlo\tO\nNova\tB-LOC\t\t\t\n", TokenFormat(columns={"word": 1, "tag": 2}), None,
        [("Tuva lo Nova", "B-PER O B-LOC", None)],
    ),
    "numbers that are none of words": (
        "0 4 Tuva B-PER\n5.1 7 lo O\n8-9 3 lo O\n", TokenFormat(columns={"word": 3, "tag": 4}), None,
        [("Tuva lo lo", "B-PER O O", None)],
    ),
    "lemmas that are numbers, before the words": (
        "1990\t1990\tO\n1991-1995\t1991-1995\tO\n#\t#\tO\nTuva\tTuvas\tB-PER\n",
        TokenFormat(columns={"word": 2, "tag": 3}), None, [("1990 1991-1995 # Tuvas", "O O O B-PER", None)],
    ),
    "blanks in a word and odd line ends": (
        "New York\tx\tB-LOC\r\n\u00a0a\u2028b\tx\tO\r\n\r\n", TokenFormat(columns={"word": 1, "tag": 3}), None,
        [("New York|\u00a0a\u2028b", "B-LOC O", None)],
    ),
}  # fmt: skip


def given(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a file.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_read_as_they_are_meant(tmp_path, name, ends):
    text, form, types, expected = GOOD[name]
    path = given(tmp_path, "\ufeff" + text.replace("\r\n", "\n").replace("\n", ends))
    found = read_token_file(path, LABELS, form, types)
    told = [("|" if "|" in words else " ", words, tags.split(), document) for words, tags, document in expected]
    assert found.sentences == tuple(Sentence(words.split(mark), tags) for mark, words, tags, _ in told)
    assert [sentence.document for sentence in found.sentences] == [document for *_, document in told]
    assert found.scheme == (form.scheme if form.scheme != "detect" else found.scheme)
    assert len(found.notes) == (form.scheme == "detect")


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "iso8859-1"), ("UTF_16", "utf-16"), ("utf8", None)])
@pytest.mark.parametrize("ending", ["", ".gz", ".BZ2", ".xz"])
def test_files_in_other_encodings_and_compressed_ones(tmp_path, encoding, name, ending):
    path = tmp_path / f"train.txt{ending}"
    pack = {".gz": gzip.compress, ".BZ2": bz2.compress, ".xz": lzma.compress}.get(ending, bytes)
    path.write_bytes(pack("Pérez\tB-PER\r\nx\u00a0y\tO\r\n".encode(encoding)))
    form = TokenFormat(separator="tab", encoding=encoding)
    assert form.encoding == name
    (sentence,) = read_token_file(path, LABELS, form).sentences
    assert (sentence.words, sentence.tags) == (("Pérez", "x\u00a0y"), ("B-PER", "O"))
    if name is None:
        assert read_conll(path, LABELS) == [sentence]


def test_rows_say_where_each_word_stands(tmp_path):
    path = given(tmp_path, CONLLU)
    rows = list(token_rows(path, TokenFormat("conllu")))
    assert [row.where for row in rows] == [f"{path}, line {number}" for number in (5, 12, 16)]
    assert rows[0].lines == (5, 6, 8, 9)
    assert rows[0].place(3) == f"{path}, line 9"
    assert rows[0].values == {"tokens": ["vamos", "nos", "a", "Oslo"], "tags": ["O", "O", "O", "B-LOC"], "document": 0}


def test_rows_are_read_one_by_one(tmp_path):
    path = given(tmp_path, "a x B-PER\n\n" * 1000 + "a x\n")
    rows = token_rows(path, TokenFormat(columns={"word": 1, "tag": 3}))
    for _ in range(1000):
        next(rows)
    with pytest.raises(DataError, match="line 2001: expected 3 columns"):
        next(rows)


def test_what_detection_found_is_noted(tmp_path):
    found = read_token_file(given(tmp_path, CONLL_2003), LABELS, GOOD["CoNLL-2003 from the end"][1])
    assert found.scheme == "IOB1"
    assert found.notes == (f"{tmp_path / 'a file.txt'}: its tags are IOB1: 4 entities of the types ORG, PER, LOC",)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data sets are not at {REAL}")
def test_the_general_reader_reads_what_the_strict_one_does():
    labels = LabelSet(("PER", "ORG", "LOC"))
    for repository in sorted(REAL.iterdir()):
        path = min(repository.rglob("validation.conll"), key=lambda path: path.stat().st_size)
        strict = read_conll(path, labels)
        found = read_token_file(path, labels, TokenFormat(columns={"word": 1, "tag": -1}, scheme="detect"))
        assert list(found.sentences) == strict
        assert found.scheme == "IOB2"
        assert [one.document for one in found.sentences] == [one.document for one in strict]


@pytest.mark.parametrize(("keys", "says"), [
    ({"format": "conll"}, "unknown format 'conll'; did you mean 'conllu'? Known: columns, conllu"),
    ({"scheme": "BIOES"}, "unknown scheme 'BIOES'; did you mean 'IOBES'?"),
    ({"columns": {"word": 1}}, "expected the column of tags; found {'word': 1}; add tag"),
    ({"columns": {"word": 1, "tags": 2}}, "unknown column 'tags'; did you mean 'tag'?"),
    ({"columns": {"tag": 0}}, "tag: expected the number of a column, from 1, or from the end if negative, or its name"),
    ({"columns": {"tag": True}}, "found True"),
    ({"columns": {"tag": None}}, "found None"),
    ({"columns": {"word": 2, "tag": 2}}, "expected a column for each; found one for two: {'word': 2, 'tag': 2}"),
    ({"columns": {"tag": [3, 4]}}, "tag: expected one column; found [3, 4]; nested annotations have several columns"),
    ({"columns": [1, 2]}, "expected a mapping such as {word: 1, tag: 2}; found [1, 2]"),
    ({"separator": ""}, "expected what separates columns: tab, blanks, or the characters, such as ','; found ''"),
    ({"separator": 3}, "found 3"),
    ({"encoding": "hex"}, "expected an encoding, such as latin-1 or utf-16; found 'hex'"),
])  # fmt: skip
def test_a_format_that_there_is_not_is_refused(keys, says):
    with pytest.raises(ConfigError) as caught:
        TokenFormat(**keys)
    assert says in str(caught.value)


def test_a_format_as_a_configuration_says_it():
    assert str(TokenFormat()) == "{}"
    assert TokenFormat().is_usual
    form = TokenFormat("conllu", {"tag": "NE"}, "\t", "detect")
    assert str(form) == "{format: conllu, columns: {tag: NE}, separator: tab, scheme: detect}"
    assert str(TokenFormat(columns={"tag": "no", "word": "a: b"})) == "{columns: {tag: 'no', word: 'a: b'}}"
