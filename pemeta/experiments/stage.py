"""A stage of a grid, and how one ended."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.experiments.config import GridConfig, Run


@dataclass(frozen=True)
class Stage:
    """One training: a priming run, or a fine-tuning run with its test.

    Attributes:
        setting: the setting that it belongs to; for a priming run the first one that needs it.
        seed: seed of the training.
        target: the target of a fine-tuning run; None for a priming run.
        primed: name of the primed model that it makes or needs; None without one.
    """

    setting: str
    seed: int
    target: str | None = None
    primed: str | None = None

    @property
    def run(self) -> Run:
        """The fine-tuning run that this stage is."""
        assert self.target is not None  # it is no priming run
        return Run(self.setting, self.target, self.seed)

    def describe(self, config: GridConfig, done: bool = False) -> str:
        """The stage's name on the terminal."""
        label = config.settings[self.setting].label or self.setting
        priming = f"primed {label}" if done else f"priming for {label}"
        what = priming if self.target is None else f"{label} → {self.target}"
        return f"{what}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        stage: the stage.
        seconds: its duration.
        result: its result as a short text.
        error: one sentence about what went wrong; None if it succeeded.
        details: a traceback, if the error is not one of pemeta's own.
        diverged: training itself failed, and would fail again.
        fatal: nothing can be written any more, so that no other stage can succeed.
    """

    stage: Stage
    seconds: float = 0.0
    result: str = ""
    error: str | None = None
    details: str | None = None
    diverged: bool = False
    fatal: bool = False
