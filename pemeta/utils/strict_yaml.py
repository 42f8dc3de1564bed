"""YAML as strictly as configurations are meant: no key twice, no text that no file can hold, no bombs."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pemeta.errors import ConfigError

MOST_VALUES = 100_000
"""Values in a configuration, those that its aliases repeat included; far more than the largest grid has."""
DEEPEST = 50
"""Lists and mappings within each other in a configuration."""


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not the loss of the first, and text is what files can hold.

    Aliases may not make more of a small file than anybody can have meant, nor lists be deeper.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is None:
            return None
        size, depth = _extent(node, {})
        if size > MOST_VALUES or depth > DEEPEST:
            what = f"{MOST_VALUES} values" if depth <= DEEPEST else f"{DEEPEST} levels"
            raise yaml.composer.ComposerError(None, None, f"its aliases make more than {what} of it", node.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if re.search("[\0\ud800-\udfff]", node.value):
            raise yaml.composer.ComposerError(
                None, None, f"text that no file can hold, {node.value!r}", node.start_mark
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return node


def _extent(node: Any, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Values in a node and how deep they are, with all aliases written out; infinite where it is within itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = (float("inf"), float("inf"))  # who meets it before it is known is within it
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes, depths = zip((0, 0), *(_extent(part, known) for part in parts), strict=True)
        known[id(node)] = (1 + sum(sizes), 1 + max(depths))
    return known[id(node)]


def read_yaml(text: str) -> Any:
    """The value of a YAML document, strictly read.

    Raises:
        ConfigError: it is none; the reason is told on one line, for the caller to say where.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date with a 13th month, for one
        raise ConfigError(" ".join(str(error).split())) from error
    except Exception as error:  # `!!bool perhaps` is a KeyError, `!!timestamp soon` an AttributeError ...
        what = f"a key or a tag does not suit what it is of ({type(error).__name__}: {error})"
        raise ConfigError(" ".join(what.split())) from error
