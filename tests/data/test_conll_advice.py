"""Files of other formats: what they are is named, and the setting in the message reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from pemeta.data.conll import read_conll
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.data.sources import ConllData
from pemeta.errors import DataError

LABELS = LabelSet(("PER", "LOC"))
TUVA = Sentence(("Tuva", "lo"), ("B-PER", "O"))
NOVA = Sentence(("Nova", "Scotia", "Tuva"), ("B-LOC", "I-LOC", "B-PER"))

UNER = "# sent_id = d-1\n# text = Tuva lo\n1\tTuva\tB-PER\t-\t-\n2\tlo\tO\t-\t-\n\n"
CONLL_U = (
    "# text = Tuvalo\n1-2\tTuvalo\t_\t_\n1\tTuva\tPROPN\tB-PER\n2\tlo\tVERB\tO\n2.1\tx\tVERB\tO\n\n"
    "1\tNova\tPROPN\tB-LOC\n2\tScotia\tPROPN\tI-LOC\n3\tTuva\tPROPN\tB-PER\n"
)
CONLL_2003 = (
    "-DOCSTART- -X- -X- O\n\nTuva NNP B-NP B-PER\nlo VBD B-VP O\n\n"
    "Nova NNP B-NP B-LOC\nScotia NNP I-NP I-LOC\nTuva NNP B-NP B-PER\n"
)
HIPE = (
    "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tNE-FINE-METO\tNE-FINE-COMP\tNE-NESTED\tNEL-LIT\tNEL-METO\tMISC\n"
    "# hipe2022:document_id = a\nTuva\tB-PER\tO\tB-PER.ind\tO\tO\tO\t_\t_\t_\n"
    "lo\tO\tO\tO\tO\tO\tO\t_\t_\tNoSpaceAfter|EndOfSentence\nNova\tB-LOC\tO\tO\tO\tO\tO\t_\t_\t_\n"
    "Scotia\tI-LOC\tO\tO\tO\tO\tO\t_\t_\t_\nTuva\tB-PER\tO\tO\tO\tO\tO\t_\t_\tEndOfSentence\n"
)
ONTONOTES = (
    "#begin document (a); part 000\na 0 0 Tuva NNP (TOP(NP*) - - - - (PER) (ARG0*) -\n"
    "a 0 1 lo VBD (VP*)) - - - - * (V*) -\n\na 0 0 lo UH (TOP*) - - - - * -\n#end document\n"
)
KAGGLE = (
    "Sentence #,Word,POS,Tag\nSentence: 1,Tuva,NNP,B-PER\n,lo,VB,O\nSentence: 2,Nova,NNP,B-LOC\n"
    ",Scotia,NNP,I-LOC\n,Tuva,NNP,B-PER\n"
)
MISC = "".join(
    f"{number}\t{word}\t_\tX\t_\t_\t0\troot\t_\t{misc}\n{end}"
    for number, word, misc, end in (
        (1, "Tuva", "name=B-PER|SpaceAfter=No", ""), (2, "lo", "name=O", "\n"), (1, "Nova", "name=B-LOC", ""),
        (2, "Scotia", "name=I-LOC", ""), (3, "Tuva", "name=B-PER", ""),
    )
)  # fmt: skip
IOBES = "Tuva\tS-PER\nlo\tO\n\nNova\tB-LOC\nScotia\tE-LOC\nTuva\tS-PER\n"
IOB1 = "Tuva\tI-PER\nlo\tO\n\nNova\tI-LOC\nScotia\tI-LOC\nTuva\tI-PER\n"
BOTH = [TUVA, NOVA]

FORMATS = {
    "Universal NER": (UNER, "5 columns separated by tabs, as in Universal NER: the word is in column 2", [TUVA]),
    "CoNLL-U": (CONLL_U, "it is CoNLL-U: read it", BOTH),
    "CoNLL-2003": (CONLL_2003, "as in CoNLL-2003: the word is in column 1, its tag in column 4", BOTH),
    "CoNLL-2003 with tabs": (CONLL_2003.replace(" ", "\t"), "4 columns separated by tabs", BOTH),
    "MultiCoNER": (
        "# id 1f-2\tdomain=en\nTuva _ _ B-PER\nlo _ _ O\n", "as in MultiCoNER: the word is in column 1", [TUVA],
    ),
    "a comment of as many columns": (
        "# id 1f-2 domain=en\nTuva _ _ B-PER\nlo _ _ O\n\n# _ _ O\n", "its tag in column 4",
        [TUVA, Sentence(("#",), ("O",))],
    ),
    "a blank for the tab": ("Tuva B-PER\nlo O\n\nNova B-LOC\nScotia I-LOC\nTuva B-PER\n", "2 columns", BOTH),
    "many blanks": ("Tuva    B-PER\nlo      O\n", "2 columns separated by blanks", [TUVA]),
    "a word # and a comment": ("# text = # #\n# O\n# B-PER\n", "2 columns", [Sentence(("#", "#"), ("O", "B-PER"))]),
    "a tab at the end": ("Tuva\tB-PER\t\nlo\tO\t\n", "3 columns separated by tabs", [TUVA]),
    "a column between": ("Tuva\tNNP\tB-PER\nlo\tVB\tO\n", "its tag in column 3", [TUVA]),
    "the tag first": ("B-PER\tTuva\nO\tlo\n", "the word is in column 2, its tag in column 1", [TUVA]),
    "IOBES": (IOBES, "its tags are IOBES (also BIOES): read it", BOTH),
    "BILOU": (IOBES.replace("S-", "U-").replace("E-", "L-"), "its tags are BILOU: read it", BOTH),
    "the tag first, after a byte-order mark": ("\ufeffB-PER\tTuva\nO\tlo\n", "the word is in column 2", [TUVA]),
    "bare types first": ("PER\tTuva\nO\tlo\n", "the word is in column 2, its tag in column 1", [TUVA]),
    "bare types in CoNLL-2003": ("Tuva NNP B-NP PER\nlo VBD B-VP O\n", "its tag in column 4", [TUVA]),
    "bare types in Universal NER": ("1\tTuva\tPER\t-\n2\tlo\tO\t-\n", "its tag in column 3", [TUVA]),
    "BMES": (IOBES.replace("lo\tO", "lo\tO\n\nA\tB-LOC\nB\tM-LOC\nC\tE-LOC"), "its tags are BMES", [
        TUVA, Sentence(("A", "B", "C"), ("B-LOC", "I-LOC", "I-LOC")), NOVA,
    ]),
    "IOB1": (IOB1, "its tags are IOB1, in which an entity may start with I-", BOTH),
    "IOB1 with neighbours": ("A\tI-PER\nB\tB-PER\nC\tI-PER\n\nD\tI-PER\n", "its tags are IOB1", [
        Sentence(("A", "B", "C"), ("B-PER", "B-PER", "I-PER")), Sentence(("D",), ("B-PER",)),
    ]),
    "neither": ("A\tB-PER\nB\tO\n\nC\tI-PER\n", "neither IOB2 nor IOB1 throughout", [
        Sentence(("A", "B"), ("B-PER", "O")), Sentence(("C",), ("B-PER",)),
    ]),
    "bare types": ("Tuva\tPER\nlo\tO\n\nNova\tLOC\nScotia\tLOC\nTuva\tPER\n", "types without B- and I-", BOTH),
    "GermEval 2014": (
        "#\thttp://example.org [2009]\n1\tTuva\tB-PER\tO\n2\tlo\tO\tO\n",
        "as in GermEval 2014: the word is in column 2, its tag in column 3", [TUVA],
    ),
    "HIPE-2022": (HIPE, "as in HIPE-2022: the word is in TOKEN, its tag in NE-COARSE-LIT", BOTH),
    "CoNLL-U with MISC": (MISC, "it is CoNLL-U: read it", BOTH),
    "CoNLL-U Plus": ("# global.columns = ID FORM NE\n1\tTuva\tB-PER\n2\tlo\t_\n", "it is CoNLL-U", [TUVA]),
    "a blank after a tag": ("Tuva\tB-PER \nlo\tO\n", "or drop them with data: {separator: tab}", [TUVA]),
    "CoNLL-2012": (
        ONTONOTES,
        "columns separated by blanks, as in CoNLL-2012: the word is in column 4, its tag in column 11",
        [TUVA, Sentence(("lo",), ("O",))],
    ),
    "two HIPE-2022 files joined": (
        HIPE + HIPE.splitlines()[0] + "\nlo\tO\tO\tO\tO\tO\tO\t_\t_\t_\n", "its tag in NE-COARSE-LIT",
        [*BOTH, Sentence(("lo",), ("O",))],
    ),
    "commas": ("Tuva,B-PER\nlo,O\n", "2 columns separated by commas", [TUVA]),
    "commas with a header": ("Word,POS,Tag\nTuva,NNP,B-PER\nlo,VB,O\n", "the word is in Word", [TUVA]),
    "one sentence a value": (
        KAGGLE,
        "its tag in Tag; Sentence # tells sentences apart", BOTH,
    ),
    "IOBES in the fourth column": (
        "Tuva NNP O S-PER\nlo VB O O\n\nNova NN O B-LOC\nScotia NN O E-LOC\nTuva NN O S-PER\n",
        "its tag in column 4; its tags are IOBES", BOTH,
    ),
    "bare types in the third column": ("Tuva\tNNP\tPER\nlo\tVB\tO\n", "column 3; its tags are types", [TUVA]),
    "a tab here and a blank there": ("Tuva\tB-PER\nlo O\n", "2 columns separated by blanks", [TUVA]),
}  # fmt: skip


def refusal(path: Path, labels: LabelSet = LABELS) -> str:
    with pytest.raises(DataError) as caught:
        read_conll(path, labels)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    return message


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_setting_in_the_message_reads_the_file(tmp_path, name, ends):
    text, says, sentences = FORMATS[name]
    path = tmp_path / "it's a file.conll"
    path.write_bytes(text.removesuffix("\n").replace("\n", ends).encode())  # no line end at the end
    message = refusal(path)
    assert says in message
    assert read_as_told(message, path) == sentences


def read_as_told(message: str, path: Path) -> list[Sentence]:
    """The sentences of a file by the setting in a message about it, of one type more than the message's reader had."""
    told = re.search(r"data: (\{.*\})", message)
    assert told, message
    setting = {"types": list(LABELS.types), **yaml.safe_load(told[1])}
    everywhere = dict.fromkeys(("train", "validation", "test"), path.name)
    del everywhere["validation"], everywhere["test"]
    for split in ("validation", "test"):
        everywhere[split] = f"{split}.conll"
        (path.parent / everywhere[split]).write_bytes(path.read_bytes())
    source = ConllData.parse({"name": "conll", "path": str(path.parent), "splits": everywhere, **setting})
    corpus = source.corpus("xx")
    assert corpus.train == corpus.validation == corpus.test
    return list(corpus.train)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("Tuva\tB-PER\nlo\tO\n".encode("utf-16"), "not UTF-8 at byte 0; it is UTF-16"),
        ("Tuva\tB-PER\nlo\tO\n".encode("utf-16-le"), "a NUL is in binary files and in UTF-16"),
        (
            "Tuva\tB-PER\nl\xf6\tO\n".encode("latin-1"),
            "not UTF-8 at byte 12; convert the file to UTF-8; if it is Latin-1",
        ),
        (b"Tuva\tB-PER\rlo\tO\r", "lines end with a carriage return alone"),
    ],
)
def test_the_command_for_another_encoding_makes_a_file_that_is_read(tmp_path, raw, says):
    (tmp_path / "file.conll").write_bytes(raw)
    message = refusal(tmp_path / "file.conll")
    assert says in message
    converted(message, tmp_path)
    (sentence,) = read_conll(tmp_path / "NEW.conll", LABELS)
    assert sentence.words in {("Tuva", "lo"), ("Tuva", "l\xf6")}


def converted(message: str, folder: Path) -> None:
    """Run the command at the end of the message."""
    command = re.search(r"(?:iconv|tr) .*?> NEW\.conll", message)
    assert command, message
    subprocess.run(["bash", "-c", command[0]], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Tuva\tB-MISC\nlo\tB-DATE\nx\tI-DATE\n", "data.types, or in the LabelSet in Python: [PER, LOC, MISC, DATE]"),
        ("Tuva\tb-per\n", "write B-PER; the entity types are those of data.types"),
        ("Tuva\t0\n", "write O; the entity types are those of data.types"),
        ("Tuva\tlo\n", "tags are O, and B-TYPE and I-TYPE for each type in data.types"),
        ("Tuva\tB-\n", "data.types"),
        ("Tuva\tE-PER\nx\tI-MISC\n", "its tags are of another scheme, but not throughout: "),
        (
            "Tuva\tS-PER\nx\tB-PER\n\nx\tO\n",
            "line 2: no scheme fits all tags; IOBES is closest, but the sentence ends after",
        ),
        ("Tuva\tI-PER\nx\tO\ny\tS-PER\n", "let every entity start with B-"),
        (
            "1\tTuva\tPROPN\n2\tlo\tVERB\n",
            "3 columns separated by tabs, but cannot be read: none of its 3 columns holds tags",
        ),
        ("a\tb\tO\nc\tO\n", "its lines have 2 to 3 columns separated by tabs; write a word, one tab and a tag in each"),
        ("New York B-LOC\nlo O\n", "its lines have 2 to 3 columns separated by blanks"),
        ("#sent 1\nTuva\tB-PER\n", "a comment begins with '# ' and stands before the first word of a sentence"),
        ("#\thttp://example.org [2009]\nTuva\tB-PER\n", "if this line is a comment, remove it"),
        ("Tuva,B-PER\nlo\n", "put a tab and a tag behind the word"),
        (
            "Tuva NNP B-PER\nlo VB I-LOC\nx VB S-LOC\n",
            "3 columns separated by blanks, but cannot be read: ",
        ),
        (
            "hello world\nhow are\n",
            "2 columns separated by blanks, but cannot be read: none of its 2 columns holds tags",
        ),
    ],
)
def test_what_is_wrong_is_named_where_no_setting_reads_it(tmp_path, text, says):
    (tmp_path / "file.conll").write_text(text, encoding="utf-8")
    message = refusal(tmp_path / "file.conll")
    assert says in message
    assert "data: {" not in message


def test_the_types_in_the_message_are_those_that_read_the_file(tmp_path):
    path = tmp_path / "file.conll"
    path.write_text("Tuva\tB-MISC\nlo\tB-DATE\nx\tI-DATE\n", encoding="utf-8")
    types = re.search(r"\[(.*)\]", refusal(path))
    assert types
    labels = LabelSet(types[1].split(", "))
    assert read_conll(path, labels)[0].tags == ("B-MISC", "B-DATE", "I-DATE")


def test_messages_about_many_types_stay_short(tmp_path):
    path = tmp_path / "file.conll"
    path.write_text("x\tB-UNKNOWN\n" + "".join(f"x\tB-LONGTYPE{i}\n" for i in range(500)), encoding="utf-8")
    refusal(path, LabelSet([f"TYPE{i}" for i in range(500)]))
