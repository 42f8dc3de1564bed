"""The configuration of a grid: frozen pydantic models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.data.metrics import Scoring
from pemeta.errors import unknown_name
from pemeta.experiments.config_defaults import DEFAULTED, with_defaults
from pemeta.experiments.config_types import AnyBackbone, AnyData, Output, Tracker
from pemeta.experiments.setting import Name, Search, Setting, Sizes, candidate_name
from pemeta.reporting.spec import ReportSpec
from pemeta.training.optimizer import NotFinite
from pemeta.utils.digests import config_digest
from pemeta.utils.neutral import Neutral, without_neutral
from pemeta.utils.registry import Frozen

WITHOUT_EFFECT = (
    "output",
    "device",
    "deterministic",
    "threads",
    "checkpoint_layers",
    "checkpoint_every",
    "not_finite",
    "save_tasks",
    "streaming",
    "search",
    "report",
    "trackers",
)
"""Top-level keys that no result depends on; every other key is part of the digests."""
OF_A_RUN = ("targets", "settings", "seeds", "target_sizes")
"""Top-level keys that a run's digest replaces with the run's own part of them."""
AFTER_PRIMING = ("scored_on",)
"""Top-level keys that records depend on, but primed models do not."""


class Run(NamedTuple):
    """One fine-tuning run of a grid."""

    setting: str
    target: str
    seed: int


class GridConfig(Frozen):
    """A grid of settings × targets × seeds on one backbone and one collection of data.

    The top-level keys ``priming`` and ``finetuning`` hold defaults for those of the settings, and are merged
    into them when a configuration is read.

    Attributes:
        output: folder for everything that is written.
        backbone: the pretrained encoder.
        data: the source of the sentences.
        targets: languages to fine-tune on.
        settings: rows of the table, in their order.
        sources: languages to prime on.
        seeds: every setting is run on every target once per seed.
        max_length: tokens per sentence, special tokens included; where null 128, our choice, or the model's limit if
            that is less.
        source_sizes: limits on the source languages' data.
        target_sizes: limits on the target languages' data.
        search: how values are chosen where a setting has a search.
        scored_on: the split that is scored, ``test`` or ``validation``.
        scoring: ``conlleval``: a predicted ``I-X`` that goes on with no entity begins one; ``strict``: it is none.
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
        streaming: keep sentences and their tokens in files of the cache, mapped into memory, for data that does not fit
            there; the results are the same. Off, our choice: small data is read faster from memory.
        validation_tasks: languages that priming with ``validate_every`` is validated on, with their train and
            validation data within ``source_sizes``; none of the sources and targets.
        trackers: experiment trackers that every run is recorded in: ``tensorboard`` (in OUTPUT/tensorboard), ``wandb``,
            ``mlflow``, ``trackio``; none, our choice.
        threads: CPU threads of PyTorch's operations; PyTorch's own choice where null. Tiny models are fastest with
            one.
    """

    other_keys: ClassVar[tuple[str, ...]] = DEFAULTED

    output: Output
    backbone: AnyBackbone
    data: AnyData
    targets: tuple[Name, ...] = Field(min_length=1)
    settings: dict[Name, Setting] = Field(min_length=1)
    sources: tuple[Name, ...] = ()
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
    scoring: Annotated[Scoring, Neutral("conlleval")] = "conlleval"
    report: ReportSpec = ReportSpec()
    validation_tasks: Annotated[tuple[Name, ...], Neutral(())] = ()
    trackers: tuple[Tracker, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return with_defaults(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lists = [("targets", self.targets), ("sources", self.sources), ("seeds", self.seeds)]
        lists += [("validation_tasks", self.validation_tasks), ("trackers", self.trackers)]
        lists += [("search.seeds", self.search.seeds), ("search.targets", self.search.targets or ())]
        for name, setting in self.settings.items():
            lists += [(f"settings.{name}.{key}", getattr(setting, key) or ()) for key in ("targets", "seeds")]
        for what, values in lists:
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: duplicate value in {list(values)}; remove one")
        for name, setting in self.settings.items():
            self._check_primer(name, setting)
        primed = [name for name, setting in self.settings.items() if setting.priming is not None]
        if primed and not self.sources:
            raise ValueError(f"setting {primed[0]!r} primes the model, but sources is empty; add sources: [...]")
        for name, setting in self.settings.items():
            self._check_parts(name, setting)
            self._check_search(name, setting)
        searches = any(setting.candidates for setting in self.settings.values())
        if searches and (both := set(self.seeds) & set(self.search.seeds)):
            raise ValueError(f"search.seeds: {min(both)} is also one of the grid's seeds; search with other seeds")
        self._check_validation_tasks()
        tasks = (*self.sources, *self.targets, *self.validation_tasks, *(self.search.targets or ()))
        self.data.check_tasks(tuple(dict.fromkeys(tasks)))
        self._check_report()
        return self

    def _check_validation_tasks(self) -> None:
        taken = {"sources": self.sources, "targets": self.targets, "search.targets": self.search.targets or ()}
        for key, others in taken.items():
            if both := sorted(set(self.validation_tasks) & set(others)):
                raise ValueError(f"validation_tasks: {both[0]!r} is one of the {key} too; validate on other languages")
        validated = [
            name
            for name, setting in self.settings.items()
            if any(map(_validates, [setting, *map(setting.having, setting.candidates)]))
        ]
        if validated and not self.validation_tasks:
            raise ValueError(f"setting {validated[0]!r} has validate_every; add validation_tasks: [...]")
        if self.validation_tasks and not validated:
            raise ValueError("validation_tasks: no setting's priming has validate_every; add it, or remove this key")

    def _check_parts(self, name: str, setting: Setting) -> None:
        for key, whole in (("targets", self.targets), ("seeds", self.seeds)):
            for value in getattr(setting, key) or ():
                if value not in whole:
                    there = f"{value!r} is not one of the grid's {key}, {list(whole)}"
                    raise ValueError(f"settings.{name}.{key}: {there}; add it to {key}, or remove it here")

    def _check_primer(self, name: str, setting: Setting) -> None:
        if setting.primed_as is None:
            return
        if setting.primed_as not in self.settings:
            unknown = unknown_name("setting", setting.primed_as, self.settings)
            raise ValueError(f"settings.{name}.primed_as: {unknown}")
        if self.settings[setting.primed_as].priming is None:
            raise ValueError(f"settings.{name}.primed_as: setting {setting.primed_as!r} has no priming of its own")

    def _check_search(self, name: str, setting: Setting) -> None:
        values: dict[str, Any] = {}
        for chooser in setting.chosen_by:
            other = self.settings.get(chooser)
            if other is None:
                raise ValueError(f"settings.{name}.search: {unknown_name('setting', chooser, self.settings)}")
            if not other.candidates:
                raise ValueError(f"settings.{name}.search: setting {chooser!r} has no candidates of its own")
            values |= other.candidates[0]
        for candidate in [values, *setting.candidates]:
            setting.having(candidate).check_head(name, self.settings)

    def _check_report(self) -> None:
        for what, named, known in (
            ("setting", self.report.settings_named(), self.settings),
            ("target", self.report.targets_named(), self.targets),
        ):
            for name in sorted(named - set(known)):
                raise ValueError(f"report: {unknown_name(what, name, known)}")

    @property
    def runs(self) -> list[Run]:
        """Every fine-tuning run; runs that share a primed model follow each other."""
        return [
            Run(name, target, seed)
            for seed in self.seeds
            for name, setting in self.settings.items()
            if seed in (setting.seeds or self.seeds)
            for target in self.targets
            if target in (setting.targets or self.targets)
        ]

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

    def validates(self, setting: str) -> bool:
        """Whether the priming that a setting starts from is validated, and so depends on the validation tasks."""
        return _validates(self.primer(setting))

    @property
    def to_search(self) -> GridConfig | None:
        """The grid that tries all candidates, in a folder within the output; None without a search."""
        settings = {}
        for name, setting in self.settings.items():
            for values in setting.candidates:
                sizes = setting.target_sizes if self.search.target_sizes is None else None
                own = {"search": None, "targets": None, "seeds": None, "target_sizes": sizes}
                label = candidate_name(setting.label or name, values)
                candidate = setting.having(values).model_copy(update={**own, "label": label})
                settings[candidate_name(name, values)] = candidate
        if not settings:
            return None
        return self.model_copy(
            update={
                "output": self.output / "search",
                "settings": settings,
                "targets": self.search.targets or self.targets,
                "seeds": self.search.seeds,
                "target_sizes": self.search.target_sizes or self.target_sizes,
                "scored_on": "validation",
                "save_tasks": False,
                "report": ReportSpec(),
            }
        )

    def chosen(self, choices: Mapping[str, Mapping[str, Any]]) -> GridConfig:
        """The configuration with chosen values, by setting; settings that lack a choice are omitted."""
        settings = {}
        for name, setting in self.settings.items():
            choosers = (*([name] if setting.candidates else []), *setting.chosen_by)
            if all(chooser in choices for chooser in choosers):
                values = {key: value for chooser in choosers for key, value in choices[chooser].items()}
                settings[name] = setting.having(values).model_copy(update={"search": None})
        possible = {name: row for name, row in settings.items() if row.primed_as is None or row.primed_as in settings}
        return self.model_copy(update={"settings": possible})

    def priming_config(self, setting: str, seed: int) -> dict[str, Any]:
        """Everything that a setting's primed model depends on, without keys at their neutral value."""
        primer = self.primer(setting)
        assert primer is not None  # or there would be no primed model
        own = _part(primer, "method", "priming")
        unseen = () if _validates(primer) else ("scoring",)
        return {**self._shared(primer, *AFTER_PRIMING, *unseen), **own, "seed": seed}

    def run_config(self, run: Run) -> dict[str, Any]:
        """Everything that a run's record depends on, without keys at their neutral value.

        The record holds it beside its digest. So a key that is absent in a record has its neutral value, and records
        from before the key existed compare equal to those from after. ``config.yaml`` holds all keys.
        """
        row, primer = self.settings[run.setting], self.primer(run.setting)
        own = _part(row, "method", "priming", "finetuning")
        if primer is not None and primer is not row:
            other = _part(primer, "method", "priming")
            own |= {"priming": other["priming"], "primed_method": other["method"]}
        # The sources count without priming too: test sentences that they repeat are not scored as unseen.
        shared = self._shared(primer)
        shared["target_sizes"] = without_neutral(self.sizes_of(run.setting))
        return {"setting": run.setting, **own, **shared, "target": run.target, "seed": run.seed}

    def _shared(self, primer: Setting | None, *omitted: str) -> dict[str, Any]:
        """What the results of all runs depend on, and the validation tasks only of those whose priming sees them."""
        unseen = () if _validates(primer) else ("validation_tasks",)
        return without_neutral(self, (*WITHOUT_EFFECT, *OF_A_RUN, *omitted, *unseen))

    def run_digest(self, run: Run) -> str:
        """The digest of :meth:`run_config`: equal exactly for runs whose results depend on equal configurations."""
        return config_digest(self.run_config(run))

    def primed_name(self, setting: str, seed: int, data_digest: str = "") -> str:
        """The folder name of a primed model; settings that are primed alike, on the same data, share it."""
        config = self.priming_config(setting, seed)
        return f"{config['priming']['name']}-seed{seed}-{config_digest([config, data_digest])}"


def _validates(primer: Setting | None) -> bool:
    """Whether a setting's priming is validated."""
    return primer is not None and primer.priming is not None and primer.priming.validate_every is not None


def _part(setting: Setting, *keys: str) -> dict[str, Any]:
    """Some keys of a setting, without those at their neutral value."""
    return without_neutral(setting, set(type(setting).model_fields) - set(keys))
