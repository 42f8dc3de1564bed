"""A first look at data: every format is recognised by what its lines hold, and counts are those of the reader."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from pemeta.data.look import Asked, data_set_of, look_into, reading_of
from pemeta.data.look.files import files_beside
from pemeta.data.sentences import SPLITS
from pemeta.data.sources import DataSource
from pemeta.errors import DataError
from pemeta.experiments.first_look import asked_for, describe_data
from pemeta.experiments.new_config import MODELS

PER = ["PER", "ORG", "LOC"]


class Sample(NamedTuple):
    """A file as people have it."""

    file: str
    text: str
    settings: dict[str, Any]  # of the data source, apart from path and splits
    likeness: str
    documents: int = 0


HIPE = (
    "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tNE-FINE-METO\tNE-FINE-COMP\tNE-NESTED\t"
    "NEL-LIT\tNEL-METO\tMISC\n"
)
CONLLU = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t{}\n"

AS_PRINTED = {"word, tab, tag", "CoNLL-U, tags in MISC", "CSV with a column of sentences", "JSON lines"}
"""Samples, one for each way of reading, for which the tiny backbone that is printed is pretrained."""

SAMPLES = {
    "word, tab, tag": Sample(
        "a.conll", "# sent_id = 1\nTuva\tB-PER\nlo\tO\n\n#\tO\n\nNova\tB-LOC\nScotia\tI-LOC\n",
        {"types": PER}, "2 columns separated by tabs",
    ),
    "MasakhaNER, by blanks": Sample(
        "a.txt", "Tuva B-PER\nlo O\n\nNova   B-DATE\nScotia I-DATE\n \n#ada O\n\n\n",
        {"separator": "blanks", "types": ["DATE", "PER"]}, "2 columns separated by blanks",
    ),
    "CoNLL-2003, IOB1": Sample(
        "eng.train",
        "-DOCSTART- -X- -X- O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nPeter NNP I-NP I-PER\nBo NNP B-NP B-PER\n\n"
        "-DOCSTART- -X- -X- O\n\nNova NNP I-NP I-MISC\nScotia NNP I-NP I-MISC\n, , O O\n",
        {"columns": {"word": 1, "tag": 4}, "scheme": "IOB1", "types": ["MISC", "ORG", "PER"]}, "CoNLL-2003", 2,
    ),
    "CoNLL-2003, IOB2 and tabs": Sample(
        "a.tsv", "-DOCSTART-\t-X-\t-X-\tO\n\nEU\tNNP\tB-NP\tB-ORG\n\nx\tVBZ\tB-VP\tO\ny\tO\tO\tO\n\nz\tVB\tB-VP\tO\n",
        {"columns": {"word": 1, "tag": 4}, "types": PER}, "CoNLL-2003", 1,
    ),
    "Universal NER": Sample(
        "sr_set-ud-train.iob2",
        "# sent_id = d-1\n# text = Tuva lo\n1\tTuva\tB-PER\t-\t-\n2\tlo\tO\t-\t-\n\n# sent_id = d-2\n# text = # 3\n"
        "1\t#\tO\t-\t-\n2\t3\tO\t-\t-\n\n1\tNova\tB-LOC\t-\tann1\n2\tScotia\tI-LOC\t-\tann1\n",
        {"columns": {"word": 2, "tag": 3}, "types": PER}, "Universal NER",
    ),
    "GermEval, with nested entities": Sample(
        "NER-de-train.tsv",
        "#\thttp://de.wikipedia.org/wiki/A [2009-10-17]\n1\tFC\tB-ORG\tO\n2\tDarmstadt\tI-ORG\tB-LOC\n\n"
        "#\thttp://de.wikipedia.org/wiki/B [2009-10-17]\n1\tDeutsche\tB-LOCderiv\tO\n2\t\"\tO\tO\n\n1\tso\tO\tO\n",
        {"columns": {"word": 2, "tag": 3}, "types": ["LOCderiv", "ORG"]}, "GermEval 2014", 2,
    ),
    "HIPE-2022": Sample(
        "HIPE-2022-v2.1-ajmc-train-de.tsv",
        f"{HIPE}# hipe2022:document_id = a\n# hipe2022:applicable_columns = TOKEN NE-COARSE-LIT\n"
        "Aias\tB-pers\t_\tB-pers.myth\t_\t_\tO\tQ1\t_\tLED0.00\n.\tO\t_\tO\t_\t_\tO\t_\t_\tNoSpaceAfter|EndOfSentence\n"
        "Soph\tB-work\t_\tB-work.lit\t_\t_\tB-pers\t_\t_\t_\n.\tI-work\t_\tI-work.lit\t_\t_\tO\t_\t_\tEndOfSentence\n\n"
        "# hipe2022:document_id = b\ndie\tO\t_\tO\t_\t_\tO\t_\t_\t_\n",
        {"columns": {"word": "TOKEN", "tag": "NE-COARSE-LIT"}, "types": ["pers", "work"]}, "HIPE-2022", 2,
    ),
    "MultiCoNER": Sample(
        "a.conll", "# id 1f-2\tdomain=en\nTuva _ _ B-PER\nlo _ _ O\n\n# id 1f-3\tdomain=en\nx _ _ O\n\n# 4\ny _ _ O\n",
        {"columns": {"word": 1, "tag": 4}, "types": PER}, "MultiCoNER",
    ),
    "CoNLL-U, tags in MISC": Sample(
        "a.conllu",
        "# newdoc id = d\n# text = zum Haus Ada\n1-2\tzum\t_\t_\t_\t_\t_\t_\t_\t_\n"
        + CONLLU.format(1, "zu", "ADP", "_") + CONLLU.format(2, "dem", "DET", "_")
        + CONLLU.format(3, "Ada", "PROPN", "name=B-PER|SpaceAfter=No") + "3.1\tx\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
        + CONLLU.format(1, "Ada", "PROPN", "name=B-PER") + CONLLU.format(2, "L", "PROPN", "name=I-PER") + "\n"
        + CONLLU.format(1, "so", "ADV", "_"),
        {"format": "conllu", "columns": {"tag": "name"}, "types": PER}, "CoNLL-U", 1,
    ),
    "CoNLL-U, brackets": Sample(
        "a.conllu",
        "# global.Entity = eid-etype-head\n" + CONLLU.format(1, "the", "DET", "Entity=(e1-place-1")
        + CONLLU.format(2, "city", "NOUN", "Entity=e1)") + "\n"
        + CONLLU.format(1, "Ada", "PROPN", "Entity=(e2-person-1)") + "\n" + CONLLU.format(1, "so", "ADV", "_"),
        {"format": "conllu", "columns": {"tag": "Entity"}, "types": ["person", "place"]}, "CoNLL-U",
    ),
    "CoNLL-U, a column of its own": Sample(
        "a.conllu",
        "# global.columns = ID FORM UPOS NE\n1\tAda\tPROPN\tB-PER\n2\tran\tVERB\tO\n\n1\tx\tX\tO\n\n1\ty\tX\t_\n",
        {"format": "conllu", "columns": {"tag": 4}, "types": PER}, "CoNLL-U",
    ),
    "CSV with blank lines": Sample(
        "a.csv", 'word,tag\nAda,B-PER\n",",O\n\nBo,B-PER\nx,O\n\n"say ""y""",O\n',
        {"columns": {"word": "word", "tag": "tag"}, "separator": ",", "types": PER}, "2 columns separated by commas",
    ),
    "CSV with a column of sentences": Sample(
        "a.csv", ',Sentence #,Word,POS,Tag\n0,Sentence: 1,Ada,NNS,B-geo\n1,,of,IN,O\n2,Sentence: 2,"1,000",CD,O\n'
        "3,,Iran,NNP,B-gpe\n4,Sentence: 3,A,NNP,O\n",
        {"columns": {"word": "Word", "tag": "Tag", "sentence": "Sentence #"}, "separator": ",",
         "types": ["geo", "gpe"]},
        "Sentence # tells sentences apart",
    ),
    "CSV with numbered sentences": Sample(
        "a.csv", "id,token,label\n1,Ada,B-PER\n1,ran,O\n2,x,O\n2,Bo,B-PER\n3,y,O\n",
        {"columns": {"word": "token", "tag": "label", "sentence": "id"}, "separator": ",", "types": PER},
        "id tells sentences apart",
    ),
    "IOBES": Sample(
        "a.tsv", "Tuva\tS-PER\nlo\tO\nNova\tB-LOC\nScotia\tE-LOC\n\nBo\tS-PER\n\nx\tO\n",
        {"scheme": "IOBES", "types": PER}, "2 columns",
    ),
    "BILOU": Sample(
        "a.tsv", "Tuva\tU-PER\nlo\tO\nNova\tB-LOC\nScotia\tL-LOC\n\nBo\tU-PER\n\nx\tO\n",
        {"scheme": "BILOU", "types": PER}, "2 columns",
    ),
    "bare types": Sample(
        "a.txt", "Tuva person-actor\nlo O\nNova location\nScotia location\n\nBo person-actor\n\nx O\n\ny O\n",
        {"separator": "blanks", "scheme": "types", "types": ["location", "person-actor"]}, "2 columns",
    ),
    "the tag first, and a column at the end": Sample(
        "a.tsv", "B-PER\tTuva\t\nO\tlo\t\n\nO\tx\t\n\nO\ty\t\n",
        {"columns": {"word": 2, "tag": 1}, "types": PER}, "3 columns",
    ),
    "CoNLL-2012, with verbs' arguments and coreference": Sample(
        "a.gold_conll",
        "#begin document (bc/x/00); part 000\nbc 0 0 In IN (TOP(S(PP* - - - S * (ARGM-LOC* (12)\n"
        "bc 0 1 Rome NNP (NP*)) - - - S (GPE) *) -\nbc 0 2 Bo NNP (NP* - - - S (PERSON* (ARG0* (3\n"
        "bc 0 3 L NNP *) - - - S *) *) 3)\nbc 0 4 ran VBD (VP*))) run 01 1 S * (V*) -\n\n"
        "bc 0 0 So RB (TOP(FRAG*)) - - - S * -\n\nbc 0 0 no UH (TOP(INTJ*)) - - - S * -\n\n#end document\n",
        {"columns": {"word": 4, "tag": 11}, "types": ["GPE", "PERSON"]}, "CoNLL-2012", 1,
    ),
    "brackets": Sample(
        "a.tsv", "Tuva\t(PER)\nlo\t*\nNova\t(LOC*\nScotia\t*)\n\nx\t*\n\ny\t*\n",
        {"columns": {"word": 1, "tag": 2}, "types": PER}, "2 columns",
    ),
    "JSON lines": Sample(
        "a.jsonl", "".join(f'{{"id": {i}, "tokens": ["Ada", "x{i}"], "ner_tags": ["B-PER", "O"]}}\n' for i in range(4)),
        {"types": PER}, "JSON lines",
    ),
    "JSON in one list, other names": Sample(
        "a.json", json.dumps([{"sentence": ["Ada", f"x{i}"], "iob": ["B-PER", "O"]} for i in range(4)]),
        {"columns": {"tokens": "sentence", "tags": "iob"}, "types": PER}, "JSON lines",
    ),
    "CSV of lists": Sample(
        "a.csv", "id,words,labels\n" + "".join(f"{i},\"['A, B', 'x{i}']\",\"['B-PER', 'O']\"\n" for i in range(4)),
        {"types": PER}, "CSV",
    ),
    "TSV of texts": Sample(
        "a.tsv", "sentence\ttags\n" + "".join(f"Ada x{i}\tB-PER O\n" for i in range(4)),
        {"columns": {"tokens": "sentence"}, "types": PER}, "TSV",
    ),
}  # fmt: skip


def written(folder: Path, sample: Sample) -> Path:
    path = folder / sample.file
    path.write_text(sample.text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_recognised_and_its_sentences_are_the_readers(tmp_path, name, ends):
    sample = SAMPLES[name]
    path = written(tmp_path, sample._replace(text=sample.text.replace("\n", ends)))
    own, whole = data_set_of(path)
    settings = reading_of([whole]).settings

    assert {key: value for key, value in settings.items() if key not in ("name", "path", "splits")} == sample.settings
    assert sample.likeness in own.likeness
    assert (own.problem, reading_of([whole]).problem) == (None, None)
    corpus = DataSource.parse(settings).corpus(whole.task)
    sentences = [sentence for split in SPLITS for sentence in corpus.split(split)]
    assert own.tally.examples == len(sentences)
    assert own.tally.lengths == Counter(len(sentence.words) for sentence in sentences)
    begun = [tag[2:] for sentence in sentences for tag in sentence.tags if tag.startswith("B-")]
    assert own.tally.entities == Counter(begun)
    assert len(own.tally.documents - {None}) == sample.documents


@pytest.fixture
def accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pemeta: Callable[..., Any]) -> Callable[[str], str]:
    """What is said of a configuration that is accepted exactly as it was printed."""

    def call(printed: str) -> str:
        monkeypatch.chdir(tmp_path)  # the output folder is below the working directory
        Path("grid.yaml").write_text(printed, encoding="utf-8")
        outcome = pemeta("validate", "grid.yaml", "--load", "device=cpu")
        assert (outcome.code, outcome.err) == (0, "")
        return str(outcome.out)

    return call


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.long
def test_what_is_printed_is_a_configuration_that_is_accepted(tmp_path, name, pemeta, accepted, tiny_bert_dir):
    path = written(tmp_path, SAMPLES[name])
    shown = pemeta("data", path, *(() if name in AS_PRINTED else ("--backbone", tiny_bert_dir)))
    assert (shown.code, shown.err) == (0, "")
    assert ("name: tiny" in shown.out) == (name in AS_PRINTED)
    assert "1 fine-tuning run" in accepted(shown.out)


def test_what_is_printed_runs_as_it_stands(tmp_path, monkeypatch, pemeta):
    monkeypatch.chdir(tmp_path)
    Path("a.conll").write_text("Ada\tB-PER\nslept\tO\n\nx\tO\n\ny\tO\n")
    Path("grid.yaml").write_text(pemeta("data", "a.conll").out)
    ran = pemeta("run", "grid.yaml", "device=cpu")
    assert (ran.code, ran.out.count("pretraining a tiny Transformer")) == (0, 1)
    assert "Results: a\n" in ran.out


@pytest.mark.parametrize("backbone", ["bert-base-uncased", "my: {model}", "C:\\models\\a, b", "2020", "\u00e9\u2028"])
def test_a_backbone_of_any_name_is_in_the_configuration(tmp_path, backbone, pemeta):
    path = written(tmp_path, SAMPLES["word, tab, tag"])
    shown = yaml.safe_load(pemeta("data", path, "--backbone", backbone).out)
    assert shown["backbone"] == {"name": "pretrained", "path": backbone}


def test_a_backbone_without_a_name_is_refused(tmp_path, refused):
    path = written(tmp_path, SAMPLES["word, tab, tag"])
    assert "--backbone: expected a model's name or folder" in refused("data", path, "--backbone", "")


def test_the_model_that_the_configuration_mentions_can_take_the_place_of_the_tiny_one(tmp_path, pemeta):
    shown = pemeta("data", written(tmp_path, SAMPLES["word, tab, tag"])).out
    mentioned = yaml.safe_load(next(line for line in shown.splitlines() if line.startswith("#   backbone:"))[1:])
    assert mentioned == {"backbone": {"name": "pretrained", "path": MODELS["token_classification"]}}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.conll", "Tuva\tB-PER\n"),  # a single word
        ("a.conll", "Tuva\tB-PER\n\nlo\tO\n\nlo\tO\n"),  # two different texts
        ("a.jsonl", '{"tokens": ["Tuva"], "tags": ["B-PER"]}\n'),
    ],
)
def test_too_few_sentences_stand_in_for_the_splits_without_a_file(tmp_path, file, text, pemeta, accepted):
    path = tmp_path / file
    path.write_text(text)
    shown = pemeta("data", path)
    assert (shown.code, shown.err) == (0, "")
    assert "too small to hold some out" in shown.out
    data = yaml.safe_load(shown.out)["data"]
    assert (data["validation"], data["test"]) == ("train", "train")
    assert "has no test: the training sentences stand in for it" in accepted(shown.out)


def test_a_task_with_too_few_sentences_is_left_out_where_others_have_enough(tmp_path):
    for name, text in (("aa", "a O\n\nb B-PER\n\nc O\n\nd O\n"), ("bb", "a B-PER\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text(text)
    shown = "\n".join(describe_data(tmp_path, Asked()))
    assert "# Too few sentences to hold some out, so left out: bb\n" in shown
    told = yaml.safe_load(shown)
    assert (told["targets"], "test" in told["data"]) == (["aa"], False)


def test_one_file_beside_it_is_used_and_only_the_other_split_has_a_stand_in(tmp_path):
    (tmp_path / "train.txt").write_text("Ada B-PER\n")
    (tmp_path / "test.txt").write_text("Bo B-PER\n")
    _, whole = data_set_of(tmp_path / "train.txt")
    reading = reading_of([whole])
    assert (reading.problem, reading.again) == (None, ("validation",))
    assert [word for one in DataSource.parse(reading.settings).corpus(whole.task).test for word in one.words] == ["Bo"]


@pytest.mark.parametrize("file", ["a.parquet", "a.arrow", "data.bin"])
def test_tables_that_are_no_text(tmp_path, file):
    import datasets

    rows = {"tokens": [["Ada", f"x{i}"] for i in range(4)], "ner_tags": [[1, 0]] * 4, "domain": [*"aabb"]}
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))
    table = datasets.Dataset.from_dict(
        rows,
        features=datasets.Features(
            {
                "tokens": datasets.Sequence(datasets.Value("string")),
                "ner_tags": tags,
                "domain": datasets.Value("string"),
            }
        ),
    )
    path = tmp_path / file
    if file == "a.arrow":
        table.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).rename(path)
    else:
        table.to_parquet(str(path))
    own, whole = data_set_of(path)
    assert own.settings == ({"format": "parquet"} if file == "data.bin" else {})
    assert own.tally.entities == {"PER": 4}
    assert reading_of([whole]).problem is None
    assert "tasks       perhaps the values of domain (a, b): add task_column: domain" in "\n".join(
        describe_data(path, Asked())
    )


def test_a_saved_dataset_dict(tmp_path):
    import datasets

    table = datasets.Dataset.from_dict({"tokens": [["Ada", f"x{i}"] for i in range(4)], "tags": [["B-PER", "O"]] * 4})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    found = look_into(tmp_path / "saved", Asked())
    ((whole,),) = found.groups
    settings = reading_of([whole]).settings
    assert (whole.task, settings["splits"]) == ("saved", {"train": "{task}/train", "test": "{task}/test"})
    assert (found.left_out, reading_of([whole]).problem) == ((), None)


# What is odd


ODD = (
    "\ufeffAda\tB-PER\nNew\u00a0York\tB-LOC\nzero\u200b\tO\n\n"  # lines 1 to 4
    "slept\tI-PER\nbell\x07\tO\na b\tO\n\n"
    "bad line\nx\ty\tz\n\n"
    + "w\tO\n"
    * 140  # from line 12
    + "\n.\tO\n\n"  # line 153
    "Ada\tB-PER\nNew\u00a0York\tB-LOC\nzero\u200b\tO\n\n"
    "Ada\tO\nNew\u00a0York\tB-LOC\nzero\u200b\tO\n\n"
    "q\tB-Per\nM\u00c3\u00bcller\tB-PER\nlost\ufffd\tO\nfont\ue000\tO\nsoft\u00adly\tO\n"
)


def test_oddities_are_counted_and_named_with_their_lines(tmp_path):
    path = tmp_path / "odd.conll"
    path.write_text(ODD, encoding="utf-8", newline="")
    own, _ = data_set_of(path)
    found = {one.what: (one.number, [(where, content) for where, content in one.places]) for one in own.oddities}

    assert found == {
        "a line that cannot be read: expected 2 columns separated by tabs, as in line 1": (
            2, [("line 9", "'bad line'; give the word a tag, or O"), ("line 10", r"'x\ty\tz'; it has 3: mend it")],
        ),
        "a blank other than a space: U+00A0 NO-BREAK SPACE": (
            3, [(f"line {line}", r"'New\xa0York'") for line in (2, 156, 160)],
        ),
        "an invisible character: U+200B ZERO WIDTH SPACE": (
            3, [(f"line {line}", r"'zero\u200b'") for line in (3, 157, 161)],
        ),
        "an invisible character: U+00AD SOFT HYPHEN": (1, [("line 167", r"'soft\xadly'")]),
        "a control character: U+0007": (1, [("line 6", r"'bell\x07'")]),
        "a character that was lost: U+FFFD REPLACEMENT CHARACTER": (1, [("line 165", "'lost\ufffd'")]),
        "a character of private use: U+E000": (1, [("line 166", r"'font\ue000'")]),
        "a blank within a word": (1, [("line 7", "'a b'")]),
        "two letters in place of one": (1, [("line 164", "'M\u00c3\u00bcller'")]),
        "a tag that does not fit IOB2": (
            1, [("line 5", "tag 'I-PER' follows 'O', but in IOB2 an entity starts with 'B-PER'")],
        ),
        "a sentence of more than 128 words": (1, [("line 12", "140 words")]),
        "a sentence without a letter or digit": (1, [("line 153", "'.'")]),
        "a sentence that occurs before with other tags": (1, [("line 159", "first at line 1")]),
        "a tag that occurs once": (2, [("line 5", "'I-PER'"), ("line 163", "'B-Per'")]),
        "types that differ in capitals alone": (1, [("", "PER Per")]),
    }  # fmt: skip
    assert own.encoding == "UTF-8 with a byte-order mark"
    assert (own.scheme, own.closest) == ("conlleval", "IOB2")
    assert (own.tally.repeated, own.tally.first_repeated) == (2, ("line 155", "line 1"))
    assert (own.tally.quantile(0.5), own.tally.quantile(1), own.tally.longest) == (3, 140, "line 12")
    assert own.problem is not None
    assert "line 9" in own.problem


def test_the_joiners_of_persian_and_hindi_are_not_odd(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(
        "\u0645\u06cc\u200c\u0631\u0648\u0645\tO\n\n\u0915\u094d\u200d\u0937\tB-PER\n\nx\tO\n", encoding="utf-8"
    )
    own, _ = data_set_of(path)
    assert [one.what for one in own.oddities] == ["a tag that occurs once"]


def test_few_tags_that_fit_no_scheme_are_named_and_read_as_conlleval_does(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-PER\nL\tI-PER\n\n" * 9 + "x\tO\nBo\tI-PER\n\ny\tO\n\nz\tO\n")
    own, whole = data_set_of(path)
    settings = reading_of([whole]).settings
    assert (settings["scheme"], own.closest) == ("conlleval", "IOB2")
    assert next(one for one in own.oddities if "fit" in one.what).places[0][0] == "line 29"
    assert reading_of([whole]).problem is None


# What cannot be told, and what cannot be read


def refusal(path: Path, *asked: str | None) -> str:
    with pytest.raises(DataError) as caught:
        list(describe_data(path, asked_for(*(*asked, None, None, None, None)[:4])))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_two_columns_of_different_entities_are_ambiguous_until_one_is_chosen(tmp_path):
    path = tmp_path / "predicted.txt"
    path.write_text("Tuva B-PER O\nlo O B-LOC\n\nx O O\n\ny O O\n\n")
    assert (
        f"the columns 2 and 3 hold different entities; say which one is meant: pemeta data {path} --tag 2"
        in refusal(path)
    )
    for column, kind in (("2", "PER"), ("3", "LOC"), ("-1", "LOC")):
        own, whole = data_set_of(path, Asked(tag=column))
        assert own.tally.entities == {kind: 1}
        assert reading_of([whole]).problem is None
    assert "no column '4'; it has 3 columns" in refusal(path, None, "4")


def test_integers_need_the_names_of_their_tags(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"tokens": ["Ada", f"x{i}"], "ner_tags": [1, 0]}) + "\n" for i in range(4)))
    assert "tag 1 is the integer 1; give the tags that integers mean" in refusal(path)
    assert refusal(path).endswith("--names O,B-PER,...")
    settings = yaml.safe_load("\n".join(describe_data(path, asked_for(None, None, None, "O,B-PER"))))["data"]
    assert settings["names"] == ["O", "B-PER"]
    assert DataSource.parse(settings).corpus("a").labels.types == ("PER", "ORG", "LOC")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("latin-1", "not UTF-8, but perhaps Windows-1252: see whether its letters below are right"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_another_encoding_is_said_in_the_configuration(tmp_path, encoding, name):
    path = tmp_path / "it's.conll"
    path.write_bytes("J\u00fcrgen\tB-PER\nlo\tO\n\nx\tO\n\ny\tO\n".encode(encoding))
    own, _ = data_set_of(path)
    assert (own.encoding, own.tally.entities, own.tally.examples) == (name, {"PER": 1}, 3)
    shown = "\n".join(describe_data(path, Asked()))
    (task,) = yaml.safe_load(shown)["targets"]
    corpus = DataSource.parse(yaml.safe_load(shown)["data"]).corpus(task)
    assert "J\u00fcrgen" in {word for split in SPLITS for one in corpus.split(split) for word in one.words}
    assert ("a guess\n#     line 1: 'J\u00fcrgen\\tB-PER'" in shown) == (encoding == "latin-1")


def test_carriage_returns_alone_are_looked_at_and_converted(tmp_path):
    path = tmp_path / "mac.conll"
    path.write_bytes(b"Ada\tB-PER\rlo\tO\r\rx\tO\r\ry\tO\r")
    assert data_set_of(path)[0].tally.examples == 3
    message = refusal(path)
    assert "lines end with a carriage return alone" in message
    convert(message, tmp_path)
    assert data_set_of(tmp_path / "NEW.conll")[0].problem is None


def convert(message: str, folder: Path) -> None:
    command = message[message.index("convert it: ") + len("convert it: ") :]
    subprocess.run(command, shell=True, check=True, cwd=folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\n", "is empty"),
        (b"\x7fELF\0\0\0\1", "is no text"),
        (b"This is just some text.\nIt has no tags at all, of course.\n", "none of its .* holds tags"),
        (b"one\ntwo\nthree\n", "its lines have no columns"),
        (b"# only = comments\n\n-DOCSTART-\tO\n", "holds no word"),
        (b"Ada\tB\nL\tI\nx\tO\n\ny\tO\n", "a letter without a type"),
        (b"B-PER\tO\nO\tO\n\nO\tO\n", "its columns hold tags and no words"),
        (b"text,label\nI love it,pos\nbad,neg\n", "none of its 2 columns holds tags"),  # of texts
    ],
)
def test_what_is_no_file_of_sentences_is_refused_in_a_sentence(tmp_path, content, says):
    path = tmp_path / "a.conll"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        list(describe_data(path, Asked()))
    refusal(path)


@pytest.mark.parametrize(
    ("file", "text", "settings", "entities"),
    [
        # a part of speech in neighbouring lines is no sentence
        ("a.txt", "Ada NNP B-PER\nL NNP I-PER\nran VBD O\n", {"columns": {"word": 1, "tag": 3}}, {"PER": 1}),
        # types alone, nearly as many as words
        ("a.txt", "Ada\tPER\nRome\tLOC\nEU\tORG\nx\tO\n", {"scheme": "types"}, {"PER": 1, "LOC": 1, "ORG": 1}),
        # chunks are no entities where there are none
        ("a.txt", "-DOCSTART- -X- -X- O\n\nIt P B-NP O\nran V B-VP O\n", {"columns": {"word": 1, "tag": 4}}, {}),
        ("a.txt", "It P B-NP O\nAda N B-NP PER\n", {"columns": {"word": 1, "tag": 4}, "scheme": "types"}, {"PER": 1}),
        # words that look like tags, and like names of columns
        ("a.txt", "U-Boot O\n", {"separator": "blanks"}, {}),
        ("a.txt", "Text\tPER\nran\tO\n", {"scheme": "types"}, {"PER": 1}),
        ("a.txt", "text by PER\nx y O\nz y PER\n", {"columns": {"word": 1, "tag": 3}, "scheme": "types"}, {"PER": 2}),
        # a handful of lines, as in reports of faults
        ("a.conll", "-DOCSTART-\tO\n\nMirka\tB-PER\nhar\tO\n\n-DOCSTART-\tO\n\nHej\tO\n", {}, {"PER": 1}),
        ("a.conll", "# sent_id = d-1\n# text = Tuva lo\n1\tTuva\tB-PER\t-\t-\n2\tlo\tO\t-\t-\n",
         {"columns": {"word": 2, "tag": 3}}, {"PER": 1}),
        ("a.conll", "Tuva\tS-PER\nbor\tO\nNova\tB-LOC\nScotia\tE-LOC\n", {"scheme": "IOBES"}, {"PER": 1, "LOC": 1}),
        # some lines by blanks
        ("a.txt", "Ada\tB-PER\nran O\n", {"separator": "blanks"}, {"PER": 1}),
        # CoNLL-U without an entity
        ("a.conllu", CONLLU.format(1, "x", "X", "NE=O"), {"format": "conllu", "columns": {"tag": "NE"}}, {}),
        ("a.csv", "sent_id,word,tag\n0,Ada,B-PER\n0,ran,O\n",
         {"columns": {"word": "word", "tag": "tag", "sentence": "sent_id"}, "separator": ","}, {"PER": 1}),
    ],
)  # fmt: skip
def test_small_files_are_read_as_large_ones_are(tmp_path, file, text, settings, entities):
    path = tmp_path / file
    path.write_text(text)
    own, whole = data_set_of(path)
    assert (own.settings | ({"scheme": own.scheme} if own.scheme != "IOB2" else {}), own.tally.entities) == (
        settings,
        entities,
    )
    reading = reading_of([whole])
    assert reading.problem is None
    assert len(DataSource.parse(reading.settings).corpus(whole.task).train) == own.tally.examples


def test_integers_are_no_types(tmp_path):
    words, table = tmp_path / "a.txt", tmp_path / "a.csv"
    words.write_text("Ada 1\nran 0\n")
    assert refusal(words).endswith("column 2 holds integers; write the tag that each stands for")
    assert "found integers, such as 1" in refusal(words, None, "2")
    table.write_text("sent_id,word,tag\n0,Ada,1\n0,ran,0\n")
    assert refusal(table).endswith("--names O,B-PER,...")
    shown = yaml.safe_load("\n".join(describe_data(table, asked_for(None, None, None, "O,B-PER"))))["data"]
    assert (shown["name"], shown["names"], shown["columns"]["sentence"]) == ("table", ["O", "B-PER"], "sent_id")


def test_a_wrong_tag_of_few_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Ada\tB-PER\nran\tO\n\nBo\tPER\nslept\tO\n")
    assert "line 4: no scheme fits all tags; IOB2 is closest, but tag 'PER' is no tag of IOB2" in refusal(path)


def test_a_row_with_too_many_tags_is_odd(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"tokens": ["a", "b"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["a"], "ner_tags": ["B-PER", "O"]}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own, _ = data_set_of(path)
    assert next((one.what, one.places) for one in own.oddities) == (
        "a row of more or fewer tags than words", [("line 2", "1 word, 2 tags")],
    )  # fmt: skip
    assert "line 2: 1 word but 2 tags" in refusal(path)


def test_a_file_that_is_not_there_and_a_folder_without_data(tmp_path):
    assert "No such file" in refusal(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("hello\n")
    assert "holds no file of examples that can be read" in refusal(tmp_path)


# Files that belong together


@pytest.mark.parametrize(
    ("files", "task", "train", "validation"),
    [
        ("en/train.conll en/validation.conll", "en", "{task}/train.conll", "{task}/validation.conll"),
        ("en/train.txt en/dev.txt", "en", "{task}/train.txt", "{task}/dev.txt"),
        ("eng.train eng.testa", "eng", "{task}.train", "{task}.testa"),
        ("en_ewt-ud-train.iob2 en_ewt-ud-dev.iob2", "en_ewt-ud", "{task}-train.iob2", "{task}-dev.iob2"),
        ("NER-de-train.tsv NER-de-dev.tsv", "NER-de", "{task}-train.tsv", "{task}-dev.tsv"),
        ("train_de.tsv valid_de.tsv", "de", "train_{task}.tsv", "valid_{task}.tsv"),
        ("de/H-train-de.tsv de/H-dev-de.tsv", "de", "{task}/H-train-{task}.tsv", "{task}/H-dev-{task}.tsv"),
        ("train/de.txt dev/de.txt", "de", "train/{task}.txt", "dev/{task}.txt"),
        ("a{b}-train.txt a{b}-dev.txt", "a{b}", "{task}-train.txt", "{task}-dev.txt"),
        ("de/x{y}train.txt", "x{y}", "{task}train.txt", None),
        ("Train.TXT", None, "Train.TXT", None),
        ("mine.tsv other.tsv", "mine", "{task}.tsv", None),
        ("en/train.txt en/dev2.txt en/contrast.txt", "en", "{task}/train.txt", None),
    ],
)
def test_files_of_splits_are_found_by_their_names(tmp_path, files, task, train, validation):
    paths = [tmp_path / "set" / name for name in files.split()]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = files_beside(paths[0])
    assert (found.task, found.templates.get("validation")) == (task or "set", validation)
    assert found.templates["train"] == (train if task else f"{{task}}/{train}")
    for split, template in found.templates.items():
        assert (found.folder / template.format(task=found.task)).samefile(found.paths[split])


@pytest.mark.parametrize(
    "file", ["train_de, x.tsv", "train.conll.gz", "{a} [1]'\".txt", "#c: \u00e9\U0001f4a5.txt", "2020"]
)
def test_files_of_any_name_are_in_a_configuration_that_is_yaml(tmp_path, file):
    text = b"Ada\tB-PER\n\nx\tO\n\ny\tO\n"
    (tmp_path / file).write_bytes(gzip.compress(text) if file.endswith(".gz") else text)
    told = yaml.safe_load("\n".join(describe_data(tmp_path / file, Asked())))
    (task,) = told["targets"]
    assert len(DataSource.parse(told["data"]).corpus(task).train) == 1


def test_the_files_beside_a_file_count_for_types_and_scheme(tmp_path):
    (tmp_path / "a.train.txt").write_text("Ada B-PER\nL I-PER\n\nx O\n\n")
    (tmp_path / "a.dev.txt").write_text("Rome I-LOC\n\nx O\n\n")
    (tmp_path / "a.test.txt").write_text("y O\n\n")
    own, whole = data_set_of(tmp_path / "a.test.txt")
    settings = reading_of([whole]).settings
    assert (own.tally.entities, settings["types"], settings["scheme"]) == ({}, PER, "detect")
    assert reading_of([whole]).problem is None
    shown = "\n".join(describe_data(tmp_path / "a.test.txt", Asked()))
    assert "#   validation  a.dev.txt: 2 sentences; 1 of 2 distinct sentences also in train\n" in shown
    assert "#   test        this file; 0 of 1 distinct sentences also in train\n" in shown


def test_a_file_beside_it_that_cannot_be_read_is_left_out_and_said(tmp_path):
    (tmp_path / "train.txt").write_text("Ada B-PER\n\nx O\n\ny O\n")
    (tmp_path / "dev.txt").write_text("Ada\nx\n")
    (tmp_path / "test.txt").write_text("Ada\tB-PER\nx\tO\n")
    _, whole = data_set_of(tmp_path / "train.txt")
    assert whole.held_out == ["validation", "test"]
    assert ["its lines have no columns" in one or "its format differs" in one for one in whole.left_out] == [True, True]
    assert reading_of([whole]).problem is None


# Folders


def test_a_folder_gives_one_configuration_of_all_its_tasks(conll_dir, pemeta, accepted, tiny_bert_dir):
    found = look_into(conll_dir, Asked())
    assert [one.task for one in found.groups[0]] == ["aa", "bb", "cc"]
    shown = pemeta("data", conll_dir, "--backbone", tiny_bert_dir)
    assert (shown.code, shown.err) == (0, "")
    assert yaml.safe_load(shown.out)["data"] == {"name": "conll", "path": str(conll_dir), "types": PER}
    assert "#   aa    validation          6 " in shown.out
    assert "3 targets" in accepted(shown.out)


def test_tasks_in_several_folders_are_told_apart(tmp_path):
    for where, kind in (("x/en", "PER"), ("y/en", "LOC"), ("y/de", "PER")):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "train.txt").write_text(f"{where[0]} B-{kind}\n\na O\n\nb O\n\nc O\n")
    (tmp_path / "y" / "other.jsonl").write_text('{"tokens": ["a"], "ner_tags": ["O"]}\n')
    (tmp_path / "README").write_text("hello\n")
    found = look_into(tmp_path, Asked())
    reading = reading_of(found.groups[0])
    settings = reading.settings
    assert settings["folders"] == {"x-en": "x/en", "y-en": "y/en", "de": "y/de"}
    assert settings["path"] == str(tmp_path)
    assert (reading.problem, len(reading.sets)) == (None, 3)
    corpus = DataSource.parse(settings).corpus("y-en")
    words = {word for split in SPLITS for sentence in corpus.split(split) for word in sentence.words}
    assert words == {"y", "a", "b", "c"}
    shown = "\n".join(describe_data(tmp_path, Asked()))
    assert (
        f"# Of another layout, so for a configuration of its own: pemeta data {tmp_path / 'y' / 'other.jsonl'}" in shown
    )
    assert f"# Left out:\n#   {tmp_path / 'README'}: its lines have no columns" in shown


def test_all_that_is_printed_before_the_configuration_is_a_comment(tmp_path, capsys, pemeta):
    path = tmp_path / "odd\u2028.conll"
    path.write_text(ODD, encoding="utf-8")
    shown = pemeta("data", path)
    assert shown.code == 2
    assert shown.err.count("\n") == 1
    assert "line 9: expected " in shown.err
    before, configuration = shown.out.split("\ndata:\n")
    assert all(line.startswith("#") for line in before.split("\n"))
    assert all(line.isprintable() for line in shown.out.split("\n"))
    assert list(yaml.safe_load(f"data:\n{configuration}")) == ["data", "output", "backbone", "targets", "settings"]


def test_what_is_written_to_a_file_is_utf_8_whatever_the_system_has(tmp_path, monkeypatch, pemeta):
    path = tmp_path / "\u0442\u0435\u0441\u0442.conll"
    path.write_text("Ada\tB-PER\n\nx\tO\n\ny\tO\n")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    assert pemeta("data", path).code == 0
    assert yaml.safe_load(written.getvalue().decode())["targets"] == ["\u0442\u0435\u0441\u0442"]


REAL = Path(__file__).parents[3] / "shared" / "data" / "ner"


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data sets are not at {REAL}")
@pytest.mark.parametrize("folder", sorted({path.parent for path in REAL.rglob("*.conll")}), ids=lambda path: path.name)
def test_each_real_file_gives_a_configuration_that_is_accepted(folder, pemeta, accepted):
    found = set()
    for path in sorted(folder.glob("*.conll")):
        shown = pemeta("data", path)
        assert (shown.code, shown.err) == (0, "")
        found.add(shown.out[shown.out.index("data:\n") :])
    assert len(found) == 1
    accepted(found.pop())
