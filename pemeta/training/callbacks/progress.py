"""A progress bar with losses and speed."""

from __future__ import annotations

from tqdm.auto import tqdm

from pemeta.training.callbacks.base import Callback, TrainingState


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
            desc=state.name,
            unit=state.unit,
            leave=self.keep,
            disable=None if state.writes else True,
            dynamic_ncols=True,
        )

    def on_step(self, state: TrainingState) -> None:
        """Advance by one step."""
        if self._bar is not None:
            if state.kind == "priming":  # in fine-tuning the epoch's losses stand there
                self._bar.set_postfix_str(state.summary, refresh=False)
            self._bar.update()

    def on_validation(self, state: TrainingState) -> None:
        """Show the score."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{state.summary}, validation {state.validations[-1].summary}")

    def on_end(self, state: TrainingState) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
