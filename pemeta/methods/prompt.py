"""Prompt tuning: learned vectors before the embedded sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.positions import first_position, position_ids

CHILD = "pemeta_prompt"


class SoftTokens(nn.Module):
    """P learned vectors (P, E), E being the width of the embeddings."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(initial)

    def forward(self, embedded: Tensor) -> Tensor:
        """(B, T, E) to (B, P + T, E)."""
        return torch.cat([self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1), embedded], dim=1)


def _embed(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Before the backbone: token indices become vectors with the prompt before them; mask and types widen."""
    given: dict[str, Any] = dict(inspect.signature(backbone.forward).bind_partial(*arguments, **kwargs).arguments)
    given |= given.pop("kwargs", {})  # what the signature does not name
    ids, embedded = given.pop("input_ids", None), given.pop("inputs_embeds", None)
    if embedded is None:
        embedded = backbone.get_input_embeddings()(ids)  # type: ignore[operator]
    given["inputs_embeds"] = widened = getattr(backbone, CHILD)(embedded)
    prompt = widened.shape[1] - embedded.shape[1]
    _check_length(backbone, widened.shape[1], prompt)
    for key, value in (("attention_mask", 1), ("token_type_ids", 0)):
        if given.get(key) is not None:
            given[key] = nn.functional.pad(given[key], (prompt, 0), value=value)
    if given.get("position_ids") is not None:
        raise ModelError("a prompt shifts positions, so position_ids cannot be given; leave them out")
    mask = given.get("attention_mask")
    if mask is not None:
        given |= position_ids(backbone, mask)
    return (), given


def _strip(backbone: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """After the backbone: the hidden states of the sequence alone."""
    holder = backbone if CHILD in backbone._modules else backbone.get_submodule("embeddings")
    prompt = getattr(holder, CHILD).tokens.shape[0]
    output.last_hidden_state = output.last_hidden_state[:, prompt:]
    return output


def _prepend(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """After an image's patches are embedded, positions and all."""
    return added(output)  # type: ignore[no-any-return]


def _check_length(backbone: nn.Module, length: int, prompt: int) -> None:
    """A table of positions has an end, and behind it is an error that does not say so."""
    for name, table in backbone.named_parameters():
        if name.endswith(("position_embeddings.weight", "wpe.weight")):
            limit = table.shape[0] - first_position(backbone)
            if length > limit:
                room = limit - prompt
                raise ModelError(
                    f"{length - prompt} word pieces and a prompt of {prompt} do not fit the backbone's {limit} "
                    f"positions; {f'lower max_length to {room}' if room > 2 else 'shorten the prompt'}"
                )


class Prompt(Inserted):
    """Prompt tuning: P learned vectors before the embedded word pieces; their hidden states are dropped at the end.

    Positions shift by P, so a sequence may be P pieces shorter. For images (ViT) the vectors stand before the
    embedded patches (Jia et al., 2022, Visual Prompt Tuning). θ_a is ``P E`` parameters, E being the width of the
    embeddings.

    Attributes:
        length: P; 16, our choice (Lester et al. use 1 to 150).
        init: ``vocabulary`` starts from the embeddings of random word pieces (Lester et al., 2021, §3.2), ``normal``
            from a normal distribution; images always from that.
        init_std: standard deviation of that distribution; 0.02, our choice.

    >>> Prompt(length=8).output_only
    False
    """

    name: ClassVar[str] = "prompt"
    paper: ClassVar[str] = "Lester et al. (2021), The Power of Scale for Parameter-Efficient Prompt Tuning"

    length: int = Field(16, gt=0)
    init: Literal["vocabulary", "normal"] = "vocabulary"
    init_std: float = Field(0.02, ge=0)

    @property
    def child(self) -> str:
        """Name of the added modules."""
        return CHILD

    @property
    def extra_positions(self) -> int:
        """P."""
        return self.length

    @property
    def identity_at_start(self) -> bool:
        """Not: every position attends to the prompt."""
        return False

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """The vectors, at the backbone itself or at its embeddings of patches."""
        if self._takes_vectors(backbone):
            return [Insertion("", lambda: self._tokens(backbone))]
        width = getattr(getattr(backbone, "config", None), "hidden_size", None)
        if "embeddings" not in backbone._modules or not isinstance(width, int):
            raise ModelError("a prompt needs a backbone that takes inputs_embeds, or embeds patches in .embeddings")
        return [
            Insertion("embeddings", lambda: SoftTokens(torch.randn(self.length, width) * self.init_std), after=_prepend)
        ]

    def attach(self, backbone: nn.Module) -> None:
        """Insert the vectors, and the hooks that drop what comes of them."""
        super().attach(backbone)
        if self._takes_vectors(backbone):
            # First, so that other hooks see the sequence with its prompt.
            backbone.register_forward_pre_hook(_embed, with_kwargs=True, prepend=True)
        backbone.register_forward_hook(_strip)

    def detach(self, backbone: nn.Module) -> None:
        """Take vectors and hooks out."""
        super().detach(backbone)
        for hooks, own in ((backbone._forward_hooks, _strip), (backbone._forward_pre_hooks, _embed)):
            for key in [key for key, hook in hooks.items() if hook is own]:
                del hooks[key]
                backbone._forward_pre_hooks_with_kwargs.pop(key, None)

    def _takes_vectors(self, backbone: nn.Module) -> bool:
        return "inputs_embeds" in inspect.signature(backbone.forward).parameters

    def _tokens(self, backbone: nn.Module) -> SoftTokens:
        table = backbone.get_input_embeddings().weight.detach()  # type: ignore[operator]
        if self.init == "vocabulary":
            drawn = torch.randint(table.shape[0], (self.length,))
            return SoftTokens(table[drawn.to(table.device)].clone())
        return SoftTokens(torch.randn(self.length, table.shape[1]) * self.init_std)
