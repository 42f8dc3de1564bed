"""What each of several processes does in the tests of them: started by torchrun, with a folder for what comes out.

Without a launcher it is the single process that they are compared with.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_models import METHODS, TASKS, data, shaken, tiny
from torch import nn

from pemeta import (
    Adapter,
    FineTunePriming,
    FineTuning,
    Full,
    MetaPriming,
    PEModel,
    PersistentPriming,
    PrimingAlgorithm,
    ReptilePriming,
    Task,
    prime,
)
from pemeta.errors import ModelError, PemetaError
from pemeta.experiments.config_file import load_config
from pemeta.experiments.runner import Runner
from pemeta.training import finetuning
from pemeta.training.callbacks import Callback
from pemeta.training.optimizer import LossScale
from pemeta.utils.distributed import Processes, process_group, raised_by_all
from pemeta.utils.files import write_json, write_tensors

SOURCES = [*TASKS, Task.token_classification("de", data(2))]  # three: one process has more than the other
STEPS = {"outer_steps": 8, "outer_lr": 1e-3, "support_size": 3, "query_size": 3}
FEW = STEPS | {"outer_steps": 4}
# Three again, which one process fine-tunes on two of.
VALIDATION = [(Task.token_classification(f"v{seed}", data(seed)), data(seed + 1)) for seed in (8, 10, 12)]
VALIDATED = MetaPriming(**FEW, validate_every=1, validation_finetuning=FineTuning(epochs=2, batch_size=5, lr=0.05))
EVERYTHING = ("theta_p", "theta_a", "theta_h")
CASES = {
    **{f"meta {name}": (method, MetaPriming(**STEPS)) for name, (method, _) in METHODS.items()},
    **{
        f"second order {name}": (METHODS[name][0], MetaPriming(**FEW, first_order=False))
        for name in ("adapter", "lora")
    },
    "fine-tuning": (METHODS["adapter"][0], FineTunePriming(**STEPS)),
    "fine-tuning of biases": (METHODS["bitfit"][0], FineTunePriming(**FEW)),
    "maml": (METHODS["adapter"][0], MetaPriming(**FEW, inner_method=Full(), inner_lr=1e-3)),
    "one task": (METHODS["adapter"][0], MetaPriming(**STEPS, tasks_per_batch=1)),  # a process without any
    "fresh heads": (METHODS["adapter"][0], MetaPriming(**FEW, source_heads="fresh")),
    "fresh support": (METHODS["adapter"][0], MetaPriming(**FEW, fresh_support=True, inner_steps=3)),
    "validated": (METHODS["adapter"][0], VALIDATED),
    "inner dropout": (METHODS["lora"][0], MetaPriming(**FEW, inner_dropout=True)),
    "rows of sentences": (METHODS["lora"][0], MetaPriming(**FEW, inner_dropout=True, padding="packed")),
    "every loss": (METHODS["lora"][0], MetaPriming(**FEW, outer_loss="annealed", sentences="both", first_order=False)),
    "inner adam": (METHODS["lora"][0], MetaPriming(**FEW, inner_rule={"name": "adam", "moments": "outer"})),
    "hybrid": (METHODS["adapter"][0], MetaPriming(**FEW, hybrid=0.5)),
    "anil": (METHODS["adapter"][0], PrimingAlgorithm.parse({"name": "anil", **FEW})),
    "a shared head": (METHODS["lora"][0], MetaPriming(**FEW, primes=EVERYTHING, source_heads="shared")),
    "θ_a alone": (METHODS["lora"][0], MetaPriming(**FEW, primes=("theta_a",))),
    "reptile": (METHODS["lora"][0], ReptilePriming(**FEW | {"query_size": 0})),
    "persistent": (METHODS["lora"][0], PersistentPriming(**FEW, start="mean")),
    "persistent, one task": (METHODS["adapter"][0], PersistentPriming(**FEW, start="mean", tasks_per_batch=1)),
    "interpolated": (METHODS["lora"][0], FineTunePriming(**FEW, interpolate=0.5)),
}


def primed(method, algorithm, folder: Path, **options) -> tuple[PEModel, list[float]]:
    model = shaken(tiny(method))
    validation = VALIDATION if algorithm.validate_every else ()
    history = prime(model, SOURCES, algorithm, seed=3, progress=False, validation_tasks=validation, **options)
    scores = [score for _, score in history.validation_scores]
    return model, [*(step.outer for step in history.losses), *scores]


def cases(folder: Path, first: bool) -> None:
    """Every case's parameters and losses, of the first process."""
    for name, (method, algorithm) in CASES.items():
        model, losses = primed(method, algorithm, folder)
        if first:
            write_tensors(folder / f"{name}.safetensors", model.state(), losses)


def halves(folder: Path, first: bool) -> None:
    """A run that goes on from its checkpoint in the middle."""
    path, method = folder / "checkpoint.safetensors", METHODS["adapter"][0]
    whole, _ = primed(method, MetaPriming(**STEPS), folder, checkpoint=path, checkpoint_every=5)
    again, _ = primed(method, MetaPriming(**STEPS), folder, checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def scaled(folder: Path, first: bool) -> None:
    """A loss that is not finite in one process only is so for all: the scale is lowered, the step is taken again."""
    original = MetaPriming.accumulate
    scales = []

    def accumulate(self, model, episodes, step=None):
        scales.append(step.loss_scale)
        losses = original(self, model, episodes, step)
        if step.loss_scale > 1 and not first:
            model.backbone.embeddings.word_embeddings.weight.grad[0, 0] = torch.inf
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossScale, "suited_to", lambda dtype: LossScale(4.0))
        patch.setattr(MetaPriming, "accumulate", accumulate)
        model, _ = primed(METHODS["adapter"][0], MetaPriming(**FEW), folder)
    assert scales == [4, 2, 1, 1, 1, 1], scales
    if first:
        write_tensors(folder / "scaled.safetensors", model.state())


class Apart(Adapter):
    """Takes the backbone's output out of the graph."""

    def transform(self, backbone, hidden):
        return super().transform(backbone, hidden.detach())


def unreached(folder: Path, first: bool) -> None:
    """Parameters that no gradient reaches: both processes keep them, or end if that is all of θ_p."""
    with pytest.raises(ModelError, match="θ_p without a gradient"):
        prime(tiny(Apart(bottleneck=4)), SOURCES, MetaPriming(**FEW), progress=False)
    model = tiny(METHODS["bitfit"][0])
    model.backbone.register_parameter("pooled_bias", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    prime(model, SOURCES, MetaPriming(**FEW), seed=3, progress=False)
    if first:
        write_tensors(folder / "unreached.safetensors", model.state())


def requests(folder: Path, first: bool) -> None:
    """A checkpoint and a stop that a callback requests in one process only: both processes save and stop."""
    events = []

    class Callbacks(Callback):
        def on_step(self, state):
            if not first and state.step == 2:
                state.request_checkpoint()
            if not first and state.step == 3:
                state.request_stop("enough")

        def on_checkpoint(self, state):
            events.append(("checkpoint", state.step))

        def on_end(self, state):
            events.append((state.outcome, state.step))

    path = folder / "requests.safetensors"
    _, losses = primed(METHODS["adapter"][0], MetaPriming(**FEW), folder, checkpoint=path, callbacks=[Callbacks()])
    assert len(losses) == 3
    assert events == [("checkpoint", 2), ("stopped early", 3)], events


def interrupted(folder: Path, first: bool) -> None:
    """An interrupt of one process, within the validation's fine-tuning: both save and stop, and go on later."""
    original, path = finetuning.evaluate, folder / "interrupted.safetensors"

    def evaluate(*arguments):
        if not first:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    finetuning.evaluate = evaluate
    with pytest.raises(KeyboardInterrupt, match="priming stopped after step 1 of 4"):
        primed(METHODS["adapter"][0], VALIDATED, folder, checkpoint=path)
    finetuning.evaluate = original
    again, found = primed(METHODS["adapter"][0], VALIDATED, folder, checkpoint=path)
    whole, expected = primed(METHODS["adapter"][0], VALIDATED, folder)
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def failing(folder: Path, first: bool) -> None:
    """An error of a callback in one process: both end with it, and every callback sees the end."""

    class Fails(Callback):
        def on_step(self, state):
            if not first:
                raise RuntimeError("out of paper")

        def on_end(self, state):
            write_json(folder / f"end-{int(first)}.json", state.outcome)

    try:
        prime(tiny(), SOURCES, MetaPriming(**FEW), progress=False, callbacks=[Fails()])
    except Exception as error:
        write_json(folder / f"failing-{int(first)}.json", f"{type(error).__name__}: {error}")
        assert (folder / f"end-{int(first)}.json").exists()
        raise


def failing_at_the_end(folder: Path, first: bool) -> None:
    """An error of a callback in one process, at the end of a run that has done its work: it counts for both."""

    class Fails(Callback):
        def on_end(self, state):
            if not first:
                raise RuntimeError("out of paper")

    with pytest.raises((RuntimeError, PemetaError), match="out of paper") as raised:
        prime(tiny(), SOURCES, MetaPriming(**FEW), progress=False, callbacks=[Fails()])
    assert raised_by_all(raised.value)


def different(folder: Path, first: bool) -> None:
    """Processes that were started with different seeds."""
    try:
        prime(tiny(), SOURCES, MetaPriming(**FEW), seed=int(first), progress=False)
    except PemetaError as error:
        write_json(folder / f"different-{int(first)}.json", str(error))
        raise


def broken(folder: Path, first: bool) -> None:
    """An error in one process, of a library's."""
    original = MetaPriming.accumulate

    def accumulate(self, model, episodes, step=None):
        if not first:
            raise MemoryError("there is none left")
        return original(self, model, episodes, step)

    MetaPriming.accumulate = accumulate
    try:
        prime(tiny(), SOURCES, MetaPriming(**FEW), progress=False)
    except Exception as error:
        write_json(folder / f"broken-{int(first)}.json", f"{type(error).__name__}: {error}")
        raise
    finally:
        MetaPriming.accumulate = original


def wrong(folder: Path, first: bool) -> None:
    """Each of the errors above, of which both processes have to hear."""
    for step in (different, broken, failing):
        with suppress(Exception):
            step(folder, first)


def dying(folder: Path, first: bool) -> None:
    """A process that is killed in the middle of a step."""
    original = MetaPriming.accumulate

    def accumulate(self, model, episodes, step=None):
        if not first:
            os.kill(os.getpid(), 9)
        return original(self, model, episodes, step)

    MetaPriming.accumulate = accumulate
    prime(tiny(), SOURCES, MetaPriming(**FEW), progress=False)


def stuck(folder: Path, first: bool) -> None:
    """An error of one process between two exchanges, in a whole run, whose stages take errors for outcomes."""

    def sum_gradients(self, parameters):
        raise MemoryError("there is none left")

    if not first:
        Processes.sum_gradients = sum_gradients
    Runner(load_config(folder / "config.yaml"), progress=False).run()


def float32(folder: Path, first: bool) -> None:
    """Steps in single precision."""
    model = shaken(tiny()).float()
    prime(model, SOURCES, MetaPriming(**STEPS), seed=3, progress=False)
    if first:
        write_tensors(folder / "float32.safetensors", model.state())


def half_precision(folder: Path, first: bool) -> None:
    """Steps with parameters in bfloat16, and the same in two parts: states are equal, or priming would end."""
    path, method = folder / "half.safetensors", METHODS["bitfit"][0]
    models = []
    for options in ({"checkpoint": path, "checkpoint_every": 5}, {"checkpoint": path}):
        model = shaken(tiny(method)).to(torch.bfloat16)
        prime(model, SOURCES, MetaPriming(**STEPS), seed=3, progress=False, **options)
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))
    if first:
        write_tensors(folder / "bfloat16.safetensors", model.state())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as processes:
        for step in sys.argv[2:]:
            globals()[step](Path(sys.argv[1]), processes.first)
