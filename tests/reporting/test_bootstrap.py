"""Paired differences: hand-counted points, intervals against a slow loop and on data whose truth is known."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from fake_records import make
from scipy import stats

from pemeta.errors import OutputError
from pemeta.reporting import bootstrap
from pemeta.reporting.bootstrap import Difference, Estimate, paired_difference
from pemeta.reporting.records import Record
from pemeta.utils.seeding import numpy_generator


def random_records(setting: str, runs: list[tuple[str, int]], sentences: dict[str, int], shift: float) -> list[Record]:
    """Records with several entities in a sentence, some of them without any."""
    records = []
    for target, seed in runs:
        gold = np.random.default_rng(len(target)).integers(0, 4, sentences[target])
        predicted = np.random.default_rng([seed, int(100 * shift), ord(target[0])]).integers(0, 4, sentences[target])
        chance = np.random.default_rng([seed, ord(target[0])]).random(sentences[target])
        correct = np.floor(np.minimum(gold, predicted) * np.minimum(chance + shift, 1)).astype(int)
        counts = {"correct": tuple(correct), "predicted": tuple(predicted), "gold": tuple(gold)}
        unseen = tuple(range(0, sentences[target], 2))
        plain = {key: tuple(map(int, value)) for key, value in counts.items()}
        records.append(make(setting, target, seed, unseen=unseen, **plain))
    return records


def micro_f1(record: Record, sentences: list[int]) -> float:
    correct = sum(record.outcomes["correct"][i] for i in sentences)
    entities = sum(record.outcomes["predicted"][i] + record.outcomes["gold"][i] for i in sentences)
    return 2 * correct / entities if entities else 0.0


def slow(first: list[Record], second: list[Record], resamples: int, unseen: bool = False) -> dict[str, Estimate]:
    """The same estimates, by loops over resamples, targets, seeds and sentences."""
    one, other = ({(r.target, r.seed): r for r in records} for records in (first, second))
    runs = sorted(set(one) & set(other))
    targets, seeds = (sorted({run[i] for run in runs}) for i in (0, 1))
    kept = {t: list(next(r for r in first if r.target == t).unseen) for t in targets}
    if not unseen:
        kept = {t: list(range(len(next(r for r in first if r.target == t).outcomes["gold"]))) for t in targets}

    def difference(target: str, seed: int, places: list[int]) -> float:
        sentences = [kept[target][place] for place in places]
        return micro_f1(one[target, seed], sentences) - micro_f1(other[target, seed], sentences)

    def mean(target: str, places: list[int]) -> float:
        return statistics.fmean(difference(target, seed, places) for seed in seeds if (target, seed) in runs)

    every = {target: list(range(len(kept[target]))) for target in targets}
    samples: dict[str, list[float]] = {}
    for target in targets:
        size = len(kept[target])
        drawn = numpy_generator(0, "bootstrap", "sentences", target).integers(size, size=(resamples, size))
        samples[target] = [mean(target, list(places)) for places in drawn]

    def estimate(of: list[str]) -> Estimate:
        middle = statistics.fmean(mean(target, every[target]) for target in of)
        sentences = statistics.pvariance([statistics.fmean(row) for row in zip(*(samples[t] for t in of), strict=True)])
        own = sorted({seed for target, seed in runs if target in of})
        # What the mean is without a seed's deviations, by which it is seen how much the seed moves it.
        moved = []
        for seed in own:
            parts = []
            for target in of:
                here = [s for s in own if (target, s) in runs]
                values = {s: difference(target, s, every[target]) for s in here}
                flat = statistics.fmean(values.values())
                parts.append(statistics.fmean(flat if s == seed else value for s, value in values.items()))
            moved.append(middle - statistics.fmean(parts))
        n = len(own)
        between = n / (n - 1) * sum(value * value for value in moved) if n > 1 else 0.0
        total = sentences + between
        quantile = 1.959963984540054 if n == 1 else float(stats.t.ppf(0.975, (n - 1) * (total / between) ** 2))
        return Estimate(middle, middle - quantile * total**0.5, middle + quantile * total**0.5)

    return {"mean": estimate(targets)} | {target: estimate([target]) for target in targets}


def close(one: Estimate, other: Estimate) -> bool:
    return all(getattr(one, end) == pytest.approx(getattr(other, end), abs=1e-12) for end in ("mean", "low", "high"))


COMPLETE = list(itertools.product(["af", "hi"], [0, 1, 2]))


@pytest.mark.parametrize("runs", [COMPLETE, COMPLETE[:-2], [("af", 0), ("hi", 1), ("hi", 2)], [("af", 3)]])
@pytest.mark.parametrize("block", [10**6, 100])  # all resamples at once; a few of them at a time
def test_against_a_slow_loop(runs: list[tuple[str, int]], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    sentences = {"af": 31, "hi": 47}
    first = random_records("a", runs, sentences, 0.3)
    second = random_records("b", [*runs, ("nl", 0)], {**sentences, "nl": 5}, 0.2)
    found = paired_difference(first, second, resamples=150)
    assert found is not None
    assert found.unseen is not None
    expected = slow(first, second, 150)
    assert close(found.whole, expected.pop("mean"))
    assert list(found.by_target) == list(expected)
    for target, estimate in found.by_target.items():
        assert close(estimate, expected[target])
    assert close(found.unseen, slow(first, second, 150, unseen=True)["mean"])
    assert found.whole.low < found.whole.high


def difference(first: list[Record], second: list[Record], targets: tuple[str, ...] = ()) -> Difference:
    found = paired_difference(first, second, targets, resamples=300)
    assert found is not None
    return found


def test_points_and_counts_by_hand() -> None:
    # af: (.7 - .6 + .5 - .6) / 2 = 0; hi has seed 0 alone: .9 - .5. Mean of the two .2.
    first = [make("a", "af", 0, 0.7), make("a", "af", 1, 0.5), make("a", "hi", 0, 0.9), make("a", "hi", 2, 0.1)]
    second = [make("b", "af", 0, 0.6), make("b", "af", 1, 0.6), make("b", "hi", 0, 0.5), make("b", "hi", 1, 0.5)]
    found = difference(first, second)
    assert found.whole.mean == pytest.approx(0.2)
    assert {target: round(one.mean, 12) for target, one in found.by_target.items()} == {"af": 0.0, "hi": 0.4}
    assert (found.seeds, found.pairs, found.ahead, found.equal) == ((0, 1), 3, 2, 0)
    # Sentences 10 to 89 of 100: of hi 80 and 40 of 80 are found, of af 60, 50, 40, 50.
    assert found.unseen is not None
    assert found.unseen.mean == pytest.approx((0.5 + 0.0) / 2)
    assert difference(first, second, ("hi",)).whole.mean == pytest.approx(0.4)


def test_no_difference_has_no_interval() -> None:
    runs = [make("a", target, seed, f1) for target, seed, f1 in (("af", 0, 0.4), ("af", 1, 0.8), ("hi", 0, 0.1))]
    found = difference(runs, [run.model_copy(update={"setting": "b"}) for run in runs])
    assert found.whole == Estimate(0.0, 0.0, 0.0)
    assert found.unseen == Estimate(0.0, 0.0, 0.0)
    assert (found.pairs, found.ahead, found.equal) == (3, 0, 3)


def test_a_difference_that_is_the_same_in_all_sentences_and_seeds_is_certain() -> None:
    found = difference([make("a", seed=s, f1=1.0) for s in (0, 1)], [make("b", seed=s, f1=0.0) for s in (0, 1)])
    assert found.whole == Estimate(1.0, 1.0, 1.0)


def test_pairing_makes_the_interval_narrower() -> None:
    # Both settings fail on the same half of the sentences; the first finds five more.
    first, second = make("a", f1=0.55), make("b", f1=0.5)
    found = difference([first], [second]).whole
    elsewhere = make("b", f1=0.5, correct=tuple(reversed(second.outcomes["correct"])))
    unpaired = difference([first], [elsewhere]).whole
    assert found.mean == pytest.approx(unpaired.mean)
    assert found.high - found.low < 0.6 * (unpaired.high - unpaired.low)


def test_one_seed_is_an_interval_over_sentences() -> None:
    # A binomial with 100 draws and chance .05: √(.05 × .95 / 100) = .0218.
    found = difference([make("a", f1=0.55)], [make("b", f1=0.5)]).whole
    assert found.low == pytest.approx(0.05 - 1.96 * 0.0218, abs=0.004)
    assert found.high == pytest.approx(0.05 + 1.96 * 0.0218, abs=0.004)


def test_seeds_alone_give_student_s_interval() -> None:
    # Every sentence alike, so that only seeds vary: differences 1, 0 and 0.
    first = [make("a", seed=seed, f1=f1) for seed, f1 in ((0, 1.0), (1, 0.0), (2, 0.0))]
    found = difference(first, [make("b", seed=seed, f1=0.0) for seed in (0, 1, 2)]).whole
    half = 4.302652729749462 * statistics.stdev([1, 0, 0]) / 3**0.5
    assert (found.low, found.high) == pytest.approx((1 / 3 - half, 1 / 3 + half))


def test_nothing_in_common() -> None:
    assert paired_difference([make("a", "af")], [make("b", "hi")]) is None
    assert paired_difference([make("a", seed=0)], [make("b", seed=1)]) is None
    assert paired_difference([make("a")], [make("b")], ["af"]) is None
    assert paired_difference([], []) is None
    empty = {"gold": (), "correct": (), "predicted": (), "unseen": ()}
    assert paired_difference([make("a", **empty)], [make("b", **empty)]) is None


def test_unseen_is_what_is_unseen_for_both() -> None:
    # Of sentences 40 to 59 the first finds 20 and the second 10.
    first, second = make("a", f1=0.6, unseen=tuple(range(60))), make("b", f1=0.5, unseen=tuple(range(40, 100)))
    found = difference([first], [second])
    assert found.unseen is not None
    assert found.unseen.mean == pytest.approx(0.5)
    assert difference([first], [make("b", unseen=())]).unseen is None


@pytest.mark.parametrize(
    "changes",
    [
        {"gold": (1,) * 99 + (2,)},
        {"gold": (1,) * 98 + (2, 0)},
        {"gold": (1,) * 99, "correct": (0,) * 99, "predicted": (1,) * 99},
        {"gold": (), "correct": (), "predicted": ()},
        {"predicted": (1,) * 99},
    ],
)
def test_other_sentences_are_refused(changes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(OutputError, match=r"adapter__hi__seed0\.json and b__hi__seed0\.json cannot be compared"):
        paired_difference([make()], [make("b", **changes)])


def simulated(rng: np.random.Generator, spread: float, seeds: int) -> tuple[list[Record], list[Record]]:
    """Two settings whose difference is .03 in expectation, by seeds that differ and sentences that are drawn."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    for target in ("af", "hi"):
        chance = rng.random(150)  # how hard a sentence is, for both
        for seed in range(seeds):
            for side, (level, shift) in zip(sides, ((0.63, rng.normal(0, spread)), (0.6, 0.0)), strict=True):
                noise = rng.random(150) < 0.1  # what a run decides by luck
                hit = np.where(noise, rng.random(150), chance) < level + shift
                counts = {"correct": tuple(map(int, hit)), "predicted": (1,) * 150, "gold": (1,) * 150}
                side.append(make("a" if side is sides[0] else "b", target, seed, **counts))
    return sides


@pytest.mark.parametrize(("spread", "seeds"), [(0.0, 3), (0.03, 3), (0.1, 3), (0.03, 5), (0.0, 1)])
def test_intervals_cover_the_truth(spread: float, seeds: int) -> None:
    rng = np.random.default_rng(1)
    found = [paired_difference(*simulated(rng, spread, seeds), resamples=100) for _ in range(150)]
    covered = [one.whole.low <= 0.03 <= one.whole.high for one in found if one is not None]
    # 95 % are promised; 150 simulations have a standard error of two.
    assert 0.90 <= statistics.fmean(covered) <= 0.995


def test_a_clear_difference_is_found() -> None:
    found = paired_difference(*simulated(np.random.default_rng(0), 0.0, 5))
    assert found is not None
    assert found.whole.low > 0
