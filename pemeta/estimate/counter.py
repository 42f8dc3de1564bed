"""Counting of what PyTorch's operations compute and hold, on tensors that have shapes but no values."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


class Kind(NamedTuple):
    """A kind of operation; operations of one kind cost the same.

    Attributes:
        dtype: type that it computes in.
        flops: multiplications and additions of its matrix products; zero if it has none.
        moved: bytes that it reads and writes.
    """

    dtype: torch.dtype
    flops: int
    moved: int


class Work(Counter[Kind]):
    """The number of operations of each kind."""

    @property
    def flops(self) -> int:
        """Operations of all matrix products: 2 for a multiplication with its addition."""
        return sum(kind.flops * count for kind, count in self.items())

    @classmethod
    def of(cls, *parts: Counter[Kind]) -> Work:
        """The sum of several works."""
        whole = cls()
        for part in parts:
            whole.update(part)
        return whole

    def times(self, number: int, of: int = 1) -> Work:
        """The work of ``number`` equal parts, given that this is the work of ``of`` parts."""
        return Work({kind: count * number // of for kind, count in self.items()})


@dataclass
class Peak:
    """The most that was held in a phase, the number of the operation that reached it, and what was held of a size.

    Attributes:
        held: bytes of all tensors.
        at: number of the operation.
        watched: bytes, at that time, of the tensors of a watched size.
    """

    held: int = 0
    at: int = 0
    watched: int = 0


class CostCounter(TorchDispatchMode):
    """Counts, within the block, the operations and the memory of tensors made in it or :meth:`known` before.

    The tensors are those of a ``FakeTensorMode``, in which nothing is computed. A number that code asks for is
    therefore taken to be 1, and a truth value to be False.

    Attributes:
        work: all operations except views.
        held: bytes of all live tensors.
        peaks: the peak of each phase, in the order in which the phases began.
        phase: the current phase.
        watched: bytes of the live tensors of two or more dimensions that have a watched size.

    Args:
        watch: a size, such as that of a vocabulary; None for none.
    """

    def __init__(self, watch: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()
        self.held = self.watched = 0
        self._watch = watch
        self.peaks: dict[str, Peak] = {}
        self.phase = ""
        # Size of each storage, when it was made, and whether it is watched.
        self._born: dict[int, tuple[int, int, bool]] = {}
        self._clock = 0

    def known(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that exist already; returns their bytes."""
        before = self.held
        for tensor in tensors:
            self._add(tensor)
        return self.held - before

    def begin(self) -> None:
        """Reset the work and the peaks; live tensors stay counted."""
        self.work = Work()
        self.peaks.clear()

    def take_work(self) -> Work:
        """Return the work since the last call, and reset it."""
        taken, self.work = self.work, Work()
        return taken

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """Make ``phase`` the current phase within the block."""
        outer, self.phase = self.phase, phase
        self._note()
        try:
            yield
        finally:
            self.phase = outer
            self._note()

    def alive_at(self, tensors: Iterable[Tensor], peak: Peak) -> int:
        """Bytes of those of the given live tensors that existed at a peak."""
        storages = {tensor.untyped_storage()._cdata for tensor in tensors}
        return sum(size for size, born, _ in map(self._born.__getitem__, storages) if born <= peak.at)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        self._clock += 1
        if func is aten._local_scalar_dense.default:
            if type(args[0]) is Tensor:
                return known_value(args[0])
            return False if args[0].dtype is torch.bool else 1
        if _chooses_rows(func, args):
            # How many rows a mask selects is unknown; assume all of them, as without padding.
            out = args[0].flatten(0, args[1][0].dim() - 1).clone()
        else:
            out = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]
        is_new = [self._add(tensor) for tensor in made]
        if any(is_new) or func._schema.is_mutable:
            self.work[_kind(func, args, kwargs or {}, out, made)] += 1
        self._note()
        return out

    def _add(self, tensor: Tensor) -> bool:
        """Count a tensor's storage; False if it was counted before."""
        if tensor.layout is not torch.strided:  # a sparse gradient's rows were counted when they were made
            return True
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._born:
            return False
        seen = tensor.ndim > 1 and self._watch in tensor.shape
        self._born[key] = storage.nbytes(), self._clock, seen
        self.held += storage.nbytes()
        self.watched += storage.nbytes() * seen
        weakref.finalize(storage, self._freed, key)
        return True

    def _freed(self, key: int) -> None:
        size, _, seen = self._born.pop(key)
        self.held -= size
        self.watched -= size * seen

    def _note(self) -> None:
        peak = self.peaks.setdefault(self.phase, Peak())
        if self.held > peak.held:
            peak.held, peak.at, peak.watched = self.held, self._clock, self.watched


def known_value(tensor: Tensor) -> Any:
    """The value of a tensor that has one."""
    with _disable_current_modes():
        return tensor.item()


def _chooses_rows(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operation takes the rows that one mask selects."""
    return func is aten.index.Tensor and len(args[1]) == 1 and args[1][0].dtype is torch.bool


def _kind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any, made: list[Tensor]) -> Kind:
    read = [tensor for tensor in tree_leaves([args, kwargs]) if isinstance(tensor, Tensor)]
    if func._overloadpacket in _LOOKS_UP:  # only as many rows of the table are read as are returned
        read = made
    moved = sum(_size(tensor) for tensor in (*read, *made))
    count = _COUNTS.get(func._overloadpacket)
    flops = int(count(*args, **kwargs, out_val=out)) if count is not None else 0
    floating = next((t.dtype for t in (*read, *made) if t.dtype.is_floating_point), torch.float32)
    return Kind(floating, flops, moved)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize if tensor.layout is torch.strided else 0


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _fused_attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


_LOOKS_UP = {aten.embedding, aten.index_select}

_COUNTS: dict[Any, Callable[..., int]] = {
    **flop_registry,  # PyTorch's own, which lacks the CPU's kernels of fused attention
    aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_attention_backward,
}
