"""A stage of a run, and how one ended."""

from __future__ import annotations

from dataclasses import dataclass

from pemeta.experiments.config import GridConfig, Run


@dataclass(frozen=True)
class Stage:
    """A priming run, or a cell: fine-tuning and testing.

    Attributes:
        setting: what it is of; of a priming run the first setting that needs it.
        seed: of the run.
        target: of a cell; None for a priming run.
        primed: name of the primed model that it makes or needs; None where there is none.
    """

    setting: str
    seed: int
    target: str | None = None
    primed: str | None = None

    @property
    def cell(self) -> Run:
        """The cell, of a stage that is one."""
        assert self.target is not None  # it is no priming run
        return Run(self.setting, self.target, self.seed)

    def words(self, config: GridConfig) -> str:
        """What the stage is called on the terminal."""
        label = config.settings[self.setting].label or self.setting
        what = f"priming for {label}" if self.target is None else f"{label} → {self.target}"
        return f"{what}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        stage: which one.
        seconds: that it took.
        result: what there is to say of it.
        error: what was wrong, in a sentence; None where it went well.
        details: a traceback, where the error is none of pemeta's own.
        diverged: training itself failed, and would again.
        fatal: nothing can be written any more, so that no other stage would go well.
        interrupted: somebody stopped it; it has saved what it could.
    """

    stage: Stage
    seconds: float = 0.0
    result: str = ""
    error: str | None = None
    details: str | None = None
    diverged: bool = False
    fatal: bool = False
    interrupted: bool = False
