"""LoRA: low-rank updates to linear maps inside the layers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.maps import is_linear, linear_sizes, transposed
from pemeta.backbone.structure.description import PARTS
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.low_rank import LowRank as LowRank
from pemeta.methods.merged_maps import includes, merged_maps
from pemeta.methods.peft_targets import (
    INITIALISATIONS,
    matched_modules,
    parts_and_layers,
    refuse_changed_base,
    refuse_unknown_settings,
    targeted_maps,
)

CHILD = "pemeta_lora"


def _add(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    if not isinstance(added, LowRank):
        return output + added(arguments[0])  # type: ignore[no-any-return]
    return output if includes(output, added) else added.beside(arguments[0], output)


class LoRA(Inserted):
    """Low-rank adaptation: ``W x + s B A x`` in place of ``W x``, for the chosen linear maps of each layer.

    θ_a consists of A and B: ``r (in + out)`` parameters per map. Where query, key and value are one fused map
    (GPT-2, ModernBERT), choosing one of them adapts the fused map, as in PEFT.

    Attributes:
        rank: r; 8, our choice (Hu et al. use 1 to 64).
        alpha: numerator of s, which is ``alpha / r``, or ``alpha / √r`` with ``rslora``; 16, our choice.
        targets: the maps to adapt: parts of each layer (``query``, ``key``, ``value``, ``attention_output``,
            ``ffn_up``, ``ffn_down``), names of maps or ends of names as in PEFT (``q_proj``), or ``all-linear``, which
            leaves out maps that the last hidden states do not depend on (poolers); query and value (Hu et al., 2022,
            §4.2 and Table 5).
        dropout: dropout probability on the input of A in training; 0, our choice.
        rslora: whether to use rank-stabilised scaling (Kalajdzievski, 2023).
        top_layers: number of layers to adapt, counted from the top; null for all.

    >>> LoRA(rank=4, targets=["query"]).scaling
    4.0
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models"

    rank: int = Field(8, gt=0)
    alpha: float = Field(16, gt=0)
    targets: tuple[str, ...] = Field(("query", "value"), min_length=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    rslora: bool = False
    top_layers: int | None = Field(None, gt=0)

    @field_validator("targets", mode="before")
    @classmethod
    def _as_tuple(cls, targets: Any) -> Any:
        return (targets,) if isinstance(targets, str) else targets

    @field_validator("targets")
    @classmethod
    def _no_misspelt_part(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for target in targets:
            near = difflib.get_close_matches(target, PARTS, 1, 0.9)
            if near and target not in PARTS and not target.endswith("s"):
                raise ValueError(f"unknown target {target!r}; did you mean {near[0]!r}? Parts: {', '.join(PARTS)}")
        return targets

    @property
    def by_example(self) -> bool:
        """True: each map acts on a token."""
        return True

    @property
    def child(self) -> str:
        """Name of the added modules."""
        return CHILD

    @property
    def scaling(self) -> float:
        """The factor s."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """A low-rank pair for each chosen map."""
        found = []
        for name in targeted_maps(backbone, self.targets, self.top_layers):
            width, out = linear_sizes(backbone.get_submodule(name))
            make = partial(LowRank, width, out, self.rank, self.scaling, self.dropout)
            found.append(Insertion(name, make, after=_add))
        return found

    def inner_passes(self, backbone: nn.Module) -> AbstractContextManager[None]:
        """Passes in which W and the pair are one map, where that is as exact, and cheaper than two."""
        return merged_maps(backbone, self.child)

    @property
    def mergeable(self) -> bool:
        """True: the product B A has the shape of W."""
        return True

    @torch.no_grad()
    def merge(self, backbone: nn.Module) -> None:
        """Replace W by ``W + s B A`` in each map."""
        for linear in self.parts(backbone):
            pair = getattr(linear, CHILD)
            product = pair.up.weight @ pair.down.weight * pair.scaling
            linear.weight += product.T if transposed(linear) else product
        self.detach(backbone)

    def peft_config(self, backbone: nn.Module) -> dict[str, Any]:
        """The fields of PEFT's ``LoraConfig``, with the full name of each map."""
        paths = [one.path for one in self.insertions(backbone)]
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": paths,
            "fan_in_fan_out": transposed(backbone.get_submodule(paths[0])),
            "bias": "none",
        }

    def peft_names(self, backbone: nn.Module) -> dict[str, str]:
        """Mapping from each name to PEFT's, where ``down`` becomes ``lora_A`` and ``up`` becomes ``lora_B``."""
        ends = {f"{CHILD}.down.": "lora_A.", f"{CHILD}.up.": "lora_B."}
        return {name: name.replace(a, b) for name in self.theta_a(backbone) for a, b in ends.items() if a in name}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], backbone: nn.Module) -> Self | None:
        """The LoRA that the configuration describes, if it adapts the same parts in each layer."""
        if config.get("peft_type") != "LORA":
            return None
        known = ("r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "fan_in_fan_out")
        refuse_changed_base(config)
        refuse_unknown_settings(config, known, INITIALISATIONS)
        targets, top = _targets(matched_modules(backbone, config), backbone)
        return cls(
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=targets,
            dropout=config.get("lora_dropout", 0.0),
            rslora=config.get("use_rslora", False),
            top_layers=top,
        )


def _targets(names: Sequence[str], backbone: nn.Module) -> tuple[tuple[str, ...], int | None]:
    """Parts and number of top layers, or the names themselves where these are not the same in each layer."""
    try:
        return parts_and_layers(names, backbone)
    except ModelError:
        if not all(is_linear(backbone.get_submodule(name)) for name in names):
            raise
        return tuple(names), None
