"""Descriptions of the PE methods, with their sizes on a given model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic_core import PydanticUndefined

from pemeta.backbone.loading import empty_backbone
from pemeta.backbone.structure.wording import described_layers
from pemeta.errors import ModelError
from pemeta.methods import PEMethod
from pemeta.utils.modules import count
from pemeta.utils.strict_yaml import read_value


def describe_methods(chosen: Sequence[str], model: str | None) -> Iterator[str]:
    """Lines that describe each method, and the layers of a model with the names of their parts.

    Args:
        chosen: names, or YAML mappings with the key ``name``; every registered method if empty.
        model: a folder or hub name whose configuration gives the sizes; no sizes if None.

    Raises:
        ConfigError: a name or a field is unknown.
        ModelError: the model's configuration cannot be read.
    """
    methods = [PEMethod.parse(read_value(text, "a method's name", "{name: lora, rank: 4}")) for text in chosen]
    if model is not None:
        empty_backbone(model)  # a wrong name is found before the first line
    for one in methods or PEMethod.members().values():
        kind = one if isinstance(one, type) else type(one)
        yield f"{kind.name}: {(kind.__doc__ or '').strip().splitlines()[0].replace('``', '')}"
        given = {} if isinstance(one, type) else one.to_config()
        for key, field in kind.model_fields.items():
            value = given.get(key, field.default)
            yield f"    {key} (required)" if value is PydanticUndefined else f"    {key} = {json.dumps(value)}"
        yield f"    paper: {kind.paper}"
        if model is not None:
            yield f"    θ_a: {size(one, model)}"
    if model is not None:
        yield from described_layers(empty_backbone(model))


def size(method: PEMethod | type[PEMethod], model: str) -> str:
    """The number of a model's parameters that the method adapts, or why it cannot.

    Args:
        method: a method, or a class, whose defaults are used.
        model: a folder or hub name; only its configuration is read.
    """
    if isinstance(method, type):
        if any(field.is_required() for field in method.model_fields.values()):
            return f"depends on its fields; give them: pemeta methods '{{name: {method.name}, ...}}'"
        method = method()
    backbone = empty_backbone(model)
    try:
        method.attach(backbone)
    except ModelError as error:
        return str(error)
    adapted = count(backbone, method.theta_a(backbone))
    whole = sum(parameter.numel() for parameter in backbone.parameters())
    share = 100 * adapted / whole
    shown = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    return f"{adapted:,} of {whole:,} parameters ({shown} %); a task stores these and its head"
