"""``.. fields:: pemeta.X``: a table of a configuration class's keys, from its fields and its docstring.

A field that no "Attributes:" section describes is an error, so the page is complete.
"""

import importlib
import inspect
import types
import typing
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticUndefined

from pemeta.utils.docstrings import field_texts
from pemeta.utils.registry import Named

SIMPLE = {Path: "path", str: "string", int: "integer", float: "number", bool: "boolean", typing.Any: "anything"}
SIMPLE[JsonValue] = "anything"
BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}"}


class Fields(Directive):
    required_arguments = 1
    option_spec: ClassVar = {"skip": directives.unchanged}

    def run(self):
        module, _, name = self.arguments[0].rpartition(".")
        model = getattr(importlib.import_module(module), name)
        meanings = field_texts(model)
        skip = self.options.get("skip", "").split()
        rows = [".. list-table::", "   :header-rows: 1", "   :widths: 20 26 16 38", "", "   * - key", "     - value"]
        rows += ["     - default", "     - meaning"]
        for key, field in model.model_fields.items():
            if key in skip:
                continue
            if key not in meanings:
                raise self.error(f"{name}.{key} is in no Attributes section")
            cells = [f"``{key}``", kind(field), default(field), meanings[key]]
            rows += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
        box = nodes.Element()
        self.state.nested_parse(StringList(rows, source=self.arguments[0]), 0, box)
        return box.children


def kind(field):
    """A field's type and bounds in words."""
    found = ((key, getattr(m, key, None)) for m in field.metadata for key in BOUNDS)
    bounds = ", ".join(BOUNDS[key].format(value) for key, value in found if value is not None)
    empty = ", not empty" if any(getattr(m, "min_length", None) for m in field.metadata) else ""
    null = ", or null"
    text = words(field.annotation)
    end = null if text.endswith(null) else ""
    return f"{text.removesuffix(null)} {bounds}".strip() + empty + end


def words(annotation):
    """A type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return ", or ".join(words(a) for a in arguments)
    if origin is typing.Annotated:
        return words(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"``{a}``" for a in arguments)
    if origin is tuple:
        return f"list of {words(arguments[0])}"
    if origin is dict:
        return f"mapping of names to {words(arguments[1])}"
    if annotation is type(None):
        return "null"
    if inspect.isclass(annotation) and issubclass(annotation, Named):
        return annotation.kind
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"mapping ({annotation.__name__})"
    return SIMPLE[annotation]


def default(field):
    """A field's default as YAML would have it."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Named) and not value.model_fields_set:
        return f"``{value.name}``"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, tuple):
        return f"``[{', '.join(getattr(one, 'name', str(one)) for one in value)}]``"
    return f"``{value}``"


def setup(app):
    app.add_directive("fields", Fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
