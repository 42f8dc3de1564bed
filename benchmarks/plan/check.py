"""A check of the memory that `pemeta plan` estimates against real steps on the CPU, each in a process of its own.

    python benchmarks/plan/check.py [--only WORDS] [--output FILE]    # FILE's rows for other steps stay

Measured is the most that PyTorch's allocator held during a step, by the profiler's record of every allocation, plus
what it held before. Next to it is the process's peak resident size, which includes the libraries, their buffers, and
freed memory that the C library keeps.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, LlamaConfig, PreTrainedConfig

from pemeta.backbone.loading import random_backbone_of
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.packed_passes import Padding
from pemeta.estimate.cases import PrimingCase, TuningCase
from pemeta.estimate.devices import find_device
from pemeta.estimate.fake import SEVEN_LABELS, FakeSentences, Shape
from pemeta.estimate.findings import Memory
from pemeta.estimate.tokens import ASSUMED
from pemeta.heads import CausalLM, HeadSpec
from pemeta.methods import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import FineTunePriming, MetaPriming, OuterStep, PrimingAlgorithm
from pemeta.tasks.task import Task
from pemeta.training.finetuning import FineTuning
from pemeta.training.optimizer import LossScale, Optimization
from pemeta.typing import Batch
from pemeta.utils.modules import only_trainable

PROC = Path("/proc/self")
MIB = 2**20
METHODS: dict[str, object] = {
    "adapter": "adapter",
    "lora": "lora",
    "bitfit": "bitfit",
    "prefix": "prefix",
    "houlsby": {"name": "adapter", "placement": "houlsby"},
    "full": "full",
}
SHAPES = {
    "tiny": {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "MiniLM": {"vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "mBERT": {"vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
LANGUAGE_MODELS = {
    "tiny LM": {
        "vocab_size": 6000,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
    },
    "SmolLM2": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
    },
}
"""Llama's kind, with a tied output matrix; SmolLM2 is the one of 135 million parameters."""


@dataclass(frozen=True)
class Case:
    """A step to measure; with order `finetuning` it is one of fine-tuning."""

    shape: str = "MiniLM"
    method: str = "adapter"
    order: str = "first"  # second, plain (priming by fine-tuning), finetuning
    checkpoint: bool = False
    sentences: int = 8
    length: int = 32
    precision: str = "fp32"
    attention: str = "sdpa"
    batch_tasks: bool = False
    packed: bool = False
    tasks: int = 2
    inner_steps: int = 5
    micro: int | None = None

    def __str__(self) -> str:
        changed = {key: value for key, value in asdict(self).items() if value != getattr(Case, key)}
        for key in ("shape", "method", "order", "sentences", "length"):
            changed.pop(key, None)
        extra = "".join(f", {key} {value}" if value is not True else f", {key}" for key, value in changed.items())
        return f"{self.shape}, {self.method}, {self.order}, {self.sentences}x{self.length}{extra}"

    @property
    def configuration(self) -> PreTrainedConfig:
        if self.shape in LANGUAGE_MODELS:
            return LlamaConfig(**LANGUAGE_MODELS[self.shape], tie_word_embeddings=True)
        sizes = SHAPES[self.shape]
        return BertConfig(**sizes, intermediate_size=4 * sizes["hidden_size"])

    @property
    def head(self) -> HeadSpec:
        if self.shape in LANGUAGE_MODELS:
            return CausalLM(vocab_size=self.configuration.vocab_size)
        return SEVEN_LABELS

    @property
    def output(self) -> OutputKind | None:
        return "causal_lm" if self.shape in LANGUAGE_MODELS else None

    @property
    def padding(self) -> Padding:
        return "packed" if self.packed else "padded"

    @property
    def settings(self) -> FineTuning:
        return FineTuning(batch_size=self.sentences, padding=self.padding, micro_batch_size=self.micro)

    @property
    def algorithm(self) -> PrimingAlgorithm:
        sizes: dict[str, Any] = {"support_size": self.sentences, "query_size": self.sentences, "padding": self.padding}
        sizes["micro_batch_size"] = self.micro
        if self.order == "plain":
            return FineTunePriming(**sizes)
        inner = {"inner_steps": self.inner_steps, "first_order": self.order == "first"}
        return MetaPriming(**sizes, **inner, batch_tasks=self.batch_tasks)

    @property
    def priced(self) -> PrimingCase | TuningCase:
        """The case as the estimate has it."""
        shape = Shape(
            self.configuration,
            self.length,
            self.head,
            attention=self.attention,
            precision=self.precision,  # type: ignore[arg-type]
            checkpoint_layers=self.checkpoint,
            share=ASSUMED if self.packed else 1.0,
            output=self.output,
        )
        method = PEMethod.parse(METHODS[self.method])
        if self.order == "finetuning":
            return TuningCase(shape, (method,), self.settings)
        return PrimingCase(shape, method, self.algorithm, self.tasks)


class Sentences(FakeSentences):
    """Sentences of random tokens: of a layout's lengths if one is given, else the last of each but the first pads."""

    def __init__(self, length: int, lengths: Callable[[int], Sequence[int]] | None = None) -> None:
        super().__init__(length)
        self._lengths = lengths

    def tensors(self, indices: Any) -> Batch:
        blank = super().tensors(indices)
        mask = torch.ones_like(blank["attention_mask"])
        mask[1:, -1] = 0
        if self._lengths is not None:
            mask = (torch.arange(mask.shape[1]) < torch.tensor(self._lengths(len(mask)))[:, None]).long()
        return {"input_ids": torch.randint(1, 500, mask.shape), "attention_mask": mask, "labels": mask.clone()}


@contextmanager
def step_of(case: Case) -> Iterator[tuple[Callable[[], None], int]]:
    """A real step of a case after a first one, and the bytes of weights and moments before it."""
    priced = case.priced
    lengths = priced.shape.layout.lengths if case.packed else None
    data = Sentences(case.length, lengths)
    tasks = [replace(priced.shape.task(f"source {i}"), train=data) for i in range(case.tasks)]
    backbone = random_backbone_of(case.configuration, case.shape, case.attention, output=case.output)
    model = PEModel(backbone, PEMethod.parse(METHODS[case.method]))
    model.padding = case.padding
    model.autocast_dtype = {"fp32": None, "bf16": torch.bfloat16}[case.precision]
    if case.checkpoint:
        model.checkpoint_layers()
    for task in tasks:
        model.add_head(task.name, task.make_head)
    finetunes = case.order == "finetuning"
    names = model.stored_names(tasks[0].name) if finetunes else case.algorithm.trained(model)
    with only_trainable(model, names) as trained:
        optimization = Optimization(trained.values(), 1e-4, 10)
        work = _finetunes(case, model, tasks[0]) if finetunes else _primes(case, model, tasks)

        def step() -> None:
            optimization.zero_grad()
            work(LossScale.suited_to(model.autocast_dtype).value)
            optimization.step()

        step()
        optimization.zero_grad()
        moments = [value for state in optimization.optimizer.state.values() for value in state.values()]
        yield step, sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers(), *moments])


def _primes(case: Case, model: PEModel, tasks: list[Task]) -> Callable[[float], object]:
    episodes = case.algorithm.sampler(tasks, 0)[0]
    return lambda scale: case.algorithm.accumulate(model, episodes, OuterStep(0, scale))


def _finetunes(case: Case, model: PEModel, task: Task) -> Callable[[float], object]:
    model.eval()
    parts = case.settings.parts(np.arange(case.sentences))
    with torch.no_grad():
        batches = [model.reusing([model.placed(task.train.batch(part))])[0] for part in parts]

    def work(scale: float) -> None:
        for batch in batches:
            made = {key: value.clone() for key, value in batch.items()}  # each step makes its own batch
            (model.loss(made, task.name) * scale).backward()

    return work


def allocated(step: Callable[[], None]) -> int:
    """The most bytes that PyTorch's allocator held for the step, beyond those it held before."""
    from torch._C._profiler import _EventType

    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    results = profiler.profiler.kineto_results  # type: ignore[union-attr]
    changes: list[tuple[int, int]] = []
    waiting = list(results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    held = most = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        held += change
        most = max(most, held)
    return most


def resident(step: Callable[[], None]) -> int:
    """The process's peak resident size during the step."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (PROC / "clear_refs").write_text("5")
    step()
    status = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def measured(case: Case) -> int:
    """Bytes that a step holds at its fullest moment."""
    with step_of(case) as (step, before):
        return before + allocated(step)


def estimated(case: Case) -> Memory:
    """The estimate of :func:`measured`: for the step alone, without fine-tuning's evaluation."""
    phases = case.priced.step.phases
    steps = [memory for phase, memory in phases.items() if phase != "evaluation"]
    return max(steps, key=lambda memory: memory.total)


LM = Case("SmolLM2", "lora", sentences=4, length=48, tasks=1, inner_steps=2)


def cases() -> Iterator[Case]:
    for method in METHODS:
        for order in ("first", "second"):
            for checkpoint in (False, True):
                yield Case(method=method, order=order, checkpoint=checkpoint)
    for method in METHODS:
        yield Case(method=method, order="finetuning", sentences=16)
    yield Case(order="plain")
    yield Case(order="first", sentences=16, length=128)
    yield Case(method="lora", order="first", sentences=16, length=128)
    yield Case(method="lora", order="first", sentences=16, length=128, checkpoint=True)
    yield Case(method="lora", order="first", sentences=16, length=128, precision="bf16")
    yield Case(method="lora", order="first", sentences=16, length=128, attention="eager")
    yield Case(method="lora", order="finetuning", sentences=16, length=128)
    yield Case(sentences=16, length=64, tasks=4)
    yield Case(sentences=16, length=64, tasks=4, batch_tasks=True)
    for method in ("houlsby", "bitfit"):
        yield Case(method=method, order="first", sentences=16, length=128, checkpoint=True)
    for method in ("adapter", "lora"):
        yield Case(method=method, order="first", sentences=16, length=128, packed=True)
    yield Case(method="lora", order="finetuning", sentences=16, length=128, packed=True)
    yield Case("mBERT", "adapter", "first")
    yield Case("mBERT", "houlsby", "first")
    yield Case("mBERT", "lora", "finetuning", sentences=16, length=64)
    for case in (LM, replace(LM, method="full", order="plain"), replace(LM, order="finetuning", sentences=8)):
        yield case
        yield replace(case, checkpoint=True)
    yield replace(LM, sentences=16, length=128)
    yield replace(LM, sentences=16, length=128, micro=4)
    yield replace(LM, sentences=16, length=128, precision="bf16")


def in_own_process(case: Case) -> tuple[int, int]:
    """Bytes that a step holds at its fullest moment, and those of its process."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return found["held"], found["resident"]


def row(case: Case) -> str:
    held, process = in_own_process(case)
    guess = estimated(case)
    pairs = ((guess.total, held), (find_device("cpu", "cpu").needs(guess), process))
    numbers = [f"{estimate / MIB:,.0f} | {real / MIB:,.0f} | {estimate / real:.3f}" for estimate, real in pairs]
    return f"| {case} | {' | '.join(numbers)} |"


HEAD = """# Memory: `pemeta plan` against real steps

Written by `benchmarks/plan/check.py` with torch {torch} on a CPU, one thread. MiB; sentences x tokens; two source
tasks and five inner steps unless stated otherwise. *Held* is by PyTorch's allocator; *process* is the peak
resident size, against the estimate with its overhead. Steps of the script that have no row were not measured.

| step | held, estimated | measured | ratio | process, estimated | measured | ratio |
| :-- | --: | --: | --: | --: | --: | --: |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case")
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.case:
        case = Case(**json.loads(given.case))
        with step_of(case) as (step, before):
            size = resident(step)
            print(json.dumps({"resident": size, "held": before + allocated(step)}))
        return
    rows = _rows(given.output)
    for case in cases():
        if given.only in str(case):
            rows[str(case)] = row(case)
            print(rows[str(case)], flush=True)
            if given.output:
                found = [rows[str(one)] for one in cases() if str(one) in rows]
                text = "\n".join([HEAD.format(torch=torch.__version__), *found])
                given.output.write_text(f"{text}\n", encoding="utf-8")


def _rows(path: Path | None) -> dict[str, str]:
    """A table's rows by step."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


if __name__ == "__main__":
    main()
