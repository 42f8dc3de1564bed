"""The README.md of a saved model: what it is and how to load it, with the hub's front matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel

from pemeta.methods.base import PEMethod


def model_card(backbone: PreTrainedModel, methods: Sequence[PEMethod], num_added: int, facts: Mapping[str, Any]) -> str:
    """The card of a model.

    Args:
        backbone: what the methods are attached to.
        methods: the fine-tuning method, then the others.
        num_added: parameters in ``theta_a.safetensors``.
        facts: how the model was made, as a table.
    """
    base = base_model(backbone)
    matter: dict[str, Any] = {"library_name": "transformers", "tags": ["pemeta", "parameter-efficient", "priming"]}
    matter["tags"] += list(dict.fromkeys(method.name for method in methods))
    if base is not None:
        matter["base_model"] = base
    own = sum(p.numel() for p in backbone.parameters()) - num_added
    first, *others = methods
    beside = f"; attached beside it: {', '.join(f'`{method.name}`' for method in others)}" if others else ""
    started = f" that started from `{base}`" if base else ""
    about = (
        f"A backbone{started} with {own:,} parameters of its own and {num_added:,} that PE methods added, saved by "
        f"pemeta. Fine-tuning method: `{first!r}`{beside}.\n"
    )
    left_out = (
        "`PATH` is this folder, or its name on the hub. Task heads are not in it; a folder `tasks/`, if there is one, "
        "has one folder for each fine-tuned task.\n"
    )
    auto = "AutoModelForTextEncoding" if type(backbone).__name__.endswith("EncoderModel") else "AutoModel"
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n",
        f"# {type(backbone).__name__} for fine-tuning with `{first.name}`\n",
        about,
        *_how_it_was_made(facts),
        "## Load it\n",
        "With pemeta, ready for fine-tuning, with the saved values of θ_p and θ_a:\n",
        '```python\nfrom pemeta import PEModel\n\nmodel = PEModel.from_pretrained("PATH")\n```\n',
        "With transformers alone, as a backbone without what the methods added:\n",
        f'```python\nfrom transformers import {auto}\n\nbackbone = {auto}.from_pretrained("PATH")\n```\n',
        left_out,
    ]
    return "\n".join(parts)


def base_model(backbone: PreTrainedModel) -> str | None:
    """The name on the hub that a backbone was loaded from, where it is known."""
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
