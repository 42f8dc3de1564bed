"""Paired differences of two settings, with intervals over seeds and test examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pemeta.errors import OutputError, counted
from pemeta.reporting.grid import scale_of
from pemeta.reporting.records import Record
from pemeta.utils.seeding import numpy_generator
from pemeta.utils.signatures import checked

if TYPE_CHECKING:  # takes a second to import
    from pemeta.data.metrics import Metric

RESAMPLES = 2000
"""The default (our choice): the standard error of the examples' standard deviation is then 1.6 % of it."""
LEVEL = 0.95
TINY = 1e-24
"""A variance below this is a rounding error."""
BLOCK = 1_000_000
"""The number of examples drawn at once: 8 MB of indices."""

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, Floats]
Runs: TypeAlias = dict[tuple[str, int], Record]


@dataclass(frozen=True)
class Estimate:
    """A difference of two scores, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __neg__(self) -> Estimate:
        """The difference the other way round."""
        return Estimate(-self.mean, -self.high, -self.low)


@dataclass(frozen=True)
class Difference:
    """The difference between two settings, on the runs that both have.

    Attributes:
        metric: the main metric of both.
        whole: score(first) − score(second) on all test examples, the mean over targets.
        unseen: the same on the test examples that are unseen for both; None if no target has any.
        by_target: the difference on each target.
        seeds: the seeds that any target has in both settings.
        pairs: the number of (target, seed) that both have.
        ahead: the number of pairs in which the first has the better score.
        equal: the number of pairs in which both have the same score.
    """

    metric: Metric
    whole: Estimate
    unseen: Estimate | None
    by_target: dict[str, Estimate]
    seeds: tuple[int, ...]
    pairs: int
    ahead: int
    equal: int

    @property
    def gain(self) -> Difference:
        """The same as how much better the first is, which is the other way round where lower is better."""
        if self.metric.higher_is_better:
            return self
        unseen = None if self.unseen is None else -self.unseen
        by_target = {name: -estimate for name, estimate in self.by_target.items()}
        return replace(self, whole=-self.whole, unseen=unseen, by_target=by_target)


@dataclass(frozen=True)
class _Target:
    """The runs on one target: its seeds, and the outcomes of the examples for (first, second) of each seed."""

    name: str
    seeds: tuple[int, ...]
    metric: Metric
    outcomes: tuple[tuple[Columns, Columns], ...]

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self.outcomes[0][0].values())))

    def differences(self, weights: Floats) -> Floats:
        """score(first) − score(second) of each seed, (R, seeds), with examples counted ``weights`` (R, N) times."""
        sides = [[self.metric.value(columns, weights) for columns in pair] for pair in self.outcomes]
        return np.stack([first - second for first, second in sides], axis=1)

    def points(self) -> Floats:
        """:meth:`differences` on all examples, (seeds,)."""
        point: Floats = self.differences(np.ones((1, len(self))))[0]
        return point

    def resampled(self, resamples: int) -> Floats:
        """:meth:`differences` on examples drawn with replacement, (resamples, seeds)."""
        rng = numpy_generator(0, "bootstrap", "sentences", self.name)  # any kind's; so it was named at first
        return np.concatenate([self.differences(weights) for weights in _weights(rng, len(self), resamples)])


@checked(resamples=1)
def paired_difference(
    first: Sequence[Record], second: Sequence[Record], targets: Sequence[str] = (), resamples: int = RESAMPLES
) -> Difference | None:
    r"""The paired difference between two settings, with 95 % intervals over seeds and test examples.

    .. math:: \Delta = \frac{1}{|T|} \sum_{t \in T} \frac{1}{|S_t|} \sum_{s \in S_t} m(\text{first}, t, s)
        - m(\text{second}, t, s)

    over the targets T and seeds S_t that both settings have, with m their main metric. Its variance has two parts:

    - from examples, by the bootstrap (Efron, 1979): each resample draws the test examples of a target with
      replacement, the same for both settings and all seeds (hence paired), and recomputes the metric from the outcomes
      of the drawn examples;
    - from seeds, s² / n, with s the sample standard deviation over the n seeds of a seed's contribution to Δ on all of
      its targets. Seeds are too few to resample: the percentiles of a bootstrap over three of them are their lowest
      and highest, which cover the truth in 75 % of cases.

    The interval is Δ ± t √(sum of both), with t Student's quantile at Satterthwaite's (1946) degrees of freedom: n − 1
    for the seeds, unlimited for the examples. With one seed it covers examples only. Targets are not resampled: the
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
        OutputError: the two were not scored on the same test examples by the same metric.
    """
    one, other = ({(record.target, record.seed): record for record in records} for records in (first, second))
    runs = [run for run in one if run in other and (not targets or run[0] in targets)]
    runs = [run for run in runs if _size(one[run]) or _size(other[run])]
    compared = {name for name, _ in runs}
    names = [name for name in targets or dict.fromkeys(name for name, _ in one) if name in compared]
    if not runs:
        return None
    metric = scale_of(side[run] for run in runs for side in (one, other)).metric
    of_target = {name: sorted(seed for target, seed in runs if target == name) for name in names}
    whole = [_target(metric, name, seeds, one, other) for name, seeds in of_target.items()]
    unseen = [_target(metric, name, seeds, one, other, unseen=True) for name, seeds in of_target.items()]
    estimates = _estimates(whole, resamples)
    of_unseen = [target for target in unseen if len(target)]
    better = [target.points() * (1 if metric.higher_is_better else -1) for target in whole]
    return Difference(
        metric=metric,
        whole=estimates[0],
        unseen=_estimates(of_unseen, resamples)[0] if of_unseen else None,
        by_target=dict(zip(of_target, estimates[1:], strict=True)),
        seeds=tuple(sorted({seed for _, seed in runs})),
        pairs=len(runs),
        ahead=sum(int((difference > 0).sum()) for difference in better),
        equal=sum(int((difference == 0).sum()) for difference in better),
    )


def _target(metric: Metric, name: str, seeds: Sequence[int], one: Runs, other: Runs, unseen: bool = False) -> _Target:
    """The outcomes of the runs on one target, on all its test examples or on those unseen for all of the runs."""
    pairs = [(one[name, seed], other[name, seed]) for seed in seeds]
    records = [record for pair in pairs for record in pair]
    for record in records:
        _check_same_examples(records[0], record)
    kept: list[int] | slice = slice(None)
    if unseen:
        kept = sorted(set.intersection(*(set(record.unseen) for record in records)))
    outcomes = tuple((_columns(first, kept), _columns(second, kept)) for first, second in pairs)
    return _Target(name, tuple(seeds), metric, outcomes)


def _columns(record: Record, kept: list[int] | slice) -> Columns:
    return {name: np.array(column, dtype=float)[kept] for name, column in record.outcomes.items()}


def _size(record: Record) -> int:
    """The number of test examples whose outcomes are known."""
    return max(map(len, record.outcomes.values()), default=0)


def _check_same_examples(one: Record, other: Record) -> None:
    digests = {record.test_digest for record in (one, other)} - {None}
    sizes = {len(column) for record in (one, other) for column in record.outcomes.values()}
    gold = [record.outcomes.get("gold") for record in (one, other)]
    if len(digests) > 1 or len(sizes) > 1 or gold[0] != gold[1] or one.outcomes.keys() != other.outcomes.keys():
        count = counted(_size(one), one.unit)
        what = f"{count} of different data" if len(sizes) == 1 else f"{count} and {_size(other)}"
        raise OutputError(
            f"{one.filename} and {other.filename} cannot be compared {one.unit} by {one.unit}: their test {one.unit}s "
            f"differ ({what}); test both settings on the same {one.unit}s"
        )


def _estimates(targets: Sequence[_Target], resamples: int) -> list[Estimate]:
    """The estimate of the mean over targets, followed by that of each target."""
    points = [target.points() for target in targets]
    samples = [target.resampled(resamples).mean(1) for target in targets]
    whole = _estimate(targets, points, samples)
    each = zip(targets, points, samples, strict=True)
    return [whole, *(_estimate([target], [point], [sample]) for target, point, sample in each)]


def _estimate(targets: Sequence[_Target], points: Sequence[Floats], samples: Sequence[Floats]) -> Estimate:
    """The estimate of the mean over targets.

    Args:
        targets: The T targets.
        points: For each target, the difference of each of its seeds.
        samples: For each target, the mean over its seeds in each resample of its examples.
    """
    mean = float(np.mean([point.mean() for point in points]))
    of_examples = float(np.mean(samples, axis=0).var())
    added: dict[int, float] = {}
    for target, point in zip(targets, points, strict=True):
        for seed, off in zip(target.seeds, point - point.mean(), strict=True):
            added[seed] = added.get(seed, 0.0) + float(off) / len(point) / len(targets)
    n = len(added)
    of_seeds = n / (n - 1) * sum(value**2 for value in added.values()) if n > 1 else 0.0
    variance = of_examples + of_seeds
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
