"""Prompt tuning: learned vectors, prepended to the embedded sequence."""

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
    """P learned vectors (P, E), where E is the width of the embeddings."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(initial)

    def forward(self, embedded: Tensor) -> Tensor:
        """Map (B, T, E) to (B, P + T, E)."""
        return torch.cat([self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1), embedded], dim=1)


def _embed(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Embed the backbone's input, prepend the prompt to it, and extend mask and token types (a forward pre-hook)."""
    given: dict[str, Any] = dict(inspect.signature(backbone.forward).bind_partial(*arguments, **kwargs).arguments)
    given |= given.pop("kwargs", {})  # arguments that the signature does not name
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
        raise ModelError("a prompt shifts positions, so position_ids cannot be given; omit them")
    mask = given.get("attention_mask")
    if mask is not None:
        given |= position_ids(backbone, mask)
    return (), given


def _strip(backbone: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Remove the prompt's hidden states from the backbone's output (a forward hook)."""
    holder = backbone if CHILD in backbone._modules else backbone.get_submodule("embeddings")
    prompt = getattr(holder, CHILD).tokens.shape[0]
    output.last_hidden_state = output.last_hidden_state[:, prompt:]
    return output


def _prepend(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Prepend the prompt to an image's embedded patches, positions included."""
    return added(output)  # type: ignore[no-any-return]


def _check_length(backbone: nn.Module, length: int, prompt: int) -> None:
    """Refuse a sequence that exceeds the table of positions, which PyTorch would report as an index error."""
    for name, table in backbone.named_parameters():
        if name.endswith(("position_embeddings.weight", "wpe.weight")):
            limit = table.shape[0] - first_position(backbone)
            if length > limit:
                room = limit - prompt
                raise ModelError(
                    f"{length - prompt} tokens and a prompt of {prompt} do not fit the backbone's {limit} "
                    f"positions; {f'lower max_length to {room}' if room > 2 else 'shorten the prompt'}"
                )


class Prompt(Inserted):
    """Prompt tuning: P learned vectors before the embedded tokens; their hidden states are dropped at the end.

    Positions shift by P, so a sequence must be P tokens shorter. For images (ViT) the vectors are prepended to the
    embedded patches (Jia et al., 2022, Visual Prompt Tuning). θ_a has ``P E`` parameters, where E is the width of
    the embeddings.

    Attributes:
        length: P; 16, our choice (Lester et al. use 1 to 150).
        init: ``vocabulary`` starts from the embeddings of random tokens (Lester et al., 2021, §3.2), ``normal`` from
            a normal distribution, which is always used for images.
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
        """The prompt's length P."""
        return self.length

    @property
    def identity_at_start(self) -> bool:
        """False: every position attends to the prompt."""
        return False

    def insertions(self, backbone: nn.Module) -> Sequence[Insertion]:
        """The vectors, in the backbone itself or in its patch embeddings."""
        if self._takes_vectors(backbone):
            return [Insertion("", lambda: self._tokens(backbone))]
        width = getattr(getattr(backbone, "config", None), "hidden_size", None)
        if "embeddings" not in backbone._modules or not isinstance(width, int):
            raise ModelError(
                "a prompt needs a backbone that takes inputs_embeds, or embeds patches in .embeddings; use another "
                "method"
            )
        return [
            Insertion("embeddings", lambda: SoftTokens(torch.randn(self.length, width) * self.init_std), after=_prepend)
        ]

    def attach(self, backbone: nn.Module) -> None:
        """Insert the vectors, and the hooks that prepend them and drop their hidden states."""
        super().attach(backbone)
        if self._takes_vectors(backbone):
            # Prepended, so that other hooks see the sequence with its prompt.
            backbone.register_forward_pre_hook(_embed, with_kwargs=True, prepend=True)
        backbone.register_forward_hook(_strip)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the vectors and their hooks."""
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
