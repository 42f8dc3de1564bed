"""Each kind of task from a file of JSON lines through a grid: with priming, a search, and sources of other kinds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_templates import CHATML, MISTRAL, THINKING, byte_tokenizer
from kinds import FIRST_OF_TEST, KINDS, SIZES, Kind, write_rows
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from tokenizers import decoders
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pemeta import Completion
from pemeta.data.metrics import ExactMatch
from pemeta.errors import ConfigError, DataError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.data_check import check_data
from pemeta.experiments.executor import Executor
from pemeta.experiments.runner import Runner
from pemeta.reporting.records import Record, read_records
from pemeta.tasks.kinds import TaskKind
from pemeta.tasks.kinds import base as kinds_base
from pemeta.training.evaluation import predict
from pemeta.utils.hub import quiet

MULTI = 2
LONG = {"several-labels", "regression", "choice", "masked_language_model"}
each_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, id=name, marks=[pytest.mark.long] * (name in LONG)) for name, kind in KINDS.items()],
)


@pytest.fixture(scope="session")
def tiny_gpt2_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with a random GPT-2 that has an output map of its own, and the words of ``tokenizer``."""
    folder = tmp_path_factory.mktemp("model") / "tiny-gpt2"
    inner = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    inner.post_processor = None
    inner.decoder = decoders.WordPiece()
    causal = PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=32, eos_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )
    config = GPT2Config(
        vocab_size=len(causal),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        eos_token_id=causal.eos_token_id,
        bos_token_id=causal.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    causal.save_pretrained(folder)
    return folder


@pytest.fixture
def grid_of(run_config: dict[str, Any], tiny_gpt2_dir: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration of a grid of one kind: a primed setting and an unprimed one."""

    def make(kind: Kind, **changes: Any) -> dict[str, Any]:
        files = write_rows(tmp_path / f"rows-{kind.name}", kind)
        backbone = {"name": "pretrained", "path": str(tiny_gpt2_dir)}
        return {
            **run_config,
            **({"backbone": backbone} if kind.causal else {}),
            "data": {"name": "table", "path": str(files), "task_column": "task"},
            "task": kind.task,
            "max_length": 32 if kind.seen else 12,
            "threads": 1,
            "finetuning": {"epochs": 2, "batch_size": 8, "lr": 1e-2},
            **changes,
        }

    return make


def run(raw: dict[str, Any]) -> tuple[dict[str, Record], list[str]]:
    """Records of a grid by setting, and what it says."""
    said: list[str] = []
    Runner(GridConfig.model_validate(raw), said.append, progress=False).run()
    return {record.setting: record for record in read_records(Path(raw["output"]))}, said


@each_kind
def test_a_kind_runs_through_a_grid_and_its_record_tells_its_scores(kind, grid_of):
    raw = grid_of(kind)
    found, said = run(raw)
    known = TaskKind.parse(kind.task)
    main, validation = known.scored_by[0], known.validation_metric
    assert set(found) == {"plain", "primed"}
    for record in found.values():
        assert (record.task, record.unit) == (kind.name, known.unit)
        assert (record.metric, record.validation_metric) == (main.name, validation.name)
        assert set(record.scores) == {metric.name for metric in known.scored_by}
        assert record.score == record.scores[main.name] == pytest.approx(main.of(record.outcomes), abs=1e-12)
        assert {len(column) for column in record.outcomes.values()} == {record.num_test}
        best = max if validation.higher_is_better else min
        assert record.validation_score == best(record.validation_curve)
        assert record.best_epoch == 1 + record.validation_curve.index(record.validation_score)
        if kind.seen:
            assert (record.num_test, record.num_train) == (SIZES["test"], SIZES["train"])
            assert FIRST_OF_TEST not in record.unseen
            assert record.num_unseen == len(record.unseen) > 0
            own = {name: [column[i] for i in record.unseen] for name, column in record.outcomes.items()}
            assert record.score_unseen == pytest.approx(main.of(own), abs=1e-12)
        else:
            assert (record.score_unseen, record.unseen) == (None, ())
    assert found["plain"].data_digest == found["primed"].data_digest
    assert f"{main.label} {main.shown(found['plain'].score)}" in " ".join(said)


def correct(gold: list[Any], predicted: list[Any]) -> float:
    return float(np.mean([one.strip() == other.strip() for one, other in zip(gold, predicted, strict=True)]))


def micro_f1(gold: list[Any], predicted: list[Any]) -> float:
    names = ("person", "place")
    rows = [[[name in one for name in names] for one in labels] for labels in (gold, predicted)]
    return float(f1_score(*rows, average="micro", zero_division=0))


ORACLES: dict[str, Callable[[list[Any], list[Any]], float]] = {
    "token_classification": lambda gold, predicted: entity_f1(gold, predicted),
    "sequence_classification": accuracy_score,
    "several-labels": micro_f1,
    "regression": mean_squared_error,
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_score_is_that_of_the_predictions_against_the_file(name, grid_of):
    kind = KINDS[name]
    raw = grid_of(kind)
    executor = Executor(GridConfig.model_validate(raw), say=lambda line: None, progress=False)
    record = executor.finetune(executor.config.runs[0])
    model = executor.start("plain", 0)[0]
    test = executor.builder.target("cc", executor.config.target_sizes).tested.examples
    rows = [json.loads(line) for line in (Path(raw["data"]["path"]) / "test.jsonl").read_text().splitlines()]
    column = next(key for key in ("tags", "labels", "label") if key in rows[0])
    gold = [row[column] for row in rows if row["task"] == "cc"]
    assert record.score == pytest.approx(ORACLES[name](gold, predict(model, test, "cc")), abs=1e-12)


def records(raw: dict[str, Any]) -> dict[str, Record]:
    return run(raw)[0]


def few(raw: dict[str, Any]) -> dict[str, Any]:
    """A grid of the unprimed setting alone, with one epoch."""
    return {**raw, "settings": {"plain": {"method": "adapter"}}, "sources": [], "finetuning": {"epochs": 1, "lr": 1e-2}}


def outer_losses(output: Path) -> list[float]:
    (primed,) = (output / "primed").iterdir()
    return [one["outer"] for one in json.loads((primed / "priming.json").read_text())["history"]["losses"]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("masked_language_model", "sequence_classification"),
        ("sequence_classification", "token_classification"),
        ("token_classification", "regression"),
        ("language_model", "completion"),
        ("completion", "sequence_classification"),
    ],
)
def test_sources_may_be_of_another_kind_in_another_place(source, target, grid_of, tmp_path):
    of_sources = grid_of(KINDS[source], output=str(tmp_path / "other"))
    raw = grid_of(KINDS[target])
    if KINDS[source].causal:
        raw["backbone"] = of_sources["backbone"]
    own = {"source_task": of_sources["task"], "source_data": of_sources["data"], "max_length": 12}
    mixed = records({**raw, **own})
    assert {record.task for record in mixed.values()} == {KINDS[target].name}
    assert mixed["primed"].config["source_task"]["name"] == KINDS[source].name
    again = GridConfig.model_validate({**raw, **own})
    assert mixed["primed"].digest == again.run_digest(next(run for run in again.runs if run.setting == "primed"))
    alike = records({**raw, "max_length": 12, "output": str(tmp_path / "alike")})
    assert mixed["plain"].score == alike["plain"].score  # what is fine-tuned without priming knows no source
    assert outer_losses(Path(raw["output"])) != outer_losses(tmp_path / "alike")
    assert mixed["plain"].data_digest != alike["plain"].data_digest  # test examples may be unseen by other sources


@pytest.mark.long
def test_one_source_may_be_text_without_labels(grid_of):
    rows = grid_of(KINDS["sequence_classification"])
    text = {"source_tasks": {"bb": "masked_language_model"}, "source_data": rows["data"]}
    raw = {**rows, **text, "max_length": 12}
    builder = Executor(GridConfig.model_validate(raw), say=lambda line: None).builder
    assert [task.train.kind for task in builder.sources()] == ["sequence_classification", "masked_lm"]
    found = records(raw)
    assert found["primed"].config["source_tasks"] == {"bb": {"name": "masked_language_model", "share": 0.15, "seed": 0}}
    with pytest.raises(ConfigError, match="source_tasks: unknown source 'b'; did you mean"):
        GridConfig(**{**raw, "source_tasks": {"b": "masked_language_model"}})


def test_a_search_takes_the_lowest_value_where_a_lower_one_is_better(grid_of):
    raw = few(grid_of(KINDS["regression"]))
    raw["settings"]["plain"] |= {"search": {"finetuning.lr": [1e-9, 1e-2]}, "finetuning": {"epochs": 4}}
    (record,), said = run(raw)[0].values(), run(raw)[1]
    tried = {one.label: one.validation_score for one in read_records(Path(raw["output"]) / "search")}
    best = min(tried, key=tried.__getitem__)
    assert len(set(tried.values())) == len(tried) == MULTI
    chosen = json.loads((Path(raw["output"]) / "chosen.json").read_text())["plain"]
    assert f"finetuning.lr={chosen['values']['finetuning.lr']}" in best
    assert record.config["finetuning"]["lr"] == chosen["values"]["finetuning.lr"]
    assert (chosen["metric"], next(iter(chosen["scores"].values()))) == ("mse", tried[best])
    assert any(line.startswith("chosen for plain") for line in said)


@pytest.mark.parametrize("name", ["sequence_classification", pytest.param("completion", marks=pytest.mark.long)])
def test_examples_may_be_so_many_of_each_class(name, grid_of):
    config = GridConfig.model_validate({**few(grid_of(KINDS[name])), "target_sizes": {"per_class": 3, "test": 5}})
    target = Executor(config).builder.target("cc", config.target_sizes)
    gold = TaskKind.parse(KINDS[name].task).gold(target.task.train)
    assert Counter(gold) == dict.fromkeys(set(gold), 3)
    assert len(set(gold)) == MULTI
    assert len(target.gold) == 5
    every = GridConfig.model_validate(few(grid_of(KINDS[name], output="elsewhere")))
    assert config.run_digest(config.runs[0]) != every.run_digest(every.runs[0])


def test_words_with_tags_have_no_class_of_their_own(grid_of):
    raw = {**few(grid_of(KINDS["token_classification"])), "target_sizes": {"per_class": 3}}
    with pytest.raises(ConfigError, match="per_class: examples of token_classification have no class of their own"):
        check_data(
            Executor(GridConfig.model_validate(raw), say=lambda line: None).builder, GridConfig.model_validate(raw).runs
        )


@pytest.mark.parametrize("name", ["sequence_classification", "completion"])
def test_answers_may_be_exchanged_among_training_examples_alone(name, grid_of):
    task = KINDS[name].task
    control = {**(task if isinstance(task, dict) else {"name": task}), "exchanged": 1}
    raw = grid_of(KINDS[name])
    config = GridConfig.model_validate({**raw, "source_task": control})
    builder = Executor(config).builder
    usual = builder.of_targets.collection("aa", config.source_sizes)
    other = builder.of_source["aa"].collection("aa", config.source_sizes)
    assert usual.splits["test"] == other.splits["test"]
    kind = config.task
    pairs = list(zip(usual.splits["train"], other.splits["train"], strict=True))
    assert [kind.identity(one) for one, _ in pairs] == [kind.identity(two) for _, two in pairs]
    assert Counter(kind.class_of(one) for one, _ in pairs) == Counter(kind.class_of(two) for _, two in pairs)
    assert any(kind.class_of(one) != kind.class_of(two) for one, two in pairs)
    assert builder.of_source["aa"].digest("aa", config.source_sizes, "train") != builder.of_targets.digest(
        "aa", config.source_sizes, "train"
    )


def test_one_priming_may_be_fine_tuned_with_several_seeds(grid_of):
    raw = few(grid_of(KINDS["sequence_classification"], seeds=[0, 1]))
    raw |= {
        "sources": ["aa", "bb"],
        "settings": {"primed": {"method": "adapter", "priming": "meta", "priming_seed": 7}},
    }
    config = GridConfig.model_validate(raw)
    found, _ = run(raw)
    primed = list((Path(raw["output"]) / "primed").iterdir())
    assert [path.name.split("-")[1] for path in primed] == ["seed7"]
    assert found["primed"].config["priming_seed"] == 7
    assert len({config.run_digest(one) for one in config.runs}) == len(config.runs) == MULTI
    usual = GridConfig.model_validate(
        {**raw, "seeds": [7], "settings": {"primed": {"method": "adapter", "priming": "meta"}}}
    )
    assert usual.primed_name("primed", 7) == config.primed_name("primed", 0)


def test_kinds_that_need_two_backbones_are_refused(grid_of):
    raw = {**grid_of(KINDS["completion"]), "source_task": "masked_language_model"}
    with pytest.raises(
        ConfigError,
        match="source_task: masked_language_model needs a backbone that is a masked_lm, and",
    ):
        GridConfig(**raw)


@pytest.mark.parametrize(
    ("backbone", "name", "other"),
    [("tiny", "completion", "tiny_causal"), ("tiny_causal", "masked_language_model", "tiny")],
)
def test_a_tiny_backbone_of_another_kind_is_refused_before_it_is_pretrained(backbone, name, other, grid_of):
    with pytest.raises(ConfigError, match=f"{backbone!r} is a .*; use {other} or a pretrained one"):
        GridConfig(**{**grid_of(KINDS[name]), "backbone": backbone})


def test_a_primed_head_of_another_kind_is_refused(grid_of):
    raw = {**grid_of(KINDS["token_classification"]), "source_task": "sequence_classification"}
    raw["settings"]["primed"] = {
        "method": "adapter",
        "priming": {"name": "meta", "source_heads": "shared", "primes": ["theta_p", "theta_a", "theta_h"]},
        "finetuning": {"head": "primed"},
    }
    with pytest.raises(ConfigError, match="a primed head is one for sequence_classification, which the sources are"):
        GridConfig(**raw)


def test_a_key_at_the_top_belongs_to_its_kind(grid_of):
    raw = grid_of(KINDS["sequence_classification"])
    with pytest.raises(
        ConfigError, match="scoring: a key of token_classification; the tasks are sequence_classification"
    ):
        GridConfig(**raw, scoring="strict")
    raw["task"] = {"name": "token_classification", "scoring": "conlleval"}
    with pytest.raises(ConfigError, match="scoring: expected 'conlleval' as in task; found 'strict'"):
        GridConfig(**raw, scoring="strict")
    within = GridConfig(**{**raw, "task": {"name": "token_classification", "scoring": "strict"}})
    above = GridConfig(**{**raw, "task": "token_classification", "scoring": "strict"})
    assert within == above
    assert within.run_config(within.runs[0])["scoring"] == "strict"
    assert "task" not in within.run_config(within.runs[0])


def test_streaming_is_for_sentences(grid_of):
    raw = {**few(grid_of(KINDS["sequence_classification"])), "streaming": True}
    with pytest.raises(ConfigError, match="streaming: sentences with tags can be streamed"):
        check_data(
            Executor(GridConfig.model_validate(raw), say=lambda line: None).builder, GridConfig.model_validate(raw).runs
        )


def test_labels_of_test_that_training_lacks_are_named(grid_of):
    raw = few(grid_of(KINDS["sequence_classification"]))
    path = Path(raw["data"]["path"]) / "test.jsonl"
    path.write_text(path.read_text().replace('"place"', '"places"'))
    config = GridConfig.model_validate(raw)
    with pytest.raises(
        DataError, match=r"the label 'places' of . texts in test is not among the labels of train; .*'place'"
    ):
        check_data(Executor(config, say=lambda line: None).builder, config.runs)


@pytest.mark.parametrize("template", [THINKING, MISTRAL, CHATML], ids=["thinking", "mistral", "chatml"])
def test_who_writes_what_was_to_be_learned_is_right(template, monkeypatch):
    """What a template puts before contents, such as an empty thought, is no part of an answer."""
    kind, tokenizer = TaskKind.parse({"name": "completion", "template": "chat"}), byte_tokenizer(template)
    rows = tuple(Completion(f"{i} + 1?", answer) for i, answer in enumerate(("4", "<think>\n\n</think>\n\n4", " no\n")))
    data = kinds_base.Collection("t", {"test": rows}, (), ())
    examples = kind.encode(data, "test", tokenizer, None)
    own = [ids[len(prompt) : -1] for ids, prompt in zip(examples.input_ids, examples.prompt_ids, strict=True)]
    monkeypatch.setattr("pemeta.tasks.kinds.completion.generated", lambda *_, **__: own)
    tested = kinds_base.Tested(data, "test", examples)
    found = kind.predicted(None, "t", tested, tokenizer, {"log_probabilities": lambda *_: []})
    assert ExactMatch().score(kind.gold(examples), found["predictions"]) == 1.0
    own[0] = tokenizer("<think>\n\n</think>\n\n5", add_special_tokens=False)["input_ids"]
    wrong = kind.predicted(None, "t", tested, tokenizer, {"log_probabilities": lambda *_: []})["predictions"]
    assert ExactMatch().score(kind.gold(examples), wrong) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("task", "metrics", "error"),
    [
        ("sequence_classification", ["f1"], "f1 does not measure answers that are classes; use one of .*'macro_f1'"),
        ("sequence_classification", ["pearson"], "pearson does not measure answers that are classes"),
        ("sequence_classification", ["perplexity"], "perplexity does not measure answers that are classes"),
        ("completion", ["macro_f1"], "macro_f1 does not measure answers that are texts"),
        ("completion", ["exact_match", "exact_match"], "exact_match is named twice"),
        ("sequence_classification", [{"name": "ece", "bins": 3}], "ece cannot compare epochs"),
        ("sequence_classification", [{"name": "ece", "bins": 3}, "accuracy", "ece"], "ece is named twice"),
    ],
)
def test_metrics_of_other_answers_are_refused_when_they_are_read(task, metrics, error):
    with pytest.raises(ConfigError, match=f"metrics: {error}"):
        TaskKind.parse({"name": task, "metrics": metrics})


@pytest.mark.parametrize(("problem", "wrong"), [("multi_label", "macro_f1"), ("regression", "accuracy")])
def test_metrics_of_another_problem_are_refused_when_they_are_read(problem, wrong):
    with pytest.raises(ConfigError, match=f"metrics: {wrong} does not measure"):
        TaskKind.parse({"name": "sequence_classification", "problem": problem, "metrics": [wrong]})


def test_metrics_that_suit_a_kind_are_taken():
    for kind, metrics in (
        ({"name": "completion"}, ["accuracy", "loss", "perplexity", "exact_match"]),
        ({"name": "sequence_classification"}, ["macro_f1", "mcc", "accuracy", "ece"]),
        ({"name": "sequence_classification", "problem": "multi_label"}, ["multilabel_macro_f1", "accuracy"]),
        ({"name": "sequence_classification", "problem": "regression"}, ["mse", "pearson", "spearman"]),
    ):
        assert [metric.name for metric in TaskKind.parse({**kind, "metrics": metrics}).scored_by] == metrics
