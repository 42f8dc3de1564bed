"""The stages of a run: priming a model, and fine-tuning and testing one cell; each writes what the next one reads."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from pemeta.data.metrics import entity_counts, entity_scores
from pemeta.errors import ModelError, OutputError, PemetaError, TrainingError, UnwritableError, reason
from pemeta.experiments.backbones import Say
from pemeta.experiments.build import Builder, Target
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.stage import Outcome, Stage
from pemeta.model.manifest import MANIFEST, TASKS, find_manifest, read_manifest, relative_base
from pemeta.model.model_files import describe_model, write_model
from pemeta.model.pe_model import PEModel
from pemeta.priming.history import PrimingHistory
from pemeta.priming.outer_loop import prime
from pemeta.reporting.records import Record, read_record, write_record
from pemeta.training.checkpoints import remove_checkpoint
from pemeta.training.evaluation import predict
from pemeta.training.finetuning import FineTuningHistory, finetune
from pemeta.typing import State
from pemeta.utils.digests import config_digest, slug
from pemeta.utils.distributed import Processes, raised_by_all
from pemeta.utils.files import read_json, replaced_folder, write_json
from pemeta.utils.provenance import hardware, package_versions

SMALL_PART, FEW = 0.1, 1_000_000
"""What is kept of a task unasked: so small a part of the model, or so few parameters (4 MB)."""


class Stages:
    """What is done of a run in its output folder, and how each stage of it is done.

    The folder holds ``backbone/`` if one was pretrained here, ``primed/NAME/`` for each primed model,
    ``records/*.json``, one for each fine-tuning run, and ``models/SETTING-seedK/tasks/TARGET/`` with what that run's
    task stores. What is there and of the same configuration and data is done.

    Args:
        config: of the run; nothing is left to search.
        say: takes one line for each thing that is done.
        progress: show progress bars.
        device: in place of the configuration's.
        home: folder that a backbone made here is kept in; by default the output.

    Raises:
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self,
        config: GridConfig,
        say: Say = print,
        progress: bool = True,
        device: str | None = None,
        home: Path | None = None,
    ) -> None:
        self.config = config
        self.say = say
        self.progress = progress
        self.folder = Path(config.output)
        self.builder = Builder(config, home or self.folder, say, progress, device)
        self.processes = Processes()
        self._described: set[Path] = set()
        self._started: tuple[tuple[str, int], tuple[PEModel, State, PrimingHistory | None]] | None = None

    def perform(self, stage: Stage) -> Outcome:
        """Do a stage; an error is an outcome too."""
        try:
            if stage.target is None:
                history = self.start(stage.setting, stage.seed)[2]
                assert history is not None  # or there would be nothing to prime
                last = f"outer loss {history.losses[-1].outer:.3f}" if history.losses else "no step was taken"
                return Outcome(stage, history.seconds, "; ".join([last, *history.warnings()]))
            record = self.cell(stage.cell)
            return Outcome(stage, record.seconds, f"F1 {100 * record.f1:.1f}")
        except UnwritableError as error:
            return Outcome(stage, error=str(error), fatal=True)
        except PemetaError as error:
            return Outcome(stage, error=str(error), diverged=isinstance(error, TrainingError))
        except Exception as error:  # a fault of ours or of a library's must not end a night's grid
            if self.processes.size > 1 and stage.target is None and not raised_by_all(error):
                raise  # others wait for this process in the middle of something; its launcher ends them
            return Outcome(stage, error=f"{type(error).__name__}: {reason(error)}", details=traceback.format_exc())

    def finished(self, cell: Run) -> Record | None:
        """The cell's record, if it is there, and of this configuration and data."""
        path = self.record_path(cell)
        if not path.exists():
            return None
        record = read_record(path)
        if record.digest != config_digest(self.config.run_config(cell)):
            return None
        if record.data_digest != self.builder.data_digest(cell.target, self.config.sizes_of(cell.setting)):
            self.say(f"the data of {record.label} → {cell.target}, seed {cell.seed}, changed: running it again")
            return None
        return record

    def record_path(self, cell: Run) -> Path:
        """Where a cell's record is, or will be."""
        return self.folder / "records" / Record.filename_of(cell.setting, cell.target, cell.seed)

    def is_primed(self, setting: str, seed: int) -> bool:
        """Whether the model that a setting's fine-tuning starts from is primed."""
        return (self.primed_folder(setting, seed) / "priming.json").exists()

    def start(self, setting: str, seed: int) -> tuple[PEModel, State, PrimingHistory | None]:
        """The model that a setting's fine-tuning starts from, its values, and how it was primed.

        The last one is kept: cells that start alike follow each other.
        """
        if self._started is None or self._started[0] != (setting, seed):
            self._started = None  # two models need not fit into memory
            if self.config.primer(setting) is None:
                model, priming = self.builder.model(setting, seed), None
            else:
                model, priming = self.primed(setting, seed)
            model.drop_heads()
            self._started = (setting, seed), (model, model.state(), priming)
        return self._started[1]

    def primed(self, setting: str, seed: int) -> tuple[PEModel, PrimingHistory]:
        """The primed model that a setting starts from, and how it was primed, which is done now if it was not yet."""
        folder = self.primed_folder(setting, seed)
        if not self.is_primed(setting, seed):
            self.say(f"priming for {self.config.settings[setting].label or setting}, seed {seed}")
            self.prime(self.config.settings[setting].primed_as or setting, seed, folder)
        return self.load_primed(folder, setting)

    def prime(self, setting: str, seed: int, folder: Path) -> None:
        """Prime a model as a setting says, and save it."""
        model = self.processes.each(lambda: self.builder.model(setting, seed))
        algorithm = self.config.settings[setting].priming
        assert algorithm is not None  # or there would be nothing to do
        self.processes.each(lambda: algorithm.prepare(model, seed))
        sources = self.processes.each(self.builder.sources)
        checkpoint = self.checkpoint_path(setting, seed)
        history = prime(
            model,
            sources,
            algorithm,
            seed=seed,
            checkpoint=checkpoint,
            checkpoint_every=self.config.checkpoint_every,
            not_finite=self.config.not_finite,
            progress=self.progress,
        )
        self.processes.only_first(lambda: self.save_primed(setting, seed, folder, model, history))

    def save_primed(self, setting: str, seed: int, folder: Path, model: PEModel, history: PrimingHistory) -> None:
        """Save a primed model; the checkpoint that it was made from is not needed any more."""
        config = self.config.priming_config(setting, seed)
        about = {"config": config, "data_digest": self.builder.source_digest, "history": history.to_json()}
        facts = {
            "seed": seed,
            "sources": list(self.config.sources),
            "backbone": config["backbone"],
            **config["priming"],
        }
        with replaced_folder(folder) as temporary:
            write_model(model, temporary, describe_model(model, facts=facts), self.builder.tokenizer)
            write_json(temporary / "priming.json", about)
        remove_checkpoint(self.checkpoint_path(setting, seed))

    def checkpoint_path(self, setting: str, seed: int, target: str | None = None) -> Path:
        """Where the state of a stage that is not done yet is saved: of priming, or of the cell of a target."""
        folder = self.folder / "checkpoints"
        if target is None:
            return folder / "priming" / f"{slug(setting)}__seed{seed}.safetensors"
        return folder / "fine-tuning" / f"{slug(setting)}__{slug(target)}__seed{seed}.safetensors"

    def tidy(self, done: Iterable[Stage]) -> None:
        """Remove checkpoints of stages that are done, which a process that was killed has left, and empty folders."""
        folder = self.folder / "checkpoints"
        if folder.is_dir():
            for stage in done:
                own = self.config.settings[stage.setting].primed_as if stage.target is None else None
                remove_checkpoint(self.checkpoint_path(own or stage.setting, stage.seed, stage.target))
            for empty in (*folder.iterdir(), folder):
                with suppress(OSError):  # it is not
                    empty.rmdir()

    def primed_folder(self, setting: str, seed: int) -> Path:
        """Where a primed model is, or will be."""
        return self.folder / "primed" / self.config.primed_name(setting, seed, self.builder.source_digest)

    def load_primed(self, folder: Path, setting: str) -> tuple[PEModel, PrimingHistory]:
        """Load a primed model that an earlier run finished."""
        about = read_json(folder / "priming.json")
        try:
            history = PrimingHistory.from_json(about["history"])
            read_manifest(folder)
        except (KeyError, TypeError, AttributeError, ModelError):
            raise OutputError(f"{folder} is not a primed model of this version; remove that folder") from None
        method, attention = self.config.settings[setting].method, self.config.backbone.attention
        model = PEModel.from_pretrained(folder, method, attention=attention)
        return self.builder.set_up(model), history

    def model_folder(self, setting: str, seed: int) -> Path:
        """Where what the tasks of a setting store is, and `pemeta predict` finds it."""
        return self.folder / "models" / f"{slug(setting)}-seed{seed}"

    def save_task(self, cell: Run, model: PEModel) -> None:
        """Keep the fine-tuned values of a cell, if the configuration asks for it or they are few."""
        wanted = self.config.save_tasks
        if wanted is None:
            wanted = model.fraction_stored(cell.target) <= SMALL_PART or model.num_stored(cell.target) <= FEW
        if wanted:
            folder = self.model_folder(cell.setting, cell.seed)
            self.describe_model_of(cell, model, folder)
            model.save_task(folder / TASKS / slug(cell.target), cell.target, self.config.max_length)

    def describe_model_of(self, cell: Run, model: PEModel, folder: Path) -> None:
        """Write what the tasks of a setting stand on; tasks of another primed model, from before, are removed."""
        if folder in self._described:
            return
        primed = self.config.primer(cell.setting) is not None
        base = str(self.primed_folder(cell.setting, cell.seed)) if primed else self.builder.backbone_location
        about = describe_model(model, relative_base(base, folder))
        with FileLock(self.folder / ".models.lock"):  # another process may be at a task of the same setting
            try:
                there = find_manifest(folder) if folder.is_dir() else None  # else the hub would be asked for it
            except ModelError:
                there = None
            if there is None or there.model_copy(update={"packages": about.packages}) != about:
                with replaced_folder(folder) as temporary:
                    write_json(temporary / MANIFEST, about.model_dump(mode="json"))
        self._described.add(folder)

    def cell(self, cell: Run) -> Record:
        """Fine-tune, test, and write the record."""
        model, initial, priming = self.start(cell.setting, cell.seed)
        model.drop_heads()
        model.load_state(initial)
        target = self.target(cell)
        settings = self.config.settings[cell.setting].finetuning
        checkpoint = self.checkpoint_path(cell.setting, cell.seed, cell.target)
        history = finetune(
            model,
            target.task,
            target.validation,
            settings,
            seed=cell.seed,
            checkpoint=checkpoint,
            checkpoint_every=self.config.checkpoint_every,
            not_finite=self.config.not_finite,
            progress=self.progress,
        )
        tested = time.perf_counter()
        scores = self.scores(model, target)
        seconds = history.seconds + time.perf_counter() - tested
        record = self.record(cell, model, target, history, priming, {**scores, "seconds": seconds})
        self.save_task(cell, model)  # before the record, which tells that the cell is done
        write_record(self.folder, record)
        remove_checkpoint(checkpoint)
        return record

    def target(self, cell: Run) -> Target:
        """A cell's data."""
        return self.builder.target(cell.target, self.config.sizes_of(cell.setting))

    def scores(self, model: PEModel, target: Target) -> dict[str, object]:
        """The record's fields that come from the test sentences."""
        gold = [list(sentence.tags) for sentence in target.test.sentences]
        predicted = predict(model, target.test, target.task.name)
        types = target.test.labels.types
        whole = entity_scores(gold, predicted, types)
        unseen = entity_scores([gold[i] for i in target.unseen], [predicted[i] for i in target.unseen], types)
        return {
            "f1": whole.f1,
            "precision": whole.precision,
            "recall": whole.recall,
            "f1_per_type": whole.f1_per_type,
            "f1_unseen": unseen.f1,
            **asdict(entity_counts(gold, predicted)),
            "unseen": target.unseen,
            "num_unseen": len(target.unseen),
            "num_test": len(gold),
            "num_truncated": target.test.num_truncated,
        }

    def record(
        self,
        cell: Run,
        model: PEModel,
        target: Target,
        history: FineTuningHistory,
        priming: PrimingHistory | None,
        measured: dict[str, object],
    ) -> Record:
        """The record of a finished cell."""
        row = self.config.settings[cell.setting]
        config = self.config.run_config(cell)
        primer = self.config.primer(cell.setting)
        algorithm = primer.priming if primer else None
        inner = algorithm.describe() if algorithm else {"inner_method": None, "inner_steps": None}
        own_method = primer.method.name if primer and inner["inner_steps"] else None
        return Record.model_validate(
            {
                **measured,
                "setting": cell.setting,
                "label": row.label or cell.setting,
                "method": row.method.name,
                "priming": algorithm.name if algorithm else None,
                "inner_method": inner["inner_method"] or own_method,
                "inner_steps": inner["inner_steps"],
                "sources": self.config.sources if algorithm else (),
                "target": cell.target,
                "seed": cell.seed,
                "validation_f1": max(history.validation_scores),
                "validation_curve": history.validation_scores,
                "steps_per_epoch": row.finetuning.steps_per_epoch(len(target.task.train)),
                "num_train": len(target.task.train),
                "best_epoch": history.best_epoch,
                "num_adapted": model.num_stored(cell.target),
                "fraction_adapted": model.fraction_stored(cell.target),
                "skipped_steps": len(history.skipped),
                "skipped_priming_steps": len(priming.skipped) if priming else 0,
                "priming_seconds": priming.seconds if priming else None,
                "gradient_sentences": algorithm.gradient_sentences(len(self.config.sources)) if algorithm else None,
                "config": config,
                "digest": config_digest(config),
                "data_digest": self.builder.data_digest(cell.target, self.config.sizes_of(cell.setting)),
                "packages": package_versions(),
                "hardware": hardware(model.device),
            }
        )
