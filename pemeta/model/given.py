"""Refusal of what is given in place of a model."""

from __future__ import annotations

import os

from torch import nn

from pemeta.backbone.given import described
from pemeta.errors import ModelError
from pemeta.model.pe_model import PEModel


def require_model(given: object, taker: str) -> None:
    """Refuse anything but a :class:`~pemeta.PEModel`, and say how to get one from what is given.

    Args:
        given: what was given as the model.
        taker: who needs it, as the message begins.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(given, PEModel):
        raise ModelError(f"{taker} takes a PEModel; found {described(given)}; {_remedy(given)}")


def require_module(given: object, taker: str) -> None:
    """Refuse anything but a module.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(given, nn.Module):
        require_model(given, taker)


def _remedy(given: object) -> str:
    inner = getattr(given, "model", None)
    if isinstance(inner, PEModel):
        return "pass the PEModel in it, its attribute model"
    if isinstance(given, str | os.PathLike):
        return f"load it with PEModel.from_pretrained({os.fspath(given)!r}), and a method if pemeta did not save it"
    return "make one of a backbone and a method, PEModel(backbone, method)"
