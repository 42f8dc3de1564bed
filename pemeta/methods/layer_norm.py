"""Layer-norm tuning: the backbone's normalisation layers are adapted."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pemeta.methods.base import PEMethod, is_added


class LayerNormTuning(PEMethod):
    """Layer-norm tuning: θ_a consists of the gains and biases of all normalisation layers of any kind (RMSNorm ...).

    On BERT's shape that is ``2 D (2 L + 1)`` parameters: two norms per layer, and the embeddings' norm.

    >>> LayerNormTuning().to_config()
    {'name': 'layer_norm'}
    """

    name: ClassVar[str] = "layer_norm"
    paper: ClassVar[str] = "Zhao et al. (2024), Tuning LayerNorm in Attention"

    @property
    def by_example(self) -> bool:
        """True: a norm acts on a token."""
        return True

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason, if no normalisation layer has parameters."""
        return None if self.theta_a(backbone) else "it has no normalisation layer with parameters; use another method"

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names of the parameters of all modules whose class name contains "norm"."""
        norms = [name for name, module in backbone.named_modules() if "norm" in type(module).__name__.lower()]
        wanted = {f"{name}.{end}" for name in norms for end in ("weight", "bias")}
        return tuple(name for name, _ in backbone.named_parameters() if name in wanted and not is_added(name))
