"""Data-sheet figures of devices, and the share of them that training is assumed to reach."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from pemeta.errors import ConfigError, unknown_name
from pemeta.estimate.counter import Kind, Work
from pemeta.estimate.findings import Memory
from pemeta.utils.devices import resolve_device

TERA, GIGA, GIB = 10**12, 10**9, 2**30

# Our choice, all of them; none was measured on a GPU.
UTILISATION = 0.5
"""Share of the data sheet's operations per second that matrix products reach."""
BANDWIDTH_SHARE = 0.7
"""Share of the data sheet's bandwidth that other operations reach, and the exchange of gradients."""
LAUNCH = 10e-6
"""Seconds that Python and PyTorch take to launch an operation: the least that any takes."""
PROCESSES_PER_NODE = 8
NODE_LINK = 25.0 * GIGA
"""Bytes per second between two nodes: 200 Gbit/s."""
CORE_FLOPS, CORE_BANDWIDTH = 100 * GIGA, 20 * GIGA
"""Of one CPU core: 32 operations per cycle (AVX2: two fused multiply-adds of eight numbers) at 3.1 GHz; 20 GB/s."""
FIXED = {"cuda": int(0.8 * GIB), "cpu": int(0.51 * GIB)}
"""Bytes that Python, PyTorch and its libraries hold before any tensor; measured on a CPU, guessed for CUDA."""
SLACK = {"cuda": 0.1, "cpu": 0.5}
"""What allocators and kernels' buffers hold in addition, as a share of the activations that come and go; likewise.

On a CPU the C library splits freed blocks for smaller ones, so that large ones need new memory. How much depends on all
that passes through, whether it is held at once or, with checkpointed layers, layer by layer.
"""


@dataclass(frozen=True)
class Device:
    """One kind of device.

    Attributes:
        name: name on the command line.
        title: name in the output.
        type: PyTorch's device type, ``cuda`` or ``cpu``.
        memory: size of its memory, in bytes.
        peaks: operations per second of dense matrix products, by the type they are computed in.
        bandwidth: bandwidth of its memory, in bytes per second.
        link: bandwidth to another device of the same node, in bytes per second and direction.
    """

    name: str
    title: str
    type: str
    memory: int
    peaks: Mapping[str, float]
    bandwidth: float
    link: float

    def overhead(self, memory: Memory) -> int:
        """Bytes that a process holds in addition to its tensors."""
        return FIXED[self.type] + int(SLACK[self.type] * (memory.activations + memory.passing))

    def needs(self, memory: Memory, copies: int = 0, processes: int = 1) -> int:
        """Bytes that a device needs: on a GPU for one process, on a CPU for all, which share its memory.

        Args:
            memory: the tensors of one process.
            copies: bytes that one process holds in the CPU's memory besides.
            processes: number of processes, each with a device of its own unless on a CPU.
        """
        own = memory.total + self.overhead(memory)
        return (own + copies) * processes if self.type == "cpu" else own

    def seconds(self, work: Work) -> float:
        """Seconds for some work: each operation is bound by its matrix products, by memory, or by its launch."""
        return sum(self._seconds(kind) * count for kind, count in work.items())

    def _seconds(self, kind: Kind) -> float:
        products = kind.flops / (self.peak(kind.dtype) * UTILISATION)
        return max(products, kind.moved / (self.bandwidth * BANDWIDTH_SHARE), LAUNCH)

    def peak(self, dtype: torch.dtype) -> float:
        """Peak operations per second in a type; float32 counts as TF32 only if PyTorch is set to use it."""
        name = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
        if name == "fp32" and torch.get_float32_matmul_precision() != "highest":
            name = "tf32"
        return self.peaks[name]

    def exchange_seconds(self, size: int, processes: int) -> float:
        """Seconds in which processes, each on its own device, sum ``size`` bytes of gradients in a ring."""
        link = self.link if processes <= PROCESSES_PER_NODE else min(self.link, NODE_LINK)
        return 2 * (processes - 1) / processes * size / (link * BANDWIDTH_SHARE)


def _gpu(
    name: str, title: str, memory: int, peaks: tuple[float, float, float, float], bandwidth: int, link: int
) -> Device:
    """A GPU by its data sheet: memory in GB, peaks in 10^12 operations per second, bandwidths in GB/s."""
    names = ("fp32", "tf32", "bf16", "fp16")
    found = {name: peak * TERA for name, peak in zip(names, peaks, strict=True)}
    return Device(name, title, "cuda", memory * GIGA, found, float(bandwidth * GIGA), float(link * GIGA))


# NVIDIA's data sheets of the H100, H200 and A100 (SXM), the L4, the V100 (SXM2) and the T4 "Tensor Core GPU", and its
# paper "Ada GPU Architecture" (RTX 4090). Without sparsity, and with sums in float32; links are half of the sheets'
# figure for both directions together. A type that a device lacks has the figure of its float32.
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _gpu("h100", "NVIDIA H100 SXM", 80, (67, 494.7, 989.4, 989.4), 3350, 450),
        _gpu("h200", "NVIDIA H200 SXM", 141, (67, 494.7, 989.4, 989.4), 4800, 450),
        _gpu("a100", "NVIDIA A100 SXM", 80, (19.5, 156, 312, 312), 2039, 300),
        _gpu("l4", "NVIDIA L4", 24, (30.3, 60, 121, 121), 300, 32),
        _gpu("rtx4090", "NVIDIA RTX 4090", 24, (82.6, 82.6, 165.2, 165.2), 1008, 32),
        _gpu("v100", "NVIDIA V100 SXM2", 32, (15.7, 15.7, 15.7, 125), 900, 150),
        _gpu("t4", "NVIDIA T4", 16, (8.1, 8.1, 8.1, 65), 300, 16),
    )
}


def find_device(name: str | None, configured: str, threads: int | None = None) -> Device:
    """Find a device by name, or by a configuration's ``device`` on this machine.

    Args:
        name: one of :data:`DEVICES`, or ``cpu``, this machine's CPU; None for the configuration's device.
        configured: the configuration's ``device``.
        threads: number of PyTorch's threads on a CPU.

    Raises:
        ConfigError: the name is unknown, or the configuration's device is missing here or of an unknown kind.
    """
    if name is None:
        try:
            device = resolve_device(configured)
        except ConfigError as error:
            raise ConfigError(f"{error}, or name the device of the run with --device, {_known()}") from None
        if device.type == "cpu":
            name = "cpu"
        elif device.type == "cuda":
            return _here(device)
        else:
            raise ConfigError(f"the speed of a {device.type!r} device is unknown; give --device, {_known()}")
    if name.lower() == "cpu":
        return _processor(threads or torch.get_num_threads())
    if name.lower() not in DEVICES:
        raise ConfigError(unknown_name("device", name, [*DEVICES, "cpu"]))
    return DEVICES[name.lower()]


def _here(device: torch.device) -> Device:
    """The data sheet of a GPU of this machine, with the memory that the GPU really has."""
    found = torch.cuda.get_device_properties(device)
    known = DEVICES.get(_model_of(found.name))
    if known is not None:
        return replace(known, title=found.name, memory=found.total_memory)
    raise ConfigError(f"the speed of a {found.name} is unknown; give --device with a similar one, {_known()}")


def _model_of(name: str) -> str:
    """The model in a GPU's full name, without maker, memory and SXM, whose figures these are.

    What else a name says makes another device of it: an L40S is no L4, and a part of an A100 or an H100 PCIe is slower.

    >>> _model_of("NVIDIA H100 80GB HBM3"), _model_of("NVIDIA GeForce RTX 4090"), _model_of("NVIDIA H100 PCIe")
    ('h100', 'rtx4090', 'h100pcie')
    """
    words = re.split(r"[\s-]+", name.lower())
    return "".join(word for word in words if not re.fullmatch(r"nvidia|geforce|tesla|\d+gb|hbm\w*|sxm\d?", word))


def _known() -> str:
    return f"one of {', '.join(sorted([*DEVICES, 'cpu']))}"


def _processor(cores: int) -> Device:
    """This machine's CPU; most are no faster in lower precision."""
    peak = float(cores * CORE_FLOPS)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 16 * GIB
    title = f"this CPU, {cores} {'thread' if cores == 1 else 'threads'}"
    peaks = dict.fromkeys(("fp32", "tf32", "bf16", "fp16"), peak)
    return Device("cpu", title, "cpu", memory, peaks, float(cores * CORE_BANDWIDTH), float(GIGA))
