"""Neutral values: a new key changes no digest where it is neutral, and different values never share one."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, PlainSerializer, PlainValidator

from pemeta.utils.digests import config_digest
from pemeta.utils.neutral import Neutral, without_neutral
from pemeta.utils.registry import Frozen, Named


class Before(Frozen):
    """A class before it had the key ``new``."""

    old: int = 1


class After(Before):
    """The same class since; its default is not neutral."""

    new: Annotated[int | None, Neutral(None)] = Field(5, gt=0)


class Family(Named):
    kind: ClassVar[str] = "thing"


class Plain(Family):
    name: ClassVar[str] = "plain"
    rate: Annotated[float, Neutral(1)] = 0.5


class Other(Family):
    name: ClassVar[str] = "other"
    rate: Annotated[float, Neutral(1)] = 0.5
    deep: After = After(new=None)


AnyThing = Annotated[Family, PlainValidator(Family.parse), PlainSerializer(lambda value: value.to_config())]


class Whole(Frozen):
    """Descriptions at every depth: alone, in lists and in mappings, neutral as a whole or in part."""

    thing: AnyThing = Plain()
    extra: Annotated[AnyThing | None, Neutral({"name": "plain", "rate": 2})] = None
    part: Annotated[After, Neutral({"old": 0, "new": None})] = After()
    several: Annotated[tuple[After, ...], Neutral(())] = ()
    named: dict[str, After] = Field(default_factory=dict)
    flag: Annotated[bool, Neutral(False)] = True
    texts: Annotated[tuple[str, ...], Neutral(("a", "b"))] = ()


def digest(value: Any) -> str:
    return config_digest(without_neutral(value))


def test_a_new_key_changes_the_digest_where_it_is_not_neutral() -> None:
    assert digest(After(new=None)) == digest(Before())
    assert digest(After()) != digest(Before())  # its default is not neutral
    assert digest(After(old=2, new=None)) == digest(Before(old=2)) != digest(Before())


def test_a_value_given_as_another_type_is_neutral_as_the_key_s_own() -> None:
    assert without_neutral(Plain(rate=1.0)) == without_neutral(Plain(rate=1)) == {"name": "plain"}
    assert without_neutral(Plain()) == {"name": "plain", "rate": 0.5}


def test_neutral_keys_are_omitted_at_every_depth() -> None:
    neutral = After(old=0, new=None)
    whole = Whole(
        thing=Other(rate=1, deep=neutral),
        extra=Plain(rate=2),
        part=neutral,
        named={"a": neutral, "b": After(new=3)},
        flag=False,
        texts=("a", "b"),
    )
    assert without_neutral(whole) == {
        "thing": {"name": "other", "deep": {"old": 0}},
        "named": {"a": {"old": 0}, "b": {"old": 1, "new": 3}},
    }
    listed = without_neutral(Whole(several=(neutral, After(new=2))))["several"]
    assert listed == [{"old": 0}, {"old": 1, "new": 2}]


def test_a_key_without_a_neutral_value_is_always_there() -> None:
    assert without_neutral(Before()) == {"old": 1}


def test_numbers_and_truth_values_are_told_apart() -> None:
    class Zero(Frozen):
        value: Annotated[Any, Neutral(0)]

    class No(Frozen):
        value: Annotated[Any, Neutral(False)]

    class Unset(Frozen):
        value: Annotated[Any, Neutral(None)]

    assert (
        without_neutral(Zero(value=0)) == without_neutral(No(value=False)) == without_neutral(Unset(value=None)) == {}
    )
    assert without_neutral(Zero(value=False)) == {"value": False}
    assert without_neutral(No(value=0)) == without_neutral(Unset(value=0)) == {"value": 0}


def test_a_neutral_value_that_the_key_cannot_have_is_an_error() -> None:
    class Wrong(Frozen):
        value: Annotated[int, Neutral("many")] = 0

    with pytest.raises(ValueError, match="valid integer"):
        without_neutral(Wrong())


afters = st.builds(After, old=st.integers(0, 2), new=st.none() | st.integers(1, 2))
rates = st.sampled_from([0.5, 1.0, 2.0])
things = st.builds(Plain, rate=rates) | st.builds(Other, rate=rates, deep=afters)
wholes = st.builds(
    Whole,
    thing=things,
    extra=st.none() | things,
    part=afters,
    several=st.lists(afters, max_size=2).map(tuple),
    named=st.dictionaries(st.sampled_from("ab"), afters),
    flag=st.booleans(),
    texts=st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
)
KEYS = list(Whole.model_fields)


@settings(max_examples=300, deadline=None)
@given(wholes, wholes, st.sets(st.sampled_from(KEYS)))
def test_different_values_never_share_a_digest(one: Whole, other: Whole, shared: set[str]) -> None:
    """``other`` takes some keys from ``one``, so that values that differ in one place only are common."""
    other = other.model_copy(update={key: getattr(one, key) for key in shared})
    assert (digest(one) == digest(other)) == (one == other)
