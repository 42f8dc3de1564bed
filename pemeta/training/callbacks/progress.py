"""A progress bar with losses and speed, in the 80 columns of a usual terminal."""

from __future__ import annotations

from tqdm.auto import tqdm

from pemeta.errors import shortened
from pemeta.training.callbacks.base import Callback, TrainingState
from pemeta.utils.signatures import checked

LAYOUT = "{desc} |{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
"""Without the percentage and the rate of steps, which the bar and the times show too."""
NAME = 20
"""Characters of a run's name, which holds that of its task."""


@checked()
class ProgressBar(Callback):
    """A progress bar on standard error, where that is a terminal.

    Args:
        keep: Leave the finished bar on the screen.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self._bar: tqdm[None] | None = None

    def on_start(self, state: TrainingState) -> None:
        """Show how far the run is."""
        self._bar = tqdm(
            total=state.total,
            initial=state.step,
            desc=shortened(state.name, NAME),
            unit=state.unit,
            leave=self.keep,
            disable=None if state.writes else True,
            bar_format=LAYOUT,
            dynamic_ncols=True,
        )

    def on_step(self, state: TrainingState) -> None:
        """Advance by one step."""
        if self._bar is not None:
            if state.kind == "priming":  # in fine-tuning the last epoch's loss and score stand there
                self._bar.set_postfix_str(state.summary, refresh=False)
            self._bar.update()

    def on_validation(self, state: TrainingState) -> None:
        """Show the score, in fine-tuning beside the epoch's loss."""
        if self._bar is not None:
            score = state.validations[-1].summary
            priming = state.kind == "priming"  # whose losses the next step shows again
            self._bar.set_postfix_str(score if priming else f"{state.summary}, {score}")

    def on_end(self, state: TrainingState) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
