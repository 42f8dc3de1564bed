"""Paired differences of two settings, with intervals over seeds and test sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pemeta.errors import OutputError, counted
from pemeta.reporting.records import Record
from pemeta.utils.seeding import numpy_generator
from pemeta.utils.signatures import checked

RESAMPLES = 2000
"""The default (our choice): the standard error of the sentences' standard deviation is then 1.6 % of it."""
LEVEL = 0.95
TINY = 1e-24
"""A variance below this is a rounding error."""
BLOCK = 1_000_000
"""The number of sentences drawn at once: 8 MB of indices."""

Floats: TypeAlias = NDArray[np.float64]
Runs: TypeAlias = dict[tuple[str, int], Record]


@dataclass(frozen=True)
class Estimate:
    """A difference of F1 (from −1 to 1), and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference between two settings, on the runs that both have.

    Attributes:
        whole: F1(first) − F1(second) on all test sentences, the mean over targets.
        unseen: the same on the test sentences that are unseen for both; None if no target has any.
        by_target: the difference on each target.
        seeds: the seeds that any target has in both settings.
        pairs: the number of (target, seed) that both have.
        ahead: the number of pairs in which the first has the higher F1.
        equal: the number of pairs in which both have the same F1.
    """

    whole: Estimate
    unseen: Estimate | None
    by_target: dict[str, Estimate]
    seeds: tuple[int, ...]
    pairs: int
    ahead: int
    equal: int


@dataclass(frozen=True)
class _Target:
    """The runs on one target: seeds, and counts[sentence, first or second, seed, correct or predicted or gold]."""

    name: str
    seeds: tuple[int, ...]
    counts: Floats

    def differences(self, weights: Floats) -> Floats:
        """F1(first) − F1(second) of each seed, (R, seeds), with sentences counted ``weights`` (R, sentences) times."""
        sentences, _, seeds, _ = self.counts.shape
        totals = (weights @ self.counts.reshape(sentences, -1)).reshape(-1, 2, seeds, 3)
        correct, entities = 2 * totals[..., 0], totals[..., 1] + totals[..., 2]
        # Nothing to find and nothing found scores 0, as in seqeval.
        f1 = np.divide(correct, entities, out=np.zeros_like(correct), where=entities > 0)
        difference: Floats = f1[:, 0] - f1[:, 1]
        return difference

    def resampled(self, resamples: int) -> Floats:
        """:meth:`differences` on sentences drawn with replacement, (resamples, seeds)."""
        rng = numpy_generator(0, "bootstrap", "sentences", self.name)
        return np.concatenate([self.differences(w) for w in _weights(rng, len(self.counts), resamples)])


@checked(resamples=1)
def paired_difference(
    first: Sequence[Record], second: Sequence[Record], targets: Sequence[str] = (), resamples: int = RESAMPLES
) -> Difference | None:
    r"""The paired difference between two settings, with 95 % intervals over seeds and test sentences.

    .. math:: \Delta = \frac{1}{|T|} \sum_{t \in T} \frac{1}{|S_t|} \sum_{s \in S_t} F_1(\text{first}, t, s)
        - F_1(\text{second}, t, s)

    over the targets T and seeds S_t that both settings have. Its variance has two parts:

    - from sentences, by the bootstrap (Efron, 1979): each resample draws the test sentences of a target with
      replacement, the same for both settings and all seeds (hence paired), and recomputes micro F1 from the counts of
      the drawn sentences;
    - from seeds, s² / n, with s the sample standard deviation over the n seeds of a seed's contribution to Δ on all of
      its targets. Seeds are too few to resample: the percentiles of a bootstrap over three of them are their lowest
      and highest, which cover the truth in 75 % of cases.

    The interval is Δ ± t √(sum of both), with t Student's quantile at Satterthwaite's (1946) degrees of freedom: n − 1
    for the seeds, unlimited for the sentences. With one seed it covers sentences only. Targets are not resampled: the
    interval holds for these. A target with a single seed contributes nothing to the variance over seeds. The random
    numbers are always the same.

    Args:
        first: Records of one setting.
        second: Records of the other.
        targets: The targets to compare on; all that both have if empty.
        resamples: The number of bootstrap resamples; 2000 (our choice).

    Returns:
        The difference, or None if the two have no (target, seed) in common.

    Raises:
        OutputError: the two were not scored on the same test sentences.
    """
    one, other = ({(record.target, record.seed): record for record in records} for records in (first, second))
    runs = [run for run in one if run in other and (not targets or run[0] in targets)]
    runs = [run for run in runs if one[run].gold or other[run].gold]
    compared = {name for name, _ in runs}
    names = [name for name in targets or dict.fromkeys(name for name, _ in one) if name in compared]
    if not runs:
        return None
    of_target = {name: sorted(seed for target, seed in runs if target == name) for name in names}
    whole = [_target(name, seeds, one, other) for name, seeds in of_target.items()]
    unseen = [_target(name, seeds, one, other, unseen=True) for name, seeds in of_target.items()]
    estimates = _estimates(whole, resamples)
    of_unseen = [target for target in unseen if len(target.counts)]
    point = [target.differences(np.ones((1, len(target.counts)))) for target in whole]
    return Difference(
        whole=estimates[0],
        unseen=_estimates(of_unseen, resamples)[0] if of_unseen else None,
        by_target=dict(zip(of_target, estimates[1:], strict=True)),
        seeds=tuple(sorted({seed for _, seed in runs})),
        pairs=len(runs),
        ahead=sum(int((difference > 0).sum()) for difference in point),
        equal=sum(int((difference == 0).sum()) for difference in point),
    )


def _target(name: str, seeds: Sequence[int], one: Runs, other: Runs, unseen: bool = False) -> _Target:
    """The counts of the runs on one target, on all its test sentences or on those unseen for all of the runs."""
    pairs = [(one[name, seed], other[name, seed]) for seed in seeds]
    records = [record for pair in pairs for record in pair]
    for record in records:
        _check_same_sentences(records[0], record)
    counts = np.array([[[r.correct, r.predicted, r.gold] for r in side] for side in zip(*pairs, strict=True)], float)
    counts = np.moveaxis(counts, -1, 0)
    if unseen:
        counts = counts[sorted(set.intersection(*(set(record.unseen) for record in records)))]
    return _Target(name, tuple(seeds), counts)


def _check_same_sentences(one: Record, other: Record) -> None:
    if one.gold != other.gold or len({len(other.correct), len(other.predicted), len(other.gold)}) > 1:
        raise OutputError(
            f"{one.filename} and {other.filename} cannot be compared sentence by sentence: their test sentences differ "
            f"({counted(len(one.gold), 'sentence')} with {counted(sum(one.gold), 'entity', 'entities')} and "
            f"{len(other.gold)} with {sum(other.gold)}); test both settings on the same sentences"
        )


def _estimates(targets: Sequence[_Target], resamples: int) -> list[Estimate]:
    """The estimate of the mean over targets, followed by that of each target."""
    points = [target.differences(np.ones((1, len(target.counts))))[0] for target in targets]
    samples = [target.resampled(resamples).mean(1) for target in targets]
    whole = _estimate(targets, points, samples)
    each = zip(targets, points, samples, strict=True)
    return [whole, *(_estimate([target], [point], [sample]) for target, point, sample in each)]


def _estimate(targets: Sequence[_Target], points: Sequence[Floats], samples: Sequence[Floats]) -> Estimate:
    """The estimate of the mean over targets.

    Args:
        targets: The T targets.
        points: For each target, the difference of each of its seeds.
        samples: For each target, the mean over its seeds in each resample of its sentences.
    """
    mean = float(np.mean([point.mean() for point in points]))
    of_sentences = float(np.mean(samples, axis=0).var())
    added: dict[int, float] = {}
    for target, point in zip(targets, points, strict=True):
        for seed, off in zip(target.seeds, point - point.mean(), strict=True):
            added[seed] = added.get(seed, 0.0) + float(off) / len(point) / len(targets)
    n = len(added)
    of_seeds = n / (n - 1) * sum(value**2 for value in added.values()) if n > 1 else 0.0
    variance = of_sentences + of_seeds
    freedom = (n - 1) * (variance / of_seeds) ** 2 if of_seeds > TINY else np.inf
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * variance**0.5
    return Estimate(mean, mean - half, mean + half)


def _weights(rng: np.random.Generator, size: int, resamples: int) -> Iterator[Floats]:
    """Yield how often each of ``size`` items is drawn in ``size`` draws, (rows, size), in blocks of resamples."""
    block = max(1, BLOCK // size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        places = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * size).reshape(rows, size).astype(float)
