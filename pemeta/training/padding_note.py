"""A line about which way a run goes whose settings ask for sentences without padding."""

from __future__ import annotations

from pemeta.model.pe_model import PEModel
from pemeta.utils.messages import warn


def say_how_sentences_run(model: PEModel, shown: bool) -> None:
    """Say whether batches run without padding, if the model's ``padding`` asks for it.

    Args:
        model: the model.
        shown: whether a run shows its progress.
    """
    if not shown or model.padding == "padded":
        return
    name, asked = type(model.backbone).__name__, f"padding: {model.padding}"
    if model.packs:
        where = " where that is less work" if model.padding == "auto" else ""
        warn(f"{asked}: sentences run behind each other in rows, without padding{where}", once=True)
    elif model.padding == "auto":  # for packed, a batch's own trial warns
        warn(f"{asked}: {name} computes something else for sentences in rows, so batches are padded", once=True)
