"""Query, key, value and output maps of a layer, by what changes of their outputs do to attention.

Attention is ``softmax(q kᵀ) v``: it is linear in the values and in nothing else, a query matters at its own position
only, and where the values of all positions are equal it returns them, whatever the keys are; the last holds, too, where
values, or the result, are normalised. So the maps that feed it are told from each other, and from those of
convolutions, state spaces and gates, whatever their names are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pemeta.backbone.structure.trial import Change, Effect, Trial, closeness, differs, drawn, rows_of

LOOKED_FOR = "linear maps on which attention between positions depends as on queries, keys and values"
COPIES = 4
"""Vectors that are looked for among a fused map's outputs: one could be there by chance."""


@dataclass(frozen=True)
class AttentionMaps:
    """Names of the maps of attention, and the width of its keys where one map makes them together with others."""

    query: str
    key: str
    value: str
    output: str
    width: int | None = None


def attention_maps(trial: Trial, guess: AttentionMaps | None) -> AttentionMaps | str:
    """The maps of a layer's attention, or a reason why they were not found.

    Args:
        trial: The layer.
        guess: What the names say, which decides where passes cannot.
    """
    seen: list[str] = []
    found: list[AttentionMaps] = []
    for output in trial.derived:
        feeds = trial.feeds(output)
        if "mixing" not in feeds.values():
            continue
        roles = _separate(trial, output, feeds) or _fused(trial, output, feeds) or _named(trial, output, feeds, guess)
        if roles is not None:
            found.append(roles)
        seen.append(f"{output}, which depends on {', '.join(feeds)}")
    if len(found) == 1:
        return found[0]
    return f"looked for {LOOKED_FOR}; found {'several: ' if found else ''}{'; '.join(seen) or 'none'}"


def _separate(trial: Trial, output: str, feeds: Mapping[str, Effect]) -> AttentionMaps | None:
    """The roles of three maps of their own; others may act as gates."""
    scene = _Scene(trial, output, list(feeds))
    mixing = [name for name, effect in feeds.items() if effect == "mixing"]
    values = [name for name in mixing if scene.is_affine(name)]
    if not values and len(mixing) == 2:
        values = [value for name, value in (mixing, mixing[::-1]) if scene.only_weighs(name, value)]
    keys = [name for name in mixing if name not in values]
    if len(values) != 1 or len(keys) != 1:
        return None
    queries = [name for name in feeds if name not in mixing and not scene.is_affine(name)]
    queries = [name for name in queries if len(queries) == 1 or scene.only_weighs(name, values[0])]
    return AttentionMaps(queries[0], keys[0], values[0], output) if len(queries) == 1 else None


def _fused(trial: Trial, output: str, feeds: Mapping[str, Effect]) -> AttentionMaps | None:
    """The roles where one map makes keys and values, and perhaps queries, too."""
    mixing = [name for name, effect in feeds.items() if effect == "mixing"]
    rest = [name for name in feeds if name not in mixing]
    if len(mixing) != 1 or len(rest) > 1:
        return None
    scene = _Scene(trial, output, list(feeds))
    width = scene.copied(mixing[0])
    if width is None or scene.is_affine(mixing[0]):  # values alone, where the other maps have no effect
        return None
    return AttentionMaps(rest[0] if rest else mixing[0], mixing[0], mixing[0], output, width)


def _named(trial: Trial, output: str, feeds: Mapping[str, Effect], guess: AttentionMaps | None) -> AttentionMaps | None:
    """What the names say, if passes allow it: where convolutions or landmarks are mixed with attention."""
    if guess is None or guess.output != output or guess.query == guess.key or guess.key == guess.value:
        return None
    if feeds.get(guess.key) != "mixing" or feeds.get(guess.value) != "mixing" or guess.query not in trial.derived:
        return None
    scene = _Scene(trial, output, list(feeds))
    fits = scene.is_affine(guess.value) and not scene.is_affine(guess.key)
    return guess if fits and trial.effects(guess.query)[output] != "none" else None


class _Scene:
    """Attention whose feeding maps have random outputs, so that nothing depends on the weights.

    Args:
        trial: The layer.
        output: The map that attention's result is the input of.
        feeds: The maps that feed attention.
    """

    def __init__(self, trial: Trial, output: str, feeds: Sequence[str]) -> None:
        self.trial, self.output = trial, output
        self.base = {name: drawn(trial.plain.outputs[name], seed) for seed, name in enumerate(feeds)}

    def result(self, changes: Mapping[str, Tensor]) -> Tensor:
        """The input of the output map, with these outputs in place of the random ones."""
        fixed: dict[str, Change] = {name: _Fixed(value) for name, value in {**self.base, **changes}.items()}
        found = self.trial.run(fixed).inputs.get(self.output)
        return self.trial.plain.inputs[self.output] * float("nan") if found is None else found

    def is_affine(self, name: str) -> bool:
        """Whether the result is an affine function of a map's output: halfway between two it is halfway."""
        one, other = self.base[name], drawn(self.base[name], 13)
        start, middle, end = (rows_of(self.result({name: at})) for at in (one, (one + other) / 2, other))
        bend, rise = (end - 2 * middle + start).abs().amax(), (end - start).abs().amax()
        return bool(bend <= closeness(self.base[name]) * rise) and bool(rise > 0)

    def only_weighs(self, name: str, value: str) -> bool:
        """Whether a map's output does not matter where the values of all positions are equal: no gate does this."""
        alike = _all_like_the_first(self.base[value])
        other = drawn(self.base[name], 11)
        return not differs(self.result({value: alike}), self.result({value: alike, name: other}))

    def copied(self, name: str) -> int | None:
        """The width of the values among a map's outputs; None if the result does not consist of these.

        Where the outputs of all positions are equal, the result is a copy of the values, once for each query head.
        """
        base = self.base[name]
        vectors = [drawn(base.reshape(-1, base.shape[-1])[:1], seed) for seed in range(COPIES + 1)]
        results = []
        for vector in vectors:
            alike = vector.expand(base.numel() // vector.numel(), -1).reshape(base.shape)
            rows = rows_of(self.result({name: alike}))
            if not bool(((rows - rows[:1]).abs() <= closeness(vector)).all()):
                return None
            results.append(rows[0])
        # A bias of the values does not matter in differences.
        inner = torch.stack([rows_of(v)[0] - rows_of(vectors[0])[0] for v in vectors[1:]], 1)
        outer = torch.stack([result - results[0] for result in results[1:]], 1)
        nearest, index = _nearest(outer, inner)
        if not bool((nearest <= 2 * closeness(vectors[0])).all()):
            return None
        return len(index.unique())


def _nearest(points: Tensor, others: Tensor, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Distance to, and index of, each point's nearest of the others."""
    found = [torch.cdist(some, others, p=float("inf")).min(1) for some in points.split(chunk)]
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def _all_like_the_first(output: Tensor) -> Tensor:
    rows = output.reshape(-1, output.shape[-1])
    return rows[:1].expand_as(rows).reshape(output.shape)


class _Fixed:
    """A change to a fixed value."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, output: Tensor) -> Tensor:
        return self.value.clone()  # Longformer divides its queries in place
