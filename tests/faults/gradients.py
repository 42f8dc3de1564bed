"""A program that compares meta-gradients with the explicit unroll, in one process or in several started by torchrun.

    python gradients.py EVERY

tries every EVERY-th case: methods, architectures, first and second order, with and without gradient checkpointing, in
float64. It prints a JSON object: the number of cases tried, the largest error by order and by whether the architecture
computes parts in float32, and the failures.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import warnings
from collections.abc import Iterator

import torch
from architectures import ARCHITECTURES, backbone
from tiny_models import METHODS
from unroll import FLOAT32, episodes, meta, model_of, unrolled

from pemeta import PEModel
from pemeta.errors import ModelError
from pemeta.priming.algorithms import MetaPriming
from pemeta.priming.outer_loop import PrimingJob
from pemeta.utils.distributed import Processes, process_group
from pemeta.utils.modules import only_trainable

ORDERS = ("first", "second")
Case = tuple[str, str, str, bool]


def cases(every: int) -> Iterator[Case]:
    """All combinations of method, architecture, order and checkpointing that the architecture supports."""
    possible = [(m, a) for m in METHODS for a in ARCHITECTURES if METHODS[m][0].unsupported(backbone(a)) is None]
    everything = ((m, a, order, on) for (m, a), order, on in itertools.product(possible, ORDERS, (False, True)))
    return itertools.islice(everything, 0, None, every)


def largest_error(model: PEModel, algorithm: MetaPriming, plain: PEModel, architecture: str) -> float:
    """The largest error of a priming step against the unroll, over gradients and adapted heads."""
    drawn = episodes(architecture)
    with only_trainable(model, algorithm.trained(model)) as trained:
        job = PrimingJob(model, None, algorithm, 0, trained.values(), None, Processes())  # type: ignore[arg-type]
        job.meta_gradient(drawn)
        gradients = {name: parameter.grad for name, parameter in trained.items()}
    expected, heads = unrolled(plain, algorithm, drawn)
    errors = [0.0]
    for name, value in expected.items():
        found = gradients[name]
        zero = torch.zeros_like(model.get_parameter(name))
        errors.append(float(((zero if found is None else found) - (zero if value is None else value)).abs().max()))
    errors += [float((model.get_parameter(name).detach() - value).abs().max()) for name, value in heads.items()]
    moved = sum(float(value.abs().sum()) for value in expected.values() if value is not None)
    return max(errors) if moved > 1e-6 else float("inf")  # otherwise zeros would be compared with zeros


def tolerance(order: str, model_type: str) -> float:
    """The tolerance, which is higher if the architecture computes softmax or norms in float32 (see test_fast_paths)."""
    return 1e-7 if order == "second" and model_type in FLOAT32 else 1e-10


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    largest: dict[str, float] = {}
    wrong, tried = [], 0
    with process_group() as processes:
        for method, architecture, order, on in cases(int(sys.argv[1])):
            model = model_of(METHODS[method][0], architecture)
            plain = copy.deepcopy(model)
            if on:
                try:
                    model.checkpoint_layers()
                except ModelError:
                    continue
            error = largest_error(model, meta(order), plain, architecture)
            tried += 1
            model_type = model.backbone.config.model_type
            kind = f"{order} order{' through float32' if model_type in FLOAT32 else ''}"
            largest[kind] = max(largest.get(kind, 0.0), error)
            if not error <= tolerance(order, model_type):
                wrong.append([method, architecture, order, on, error])
        if processes.first:
            print(json.dumps({"tried": tried, "largest": largest, "wrong": wrong}))


if __name__ == "__main__":
    main()
