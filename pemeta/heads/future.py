"""Whether a backbone's hidden states depend on later tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pemeta.errors import ModelError, reason
from pemeta.heads.vocabulary import word_embedding
from pemeta.utils.modules import modes_kept, parts_with


def hidden_states_without_future(backbone: nn.Module, rows: int) -> Tensor:
    """The hidden states of a short sequence, after checking that all but the last do not depend on the last token.

    The check is their gradient with respect to the last token's embedding, which a causal mask makes exactly zero in
    any precision.

    Args:
        backbone: The backbone.
        rows: Number of tokens in its vocabulary.

    Raises:
        ModelError: They depend on it, or the backbone does not run on tokens alone.
    """
    ids = torch.tensor([[i % rows for i in range(4)]], device=next(backbone.parameters()).device)
    embedded: list[Tensor] = []

    def watch(*call: Any) -> Tensor:
        embedded.append(call[-1].detach().requires_grad_())
        return embedded[-1]

    # Not get_input_embeddings() alone: T5 calls another part with the same weight.
    hooks = [table.register_forward_hook(watch) for table in parts_with(backbone, word_embedding(backbone))]
    with modes_kept(backbone), torch.enable_grad():
        backbone.eval()
        try:
            hidden = backbone(input_ids=ids).last_hidden_state
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{type(backbone).__name__} does not run on input_ids alone, as a language model does ({reason(error)})"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        weights = torch.arange(hidden[:, :-1].numel(), device=hidden.device).sin().view_as(hidden[:, :-1])
        (gradient,) = torch.autograd.grad((hidden[:, :-1].float() * weights).sum(), embedded[:1])
    if gradient[:, -1].any():
        raise ModelError(
            f"{type(backbone).__name__} sees the tokens that a causal language model has to predict, so its loss "
            "would be meaningless; use a backbone with causal attention, such as GPT-2"
        )
    assert isinstance(hidden, Tensor)
    return hidden.detach()
