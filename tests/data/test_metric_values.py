"""Every metric of the registry against a library's own value, on data and on samples drawn from it with replacement."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score, recall_score
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve
from torch.nn import functional as F

from pemeta.data.metrics import Accuracy, ExactMatch, Loss, MacroF1, Metric, MultilabelMacroF1
from pemeta.errors import ConfigError, DataError


@dataclass(frozen=True)
class Case:
    """Examples to score, and the value that a library gives for gold and predicted ones."""

    metric: str | dict[str, Any]
    data: Callable[[np.random.Generator], tuple[list[Any], list[Any], Sequence[object]]]
    oracle: Callable[[list[Any], list[Any]], float]

    def __str__(self) -> str:
        return self.metric if isinstance(self.metric, str) else "-".join(map(str, self.metric.values()))


CLASSES = ["a", "b", "c", "never"]
CHARACTERS = {"tokenize": "char", "lowercase": True}
WORDS = ["a", "cat", "sat", "on", "the", "mat", "cats", "Sat"]


def tagged(rng):
    tags = ["O", "B-PER", "I-PER", "B-ORG"]
    lengths = rng.integers(0, 6, size=20)
    gold, predicted = ([list(rng.choice(tags, length)) for length in lengths] for _ in range(2))
    return gold, predicted, tags


def classes(rng):
    gold, predicted = (list(rng.choice(CLASSES[:3], 30, p=[0.6, 0.3, 0.1])) for _ in range(2))
    return gold, predicted, CLASSES


def label_sets(rng):
    gold, predicted = ([[c for c in CLASSES[:3] if rng.random() < 0.4] for _ in range(30)] for _ in range(2))
    return gold, predicted, CLASSES


def numbers(rng):
    gold = rng.integers(0, 6, size=25).astype(float)  # with ties
    return list(gold), list(gold + rng.normal(size=25).round(1)), []


def probabilities(rng):
    rows = rng.dirichlet([0.3, 0.3, 0.3], size=60)
    return [CLASSES[rng.choice(3, p=row / 2 + 1 / 6)] for row in rows], [list(row) for row in rows], CLASSES[:3]


def texts(rng):
    gold, predicted = ([" ".join(rng.choice(WORDS, n)) for n in rng.integers(4, 9, size=25)] for _ in range(2))
    return [[g, "the mat"] if i % 3 else g for i, g in enumerate(gold)], predicted, []


def short_texts(rng):
    return *(list(rng.choice(["yes", " Yes\n", "no"], 30)) for _ in range(2)), []


def logits(rng):
    rows = [torch.tensor(rng.normal(size=(n, 5))) for n in rng.integers(1, 8, size=15)]
    gold = [torch.tensor(rng.integers(5, size=len(row))) for row in rows]
    return gold, [row.log_softmax(-1)[range(len(row)), ids].tolist() for row, ids in zip(rows, gold, strict=True)], []


def one_hot(sets):
    return np.array([[c in labels for c in CLASSES] for labels in sets])


def f1_of_labels(average):
    return lambda gold, predicted: sklearn.f1_score(one_hot(gold), one_hot(predicted), average=average, zero_division=0)


def calibration(gold, predicted):
    confidence = np.max(predicted, axis=1)
    right = np.array([CLASSES[np.argmax(row)] == name for row, name in zip(predicted, gold, strict=True)])
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    sizes = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    return np.abs(accuracy - mean) @ sizes[sizes > 0] / len(gold)


def rouge(name):
    def value(gold, predicted):
        scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([name])
        right = [[one] if isinstance(one, str) else one for one in gold]
        return np.mean([scorer.score_multi(r, p)[name].fmeasure for r, p in zip(right, predicted, strict=True)])

    return value


def sacrebleu(name, **options):
    def value(gold, predicted):
        metric = getattr(pytest.importorskip("sacrebleu"), name)(**options)
        streams = [[one if isinstance(one, str) else one[0] for one in gold]]
        streams.append([None if isinstance(one, str) else one[1] for one in gold])
        return metric.corpus_score(predicted, streams).score / 100

    return value


def loss(gold, predicted):
    """By PyTorch, from logits: log-probabilities are logits of a class against one that takes the rest."""
    rows = torch.tensor([p for row in predicted for p in row], dtype=torch.float64)
    two = torch.stack([rows, torch.log1p(-rows.exp())], -1)
    return F.cross_entropy(two, torch.zeros(len(two), dtype=torch.long)).item()


CASES = [
    Case("f1", tagged, lambda gold, predicted: entity_f1(gold, predicted, zero_division=0)),
    Case("precision", tagged, lambda gold, predicted: precision_score(gold, predicted, zero_division=0)),
    Case("recall", tagged, lambda gold, predicted: recall_score(gold, predicted, zero_division=0)),
    Case("accuracy", classes, sklearn.accuracy_score),
    Case("macro_f1", classes, lambda gold, predicted: sklearn.f1_score(gold, predicted, average="macro")),
    Case("mcc", classes, sklearn.matthews_corrcoef),
    Case("multilabel_micro_f1", label_sets, f1_of_labels("micro")),
    Case("multilabel_macro_f1", label_sets, f1_of_labels("macro")),
    Case("pearson", numbers, lambda gold, predicted: scipy.stats.pearsonr(gold, predicted)[0]),
    Case("spearman", numbers, lambda gold, predicted: scipy.stats.spearmanr(gold, predicted)[0]),
    Case("mse", numbers, sklearn.mean_squared_error),
    Case("ece", probabilities, calibration),
    Case("loss", logits, loss),
    Case("perplexity", logits, lambda gold, predicted: np.exp(loss(gold, predicted))),
    Case("exact_match", short_texts, lambda gold, predicted: np.mean([
        g.strip() == p.strip() for g, p in zip(gold, predicted, strict=True)
    ])),
    Case("rouge1", texts, rouge("rouge1")),
    Case("rouge2", texts, rouge("rouge2")),
    Case("rougeL", texts, rouge("rougeL")),
    Case("bleu", texts, sacrebleu("BLEU")),
    Case({"name": "bleu", **CHARACTERS}, texts, sacrebleu("BLEU", **CHARACTERS)),
    Case("chrf", texts, sacrebleu("CHRF")),
    Case({"name": "chrf", "word_order": 2}, texts, sacrebleu("CHRF", word_order=2)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_value_is_the_librarys_on_the_data_and_on_samples_of_it(case):
    rng = np.random.default_rng(0)
    gold, predicted, outputs = case.data(rng)
    metric = Metric.parse(case.metric)
    if metric.name.startswith("rouge"):
        pytest.importorskip("rouge_score")
    elif metric.name in {"bleu", "chrf"}:
        pytest.importorskip("sacrebleu")
    outcomes = metric.outcomes(gold, predicted, outputs)
    assert {len(column) for column in outcomes.values()} == {len(gold)}
    drawn = [np.arange(len(gold)), *(rng.integers(len(gold), size=len(gold)) for _ in range(8))]
    expected = [case.oracle([gold[i] for i in sample], [predicted[i] for i in sample]) for sample in drawn]
    assert len(set(expected)) > 4  # or samples would not tell metrics apart
    weights = np.array([np.bincount(sample, minlength=len(gold)) for sample in drawn], float)
    columns = {name: np.asarray(column, float) for name, column in outcomes.items()}
    assert metric.value(columns, weights) == pytest.approx(expected, abs=1e-9)
    assert metric.score(gold, predicted, outputs) == metric.of(outcomes) == pytest.approx(expected[0], abs=1e-9)


def test_loss_is_that_of_logits():
    rng = np.random.default_rng(1)
    rows, gold = torch.tensor(rng.normal(size=(9, 5))), torch.tensor(rng.integers(5, size=9))
    chosen = rows.log_softmax(-1)[range(9), gold].tolist()
    assert Loss().score([None] * 2, [chosen[:2], chosen[2:]]) == pytest.approx(F.cross_entropy(rows, gold).item())


def test_values_of_classes_and_labels_by_themselves():
    rng = np.random.default_rng(2)
    gold, predicted, outputs = classes(rng)
    each = sklearn.f1_score(gold, predicted, average=None, labels=outputs, zero_division=0)
    assert list(MacroF1().by_output(gold, predicted, outputs).values()) == pytest.approx(list(each))
    each = sklearn.recall_score(gold, predicted, average=None, labels=outputs, zero_division=0)
    assert list(Accuracy().by_output(gold, predicted, outputs).values()) == pytest.approx(list(each))
    gold, predicted, outputs = label_sets(rng)
    each = sklearn.f1_score(one_hot(gold), one_hot(predicted), average=None, zero_division=0)
    assert list(MultilabelMacroF1().by_output(gold, predicted, outputs).values()) == pytest.approx(list(each))
    gold, predicted, outputs = tagged(rng)
    each = entity_f1(gold, predicted, average=None, zero_division=0)  # of the types that occur, sorted
    assert Metric.parse("f1").by_output(gold, predicted, outputs) == pytest.approx(
        dict(zip(("ORG", "PER"), each, strict=True))
    )


@pytest.mark.parametrize("name", ["pearson", "spearman", "mcc", "macro_f1", "f1", "multilabel_macro_f1", "loss", "ece"])
def test_a_value_that_is_not_defined_is_zero(name):
    """As scikit-learn has it for its own: records hold numbers alone."""
    metric = Metric.parse(name)
    assert metric.score([], []) == 0.0
    if name in {"pearson", "spearman"}:
        assert metric.score([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]) == 0.0


def test_a_prediction_that_is_no_class_is_wrong_and_no_class_of_its_own():
    gold, predicted = ["a", "b", "b"], ["a", "b", "neither"]
    assert Accuracy().score(gold, predicted) == pytest.approx(2 / 3)
    expected = sklearn.f1_score(gold, predicted, average="macro", labels=["a", "b"])
    assert MacroF1().score(gold, predicted, ["a", "b"]) == pytest.approx(expected)
    assert Metric.parse("mcc").score(gold, predicted, ["a", "b"]) == pytest.approx(
        sklearn.matthews_corrcoef(gold, predicted)
    )


@pytest.mark.parametrize(("options", "gold", "predicted", "equal"), [
    ({}, "(A)", "  (A)\n", True),
    ({}, "a  b", "a\tb", True),
    ({}, "True", "true", False),
    ({}, "é", "e\u0301", True),
    ({}, ["one", "1"], "1", True),
    ({"ignore_case": True}, "STRASSE", "straße", True),
    ({"ignore_space": False}, "(A)", "(A) ", False),
    ({"ignore_space": False}, "(A)", "(A)", True),
])  # fmt: skip
def test_what_an_exact_match_is(options, gold, predicted, equal):
    assert ExactMatch(**options).score([gold], [predicted]) == equal


@pytest.mark.parametrize(("metric", "arguments", "says"), [
    ("accuracy", (["a"], []), "each gold example needs one prediction; found 1 and 0; predict for the same data"),
    ("macro_f1", (["x"], ["a"], ["a", "b"]), "unknown class 'x'; Known: a, b; score with the classes of the data"),
    ("multilabel_micro_f1", (["a"], [["a"]], ["a"]), "each example needs a collection of labels; found 'a'; put"),
    ("multilabel_macro_f1", ([["a"]], [["c"]], ["a"]), "unknown label 'c'; Known: a; score with the labels"),
    ("ece", (["a"], [[0.5, 0.5]], ["a"]), "a probability for each of the 1 classes; found 2; give"),
    ("exact_match", ([3], ["3"]), "a text is compared with one or several right ones; found '3' and 3; give strings"),
    ("exact_match", ([[]], ["3"]), "a text is compared with one or several right ones; found '3' and []"),
])  # fmt: skip
def test_what_is_no_gold_or_no_prediction_is_refused(metric, arguments, says):
    with pytest.raises(DataError) as caught:
        Metric.parse(metric).score(*arguments)
    assert says in str(caught.value)


def test_a_metric_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        ConfigError, match=r"the package sacrebleu is not installed; run `pip install 'pemeta\[texts\]'`"
    ):
        Metric.parse("chrf").require()
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        Metric.parse("acuracy")


OWN = """
from typing import ClassVar
import numpy as np
from pemeta.data.metrics.base import Metric, ratio

class LengthRatio(Metric):
    name: ClassVar[str] = "length_ratio"
    label: ClassVar[str] = "Length"
    description: ClassVar[str] = "characters of predicted texts over those of the right ones"
    percent: ClassVar[bool] = False

    def outcomes(self, gold, predicted, outputs):
        return {"predicted": [len(p) for p in predicted], "gold": [len(g) for g in gold]}

    def value(self, outcomes, weights):
        return ratio(weights @ outcomes["predicted"], weights @ outcomes["gold"])
"""


def test_ones_own_metric_is_a_file_and_a_line(tmp_path, monkeypatch):
    (tmp_path / "length_ratio.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Metric, "_members", dict(Metric._members))
    importlib.import_module("length_ratio")  # the line
    metric = Metric.parse("length_ratio")
    assert metric.to_config() == {"name": "length_ratio"}
    outcomes = {name: np.array(column) for name, column in metric.outcomes(["aa", "b"], ["a", "bbbb"], []).items()}
    assert metric.value(outcomes, np.array([[1.0, 1.0], [2.0, 0.0]])).tolist() == [5 / 3, 0.5]
    assert metric.shown(0.5) == "0.5"


def test_every_metric_has_a_case():
    assert {Metric.parse(case.metric).name for case in CASES} == set(Metric.members())


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse"])
def test_numbers_of_a_model_that_diverged_have_no_score(metric):
    assert np.isnan(Metric.parse(metric).score([1.0, 2.0, 3.0], [1.0, float("nan"), 2.0]))
