"""Making batches in a thread of their own, while a GPU computes with those before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """What a function makes of 0, 1, ...; for CUDA a thread makes the next one while the current one is used.

    Making a batch and copying it to pinned memory then costs the training thread nothing. On a processor, whose cores
    are busy with the passes, everything is made when it is asked for.

    Args:
        make: Makes something of a number, which it alone depends on.
        total: One more than the last number.
        device: Where what is made will be used.
    """

    def __init__(self, make: Callable[[int], T], total: int, device: torch.device) -> None:
        self._make, self._total, self._device = make, total, device
        self._threads: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[T]] | None = None

    @property
    def on(self) -> bool:
        """Whether anything is made ahead."""
        return self._device.type == "cuda"

    def take(self, number: int) -> T:
        """What is made of a number; an error in making it is raised here. The next one is begun."""
        if not self.on:
            return self._make(number)
        waiting, self._next = self._next, None
        ours = waiting is not None and waiting[0] == number
        made = waiting[1].result() if waiting is not None and ours else self._make(number)
        if number + 1 < self._total:
            self._threads = self._threads or ThreadPoolExecutor(1, "pemeta-ahead")
            stream = torch.cuda.current_stream(self._device)
            self._next = number + 1, self._threads.submit(self._on_device, number + 1, stream)
        return made

    def _on_device(self, number: int, stream: torch.cuda.Stream) -> T:
        # Both are each thread's own: pinned memory belongs to a device, and hidden states on it to a stream's order.
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            return self._make(number)

    def close(self) -> None:
        """End the thread; what it has made ahead is dropped."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._threads = self._next = None


def in_turn(make: Callable[[int], T], total: int, device: torch.device) -> Iterator[T]:
    """What a function makes of 0, 1, ... ``total`` - 1, with the next one made ahead as by :class:`Ahead`."""
    ahead = Ahead(make, total, device)
    try:
        for number in range(total):
            yield ahead.take(number)
    finally:
        ahead.close()
