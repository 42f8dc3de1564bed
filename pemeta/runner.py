"""Running a configuration: prime once, fine-tune many, and do nothing twice."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import yaml

from pemeta.about import ABOUT, TASKS, find_about, read_about, relative_base
from pemeta.backbones import Say
from pemeta.build import Target, Workshop
from pemeta.config import Cell, RunConfig
from pemeta.data.encoding import Encoded
from pemeta.data.examples import Examples
from pemeta.errors import ModelError, OutputError
from pemeta.evaluation import predict
from pemeta.files import check_writable, read_json, replaced_folder, write_json, write_text
from pemeta.finetuning import FineTuningHistory, finetune
from pemeta.metrics import entity_scores
from pemeta.model import PEModel
from pemeta.priming import PrimingHistory, prime
from pemeta.results import Record, config_digest, hardware, package_versions, read_record, slug, write_record
from pemeta.saving import describe_model, write_model
from pemeta.task_files import ABOUT_TASK
from pemeta.typing import State

SMALL_PART, FEW = 0.1, 1_000_000
"""What is kept of a task unasked: so small a part of the model, or so few parameters (4 MB)."""


class Runner:
    """One run of a configuration, in its output folder.

    The folder holds ``config.yaml`` (the resolved configuration), ``backbone/`` if one was pretrained here,
    ``primed/NAME/`` for each primed model, ``records/*.json``, one for each fine-tuning run, and
    ``models/SETTING-seedK/tasks/TARGET/`` with what that run's task stores. What is there and of the same
    configuration is not done again.

    Args:
        config: what to run.
        say: takes one line for each thing that is done.
        progress: show progress bars.

    Raises:
        ConfigError: the device cannot be used here.
    """

    def __init__(self, config: RunConfig, say: Say = print, progress: bool = True) -> None:
        self.config = config
        self.say = say
        self.progress = progress
        self.folder = Path(config.output)
        self.workshop = Workshop(config, self.folder, say, progress)
        self._described: set[Path] = set()

    def run(self) -> None:
        """Do every cell that has no record yet.

        Raises:
            OutputError: the output folder cannot be written, or a file in it cannot be read.
        """
        check_writable(self.folder)
        cells = self.config.cells
        left = [cell for cell in cells if not self.is_done(cell)]
        if len(left) < len(cells):
            self.say(f"{len(cells) - len(left)} of {len(cells)} runs are done already")
        if left:
            self.check_data(left)
        # Not before all is checked: the last good configuration stays beside its records.
        resolved = self.config.model_dump(mode="json")
        write_text(self.folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        started = time.perf_counter()
        for group in {(cell.setting, cell.seed): None for cell in left}:
            targets = [cell for cell in left if (cell.setting, cell.seed) == group]
            model, initial, priming = self.start(*group)
            for cell in targets:
                record = self.cell(cell, model, initial, priming)
                done = left.index(cell) + 1
                self.say(
                    f"[{done}/{len(left)}] {record.label} → {cell.target}, seed {cell.seed}: F1 {100 * record.f1:.1f} "
                    f"({record.seconds:.0f} s; {_left(started, done, len(left))})"
                )

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell's record is there, and of this configuration and data."""
        path = self.record_path(cell)
        if not path.exists():
            return False
        record = read_record(path)
        if record.digest != config_digest(self.config.cell_config(cell)):
            return False
        if record.data_digest != self.workshop.data_digest(cell.target):
            self.say(f"the data of {record.label} → {cell.target}, seed {cell.seed}, changed: running it again")
            return False
        label = self.config.settings[cell.setting].label or cell.setting
        if record.label != label:  # it is only a name
            write_record(self.folder, record.model_copy(update={"label": label}))
        return True

    def record_path(self, cell: Cell) -> Path:
        """Where a cell's record is, or will be."""
        return self.folder / "records" / Record.filename_of(cell.setting, cell.target, cell.seed)

    def check_data(self, cells: list[Cell]) -> None:
        """Find before the first long stage what would make a later one fail, and say what was cut from the data."""
        settings = [self.config.settings[name] for name in dict.fromkeys(cell.setting for cell in cells)]
        algorithms = [setting.priming for setting in settings if setting.priming is not None]
        for algorithm in algorithms:
            algorithm.require()
        self.say(f"device {self.workshop.device}; reading data and backbone")
        for cell in cells:
            self.workshop.data_digest(
                cell.target
            )  # reads the data: a wrong language is found before a backbone is made
        encoded: list[tuple[str, Examples]] = []
        if algorithms:
            sources = self.workshop.sources()
            encoded += [(f"{task.name} train", task.train) for task in sources]
            for algorithm in algorithms:
                algorithm.sampler(sources, self.config.seeds[0])
        for language in dict.fromkeys(cell.target for cell in cells):
            target = self.workshop.target(language)
            parts = {"train": target.task.train, "validation": target.validation, "test": target.test}
            encoded += [(f"{language} {split}", data) for split, data in parts.items()]
        for what, data in encoded:
            if isinstance(data, Encoded) and data.num_truncated:
                longest = max(map(len, data.input_ids))
                self.say(
                    f"{what}: {data.num_truncated} of {len(data)} sentences are longer than {longest} word pieces; "
                    f"{data.num_cut_words} words were cut, which count as O in scores"
                )

    def start(self, setting: str, seed: int) -> tuple[PEModel, State, PrimingHistory | None]:
        """The model that a setting's fine-tuning starts from, its values, and how it was primed."""
        priming = None
        if self.config.settings[setting].priming is None:
            model = self.workshop.model(setting, seed)
        else:
            model, priming = self.primed(setting, seed)
        model.drop_heads()
        return model, model.state(), priming

    def primed(self, setting: str, seed: int) -> tuple[PEModel, PrimingHistory]:
        """Prime a model, or load the one that an earlier run primed."""
        folder = self.primed_folder(setting, seed)
        if (folder / "priming.json").exists():
            return self.load_primed(folder, setting)
        model = self.workshop.model(setting, seed)
        algorithm = self.config.settings[setting].priming
        assert algorithm is not None  # or there would be nothing to do
        algorithm.prepare(model, seed)
        self.say(f"priming for {self.config.settings[setting].label or setting}, seed {seed}")
        checkpoint = folder / "checkpoint.safetensors"
        history = prime(
            model,
            self.workshop.sources(),
            algorithm,
            seed=seed,
            checkpoint=checkpoint,
            checkpoint_every=self.config.checkpoint_every,
            progress=self.progress,
        )
        config = self.config.priming_config(setting, seed)
        about = {"config": config, "data_digest": self.workshop.source_digest, "history": history.to_json()}
        facts = {
            "seed": seed,
            "sources": list(self.config.sources),
            "backbone": config["backbone"],
            **config["priming"],
        }
        with replaced_folder(folder) as temporary:  # the checkpoint goes with the old one
            write_model(model, temporary, describe_model(model, facts=facts), self.workshop.tokenizer)
            write_json(temporary / "priming.json", about)
        return model, history

    def primed_folder(self, setting: str, seed: int) -> Path:
        """Where a primed model is, or will be."""
        return self.folder / "primed" / self.config.primed_name(setting, seed, self.workshop.source_digest)

    def load_primed(self, folder: Path, setting: str) -> tuple[PEModel, PrimingHistory]:
        """Load a primed model that an earlier run finished."""
        about = read_json(folder / "priming.json")
        try:
            history = PrimingHistory.from_json(about["history"])
            read_about(folder)
        except (KeyError, TypeError, AttributeError, ModelError):
            raise OutputError(f"{folder} is not a primed model of this version; remove that folder") from None
        method, attention = self.config.settings[setting].method, self.config.backbone.attention
        model = PEModel.from_pretrained(folder, method, attention=attention)
        return self.workshop.set_up(model), history

    def model_folder(self, setting: str, seed: int) -> Path:
        """Where what the tasks of a setting store is, and `pemeta predict` finds it."""
        return self.folder / "models" / f"{slug(setting)}-seed{seed}"

    def save_task(self, cell: Cell, model: PEModel) -> None:
        """Keep the fine-tuned values of a cell, if the configuration asks for it or they are few."""
        wanted = self.config.save_tasks
        if wanted is None:
            wanted = model.fraction_stored(cell.target) <= SMALL_PART or model.num_stored(cell.target) <= FEW
        if wanted:
            folder = self.model_folder(cell.setting, cell.seed)
            self.describe_model_of(cell, model, folder)
            model.save_task(folder / TASKS / slug(cell.target), cell.target, self.config.max_length)

    def describe_model_of(self, cell: Cell, model: PEModel, folder: Path) -> None:
        """Write what the tasks of a setting stand on; tasks of another primed model, from before, are removed."""
        if folder in self._described:
            return
        primed = self.config.settings[cell.setting].priming is not None
        base = str(self.primed_folder(cell.setting, cell.seed)) if primed else self.workshop.backbone_location
        about = describe_model(model, relative_base(base, folder))
        try:
            there = find_about(folder) if folder.is_dir() else None  # else the hub would be asked for it
        except ModelError:
            there = None
        if there is None or there.model_copy(update={"packages": about.packages}) != about:
            with replaced_folder(folder) as temporary:
                write_json(temporary / ABOUT, about.model_dump(mode="json"))
        self._described.add(folder)

    def how_to_predict(self) -> str | None:
        """A command that uses what the run has stored; None where that is nothing."""
        for cell in self.config.cells:
            folder = self.model_folder(cell.setting, cell.seed)
            if (folder / TASKS / slug(cell.target) / ABOUT_TASK).is_file():
                return shlex.join(["pemeta", "predict", str(folder), "--task", cell.target, "some words to label"])
        return None

    def cell(self, cell: Cell, model: PEModel, initial: State, priming: PrimingHistory | None) -> Record:
        """Fine-tune, test, and write the record."""
        model.drop_heads()
        model.load_state(initial)
        started = time.perf_counter()
        target = self.workshop.target(cell.target)
        settings = self.config.settings[cell.setting].finetuning
        history = finetune(model, target.task, target.validation, settings, seed=cell.seed, progress=self.progress)
        scores = self.scores(model, target)
        seconds = time.perf_counter() - started
        record = self.record(cell, model, target, history, priming, {**scores, "seconds": seconds})
        self.save_task(cell, model)  # before the record, which tells that the cell is done
        write_record(self.folder, record)
        return record

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
            "num_unseen": len(target.unseen),
            "num_test": len(gold),
            "num_truncated": target.test.num_truncated,
        }

    def record(
        self,
        cell: Cell,
        model: PEModel,
        target: Target,
        history: FineTuningHistory,
        priming: PrimingHistory | None,
        measured: dict[str, object],
    ) -> Record:
        """The record of a finished cell."""
        row = self.config.settings[cell.setting]
        config = self.config.cell_config(cell)
        inner = row.priming.describe() if row.priming else {"inner_method": None, "inner_steps": None}
        return Record.model_validate(
            {
                **measured,
                "setting": cell.setting,
                "label": row.label or cell.setting,
                "method": row.method.name,
                "priming": row.priming.name if row.priming else None,
                "inner_method": inner["inner_method"] or (row.method.name if inner["inner_steps"] else None),
                "inner_steps": inner["inner_steps"],
                "sources": self.config.sources if row.priming else (),
                "target": cell.target,
                "seed": cell.seed,
                "validation_f1": max(history.validation_scores),
                "best_epoch": history.best_epoch,
                "num_adapted": model.num_stored(cell.target),
                "fraction_adapted": model.fraction_stored(cell.target),
                "priming_seconds": priming.seconds if priming else None,
                "config": config,
                "digest": config_digest(config),
                "data_digest": self.workshop.data_digest(cell.target),
                "packages": package_versions(),
                "hardware": hardware(model.device),
            }
        )


def _left(started: float, done: int, total: int) -> str:
    """The time that the rest will take if it goes on like this."""
    seconds = (time.perf_counter() - started) / done * (total - done)
    return (
        "done"
        if done == total
        else f"about {seconds / 60:.0f} min left"
        if seconds > 90
        else f"about {seconds:.0f} s left"
    )
