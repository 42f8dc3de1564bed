"""Bottleneck adapters: after the backbone, as in the paper, or inside its layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers.activations import ACT2FN
from typing_extensions import Self

from pemeta.backbone.architectures import layer_names, parts_of
from pemeta.backbone.given import output_width
from pemeta.backbone.maps import linear_sizes
from pemeta.backbone.structure.description import Architecture
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.side_path import BlockInput, add_beside, keep_input
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


def _serial(added: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Add an adapter's output after a sublayer's last map, before the residual is added."""
    if isinstance(output, tuple):  # of a block with experts, whose scores follow
        return (output[0] + added(output[0]), *output[1:])
    return output + added(output)


def _parallel(added: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Add an adapter's output in parallel to a feed-forward block that is one module."""
    if isinstance(output, tuple):
        return (output[0] + added(arguments[0]), *output[1:])
    return output + added(arguments[0])


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
    def by_example(self) -> bool:
        """True: each bottleneck acts on a token."""
        return True

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
            return [Insertion("", self._maker(output_width(backbone) or hidden_size(backbone)))]
        found: list[Insertion] = []
        for layer in layer_names(backbone, self.top_layers):
            parts = parts_of(backbone, layer)
            if self.placement == "parallel":
                found += self._beside(backbone, layer, parts)
                continue
            after = [parts.one("attention_output")] if self.placement == "houlsby" else []
            for name in (*after, parts.block_output):
                part = backbone.get_submodule(f"{layer}.{name}")
                width = hidden_size(backbone) if name == parts.ffn else linear_sizes(part)[1]  # a block of experts
                found.append(Insertion(f"{layer}.{name}", self._maker(width), after=_serial))
        return found

    def _beside(self, backbone: nn.Module, layer: str, parts: Architecture) -> list[Insertion]:
        """One bottleneck in parallel to a layer's feed-forward block, whose last map alone is a module in some."""
        if parts.ffn is not None:
            width = linear_sizes(backbone.get_submodule(f"{layer}.{parts.ffn_up[0]}"))[0] if parts.ffn_up else None
            hook = {"before": _parallel_residual} if parts.ffn_residual else {"after": _parallel}
            return [Insertion(f"{layer}.{parts.ffn}", self._maker(width or hidden_size(backbone)), **hook)]
        first, last = f"{layer}.{parts.part('ffn_up')[0]}", f"{layer}.{parts.one('ffn_down')}"
        source = BlockInput()
        make = partial(_fed_by, self._maker(linear_sizes(backbone.get_submodule(first))[0]), source)
        return [Insertion(first, lambda: source, before=keep_input), Insertion(last, make, after=add_beside)]

    def _maker(self, width: int) -> partial[Bottleneck]:
        return partial(Bottleneck, width, self.bottleneck, self.activation, self.init_std, self.scale)

    def transform(self, backbone: nn.Module, hidden: Tensor) -> Tensor:
        """Apply the adapter at the output; the other placements act within the layers."""
        if not self.output_only:
            return hidden
        added = getattr(backbone, self.child)
        return hidden + added(as_held(hidden, added.down.weight))  # type: ignore[no-any-return]


def _fed_by(make: partial[Bottleneck], source: BlockInput) -> Bottleneck:
    """A bottleneck that gets its input from where the block's is kept."""
    made = make()
    made.source = source
    return made


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
