"""Early stopping on validation (Prechelt, 1998)."""

from __future__ import annotations

from pemeta.errors import counted
from pemeta.training.callbacks.base import Callback, TrainingState
from pemeta.utils.signatures import checked


@checked(patience=1)
class EarlyStopping(Callback):
    """Stop when validation has not improved for some time.

    Whether to stop follows from the scores alone, so that a run that continues from a checkpoint stops where it would
    have. The learning rate's schedule is still that of the whole run.

    Args:
        patience: Validations in a row without a new best score.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_start(self, state: TrainingState) -> None:
        """Stop at once if the run was interrupted just before it would have stopped."""
        self.on_validation(state)

    def on_validation(self, state: TrainingState) -> None:
        """Count validations since the best one."""
        best = state.best
        if best is not None and len(state.validations) - 1 - state.validations.index(best) >= self.patience:
            state.request_stop(f"no better validation score in {counted(self.patience, 'validation')}")
