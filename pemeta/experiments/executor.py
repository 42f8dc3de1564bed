"""The work of a grid's stages: priming a model; fine-tuning and testing a run."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from pemeta.errors import PemetaError, TrainingError, UnwritableError, reason
from pemeta.experiments.backbones import Home, Say
from pemeta.experiments.build import Builder
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.new_record import make_record, score_target
from pemeta.experiments.output_folder import OutputFolder
from pemeta.experiments.saved_models import SavedModels
from pemeta.experiments.stage import Outcome, Stage
from pemeta.model.pe_model import PEModel
from pemeta.priming.history import PrimingHistory
from pemeta.priming.outer_loop import prime
from pemeta.reporting.records import Record, write_record
from pemeta.training.callbacks import TRACKERS, Callback, JsonLog
from pemeta.training.checkpoints import remove_checkpoint
from pemeta.training.finetuning import finetune
from pemeta.training.loop import LoopOptions
from pemeta.typing import State
from pemeta.utils.distributed import Processes, raised_by_all
from pemeta.utils.numerics import numerics

Start = tuple[PEModel, State, PrimingHistory | None]
"""The model that a setting's fine-tuning starts from, its values, and how it was primed."""


class Executor:
    """Does the stages of a grid, one at a time; each writes the files that the next one reads.

    Attributes:
        builder: the objects that the configuration describes.
        folder: the output folder.

    Args:
        config: configuration of the grid, with nothing left to search.
        say: takes one line for each thing that is done.
        progress: show progress bars.
        device: device to compute on; the configuration's by default.
        home: where a backbone is that is pretrained here; by default the output folder, for the grid's tasks.
        log: file that gets a line of JSON for each event of each run; none by default.

    Raises:
        ConfigError: the device cannot be used here.
        OutputError: the log cannot be written.
    """

    def __init__(
        self,
        config: GridConfig,
        say: Say = print,
        progress: bool = True,
        device: str | None = None,
        home: Home | None = None,
        log: Path | None = None,
    ) -> None:
        self.config = config
        self._log = None if log is None else JsonLog(log)
        folder, tasks = home or (Path(config.output), config.text_tasks)
        self.builder = Builder(config, folder, say, progress, device, tasks)
        self.folder = OutputFolder(config, self.builder, say)
        self._say = say
        self._progress = progress
        self._processes = Processes()
        self._models = SavedModels(self.folder, self.builder)
        self._start: tuple[tuple[str, int], Start] | None = None

    def perform(self, stage: Stage) -> Outcome:
        """Do a stage. Errors are returned as outcomes, not raised."""
        with numerics(self.config.precision == "tf32", self.config.deterministic):
            outcome = self._perform(stage)
        # Of several processes all prime together, and each fine-tunes by itself.
        if self._log is not None and (self._processes.first or stage.target is not None):
            ended = {"outcome": outcome.result, "error": outcome.error, "seconds": outcome.seconds}
            self._log.write(stage.describe(self.config), "result", ended)
        return outcome

    def _perform(self, stage: Stage) -> Outcome:
        try:
            return self._prime_stage(stage) if stage.target is None else self._finetune_stage(stage)
        except UnwritableError as error:
            return Outcome(stage, error=str(error), fatal=True)
        except PemetaError as error:
            return Outcome(stage, error=str(error), diverged=isinstance(error, TrainingError))
        except Exception as error:  # a bug of ours or of a library must not end a night's grid
            if self._processes.size > 1 and stage.target is None and not raised_by_all(error):
                raise  # others wait for this process in the middle of something; its launcher ends them
            return Outcome(stage, error=f"{type(error).__name__}: {reason(error)}", details=traceback.format_exc())

    def _prime_stage(self, stage: Stage) -> Outcome:
        history = self.start(stage.setting, stage.seed)[2]
        assert history is not None  # the stage is a priming run
        last = f"outer loss {history.losses[-1].outer:.3f}" if history.losses else "no step was taken"
        return Outcome(stage, history.seconds, "; ".join([last, *history.warnings()]))

    def _finetune_stage(self, stage: Stage) -> Outcome:
        record = self.finetune(stage.run)
        return Outcome(stage, record.seconds, record.summary)

    def start(self, setting: str, seed: int) -> Start:
        """The model that a setting's fine-tuning starts from; it is primed first, if that has not been done.

        The last one is kept, since runs that start alike follow each other.
        """
        if self._start is None or self._start[0] != (setting, seed):
            self._start = None  # two models need not fit into memory
            if self.config.primer(setting) is None:
                model, history = self.builder.model(setting, seed), None
            else:
                model, history = self.primed(setting, seed)
            self._start = (setting, seed), (model, model.state(), history)
        return self._start[1]

    def primed(self, setting: str, seed: int) -> tuple[PEModel, PrimingHistory]:
        """The primed model that a setting starts from; it is primed first, if that has not been done."""
        if not self.folder.is_primed(setting, seed):
            stage = Stage(setting, seed)
            self._say(stage.describe(self.config))
            self._prime(stage)
        return self._models.load_primed(setting, seed)

    def _prime(self, stage: Stage) -> None:
        """Prime the model that a setting starts from, as that setting or another one describes, and save it."""
        setting = self.config.settings[stage.setting].primed_as or stage.setting
        seed = self.config.priming_seed(setting, stage.seed)
        model = self._processes.each(lambda: self.builder.model(setting, seed))
        algorithm = self.config.settings[setting].priming
        assert algorithm is not None  # the setting primes a model of its own
        self._processes.each(lambda: algorithm.prepare(model, seed))
        sources = self._processes.each(self.builder.sources)
        checkpoint = self.folder.checkpoint_path(setting, seed)
        validated = self.config.validates(setting)
        validation_tasks = self._processes.each(self.builder.validation_tasks) if validated else []
        options = self._loop_options(stage, checkpoint)
        history = prime(model, sources, algorithm, seed=seed, validation_tasks=validation_tasks, **options)

        def save() -> None:
            self._models.save_primed(setting, seed, model, history)
            remove_checkpoint(checkpoint)

        self._processes.only_first(save)

    def finetune(self, run: Run) -> Record:
        """Fine-tune and test a run, and write its record."""
        model, initial, priming = self.start(run.setting, run.seed)
        for task in model.tasks:  # of earlier runs; a primed head is among the initial values
            if not initial.keys() >= set(model.head_names(task)):
                model.drop_head(task)
        model.load_state(initial)
        target = self.builder.target(run.target, self.config.sizes_of(run.setting))
        settings = self.config.settings[run.setting].finetuning
        checkpoint = self.folder.checkpoint_path(run.setting, run.seed, run.target)
        options = self._loop_options(Stage(run.setting, run.seed, run.target), checkpoint)
        history = finetune(model, target.task, target.validation, settings, seed=run.seed, **options)
        tested = time.perf_counter()
        scores = score_target(self.builder, model, target)
        measured = {**scores, "seconds": history.seconds + time.perf_counter() - tested}
        record = make_record(self.builder, run, model, target, history, priming, measured)
        prompting = self.config.task.prompting(target.task.train)
        self._models.save_task(run, model, prompting)  # before the record, which says that the run is done
        write_record(self.folder.path, record)
        remove_checkpoint(checkpoint)
        return record

    def _loop_options(self, stage: Stage, checkpoint: Path) -> LoopOptions:
        """The arguments of a training that do not depend on what is trained."""
        callbacks: list[Callback] = []
        for name in self.config.trackers:
            if TRACKERS[name].missing() is None:  # reported when the grid starts
                run = f"{checkpoint.parent.name}__{checkpoint.stem}"
                callbacks.append(TRACKERS[name](self.folder.path, run, self.folder.path.resolve().name))
        if self._log is not None:
            callbacks.append(self._log.named(stage.describe(self.config)))
        return {
            "checkpoint": checkpoint,
            "checkpoint_every": self.config.checkpoint_every,
            "not_finite": self.config.not_finite,
            "progress": self._progress,
            "callbacks": callbacks,
        }
