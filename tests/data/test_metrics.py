"""Scores by hand, against seqeval's own report, and against scikit-learn, which seqeval depends on."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score

from pemeta.data.metrics import class_scores, entity_counts, entity_scores, language_model_scores
from pemeta.errors import ConfigError, DataError

CLASSES = ("a", "b", "c")


@settings(deadline=None)  # the first call imports
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=12))
def test_accuracy_and_f1_are_those_of_scikit_learn(pairs):
    gold, predicted = zip(*pairs, strict=True)
    scores = class_scores(gold, predicted, CLASSES)
    assert scores.accuracy == scores.main == pytest.approx(accuracy_score(gold, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    each = f1_score(gold, predicted, average=None, labels=CLASSES, zero_division=0)
    assert list(scores.f1_per_class.values()) == pytest.approx(list(each))


TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-L-OC", "I-L-OC")


@pytest.mark.parametrize(("scoring", "mode"), [("conlleval", {}), ("strict", {"mode": "strict", "scheme": IOB2})])
@given(st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), max_size=6), max_size=5))
def test_entity_scores_are_those_of_seqevals_report(scoring, mode, sentences):
    gold, predicted = ([[pair[i] for pair in sentence] for sentence in sentences] for i in (0, 1))
    scores = entity_scores(gold, predicted, ["PER", "ORG", "L-OC", "NONE"], scoring)
    counts = entity_counts(gold, predicted, scoring)
    both = sum(counts.gold) + sum(counts.predicted)
    assert scores.f1 == pytest.approx(2 * sum(counts.correct) / both if both else 0.0)
    if not both:
        assert scores.f1 == 0
        return
    report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)
    micro = [report["micro avg"][key] for key in ("f1-score", "precision", "recall")]
    assert [scores.f1, scores.precision, scores.recall] == pytest.approx(micro)
    expected = {t: report.get(t, {"f1-score": 0})["f1-score"] for t in ("PER", "ORG", "L-OC", "NONE")}
    assert scores.f1_per_type == pytest.approx(expected)


def test_an_i_that_goes_on_with_nothing_counts_by_conlleval_alone():
    gold, predicted = [["B-PER", "I-PER", "O", "B-LOC"]], [["I-PER", "I-PER", "O", "B-LOC"]]
    assert entity_scores(gold, predicted, ["PER", "LOC"]).f1 == 1.0
    strict = entity_scores(gold, predicted, ["PER", "LOC"], "strict")
    assert (strict.f1, strict.precision, strict.recall) == (pytest.approx(2 / 3), 1.0, 0.5)
    assert strict.f1_per_type == {"PER": 0.0, "LOC": 1.0}
    counts = entity_counts(gold, predicted, "strict")
    assert (counts.correct, counts.predicted, counts.gold) == ((1,), (1,), (2,))
    assert entity_scores([["O"]], [["I-PER"]], ["PER"], "strict").f1 == 0.0


def test_a_scoring_that_there_is_not():
    with pytest.raises(ConfigError, match="unknown scoring 'lenient'; Known: conlleval, strict"):
        entity_scores([["O"]], [["O"]], ["PER"], "lenient")


def test_class_scores_by_hand():
    scores = class_scores(["a", "a", "b", "a"], ["a", "b", "b", "c"], CLASSES)
    assert scores.accuracy == 0.5
    assert scores.f1_per_class == {"a": pytest.approx(2 / 4), "b": pytest.approx(2 / 3), "c": 0.0}
    assert scores.macro_f1 == pytest.approx((2 / 4 + 2 / 3) / 3)
    assert scores.summary == "accuracy 50.0"


def test_perplexity_by_hand():
    scores = language_model_scores([[math.log(1 / 2), math.log(1 / 8)], [math.log(1 / 4)]])
    assert scores.loss == pytest.approx(2 * math.log(2))  # one, three and two bits
    assert scores.perplexity == pytest.approx(4)
    assert scores.main == -scores.loss
    assert scores.summary == "perplexity 4.0"
    assert language_model_scores([[-1e6]]).perplexity == math.inf


def test_scores_of_no_examples():
    assert class_scores([], [], CLASSES).main == 0.0
    assert language_model_scores([]).loss == 0.0


@pytest.mark.parametrize(("gold", "predicted", "says"), [
    ([["O"]], [], "each gold sentence needs one prediction; found 1 and 0; predict for the same data"),
    ([["O", "O"], ["O"]], [["O"], ["O", "O"]], "sentence 1 of 2 has 2 gold tags and 1 predicted; predict one for each"),
    (["O"], [["O"]], "gold tags must be a list; found the single value 'O'"),
    (None, [["O"]], "sentences' gold tags must be a list; found a NoneType"),
])  # fmt: skip
def test_predictions_for_other_data_have_no_score(gold, predicted, says):
    with pytest.raises(DataError) as caught:
        entity_scores(gold, predicted, ["PER"])
    assert says in str(caught.value)


def test_nor_have_those_of_classes_and_tokens():
    with pytest.raises(DataError, match="each gold text needs one prediction; found 2 and 1"):
        class_scores(["a", "b"], ["a"], CLASSES)
    with pytest.raises(DataError, match="class 1 of 1 must be a string; found 3"):
        class_scores(["a"], ["a"], [3])
    with pytest.raises(DataError, match="log-probabilities must be a list; found a float"):
        language_model_scores([-0.5])
