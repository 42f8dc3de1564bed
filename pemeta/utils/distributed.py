"""Processes that share the work of one run, each with a model of its own: torch.distributed, as launchers set it up."""

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

T = TypeVar("T")

BUCKET = 2**24
"""Numbers that are summed in one go: 64 MB of float32; our choice, far more than what sending anything at all costs."""
PATIENCE = timedelta(days=7)
"""That processes wait for each other, since some have longer work; the launcher ends all when one dies."""


class Processes:
    """The processes of a run; alone, all of this does nothing.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
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
        """Whether this process is the one that writes and speaks for all."""
        return self.rank == 0

    def owner(self, index: int) -> int:
        """The process that does the piece of work of a number."""
        return index % self.size

    def block(self, work: Sequence[T]) -> list[T]:
        """This process's part of some pieces of work of which neighbours go well together."""
        return list(work[len(work) * self.rank // self.size : len(work) * (self.rank + 1) // self.size])

    def share(self, work: Sequence[T]) -> list[T]:
        """This process's part of some pieces of work; none where there are fewer pieces than processes."""
        return [piece for index, piece in enumerate(work) if self.owner(index) == self.rank]

    def all(self, action: Callable[[], T]) -> list[T]:
        """What the action gives in each process; where it raises an error in one, all raise one.

        Results travel between the processes as pickles, which never are in files.
        """
        if self.size == 1:
            return [action()]
        result, failure = None, None
        try:
            result = action()
        except Exception as error:  # the others are told, and not left to wait for this process
            failure = error
        told = None if failure is None else (type(failure).__name__, str(failure) or reason(failure))
        everywhere: list[tuple[T, tuple[str, str] | None]] = [None] * self.size  # type: ignore[list-item]
        dist.all_gather_object(everywhere, (result, told))
        failures = [(rank, failed) for rank, (_, failed) in enumerate(everywhere) if failed is not None]
        if failures:
            gravest = _gravest(failures, self.rank, failure)
            gravest.__dict__["everywhere"] = True
            raise gravest from None
        return [found for found, _ in everywhere]

    def each(self, action: Callable[[], T]) -> T:
        """What the action gives here; where it raises an error in one process, all raise one."""
        own: list[T] = []
        self.all(lambda: own.append(action()))
        return own[0]

    def only_first(self, action: Callable[[], None]) -> None:
        """Have the first process do something, while the others wait; an error there is one everywhere."""
        self.all(action if self.first else lambda: None)

    def any(self, here: bool) -> bool:
        """Whether something is so in one process or more."""
        if self.size == 1:
            return here
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients of all processes; a parameter without one in any process stays without."""
        if self.size == 1:
            return
        there = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        dist.all_reduce(there, dist.ReduceOp.MAX)
        moved = [parameter for parameter, one in zip(parameters, there.tolist(), strict=True) if one]
        for parameter in moved:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in moved if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            _write_back(flat, bucket)

    def copy_from(self, rank: int, parameters: Sequence[nn.Parameter]) -> None:
        """Give parameters the values that they have in one of the processes."""
        if self.size == 1 or not parameters:
            return
        for bucket in _buckets([parameter.detach() for parameter in parameters]):
            flat = torch.cat([value.flatten() for value in bucket])
            dist.broadcast(flat, rank)
            _write_back(flat, bucket)

    def check_same(self, value: object, what: str) -> None:
        """Make sure that all processes have an equal value: what they compute together would be wrong.

        Raises:
            ConfigError: they have not.
        """
        found = self.all(lambda: value)
        if any(other != found[0] for other in found):
            others = [rank for rank, other in enumerate(found) if other != found[0]]
            raise ConfigError(
                f"process {others[0]} has not the same {what} as process 0; start all with one configuration, on the "
                "same data and the same versions of everything"
            )


def is_everywhere(error: BaseException) -> bool:
    """Whether all processes have raised an error for what one of them met."""
    return bool(error.__dict__.get("everywhere"))


def _gravest(failures: Sequence[tuple[int, tuple[str, str]]], rank: int, own: Exception | None) -> Exception:
    """The error that all processes raise: the first that a second try would not help, else the first.

    For one might be tried again where it was raised, while another process has given up.
    """
    hopeless = [failed for failed in failures if failed[1][0] != NotFiniteError.__name__]
    where, (kind, text) = (hopeless or list(failures))[0]
    error: Exception = TrainingError(f"process {where} ended with {kind}: {text.splitlines()[0]}")
    found = getattr(errors, kind, None)
    if own is not None and where == rank:
        error = own
    elif isinstance(found, type) and issubclass(found, PemetaError) and found is not errors.FieldError:
        error = found(text)
    if isinstance(error, PemetaError):
        error.told = rank > 0
    return error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type and device, none much larger than :data:`BUCKET`."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        bucket: list[Tensor] = []
        for tensor in group:
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def _write_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def launched() -> bool:
    """Whether this process is one of several that a launcher such as torchrun has started."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    except ValueError:
        return False


@contextmanager
def process_group() -> Iterator[Processes]:
    """Within the block this process is one of those that torchrun or `accelerate launch` has started, if one has.

    Raises:
        ConfigError: the processes cannot find each other.
    """
    if not launched():
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {os.environ.get('RANK')} cannot join the others: {reason(error)}; start them with torchrun or "
            "accelerate launch"
        ) from None
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


def device_of_process(name: str) -> str:
    """The device of one of several processes on a machine, by the name that all were given.

    Raises:
        ConfigError: there are fewer devices than processes, or the name is that of a single one.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto" and not torch.cuda.is_available():
        return name
    if name not in ("auto", "cuda"):
        if ":" in name:
            raise ConfigError(f"device {name!r} is one device, and several processes were started; use cuda or cpu")
        return name
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; start as "
            "many processes as there are GPUs"
        )
    return f"cuda:{local}"
