"""The model card (README.md) of a saved model, with the hub's front matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel

from pemeta.methods.base import PEMethod


def model_card(backbone: PreTrainedModel, methods: Sequence[PEMethod], num_added: int, facts: Mapping[str, Any]) -> str:
    """The text of a model card.

    Args:
        backbone: the backbone that the methods are attached to.
        methods: the fine-tuning method, then the others.
        num_added: number of parameters in ``theta_a.safetensors``.
        facts: how the model was made; shown as a table.
    """
    base = base_model(backbone)
    matter: dict[str, Any] = {"library_name": "transformers", "tags": ["pemeta", "parameter-efficient", "priming"]}
    matter["tags"] += list(dict.fromkeys(method.name for method in methods))
    if base is not None:
        matter["base_model"] = base
    own = sum(p.numel() for p in backbone.parameters()) - num_added
    first, *others = methods
    also = f"; also attached: {', '.join(f'`{method.name}`' for method in others)}" if others else ""
    origin = f" initialised from `{base}`" if base else ""
    summary = (
        f"A backbone{origin} with {own:,} parameters of its own and {num_added:,} that PE methods added, saved by "
        f"pemeta. Fine-tuning method: `{first!r}`{also}.\n"
    )
    notes = (
        "`PATH` is this folder, or its name on the hub. Task heads are not included; the folder `tasks/`, if present, "
        "has one folder for each fine-tuned task.\n"
    )
    auto = "AutoModelForTextEncoding" if type(backbone).__name__.endswith("EncoderModel") else "AutoModel"
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n",
        f"# {type(backbone).__name__} for fine-tuning with `{first.name}`\n",
        summary,
        *_how_it_was_made(facts),
        "## Load it\n",
        "With pemeta, ready for fine-tuning, with the saved θ_p and θ_a:\n",
        '```python\nfrom pemeta import PEModel\n\nmodel = PEModel.from_pretrained("PATH")\n```\n',
        "With transformers alone, as a backbone without the methods' parameters:\n",
        f'```python\nfrom transformers import {auto}\n\nbackbone = {auto}.from_pretrained("PATH")\n```\n',
        notes,
    ]
    return "\n".join(parts)


def base_model(backbone: PreTrainedModel) -> str | None:
    """The name on the hub that a backbone was loaded from, if known."""
    name = str(getattr(backbone.config, "_name_or_path", "") or "")
    return name if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and not Path(name).exists() else None


def _how_it_was_made(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return []
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in facts.items()]
    return ["## How it was primed\n", "\n".join(["| | |", "|---|---|", *rows]) + "\n"]


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return " ".join(str(value).split()).replace("|", "\\|")
