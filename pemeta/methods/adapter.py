"""Bottleneck adapters: after the backbone, as in the paper, or inside its layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers.activations import ACT2FN
from typing_extensions import Self

from pemeta.backbone.architectures import architecture_of, layer_names, linear_sizes
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.utils.precision import as_held


class Bottleneck(nn.Module):
    """``s (W_up act(W_down x + b_down) + b_up)``, mapping (..., D) to (..., D) through K units.

    ``W_up`` starts near zero (normal, ``init_std``) and the biases at zero, so that attaching the module
    hardly changes the backbone's output (Houlsby et al., 2019, §2).
    """

    def __init__(self, width: int, bottleneck: int, activation: str, init_std: float, scale: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = ACT2FN[activation]
        self.scale = scale
        nn.init.zeros_(self.down.bias)
        nn.init.normal_(self.up.weight, std=init_std)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to (..., D), to be added to the output of the adapted part."""
        return self.up(self.activation(self.down(hidden))) * self.scale  # type: ignore[no-any-return]


def _serial(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Add an adapter's output after a sublayer's last map, before the residual is added."""
    return output + added(output)  # type: ignore[no-any-return]


def _parallel(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Add an adapter's output in parallel to a feed-forward block that is one module."""
    return output + added(arguments[0])  # type: ignore[no-any-return]


def _parallel_residual(added: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Adapt a feed-forward block whose last module takes (inner, input) and adds the input itself."""
    inner, block_input = arguments
    return inner, block_input + added(block_input)


class Adapter(Inserted):
    """A residual bottleneck: directly after the pretrained model (paper, §4 and Figure 2), or in each layer.

    θ_a consists of each bottleneck's two linear maps: ``2 D K + K + D`` parameters for one at the ``output``, times
    2 L for ``houlsby`` (L layers), and times L for ``pfeiffer`` and ``parallel``.

    Attributes:
        bottleneck: number of units K of the bottleneck; 64 (§4.2).
        placement: ``output`` is the paper's: one adapter after the last layer. ``houlsby``: after the attention and
            the feed-forward block of each layer, before the residual is added (Houlsby et al., 2019). ``pfeiffer``:
            after the feed-forward block only (Pfeiffer et al., 2021); inserted like Houlsby's, our choice.
            ``parallel``: in parallel to the feed-forward block, from its input (He et al., 2022).
        activation: non-linearity between the projections; GELU, our choice: the paper does not specify it.
        init_std: initial standard deviation of the up-projection; 1e-3, our choice. With 0, attaching the adapter
            leaves the output exactly as it is.
        scale: factor s on the bottleneck's output; 1, our choice. He et al. (2022) use 4 for ``parallel``.
        top_layers: number of layers to adapt, counted from the top; null for all. Not available for ``output``.

    >>> Adapter(bottleneck=16).to_config()["placement"]
    'output'
    """

    name: ClassVar[str] = "adapter"
    paper: ClassVar[str] = "Houlsby et al. (2019), Parameter-Efficient Transfer Learning for NLP; placed as in Figure 2"

    bottleneck: int = Field(64, gt=0)
    placement: Literal["output", "houlsby", "pfeiffer", "parallel"] = "output"
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    init_std: float = Field(1e-3, ge=0)
    scale: float = Field(1.0, gt=0)
    top_layers: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _layers_are_inside(self) -> Self:
        if self.output_only and self.top_layers is not None:
            raise ValueError(
                f"top_layers is {self.top_layers}, but the adapter at the output is outside the layers; remove "
                "top_layers or choose another placement"
            )
        return self

    @property
    def child(self) -> str:
        """Name of the added modules: one for each placement, so that a backbone can have several."""
        return "pemeta_adapter" if self.output_only else f"pemeta_{self.placement}"

    @property
    def output_only(self) -> bool:
        """True for the paper's placement."""
        return self.placement == "output"

    @property
    def identity_at_start(self) -> bool:
        """True only if the up-projection starts at zero; otherwise the output is nearly the same."""
        return self.init_std == 0

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """One bottleneck after the backbone, or one or two in each layer."""
        if self.placement == "output":
            return [Insertion("", self._maker(hidden_size(backbone)))]
        parts = architecture_of(backbone)
        after = {"houlsby": (parts.attention_output, parts.ffn_down), "pfeiffer": (parts.ffn_down,), "parallel": ()}
        found = []
        for layer in layer_names(backbone, self.top_layers):
            for name in after[self.placement]:
                width = linear_sizes(backbone.get_submodule(f"{layer}.{name}"))[1]
                found.append(Insertion(f"{layer}.{name}", self._maker(width), after=_serial))
            if self.placement == "parallel":
                make = self._maker(hidden_size(backbone))
                hook = {"before": _parallel_residual} if parts.ffn_residual else {"after": _parallel}
                found.append(Insertion(f"{layer}.{parts.ffn}", make, **hook))
        return found

    def _maker(self, width: int) -> partial[Bottleneck]:
        return partial(Bottleneck, width, self.bottleneck, self.activation, self.init_std, self.scale)

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:
        """Apply the adapter at the output; the other placements act within the layers."""
        if not self.output_only:
            return hidden
        added = getattr(backbone, self.child)
        return hidden + added(as_held(hidden, added.down.weight))  # type: ignore[no-any-return]


def hidden_size(backbone: nn.Module) -> int:
    """Width D of the backbone's hidden states.

    Raises:
        ModelError: its configuration has no ``hidden_size``.
    """
    width = getattr(getattr(backbone, "config", None), "hidden_size", None)
    if not isinstance(width, int):
        raise ModelError(
            f"an adapter needs the width of the hidden states, but {type(backbone).__name__} has no "
            "config.hidden_size; set it in the backbone's configuration"
        )
    return width
