"""TensorBoard, Weights & Biases, MLflow and trackio, through accelerate's trackers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pemeta.training.callbacks.tracker import Tracker

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


class AccelerateTracker(Tracker):
    """A tracker that accelerate has a class for."""

    _own: GeneralTracker

    @abstractmethod
    def make(self, run: str) -> GeneralTracker:
        """Accelerate's tracker of a run."""

    def open(self, run: str, settings: Mapping[str, Any]) -> None:
        """Begin a run and store its settings."""
        from accelerate import PartialState

        PartialState()  # accelerate's own logger asks for it
        self._own = self.make(run)
        self._own.main_process_only = False  # of several processes, each tracks the fine-tuning runs that it does
        self._own.start()
        self._own.store_init_configuration(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record some numbers of a step."""
        self._own.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._own.finish()


class TensorBoard(AccelerateTracker):
    """Event files in FOLDER/tensorboard/RUN; show them with ``tensorboard --logdir FOLDER/tensorboard``."""

    name: ClassVar[str] = "tensorboard"
    packages: ClassVar[tuple[str, ...]] = ("accelerate", "tensorboard")

    def make(self, run: str) -> GeneralTracker:  # noqa: D102 - inherited
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker(run, self.folder / "tensorboard")


class WeightsAndBiases(AccelerateTracker):
    """A run of a Weights & Biases project; ``WANDB_MODE=offline`` keeps it on this machine, in FOLDER/wandb."""

    name: ClassVar[str] = "wandb"
    packages: ClassVar[tuple[str, ...]] = ("accelerate", "wandb")

    def make(self, run: str) -> GeneralTracker:  # noqa: D102 - inherited
        from accelerate.tracking import WandBTracker

        self.folder.mkdir(parents=True, exist_ok=True)
        return WandBTracker(self.project, name=run, dir=str(self.folder), reinit="finish_previous")


class MLflow(AccelerateTracker):
    """A run of an MLflow experiment, where ``MLFLOW_TRACKING_URI`` says; MLflow's default place without it."""

    name: ClassVar[str] = "mlflow"
    packages: ClassVar[tuple[str, ...]] = ("accelerate", "mlflow")

    def make(self, run: str) -> GeneralTracker:  # noqa: D102 - inherited
        from accelerate.tracking import MLflowTracker

        return MLflowTracker(self.project, run_name=run)


class Trackio(AccelerateTracker):
    """A run of a trackio project; show it with ``trackio show``."""

    name: ClassVar[str] = "trackio"
    packages: ClassVar[tuple[str, ...]] = ("accelerate", "trackio")

    def make(self, run: str) -> GeneralTracker:  # noqa: D102 - inherited
        from accelerate.tracking import TrackioTracker

        return TrackioTracker(self.project, name=run)
