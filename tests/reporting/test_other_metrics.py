"""Reports of other metrics than F1, also where lower is better: by hand, and against a slow loop."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_records import by_setting, make, of_metric

from pemeta.errors import OutputError
from pemeta.reporting import Table, build_report, load_records, table, to_html, to_markdown, to_terminal
from pemeta.reporting.bootstrap import paired_difference
from pemeta.reporting.choices import Choice
from pemeta.reporting.figures import Figure, GainChart, MatrixChart
from pemeta.reporting.figures.picture import drawing
from pemeta.reporting.records import Record, read_record, write_record
from pemeta.reporting.spec import ReportSpec
from pemeta.utils.seeding import numpy_generator

SIZE = 40


def loss(setting: str, target: str = "hi", seed: int = 0, level: float = 1.0, **changes: Any) -> Record:
    """Examples of one to four tokens, whose loss is ``level`` nats on average."""
    rng = np.random.default_rng([len(target), seed, int(1000 * level)])
    tokens = np.random.default_rng(len(target)).integers(1, 5, SIZE)
    nll = rng.gamma(4, level / 4, SIZE) * tokens
    outcomes = {"nll": [*map(float, nll)], "tokens": [*map(int, tokens)]}
    return of_metric("loss", outcomes, setting, target, seed=seed, **changes)


def accuracy(setting: str, target: str = "hi", seed: int = 0, right: int = 20, **changes: Any) -> Record:
    """So many of forty examples are predicted right."""
    correct = [1] * right + [0] * (SIZE - right)
    return of_metric("accuracy", {"correct": correct}, setting, target, seed=seed, **changes)


def flat(setting: str, target: str = "hi", seed: int = 0, level: float = 1.0, **changes: Any) -> Record:
    """Each token costs ``level`` nats."""
    return of_metric("loss", {"nll": [level] * SIZE, "tokens": [1] * SIZE}, setting, target, seed=seed, **changes)


def texts(of: Table, label: str) -> list[str]:
    (row,) = [row for row in of.rows if row.label == label]
    return [cell.text for cell in row.cells]


def best(of: Table) -> set[str]:
    return {row.label for row in of.rows if row.cells[-1].best}


SPEC = ReportSpec.model_validate(
    {
        "comparisons": [{"title": "b less a", "first": "b", "second": "a"}],
        "figures": [
            {"name": "bars", "title": "Bars", "settings": ["a", "b"]},
            {"name": "cost", "title": "Cost", "settings": ["a", "b"]},
            {"name": "steps", "title": "Steps", "settings": ["a", "b"]},
            {"name": "gain", "title": "Gain", "pairs": {"adapter": ["b", "a"]}},
            {"name": "sizes", "title": "Sizes", "curves": {"unprimed": ["a"], "primed": ["b"]}},
            {"name": "matrix", "title": "Matrix", "rows": ["r", "s"], "columns": ["c"], "settings": [["a"], ["b"]]},
        ],
    }
)


# Tables


def test_accuracy_is_in_percent_and_the_highest_is_best() -> None:
    records = [accuracy("a", right=20), accuracy("a", seed=1, right=24), accuracy("b", right=30)]
    records.append(accuracy("b", seed=1, right=30))
    found = table(records)
    assert found.title == "Accuracy on all test examples, in percent"
    # 50 and 60 percent: mean 55, s = 7.07, s / √2 = 5.
    assert texts(found, "a")[1:] == ["55.0 ± 5.0", "55.0 ± 5.0"]
    assert best(found) == {"b"}


def test_a_loss_is_as_it_is_and_the_lowest_is_best() -> None:
    records = [flat("a", level=1.25), flat("b", level=1.2504), flat("c", level=1.3)]
    found = table(records)
    assert found.title == "Loss on all test examples"
    assert [texts(found, name)[1] for name in "abc"] == ["1.250", "1.250", "1.300"]
    assert best(found) == {"a", "b"}  # shown as equal


def test_negative_scores_have_a_sign_and_are_compared_by_it() -> None:
    gold, predicted = [0, 1] * 20, [1, 0] * 19 + [0, 1]
    low = of_metric("mcc", {"gold": gold, "predicted": predicted}, "a")
    found = table([low, of_metric("mcc", {"gold": gold, "predicted": [0] * 40}, "b")])
    assert (texts(found, "a")[1], texts(found, "b")[1]) == ("−0.900", "0.000")
    assert best(found) == {"b"}


@pytest.mark.parametrize(("make_one", "lower"), [(accuracy, False), (loss, True)])
def test_a_report_says_what_its_scores_are(make_one: Any, lower: bool) -> None:
    records = [make_one(name, target, seed) for name in "ab" for target in ("hi", "et") for seed in (0, 1)]
    report = build_report(records, spec=SPEC)
    words = to_markdown(report) + to_html(report) + to_terminal(report)
    assert "F1" not in words
    assert "sentence" not in words
    assert ("percent" in words or "points" in words) == (not lower)
    assert "on unseen test examples" in words
    assert "Unseen: examples that are not also a training example of the target or a source: 20 of 40 on each" in words
    assert ("lower is better" in dict(report.facts)["Scores"]) == lower
    assert ("below zero where the first is better" in words) == lower


def test_scores_of_classes_have_a_table() -> None:
    changes: dict[str, Any] = {"scores_by": {"no": 0.25, "yes": 0.75}, "by": "accuracy per class"}
    report = build_report([accuracy("a", **changes), accuracy("b", **changes)])
    (found,) = [one for one in report.details if "per class" in one.title]
    assert (found.title, texts(found, "a")) == ("Accuracy per class, in percent", ["25.0", "75.0"])
    assert found.notes[0].startswith("Mean over the targets that have the class; ")


def test_metrics_are_apart() -> None:
    records = [make("ner", "hi"), accuracy("a", "et"), accuracy("b", "et", right=30), flat("lm", "nl")]
    report = build_report(records)
    titles = [one.title for one in report.tables]
    assert titles == [
        "Accuracy on all test examples, in percent",
        "Loss on all test examples",
        "F1 on all test sentences, in percent",
    ]
    assert [[row.label for row in one.rows] for one in report.tables] == [["a", "b"], ["lm"], ["ner"]]
    assert [one.columns for one in report.tables] == [("Stored", target, "Mean") for target in ("et", "nl", "hi")]
    assert [name for name, _ in report.facts][:3] == ["Scores, accuracy", "Scores, loss", "Scores, F1"]
    own = ReportSpec.model_validate({"tables": [{"title": "Mine", "settings": ["a", "ner"]}]})
    own_titles = [one.title for one in build_report(records, spec=own).tables]
    assert own_titles == ["Mine: accuracy, in percent", "Mine: F1, in percent"]
    with pytest.raises(
        OutputError, match=r"scores of different metrics cannot be compared: a__et__seed0.*has accuracy"
    ):
        table(records)


def test_a_metric_that_nobody_knows_is_named() -> None:
    record = accuracy("a").model_copy(update={"metric": "accurracy"})
    with pytest.raises(OutputError, match=r"unknown metric 'accurracy'.*'accuracy'"):
        build_report([record])


# Differences


def test_differences_of_a_loss_against_a_slow_loop() -> None:
    runs = [("hi", 0), ("hi", 1), ("et", 0)]
    first, second = ([loss(name, *run, level=level) for run in runs] for name, level in (("a", 0.9), ("b", 1.2)))
    found = paired_difference(first, second, resamples=80)
    assert found is not None

    def mean_loss(record: Record, places: Any) -> float:
        nll, tokens = (record.outcomes[name] for name in ("nll", "tokens"))
        return sum(nll[i] for i in places) / sum(tokens[i] for i in places)

    points = {}
    variances = []
    for target in ("hi", "et"):
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.target == target]
        drawn = numpy_generator(0, "bootstrap", "sentences", target).integers(SIZE, size=(80, SIZE))
        for (a, b), run in zip(pairs, [run for run in runs if run[0] == target], strict=True):
            points[run] = mean_loss(a, range(SIZE)) - mean_loss(b, range(SIZE))
        variances.append([statistics.fmean(mean_loss(a, row) - mean_loss(b, row) for a, b in pairs) for row in drawn])
    expected = (statistics.fmean(points[run] for run in runs[:2]) + points["et", 0]) / 2
    assert found.whole.mean == pytest.approx(expected)
    by_target = found.by_target["et"]
    half = 1.959963984540054 * statistics.pstdev(variances[1])
    assert (by_target.low, by_target.high) == pytest.approx((points["et", 0] - half, points["et", 0] + half))
    assert found.ahead == sum(point < 0 for point in points.values())
    unseen = [i for i in range(SIZE) if i % 2 == 0]
    own = {run: mean_loss(a, unseen) - mean_loss(b, unseen) for a, b, run in zip(first, second, runs, strict=True)}
    assert found.unseen is not None
    assert found.unseen.mean == pytest.approx((statistics.fmean([*own.values()][:2]) + own["et", 0]) / 2)


def test_a_lower_loss_is_ahead_and_a_gain() -> None:
    found = paired_difference([flat("b", seed=s, level=1.0) for s in (0, 1)], [flat("a", seed=s) for s in (0, 1)])
    assert found is not None
    assert (found.ahead, found.equal, found.pairs) == (0, 2, 2)
    found = paired_difference([flat("b", level=0.75)], [flat("a", level=1.0)])
    assert found is not None
    assert (found.whole.mean, found.ahead) == (-0.25, 1)
    gain = found.gain
    assert (gain.whole.mean, gain.whole.low, gain.whole.high) == (0.25, -found.whole.high, -found.whole.low)
    assert gain.unseen is not None
    assert gain.unseen.mean == 0.25
    higher = paired_difference([accuracy("b", right=30)], [accuracy("a")])
    assert higher is not None
    assert higher.gain is higher


def test_the_table_of_differences_of_a_loss() -> None:
    report = build_report([flat("a", level=1.0), flat("b", level=0.9)], spec=SPEC)
    (found,) = [one for one in report.tables if one.title.startswith("Paired")]
    assert found.title == "Paired differences of loss"
    assert texts(found, "b less a")[:5] == ["−0.100", "−0.100 to −0.100", "1 of 1", "1", "1"]
    assert "the first has the lower loss" in found.notes[0]
    assert "so the interval covers examples only" in found.notes[2]


def test_settings_of_different_metrics_or_examples_are_not_compared() -> None:
    with pytest.raises(OutputError, match=r"scores of different metrics cannot be compared: .*has accuracy.*has loss"):
        paired_difference([accuracy("a")], [flat("b")])
    other = accuracy("b", test_digest="3" * 12)
    with pytest.raises(
        OutputError, match=r"cannot be compared example by example: .*\(40 examples of different data\)"
    ):
        paired_difference([accuracy("a")], [other])
    assert paired_difference([accuracy("a")], [accuracy("b", test_digest=None)]) is not None
    for kind in ("bars", "gain", "cost", "matrix", "sizes"):
        (figure,) = [figure for figure in SPEC.figures if figure.name == kind]
        with pytest.raises(OutputError, match="different metrics"):
            figure.compute(by_setting(accuracy("a"), flat("b")))


# Figures


def figure(name: str) -> Figure:
    (found,) = [figure for figure in SPEC.figures if figure.name == name]
    return found


def test_figures_of_a_loss() -> None:
    records = by_setting(flat("a", level=1.0), flat("b", level=0.75))
    gain = figure("gain").compute(records)
    assert isinstance(gain, GainChart)
    assert texts(gain.table(), "adapter")[:4] == ["1.000", "0.750", "+0.250", "+0.250 to +0.250"]
    assert gain.table().columns[2] == "Reduction"
    assert drawing(gain).axes[0].get_xlabel() == "reduction of loss"
    assert gain.caption.startswith("Large dots: loss without priming less loss with it, the mean over")
    matrix = figure("matrix").compute(records)
    assert isinstance(matrix, MatrixChart)
    assert [[cell.best for cell in row] for row in matrix.cells] == [[False], [True]]
    assert "the lowest of each column" in matrix.caption
    sizes = figure("sizes").compute(records)
    assert [row.cells[1].text for row in sizes.table().rows] == ["–", "+0.250"]
    assert [axes.get_ylabel() for axes in drawing(sizes).axes] == ["loss", "reduction of loss"]
    steps = figure("steps").compute(records)
    assert [cell.text for cell in steps.table().rows[0].cells] == ["2.000", "1.000"]
    assert drawing(figure("cost").compute(records)).axes[0].get_ylabel() == "loss"


def test_steps_are_of_the_metric_of_validation() -> None:
    records = by_setting(*(accuracy(name, validation_metric="loss", validation_curve=(1.5, 1.25)) for name in "ab"))
    found = figure("steps").compute(records)
    assert found.caption.startswith("Loss on validation examples after each epoch")
    assert [cell.text for cell in found.table().rows[0].cells] == ["1.500", "1.250"]


# Searches


def test_choices_of_a_loss() -> None:
    choice = Choice("a", {"finetuning.lr": 3.0}, "loss", {"a, 3": 0.5, "a, 2": 0.625}, ())
    assert choice.describe() == "a: finetuning.lr 3.0 (loss 0.500 on validation data)"
    report = build_report([flat("a")], choices={"a": choice})
    (found,) = [one for one in report.details if one.title == "What the search chose"]
    assert found.columns[:3] == ("Tried", "Best loss", "Second")
    assert texts(found, "a")[:3] == ["2", "0.500", "0.625"]
    assert found.notes[0].startswith("The candidate with the lowest mean loss on validation examples, over seeds")


# Files


def test_outcomes_keep_every_bit(tmp_path: Path) -> None:
    record = loss("a")
    path = write_record(tmp_path, record)
    assert read_record(path) == record
    kept = json.loads(path.read_text())["outcomes"]
    assert set(kept["tokens"].split()) <= set("1234"), "whole numbers have no point"


def test_columns_have_the_names_of_scores(tmp_path: Path) -> None:
    for record in (accuracy("a", scores={"accuracy": 0.5, "seconds": 0.25}), flat("b"), make("c")):
        write_record(tmp_path, record)
    frame = load_records(tmp_path)
    names = list(frame)
    place = names.index("score")
    assert set(names[place + 1 : place + 8]) == {
        "accuracy",
        "scores.seconds",
        "loss",
        "other",
        "f1",
        "precision",
        "recall",
    }
    assert frame["accuracy"].tolist()[0] == 0.5
    assert frame["scores.seconds"].tolist()[0] == 0.25
    assert frame["seconds"].tolist()[0] == 4.0
    assert frame["f1"].isna().tolist() == [True, True, False]


def old_fields(record: Record) -> dict[str, Any]:
    """A record's file as it was when there were entities alone."""
    fields = record.model_dump(mode="json")
    new = ("task", "unit", "metric", "by", "cut", "validation_metric", "test_digest", "score")
    for name in new:
        del fields[name]
    fields |= {"f1_per_type": fields.pop("scores_by"), "f1_unseen": fields.pop("score_unseen") or 0.0}
    fields |= {"validation_f1": fields.pop("validation_score"), **fields.pop("scores"), **fields.pop("outcomes")}
    return fields


@pytest.mark.parametrize("num_unseen", [80, 0])
def test_old_files_are_read_as_records_of_token_classification(tmp_path: Path, num_unseen: int) -> None:
    changes: dict[str, Any] = {} if num_unseen else {"num_unseen": 0, "score_unseen": None, "unseen": ()}
    record = make(f1=0.25, test_digest=None, **changes)
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old_fields(record)), encoding="utf-8")
    before = path.read_bytes()
    assert read_record(path) == record
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["f1", "recall", "gold", "validation_f1", "f1_per_type"])
def test_an_old_file_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    fields = old_fields(make())
    del fields[name]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(OutputError, match=f"is not a record of this version: {name}: this key is required; remove it"):
        read_record(path)


def test_a_metric_with_settings_is_computed_with_them():
    rng = np.random.default_rng(0)
    columns = {"confidence": [*rng.uniform(0.3, 1, SIZE)], "correct": [*map(int, rng.integers(0, 2, SIZE))]}
    other = {**columns, "correct": [1 - right for right in columns["correct"]]}

    def one_bin(outcomes):  # of a single bin: |accuracy − mean confidence|
        return abs(statistics.fmean(outcomes["correct"]) - statistics.fmean(outcomes["confidence"]))

    first, second = (
        of_metric("ece", own, name, metric_settings={"bins": 1}) for name, own in (("b", columns), ("a", other))
    )
    difference = paired_difference([first], [second])
    assert difference is not None
    assert difference.whole.mean == pytest.approx(one_bin(columns) - one_bin(other))
    usual = of_metric("ece", other, "a")
    with pytest.raises(OutputError, match=r"has ece with bins=1 and .* has ece with bins=15"):
        paired_difference([first], [usual])
