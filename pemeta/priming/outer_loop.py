"""The outer loop of Algorithm 1: from a pretrained model to a primed one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from tqdm.auto import tqdm
from typing_extensions import Unpack

from pemeta.backbone.quantised import refuse_quantised
from pemeta.data.examples import Examples
from pemeta.errors import ConfigError, ModelError
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import MetaPriming, PrimingAlgorithm
from pemeta.priming.history import PrimingHistory
from pemeta.priming.job import PrimingJob
from pemeta.priming.validation import PrimingValidation
from pemeta.tasks.task import Task
from pemeta.training.loop import Loop, LoopOptions, check_options
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import modes_kept, only_trainable, parameter_dict, state_digest
from pemeta.utils.precision import HALF
from pemeta.utils.seeding import seeded
from pemeta.utils.signatures import checked


@checked(model=None)
def prime(
    model: PEModel,
    tasks: Sequence[Task],
    algorithm: PrimingAlgorithm | None = None,
    *,
    seed: int = 0,
    validation_tasks: Sequence[tuple[Task, Examples]] = (),
    **options: Unpack[LoopOptions],
) -> PrimingHistory:
    """Prime a model, in place, on source tasks (paper, Algorithm 1).

    Afterwards the model holds θ_p* and θ_a*, and each source task's last head. With ``algorithm.validate_every`` these
    are the values with the best validation score, in place of the last ones.

    Where torch.distributed is initialised, its processes share the tasks of each meta-batch: all call this alike, sum
    their gradients once a step, and end with the same model. It equals that of a single process up to rounding, and
    dropout under ``batch_tasks``. The first process writes the checkpoint, which all must be able to read.

    Args:
        model: On the device to prime on. Tasks without a head get one.
        tasks: The source tasks.
        algorithm: By default :class:`~pemeta.MetaPriming` with the paper's settings.
        seed: Seed of the heads, the episodes and dropout.
        validation_tasks: Tasks with the examples that score them, for ``algorithm.validate_every``: none of the source
            tasks, and none that the primed model is tested on later.
        options: Checkpoints, progress, callbacks: see :class:`~pemeta.training.loop.LoopOptions`.

    Raises:
        DataError: A task has fewer sentences than an episode needs.
        TrainingError: A loss is not finite; the step is named.
        OutputError: The checkpoint cannot be written, or belongs to another run, whose difference is named.
        ConfigError: ``not_finite`` or ``checkpoint_every`` is none of the possible values; validation tasks are
            missing, not asked for, or source tasks; ``primes`` lists what the model does not have; or processes that
            share the run have different models, data or settings.
        ModelError: A parameter that priming should move is frozen; or no gradient reaches anything of θ_p or of θ_a, or
            what a method has added, as the first step shows.
        KeyboardInterrupt: The run was interrupted, between two steps and after saving.
    """
    require_model(model, "prime")
    algorithm = algorithm or MetaPriming()
    algorithm.require()
    check_options(options)
    sampler, processes = algorithm.sampler(tasks, seed), Processes()
    validation = _validation(model, algorithm, tasks, validation_tasks, seed, processes)
    algorithm.prepare(model, seed)
    with (
        modes_kept(model),
        _heads_made(model, tasks, algorithm, seed),
        seeded(seed, "priming", device=model.device),
        only_trainable(model, _movable(model, algorithm)) as trained,
    ):
        job = PrimingJob(model, sampler, algorithm, seed, trained.values(), validation, processes)
        loop = Loop(job, model.device, options, processes=processes)
        _say(model, algorithm, trained.values(), shown=options.get("progress", True) and processes.first)
        loop.run()
    if processes.size > 1:
        processes.check_same(state_digest(model), "primed parameters")
    return job.history()


def _say(model: PEModel, algorithm: PrimingAlgorithm, trained: Iterable[nn.Parameter], shown: bool) -> None:
    """What is to be known about a run before it begins."""
    for note in (algorithm.note(model), _rounding(trained)):
        if note is not None and shown:
            tqdm.write(note, file=sys.stderr)


def _rounding(trained: Iterable[nn.Parameter]) -> str | None:
    """A note that what is primed will be rounded to half precision, if it will be."""
    half = next((parameter.dtype for parameter in trained if parameter.dtype in HALF), None)
    if half is None:
        return None
    name = str(half).removeprefix("torch.")
    return (
        f"priming moves parameters in {name}: their values are kept in float32 until it ends and rounded to {name} "
        "then, which undoes small moves; load the backbone in float32 and compute in lower precision "
        "(precision: bf16, or autocast_dtype of the model) to keep them"
    )


@contextmanager
def _heads_made(model: PEModel, tasks: Sequence[Task], algorithm: PrimingAlgorithm, seed: int) -> Iterator[None]:
    """Give each source task what it has for itself, and batches their form; afterwards a task keeps its head."""
    try:
        algorithm.make_heads(model, tasks, seed)
        with model.padded_as(algorithm.padding):
            yield
    finally:
        algorithm.release(model)


def _movable(model: PEModel, algorithm: PrimingAlgorithm) -> tuple[str, ...]:
    """Names of the parameters that the outer optimiser moves.

    Raises:
        ConfigError: ``primes`` lists what the model does not have, or nothing that ``interpolate`` has an effect on.
        ModelError: One is frozen, and would silently be moved; or quantised.
    """
    names = algorithm.trained(model)
    if algorithm.interpolate < 1 and not set(names).intersection(model.partition().theta_p):
        raise ConfigError(
            f"interpolate: {algorithm.interpolate} is between values of θ_p, but priming moves nothing of θ_p; remove "
            "interpolate, or let primes list a part of θ_p"
        )
    refuse_quantised(
        model, names, "priming moves", "set primes: [theta_a], and what else of θ_p is in floating point by name"
    )
    frozen = [name for name, one in parameter_dict(model, names).items() if not one.requires_grad]
    if frozen:
        more = f" and {len(frozen) - 3} more" if len(frozen) > 3 else ""
        raise ModelError(
            f"priming moves {', '.join(frozen[:3])}{more}, but it is frozen; call requires_grad_() on it, or list in "
            "primes only what priming should move"
        )
    return names


def _validation(
    model: PEModel,
    algorithm: PrimingAlgorithm,
    sources: Sequence[Task],
    tasks: Sequence[tuple[Task, Examples]],
    seed: int,
    processes: Processes,
) -> PrimingValidation | None:
    """Validation as the algorithm asks for it; None without.

    Raises:
        ConfigError: There are validation tasks and no ``validate_every``, or the other way round, or they do not fit.
    """
    if (algorithm.validate_every is None) != (not tasks):
        missing = "validation_tasks" if not tasks else "validate_every"
        raise ConfigError(
            f"validate_every and validation_tasks go together, but {missing} is missing; give both or none"
        )
    if not tasks:
        return None
    validation = PrimingValidation(tasks, algorithm.validation_finetuning, seed, processes)
    validation.check(sources, model)
    return validation
