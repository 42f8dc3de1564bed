"""An adapter beside a feed-forward block that is no module: from its first map's input to its last one's output."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from pemeta.utils.precision import as_held, wide


class BlockInput(nn.Module):
    """What a block was called with, from when its first map has got it to when its last one has given the output.

    The same object is in both maps, so that a copy of the model has one of its own. Each thread has its own input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": {}}  # of a pass that an error has ended

    def keep(self, value: Tensor) -> None:
        """Keep the input of the present call."""
        self.held[threading.get_ident()] = value

    def take(self) -> Tensor:
        """Give the input, and forget it."""
        return self.held.pop(threading.get_ident())


def keep_input(added: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Keep what the block's first map is called with (a hook before it)."""
    assert isinstance(added, BlockInput)
    added.keep(arguments[0])


def add_beside(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Add the adapter's output to that of the block's last map (a hook after it)."""
    source = added.source
    assert isinstance(source, BlockInput)
    hidden = source.take()
    return output + added(as_held(wide(hidden), next(added.parameters())))  # type: ignore[no-any-return]
