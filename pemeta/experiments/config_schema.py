"""The JSON schema of configurations, by which editors check and complete them.

pydantic writes it, but for what it knows nothing of: families of named descriptions, which validators of pemeta's own
read, and defaults at the top of a configuration, which are merged into its settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from pemeta.errors import article
from pemeta.experiments.config import GridConfig
from pemeta.priming.algorithms import PrimingAlgorithm
from pemeta.tasks.kinds import TaskKind
from pemeta.utils.docstrings import field_texts, first_paragraph, plain_text
from pemeta.utils.registry import Named

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The dialect that editors know best."""
NAME = "pemeta.schema.json"
"""The usual name of the schema's file."""
DISTINCT = ("targets", "sources", "seeds", "validation_tasks", "trackers")
"""Lists of which no two values may be equal."""
_FAMILY = "x-pemeta-family"
"""Marks the place of a member of a family, until the family's own schema is there."""
_DEFAULTS = "PrimingDefaults"


def config_schema() -> dict[str, Any]:
    """The JSON schema (draft 7) of configurations, with all that is registered: methods, algorithms, data sources etc.

    What it accepts may still be refused by :func:`~pemeta.load_config`, which also knows what depends on several keys.
    """
    families: dict[str, type[Named]] = {}
    while True:  # members of a family may hold those of another
        generator = _Generator()
        models: list[type[BaseModel]] = [GridConfig]
        models += [member for family in families.values() for member in family.members().values()]
        places, parts = generator.generate_definitions(
            [(model, "validation", model.__pydantic_core_schema__) for model in models]
        )
        if generator.families.keys() <= families.keys():
            break
        families |= generator.families
    definitions: dict[str, Any] = {str(name): part for name, part in parts.items()}
    for name, family in families.items():
        definitions[name] = _family(family, {one: places[one, "validation"] for one in family.members().values()})
    whole = definitions.pop(GridConfig.__name__)
    _add_defaults(whole, definitions)
    result = {"$schema": DIALECT, "title": "pemeta", **whole, "$defs": dict(sorted(definitions.items()))}
    found: dict[str, Any] = _with_families(result)
    return found


def schema_text() -> str:
    """The schema as the text of its file."""
    return f"{json.dumps(config_schema(), ensure_ascii=False, indent=1)}\n"


class _Generator(GenerateJsonSchema):
    """pydantic's generator, which leaves a mark for a member of a family, and takes descriptions from docstrings."""

    def __init__(self) -> None:
        super().__init__()
        self.families: dict[str, type[Named]] = {}

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        family = getattr(schema["function"]["function"], "__self__", None)
        if isinstance(family, type) and issubclass(family, Named):
            self.families[family.__name__] = family
            return {_FAMILY: family.__name__}
        return super().function_plain_schema(schema)

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        found, model = super().model_schema(schema), schema["cls"]
        found.pop("title", None)
        found["description"] = plain_text(first_paragraph(model))
        texts = field_texts(model)
        for key, item in found.get("properties", {}).items():
            if key in texts:
                item["description"] = plain_text(texts[key])
        if issubclass(model, Named):
            presets = [name for name, preset in model.presets.items() if preset["name"] == model.name]
            name = {"enum": [model.name, *presets], "description": found["description"]}
            found["properties"] = {"name": name, **found.get("properties", {})}
            found["required"] = ["name", *found.get("required", ())]
        return found

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().tuple_schema(schema)
        if "prefixItems" in found:  # which is what draft 7 says as a list of items
            found["items"] = found.pop("prefixItems")
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _family(family: type[Named], members: Mapping[type[Named], JsonSchemaValue]) -> dict[str, Any]:
    """A member of a family: its name, if that is enough, or a mapping."""
    short = {
        one.name: plain_text(first_paragraph(one))
        for one in members
        if not any(field.is_required() for field in one.model_fields.values())
    }
    for name, preset in family.presets.items():
        if preset["name"] in short:
            others = ", ".join(f"{key}: {value}" for key, value in preset.items() if key != "name")
            short[name] = f"`{preset['name']}` with {others}"
    names = [{"const": name, "description": text} for name, text in short.items()]
    return {
        "description": f"{article(family.kind).capitalize()}: a name, or a mapping with the key `name`.",
        "anyOf": [*names, *members.values()],
    }


def _add_defaults(whole: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Add keys at the top of a configuration that are read elsewhere: defaults of settings, and some of kinds."""
    text = "Defaults for {}, merged into those that give other values."
    keys = whole["properties"]
    for name in DISTINCT:
        keys[name]["uniqueItems"] = True
    keys["finetuning"] = _or_null({"$ref": "#/$defs/FineTuning"}, text.format("the settings' `finetuning`"))
    keys["priming"] = _or_null(
        {"$ref": f"#/$defs/{_DEFAULTS}"}, text.format("the `priming` of those settings that prime")
    )
    kinds: list[type[TaskKind[Any]]] = list(TaskKind.members().values())
    for kind in kinds:  # some keys stood there before there were kinds
        keys.update({key: definitions[kind.__name__]["properties"][key] for key in kind.at_the_top})
    algorithms = [definitions[one.__name__] for one in PrimingAlgorithm.members().values()]
    definitions[_DEFAULTS] = {
        "type": "object",
        "description": "Keys of priming algorithms, of which each setting takes those that its own has.",
        "properties": _merged(one["properties"] for one in algorithms),
        "additionalProperties": False,
    }
    priming = definitions["Setting"]["properties"]["priming"]
    priming["anyOf"].insert(1, {"$ref": f"#/$defs/{_DEFAULTS}"})
    # A setting's own mapping needs a name, unless the defaults have one.
    named = {"properties": {"priming": {"type": "object", "required": ["name"]}}, "required": ["priming"]}
    own = {"properties": {"priming": {"if": {"type": "object"}, "then": {"required": ["name"]}}}}
    whole["if"] = {"not": named}
    whole["then"] = {"properties": {"settings": {"additionalProperties": own}}}


def _or_null(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "description": description}


def _merged(properties: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Keys of several schemas; a key that differs among them may be what it is in any."""
    found: dict[str, list[Any]] = {}
    for keys in properties:
        for key, item in keys.items():
            if item not in found.setdefault(key, []):
                found[key].append(item)
    return {key: items[0] if len(items) == 1 else {"anyOf": items} for key, items in found.items()}


def _with_families(value: Any) -> Any:
    """A schema in which marks are references to the families' schemas."""
    if isinstance(value, Mapping):
        return {
            **{key: _with_families(item) for key, item in value.items() if key != _FAMILY},
            **({"$ref": f"#/$defs/{value[_FAMILY]}"} if _FAMILY in value else {}),
        }
    return [*map(_with_families, value)] if isinstance(value, list) else value
