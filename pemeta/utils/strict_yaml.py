"""Strict YAML for configurations: no duplicate keys, no unwritable characters, no alias bombs."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pemeta.errors import ConfigError, excerpt

MAX_VALUES = 100_000
"""Most values in a configuration with all aliases expanded; far more than the largest grid has."""
MAX_DEPTH = 50
"""Deepest nesting of lists and mappings in a configuration."""


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses duplicate keys, characters that no file can hold, deep nesting and excessive aliases."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is None:
            return None
        size, depth = _extent(node, {})
        if size > MAX_VALUES or depth > MAX_DEPTH:
            what = f"{MAX_VALUES} values" if depth <= MAX_DEPTH else f"{MAX_DEPTH} levels"
            raise yaml.composer.ComposerError(None, None, f"its aliases expand to more than {what}", node.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if re.search("[\0\ud800-\udfff]", node.value):
            raise yaml.composer.ComposerError(
                None, None, f"it has a character that no file can hold: {node.value!r}", node.start_mark
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return node


def _extent(node: Any, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """The number of values in a node and their depth, with all aliases expanded; infinite if it contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = (float("inf"), float("inf"))  # remains if the node contains itself
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes, depths = zip((0, 0), *(_extent(part, known) for part in parts), strict=True)
        known[id(node)] = (1 + sum(sizes), 1 + max(depths))
    return known[id(node)]


def read_yaml(text: str) -> Any:
    """The value of a YAML document, strictly read.

    Raises:
        ConfigError: The text is not valid; the message is the reason on one line, to which the caller adds the file.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: e.g. a date with a 13th month
        raise ConfigError(" ".join(str(error).split())) from error
    except Exception as error:  # `!!bool perhaps` is a KeyError, `!!timestamp soon` an AttributeError ...
        what = f"a key or tag does not fit its value ({type(error).__name__}: {error})"
        raise ConfigError(" ".join(what.split())) from error


def read_value(text: str, what: str, example: str) -> Any:
    """A name or a YAML mapping from the command line.

    Args:
        text: what was given.
        what: what the name is of, for the message.
        example: a mapping, for the message.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return read_yaml(text)
    except ConfigError as error:
        raise ConfigError(
            f"{excerpt(text)} is neither {what} nor a YAML mapping ({excerpt(str(error), 200)}); try {example!r}"
        ) from None
