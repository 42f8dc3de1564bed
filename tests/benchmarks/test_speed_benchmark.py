"""`benchmarks/speed` on a tiny shape: its workers, its contenders' gradients, its targets and its tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
sys.path.insert(0, str(SPEED))

from speedbench import command, targets  # noqa: E402
from speedbench.cases import Case, Group, Race, each  # noqa: E402
from speedbench.contenders import CONTENDERS, PACKAGES, make_contender  # noqa: E402
from speedbench.groups import full, quick, with_rounds  # noqa: E402
from speedbench.measure import release  # noqa: E402
from speedbench.race import TOLERANCE, difference, mismatches, run_race  # noqa: E402
from speedbench.records import Records  # noqa: E402
from speedbench.shapes import CONFIGS, METHODS  # noqa: E402
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


@pytest.mark.slow
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


def test_a_gpu_keeps_its_memory_between_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emptied, each step would wait for the driver to give it memory anew."""
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    release()
    assert not emptied
