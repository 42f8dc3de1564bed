"""Sharing the work of one run among processes that each hold a copy of the model, by torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pemeta import errors
from pemeta.errors import ConfigError, NotFiniteError, PemetaError, TrainingError, reason
from pemeta.utils.precision import wide

T = TypeVar("T")

BUCKET_SIZE = 2**24
"""Numbers reduced in one call: 64 MB of float32, enough for the latency of a call not to matter."""
TIMEOUT = timedelta(days=7)
"""Longest wait for another process, which may have more work; if a process dies, the launcher ends the others."""


class Processes:
    """The processes of a run; with a single process, every method is a no-op.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    @classmethod
    def alone(cls) -> Processes:
        """This process by itself, for work that the processes of a run do not do together."""
        made = cls()
        made.rank, made.size = 0, 1
        return made

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and prints for all."""
        return self.rank == 0

    def owner(self, index: int) -> int:
        """The rank of the process that does the work item with the given index."""
        return index % self.size

    def block(self, work: Sequence[T]) -> list[T]:
        """This process's share of some work items, as one contiguous block, for items whose neighbours are alike."""
        return list(work[len(work) * self.rank // self.size : len(work) * (self.rank + 1) // self.size])

    def share(self, work: Sequence[T]) -> list[T]:
        """This process's share of some work items, which may be empty if there are fewer items than processes."""
        return [item for index, item in enumerate(work) if self.owner(index) == self.rank]

    def all(self, action: Callable[[], T]) -> list[T]:
        """The results of an action in all processes; if it raises an error in one process, all processes raise one.

        Results are exchanged between the processes as pickles, which are never written to files.
        """
        if self.size == 1:
            return [action()]
        result, failure = None, None
        try:
            result = action()
        except Exception as error:  # sent to the others, which would otherwise wait for this process
            failure = error
        sent = None if failure is None else (type(failure).__name__, str(failure) or reason(failure))
        gathered: list[tuple[T, tuple[str, str] | None]] = [None] * self.size  # type: ignore[list-item]
        dist.all_gather_object(gathered, (result, sent))
        failures = [(rank, failed) for rank, (_, failed) in enumerate(gathered) if failed is not None]
        if failures:
            common = _common_error(failures, self.rank, failure)
            common.__dict__["raised_by_all"] = True
            raise common from None
        return [found for found, _ in gathered]

    def each(self, action: Callable[[], T]) -> T:
        """The result of an action in this process; if it raises an error in one process, all processes raise one."""
        own: list[T] = []
        self.all(lambda: own.append(action()))
        return own[0]

    def only_first(self, action: Callable[[], None]) -> None:
        """Run an action in the first process while the others wait; if it raises an error, all processes raise one."""
        self.all(action if self.first else lambda: None)

    def any(self, here: bool) -> bool:
        """Whether ``here`` is true in at least one process."""
        if self.size == 1:
            return here
        flag = _exchangeable(torch.tensor(int(here)))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all processes; a parameter that has none in any process keeps none."""
        if self.size == 1:
            return
        present = _exchangeable(
            torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        )
        dist.all_reduce(present, dist.ReduceOp.MAX)
        reduced = [parameter for parameter, one in zip(parameters, present.tolist(), strict=True) if one]
        for parameter in reduced:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in reduced if parameter.grad is not None]):
            flat = _exchangeable(torch.cat([wide(gradient).flatten() for gradient in bucket]))
            dist.all_reduce(flat)
            _write_back(flat, bucket)

    def copy_from(self, rank: int, parameters: Sequence[nn.Parameter]) -> None:
        """Copy the values of parameters from the process of the given rank to all others."""
        if self.size == 1 or not parameters:
            return
        for bucket in _buckets([parameter.detach() for parameter in parameters]):
            flat = _exchangeable(torch.cat([wide(value).flatten() for value in bucket]))
            dist.broadcast(flat, rank)
            _write_back(flat, bucket)

    def check_same(self, value: object, what: str) -> None:
        """Check that a value is equal in all processes, without which their common results would be wrong.

        Raises:
            ConfigError: The values differ.
        """
        found = self.all(lambda: value)
        if any(other != found[0] for other in found):
            others = [rank for rank, other in enumerate(found) if other != found[0]]
            raise ConfigError(
                f"process {others[0]} differs from process 0 in its {what}; start all processes with the same "
                "configuration, data and package versions"
            )


def raised_by_all(error: BaseException) -> bool:
    """Whether all processes have raised an error that occurred in one of them."""
    return bool(error.__dict__.get("raised_by_all"))


def _common_error(failures: Sequence[tuple[int, tuple[str, str]]], rank: int, own: Exception | None) -> Exception:
    """The error that all processes raise: the first that cannot be retried, else the first.

    Otherwise one process might retry while another has given up.
    """
    fatal = [failed for failed in failures if failed[1][0] != NotFiniteError.__name__]
    where, (kind, text) = (fatal or list(failures))[0]
    error: Exception = TrainingError(f"process {where} ended with {kind}: {text.splitlines()[0]}")
    found = getattr(errors, kind, None)
    if own is not None and where == rank:
        error = own
    elif isinstance(found, type) and issubclass(found, PemetaError) and found is not errors.FieldError:
        error = found(text)
    if isinstance(error, PemetaError):
        error.reported_elsewhere = rank > 0
    return error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type and device, none much larger than :data:`BUCKET_SIZE`."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        bucket: list[Tensor] = []
        for tensor in group:
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_SIZE:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def _exchangeable(tensor: Tensor) -> Tensor:
    """The tensor where the processes can exchange it: a group of NCCL alone, for example, takes none from the CPU."""
    kinds = [pair.partition(":")[0] for pair in dist.get_backend_config().split(",")]
    return tensor if tensor.device.type in kinds else tensor.to(kinds[0])


def _write_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def launched() -> bool:
    """Whether this process is one of several started by a launcher such as torchrun."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    except ValueError:
        return False


@contextmanager
def process_group() -> Iterator[Processes]:
    """Join the processes started by torchrun or `accelerate launch`, if this is one of them, for the block.

    Raises:
        ConfigError: The processes cannot find each other.
    """
    if not launched():
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if _local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(_local_rank())  # or what names no device would be on the first GPU, in every process
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {os.environ.get('RANK')} cannot join the others: {reason(error)}; start them with torchrun or "
            "accelerate launch"
        ) from None
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


def _local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def device_of_process(name: str) -> str:
    """The device of this process among those on a machine, from the name that all of them were given.

    Raises:
        ConfigError: There are fewer devices than processes, or the name is that of a single device.
    """
    local = _local_rank()
    if name == "auto" and not torch.cuda.is_available():
        return name
    if name not in ("auto", "cuda"):
        if ":" in name:
            raise ConfigError(
                f"device {name!r} is a single device, but several processes were started; use cuda or cpu"
            )
        return name
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local} of this machine has no GPU of its own (GPUs found: {torch.cuda.device_count()}); start "
            "as many processes as there are GPUs"
        )
    return f"cuda:{local}"
