"""Roles of columns: what the columns of a table are for, by the kind of task that reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pemeta.data.tables.table import Table
from pemeta.errors import ConfigError, DataError, shortened, unknown_name


@dataclass(frozen=True)
class Role:
    """What a column is for.

    Attributes:
        name: Its key under ``columns``, and in the rows that a kind of task gets.
        usual: Usual names of such a column, which need not be given.
        needed: Whether rows need it.
        given: Whether it is what something is predicted from; examples that agree in it are never in two splits of
            which one is held out of the other.
    """

    name: str
    usual: tuple[str, ...]
    needed: bool = True
    given: bool = True


@dataclass(frozen=True)
class Roles:
    """The roles of the columns that a kind of task reads.

    Attributes:
        kind: The kind of task, for messages.
        choices: The roles of a row; or several such, of which those are read whose columns are there.
    """

    kind: str
    choices: tuple[tuple[Role, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all roles."""
        return tuple(dict.fromkeys(role.name for choice in self.choices for role in choice))

    @property
    def given(self) -> tuple[str, ...]:
        """Those of which something is predicted."""
        return tuple(dict.fromkeys(role.name for choice in self.choices for role in choice if role.given))

    def late(self, row: Mapping[str, object], columns: Mapping[str, str]) -> str | None:
        """The name of a column with a usual name that a row has, and the table's first row had not.

        Args:
            row: The row by column.
            columns: The columns that are read, by role.
        """
        choices = (choice for choice in self.choices if {*columns} <= {role.name for role in choice})
        lacking = (role for choice in choices for role in choice if role.name not in columns)
        return next((name for role in lacking for name in role.usual if row.get(name) is not None), None)

    def columns(self, table: Table, given: Mapping[str, str | int]) -> dict[str, str]:
        """The column of each role in a table.

        Args:
            table: The table.
            given: Columns by role, of those that were given.

        Raises:
            ConfigError: A given role is none of these.
            DataError: A column is not there, or not known; or the columns of several choices are.
        """
        odd = next((name for name in given if name not in self.names), None)
        if odd is not None:
            raise ConfigError(f"data.columns: {unknown_name(f'column of {self.kind}', odd, self.names)}")
        for name, column in given.items():
            if str(column) not in table.columns:
                known = shortened(unknown_name("column", str(column), table.columns), 300)
                raise DataError(f"{table.where}: columns.{name}: {known}")
        fitting = [choice for choice in self.choices if {*given} <= {role.name for role in choice}]
        found = [one for choice in fitting if (one := _found(choice, table.columns, given)) is not None]
        if len(found) > 1:
            raise DataError(f"{table.where}: {_ambiguous(found)}")
        if found:
            return found[0]
        raise DataError(f"{table.where}: {_lacking(fitting or self.choices, table.columns, given)}")


def _found(choice: Iterable[Role], columns: Collection[str], given: Mapping[str, str | int]) -> dict[str, str] | None:
    """The column of each role, or None if one is not there."""
    found = {}
    for role in choice:
        usual = next((name for name in role.usual if name in columns), None)
        column = str(given[role.name]) if role.name in given else usual
        if column is not None:
            found[role.name] = column
        elif role.needed:
            return None
    return found


def _ambiguous(found: Sequence[Mapping[str, str]]) -> str:
    """What is said where several choices of columns are there."""
    own = [{role: column for role, column in one.items() if any(role not in other for other in found)} for one in found]
    what = ", and ".join(" and ".join(one.values()) for one in own)
    say = ", or ".join(f"columns: {{{', '.join(f'{role}: {one[role]}' for role in one)}}}" for one in own)
    return f"expected one of several; found the columns {what}; say which: {say}"


def _lacking(choices: Iterable[Iterable[Role]], columns: Collection[str], given: Mapping[str, str | int]) -> str:
    """Which columns are expected, the first that is not there, and what to do."""
    needed = [[role for role in choice if role.needed] for choice in choices]
    lacks = next(role for role in needed[0] if role.name not in given and not {*role.usual} & {*columns})
    expected = ", or ".join(" and ".join(role.name for role in choice) for choice in needed)
    say = ", ".join(f"{role.name}: ..." for role in needed[0])
    known = shortened(unknown_name("column", lacks.name, columns), 300)
    return f"expected the columns {expected}; {known}; say which they are: columns: {{{say}}}"


_TEXT = Role("text", ("text", "sentence"))
_PAIR = Role("text_pair", ("text_pair",), needed=False)
CLASSIFICATION = Roles(
    "sequence_classification",
    ((_TEXT, _PAIR, Role("label", ("label",), given=False)), (_TEXT, _PAIR, Role("labels", ("labels",), given=False))),
)
"""Texts, or pairs of them, with one label or several."""
COMPLETION = Roles(
    "completion",
    (
        (Role("prompt", ("prompt",)), Role("completion", ("completion",), given=False)),
        (Role("messages", ("messages", "conversations")),),
    ),
)
"""Prompts with completions, or conversations, in TRL's convention."""
TEXT = Roles("language_model", ((_TEXT,),))
"""Texts alone."""
