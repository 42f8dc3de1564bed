"""What was found about a tensor, remembered as long as the tensor lives and is not changed in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """A function of a tensor that asks it once, so that passes over one batch do not each wait for its device.

    A change in place is seen by the tensor's version. Tensors of inference mode have none, and are asked each time.

    Args:
        find: The function.

    >>> import torch
    >>> largest, numbers = Remembered(lambda tensor: tensor.max().item()), torch.tensor([1, 2])
    >>> largest(numbers), largest(numbers.add_(1)), largest(numbers)
    (2, 3, 3)
    """

    def __init__(self, find: Callable[[Tensor], Found]) -> None:
        self._find = find
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __call__(self, tensor: Tensor) -> Found:
        """What the function finds, or has found."""
        if tensor.is_inference():
            return self._find(tensor)
        version, found = self._known.get(tensor, (None, None))
        if version != tensor._version:
            found = self._find(tensor)
            self.note(tensor, found)
        return cast(Found, found)

    def note(self, tensor: Tensor, found: Found) -> None:
        """Remember what is known about a tensor without asking it."""
        if not tensor.is_inference():
            self._known[tensor] = tensor._version, found

    def knows(self, tensor: Tensor) -> bool:
        """Whether the next call would not ask the tensor."""
        return not tensor.is_inference() and self._known.get(tensor, (None,))[0] == tensor._version
