"""LoRA: low-rank updates to linear maps inside the layers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
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
from pemeta.methods.peft_targets import (
    INITIALISATIONS,
    matched_modules,
    parts_and_layers,
    refuse_changed_base,
    refuse_unknown_settings,
    targeted_maps,
)
from pemeta.utils.modules import is_hooked

CHILD = "pemeta_lora"


class _Added(torch.autograd.Function):
    """``output + s inner upᵀ``, where the factor is part of the products in both passes and no operation of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(output: Tensor, inner: Tensor, up: Tensor, scaling: float) -> Tensor:
        return torch.addmm(output, inner, up.T, alpha=scaling)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.scaling = inputs[3]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inner, up = ctx.saved_tensors
        unused = up.detach()[0]  # `beta` is 0; differentiable once more, for second order
        of_inner = of_up = None
        if ctx.needs_input_grad[1]:
            of_inner = torch.addmm(unused, gradient, up, beta=0, alpha=ctx.scaling)
        if ctx.needs_input_grad[2]:
            of_up = torch.addmm(unused, gradient.T, inner, beta=0, alpha=ctx.scaling)
        return gradient, of_inner, of_up, None


class LowRank(nn.Module):
    """``s B A dropout(x)``, mapping (..., in) to (..., out) through r units.

    ``A`` (``down``, (r, in)) is initialised as in PEFT and the authors' code, uniformly like ``nn.Linear``'s
    weights, and ``B`` (``up``, (out, r)) to zero.
    """

    def __init__(self, width: int, out: int, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), to be added to the linear map's output."""
        return self.up(self.down(self.dropout(x))) * self.scaling  # type: ignore[no-any-return]

    def beside(self, x: Tensor, output: Tensor) -> Tensor:
        """``output + s B A dropout(x)`` by one product that adds, so that nothing else of the output's size is made.

        Where a call of this module, or of ``up``, does anything else, such as a user's hook, they are called.
        """
        maps = type(self.up) is nn.Linear and self.up.bias is None and not is_hooked(self.up)
        if not maps or type(self).forward is not LowRank.forward or is_hooked(self):
            return output + self(x)  # type: ignore[no-any-return]
        inner = self.down(self.dropout(x))
        if inner.dtype != output.dtype or inner.shape[:-1] != output.shape[:-1] or output.ndim < 2:
            return output + self.up(inner) * self.scaling  # type: ignore[no-any-return]
        up = self.up.weight.to(inner.dtype)  # as autocast would
        if up.ndim > 2:  # of several tasks, whose examples are behind each other
            outputs, inners = (value.reshape(len(up), -1, value.shape[-1]) for value in (output, inner))
            return torch.baddbmm(outputs, inners, up.transpose(1, 2), alpha=self.scaling).view(output.shape)
        rows = output.flatten(0, -2), inner.flatten(0, -2)
        if torch.compiler.is_compiling():
            return torch.addmm(*rows, up.T, alpha=self.scaling).view(output.shape)
        added: Tensor = _Added.apply(*rows, up, self.scaling)  # type: ignore[no-untyped-call]
        return added.view(output.shape)


def _add(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return added.beside(arguments[0], output) if isinstance(added, LowRank) else output + added(arguments[0])


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
