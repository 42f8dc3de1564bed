"""The keys at the top of a configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pemeta.backbone.output_kinds import OutputKind
from pemeta.data.sources import DataSource
from pemeta.experiments.config_types import AnyBackbone, AnyData, AnyKind, Output, Tracker
from pemeta.experiments.setting import Name, Search, Setting, Sizes
from pemeta.reporting.spec import ReportSpec
from pemeta.tasks.kinds import TaskKind, TokenClassificationTasks
from pemeta.training.optimizer import NotFinite
from pemeta.utils.neutral import Neutral
from pemeta.utils.registry import Frozen


class GridKeys(Frozen):
    """A grid of settings × targets × seeds on one backbone, as a configuration describes it.

    Attributes:
        output: folder for everything that is written.
        backbone: the pretrained encoder.
        data: where the tasks' examples are.
        targets: tasks to fine-tune on.
        settings: rows of the table, in their order.
        task: the kind of the tasks.
        sources: tasks to prime on.
        source_task: the kind of the sources; that of the targets where null.
        source_tasks: kinds of single sources, by name, that are of another kind than the other sources are: such as
            ``{wiki: masked_language_model}``, text without labels to prime on beside them, against forgetting.
        source_data: where the sources' examples are; where the targets' are where null.
        seeds: every setting is run on every target once per seed.
        max_length: tokens per example, special tokens included; where null 128, our choice, or the model's limit if
            that is less.
        source_sizes: limits on the sources' data.
        target_sizes: limits on the targets' data.
        search: how values are chosen where a setting has a search.
        scored_on: the split that is scored, ``test`` or ``validation``.
        report: tables, comparisons and figures of the report; by default one table of all scores.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        deterministic: use operations that have equal results each time, or end with an error where there are none: on
            a GPU the same run is then the same to the bit. Slower; off, our choice.
        precision: ``fp32``, or ``bf16`` or ``fp16`` to compute in lower precision where PyTorch's autocast considers
            it safe; parameters keep their own. With ``fp16``, losses are scaled. ``tf32``: matrix products in TF32,
            which NVIDIA's GPUs from Ampere on have.
        checkpoint_layers: gradient checkpointing: keep only the input of each layer for the backward pass, which then
            runs the layer again. Less memory, more time, the same results; off, our choice.
        checkpoint_every: steps of priming's outer loop, or of fine-tuning, between checkpoints; 100, our choice.
        not_finite: ``stop`` a run whose loss or gradient is not finite, our choice, or ``skip`` that step and count it
            in the record; ten in a row end the run.
        save_tasks: save each run's fine-tuned values in ``models/``; where null, if they are at most a tenth of the
            model's parameters or a million, our choice: full fine-tuning would fill disks.
        streaming: keep examples and their tokens in files of the cache, mapped into memory, for data that does not fit
            there; the results are the same. Off, our choice: small data is read faster from memory.
        validation_tasks: tasks that priming with ``validate_every`` is validated on, which are like the targets, with
            their train and validation data within ``source_sizes``; none of the sources and targets.
        trackers: experiment trackers that every run is recorded in: ``tensorboard`` (in OUTPUT/tensorboard), ``wandb``,
            ``mlflow``, ``trackio``; none, our choice.
        threads: CPU threads of PyTorch's operations; PyTorch's own choice where null. Tiny models are fastest with
            one.
    """

    output: Output
    backbone: AnyBackbone
    data: AnyData
    targets: tuple[Name, ...] = Field(min_length=1)
    settings: dict[Name, Setting] = Field(min_length=1)
    task: Annotated[AnyKind, Neutral("token_classification")] = TokenClassificationTasks()
    sources: tuple[Name, ...] = ()
    source_task: Annotated[AnyKind | None, Neutral(None)] = None
    source_tasks: Annotated[dict[Name, AnyKind], Neutral({})] = Field(default_factory=dict)
    source_data: Annotated[AnyData | None, Neutral(None)] = None
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    max_length: int | None = Field(None, ge=3)
    source_sizes: Sizes = Sizes()
    target_sizes: Sizes = Sizes()
    device: str = "auto"
    threads: int | None = Field(None, gt=0, le=4096)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    deterministic: bool = False
    checkpoint_layers: bool = False
    checkpoint_every: int = Field(100, gt=0)
    not_finite: NotFinite = "stop"
    save_tasks: bool | None = None
    streaming: bool = False
    search: Search = Search()
    scored_on: Literal["test", "validation"] = "test"
    report: ReportSpec = ReportSpec()
    validation_tasks: Annotated[tuple[Name, ...], Neutral(())] = ()
    trackers: tuple[Tracker, ...] = ()

    def kind_of_source(self, name: str) -> TaskKind[Any]:
        """The kind of a source."""
        return self.source_tasks.get(name, self.source_task or self.task)

    @property
    def kinds(self) -> dict[str, TaskKind[Any]]:
        """The kinds of all tasks, by the key that gives them."""
        others = {f"source_tasks.{name}": kind for name, kind in self.source_tasks.items()}
        return {"task": self.task, "source_task": self.source_task or self.task, **others}

    @property
    def data_of_sources(self) -> DataSource:
        """Where the sources' examples are."""
        return self.source_data or self.data

    @property
    def language_model(self) -> OutputKind | None:
        """The kind of language model that the backbone is loaded as; None if no task uses its output map."""
        return next((kind.output for kind in self.kinds.values() if kind.output is not None), None)

    @property
    def text_tasks(self) -> tuple[str, ...]:
        """Sources and targets, which are the tasks that a backbone is for if it is pretrained here."""
        return tuple(dict.fromkeys((*self.sources, *self.targets)))

    def sizes_of(self, setting: str) -> Sizes:
        """The limits on the targets' data for a setting."""
        return self.settings[setting].target_sizes or self.target_sizes

    def primer(self, setting: str) -> Setting | None:
        """The setting whose priming a setting starts from, which may be its own; None without any."""
        row = self.settings[setting]
        if row.primed_as is not None:
            return self.settings[row.primed_as]
        return row if row.priming is not None else None

    def priming_seed(self, setting: str, seed: int) -> int:
        """The seed of the priming that a run starts from, whose own seed is given."""
        primer = self.primer(setting)
        return seed if primer is None or primer.priming_seed is None else primer.priming_seed

    def validates(self, setting: str) -> bool:
        """Whether the priming that a setting starts from is validated, and so depends on the validation tasks."""
        primer = self.primer(setting)
        return primer is not None and primer.validates
