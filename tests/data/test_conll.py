"""CoNLL files: they are read unchanged, and errors name the file, the line and its content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pemeta.data.conll import read_conll, read_conll_corpus
from pemeta.data.sentences import LabelSet, Sentence
from pemeta.errors import ConfigError, DataError

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


# What is no word

BO = Sentence(("Bo", "ran"), ("B-PER", "O"))
TWO = "Ada\tB-PER\nslept\tO\n\n{}\nBo\tB-PER\nran\tO\n"


@pytest.mark.parametrize(
    "remark",
    [
        "-DOCSTART-\tO\n",
        "-DOCSTART-",  # no blank line after it
        "-DOCSTART- -X- -X- O\n",
        "-DOCSTART-\t-X-\t-X-\tO\n",
        "-DOCSTART- (1 of 2)\tO\n",
        "-DOCEND-\tO\n\n-DOCSTART-\tO\n",
        "-DOCSTART-\tO\r\n\r\n",
        "# sent_id = d-1\n# text = Bo ran",
        "# newdoc id = weblog\n\n# global.columns = ID FORM",
        "# a comment\n",
        "# text = a\tb",  # a tab in a comment
        "# id 1f-2\tdomain=en",
        "# translated by hand",
        "\ufeff",
        "\ufeff-DOCSTART-\tO\n",
        "\ufeff# sent_id = 1",
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["between", "first"])
def test_markers_comments_and_marks_are_no_words(tmp_path, remark, first):
    if first:
        assert read(tmp_path, f"{remark}\nBo\tB-PER\nran\tO\n") == [BO]
    else:
        assert read(tmp_path, TWO.format(remark)) == [ADA, BO]


@pytest.mark.parametrize(
    "line",
    [
        "#\tO",
        "#\tB-ORG",
        "#hash\tO",
        "# \tO",
        "# of\tO",
        "##\tO",
        "#ERROR!\tO",
        "-DOC\tO",
        "-DOCSTART-X\tO",
        "-DOCSTART-\tB-ORG",
        "DOCSTART\tO",
        "a\ufeffb\tO",
        "a\ufeff\tO",
    ],
)
@pytest.mark.parametrize("before", ["", "x\tO\n", "# a comment\n"])
def test_what_parses_as_a_word_and_a_tag_is_a_word(tmp_path, line, before):
    word, tag = line.split("\t")
    assert read(tmp_path, f"{before}{line}\nx\tO\n")[0].words[-2:] == (word, "x")
    assert read(tmp_path, f"{before}{line}\nx\tO\n")[0].tags[-2] == tag


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        # Neither a word nor clearly a comment
        ("# O\n", 1, "separated by blanks"),
        ("# B-PER\n", 1, "separated by blanks"),
        ("#\n", 1, "put a tab and a tag behind the word"),
        ("#hash\n", 1, "put a tab and a tag behind the word"),
        ("#\tB-PRE\n", 1, "unknown tag 'B-PRE'"),
        ("# x\tB-PRE=1\n", 1, "unknown tag 'B-PRE=1'"),
        ("# x\tB-PRE\n", 1, "unknown tag 'B-PRE'"),
        ("#\thttp://example.org [2009]\n", 1, "unknown tag 'http"),
        # Within a sentence
        ("x\tO\n# text = x y\n", 2, "a comment begins with '# ' and stands before the first word"),
        ("x\tO\n-DOCSTART-\tO\n", 2, "a document marker needs a blank line before it"),
        ("x\tO\n-DOCSTART- -X- O O\n", 2, "a document marker needs a blank line before it"),
        ("x\tO\n\ufeffy\tO\n", 2, "a byte-order mark within a sentence"),
        ("x\tO\n\ufeff# y = z\n", 2, "a byte-order mark within a sentence"),
        # Odd characters
        ("x\0y\tO\n", 1, "a NUL is in binary files and in UTF-16"),
        ("\u3000\tO\n", 1, "the word is blank; remove the line"),
        ("x\t\u3000\n", 1, "give the word a tag, or O"),
        ("x\tO\ufeff\n", 1, "unknown tag"),
        ("x\tO\ry\tO\r", 1, "lines end with a carriage return alone"),
    ],
)
def test_what_may_be_two_things_is_refused_with_what_to_do(tmp_path, text, line, says):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'train.conll'}, line {line}: ")
    assert says in str(caught.value)


def test_a_file_of_nothing_but_comments_holds_no_sentence(tmp_path):
    with pytest.raises(DataError, match="holds no sentence"):
        read(tmp_path, "# sent_id = 1\n\n-DOCSTART-\tO\n\n# text = x\n")


@pytest.mark.parametrize("path", [None, 3, ["a"], b"a", "a\0b"])
def test_a_path_that_is_none(path):
    with pytest.raises(DataError, match=r"expected the path of a file; found|cannot read 'a\\x00b'"):
        read_conll(path, LABELS)


@pytest.mark.parametrize("labels", [None, ["PER"], LABELS.tags, "PER"])
def test_labels_that_are_no_label_set(tmp_path, labels):
    with pytest.raises(ConfigError, match=r"expected a label set; found .*LabelSet\(\['PER', 'LOC'\]\)"):
        read_conll(tmp_path / "nothing", labels)


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


@pytest.mark.parametrize("name", [None, 3, ["aa"], "a\nb", "a" * 300, "a\0b"])
def test_a_name_that_is_no_language(conll_dir, name):
    for arguments in ((name, LABELS), ("aa", LABELS, name)):
        if arguments[-1] is not None:
            with pytest.raises(DataError) as caught:
                read_conll_corpus(conll_dir, *arguments)
            assert "\n" not in str(caught.value)


def test_a_path_of_two_lines_is_one_line_in_messages(tmp_path):
    (tmp_path / "a\nb").write_text("Ada B-PER\n")
    for path in ("a\nb", "c\nd"):
        with pytest.raises(DataError, match=r"[ac]\\n[bd]") as caught:
            read_conll(tmp_path / path, LABELS)
        assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        read_conll_corpus(tmp_path / "nothing", "aa", LABELS)


words = st.text(st.characters(exclude_characters="\t\n\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: word.strip() and not word.startswith(("\ufeff", "-DOCSTART-"))
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


@pytest.mark.long  # tens of thousands of sentences
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
