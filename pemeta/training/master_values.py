"""Optimisers whose parameters may be in half precision: they move float32 values, which parameters are rounded from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pemeta.typing import State
from pemeta.utils.precision import HALF, wide


class MasterValues(Optimizer):
    """An optimiser that keeps float32 values of parameters in half precision, and moves those.

    An update of 1e-5 is lost in a bfloat16 parameter of 0.1, whose next number is 5e-4 away. It is not in the float32
    value, from which the parameter is rounded after each step (Micikevicius et al., 2018, §3.1); what the optimiser
    keeps of gradients is of those values too. Parameters in float32 or float64 are moved themselves.

    Whatever else changes a parameter counts: where it is no longer its float32 value, rounded, the next step starts
    from the parameter.

    Attributes:
        moved: The parameters, with float32 values in place of those in half precision.
    """

    moved: list[nn.Parameter]
    _masters: dict[nn.Parameter, nn.Parameter]

    def _take(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Make the float32 values, and return what is moved; to be called before PyTorch's own constructor."""
        self._masters = {p: nn.Parameter(wide(p.detach())) for p in parameters if p.dtype in HALF}
        self.moved = [self._masters.get(parameter, parameter) for parameter in parameters]
        return self.moved

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, those of parameters in half precision included."""
        super().zero_grad(set_to_none)
        for parameter in self._masters:
            parameter.grad = None

    @torch.no_grad()
    def take_gradients(self, scale: float) -> None:
        """Bring the gradients to what is moved, divided by the scale of their loss: in float32 no small one is lost."""
        for parameter, master in self._masters.items():
            master.grad = None if parameter.grad is None else parameter.grad.float()
        if scale != 1:
            for gradient in (value.grad for value in self.moved if value.grad is not None):
                gradient.div_(scale)

    @torch.no_grad()
    def take_values(self) -> None:
        """Take over parameters, or elements of them, that something else has changed since the last step."""
        for parameter, master in self._masters.items():
            same = master.to(parameter.dtype) == parameter
            master.copy_(torch.where(same, master, parameter.float()))

    @torch.no_grad()
    def give_values(self) -> None:
        """Round the parameters from their float32 values, and release the gradients of these."""
        for parameter, master in self._masters.items():
            parameter.copy_(master)
            master.grad = None

    def moments(self) -> dict[int, State]:
        """What the optimiser keeps for each parameter that it has moved, by its place, on the CPU."""
        kept = {place: self.state[value] for place, value in enumerate(self.moved) if self.state.get(value)}
        return {place: {key: one.detach().cpu() for key, one in state.items()} for place, state in kept.items()}

    @abstractmethod
    def load_moments(self, moments: Mapping[int, State], groups: Sequence[Mapping[str, Any]]) -> None:
        """Put back :meth:`moments`, and the groups' rates.

        How a step is computed stays as it is here: the state may come from another kind of device.

        Raises:
            ValueError: They are of other parameters.
        """

    def moments_of(self, parameter: nn.Parameter) -> State:
        """The moments of a parameter; empty before its first step."""
        return dict(self.state.get(self._masters.get(parameter, parameter), {}))

    def master_values(self) -> State:
        """The float32 values, by the places of their parameters."""
        masters = set(self._masters.values())
        return {str(place): value.detach() for place, value in enumerate(self.moved) if value in masters}

    def load_master_values(self, values: Mapping[str, Tensor]) -> None:
        """Put back :meth:`master_values`.

        Raises:
            ValueError: They are of other parameters.
        """
        here = self.master_values()
        if {key: value.shape for key, value in values.items()} != {key: value.shape for key, value in here.items()}:
            raise ValueError("it does not hold the float32 values of exactly the parameters in half precision")
        for key, value in values.items():
            here[key].copy_(value)


class MasterAdamW(MasterValues, AdamW):
    """AdamW (Loshchilov and Hutter, 2019) on float32 values of parameters in half precision.

    Args:
        parameters: What is optimised.
        lr: The learning rate.
        weight_decay: Decoupled weight decay.
        fused: Move all parameters in one operation per step; by default where that is fastest, on CUDA.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float, fused: bool | None = None
    ) -> None:
        moved = self._take(parameters)
        if fused is None and moved and all(value.device.type == "cuda" for value in moved):
            fused = True
        AdamW.__init__(self, moved, lr=lr, weight_decay=weight_decay, fused=fused)

    def load_moments(self, moments: Mapping[int, State], groups: Sequence[Mapping[str, Any]]) -> None:
        """Put back the state of each parameter, by its place, and the groups' rates.

        Raises:
            ValueError: The state is of other parameters; PyTorch alone would take it and fail in a later step.
        """
        for place, state in moments.items():
            shapes = {key: value.shape for key, value in state.items()}
            shape = self.moved[place].shape if place < len(self.moved) else None
            if shapes != {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}:
                raise unfit(place)
        here = {key: self.param_groups[0][key] for key in ("foreach", "fused")}
        self.load_state_dict({"state": moments, "param_groups": [{**group, **here} for group in groups]})


def unfit(place: int) -> ValueError:
    """The error for a state that is of another parameter."""
    return ValueError(f"the optimiser's state of parameter {place} does not fit")


def moments_of(optimizer: Optimizer, parameter: nn.Parameter) -> State:
    """What an optimiser keeps for a parameter; empty before its first step."""
    if isinstance(optimizer, MasterValues):
        return optimizer.moments_of(parameter)
    return dict(optimizer.state.get(parameter, {}))
