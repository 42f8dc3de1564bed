"""A backbone's layers and their parts in words."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pemeta.backbone.architectures import architecture_of, layer_names
from pemeta.backbone.structure.description import PARTS, Architecture
from pemeta.errors import ModelError, counted

_NORMS = {
    "before": "norms before attention and the feed-forward block",
    "after": "norms after attention and the feed-forward block",
    "around": "norms before and after attention and the feed-forward block",
    "parallel": "attention and the feed-forward block side by side, from the same hidden states",
}


def described_layers(backbone: nn.Module) -> Iterator[str]:
    """Lines that say where a backbone's layers are, and what their parts are called.

    Args:
        backbone: A model of transformers; on the meta device its parts are told by their names alone.
    """
    try:
        found, names = architecture_of(backbone), layer_names(backbone)
    except ModelError as error:
        yield f"layers of {type(backbone).__name__}: {error}"
        return
    parts = f" ({_NORMS[found.norms]})" if found.norms else ""
    yield f"layers of {type(backbone).__name__}: {counted(len(names), 'layer')} in {found.layers}{parts}"
    if found.passes > 1:
        yield f"    each runs {found.passes} times in a pass, with one θ_a for all of these"
    yield from _parts(found)
    for number, other in found.others:
        yield f"    in layer {number} instead:"
        yield from (f"    {line}" for line in _parts(other))
    if found.output == "more" and found.passes == 1:
        yield "    layers below θ_a cannot be skipped, because later ones need more of them than hidden states"
    if not found.tried:
        yield "    found by names; what each part does is tried when a method is attached to the model itself"


def _parts(found: Architecture) -> Iterator[str]:
    """A line for each part, or why it is not there."""
    why = dict(found.missing)
    for part in ("attention", *PARTS):
        names = getattr(found, part)
        shown = ", ".join(names) if isinstance(names, tuple) else names
        yield f"    {part} = {shown or f'not found ({why.get(part)})'}"
    if found.experts is not None:
        yield f"    experts = {found.experts}, in {found.ffn}"
