"""How the values of a metric are named and shown: in percent or not, with their sign, and which are better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pemeta.errors import OutputError, unknown_name

if TYPE_CHECKING:  # takes a second to import
    from pemeta.data.metrics import Metric


def metric_named(name: str, settings: Mapping[str, Any] | None = None) -> Metric:
    """The metric of a record, by its name.

    Args:
        name: its name.
        settings: those of its settings that are not the defaults.

    Raises:
        OutputError: there is none.
    """
    from pemeta.data.metrics import Metric

    members = Metric.members()
    if name not in members:
        raise OutputError(f"{unknown_name('metric', name, members)}; import the file that has it before the report")
    return members[name](**settings or {})


def capitalised(text: str) -> str:
    """A text at the beginning of a title.

    >>> capitalised("macro F1"), capitalised("chrF")
    ('Macro F1', 'chrF')
    """
    return text[0].upper() + text[1:] if text.partition(" ")[0].islower() else text


@dataclass(frozen=True)
class Scale:
    """The words and numbers by which a report shows a metric."""

    metric: Metric

    @property
    def label(self) -> str:
        """The metric's name within a sentence."""
        return self.metric.label

    @property
    def title(self) -> str:
        """The metric's name at the beginning of a title."""
        return capitalised(self.label)

    @property
    def in_percent(self) -> str:
        """What follows the name of a score in a title."""
        return ", in percent" if self.metric.percent else ""

    @property
    def in_points(self) -> str:
        """What follows the name of a difference in a title."""
        return ", in points" if self.metric.percent else ""

    @property
    def parenthesis(self) -> str:
        """What follows the name of scores where a sentence goes on."""
        return ", in percent," if self.metric.percent else ""

    @property
    def percent_words(self) -> str:
        """What follows the name of scores without a comma."""
        return " in percent" if self.metric.percent else ""

    @property
    def label_in_percent(self) -> str:
        """The metric's name with the unit of scores, in the title of a figure's table."""
        return f"{self.label}{self.percent_words}"

    @property
    def with_gains(self) -> str:
        """The same of scores and gains."""
        gains = f"{self.gain_word.lower()}s"
        return f"{self.label} in percent, {gains} in points" if self.metric.percent else f"{self.label}, and {gains}"

    @property
    def gain_word(self) -> str:
        """The head of a column of gains."""
        return "Gain" if self.metric.higher_is_better else "Reduction"

    @property
    def axis(self) -> str:
        """The name of an axis of scores."""
        return f"{self.label}, percent" if self.metric.percent else self.label

    @property
    def gain(self) -> str:
        """The name of an axis that shows how much better one score is than another, which is positive if it is."""
        what = f"gain in {self.label}" if self.metric.higher_is_better else f"reduction of {self.label}"
        return f"{what}, points" if self.metric.percent else what

    @property
    def best(self) -> str:
        """Which score is the best one."""
        return "highest" if self.metric.higher_is_better else "lowest"

    @property
    def better(self) -> str:
        """Which of two scores is the better one."""
        return "higher" if self.metric.higher_is_better else "lower"

    @property
    def factor(self) -> float:
        """What a value is multiplied by to be shown."""
        return 100.0 if self.metric.percent else 1.0

    def best_of(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return max(values) if self.metric.higher_is_better else min(values)

    def shown(self, value: float) -> str:
        """A value as text.

        >>> scale = Scale(metric_named("f1"))
        >>> scale.shown(0.831), scale.shown(-0.04), scale.shown(-0.0001)
        ('83.1', '−4.0', '0.0')
        """
        return self.signed(value).removeprefix("+")

    def signed(self, difference: float) -> str:
        """A difference of two values as text, with its sign.

        >>> scale = Scale(metric_named("f1"))
        >>> scale.signed(0.0234), scale.signed(-0.01), scale.signed(-0.0001)
        ('+2.3', '−1.0', '0.0')
        """
        text = f"{self.factor * difference:+.{self.metric.decimals}f}"
        return text[1:] if not text.strip("+-0.") else text.replace("-", "−")

    def interval(self, low: float, high: float) -> str:
        """An interval of differences as text, rounded outwards so that the text contains the interval.

        >>> scale = Scale(metric_named("f1"))
        >>> scale.interval(-0.01, 0.034), scale.interval(-0.0004, 0.0301)
        ('−1.0 to +3.4', '−0.1 to +3.1')
        """
        steps = self.factor * 10**self.metric.decimals
        outwards = math.floor(round(steps * low, 6)), math.ceil(round(steps * high, 6))
        return " to ".join(self.signed(end / steps) for end in outwards)
