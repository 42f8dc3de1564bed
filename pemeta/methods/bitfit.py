"""BitFit: the backbone's biases adapt."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pemeta.methods.base import PEMethod, is_added


class BitFit(PEMethod):
    """Bias-term fine-tuning: θ_a consists of all biases of the backbone, including those of its layer norms.

    On BERT's shape that is ``L (7 D + F) + D``: per layer the biases of query, key, value, attention output
    (4 D), the feed-forward block (F + D) and two layer norms (2 D), and D for the embeddings' layer norm.

    The bias of the keys shifts all scores of a query equally, which softmax ignores: without rotary or disentangled
    positions its gradient is zero. It is included nevertheless, because it is part of the method as published.

    >>> BitFit().to_config()
    {'name': 'bitfit'}
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "Ben Zaken et al. (2022), BitFit: Simple Parameter-efficient Fine-tuning for Transformers"

    @property
    def by_example(self) -> bool:
        """True: a bias is added to a token."""
        return True

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason, for backbones without biases such as T5, Llama and ModernBERT."""
        return None if self.theta_a(backbone) else "it has no bias terms; use layer_norm, ia3 or another method"

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names of all biases except those of other attached methods."""
        return tuple(
            name
            for name, _ in backbone.named_parameters()
            if name.rpartition(".")[2].endswith("bias") and not is_added(name)
        )
