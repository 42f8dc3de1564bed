"""What is known of an architecture: its layers and the names of their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pemeta.errors import ModelError

Part: TypeAlias = Literal["query", "key", "value", "attention_output", "ffn_up", "ffn_down"]
"""A linear map of a layer: the three projections into attention, the one out of it, and the two of the FFN."""

PARTS: tuple[Part, ...] = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")

Output: TypeAlias = Literal["states", "single", "pair", "more"]
"""What a layer returns."""


@dataclass(frozen=True)
class Architecture:
    """The layers of a backbone and the names of their parts, relative to a layer. A part that is not found is None.

    Attributes:
        layers: Path of the list of layers in the backbone. A ``*`` is any number, where lists are in lists; a comma
            separates lists that follow each other.
        attention: Module that computes attention and passes itself to transformers' attention interface.
        query: Query projection; query, key and value have the same name if they are one fused map.
        key: Key projection.
        value: Value projection.
        attention_output: Projection out of attention, whose output is added to the residual stream.
        ffn: Feed-forward block, called with the block's input; or, if ``ffn_residual``, its last module, called with
            the inner activation and the block's input, which it adds. None where no module is the block alone.
        ffn_up: Map(s) from the hidden width to the inner width; a gated block has two. Empty if there are none.
        ffn_down: Map from the inner width back to the hidden width.
        ffn_residual: Whether ``ffn`` is called as ``ffn(inner, input)`` and adds the input itself, as in BERT.
        output: What a layer returns. ``states``: its hidden states; ``single``: a tuple of these; ``pair``: these and
            None; with each of them, a pass that knows the output of the lower layers may skip them. ``more``: later
            layers need other outputs too, or the output is unknown.
        experts: Module with the maps of several experts, of which the feed-forward block uses some for each token.
        passes: Number of times that a pass runs each layer; more than one in ALBERT, whose layers share parameters.
        norms: Where the norms are: ``before`` the attention and feed-forward blocks, ``after`` them, ``around`` them
            (both), ``parallel`` (before both blocks, which have the same input), or empty where it is not known.
        missing: Reasons why parts were not found, by the part's name.
        others: Layers with other parts than these, by number: dense layers below ones with experts, for example.
        tried: Whether passes of a tiny batch have shown that the parts are what they are said to be.
    """

    layers: str
    attention: str | None = None
    query: str | None = None
    key: str | None = None
    value: str | None = None
    attention_output: str | None = None
    ffn: str | None = None
    ffn_up: tuple[str, ...] = ()
    ffn_down: str | None = None
    ffn_residual: bool = False
    output: Output = "more"
    experts: str | None = None
    passes: int = 1
    norms: str = field(default="", compare=False)
    missing: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    others: tuple[tuple[int, Architecture], ...] = ()
    tried: bool = field(default=False, compare=False)

    def part(self, part: Part) -> tuple[str, ...]:
        """Names of a part.

        Raises:
            ModelError: It was not found; the message says what was looked for.
        """
        found = getattr(self, part)
        if not found:
            raise ModelError(self.lack(part))
        return found if isinstance(found, tuple) else (found,)

    def one(self, part: str) -> str:
        """The name of a part, or of the module ``attention``.

        Raises:
            ModelError: It was not found; the message says what was looked for.
        """
        found = getattr(self, part)
        if not isinstance(found, str):
            raise ModelError(self.lack(part))
        return found

    def lack(self, part: str) -> str:
        """The sentence that says that a part was not found."""
        why = dict(self.missing).get(part, "the entry for this architecture does not name it")
        return f"no {part} was found in its layers ({why}); {REMEDY}"

    @property
    def fused(self) -> bool:
        """Whether query, key and value are one map."""
        return self.query is not None and self.query == self.key

    @property
    def block_output(self) -> str:
        """Name of the module whose output is the feed-forward block's, which is its last map or the block of experts.

        Raises:
            ModelError: There is neither.
        """
        if self.ffn_down is None and self.experts is not None and self.ffn is not None:
            return self.ffn
        return self.one("ffn_down")

    def of_layer(self, number: int) -> Architecture:
        """The parts of one layer."""
        return dict(self.others).get(number, self)

    def contradicts(self, entry: Architecture) -> list[str]:
        """The parts of which an entry says something else than what was found here."""
        names = [*PARTS, "attention"]
        return [name for name in names if getattr(self, name) and getattr(entry, name) != getattr(self, name)]


REMEDY = (
    "use a method that asks nothing of the layers (adapter with placement output, bitfit, layer_norm, full, "
    "head_only), lora with names of maps or all-linear as its targets, or add an entry to "
    "pemeta.backbone.architectures.ARCHITECTURES"
)
"""What to do where a part was not found."""
