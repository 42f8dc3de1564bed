"""Checks of what is computed: that it is what the CPU computes, and the same each time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from gpucheck.setting import METHODS, Finding, Setting, apart, gradients
from pemeta import FineTuning, finetune, prime
from pemeta.utils.distributed import Processes
from pemeta.utils.numerics import numerics

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
CLOSE = 2e-3
"""Relative difference of float32 gradients on two devices, whose sums are in another order."""
LEAST_COSINE = 0.98
"""Of gradients in half precision with those in float32."""


def same_as_the_cpu(setting: Setting) -> Iterator[Finding]:
    """Gradients of every method, with heads of width 64, sentences of several lengths, both orders."""
    sizes = {"support_size": 2, "query_size": 2, "inner_steps": 2}
    for method in METHODS:
        for first_order in (True, False):
            algorithm = setting.priming(**sizes, first_order=first_order)
            found, expected = (
                gradients(setting.model(method, device=device), algorithm, setting.tasks())
                for device in (setting.device, CPU)
            )
            worst = apart(found, expected)
            yield {"method": method, "first_order": first_order, "apart": worst, "ok": worst <= CLOSE}


def repeats(setting: Setting) -> Iterator[Finding]:
    """Whether the same step twice is the same to the bit, and with ``deterministic``, where it must be."""
    for attention in ("sdpa", "eager"):
        for deterministic in (False, True):
            with numerics(deterministic=deterministic):
                first, second = (
                    gradients(setting.model("lora", attention=attention), setting.priming(), setting.tasks())
                    for _ in range(2)
                )
            differ = [name for name in first if not torch.equal(first[name], second[name])]
            must = {"ok": not differ} if deterministic else {}
            yield {"attention": attention, "deterministic": deterministic, "differ": differ[:6], **must}


def half_precision(setting: Setting) -> Iterator[Finding]:
    """Gradients under autocast beside those in float32."""
    for method in ("adapter", "lora", "prefix"):
        for first_order in (True, False):
            algorithm = setting.priming(first_order=first_order, inner_steps=2)
            base = gradients(setting.model(method), algorithm, setting.tasks())
            flat = torch.cat([value.flatten() for value in base.values()])
            for dtype in (torch.bfloat16, torch.float16):
                found = gradients(setting.model(method, dtype), algorithm, setting.tasks())
                other = torch.cat([found[name].flatten() for name in base])
                cosine = float(torch.cosine_similarity(flat, other, 0))
                yield {
                    "method": method,
                    "first_order": first_order,
                    "dtype": str(dtype),
                    "cosine": round(cosine, 5),
                    "ok": math.isfinite(cosine) and cosine >= LEAST_COSINE,
                }


def resumes(setting: Setting) -> Iterator[Finding]:
    """A run that goes on from its checkpoint ends as one in a piece; on the CPU, up to its own generator's draws."""
    algorithm = setting.priming(outer_steps=4, inner_steps=2, inner_dropout=True, outer_dropout=True)
    model = setting.model("lora", dropout=0.1)
    whole = prime(model, setting.tasks(), algorithm, progress=False)
    expected = {name: value.detach().cpu() for name, value in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        begun = setting.model("lora", dropout=0.1)
        prime(begun, setting.tasks(), algorithm, progress=False, checkpoint=path, checkpoint_every=3)
        for device in dict.fromkeys((setting.device, CPU)):
            again = setting.model("lora", dropout=0.1, device=device)
            history = prime(again, setting.tasks(), algorithm, progress=False, checkpoint=path)
            values = {name: value.detach().cpu() for name, value in again.named_parameters()}
            same = history.losses == whole.losses
            differ = apart(values, expected)
            must = {"ok": same and differ <= CLOSE} if device == setting.device else {}
            yield {"on": str(device), "same_losses": same, "apart": differ, **must}
    target, validation = setting.tasks()[0], setting.data(7, 2 * setting.sentences)
    tuned = finetune(model, target, validation, FineTuning(epochs=2), progress=False)
    yield {"finetuning_losses": tuned.losses, "ok": all(map(math.isfinite, tuned.losses))}


def exchanges(setting: Setting) -> Iterator[Finding]:
    """Every exchange of a step, by one process that is told it is one of two; with NCCL alone too."""
    for backend in ("cpu:gloo,cuda:nccl", "nccl") if setting.cuda else ("gloo",):
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        try:
            processes = Processes()
            processes.size = 2
            parameter = nn.Parameter(torch.ones(3, device=setting.device))
            parameter.grad = torch.full_like(parameter, 2.0)
            there = processes.any(True) and not processes.any(False)
            processes.sum_gradients([parameter])
            processes.copy_from(0, [parameter])
            kept = parameter.detach().tolist() == [1.0] * 3 and parameter.grad.tolist() == [2.0] * 3
            yield {"backend": backend, "ok": there and kept}
        finally:
            dist.destroy_process_group()


def own_tests(setting: Setting) -> Iterator[Finding]:
    """The project's tests for any device."""
    chosen = ["-k", "ia3"] if setting.small else []
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-n", "0", "-m", "gpu"]
    found = subprocess.run(
        [*command, *chosen, "tests/utils/test_gpu.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        timeout=400,
    )
    yield {"exit": found.returncode, "last": found.stdout.splitlines()[-1:], "ok": found.returncode == 0}
