"""Digests of JSON values, and file names made from texts."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

MAX_SLUG = 120
"""Most characters of a slug; file systems allow 255 bytes for a file name that holds two slugs and a seed."""


def slug(text: str) -> str:
    """A file name for a setting or target; letters, digits, ``.``, ``_`` and ``-`` are kept.

    If anything is replaced or truncated, a digest keeps different texts distinct.

    >>> slug("adapter")
    'adapter'
    >>> slug("a/b") != slug("a_b")
    True
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:MAX_SLUG]
    return safe if safe == text else f"{safe}-{config_digest(text)[:6]}"


def config_digest(value: Any) -> str:
    """A digest of a JSON value, as twelve hexadecimal digits; the order of its keys does not matter.

    >>> config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
