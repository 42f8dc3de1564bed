"""Models in a grid's output folder: primed models, and what the tasks fine-tuned on them store."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from pemeta.errors import ConfigError, ModelError, OutputError
from pemeta.experiments.build import Builder
from pemeta.experiments.config import Run
from pemeta.experiments.output_folder import PRIMING, OutputFolder
from pemeta.heads import HeadSpec
from pemeta.model.manifest import MANIFEST, find_manifest, read_manifest, relative_base
from pemeta.model.model_files import describe_model, write_model
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import Prompting
from pemeta.priming.history import PrimingHistory
from pemeta.utils.files import read_json, read_tensors, replaced_folder, write_json, write_tensors

SMALL_PART, FEW = 0.1, 1_000_000
"""Tasks of at most this part of the model, or of so few parameters (4 MB), are saved without being asked for."""

HEADS = "source_heads.safetensors"
"""File of a primed model's folder with the heads that its source tasks have in common, if they have any."""


class SavedModels:
    """Saves and loads the models of a grid.

    Args:
        folder: the grid's output folder.
        builder: builder of the grid's configuration.
    """

    def __init__(self, folder: OutputFolder, builder: Builder) -> None:
        self._folder = folder
        self._config = folder.config
        self._builder = builder
        self._described: set[Path] = set()

    def save_primed(self, setting: str, seed: int, model: PEModel, history: PrimingHistory) -> None:
        """Save a primed model, and how it was primed."""
        config = self._config.priming_config(setting, seed)
        about = {"config": config, "data_digest": self._builder.priming_digest(setting), "history": history.to_json()}
        facts = {
            "seed": seed,
            "sources": list(self._config.sources),
            "backbone": config["backbone"],
            **config["priming"],
        }
        with replaced_folder(self._folder.primed_path(setting, seed)) as temporary:
            write_model(model, temporary, describe_model(model, facts=facts), self._builder.tokenizer)
            self._save_heads(setting, model, temporary)
            write_json(temporary / PRIMING, about)

    def _save_heads(self, setting: str, model: PEModel, folder: Path) -> None:
        """Save the heads that source tasks have in common, once each; others are of no use to target tasks."""
        primer = self._config.primer(setting)
        if primer is None or primer.priming is None or not primer.priming.shares_heads:
            return
        owners = {model.head_prefix(task): task for task in reversed(model.tasks)}.values()
        specs = {task: model.head_spec(task).to_config() for task in owners}
        write_tensors(folder / HEADS, model.state(model.partition().theta_h), specs)

    def load_primed(self, setting: str, seed: int) -> tuple[PEModel, PrimingHistory]:
        """Load the primed model that a setting's fine-tuning starts from, with source heads if that starts from one.

        Raises:
            OutputError: the folder holds none, or one of another version, or its heads are missing or damaged.
        """
        folder = self._folder.primed_path(setting, seed)
        about = read_json(folder / PRIMING)
        try:
            history = PrimingHistory.from_json(about["history"])
            read_manifest(folder)
        except (KeyError, TypeError, AttributeError, ModelError):
            raise _not_primed(folder) from None
        row, attention = self._config.settings[setting], self._config.backbone.attention
        model = PEModel.from_pretrained(folder, row.method, attention=attention)
        if row.finetuning.head == "primed":
            _load_heads(model, folder)
        return self._builder.set_up(model), history

    def save_task(self, run: Run, model: PEModel, prompting: Prompting | None = None) -> None:
        """Save the fine-tuned values of a run, if the configuration asks for it or they are few.

        Args:
            run: the run.
            model: its model.
            prompting: how prompts of its task are made, for serving.
        """
        wanted = self._config.save_tasks
        if wanted is None:
            wanted = model.fraction_stored(run.target) <= SMALL_PART or model.num_stored(run.target) <= FEW
        if wanted:
            self._describe(run, model)
            model.save_task(self._folder.task_path(run), run.target, self._config.max_length, prompting)

    def _describe(self, run: Run, model: PEModel) -> None:
        """Write the manifest of a setting's tasks; tasks of an earlier, different primed model are removed."""
        folder = self._folder.model_path(run.setting, run.seed)
        if folder in self._described:
            return
        primed = self._config.primer(run.setting) is not None
        base = str(self._folder.primed_path(run.setting, run.seed)) if primed else self._builder.backbone_location
        about = describe_model(model, relative_base(base, folder))
        with FileLock(self._folder.path / ".models.lock"):  # another process may be saving a task of the same setting
            try:
                there = find_manifest(folder) if folder.is_dir() else None  # else the hub would be asked for it
            except ModelError:
                there = None
            if there is None or there.model_copy(update={"packages": about.packages}) != about:
                with replaced_folder(folder) as temporary:
                    write_json(temporary / MANIFEST, about.model_dump(mode="json"))
        self._described.add(folder)


def _load_heads(model: PEModel, folder: Path) -> None:
    """Give a model the heads that were saved with it, under the names of source tasks."""
    try:
        values, specs = read_tensors(folder / HEADS)
        for task, spec in specs.items():
            model.add_head(task, HeadSpec.parse(spec))
        model.load_state(values)
    except (OutputError, ConfigError, ModelError, AttributeError):
        raise OutputError(
            f"{folder / HEADS} does not hold the heads that priming has left; remove {folder} to prime again"
        ) from None


def priming_seconds(folder: Path) -> float:
    """The duration of the priming of the model in a folder.

    Raises:
        OutputError: the folder holds no primed model, or one of another version.
    """
    try:
        return float(read_json(folder / PRIMING)["history"]["seconds"])
    except (KeyError, TypeError, ValueError):
        raise _not_primed(folder) from None


def _not_primed(folder: Path) -> OutputError:
    """The error about a folder that holds no primed model that this version can load."""
    return OutputError(f"{folder} is not a primed model of this version; remove that folder")
