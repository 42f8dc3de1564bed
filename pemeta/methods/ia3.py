"""IA³: learned factors on keys, values and the feed-forward block's inner activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.architectures import layer_names, parts_of
from pemeta.backbone.maps import linear_sizes, transposed
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.peft_targets import matched_modules, parts_and_layers, refuse_unknown_settings

CHILD = "pemeta_ia3"


class Factors(nn.Module):
    """One learned factor for each feature of a linear map's input or output, initially 1."""

    def __init__(self, width: int, of_input: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.of_input = of_input

    def forward(self, x: Tensor) -> Tensor:
        """Scale (..., width)."""
        return x * self.scale


def _scale_output(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return added(output)  # type: ignore[no-any-return]


def _scale_input(added: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (added(arguments[0]), *arguments[1:])


class IA3(Inserted):
    """Infused adapter: factors on the keys, the values and the inner activation of each feed-forward block.

    θ_a consists of the factors: ``key + value + inner width`` parameters per layer. Where query, key and value are
    one fused map (GPT-2, ModernBERT), its whole output is scaled, as in PEFT.

    Attributes:
        top_layers: number of layers to adapt, counted from the top; null for all.

    >>> IA3(top_layers=2).to_config()
    {'name': 'ia3', 'top_layers': 2}
    """

    name: ClassVar[str] = "ia3"
    paper: ClassVar[str] = "Liu et al. (2022), Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than ICL"

    top_layers: int | None = Field(None, gt=0)

    @property
    def by_example(self) -> bool:
        """True: a factor acts on a token."""
        return True

    @property
    def child(self) -> str:
        """Name of the added modules."""
        return CHILD

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """Factors on the outputs of the key and value maps, and on the input of the feed-forward block's last map."""
        found = []
        for layer in layer_names(backbone, self.top_layers):
            parts = parts_of(backbone, layer)
            for name in dict.fromkeys((parts.one("key"), parts.one("value"))):
                out = linear_sizes(backbone.get_submodule(f"{layer}.{name}"))[1]
                found.append(Insertion(f"{layer}.{name}", partial(Factors, out, False), after=_scale_output))
            down = f"{layer}.{parts.one('ffn_down')}"
            width = linear_sizes(backbone.get_submodule(down))[0]
            found.append(Insertion(down, partial(Factors, width, True), before=_scale_input))
        return found

    @property
    def mergeable(self) -> bool:
        """True: a factor scales a row or a column of the map's weight."""
        return True

    @torch.no_grad()
    def merge(self, backbone: nn.Module) -> None:
        """Scale the rows of key and value maps, and the columns of the feed-forward block's last map."""
        for linear in self.parts(backbone):
            factors = getattr(linear, CHILD)
            weight, bias = linear.weight, getattr(linear, "bias", None)
            along_rows = factors.of_input == transposed(linear)
            weight *= factors.scale[:, None] if along_rows else factors.scale
            if bias is not None and not factors.of_input:
                bias *= factors.scale
        self.detach(backbone)

    def peft_config(self, backbone: nn.Module) -> dict[str, Any]:
        """The fields of PEFT's ``IA3Config``, with the full name of each map."""
        insertions = self.insertions(backbone)
        return {
            "peft_type": "IA3",
            "target_modules": [one.path for one in insertions],
            "feedforward_modules": [one.path for one in insertions if one.before is not None],
            "fan_in_fan_out": transposed(backbone.get_submodule(insertions[0].path)),
        }

    def peft_names(self, backbone: nn.Module) -> dict[str, str]:
        """Mapping from each name to PEFT's, where ``scale`` becomes ``ia3_l``."""
        return {name: name.replace(f"{CHILD}.scale", "ia3_l") for name in self.theta_a(backbone)}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], backbone: nn.Module) -> Self | None:
        """The IA³ that the configuration describes, on keys, values and feed-forward blocks."""
        if config.get("peft_type") != "IA3":
            return None
        refuse_unknown_settings(
            config, ("target_modules", "feedforward_modules", "fan_in_fan_out"), ("init_ia3_weights",)
        )
        wanted = matched_modules(backbone, config)
        top = parts_and_layers(wanted, backbone)[1]
        found = cls(top_layers=top)
        expected = found.insertions(backbone)
        inner = {one.path for one in expected if one.before is not None}
        if {one.path for one in expected} != set(wanted) or inner != set(
            matched_modules(backbone, config, "feedforward_modules")
        ):
            raise ModelError(
                "the PEFT configuration scales parts other than keys, values and the feed-forward blocks' inner "
                "activations"
            )
        return found
