"""The configuration of a grid: frozen pydantic models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from pydantic import model_validator
from typing_extensions import Self

from pemeta.experiments.config_checks import check
from pemeta.experiments.config_defaults import MOVED, with_defaults
from pemeta.experiments.config_keys import GridKeys
from pemeta.experiments.setting import Setting, candidate_name
from pemeta.reporting.spec import ReportSpec
from pemeta.tasks.kinds import TaskKind
from pemeta.utils.digests import config_digest
from pemeta.utils.neutral import without_neutral

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


AS_BEFORE = "token_classification"
"""The kind of all tasks before there were others; it is the neutral value of ``task``."""


class Run(NamedTuple):
    """One fine-tuning run of a grid."""

    setting: str
    target: str
    seed: int


class GridConfig(GridKeys):
    """A grid of settings × targets × seeds on one backbone.

    The top-level keys ``priming`` and ``finetuning`` hold defaults for those of the settings, and are merged
    into them when a configuration is read.
    """

    other_keys: ClassVar[tuple[str, ...]] = MOVED

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return with_defaults(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check(self)
        return self

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
        shared = self._shared(primer, primer.validates, *AFTER_PRIMING)
        return {**shared, **own, "seed": self.priming_seed(setting, seed)}

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
        if primer is not None and (fixed := self.priming_seed(run.setting, run.seed)) != run.seed:
            own["priming_seed"] = fixed
        # The sources count without priming too: test examples that they repeat are not scored as unseen.
        shared = self._shared(primer, True)
        shared["target_sizes"] = without_neutral(self.sizes_of(run.setting))
        return {"setting": run.setting, **own, **shared, "target": run.target, "seed": run.seed}

    def _shared(self, primer: Setting | None, scored: bool, *omitted: str) -> dict[str, Any]:
        """What the results of all runs depend on, and the validation tasks only of those whose priming sees them.

        Args:
            primer: the setting whose priming a run starts from.
            scored: whether that is also what scores depend on.
            omitted: keys that are omitted.
        """
        unseen = () if primer is not None and primer.validates else ("validation_tasks",)
        shared = without_neutral(self, (*WITHOUT_EFFECT, *OF_A_RUN, *omitted, *unseen))
        for key, kind in (("task", self.task), ("source_task", self.source_task)):
            if kind is not None and key in shared:
                shared |= _of_kind(key, kind, shared.pop(key), scored)
        if own := shared.get("source_tasks"):
            for name, kind in self.source_tasks.items():
                own |= _of_kind(name, kind, own.pop(name), scored)
        return shared

    def run_digest(self, run: Run) -> str:
        """The digest of :meth:`run_config`: equal exactly for runs whose results depend on equal configurations."""
        return config_digest(self.run_config(run))

    def primed_name(self, setting: str, seed: int, data_digest: str = "") -> str:
        """The folder name of a primed model; settings that are primed alike, on the same data, share it."""
        config = self.priming_config(setting, seed)
        return f"{config['priming']['name']}-seed{config['seed']}-{config_digest([config, data_digest])}"


def _of_kind(key: str, kind: TaskKind[Any], described: Mapping[str, Any], scored: bool) -> dict[str, Any]:
    """A kind of task within a digest: keys that were once at the top of configurations still are."""
    own = {name: value for name, value in described.items() if scored or name not in kind.scores_only}
    if key != "task":
        return {key: own}
    top = {name: own.pop(name) for name in kind.at_the_top if name in own}
    return {**top, **({} if own == {"name": AS_BEFORE} else {key: own})}


def _part(setting: Setting, *keys: str) -> dict[str, Any]:
    """Some keys of a setting, without those at their neutral value."""
    return without_neutral(setting, set(type(setting).model_fields) - set(keys))
