"""The paper's adapter: one bottleneck after the last layer of the backbone."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from transformers.activations import ACT2FN

from pemeta.errors import ModelError
from pemeta.methods.base import PEMethod

CHILD = "pemeta_adapter"


class Bottleneck(nn.Module):
    """``x + W_up act(W_down x + b_down) + b_up``, mapping (..., D) to (..., D) through K units.

    ``W_up`` starts near zero (normal, ``init_std``) and the biases at zero, so that attaching the module
    hardly changes the backbone's output (Houlsby et al., 2019, §2).
    """

    def __init__(self, width: int, bottleneck: int, activation: str, init_std: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = ACT2FN[activation]
        nn.init.zeros_(self.down.bias)
        nn.init.normal_(self.up.weight, std=init_std)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return hidden + self.up(self.activation(self.down(hidden)))  # type: ignore[no-any-return]


class Adapter(PEMethod):
    """A single residual bottleneck adapter directly after the pretrained model (paper, §4 and Figure 2).

    θ_a is the bottleneck's two linear maps: ``2 D K + K + D`` parameters.

    Attributes:
        bottleneck: units K of the bottleneck; 64 (§4.2).
        activation: non-linearity between the projections; GELU, our choice: the paper does not say.
        init_std: standard deviation of the up-projection at the start; 1e-3, our choice.

    >>> Adapter(bottleneck=16).to_config()
    {'name': 'adapter', 'bottleneck': 16, 'activation': 'gelu', 'init_std': 0.001}
    """

    name: ClassVar[str] = "adapter"
    paper: ClassVar[str] = "Houlsby et al. (2019), Parameter-Efficient Transfer Learning for NLP; placed as in Figure 2"

    output_only: ClassVar[bool] = True

    bottleneck: int = Field(64, gt=0)
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    init_std: float = Field(1e-3, ge=0)

    def attach(self, backbone: nn.Module) -> None:  # noqa: D102 - inherited
        if hasattr(backbone, CHILD):
            raise ModelError("the backbone has an output adapter already; detach it before attaching another")
        width = getattr(getattr(backbone, "config", None), "hidden_size", None)
        if not isinstance(width, int):
            raise ModelError(
                f"an adapter needs the width of the hidden states, but {type(backbone).__name__} has no "
                "config.hidden_size; give a backbone that has"
            )
        reference = next(backbone.parameters())
        module = Bottleneck(width, self.bottleneck, self.activation, self.init_std)
        backbone.add_module(CHILD, module.to(device=reference.device, dtype=reference.dtype))

    def detach(self, backbone: nn.Module) -> None:  # noqa: D102 - inherited
        delattr(backbone, CHILD)

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:  # noqa: D102 - inherited
        if not hasattr(backbone, CHILD):
            raise ModelError("the adapter is not attached to this backbone; attach it first")
        return tuple(name for name, _ in backbone.named_parameters() if name.startswith(f"{CHILD}."))

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:  # noqa: D102 - inherited
        return getattr(backbone, CHILD)(hidden)  # type: ignore[no-any-return]
