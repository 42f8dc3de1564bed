"""Each kind of task from a file of JSON lines through a grid: with priming and a search, and as the sources of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import FIRST_OF_TEST, KINDS, SIZES, Kind, write_rows
from scipy.stats import pearsonr
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from tokenizers import decoders
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pemeta.data.metrics import Metric
from pemeta.errors import ConfigError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.executor import Executor
from pemeta.experiments.runner import Runner
from pemeta.reporting.records import Record, read_records
from pemeta.tasks.kinds import TaskKind
from pemeta.training.evaluation import predict
from pemeta.utils.hub import quiet

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
MULTI = 2


@pytest.fixture(scope="session")
def tiny_gpt2_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with a random GPT-2 whose output map is its own, and the words of ``tokenizer`` without special tokens."""
    folder = tmp_path_factory.mktemp("model") / "tiny-gpt2"
    inner = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    inner.post_processor = None
    inner.decoder = decoders.WordPiece()
    causal = PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=32, eos_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )
    config = GPT2Config(
        vocab_size=len(causal), n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=causal.eos_token_id,
        bos_token_id=causal.eos_token_id, tie_word_embeddings=False
    )
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    causal.save_pretrained(folder)
    return folder


@pytest.fixture
def grid_of(
    run_config: dict[str, Any], tiny_gpt2_dir: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """A configuration of a grid of one kind: a primed setting and an unprimed one."""

    def make(kind: Kind, **changes: Any) -> dict[str, Any]:
        files = write_rows(tmp_path / f"rows-{kind.name}", kind)
        backbone = {"name": "pretrained", "path": str(tiny_gpt2_dir)}
        return {
            **run_config,
            **({"backbone": backbone} if kind.causal else {}),
            "data": {"name": "table", "path": str(files), "task_column": "task"},
            "task": kind.task,
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
    (known,) = [TaskKind.parse(kind.task)]
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
    test = executor.builder.target("cc", executor.config.target_sizes).test
    rows = [json.loads(line) for line in (Path(raw["data"]["path"]) / "test.jsonl").read_text().splitlines()]
    column = next(key for key in ("tags", "labels", "label") if key in rows[0])
    gold = [row[column] for row in rows if row["task"] == "cc"]
    assert record.score == pytest.approx(ORACLES[name](gold, predict(model, test, "cc")), abs=1e-12)
