"""Configurations: every key is known or refused with its path, defaults and overrides merge, and all comes back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import METHODS

from pemeta.data.sources import ConllData, DataSource
from pemeta.errors import ConfigError
from pemeta.experiments.backbones import Backbone, PackagedBackbone, PretrainedBackbone, TinyBackbone
from pemeta.experiments.config import GridConfig
from pemeta.experiments.config_file import load_config
from pemeta.methods import PEMethod
from pemeta.priming.algorithms import FineTunePriming, MetaPriming, PrimingAlgorithm
from pemeta.training.finetuning_settings import FineTuning
from pemeta.utils.registry import Named

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks").rglob("*.yaml"))
FAMILIES: list[type[Named]] = [PEMethod, PrimingAlgorithm, DataSource, Backbone]
MEMBERS = [(family, member) for family in FAMILIES for member in family.members().values()]
REQUIRED: dict[str, dict[str, Any]] = {"path": {"path": "some/folder"}, "package": {"package": "some_package"}}


def minimal() -> dict[str, Any]:
    return {
        "output": "runs/x",
        "data": {"name": "conll", "path": "data"},
        "backbone": {"name": "pretrained", "path": "model"},
        "targets": ["cc"],
        "sources": ["aa"],
        "settings": {
            "plain": {"method": "adapter"},
            "meta": {"method": {"name": "adapter", "bottleneck": 8}, "priming": "meta"},
            "fine": {"method": "adapter", "priming": {"name": "finetune", "outer_steps": 7}},
        },
    }


@pytest.fixture
def load(tmp_path):
    def call(raw: dict[str, Any] | str | bytes, *overrides: str) -> GridConfig:
        path = tmp_path / "config.yaml"
        text = yaml.safe_dump(raw, sort_keys=False) if isinstance(raw, dict) else raw
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path, overrides)

    return call


@pytest.fixture
def message(load):
    """The error of a configuration that must be refused, without the file's name."""

    def call(*arguments: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            load(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value).split("config.yaml: ")[-1]

    return call


def example(member: type[Named]) -> Named:
    """A member with something for each field that has no default."""
    if issubclass(member, PEMethod):
        return next(method for method, _ in METHODS.values() if type(method) is member)
    needed = {name: "some/folder" for name, field in member.model_fields.items() if field.is_required()}
    return member(**needed)


# Members


@pytest.mark.parametrize(("family", "member"), MEMBERS, ids=[f"{f.kind} {m.name}" for f, m in MEMBERS])
def test_every_member_comes_back_from_its_configuration(family, member):
    value = example(member)
    said = value.to_config()
    assert said["name"] == member.name
    assert family.parse(said) == value
    assert type(family.parse(json.loads(json.dumps(said)))) is member
    assert family.parse(yaml.safe_load(yaml.safe_dump(said))).to_config() == said
    assert family.parse(value) is value
    if not any(field.is_required() for field in member.model_fields.values()):
        assert family.parse(member.name) == member()


@pytest.mark.parametrize(("family", "member"), MEMBERS, ids=[f"{f.kind} {m.name}" for f, m in MEMBERS])
def test_every_member_refuses_a_key_that_it_does_not_have(family, member):
    said = {**example(member).to_config(), "oops": 1}
    with pytest.raises(ConfigError, match=rf"{family.kind} '{member.name}': oops: unknown key 'oops'; Known: "):
        family.parse(said)


@pytest.mark.parametrize("family", FAMILIES, ids=[family.kind for family in FAMILIES])
@pytest.mark.parametrize("value", [None, 3, [], {}, {"name": 3}, {"nam": "adapter"}])
def test_what_names_no_member_is_refused(family, value):
    with pytest.raises(ConfigError, match=f"expected a {family.kind}: a name, or a mapping with the key 'name'"):
        family.parse(value)


def test_a_nested_member_comes_back_too():
    value = MetaPriming(inner_method=PEMethod.parse({"name": "adapter", "bottleneck": 3}), inner_lr=0.1)
    again = PrimingAlgorithm.parse(value.to_config())
    assert again == value
    assert again.inner_method.bottleneck == 3


# Unknown keys and wrong values


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("taget=1", "taget: unknown key 'taget'; did you mean 'targets'?"),
        ("source_sizes.trian=1", "source_sizes.trian: unknown key 'trian'; did you mean 'train'?"),
        ("settings.plain.metod=full", "settings.plain.metod: unknown key 'metod'; did you mean 'method'?"),
        (
            "settings.plain.method.botleneck=3",
            "settings.plain.method.botleneck: unknown key 'botleneck'; did you mean 'bottleneck'?",
        ),
        (
            "settings.plain.finetuning.epoch=3",
            "settings.plain.finetuning.epoch: unknown key 'epoch'; did you mean 'epochs'?",
        ),
        (
            "settings.meta.priming.outer_step=3",
            "settings.meta.priming.outer_step: unknown key 'outer_step'; did you mean 'outer_steps'?",
        ),
        (
            "settings.meta.priming.inner_method={name: adapter, botleneck: 3}",
            "settings.meta.priming.inner_method.botleneck: unknown key 'botleneck'; did you mean 'bottleneck'?",
        ),
        ("backbone.pth=x", "backbone.pth: unknown key 'pth'; did you mean 'path'?"),
        (
            "backbone={name: tiny, transformer: {layer: 3}}",
            "backbone.transformer.layer: unknown key 'layer'; did you mean 'layers'?",
        ),
        ("data.type=[A]", "data.type: unknown key 'type'; did you mean 'types'?"),
        ("finetuning.epoch=3", "finetuning.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("priming.outer_step=3", "priming.outer_step: unknown key 'outer_step'; did you mean 'outer_steps'?"),
        ("settings.plian.method=full", "unknown setting 'plian'; did you mean 'plain'?"),
        ("settings.plain.method=adaptor", "settings.plain.method: unknown PE method 'adaptor'; did you mean 'adapter'"),
        (
            "settings.plain.priming=mata",
            "settings.plain.priming: unknown priming algorithm 'mata'; did you mean 'meta'",
        ),
        ("data=connl", "data: unknown data source 'connl'; did you mean 'conll'?"),
        ("backbone=tini", "backbone: unknown backbone 'tini'; did you mean 'tiny'?"),
        ("backbone=pretrained", "backbone.path: this key is required"),
        # wrong types and values
        ("targets=cc", "targets: input should be a list; found 'cc'"),
        ("targets=[]", "targets: tuple should have at least 1 item after validation, not 0; found []"),
        ("targets=[no]", "targets.0: input should be a valid string; found False; put it in quotes"),
        ("targets=['']", "targets.0: string should have at least 1 character; found ''"),
        ("targets=[cc, cc]", "targets: duplicate value in ['cc', 'cc']"),
        ("sources=[aa, aa]", "sources: duplicate value"),
        ("seeds=[1, 1]", "seeds: duplicate value in [1, 1]"),
        ("seeds=[]", "seeds: tuple should have at least 1 item"),
        ("seeds=[x]", "seeds.0: input should be a valid integer, unable to parse string as an integer; found 'x'"),
        ("sources=[]", "setting 'meta' primes the model, but sources is empty; add sources: [...]"),
        ("output=", "output: input should be a path; found None"),
        ("settings={}", "settings: dictionary should have at least 1 item"),
        ("settings=[]", "settings: input should be a mapping; found []"),
        ("settings.plain=3", "settings.plain: input should be a mapping or instance of Setting; found 3"),
        ("max_length=2", "max_length: input should be greater than or equal to 3; found 2"),
        ("target_sizes.test=0", "target_sizes.test: input should be greater than 0; found 0"),
        ("finetuning=3", "finetuning: expected a mapping of defaults; found 3"),
        ("priming=meta", "priming: expected a mapping of defaults; found 'meta'"),
        ("finetuning.lr=.nan", "finetuning.lr: input should be a finite number; found nan"),
        ("finetuning.lr=.inf", "finetuning.lr: input should be a finite number; found inf"),
        ("finetuning.lr=0", "finetuning.lr: input should be greater than 0; found 0"),
        ("finetuning.epochs=1.5", "finetuning.epochs: input should be a valid integer"),
        (
            "settings.meta.priming.outer_steps=many",
            "settings.meta.priming.outer_steps: input should be a valid integer",
        ),
        ("settings.meta.priming=3", "settings.meta.priming: expected a priming algorithm: a name, or a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(message, override, says):
    assert message(minimal(), override).startswith((says, f"{override!r}: {says}"))


@pytest.mark.parametrize("key", ["output", "backbone", "data", "targets", "settings"])
def test_a_missing_key_is_named(message, key):
    raw = minimal()
    del raw[key]
    assert message(raw) == f"{key}: this key is required"


def test_a_wrong_default_for_fine_tuning_is_named_once(message):
    assert message(minimal(), "finetuning.epochs=x").count("epochs") == 1


def test_many_problems_are_cut_to_a_readable_sentence(message):
    text = message(minimal(), *(f"wrong{i}=1" for i in range(9)))
    assert text.endswith("; and 6 more")


def test_a_long_value_is_shortened(message):
    assert len(message(minimal(), f"targets={'x' * 5000}")) < 300


# Files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "expected a mapping with output, backbone"),
        (b"- a\n- b\n", "expected a mapping with output, backbone"),
        (b"just text", "found 'just text'"),
        (b"a: [1", "is not YAML"),
        (b"a: 1\n b: 2", "is not YAML"),
        (b"a: 2020-13-45", "is not YAML"),  # a date to YAML, but not one
        (b"a: \x00", "is not YAML"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"targets: [a]\ntargets: [b]\n", "duplicate key 'targets'"),
        ("data: J\xfcrgen".encode("latin-1"), "not UTF-8 at byte 7; convert the file to UTF-8"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(load, content, says):
    with pytest.raises(ConfigError) as caught:
        load(content)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory; check the path"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(load):
    assert load("\ufeff" + yaml.safe_dump(minimal())) == load(minimal())


def test_aliases_and_merge_keys_are_no_duplicates(load):
    raw = minimal()
    raw["settings"] = {}
    text = yaml.safe_dump(raw).replace(
        "settings: {}",
        "settings:\n  a: &a {method: adapter, label: 1st}\n  b: &b {<<: *a, label: 2nd}\n  c: {<<: *b, label: 3rd}",
    )
    assert [setting.label for setting in load(text).settings.values()] == ["1st", "2nd", "3rd"]


# Overrides


@pytest.mark.parametrize("override", ["oops", "=3", "a..b=3", ".=3", "a.=3", ""])
def test_an_override_without_key_or_value_is_refused(message, override):
    assert message(minimal(), override) == (f"expected key=value, such as finetuning.epochs=3; found {override!r}")


def test_overrides_that_cannot_be_applied_are_refused(message):
    assert "targets is ['cc'] and has no keys" in message(minimal(), "targets.0=dd")
    assert "the value is not YAML" in message(minimal(), "targets=[a")


def test_an_override_takes_the_place_of_a_value_at_any_depth(load):
    config = load(
        minimal(),
        "targets=[x, y]",
        "settings.meta.priming.inner_steps=2",  # where only a name stood
        "settings.plain.label=a=b",
        "finetuning.epochs=4",  # where nothing stood
        "settings.fine.finetuning.epochs=9",
        "seeds=[3]",
    )
    assert config.targets == ("x", "y")
    assert config.settings["meta"].priming == MetaPriming(inner_steps=2)
    assert config.settings["plain"].label == "a=b"
    assert [setting.finetuning.epochs for setting in config.settings.values()] == [4, 4, 9]
    assert config.seeds == (3,)


def test_an_override_changes_one_of_two_settings_that_share_an_alias(load):
    raw = minimal()
    shared = {"method": "adapter", "finetuning": {"epochs": 2}}
    raw["settings"] = {"a": shared, "b": shared}
    config = load(raw, "settings.a.finetuning.epochs=7")
    assert "&id" in yaml.safe_dump(raw)
    assert [config.settings[name].finetuning.epochs for name in "ab"] == [7, 2]


# Defaults


def test_top_level_defaults_are_below_what_a_setting_says(load):
    raw = {**minimal(), "priming": {"outer_steps": 5, "outer_lr": 0.5}, "finetuning": {"epochs": 2, "lr": 0.1}}
    raw["settings"]["fine"]["finetuning"] = {"epochs": 6}
    config = load(raw)
    assert config.settings["plain"].priming is None  # a default primes nothing that was not to be primed
    assert config.settings["meta"].priming == MetaPriming(outer_steps=5, outer_lr=0.5)
    assert config.settings["fine"].priming == FineTunePriming(outer_steps=7, outer_lr=0.5)
    assert config.settings["plain"].finetuning == FineTuning(epochs=2, lr=0.1)
    assert config.settings["fine"].finetuning == FineTuning(epochs=6, lr=0.1)


def test_a_presets_values_go_with_its_name(load):
    """Those of a default's preset do not reach a setting that names another algorithm; the default's own keys do."""
    raw = {**minimal(), "priming": {"name": "maml", "inner_steps": 3}}
    given = {"meta": "meta", "anil": "anil", "named": {"inner_lr": 1e-3}, "plain": "maml"}
    raw["settings"] = {name: {"method": "adapter", "priming": priming} for name, priming in given.items()}
    found = {name: setting.priming for name, setting in load(raw).settings.items()}
    assert found == {
        "meta": MetaPriming(inner_steps=3),
        "anil": PrimingAlgorithm.parse({"name": "anil", "inner_steps": 3}),
        "named": PrimingAlgorithm.parse({"name": "maml", "inner_steps": 3, "inner_lr": 1e-3}),
        "plain": PrimingAlgorithm.parse({"name": "maml", "inner_steps": 3}),
    }


def test_empty_defaults_are_none(load):
    assert load({**minimal(), "priming": None, "finetuning": None}) == load(minimal())


def test_reading_changes_nothing_in_what_was_given():
    raw = {**minimal(), "finetuning": {"epochs": 2}}
    before = copy.deepcopy(raw)
    GridConfig.model_validate(raw)
    assert raw == before


def test_a_label_that_would_break_a_table_is_refused(load):
    with pytest.raises(ConfigError, match=r"settings\.plain\.label: expected printable characters; found 'a\\nb'"):
        load(minimal(), 'settings.plain.label="a\\nb"')


# Round trip

names = st.text("abcdefgh_-ü/.", min_size=1, max_size=6)
finetunings = st.builds(
    FineTuning,
    epochs=st.integers(1, 9),
    lr=st.floats(1e-8, 10),
    max_grad_norm=st.none() | st.floats(0.1, 2),
    dropout=st.booleans(),
)
methods = st.one_of(
    st.just(PEMethod.parse("full")),
    st.just(PEMethod.parse("head_only")),
    st.integers(1, 99).map(lambda k: PEMethod.parse({"name": "adapter", "bottleneck": k, "activation": "relu"})),
)
algorithms = st.one_of(
    st.none(),
    st.builds(FineTunePriming, outer_lr=st.floats(1e-9, 1), sentences=st.sampled_from(["both", "query"])),
    st.builds(MetaPriming, inner_method=st.none() | methods, inner_lr=st.floats(1e-9, 1), first_order=st.booleans()),
)
rows = st.fixed_dictionaries(
    {
        "method": methods,
        "priming": algorithms,
        "finetuning": finetunings,
        "label": st.none() | st.text(max_size=5).filter(str.isprintable),
    }
)
several = st.lists(names, min_size=1, max_size=3, unique=True)
configs = st.builds(
    GridConfig,
    output=names.map(Path),
    backbone=st.one_of(
        names.map(lambda path: PretrainedBackbone(path=path, attention="eager")),
        names.map(lambda package: PackagedBackbone(package=package)),
        st.just(TinyBackbone()),
    ),
    data=names.map(lambda path: ConllData(path=path, types=("X", "Y"))),
    targets=several,
    sources=several,
    seeds=st.lists(st.integers(-3, 2**40), min_size=1, max_size=3, unique=True),
    settings=st.dictionaries(names, rows, min_size=1, max_size=3),
    target_sizes=st.fixed_dictionaries({"train": st.none() | st.integers(1, 9)}),
)


def digests(config: GridConfig) -> list[str]:
    return [config.run_digest(run) for run in config.runs] + [
        config.primed_name(run.setting, run.seed) for run in config.runs if config.settings[run.setting].priming
    ]


@settings(max_examples=80, deadline=None)
@given(configs)
def test_what_a_run_writes_down_is_the_same_configuration(config):
    written = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    again = GridConfig.model_validate(yaml.safe_load(written))
    assert again == config
    assert digests(again) == digests(config)


def test_the_digest_of_a_run_changes_with_what_it_depends_on_and_nothing_else(load):
    raw = minimal()

    def found(*overrides: str) -> dict[tuple[str, str, int], str]:
        config = load(raw, *overrides)
        return {tuple(run): config.run_digest(run) for run in config.runs}

    before = found()
    assert len(set(before.values())) == len(before)
    for same in ("output=elsewhere", "device=cpu", "threads=1", "checkpoint_every=7", "settings.plain.label=x"):
        assert found(same) == before
    assert before.items() <= found("targets=[cc, dd]").items()
    for different in (
        "max_length=9",
        "backbone.path=other",
        "data.path=other",
        "finetuning.epochs=1",
        "sources=[aa, bb]",
    ):
        assert not set(found(different).values()) & set(before.values())


def test_settings_that_are_primed_alike_share_their_primed_model(load):
    raw = minimal()
    raw["settings"]["twin"] = {**raw["settings"]["meta"], "label": "twin", "finetuning": {"epochs": 1}}
    config = load(raw)
    assert config.primed_name("meta", 0) == config.primed_name("twin", 0)
    assert len({config.primed_name(*key) for key in [("meta", 0), ("fine", 0), ("meta", 1)]}) == 3


def test_every_run_is_there_once(load):
    config = load(minimal(), "targets=[x, y]", "seeds=[0, 1]")
    assert len(config.runs) == len(set(config.runs)) == 3 * 2 * 2


@pytest.mark.parametrize("path", SHIPPED, ids=[str(path.relative_to(path.parents[2])) for path in SHIPPED])
def test_every_shipped_configuration_is_valid(path):
    config = load_config(path)
    assert config.runs
    assert GridConfig.model_validate(config.model_dump(mode="json")) == config


def test_there_are_shipped_configurations():
    assert SHIPPED


# Validated priming and trackers

VALIDATED = {"name": "meta", "validate_every": 5}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"validation_tasks": ["aa"]}, "validation_tasks: 'aa' is one of the sources too; validate on other tasks"),
        ({"validation_tasks": ["cc"]}, "validation_tasks: 'cc' is one of the targets too; validate on other tasks"),
        (
            {"validation_tasks": ["dd"], "search": {"targets": ["dd"]}},
            "validation_tasks: 'dd' is one of the search.targets too; validate on other tasks",
        ),
        ({"validation_tasks": ["dd", "dd"]}, "validation_tasks: duplicate value in ['dd', 'dd']; remove one"),
        ({}, "setting 'meta' has validate_every; add validation_tasks: [...]"),
        ({"trackers": ["wandb", "wandb"]}, "trackers: duplicate value in ['wandb', 'wandb']; remove one"),
        ({"trackers": ["tensorbord"]}, "trackers.0: unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
    ],
)
def test_validation_tasks_and_trackers_that_do_not_fit_are_refused(message, changes, says):
    raw = minimal()
    raw["settings"]["meta"]["priming"] = VALIDATED
    assert says in message({**raw, **changes})


def test_validation_tasks_need_a_setting_or_a_candidate_that_validates(message):
    raw = minimal()
    raw["settings"]["meta"]["priming"] = {"name": "meta"}
    unused = "validation_tasks: no setting's priming has validate_every; add it, or remove this key"
    assert unused in message({**raw, "validation_tasks": ["dd"]})
    raw["settings"]["meta"]["search"] = {"priming.validate_every": [None, 5]}
    assert "setting 'meta' has validate_every; add validation_tasks: [...]" in message(raw)
    config = GridConfig.model_validate({**raw, "validation_tasks": ["dd"]})
    assert [config.to_search.validates(name) for name in config.to_search.settings] == [False, True]


def test_only_what_depends_on_validation_tasks_has_them_in_its_digest():
    def digests(**changes):
        raw = {**minimal(), "settings": copy.deepcopy(minimal()["settings"]), **changes}
        raw["settings"]["meta"]["priming"] = VALIDATED
        raw["settings"]["after"] = {"method": "adapter", "primed_as": "meta"}
        config = GridConfig.model_validate(raw)
        return {run.setting: config.run_digest(run) for run in config.runs}

    one, other = digests(validation_tasks=["dd"]), digests(validation_tasks=["ee"])
    assert {name for name in one if one[name] != other[name]} == {"meta", "after"}
    assert digests(validation_tasks=["dd"], trackers=["wandb"]) == one
