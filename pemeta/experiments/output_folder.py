"""The output folder of a grid: where everything is in it, and what of it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pemeta.errors import OutputError
from pemeta.experiments.backbones import Say
from pemeta.experiments.build import Builder
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.stage import Stage
from pemeta.model.manifest import TASKS
from pemeta.reporting.records import Record, read_record
from pemeta.training.checkpoints import remove_checkpoint
from pemeta.utils.digests import slug
from pemeta.utils.distributed import Processes

LOCK = ".run.lock"
"""File of an output folder that is locked while a grid is running in it."""
PRIMING = "priming.json"
"""File of a primed model's folder that holds how it was primed; written last."""


class OutputFolder:
    """Paths of a grid's output folder, and whether the results there are current.

    The folder holds ``backbone/`` if one was pretrained here, ``primed/NAME/`` for each primed model,
    ``records/*.json``, one for each fine-tuning run, ``models/SETTING-seedK/tasks/TARGET/`` with what that run's task
    stores, and ``checkpoints/`` of runs that have not finished. A result of the same configuration and data is
    current, and is not computed again.

    Args:
        config: configuration of the grid, with nothing left to search.
        builder: builder of the configuration, which knows its data.
        say: takes a line about results that are outdated.
    """

    def __init__(self, config: GridConfig, builder: Builder, say: Say = print) -> None:
        self.config = config
        self.path = Path(config.output)
        self._builder = builder
        self._say = say

    def record_path(self, run: Run) -> Path:
        """The file of a run's record, whether it exists or not."""
        return self.path / "records" / Record.filename_of(run.setting, run.target, run.seed)

    def primed_path(self, setting: str, seed: int) -> Path:
        """The folder of a setting's primed model, whether it exists or not."""
        return self.path / "primed" / self.config.primed_name(setting, seed, self._builder.priming_digest(setting))

    def model_path(self, setting: str, seed: int) -> Path:
        """The folder of a setting's saved tasks, which `pemeta predict` loads."""
        return self.path / "models" / f"{slug(setting)}-seed{seed}"

    def task_path(self, run: Run) -> Path:
        """The folder of what a run's task stores."""
        return self.model_path(run.setting, run.seed) / TASKS / slug(run.target)

    def checkpoint_path(self, setting: str, seed: int, target: str | None = None) -> Path:
        """The checkpoint of an unfinished stage: of priming, or of the fine-tuning on a target."""
        folder = self.path / "checkpoints"
        if target is None:
            own = self.config.priming_seed(setting, seed)
            return folder / "priming" / f"{slug(setting)}__seed{own}.safetensors"
        return folder / "fine-tuning" / f"{slug(setting)}__{slug(target)}__seed{seed}.safetensors"

    def is_primed(self, setting: str, seed: int) -> bool:
        """Whether the model that a setting's fine-tuning starts from is primed."""
        return (self.primed_path(setting, seed) / PRIMING).exists()

    def finished(self, run: Run) -> Record | None:
        """The record of a run; None if it does not exist, or is of another configuration or of other data."""
        path = self.record_path(run)
        if not path.exists():
            return None
        record = read_record(path)
        if record.digest != self.config.run_digest(run):
            return None
        if record.data_digest != self._builder.data_digest(run):
            self._say(f"the data of {record.label} → {run.target}, seed {run.seed}, changed: running it again")
            return None
        return record

    def remove_checkpoints(self, done: Iterable[Stage]) -> None:
        """Remove checkpoints of finished stages, which a killed process may have left, and empty folders."""
        folder = self.path / "checkpoints"
        if folder.is_dir():
            for stage in done:
                own = self.config.settings[stage.setting].primed_as if stage.target is None else None
                remove_checkpoint(self.checkpoint_path(own or stage.setting, stage.seed, stage.target))
            for one in (*folder.iterdir(), folder):
                with suppress(OSError):  # it is not empty
                    one.rmdir()


@contextmanager
def exclusive(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep other grids out of an output folder within the block.

    Raises:
        OutputError: another grid is running there.
    """
    lock = FileLock(folder / LOCK, timeout=1)  # a dry run holds it for a moment

    def acquire() -> None:
        try:
            lock.acquire()
        except Timeout:
            what = f"{folder} is in use by another run"
            raise OutputError(f"{what}; wait until it ends, or give another folder with output=...") from None

    processes.only_first(acquire)
    try:
        yield
    finally:
        lock.release()
