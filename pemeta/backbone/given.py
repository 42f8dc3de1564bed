"""Refusal of what is given in place of a backbone: the bare model of transformers, without a head."""

from __future__ import annotations

import os

from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.backbone.output_kinds import kinds_of
from pemeta.errors import ModelError, article, excerpt


def described(given: object) -> str:
    """What was given in place of a model, for a message."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, str | os.PathLike):
        return excerpt(os.fspath(given))
    simple = given is None or isinstance(given, bool | int | float | bytes | list | tuple | dict | set)
    return excerpt(given) if simple else article(type(given).__name__)


def require_backbone(given: object) -> None:
    """Refuse anything but a model of transformers that gives a sequence of hidden states, and has nothing after them.

    Raises:
        ModelError: it is something else; the message says what to pass.
    """
    if not isinstance(given, PreTrainedModel):
        raise ModelError(f"PEModel takes a model of transformers; found {described(given)}; {_remedy(given)}")
    _refuse_two_stacks(given)
    _refuse_head(given)
    _refuse_other_widths(given)


def _remedy(given: object) -> str:
    if isinstance(given, str | os.PathLike):
        return f"load it with PEModel.from_pretrained({os.fspath(given)!r}, method)"
    if isinstance(given, type) and issubclass(given, PreTrainedModel):
        return f"load a model of it, {given.__name__}.from_pretrained(...)"
    if isinstance(getattr(given, "backbone", None), PreTrainedModel):
        return "it has a backbone already: use it as it is, and attach further methods with its attach"
    inner = getattr(given, "model", None)
    if isinstance(inner, PreTrainedModel):  # a pipeline
        return f"pass its {'model' if inner.base_model is inner else 'model.base_model'}"
    if isinstance(given, nn.Module):
        return "for any other module there is PrimingLearner(module, partition=Partition.of(...))"
    return "load one with transformers' AutoModel.from_pretrained, or PEModel.from_pretrained"


def _refuse_head(model: PreTrainedModel) -> None:
    """Refuse a model that has parameters beside its base model, unless it is a language model: tasks have own heads."""
    base = model.base_model
    if base is model or not _embeds(base, model) or kinds_of(model):
        return
    inside = {name for name, part in model.named_modules(remove_duplicate=False) if part is base}
    rest = [
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if not any(name.startswith(f"{path}.") for path in inside)
    ]
    if rest:
        raise ModelError(
            f"{type(model).__name__} is {article(type(base).__name__)} with a head of its own "
            f"({rest[0].rpartition('.')[0] or rest[0]}), but tasks get heads of pemeta's; pass its base model, which "
            f"is model.base_model"
        )


def _embeds(base: nn.Module, model: PreTrainedModel) -> bool:
    """Whether a model's inputs are embedded in its base model, which is otherwise a part of it (DINOv3's encoder)."""
    try:
        table: object = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return True
    return table is None or any(part is table for part in base.modules())


def _refuse_two_stacks(model: PreTrainedModel) -> None:
    """Refuse an encoder with a decoder, whose passes need the inputs of both."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return
    base = model.base_model
    if all(isinstance(getattr(base, stack, None), nn.Module) for stack in ("encoder", "decoder")):
        raise ModelError(
            f"{type(model).__name__} has an encoder and a decoder, but a backbone runs on one sequence; "
            "load its encoder alone, with AutoModelForTextEncoding.from_pretrained where transformers has one, or pass "
            "model.get_encoder()"
        )


def _refuse_other_widths(model: PreTrainedModel) -> None:
    """Refuse a model whose configuration does not say the width D of hidden states (B, T, D)."""
    if output_width(model) is None:
        name = type(model).__name__
        parts = [path for path, part in model.named_children() if _has_width(part)]
        rather = f"pass a part of it ({', '.join(f'model.{path}' for path in parts)})" if parts else "use a Transformer"
        raise ModelError(
            f"{name} has no hidden_size in its configuration, the width of a sequence of hidden states (B, T, D), on "
            f"which methods and heads work; {rather}"
        )


def output_width(backbone: nn.Module) -> int | None:
    """Width of the last hidden states, by the configuration; None if it does not say it.

    Some sizes of OPT map the hidden states back to the width of their embeddings.
    """
    config = getattr(backbone, "config", None)
    widths = (getattr(config, name, None) for name in ("word_embed_proj_dim", "hidden_size"))
    return next((width for width in widths if isinstance(width, int)), None)


def _has_width(part: nn.Module) -> bool:
    return isinstance(part, PreTrainedModel) and output_width(part) is not None


def require_sequence(model: nn.Module, states: object, rows: int | None = None) -> Tensor:
    """The last hidden states of a pass, if they are vectors (B, T, D) as wide as the configuration says.

    Args:
        model: The backbone.
        states: What it gave.
        rows: Number of sequences B, if known.

    Raises:
        ModelError: they are something else.
    """
    width = output_width(model)
    right = isinstance(states, Tensor) and states.ndim == 3 and states.shape[-1] == width
    if isinstance(states, Tensor) and right and rows in (None, len(states)):
        return states
    found = f"of shape {tuple(states.shape)}" if isinstance(states, Tensor) else "not in its output"
    raise _other_hidden_states(type(model).__name__, f"{found}{f' for {rows} inputs' if right else ''}", width)


def _other_hidden_states(name: str, found: str, width: int | None) -> ModelError:
    return ModelError(
        f"the last hidden states of {name} are {found}, but methods and heads work on a sequence of vectors (B, T, D) "
        f"with D = {width}, by its configuration; use a backbone that gives these"
    )


def require_location(given: object, taker: str) -> None:
    """Refuse what is neither a folder nor a name on the hub.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(given, str | os.PathLike):
        remedy = (
            "make a model of it, PEModel(backbone, method)" if isinstance(given, PreTrainedModel) else "give its path"
        )
        raise ModelError(f"{taker} takes a folder or a name on the hub; found {described(given)}; {remedy}")
