"""A program that compares outer gradients with the explicit unroll, in one process or in several started by torchrun.

    python gradients.py EVERY

tries every EVERY-th case, in float64:

* methods, architectures, first and second order, with and without gradient checkpointing, for the paper's algorithm;
* inner rules, outer losses, orders and sets that are primed, on BERT;
* algorithms and presets, architectures, with and without gradient checkpointing.

It prints a JSON object: the number of cases tried, the largest error by order and by whether the architecture computes
parts in float32, and the failures.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from algorithm_cases import OBJECTIVES, OTHERS, PE, RULES, SETS, SMALL, error_of_a_step
from architectures import ARCHITECTURES, untouched
from tiny_models import METHODS
from unroll import FLOAT32, meta, model_of

from pemeta import MetaPriming
from pemeta.errors import ModelError
from pemeta.methods import PEMethod
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.utils.distributed import process_group


@dataclass(frozen=True)
class Case:
    """One comparison; ``name`` identifies it in a failure."""

    name: str
    algorithm: PrimingAlgorithm
    method: PEMethod
    architecture: str = "bert"
    checkpointed: bool = False

    @property
    def order(self) -> str:
        return "first" if getattr(self.algorithm, "first_order", True) else "second"


def cases(every: int) -> Iterator[Case]:
    """All combinations that their architecture supports."""
    everything = itertools.chain(of_methods(), of_objectives(), of_algorithms())
    possible = (case for case in everything if case.method.unsupported(untouched(case.architecture)) is None)
    return itertools.islice(possible, 0, None, every)


def of_methods() -> Iterator[Case]:
    for (name, (method, _)), architecture, order, on in itertools.product(
        METHODS.items(), ARCHITECTURES, ("first", "second"), (False, True)
    ):
        yield Case(name, meta(order), method, architecture, on)


def of_objectives() -> Iterator[Case]:
    for (rule, given), (loss, objective), first_order, method in itertools.product(
        RULES.items(), OBJECTIVES.items(), (True, False), PE.values()
    ):
        algorithm = MetaPriming(**SMALL, **objective, inner_rule=given, first_order=first_order)
        yield Case(f"{rule}, {loss}", algorithm, method)
    for (primed, primes), (loss, objective), first_order, method in itertools.product(
        SETS.items(), OBJECTIVES.items(), (True, False), PE.values()
    ):
        algorithm = MetaPriming(**SMALL, **objective, **primes, first_order=first_order)
        yield Case(f"{primed}, {loss}", algorithm, method)


def of_algorithms() -> Iterator[Case]:
    for (name, (algorithm, method)), architecture, on in itertools.product(
        OTHERS.items(), ARCHITECTURES, (False, True)
    ):
        yield Case(name, algorithm, PE[method], architecture, on)


def tolerance(case: Case, model_type: str) -> float:
    """The tolerance, which is higher if the architecture computes softmax or norms in float32 (see FLOAT32).

    Its rounding shows where a gradient comes back in several parts: in second order, and with a loss at every step.
    """
    in_parts = case.order == "second" or getattr(case.algorithm, "outer_loss", "last") != "last"
    return 1e-7 if in_parts and model_type in FLOAT32 else 1e-10


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    largest: dict[str, float] = {}
    wrong, tried = [], 0
    with process_group() as processes:
        for case in cases(int(sys.argv[1])):
            model = model_of(case.method, case.architecture)
            try:
                error = error_of_a_step(case.algorithm, model, case.architecture, checkpointed=case.checkpointed)
            except ModelError as refusal:
                if not case.checkpointed or "checkpoint" not in str(refusal):
                    raise
                continue
            tried += 1
            model_type = model.backbone.config.model_type
            kind = f"{case.order} order{' through float32' if model_type in FLOAT32 else ''}"
            largest[kind] = max(largest.get(kind, 0.0), error)
            if not error <= tolerance(case, model_type):
                wrong.append([case.name, case.architecture, case.order, case.checkpointed, error])
        if processes.first:
            print(json.dumps({"tried": tried, "largest": largest, "wrong": wrong}))


if __name__ == "__main__":
    main()
