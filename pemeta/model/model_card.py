"""The model card (README.md) of a saved model, with the hub's front matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

from pemeta.backbone.output_kinds import CLASSES
from pemeta.methods.base import PEMethod

MATTER = ("license", "license_name", "license_link", "language", "datasets", "metrics", "tags", "base_model")
"""Keys of the hub's front matter that the facts of a model may give."""
INHERITED = ("license", "license_name", "license_link", "language")
"""Keys that a model has from its base, where the facts do not give them."""
LANGUAGES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el "
    "en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it "
    "iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt "
    "my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl "
    "sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo "
    "za zh zu"
)
"""Codes of ISO 639-1, which the hub takes for languages."""


def model_card(
    backbone: PreTrainedModel,
    methods: Sequence[PEMethod],
    num_added: int,
    facts: Mapping[str, Any],
    whole: PreTrainedModel | None = None,
) -> str:
    """The text of a model card.

    Args:
        backbone: the backbone that the methods are attached to.
        methods: the fine-tuning method, then the others.
        num_added: number of parameters in ``theta_a.safetensors``.
        facts: how the model was made, shown as a table; keys of the front matter (``license``, ``language``,
            ``metrics`` ...) go there.
        whole: the language model that is saved with the backbone, if one is.
    """
    base, saved = base_model(backbone), backbone if whole is None else whole
    what = "backbone" if whole is None else "language model"
    own = sum(p.numel() for p in saved.parameters()) - (num_added if whole is None else 0)
    first, *others = methods
    also = f"; also attached: {', '.join(f'`{method.name}`' for method in others)}" if others else ""
    origin = f" initialised from `{base}`" if base else ""
    summary = (
        f"A {what}{origin} with {own:,} parameters of its own and {num_added:,} that PE methods added, saved by "
        f"pemeta. Fine-tuning method: `{first!r}`{also}.\n"
    )
    notes = (
        "`PATH` is this folder, or its name on the hub. Task heads are not included; the folder `tasks/`, if present, "
        "has one folder for each fine-tuned task.\n"
    )
    matter = yaml.safe_dump(_front_matter(backbone, methods, facts), sort_keys=False, allow_unicode=True)
    module, auto = _loading_class(saved)
    parts = [
        f"---\n{matter}---\n",
        f"# {type(saved).__name__} for fine-tuning with `{first.name}`\n",
        summary,
        *_how_it_was_made(facts),
        "## Load it\n",
        "With pemeta, ready for fine-tuning, with the saved θ_p and θ_a:\n",
        '```python\nfrom pemeta import PEModel\n\nmodel = PEModel.from_pretrained("PATH")\n```\n',
        f"With transformers alone, as a {what} without the methods' parameters:\n",
        f'```python\nfrom {module} import {auto}\n\nbackbone = {auto}.from_pretrained("PATH")\n```\n',
        notes,
    ]
    return "\n".join(parts)


def base_model(backbone: PreTrainedModel) -> str | None:
    """The name on the hub that a backbone was loaded from, if known."""
    name = str(getattr(backbone.config, "_name_or_path", "") or "")
    return name if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and not Path(name).exists() else None


def _front_matter(backbone: PreTrainedModel, methods: Sequence[PEMethod], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The hub's front matter: what is known from the facts and from the base's own card, and nothing else."""
    tags = ["pemeta", "parameter-efficient", "priming", *(method.name for method in methods)]
    matter: dict[str, Any] = {"library_name": "transformers", "tags": tags}
    card = _card_of_base(backbone)
    matter |= {key: card[key] for key in INHERITED if card.get(key)}
    base = base_model(backbone) or card.get("base_model")
    if base:
        matter["base_model"] = base
    languages = facts.get("sources")
    if isinstance(languages, (list, tuple)) and languages and set(map(str, languages)) <= set(LANGUAGES.split()):
        matter["language"] = list(languages)
    for key in MATTER:
        value = facts.get(key)
        if value and key not in ("tags", "base_model"):
            matter[key] = _plain(list(value) if isinstance(value, Mapping) else value)
    given = facts.get("tags") or []
    matter["tags"] = list(dict.fromkeys([*tags, *([given] if isinstance(given, str) else map(str, given))]))
    if isinstance(facts.get("base_model"), str):
        matter["base_model"] = facts["base_model"]
    return matter


def _plain(value: Any) -> Any:
    """A value of the front matter: a text or a list of texts."""
    return [str(one) for one in value] if isinstance(value, (list, tuple, set, frozenset)) else str(value)


def _card_of_base(backbone: PreTrainedModel) -> dict[str, Any]:
    """The front matter of the card beside a backbone's files, here or in the hub's cache; empty if there is none."""
    name = str(getattr(backbone.config, "_name_or_path", "") or "")
    here = Path(name) / "README.md"
    try:
        file = here if name and here.is_file() else try_to_load_from_cache(base_model(backbone) or "", "README.md")
        text = Path(file).read_text(encoding="utf-8") if isinstance(file, (str, Path)) else ""
        found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        value = yaml.safe_load(found[1]) if found else {}
    except (OSError, ValueError, yaml.YAMLError):  # ValueError: not a name on the hub, or not UTF-8
        return {}
    return value if isinstance(value, dict) else {}


def _loading_class(backbone: PreTrainedModel) -> tuple[str, str]:
    """Module and name of the class that loads a backbone in transformers."""
    kind = type(backbone)
    known_by: dict[str, Any] = {
        "AutoModel": MODEL_MAPPING,
        "AutoModelForTextEncoding": MODEL_FOR_TEXT_ENCODING_MAPPING,
        "AutoModelForCausalLM": CLASSES["causal_lm"],
        "AutoModelForMaskedLM": CLASSES["masked_lm"],
    }
    for auto, mapping in known_by.items():
        known: Any = mapping.get(type(backbone.config), ())
        if kind in (known if isinstance(known, tuple) else (known,)):
            return "transformers", auto
    return kind.__module__, kind.__name__


def _how_it_was_made(facts: Mapping[str, Any]) -> list[str]:
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in facts.items()]
    return ["## How it was primed\n", "\n".join(["| | |", "|---|---|", *rows]) + "\n"] if rows else []


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return " ".join(str(value).split()).replace("|", "\\|")
