"""BitFit: the backbone's biases adapt."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pemeta.methods.base import PEMethod, is_added


class BitFit(PEMethod):
    """Bias-term fine-tuning: θ_a is every bias of the backbone, those of its layer norms included.

    On BERT's shape that is ``L (7 D + F) + D``: per layer the biases of query, key, value, attention output
    (4 D), the feed-forward block (F + D) and two layer norms (2 D), and D for the embeddings' layer norm.

    A key's bias shifts all scores of a query alike, which softmax does not see: without rotary or disentangled
    positions its gradient is zero. It is part of the method as published, and stays in.

    >>> BitFit().to_config()
    {'name': 'bitfit'}
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "Ben Zaken et al. (2022), BitFit: Simple Parameter-efficient Fine-tuning for Transformers"

    def unsupported(self, backbone: nn.Module) -> str | None:
        """Not where there is no bias, as in T5, Llama and ModernBERT."""
        return None if self.theta_a(backbone) else "it has no bias terms; take layer_norm, ia3 or another method"

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """All biases but those of other attached methods."""
        return tuple(
            name
            for name, _ in backbone.named_parameters()
            if name.rpartition(".")[2].endswith("bias") and not is_added(name)
        )
