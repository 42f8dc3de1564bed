"""The record of a run that has just been fine-tuned."""

from __future__ import annotations

import statistics

from pemeta.experiments.build import Builder, Target
from pemeta.experiments.config import Run
from pemeta.model.pe_model import PEModel
from pemeta.priming.history import PrimingHistory
from pemeta.reporting.records import Record
from pemeta.tasks.kinds.base import chosen
from pemeta.training.evaluation import WAYS
from pemeta.training.finetuning import FineTuningHistory
from pemeta.training.finetuning_settings import as_counted
from pemeta.utils.digests import config_digest
from pemeta.utils.provenance import hardware, package_versions


def score_target(builder: Builder, model: PEModel, target: Target) -> dict[str, object]:
    """The fields of a record that the test examples give."""
    kind, gold, test = builder.config.task, target.gold, target.tested.examples
    predicted = kind.predicted(model, target.task.name, target.tested, builder.tokenizer, WAYS)
    whole = kind.measured(test, gold, predicted)
    main, unseen = kind.scored_by[0], target.unseen
    of_unseen = kind.measured(test, [gold[i] for i in unseen], chosen(predicted, unseen)) if unseen else None
    return {
        "task": kind.name,
        "unit": kind.unit,
        "metric": main.name,
        "metric_settings": main.model_dump(mode="json", exclude_defaults=True),
        "score": whole.values[main.name],
        "scores": dict(whole.values),
        "scores_by": dict(whole.by),
        "by": f"{main.label} per {kind.part}" if whole.by else "",
        "score_unseen": None if of_unseen is None else of_unseen.values[main.name],
        "outcomes": kind.outcomes(test, gold, predicted),
        "unseen": unseen,
        "num_unseen": len(unseen),
        "num_test": len(gold),
        "num_truncated": test.num_truncated,
        "cut": kind.cut,
    }


def make_record(
    builder: Builder,
    run: Run,
    model: PEModel,
    target: Target,
    history: FineTuningHistory,
    priming: PrimingHistory | None,
    measured: dict[str, object],
) -> Record:
    """The record of a finished run.

    Args:
        builder: builder of the grid's configuration.
        run: the run.
        model: the fine-tuned model.
        target: the run's data.
        history: of its fine-tuning.
        priming: history of its priming; None without priming.
        measured: the record's scores and seconds.
    """
    grid = builder.config
    row = grid.settings[run.setting]
    config = grid.run_config(run)
    steps = as_counted(row.finetuning, model).steps_of_epochs(target.task.train, run.seed, target.task.name)
    return Record.model_validate(
        {
            **measured,
            **_priming_fields(builder, run, priming),
            "setting": run.setting,
            "label": row.label or run.setting,
            "method": row.method.name,
            "target": run.target,
            "seed": run.seed,
            "validation_metric": grid.task.validation_metric.name,
            "validation_score": grid.task.validation_value(max(history.validation_scores)),
            "validation_curve": tuple(map(grid.task.validation_value, history.validation_scores)),
            "steps_per_epoch": round(statistics.fmean(steps)),
            "num_train": len(target.task.train),
            "best_epoch": history.best_epoch,
            "num_adapted": model.num_stored(run.target),
            "fraction_adapted": model.fraction_stored(run.target),
            "skipped_steps": len(history.skipped),
            "packed": history.packed,
            "config": config,
            "digest": config_digest(config),
            "data_digest": builder.data_digest(run),
            "test_digest": builder.test_digest(run),
            "packages": package_versions(),
            "hardware": hardware(model.device),
        }
    )


def _priming_fields(builder: Builder, run: Run, priming: PrimingHistory | None) -> dict[str, object]:
    """The fields of a record about the priming before the run."""
    sources = builder.config.sources
    primer = builder.config.primer(run.setting)
    algorithm = primer.priming if primer else None
    inner = algorithm.describe() if algorithm else {"inner_method": None, "inner_steps": None}
    own_method = primer.method.name if primer and inner["inner_steps"] else None
    return {
        "priming": algorithm.name if algorithm else None,
        "inner_method": inner["inner_method"] or own_method,
        "inner_steps": inner["inner_steps"],
        "sources": sources if algorithm else (),
        "skipped_priming_steps": len(priming.skipped) if priming else 0,
        "packed_priming": priming.packed if priming else False,
        "priming_seconds": priming.seconds if priming else None,
        "gradient_sentences": algorithm.gradient_sentences(len(sources)) if algorithm else None,
    }
