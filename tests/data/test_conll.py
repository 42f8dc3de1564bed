"""CoNLL files: they are read unchanged, and errors name the file, the line and its content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pemeta.data.conll import read_conll, read_conll_corpus
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.errors import DataError

LABELS = LabelSet(("PER", "ORG", "LOC"))
REAL = Path(__file__).parents[3] / "shared" / "data" / "ner"


def read(tmp_path: Path, content: str | bytes) -> list[Sentence]:
    path = tmp_path / "train.conll"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_conll(path, LABELS)


ADA = Sentence(("Ada", "slept"), ("B-PER", "O"))


@pytest.mark.parametrize(
    "text",
    [
        "Ada\tB-PER\nslept\tO\n\n",
        "Ada\tB-PER\nslept\tO",  # no line end at the end
        "\n\nAda\tB-PER\nslept\tO\n\n\n\n",  # more blank lines
        "Ada\tB-PER\r\nslept\tO\r\n\r\n",  # from Windows
        "\ufeffAda\tB-PER\nslept\tO\n",  # with a byte order mark
        "Ada\tB-PER\nslept\tO\n \t \n",  # a blank line with blanks in it
    ],
)
def test_the_same_sentence_however_it_is_laid_out(tmp_path, text):
    assert read(tmp_path, text) == [ADA]


@pytest.mark.parametrize("odd", ["a\u0085b", "a\u2028b", "a\rb", "a\x0bb", "a\u200bb", "a b", "\u200b"])
def test_unusual_line_separators_stay_in_their_word(tmp_path, odd):
    assert read(tmp_path, f"{odd}\tO\nx\tO\n") == [Sentence((odd, "x"), ("O", "O"))]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("Ada\tB-PER\nslept O\n", 2, "expected word<TAB>tag; found 'slept O'"),
        ("Ada\tNNP\tB-PER\n", 1, "expected word<TAB>tag; found 'Ada\\tNNP\\tB-PER'"),
        ("Ada\tB-PER\n\tO\n", 2, "expected word<TAB>tag; found '\\tO'"),
        ("\n\nAda\t\n", 3, "expected word<TAB>tag; found 'Ada\\t'"),
        ("Ada\tB-PRE\n", 1, "unknown tag 'B-PRE'; the label set is O, B-PER, I-PER"),
        ("Ada\tb-per\n", 1, "unknown tag 'b-per'"),
        ("Ada\tO \n", 1, "unknown tag 'O '"),
        ("Ada\tI-PER\n", 1, "tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'"),
        ("Ada\tB-PER\nRome\tI-LOC\n", 2, "tag 'I-LOC' follows 'B-PER', but in IOB2 an entity starts with 'B-LOC'"),
        ("Ada\tB-PER\n\nRome\tI-PER\n", 3, "tag 'I-PER' follows 'O'"),  # an entity ends with its sentence
    ],
)
def test_a_wrong_line_is_named_with_its_content(tmp_path, text, line, says):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'train.conll'}, line {line}: ")
    assert says in message
    content = text.split("\n")[line - 1]
    assert repr(content) in message


def test_a_long_wrong_line_is_shortened(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, "x" * 10_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="holds no sentence"):
        read(tmp_path, text)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(DataError, match="not UTF-8 at byte 1; convert"):
        read(tmp_path, "J\xfcrgen\tB-PER\n".encode("latin-1"))


def test_a_missing_file_and_a_folder_in_its_place_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_conll(tmp_path / "nothing", LABELS)
    with pytest.raises(DataError, match="cannot read"):
        read_conll(tmp_path, LABELS)


def test_a_corpus_is_its_three_files(conll_dir):
    corpus = read_conll_corpus(conll_dir, "cc", LABELS)
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [24, 6, 8]
    assert corpus.test == read_conll(conll_dir / "cc" / "test.conll", LABELS)
    assert corpus.name == "cc"


def test_an_unknown_language_names_the_nearest(conll_dir):
    with pytest.raises(DataError, match="unknown language 'CC'; did you mean 'cc'"):
        read_conll_corpus(conll_dir, "CC", LABELS)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        read_conll_corpus(tmp_path / "nothing", "aa", LABELS)


words = st.text(st.characters(exclude_characters="\t\n", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: word.strip() and not word.startswith("\ufeff")
)
entities = st.sampled_from([["O"], ["B-PER"], ["B-PER", "I-PER"], ["B-LOC", "I-LOC", "I-LOC"], ["O", "B-ORG"]])


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    tags = [tag for entity in draw(st.lists(entities, min_size=1, max_size=4)) for tag in entity]
    return Sentence(tuple(draw(st.lists(words, min_size=len(tags), max_size=len(tags)))), tuple(tags))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(sentences(), min_size=1, max_size=4))
def test_any_words_come_back_as_they_were_written(tmp_path, expected):
    text = "\n".join("".join(f"{w}\t{t}\n" for w, t in zip(s.words, s.tags, strict=True)) for s in expected)
    assert read(tmp_path, text) == expected


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data sets are not at {REAL}")
def test_all_real_data_can_be_read():
    corpora = sorted(path.parent for path in REAL.rglob("train.conll"))
    assert corpora
    for folder in corpora:
        corpus = read_conll_corpus(folder.parent, folder.name, LABELS)
        # As many words as lines with a tab: none is dropped or joined.
        for split in ("train", "validation", "test"):
            lines = (folder / f"{split}.conll").read_bytes().count(b"\t")
            assert sum(len(sentence.words) for sentence in corpus.split(split)) == lines
