"""Which parameters the outer gradient moves: sets of the partition, and parts of θ_p by patterns of names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from pemeta.errors import ConfigError, unknown_name
from pemeta.model.partition import Partition
from pemeta.utils.registry import Distinct

BACKBONE = ("theta_p", "theta_a")
"""θ_p and θ_a: all parameters of the backbone, whatever the method."""
SETS = (*BACKBONE, "theta_h")


def _known(primes: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is neither a set nor looks like a pattern, and parts of a set that is listed as a whole.

    The order is made one of two that mean the same, or their digests would differ.
    """
    patterns = [item for item in primes if item not in SETS]
    for item in patterns:
        if not any(character in item for character in ".*?["):
            raise ValueError(f"{unknown_name('set of parameters', item, SETS)}, and patterns of names such as '*.11.*'")
    if patterns and "theta_p" in primes:
        raise ValueError(f"{patterns[0]!r} is a part of theta_p, which is listed too; remove one of them")
    return (*(item for item in SETS if item in primes), *sorted(patterns))


Primes: TypeAlias = Annotated[Distinct, Field(min_length=1), AfterValidator(_known)]


def primed_names(primes: tuple[str, ...], parts: Partition) -> tuple[str, ...]:
    """Names of the parameters that are listed, in the order θ_p, θ_a, θ_h.

    Raises:
        ConfigError: A set has no parameters, unless another one is listed that has some (the other part of the
            backbone; any, if it is θ_h, since heads may have none); or a pattern matches no parameter of θ_p.
    """
    sets = {"theta_p": parts.theta_p, "theta_a": parts.theta_a, "theta_h": parts.theta_h}
    wanted: set[str] = set()
    for item in primes:
        found = sets[item] if item in sets else matching(item, parts.theta_p)
        if not found and not _may_be_empty(item, primes):
            raise ConfigError(_nothing(item, item in sets))
        wanted.update(found)
    return tuple(name for names in sets.values() for name in names if name in wanted)


def _may_be_empty(item: str, primes: tuple[str, ...]) -> bool:
    """Whether a set is one part of the backbone beside the other, or θ_h, of which some heads have nothing."""
    return len(primes) > 1 if item == "theta_h" else item in BACKBONE and set(BACKBONE) <= set(primes)


def matching(pattern: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that match a pattern, with or without the prefix of the backbone."""
    return tuple(n for n in names if fnmatchcase(n.removeprefix("backbone."), pattern) or fnmatchcase(n, pattern))


def _nothing(item: str, is_set: bool) -> str:
    if item == "theta_h":
        return "primes lists theta_h, but the heads have no parameters; list what is to move besides"
    if is_set:
        symbol = item.replace("theta_", "θ_")
        return f"primes lists {item}, but the inner loop's method leaves {symbol} empty; remove it from primes"
    return f"primes: the pattern {item!r} matches no parameter of θ_p; see the names with model.partition().theta_p"
