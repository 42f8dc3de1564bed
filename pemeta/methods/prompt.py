"""Prompt tuning: learned vectors, prepended to the embedded sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pemeta.backbone.packing import SLOTS
from pemeta.backbone.positions import position_ids, position_limit
from pemeta.backbone.structure.undisturbed import undisturbed
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.positions import PaddingLast, has_positions, named_arguments
from pemeta.utils.modules import modes_kept
from pemeta.utils.seeding import seed_generators

CHILD = "pemeta_prompt"


class SoftTokens(nn.Module):
    """P learned vectors (P, E), where E is the width of the embeddings."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(initial)

    def forward(self, embedded: Tensor) -> Tensor:
        """Map (B, T, E) to (B, P + T, E)."""
        return torch.cat([self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1), embedded], dim=1)


PADDING_LAST = PaddingLast("prompt")
_ROWS: ContextVar[bool] = ContextVar("rows", default=False)
"""Whether a thread's current pass is one of rows, whose places for a prompt are not read."""


def _embed(backbone: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Embed the backbone's input, prepend the prompt to it, and extend mask and token types (a forward pre-hook)."""
    given = named_arguments(backbone, arguments, kwargs)
    if given.get(SLOTS) is not None:
        return _embed_rows(backbone, given)
    given.pop(SLOTS, None)
    _check_arguments(given)
    _ROWS.set(False)  # of a pass that failed
    given = PADDING_LAST.before(given)
    ids, embedded = given.pop("input_ids", None), given.pop("inputs_embeds", None)
    if embedded is None:
        embedded = _embedded(backbone, ids)
    widened = getattr(backbone, CHILD)(embedded)
    prompt = widened.shape[1] - embedded.shape[1]
    _check_length(backbone, widened.shape[1], prompt)
    for key, value in given.items():
        if key in ("attention_mask", "token_type_ids") or has_positions(value, embedded.shape[:2]):
            given[key] = _extended(value, prompt, int(key == "attention_mask"))
    given["inputs_embeds"] = widened
    mask = given.get("attention_mask")
    if mask is not None:
        given |= position_ids(backbone, mask)
    return (), given


def _embed_rows(backbone: nn.Module, given: dict[str, Any]) -> Any:
    """Embed rows of several sentences, and put the prompt into the places before each that are left for it."""
    PADDING_LAST.leave()
    slots: Tensor = given.pop(SLOTS)
    embedded = _embedded(backbone, given.pop("input_ids"))
    tokens = getattr(backbone, CHILD).tokens.to(embedded.dtype)
    vectors = tokens.index_select(0, slots.clamp(min=0).flatten()).view(*slots.shape, -1)
    _ROWS.set(True)
    return (), {**given, "inputs_embeds": torch.where((slots >= 0)[..., None], vectors, embedded)}


def _embedded(backbone: nn.Module, ids: Tensor) -> Tensor:
    """The embeddings (B, T, E) of token ids."""
    found = backbone.get_input_embeddings()(ids)  # type: ignore[operator]
    if not isinstance(found, tuple):
        return found  # type: ignore[no-any-return]
    if any(other is not None for other in found[1:]):  # I-BERT's, which are integers with a scale
        raise ModelError(
            f"{type(backbone).__name__} embeds tokens as quantised vectors, which a prompt cannot be prepended to; "
            "load it with quant_mode=False"
        )
    return found[0]  # type: ignore[no-any-return]


def _check_arguments(given: dict[str, Any]) -> None:
    """Refuse what a prompt would silently make wrong."""
    if given.get("position_ids") is not None:
        raise ModelError("a prompt shifts positions, so position_ids cannot be given; omit them")
    if given.get("past_key_values") is not None:
        raise ModelError(
            "a prompt is prepended in each pass, so keys and values of an earlier one cannot be given; run the whole "
            "sequence in one pass (use_cache=False)"
        )
    mask = given.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        raise ModelError(
            f"a prompt extends the attention mask, which must have one row for each sentence; found the shape "
            f"{tuple(mask.shape)}; give the mask as (sentences, tokens)"
        )


def _extended(value: Tensor | None, prompt: int, fill: int) -> Tensor | None:
    """An argument (B, T, ...) with entries for the prompt before its own."""
    return None if value is None else nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (prompt, 0), value=fill)


def _strip(backbone: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    """Remove the prompt's hidden states from the backbone's output (a forward hook)."""
    holder = backbone if CHILD in backbone._modules else backbone.get_submodule("embeddings")
    if holder is backbone and _ROWS.get():  # else it is of another model's pass, which has ended early
        _ROWS.set(False)
        return output
    prompt = getattr(holder, CHILD).tokens.shape[0]
    output.last_hidden_state = output.last_hidden_state[:, prompt:]
    return PADDING_LAST.after(output) if holder is backbone else output


def _prepend(added: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Prepend the prompt to an image's embedded patches, positions included."""
    return added(output)  # type: ignore[no-any-return]


def _table(backbone: nn.Module) -> Tensor:
    """The table (V, E) of word embeddings.

    Raises:
        ModelError: There is none.
    """
    try:
        table: Any = backbone.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):  # CANINE embeds hashes of characters
        table = None
    if not isinstance(getattr(table, "weight", None), Tensor):
        raise ModelError(
            f"a prompt is prepended to embeddings of tokens, of which {type(backbone).__name__} has no table; use "
            "another method"
        )
    return table.weight  # type: ignore[no-any-return]


def _embeds_in_another_way(backbone: nn.Module) -> bool:
    """Whether a pass on the embeddings of tokens is another one than a pass on the tokens, by trying both once.

    Some backbones scale, mask or normalise only what they have embedded themselves: ESM, and the encoders of Marian and
    Pegasus.
    """
    table = _table(backbone)
    if table.is_meta:
        return False
    padding = getattr(getattr(backbone, "config", None), "pad_token_id", None)
    ids = torch.tensor([[index for index in range(min(len(table), 5)) if index != padding]], device=table.device)
    mask = torch.ones_like(ids)
    common = {"attention_mask": mask, **position_ids(backbone, mask)}
    found = []
    with undisturbed(backbone, bare=False):
        for inputs in ({"input_ids": ids}, {"inputs_embeds": _embedded(backbone, ids)}):
            seed_generators(0, table.device)  # of backbones that draw numbers in every pass
            try:
                found.append(backbone(**inputs, **common).last_hidden_state.float())
            except Exception:  # needs further inputs, without which there is nothing to compare
                return False
    return bool((found[0] - found[1]).norm() > 1e-3 * found[0].norm())


def _refuse_no_patches(backbone: nn.Module, width: int) -> None:
    """Refuse a backbone whose ``embeddings`` are not those of an image's patches, by running them on a blank one.

    Raises:
        ModelError: it takes something other than images, or embeds them as something other than (B, T, width).
    """
    name, config = type(backbone).__name__, backbone.config
    embeddings = backbone.get_submodule("embeddings")
    sizes = getattr(config, "image_size", None)
    if getattr(backbone, "main_input_name", None) != "pixel_values" or sizes is None:
        raise ModelError(
            f"a prompt needs vectors in place of tokens, which {name} does not take (inputs_embeds); use another method"
        )
    height, columns = (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)
    reference = next(embeddings.parameters())
    blank = reference.new_zeros(1, getattr(config, "num_channels", 3), height, columns)
    with modes_kept(embeddings), torch.no_grad():
        embeddings.eval()  # dropout would draw numbers
        try:
            found = embeddings(blank)
        except Exception:  # it takes more than an image, or several
            found = None
    if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[-1] != width:
        raise ModelError(
            f"a prompt needs an image's patches as one sequence of vectors of width {width}, but "
            f"{type(embeddings).__name__} gives something else; use another method"
        )


def _check_length(backbone: nn.Module, length: int, prompt: int) -> None:
    """Refuse a sequence that exceeds the table of positions, which PyTorch would report as an index error."""
    limit = position_limit(backbone)
    if limit is not None and length > limit:
        room = limit - prompt
        raise ModelError(
            f"{length - prompt} tokens and a prompt of {prompt} do not fit the backbone's {limit} positions; "
            f"{f'lower max_length to {room}' if room > 2 else 'shorten the prompt'}"
        )


class Prompt(Inserted):
    """Prompt tuning: P learned vectors before the embedded tokens; their hidden states are dropped at the end.

    Positions shift by P, so a sequence must be P tokens shorter. Padding may be on either side: the vectors are next to
    a sentence's first token in both cases. They are tokens to the backbone: in layers with a sliding window only the
    tokens nearby see them, and those further away through the layers between. For images (ViT) the vectors are
    prepended to the embedded patches (Jia et al., 2022, Visual Prompt Tuning). θ_a has ``P E`` parameters, where E is
    the width of the embeddings.

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
            table = _table(backbone).detach()
            return [Insertion("", lambda: self._tokens(table))]
        width = getattr(getattr(backbone, "config", None), "hidden_size", None)
        if "embeddings" not in backbone._modules or not isinstance(width, int):
            raise ModelError(
                "a prompt needs a backbone that takes inputs_embeds, or embeds patches in .embeddings; use another "
                "method"
            )
        _refuse_no_patches(backbone, width)
        return [
            Insertion("embeddings", lambda: SoftTokens(torch.randn(self.length, width) * self.init_std), after=_prepend)
        ]

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason, as for all inserted methods, or if vectors in place of tokens are not what tokens are."""
        found = super().unsupported(backbone)
        if found is None and self._takes_vectors(backbone) and _embeds_in_another_way(backbone):
            return (
                f"a prompt is prepended to the embeddings of tokens, but {type(backbone).__name__} computes something "
                "else from these than from the tokens, since it scales, masks or normalises only what it embeds "
                "itself; use another method"
            )
        return found

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

    def _tokens(self, table: Tensor) -> SoftTokens:
        if self.init == "vocabulary":
            drawn = torch.randint(table.shape[0], (self.length,))
            return SoftTokens(table[drawn.to(table.device)].clone())
        return SoftTokens(torch.randn(self.length, table.shape[1]) * self.init_std)
