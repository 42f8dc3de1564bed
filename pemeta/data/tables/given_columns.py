"""The columns of a table as a configuration says them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pemeta.utils.neutral import Neutral
from pemeta.utils.registry import Frozen


class TokenColumns(Frozen):
    """The columns of a table that hold sentences, or what else a kind of task reads.

    Attributes:
        tokens: The words: a list, or a text with a blank between two words; ``tokens`` or ``words`` where null.
        tags: A tag for each word: a list, or a text likewise; ``ner_tags``, ``tags``, ``ner`` or ``labels`` where null.
        sentence: For tables with one word in each row: what is another value where another sentence begins; or several
            columns that say so together. Where there is no value, the sentence goes on.
        document: What is another value in another document; none where null.
        text: For texts with labels, and for text alone: the text; ``text`` or ``sentence`` where null.
        text_pair: The second text of a pair; ``text_pair``, if there is one, where null.
        label: The text's class or number; ``label`` where null.
        labels: Its classes, a list, if it may have any number of them; ``labels`` where null.
        prompt: For completions: a text, or turns; ``prompt`` where null.
        completion: What follows it, likewise; ``completion`` where null.
        messages: The turns of a conversation, in place of both; ``messages`` or ``conversations`` where null.
    """

    tokens: str | int | None = None
    tags: str | int | None = None
    sentence: str | int | tuple[str | int, ...] | None = Field(None)
    document: str | int | None = None
    text: Annotated[str | int | None, Neutral(None)] = None
    text_pair: Annotated[str | int | None, Neutral(None)] = None
    label: Annotated[str | int | None, Neutral(None)] = None
    labels: Annotated[str | int | None, Neutral(None)] = None
    prompt: Annotated[str | int | None, Neutral(None)] = None
    completion: Annotated[str | int | None, Neutral(None)] = None
    messages: Annotated[str | int | None, Neutral(None)] = None

    @property
    def numbered(self) -> bool:
        """Whether columns are given by their numbers, because the table has no header."""
        given = [self.tokens, self.tags, self.document, *self.of_sentences, *self.by_role.values()]
        return any(isinstance(one, int) for one in given)

    @property
    def by_role(self) -> dict[str, str | int]:
        """The columns that were given, by their keys, without those of sentences and documents."""
        return {key: value for key, value in self if value is not None and key not in ("sentence", "document")}

    @property
    def of_sentences(self) -> tuple[str | int, ...]:
        """The columns that say where a sentence begins; none if each row is one."""
        if self.sentence is None:
            return ()
        return self.sentence if isinstance(self.sentence, tuple) else (self.sentence,)
