"""A backbone's architecture, found from its modules and shown by passes of a tiny batch."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from pemeta.backbone.maps import walk
from pemeta.backbone.structure.attention_roles import LOOKED_FOR, AttentionMaps, attention_maps
from pemeta.backbone.structure.description import PARTS, REMEDY, Architecture, Output
from pemeta.backbone.structure.ffn_roles import FeedForward, common_parent, experts_of, feed_forward
from pemeta.backbone.structure.guess import guessed
from pemeta.backbone.structure.layers import expand, layer_paths
from pemeta.backbone.structure.record import LayerCall, Record, recorded
from pemeta.backbone.structure.trial import Trial, drawn
from pemeta.backbone.structure.undisturbed import has_values, undisturbed
from pemeta.errors import ModelError, clause


def found_in(backbone: nn.Module, paths: str | None = None) -> Architecture:
    """The architecture of a backbone.

    Without values (on the meta device) parts are told by their names alone.

    Args:
        backbone: A model of transformers.
        paths: Where its layers are, if that is known.

    Raises:
        ModelError: It has no layers, or a tiny batch does not run.
    """
    paths = paths or layer_paths(backbone)
    names = expand(backbone, paths)
    tried = has_values(backbone)
    with undisturbed(backbone):
        record = _record(backbone, names, tried)
        kinds: dict[Any, Architecture] = {}
        of_layers = []
        for name in names:
            layer = backbone.get_submodule(name)
            kind = signature(layer)
            if kind not in kinds:
                call = None if record is None else record.of(name)
                kinds[kind] = _tried(layer, call) if tried else _guess(backbone, layer, call)
            of_layers.append(kinds[kind])
    common = Counter(of_layers).most_common(1)[0][0]
    norms = Counter(one.norms for one in of_layers).most_common(1)[0][0]
    others = tuple((number, one) for number, one in enumerate(of_layers) if one != common)
    output = _declared(backbone, names) if record is None else record.output(names)
    passes = _shared(backbone, names) if record is None else record.passes(names)
    passes = max(passes, 1)
    return replace(common, layers=paths, output=output, passes=passes, norms=norms, others=others, tried=tried)


def signature(module: nn.Module) -> tuple[Any, ...]:
    """What tells a module from others of another kind: classes, names and shapes of all that is in it."""
    return tuple(
        (name, type(part), *((key, one.shape) for key, one in part._parameters.items() if one is not None))
        for name, part in walk(module)
    )


def _record(backbone: nn.Module, names: Sequence[str], tried: bool) -> Record | None:
    """A pass of a tiny batch; None if there are no values, and it fails because of that.

    Raises:
        ModelError: It fails although there are values.
    """
    if any(isinstance(one, FakeTensor) for one in backbone.parameters()):
        return None  # what runs would be counted
    try:
        return recorded(backbone, names)
    except ModelError as error:
        if tried:
            raise ModelError(f"{error}, so that its parts cannot be told by what they do; {REMEDY}") from None
        return None


def _declared(backbone: nn.Module, names: Sequence[str]) -> Output:
    """What layers return by their annotations: their hidden states, if all say that they return a tensor."""
    returned = [inspect.signature(backbone.get_submodule(name).forward).return_annotation for name in names]
    return "states" if all(one is Tensor or one in ("torch.Tensor", "Tensor") for one in returned) else "more"


def _shared(backbone: nn.Module, names: Sequence[str]) -> int:
    """How often layers run, by the configuration."""
    number = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    return number // len(names) if isinstance(number, int) and names else 1


def _tried(layer: nn.Module, call: LayerCall | None) -> Architecture:
    """The parts of a layer, by what they do in passes of it."""
    if call is None or call.hidden is None:
        return _nothing("a pass does not call the layer with hidden states")
    try:
        found = _by_trial(layer, call)
        if found.query and (found.ffn_down or found.experts):
            return found
        _redraw(layer)  # maps whose weights start as zero do nothing
        again = _by_trial(layer, call.on(drawn(call.hidden, 3)))
        return again if (again.query or not found.query) and (again.ffn_down or not found.ffn_down) else found
    except Exception as error:  # a layer that another pass of it alone does not suit
        return _nothing(f"the layer does not run by itself: {clause(error)}")


def _redraw(layer: nn.Module) -> None:
    """Give a layer random weights, which :func:`undisturbed` takes back."""
    for number, (_, part) in enumerate(walk(layer)):
        for name, one in part._parameters.items():
            if one is not None and one.is_floating_point():
                value = drawn(one, number, one.shape[-1] ** -0.5) if one.ndim > 1 else 1 + drawn(one, number, 0.2)
                part._parameters[name] = nn.Parameter(value, requires_grad=False)


def _nothing(why: str) -> Architecture:
    return _named(why, FeedForward(why=why))


def _by_trial(layer: nn.Module, call: LayerCall) -> Architecture:
    experts = experts_of(layer)
    trial = Trial(layer, call, skip=[] if experts is None else [f"{experts}."])
    guess = guessed(layer, trial.width)
    attention = attention_maps(trial, guess.attention)
    names = [] if isinstance(attention, str) else [attention.query, attention.key, attention.value, attention.output]
    ffn = feed_forward(trial, names)
    return replace(_named(attention, ffn), norms=_norms(trial, names, ffn, apart=True))


def _guess(backbone: nn.Module, layer: nn.Module, call: LayerCall | None) -> Architecture:
    """The parts of a layer, by names and widths."""
    width = None if call is None or call.hidden is None else call.hidden.shape[-1]
    guess = guessed(layer, width or int(getattr(getattr(backbone, "config", None), "hidden_size", 0) or 0))
    attention = guess.attention or f"looked for {LOOKED_FOR} by name"
    described = _named(attention, guess.ffn)
    if call is None or isinstance(attention, str):
        return described
    names = [attention.query, attention.key, attention.value, attention.output]
    return replace(described, norms=_norms(Trial(layer, call), names, guess.ffn, apart=False))


def _named(attention: AttentionMaps | str, ffn: FeedForward) -> Architecture:
    """The description of a layer."""
    missing = dict.fromkeys(("ffn", "ffn_up", "ffn_down"), ffn.why)
    if isinstance(attention, str):
        missing |= dict.fromkeys(("attention", *PARTS[:4]), attention)
    else:
        missing |= {"attention": "no module of the layer has the maps of attention alone"}
    found = Architecture(
        layers="",
        ffn=ffn.block,
        ffn_up=ffn.ups,
        ffn_down=ffn.down,
        ffn_residual=ffn.residual,
        experts=ffn.experts,
        missing=tuple(missing.items()),
    )
    if isinstance(attention, str):
        return found
    return replace(
        found,
        attention=common_parent([attention.query, attention.key, attention.value]) or None,
        query=attention.query,
        key=attention.key,
        value=attention.value,
        attention_output=attention.output,
    )


def _norms(trial: Trial, attention: Sequence[str], ffn: FeedForward, apart: bool) -> str:
    """Where the norms are, as in ``Architecture``.

    Args:
        trial: The layer.
        attention: Names of attention's maps, the output's last.
        ffn: The feed-forward block.
        apart: Whether it can be tried if the two blocks run side by side.
    """
    order = trial.plain.order
    if not attention or not ffn.ups or ffn.down is None or not {*attention, *ffn.ups, ffn.down} <= set(order):
        return ""
    start, end = min(map(order.index, attention)), order.index(attention[-1])
    up, down = min(map(order.index, ffn.ups)), order.index(ffn.down)
    if up < end or (apart and trial.effects(attention[-1])[ffn.ups[0]] == "none"):
        return "parallel"
    before, between, after = (
        sum(name in trial.norms for name in part) for part in (order[:start], order[end + 1 : up], order[down + 1 :])
    )
    if not between:
        return "parallel" if before and not after and not apart else ""
    if before and after and between > 1:
        return "around"
    return "after" if after and not before else "before" if before and not after else ""
