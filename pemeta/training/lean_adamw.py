"""AdamW whose moments take less of a device's memory: in 8 bits, or in memory that a GPU's driver pages out.

The steps are those of the package bitsandbytes (Dettmers et al., 2022, and Dettmers et al., 2023, for paging), an
extra: ``pip install "pemeta[lean]"``. AdamW's own moments are 8 bytes for each parameter that it moves.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pemeta.errors import ConfigError
from pemeta.training.master_values import MasterValues, unfit
from pemeta.typing import State

AdamWKind: TypeAlias = Literal["adamw", "adamw_fused", "adamw_8bit", "adamw_paged", "adamw_8bit_paged"]
"""PyTorch's AdamW; as one operation; with moments in 8 bits; with moments that may be paged out of a GPU; and both."""
OF_PYTORCH = ("adamw", "adamw_fused")

_CLASSES = {"adamw_8bit": "AdamW8bit", "adamw_paged": "PagedAdamW32bit", "adamw_8bit_paged": "PagedAdamW8bit"}
SMALL = 4096
"""Parameters with fewer numbers have moments in float32 (bitsandbytes' choice)."""
PAGED_FROM = 100_000
"""Parameters with fewer numbers have moments that stay on the GPU (bitsandbytes' choice)."""
BLOCK = 256
"""Numbers of a moment in 8 bits that share a scale (bitsandbytes' choice)."""
_CONSTANTS = ("qmap1", "qmap2")
"""What bitsandbytes keeps beside the moments of each parameter, and is the same for all."""


class LeanAdamW(MasterValues):
    """The part that is pemeta's of an AdamW of bitsandbytes: float32 values, and checkpoints that are exact."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        moved = self._take(parameters)
        if any(value.dtype is torch.float64 for value in moved):
            raise ConfigError(
                "an AdamW of bitsandbytes moves parameters in float32 at most; found float64; set "
                "optimizer: adamw, or convert the model with .float()"
            )
        super().__init__(moved, lr=lr, weight_decay=weight_decay)  # type: ignore[call-arg]

    def moments(self) -> dict[int, State]:
        """What is kept for each parameter that was moved, by its place, on the CPU."""
        kept = {place: self.state[value] for place, value in enumerate(self.moved) if self.state.get(value)}
        return {place: {key: _saved(one) for key, one in _own(state)} for place, state in kept.items()}

    def load_moments(self, moments: Mapping[int, State], groups: Sequence[Mapping[str, Any]]) -> None:
        """Put back :meth:`moments`, where bitsandbytes would have them: what it pages out stays paged.

        Raises:
            ValueError: They are of other parameters, or another kind of AdamW.
        """
        [group], [saved] = self.param_groups, groups
        for place, state in moments.items():
            if place >= len(self.moved):
                raise unfit(place)
            self.init_state(group, self.moved[place], 0, place)  # type: ignore[attr-defined]
            here = self.state[self.moved[place]]
            facts = {key: (one.shape, one.dtype) for key, one in ((key, _saved(one)) for key, one in _own(here))}
            if {key: (one.shape, one.dtype) for key, one in state.items()} != facts:
                raise unfit(place)
            for key, value in state.items():
                if isinstance(here[key], Tensor):
                    here[key].copy_(value)
                else:
                    here[key] = int(value)
        group.update({key: value for key, value in saved.items() if key != "params"})


def _own(state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in state.items() if key not in _CONSTANTS]


def _saved(value: Any) -> Tensor:
    """A number as a tensor, and a tensor on the CPU."""
    return value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value, device="cpu")


def lean_adamw(kind: AdamWKind, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float) -> LeanAdamW:
    """A kind of AdamW that is not PyTorch's.

    Raises:
        ConfigError: bitsandbytes is missing, or has no such step for the parameters' device or type.
    """
    require_kind(kind, parameters[0].device if parameters else torch.device("cpu"))
    return _class(kind)(parameters, lr, weight_decay)


def require_kind(kind: AdamWKind, device: torch.device) -> None:
    """Check that a kind of AdamW can be used on a device, before anything that takes time.

    Raises:
        ConfigError: it cannot.
    """
    if kind in OF_PYTORCH:
        return
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"optimizer: {kind} is a step of the package bitsandbytes, which is not installed; run `pip install "
            "'pemeta[lean]'`, or set optimizer: adamw"
        )
    if kind.endswith("paged") and device.type != "cuda":
        other = "adamw_8bit" if "8bit" in kind else "adamw"
        raise ConfigError(
            f"optimizer: {kind} keeps moments in memory that a GPU shares with the CPU, but this run is on "
            f"{device.type!r}; set optimizer: {other}"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"bitsandbytes has no 8-bit step for {device.type!r} devices; set optimizer: adamw")


@cache
def _class(kind: AdamWKind) -> type[LeanAdamW]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what it was built without
        import bitsandbytes
    base = getattr(bitsandbytes.optim, _CLASSES[kind])
    return type(base.__name__, (LeanAdamW, base), {})


def moment_bytes(kind: AdamWKind, parameters: Sequence[Tensor]) -> tuple[int, int]:
    """Bytes of the moments of some parameters: those that stay on the device, and those that may be paged out.

    >>> moment_bytes("adamw", [torch.zeros(8192)]), moment_bytes("adamw_8bit", [torch.zeros(8192)])
    ((65536, 0), (16640, 0))
    """
    stay = paged = 0
    for parameter in parameters:
        number = parameter.numel()
        lean = "8bit" in kind and number >= SMALL
        codes = (2 if lean else 8) * number
        may = kind.endswith("paged") and number >= PAGED_FROM
        stay += (0 if may else codes) + (8 * -(-number // BLOCK) if lean else 0)
        paged += codes if may else 0
    return stay, paged
