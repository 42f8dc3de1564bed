"""Measurements: what waits for the device, how long steps take, and what else would save."""

from __future__ import annotations

import collections
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gpucheck.setting import METHODS, Finding, Setting
from pemeta import PEMethod, PEModel, PrimingLearner
from pemeta.estimate.cases import PrimingCase
from pemeta.estimate.fake import Shape
from pemeta.training.hidden_state_cache import with_hidden_states
from pemeta.training.optimizer import Optimization
from pemeta.utils.devices import to_device
from pemeta.utils.numerics import numerics

GIB = 2**30
PRECISIONS = {"bf16": (torch.bfloat16, False), "tf32": (None, True), "fp32": (None, False)}
GOAL = 0.7
"""Share of plain fine-tuning's rate that priming should reach in bf16."""

aten = torch.ops.aten
VALUES = {aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select}
"""Operations whose result, or its size, depends on values."""
COPIES = {aten._to_copy, aten.copy_}
"""Operations that may copy from the device to the host."""


class Reads(TorchDispatchMode):
    """Counts reads of tensors on a device, each of which waits for it: of values, sizes that depend on them, copies.

    Args:
        device: the device; on a processor what the host reads of its own tensors counts too.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.count = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        there = any(isinstance(one, Tensor) and one.device.type == self.device.type for one in args)
        # `tolist` and `cpu` are copies.
        copied = func.overloadpacket in COPIES and isinstance(out, Tensor) and out.device.type != self.device.type
        self.count += there and (func.overloadpacket in VALUES or copied)
        return out


def waits(setting: Setting) -> Iterator[Finding]:
    """What a step of priming reads of tensors, and on a GPU which lines wait for it."""
    for method in ("adapter", "lora", "prompt", "prefix"):
        model, algorithm, tasks = setting.model(method), setting.priming(), setting.tasks()
        sampler = algorithm.sampler(tasks, 0)
        algorithm.accumulate(model, sampler[0])  # what is checked once
        with Reads(setting.device) as reads:
            algorithm.accumulate(model, sampler[1])
        lines: dict[str, int] = {}
        if setting.cuda:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                algorithm.accumulate(model, sampler[2])
                torch.cuda.set_sync_debug_mode("default")
            told = [one for one in seen if "synchron" in str(one.message)]
            lines = collections.Counter("/".join(one.filename.split("/")[-2:]) + f":{one.lineno}" for one in told)
        yield {"method": method, "reads": reads.count, "lines": dict(lines)}


def steps(setting: Setting) -> Iterator[Finding]:
    """An outer step of mBERT's shape beside plain fine-tuning: time, rate, kernels, busy share, and memory."""
    for precision, (dtype, tf32) in PRECISIONS.items():
        with numerics(tf32=tf32):
            plain = _plain_fine_tuning(setting, dtype)
            yield {"step": "plain fine-tuning", "precision": precision, **plain}
            for method, together in (("adapter", False), ("adapter", True), ("lora", False), ("lora", True)):
                found = _outer_step(setting, method, dtype, together)
                share = round(found["teraflops"] / plain["teraflops"], 3)
                case = {"step": "priming", "method": method, "batch_tasks": together, "precision": precision}
                yield {**case, **found, "share_of_plain": share, "goal": GOAL}


def _plain_fine_tuning(setting: Setting, dtype: torch.dtype | None) -> Finding:
    """Forward and backward of one task's query set, all parameters."""
    model = setting.model("full", dtype, **setting.large, dropout=0.1).train()
    task = setting.tasks(vocabulary=setting.large["vocabulary"] - 5)[0]
    batch = to_device(task.train.batch(range(setting.sentences)), setting.device)

    def step() -> None:
        model.zero_grad()
        model.loss(batch, task.name).backward()

    return _measured(setting, step)


def _outer_step(setting: Setting, method: str, dtype: torch.dtype | None, together: bool) -> Finding:
    model = setting.model(method, dtype, **setting.large, dropout=0.1)
    algorithm = setting.priming(batch_tasks=together, outer_dropout=True)
    tasks = setting.tasks(vocabulary=setting.large["vocabulary"] - 5)
    episodes = algorithm.sampler(tasks, 0)[0]

    def step() -> None:
        model.zero_grad()
        algorithm.accumulate(model, episodes)

    shape = Shape(
        setting.config(**setting.large, dropout=0.1),
        setting.length,
        attention="sdpa",
        precision="bf16" if dtype else "fp32",
        gpu=setting.cuda,
    )
    planned = PrimingCase(shape, PEMethod.parse(METHODS[method]), algorithm, len(tasks)).step
    passes = [memory.total - memory.optimizer for phase, memory in planned.phases.items() if "optimiser" not in phase]
    return {**_measured(setting, step), "planned_gib": round(max(passes) / GIB, 3)}


def _measured(setting: Setting, step: Callable[[], None]) -> Finding:
    """Time, operations per second, and on a GPU its kernels, the share of the time that it was busy, and its peak."""
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    took = setting.milliseconds(step, 3)
    peak = torch.cuda.max_memory_allocated(setting.device) / GIB if setting.cuda else None
    with FlopCounterMode(display=False) as counter:
        step()
    found = {"ms": took, "teraflops": counter.get_total_flops() / took / 1e9}
    return {**found, "peak_gib": None if peak is None else round(peak, 2), **_on_gpu(setting, step, took)}


def _on_gpu(setting: Setting, step: Callable[[], None], took: float) -> Finding:
    if not setting.cuda:
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        setting.synchronize()
    events = [one for one in profiler.events() if one.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(one.device_time_total for one in events) / 1000
    kinds = ("flash", "fmha", "cudnn", "efficient", "softmax")
    attention = sorted({kind for one in events for kind in kinds if kind in one.name.lower()})
    return {"kernels": len(events), "busy_share": round(busy / took, 3), "attention": attention}


def tuning(setting: Setting) -> Iterator[Finding]:
    """A step of fine-tuning the output adapter: hidden states in the host's memory, on the device, or computed anew."""
    layers, number = setting.large["layers"], setting.sentences
    for dtype in (torch.bfloat16, None):
        model = setting.model("adapter", dtype, layers=layers)
        model.backbone.requires_grad_(False)
        for name in model.partition().theta_a:
            model.get_parameter(name).requires_grad_(True)
        data = setting.tasks(ragged=False)[0].train
        held = with_hidden_states(model, data)
        assert held.trunk is not None
        there = data.holding(tuple(row.to(setting.device) for row in held.trunk))

        def step(examples: Any, model: PEModel = model) -> None:
            model.loss(model.placed(examples.batch(range(number))), "en").backward()

        places = {"host_ms": held, "device_ms": there, "anew_ms": data}
        times = {name: setting.milliseconds(lambda e=examples: step(e)) for name, examples in places.items()}
        yield {"dtype": str(dtype), **times}


def savings(setting: Setting) -> Iterator[Finding]:
    """AdamW's step in one operation or several, clipping, and a CUDA graph of an inner step."""
    model = setting.model("lora", **setting.large)
    for fused, clip in itertools.product((False, True), (None, 1.0)):
        optimization = Optimization(model.parameters(), 1e-5, 1000, max_grad_norm=clip, fused=fused)

        def step(optimization: Optimization = optimization) -> None:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter) if parameter.grad is None else parameter.grad
            optimization.step()

        yield {"fused": fused, "clip": clip, "optimizer_ms": setting.milliseconds(step)}
    if setting.cuda:
        try:
            yield _graph(setting)
        except RuntimeError as error:  # what waits for the device cannot be recorded
            yield {"graph": f"{type(error).__name__}: {error}"[:300]}


def _graph(setting: Setting) -> Finding:
    """An inner step of LoRA by pemeta, written out, and written out and recorded as a CUDA graph."""
    model = setting.model("lora", torch.bfloat16, **setting.large)
    batch = to_device(setting.data(0, setting.sentences, ragged=False).batch(range(setting.sentences)), setting.device)
    names = {*model.partition().theta_a, *model.head_names("en")}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    own = [model.get_parameter(name) for name in names]

    def step() -> None:
        found = torch.autograd.grad(model.loss(batch, "en"), own)
        with torch.no_grad():
            torch._foreach_add_(own, found, alpha=-1e-6)

    plain = setting.milliseconds(step)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    clone = PrimingLearner(setting.model("lora", torch.bfloat16, **setting.large), 1e-6).clone("en")
    ours = setting.milliseconds(lambda: clone.adapt_to([batch] * 5, "en")) / 5
    return {"inner_step_ms": round(ours, 3), "plain_ms": plain, "graph_ms": setting.milliseconds(graph.replay)}
