"""Parts of a layer by the names and widths of its maps: for backbones without values, on which no pass can be tried."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from pemeta.backbone.maps import map_sizes, maps_in
from pemeta.backbone.structure.attention_roles import AttentionMaps
from pemeta.backbone.structure.ffn_roles import FeedForward, common_parent, experts_of, takes_block_input

_AFFIX = r"(?:(?:in|to|w|c|att|attn|linear|self)_)?{}(?:_(?:proj|lin|head|layer|linear|dense|b_proj))?"
_ROLES = {
    "query": re.compile(_AFFIX.format("(?:q|query)") + "|wq"),
    "key": re.compile(_AFFIX.format("(?:k|key)") + "|wk"),
    "value": re.compile(_AFFIX.format("(?:v|value)") + "|wv"),
    "fused": re.compile(_AFFIX.format("(?:qkv|query_key_value|kv)") + "|wqkv|c_attn|in_proj|att_proj|w_pack"),
}
_OUTPUT = re.compile(
    r"(?:(?:to|w|c|att|attn|linear|self)_)?(?:o|out|output|post|dense)(?:_(?:proj|lin|head))?|wo|c_proj"
)
_GATED = re.compile(r"gate|router|pos(?!t)|global|bottleneck|norm|rel|cross|encdec|layout|w2e|e2w|e2e", re.IGNORECASE)
"""Parts of names of maps that play another role."""


@dataclass(frozen=True)
class Guess:
    """What the names of a layer's maps say."""

    attention: AttentionMaps | None
    ffn: FeedForward


def guessed(layer: nn.Module, width: int) -> Guess:
    """The parts of a layer by name.

    Args:
        layer: The layer.
        width: Width of its hidden states.
    """
    sizes = {name: map_sizes(part) for name, part in maps_in(layer).items()}
    attention = _attention({name: size for name, size in sizes.items() if not _other(name)})
    parent = "" if attention is None else _around_attention(attention)
    taken = {name for name in sizes if parent and name.startswith(f"{parent}.")}
    taken |= set() if attention is None else {attention.query, attention.key, attention.value, attention.output}
    return Guess(attention, _ffn(layer, {name: size for name, size in sizes.items() if name not in taken}, width))


def _other(name: str) -> bool:
    last = name.rpartition(".")[2]
    return bool(_GATED.search(last)) or bool(re.search(r"cross|encdec|encoder_attn", name, re.IGNORECASE))


def _attention(sizes: Mapping[str, tuple[int, int]]) -> AttentionMaps | None:
    """Query, key, value and output maps."""
    roles: dict[str, str] = {}
    for name in sizes:
        parent, _, last = name.lower().rpartition(".")
        for role, pattern in _ROLES.items():
            if pattern.fullmatch(last) and (role != "fused" or "att" in parent):
                roles.setdefault(role, name)
    fused = roles.get("fused")
    found = [roles.get(role) or fused for role in ("query", "key", "value")]
    names = [name for name in found if name is not None]
    if len(names) < 3:
        return None
    output = _after(names, sizes)
    return None if output is None else AttentionMaps(names[0], names[1], names[2], output)


def _after(names: list[str], sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """The map after attention: the one of its module that is left, or of the smallest module around it that has one."""
    steps = common_parent(names).split(".")
    for end in range(len(steps), -1, -1):
        around = ".".join(steps[:end])
        rest = [n for n in sizes if n not in names and n.startswith(f"{around}." if around else "")]
        named = [n for n in rest if _OUTPUT.fullmatch(n.rpartition(".")[2].lower())]
        if named:
            return named[0]
    return None


def _around_attention(maps: AttentionMaps) -> str:
    """The module that has all of attention's maps."""
    return common_parent([maps.query, maps.key, maps.value, maps.output])


def _ffn(layer: nn.Module, sizes: Mapping[str, tuple[int, int]], width: int) -> FeedForward:
    """The feed-forward block: the last map to the hidden width, and those before it whose output it can take."""
    experts = experts_of(layer)
    if experts is not None:
        parent = experts.rpartition(".")[0]
        why = f"{experts} has the maps of several experts, of which tokens use some, and no map of all tokens"
        return FeedForward(block=parent or None, experts=experts, why=why)
    downs = [name for name, (_, out) in sizes.items() if out == width and not _other(name)]
    for down in reversed(downs):
        inner = sizes[down][0]
        ups = [n for n, size in sizes.items() if n != down and size[0] == width and size[1] in (inner, 2 * inner)]
        if ups:
            ups = [name for name in ups if name not in downs or inner == width][:2]
            return FeedForward(tuple(ups), down, *_block(layer, ups, down), why="it is not one module")
    return FeedForward(why="no names of maps to an inner width and back")


def _block(layer: nn.Module, ups: Collection[str], down: str) -> tuple[str | None, bool]:
    parent = common_parent([*ups, down])
    if parent:
        return parent, False
    last = common_parent([down])
    return (last, True) if last and takes_block_input(layer.get_submodule(last)) else (None, False)
