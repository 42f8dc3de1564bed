"""Reptile: the outer gradient is the way that the inner loop went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor

from pemeta.errors import ConfigError
from pemeta.methods.base import AnyMethod, PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms.inner_loop import InnerLoopPriming
from pemeta.priming.algorithms.primes import Primes
from pemeta.priming.algorithms.query import Query
from pemeta.tasks.episodes import Episode
from pemeta.utils.precision import as_held

if TYPE_CHECKING:
    from pemeta.priming.learner import PrimingLearner  # needs learn2learn


def _none(size: int) -> int:
    if size:
        raise ValueError(
            f"reptile has no outer loss, and so no query set; found {size}; set query_size: 0, and a larger "
            "support_size if episodes are to have as many examples"
        )
    return size


class ReptilePriming(InnerLoopPriming):
    """Priming by Reptile: parameters move towards where the inner loop has led them (Nichol et al., 2018).

    The gradient that the outer optimiser takes is (θ - θ̃) / α, where θ̃ are the values after the inner loop. It reaches
    only what the inner loop adapts, by default the whole backbone. With ``fresh_support`` each inner step has examples
    of its own, as Reptile's mini-batches have.

    Attributes:
        inner_method: method whose θ_a the inner loop adapts, and Reptile primes; ``full``, as Reptile has no other
            parameters; null is the method of the fine-tuning to come, and leaves θ_p as it is.
        inner_lr: α; 1e-4, the paper's for a loop over all parameters (§5.1).
        query_size: 0; there is no query set.
        primes: ``theta_a``, with or without ``theta_h``; nothing else moves in the inner loop.
    """

    name: ClassVar[str] = "reptile"
    paper: ClassVar[str] = "Nichol, Achiam and Schulman (2018)"

    inner_method: AnyMethod | None = PEMethod.parse("full")
    inner_lr: float = Field(1e-4, gt=0)
    query_size: Annotated[int, AfterValidator(_none)] = Field(0, ge=0)
    primes: Primes = ("theta_a",)

    @property
    def needs_query(self) -> bool:
        """There is no query set."""
        return False

    @property
    def splits(self) -> bool:
        """There is no outer loss."""
        return False

    def outer_batch(self, episode: Episode) -> None:
        """None: there is no outer loss."""
        return

    def outer_gradient(self, clone: PrimingLearner, original: PrimingLearner, query: Query) -> Tensor:
        """Add the way from θ to θ̃ as a gradient; returns the loss before the last inner step."""
        parameters, theta_a = dict(original.shared.named_parameters()), set(clone.partition.theta_a)
        for name, value in clone.adapted_parameters().items():
            parameter = parameters[name]
            if parameter.requires_grad and name in clone.reached and (self.primes_heads or name in theta_a):
                way = (parameter.detach() - value.detach()) * (query.step.loss_scale / self.inner_lr)
                way = as_held(way, parameter)
                parameter.grad = way if parameter.grad is None else parameter.grad.add_(way)
        return clone.inner_losses.measured[-1]

    def trained(self, model: PEModel) -> tuple[str, ...]:
        """Names of θ_a, and of θ_h if ``primes`` lists it.

        Raises:
            ConfigError: ``primes`` lists a part of θ_p, which the inner loop does not move.
        """
        names = super().trained(model)
        theta_p = set(model.partition(self.inner_method).theta_p)
        if still := [name for name in names if name in theta_p]:
            raise ConfigError(
                f"reptile moves only what its inner loop adapts, but primes lists {still[0]}, a part of θ_p; set "
                "inner_method: full, or primes: [theta_a]"
            )
        return names

    @property
    def query_passes(self) -> int:
        """None, as there is no outer loss."""
        return 0

    @property
    def examples_in_gradient(self) -> int:
        """Number of support examples of an episode."""
        return self.support_examples
