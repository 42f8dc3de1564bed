"""How a token file is written, as a configuration says it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from pemeta.data.schemes import Scheme
from pemeta.errors import ConfigError, excerpt, unknown_name

Layout: TypeAlias = Literal["columns", "conllu"]
SchemeSetting: TypeAlias = Literal[Scheme, "detect"]
ROLES = ("word", "tag", "flags", "sentence")
"""What a column may be: the word, its tag, flags such as EndOfSentence, or what names the sentence."""


@dataclass(frozen=True)
class TokenFormat:
    """How a token file is written.

    Attributes:
        format: ``columns``, or ``conllu`` for CoNLL-U: numbered words, ranges of them (``1-2``) and empty nodes
            (``1.1``), which are no words, and ten columns, of which MISC has keys.
        columns: Where ``word`` and ``tag`` are, and, if there are such, ``flags`` and ``sentence``: numbers from 1, or
            from the end if negative, or names in a header line. In CoNLL-U, the name of ``tag`` may be a key in MISC.
            By default the word is in the first and the tag in the second of two columns; in CoNLL-U, the word is FORM,
            and the tag is where one is found.
        separator: ``tab``, ``blanks`` (any number of blanks and tabs), or the characters themselves, such as ``,``; by
            default tabs if the first line has one, else blanks.
        scheme: Scheme of the tags; ``detect`` to find it from the whole file.
        encoding: Encoding of the text, such as ``latin-1``; by default UTF-8.

    Raises:
        ConfigError: A value is none of these.

    >>> str(TokenFormat(columns={"word": 1, "tag": 4}, scheme="IOB1"))
    '{columns: {word: 1, tag: 4}, scheme: IOB1}'
    """

    format: Layout = "columns"
    columns: Mapping[str, int | str] = field(default_factory=dict)
    separator: str | None = None
    scheme: SchemeSetting = "IOB2"
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(Layout):
            raise ConfigError(unknown_name("format", self.format, get_args(Layout)))
        if self.scheme not in get_args(SchemeSetting):
            raise ConfigError(unknown_name("scheme", self.scheme, get_args(SchemeSetting)))
        try:
            object.__setattr__(self, "columns", checked_columns(self.columns))
            if self.columns and self.format == "columns" and "tag" not in self.columns:
                raise ValueError(f"expected the column of tags; found {dict(self.columns)}; add tag")
            object.__setattr__(self, "separator", checked_separator(self.separator))
            object.__setattr__(self, "encoding", checked_encoding(self.encoding))
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @property
    def is_usual(self) -> bool:
        """Whether this is the default in every respect, which is a word, one tab and a tag in IOB2."""
        return self == TokenFormat()

    def described(self) -> dict[str, Any]:
        """What a configuration says of it: the keys that differ from their defaults."""
        usual = TokenFormat()
        keys = ("format", "columns", "separator", "scheme", "encoding")
        return {key: getattr(self, key) for key in keys if getattr(self, key) != getattr(usual, key)}

    def __str__(self) -> str:
        """The same as a mapping in YAML."""
        return as_yaml(self.described())


def as_yaml(value: Any) -> str:
    """A value in YAML, on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{as_yaml(key)}: {as_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    import yaml  # here, because few need it

    # As an item of a list, in which a text with braces or a comma is quoted.
    text: str = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.strip()[1:-1]


def checked_columns(columns: Any) -> dict[str, int | str]:
    """Columns that a user gave, by what they are.

    Raises:
        ValueError: They are no mapping of known roles to numbers or names.
    """
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ValueError(f"expected a mapping such as {{word: 1, tag: 2}}; found {excerpt(columns)}")
    for role, column in columns.items():
        if role not in ROLES:
            raise ValueError(unknown_name("column", role, ROLES))
        if isinstance(column, list | tuple | Mapping):
            raise ValueError(
                f"{role}: expected one column; found {excerpt(column)}; nested annotations have several columns "
                "of tags, of which one is read: choose it"
            )
        if isinstance(column, bool) or not isinstance(column, int | str) or column in (0, ""):
            raise ValueError(
                f"{role}: expected the number of a column, from 1, or from the end if negative, or its name in a "
                f"header; found {excerpt(column)}"
            )
    places = list(columns.values())
    if len(set(places)) < len(places):
        raise ValueError(f"expected a column for each; found one for two: {excerpt(dict(columns))}")
    return dict(columns)


def checked_separator(separator: Any) -> str | None:
    """What separates columns, as a user gave it.

    Raises:
        ValueError: It is no text, or a word.
    """
    if separator is None:
        return None
    named = {"\t": "tab", " ": "blanks", "tab": "tab", "blanks": "blanks"}
    if isinstance(separator, str) and (separator in named or re.fullmatch(r"(?!\s*$)[^\w\\]+", separator)):
        return named.get(separator, separator)
    raise ValueError(
        f"expected what separates columns: tab, blanks, or the characters, such as ','; found {excerpt(separator)}"
    )


def checked_encoding(encoding: Any) -> str | None:
    """An encoding that a user gave, by Python's name for it; None for UTF-8.

    Raises:
        ValueError: It is no encoding of text.
    """
    if encoding is None:
        return None
    try:
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"expected an encoding, such as latin-1 or utf-16; found {excerpt(encoding)}") from None
    return None if name in ("utf-8", "utf-8-sig") else name
