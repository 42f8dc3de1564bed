"""The settings of an inner loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pemeta.methods.base import AnyMethod
from pemeta.priming.algorithms.base import PrimingAlgorithm
from pemeta.priming.inner_rules import SGD, AnyRule
from pemeta.training.lean_adamw import OF_PYTORCH
from pemeta.utils.neutral import Neutral

_SGD = {"name": "sgd", "max_grad_norm": None, "warmup_steps": 0}
"""The neutral inner rule: what the inner loop did before there was a choice."""


class InnerSettings(PrimingAlgorithm):
    """The settings of algorithms with an inner loop.

    Attributes:
        inner_method: method whose θ_a the inner loop adapts; null is the method of the fine-tuning to come (the
            paper's proposal), ``full`` is MAML's own loop (§5.1).
        inner_steps: S; 5 (§4.2).
        inner_lr: α; 0.03 (§4.2), and 1e-4 for the MAML loop (§5.1).
        inner_rule: how an inner step follows from gradients: ``sgd`` (Algorithm 1), ``momentum``, ``adam`` or
            ``adamw``, each with arguments of its own.
        inner_dropout: dropout in the inner loop's passes; off, our choice. If on, no pass can be reused, unless the
            backbone has no dropout.
        fresh_support: each inner step takes a support set of its own, of ``support_size`` examples; off, as Algorithm
            1 has one for all steps. If on, an episode has S support sets, so that different examples are drawn.
        source_heads: values that a source task's head starts an episode with: those that the last one left
            (``carried``, Algorithm 1), newly drawn ones (``fresh``), as fine-tuning will start with, or ``zero``. With
            θ_h in ``primes``, ``carried`` heads start with what the outer gradient has made of them, and ``shared``
            ones too, of which all tasks with equal labels have one.
        batch_tasks: run all tasks of a meta-batch as one: the layers that θ_a does not reach in one batch, and the
            others with θ_a of each task on its examples, where the method allows it. Faster if small batches do not
            fill the device; memory then grows with the number of tasks. Off, our choice.
    """

    inner_method: AnyMethod | None = None
    inner_steps: int = Field(5, gt=0)
    inner_lr: float = Field(0.03, gt=0)
    inner_rule: Annotated[AnyRule, Neutral(_SGD)] = SGD()
    inner_dropout: bool = False
    fresh_support: bool = False
    source_heads: Literal["carried", "fresh", "zero", "shared"] = "carried"
    batch_tasks: bool = False

    @model_validator(mode="after")
    def _heads_that_can_be_primed(self) -> Self:
        if self.primes_heads and self.source_heads in ("fresh", "zero"):
            raise ValueError(
                f"source_heads: {self.source_heads} gives each episode a new head, but primes lists theta_h, the start "
                "of the heads; set source_heads to carried or shared, or remove theta_h from primes"
            )
        if self.shares_heads and not self.primes_heads:
            raise ValueError(
                "source_heads: shared needs the outer gradient, which moves the start that tasks have in common; add "
                "theta_h to primes"
            )
        return self

    @model_validator(mode="after")
    def _moments_that_there_are(self) -> Self:
        if getattr(self.inner_rule, "moments", "own") == "outer" and not {"theta_a", "theta_h"} & set(self.primes):
            raise ValueError(
                "inner_rule.moments: outer needs parameters that the inner loop and the outer optimiser both move; add "
                "theta_a to primes, or set moments: own"
            )
        if getattr(self.inner_rule, "moments", "own") == "outer" and self.optimizer not in OF_PYTORCH:
            raise ValueError(
                f"inner_rule.moments: outer reads AdamW's own moments, but optimizer: {self.optimizer} keeps them in "
                "another form; set optimizer: adamw, or moments: own"
            )
        return self

    @property
    def primes_heads(self) -> bool:
        """Whether the outer gradient moves the values that heads start with."""
        return "theta_h" in self.primes

    @property
    def shares_heads(self) -> bool:
        """``source_heads: shared``."""
        return self.source_heads == "shared"
