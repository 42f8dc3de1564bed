"""What docstrings say of a class and of its fields, for lists of commands and for editors."""

from __future__ import annotations

import inspect
import re


def field_texts(cls: type) -> dict[str, str]:
    """What the sections "Attributes:" of a class and of its bases say of each field, on one line."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(one.__dict__.get("__doc__") or "").partition("Attributes:\n")
        section = re.split(r"\n(?=\S)", section)[0]
        for item in re.split(r"\n    (?=\w+:)", f"\n{section}")[1:]:
            name, _, text = item.partition(":")
            found[name] = " ".join(text.split())
    return found


def first_paragraph(cls: type) -> str:
    """The first paragraph of a class's own docstring, on one line; empty without one."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return " ".join(text.partition("\n\n")[0].split())


def plain_text(text: str) -> str:
    """A docstring's text without its markup.

    >>> plain_text("``sdpa``, see :class:`~pemeta.PEModel`")
    '`sdpa`, see `PEModel`'
    """
    text = re.sub(r":\w+:`(?:~[\w.]*\.)?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")
