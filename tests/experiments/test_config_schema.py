"""The JSON schema of configurations: it is the committed one, and jsonschema judges by it as pemeta itself does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults.configurations import TYPES
from processes import finished

from pemeta.experiments.config import GridConfig
from pemeta.experiments.config_file import load_config
from pemeta.experiments.config_schema import DIALECT, NAME, schema_text
from pemeta.utils.registry import Named
from pemeta.utils.strict_yaml import read_yaml

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is the oracle: pip install 'pemeta[dev]'")
ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "_static" / NAME
COMMITTED = sorted(
    path for path in (*ROOT.glob("benchmarks/**/*.yaml"), *ROOT.glob("docs/**/*.yaml")) if "runs" not in path.parts
)
SMALL: dict[str, Any] = {
    "output": "runs/x",
    "backbone": {"name": "pretrained", "path": "m"},
    "data": {"name": "conll", "path": "d"},
    "sources": ["aa", "bb"],
    "targets": ["cc"],
    "settings": {"plain": {"method": "adapter"}, "primed": {"method": "adapter", "priming": {"name": "meta"}}},
}
LEFT_TO_PEMETA = (  # what depends on several keys or on the content of a text
    "label set needs one or more different", "may stand in braces", "expected one character", "have the same name",
    "heads must divide", "printable characters", "sources is empty", "unknown target 'querry'", "unknown tuner",
    "primes: ", "annealing_steps needs", "source_heads: shared needs", "has no outer loss", "unknown setting",
    "has no priming of its own", "exclude each other", "is not one of the grid's", "has no candidates",
    "expected a key of this setting", "unknown key 'epoch'",
)  # fmt: skip
"""Parts of messages about mistakes that a schema cannot tell."""


@cache
def text() -> str:
    return schema_text()


@cache
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text())
    jsonschema.Draft7Validator.check_schema(found)
    return found


@cache
def validator() -> Any:
    return jsonschema.Draft7Validator(schema())


def mistakes(config: Any) -> list[str]:
    return [error.message for error in validator().iter_errors(json.loads(json.dumps(config)))]


def with_override(config: dict[str, Any], override: str) -> dict[str, Any]:
    """The configuration with another value of a dotted key."""
    made: dict[str, Any] = json.loads(json.dumps(config))
    key, _, text = override.partition("=")
    *path, last = key.split(".")
    place = made
    for part in path:
        below = place.get(part, {})
        place[part] = below = {"name": below} if isinstance(below, str) else below
        place = below
    place[last] = read_yaml(text)
    return made


def test_the_published_schema_is_that_of_the_code() -> None:
    # In a process of its own: other tests add members to families.
    made = finished("-m", "pemeta", "schema", check=True).stdout
    assert PUBLISHED.read_text(encoding="utf-8") == made, f"run: pemeta schema > {PUBLISHED.relative_to(ROOT)}"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_committed_configuration_is_accepted(path: Path) -> None:
    raw = read_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or "settings" not in raw:
        pytest.skip("no configuration of a grid")
    load_config(path)
    assert mistakes(raw) == []


def test_a_configuration_as_pemeta_writes_it_is_accepted() -> None:
    config = GridConfig.model_validate(SMALL)
    assert mistakes(config.model_dump(mode="json")) == []
    assert mistakes(SMALL) == []


def test_it_refuses_no_more_than_pemeta_and_no_less_where_it_can_tell() -> None:
    left: dict[str, str] = {}
    for override in TYPES:
        config = with_override(SMALL, override)
        try:
            GridConfig.model_validate(config)
        except ValueError as error:
            if not mistakes(config):
                left[override] = str(error)
        else:
            assert mistakes(config) == [], override
    assert [one for one, why in left.items() if not any(part in why for part in LEFT_TO_PEMETA)] == []
    assert len(left) < len(TYPES) / 4


@pytest.mark.parametrize(
    "override",
    [
        "outputs=x", "data=conl", "data.paths=x", "data={path: x}", "backbone=pretrained", "settings.plain.methods=x",
        "settings.plain.method=adaptor", "settings.plain.method={name: lora, rank: many}", "targets=[]", "seeds=[true]",
        "settings.primed.priming=mamla", "settings.primed.priming={name: meta, inner_step: 3}", "precision=fp8",
        "settings.primed.priming={name: reptile, inner_rule: adamm}", "finetuning.epoch=3", "finetuning.epochs=0",
        "priming={outer_step: 3}", "trackers=[wandbb]", "report={figures: [{name: pie, title: x}]}", "seeds=0",
        "settings.plain.method={name: compose, methods: [adapter, lorra]}", "data.splits={dev: a}",
        "backbone={name: tiny, transformer: {layer: 2}}", "settings.plain.finetuning={lr: -1}", "scored_on=train",
    ],
)  # fmt: skip
def test_typical_mistakes_are_refused_by_both(override: str) -> None:
    config = with_override(SMALL, override)
    assert mistakes(config) != []
    with pytest.raises(ValueError, match=r"."):
        GridConfig.model_validate(config)


@pytest.mark.parametrize(
    "override",
    [
        "backbone=tiny", "data=synthetic", "settings.primed.priming=maml", "settings.primed.priming={name: fomaml}",
        "settings.plain.method={name: compose, methods: [prefix, {name: lora, rank: 2}]}", "finetuning={epochs: 3}",
        "settings.primed.priming={name: meta, inner_rule: {name: adam, beta1: 0.8}}", "priming={inner_steps: 3}",
        "priming=", "finetuning=", "data.types={PERS: PER, DATE: null}", "settings.primed.priming.primes=[theta_p]",
        "trackers=[tensorboard]", "settings.plain.search={finetuning.lr: [1e-3, 3e-3]}", "max_length=64",
    ],
)  # fmt: skip
def test_what_both_accept(override: str) -> None:
    config = with_override(SMALL, override)
    if override.startswith("data=synthetic"):
        config |= {"sources": ["aru", "bex"], "targets": ["cim"]}
    GridConfig.model_validate(config)
    assert mistakes(config) == []


def test_a_setting_may_take_the_algorithm_from_the_defaults_only_if_they_name_one() -> None:
    nameless = with_override(SMALL, "settings.primed.priming={inner_steps: 2}")
    assert mistakes(nameless)
    with pytest.raises(ValueError, match="name"):
        GridConfig.model_validate(nameless)
    named = with_override(nameless, "priming={name: meta}")
    GridConfig.model_validate(named)
    assert mistakes(named) == []


def families() -> Iterator[tuple[str, type[Named]]]:
    for family in Named.__subclasses__():
        if family.__name__ in schema()["$defs"]:
            yield family.__name__, family


def test_every_member_of_every_family_is_in_it_with_all_its_fields_explained() -> None:
    found = dict(families())
    assert {"PEMethod", "PrimingAlgorithm", "InnerRule", "DataSource", "Backbone", "Figure"} <= found.keys()
    parts = schema()["$defs"]
    for family in found.values():
        places = [one["$ref"].rpartition("/")[2] for one in parts[family.__name__]["anyOf"] if "$ref" in one]
        by_name = {name: parts[place] for place in places for name in parts[place]["properties"]["name"]["enum"]}
        assert by_name.keys() == {*family.members(), *family.presets}
        for name, member in family.members().items():
            keys = by_name[name]["properties"]
            assert keys.keys() == {"name", *member.model_fields}
            assert all(keys[key].get("description") for key in member.model_fields), name


def test_its_dialect_is_one_that_editors_know() -> None:
    assert schema()["$schema"] == DIALECT
    assert "prefixItems" not in text()


def test_the_command_prints_it(pemeta: Any) -> None:
    shown = pemeta("schema")
    assert (shown.code, shown.err, shown.out) == (0, "", text())
