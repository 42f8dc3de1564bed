"""Prompt tuning: learned vectors, prepended to the embedded sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pemeta.backbone.positions import position_ids
from pemeta.backbone.structure.undisturbed import undisturbed
from pemeta.errors import ModelError
from pemeta.methods.inserted import Inserted, Insertion
from pemeta.methods.prompt_passes import CHILD, SoftTokens, embed, embedded_tokens, strip
from pemeta.utils.modules import modes_kept
from pemeta.utils.seeding import seed_generators


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
        for inputs in ({"input_ids": ids}, {"inputs_embeds": embedded_tokens(backbone, ids)}):
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
            backbone.register_forward_pre_hook(embed, with_kwargs=True, prepend=True)
        backbone.register_forward_hook(strip)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the vectors and their hooks."""
        super().detach(backbone)
        for hooks, own in ((backbone._forward_hooks, strip), (backbone._forward_pre_hooks, embed)):
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
