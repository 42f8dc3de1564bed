"""Several processes prime one model together: the same model as one process gets, or an error, never a hang."""

import json
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import several_processes
import torch
import yaml
from filelock import FileLock
from processes import finished
from several_processes import CASES

from pemeta.errors import ConfigError
from pemeta.reporting.records import read_records
from pemeta.utils.distributed import Processes, device_of_process
from pemeta.utils.files import read_tensors

HERE = Path(__file__).parents[1]


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# Started on processors alone, `accelerate launch` would use MPI.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no", "--num_processes"]


def launch(*command: object, processes: int = 2, launcher: Sequence[str] = TORCHRUN) -> subprocess.CompletedProcess:
    """Start processes as a launcher does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return finished(*launcher, processes, *command, environment=environment, cwd=HERE)


def together(folder: Path, *steps: str, **options: int) -> subprocess.CompletedProcess:
    return launch(HERE / "several_processes.py", folder, *steps, **options)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """What two processes get in all cases: computed by the first of pytest's workers, and read by all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "two"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            steps = (
                "cases",
                "halves",
                "float32",
                "half_precision",
                "scaled",
                "unreached",
                "requests",
                "interrupted",
                "failing_at_the_end",
                "wrong",
            )
            outcome = together(folder, *steps)
            (folder / "errors.txt").write_text(outcome.stderr if outcome.returncode else "")
    assert not (folder / "errors.txt").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_prime_the_model_that_one_does(shared, tmp_path, name):
    """In float64, where what is left is rounding; dropout is on in the outer pass."""
    model, losses = several_processes.primed(*CASES[name], tmp_path)
    found, told = read_tensors(shared / f"{name}.safetensors")
    assert found.keys() == model.state().keys()
    for parameter, value in model.state().items():
        torch.testing.assert_close(found[parameter], value, rtol=0, atol=1e-9, msg=parameter)
    assert told == pytest.approx(losses, abs=1e-9)
    start = several_processes.shaken(several_processes.tiny(CASES[name][0])).state()
    assert any(not torch.equal(start[key], found[key]) for key in start)


@pytest.mark.slow
def test_in_single_precision_too(shared, tmp_path):
    several_processes.float32(tmp_path, True)
    found, expected = (read_tensors(folder / "float32.safetensors")[0] for folder in (shared, tmp_path))
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) < 1e-6


@pytest.mark.slow
def test_parameters_in_half_precision_end_where_those_of_one_process_do(shared, tmp_path):
    """Up to the rounding of sums of gradients, which AdamW makes as large as the gradient where that is near zero."""
    several_processes.half_precision(tmp_path, True)
    found, expected = (read_tensors(folder / "bfloat16.safetensors")[0] for folder in (shared, tmp_path))
    start = several_processes.shaken(several_processes.tiny(several_processes.METHODS["bitfit"][0])).state()
    ways = [
        torch.cat([(end[name].double() - start[name]).flatten() for name in start if not name.startswith("heads.")])
        for end in (found, expected)
    ]
    assert torch.nn.functional.cosine_similarity(*ways, dim=0) > 0.97


@pytest.mark.slow
def test_what_no_gradient_reaches_is_kept_by_all(shared, tmp_path):
    several_processes.unreached(tmp_path, True)
    found, expected = (read_tensors(folder / "unreached.safetensors")[0] for folder in (shared, tmp_path))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)
    assert found["backbone.pooled_bias"].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_a_loss_that_overflows_in_one_process_is_scaled_in_all(shared, tmp_path):
    expected, _ = several_processes.primed(
        several_processes.METHODS["adapter"][0], several_processes.MetaPriming(**several_processes.FEW), tmp_path
    )
    found, _ = read_tensors(shared / "scaled.safetensors")
    for name, value in expected.state().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_is_raised_by_all(shared):
    says = {
        "different": "process 1 differs from process 0 in its model, data or settings; start all processes with",
        "broken": "there is none left",
        "failing": "out of paper",
    }
    for step, words in says.items():
        for number in (0, 1):
            assert words in json.loads((shared / f"{step}-{number}.json").read_text())


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(tmp_path):
    """Exchanges alone wait for days; that the run ends shows that somebody notices."""
    assert together(tmp_path, "dying").returncode != 0


@pytest.mark.slow
@pytest.mark.long
def test_an_error_between_two_exchanges_ends_the_run(tmp_path, grid):
    outcome = together(tmp_path, "stuck")
    assert outcome.returncode != 0
    assert "MemoryError: there is none left" in outcome.stderr


# The command line


@pytest.fixture
def grid(run_config, tmp_path):
    run_config |= {"targets": ["bb", "cc"], "seeds": [0, 1], "threads": 1}
    run_config["settings"]["again"] = {"method": "lora", "priming": "finetune"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run_config))
    return path, run_config


def scores(folder) -> dict[str, dict]:
    kept = {"score", "scores", "outcomes", "validation_curve", "digest", "data_digest"}
    return {record.filename: record.model_dump(include=kept) for record in read_records(Path(folder))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "launcher"), [(2, ACCELERATE), pytest.param(3, TORCHRUN, marks=pytest.mark.long)]
)
@pytest.mark.long
def test_a_grid_by_several_processes_has_the_records_of_one(grid, tmp_path, pemeta, processes, launcher):
    """Three processes are more than there are source tasks."""
    path, config = grid
    several = partial(launch, "-m", "pemeta", "run", path, f"output={tmp_path / 'several'}", processes=processes)
    outcome = several(launcher=launcher)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("Written to ") == 1  # one speaks for all
    assert pemeta("run", config).code == 0
    found, expected = scores(tmp_path / "several"), scores(config["output"])
    assert len(found) == 12
    assert found == expected
    assert not list((tmp_path / "several").rglob("*.pemeta-*"))
    assert not list((tmp_path / "several" / "checkpoints").rglob("*.safetensors"))
    if processes == 3:  # in the long test alone
        again = several(launcher=launcher)
        assert again.returncode == 0
        assert "12 of 12 runs are done already" in again.stdout


@pytest.mark.slow
@pytest.mark.long
def test_an_error_is_told_once(grid):
    path, _ = grid
    outcome = launch("-m", "pemeta", "run", path, "sources=[zz]")
    assert outcome.returncode != 0
    assert outcome.stderr.count("pemeta: error: unknown language 'zz'") == 1


@pytest.mark.slow
@pytest.mark.long
def test_processes_of_a_launcher_start_none_of_their_own(grid):
    path, _ = grid
    outcome = launch("-m", "pemeta", "run", path, "--jobs", "2")
    assert outcome.stderr.count("2 processes were started together and share the work; omit --jobs") == 1


# One process


def test_alone_nothing_is_sent():
    processes = Processes()
    weight = torch.nn.Parameter(torch.ones(2))
    processes.sum_gradients([weight])
    assert weight.grad is None
    assert (processes.rank, processes.size, processes.first) == (0, 1, True)
    assert processes.all(lambda: 3) == [3]
    assert processes.share("abc") == ["a", "b", "c"]
    assert processes.block([1, 2]) == [1, 2]
    assert processes.any(True)
    assert not processes.any(False)


def test_work_is_shared_out_whole():
    processes = Processes()
    processes.size = 3
    for work in ([], [1], [1, 2, 3, 4], list(range(10))):
        for split in (Processes.share, Processes.block):
            parts = []
            for processes.rank in range(3):
                parts += split(processes, work)
            assert sorted(parts) == work


def test_devices_of_several_processes(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_process("cpu") == "cpu"
    with pytest.raises(ConfigError, match="device 'cuda:1' is a single device, but several processes were started"):
        device_of_process("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of_process("auto") == device_of_process("cuda") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"process 1 of this machine has no GPU of its own \(GPUs found: 1\); start"):
        device_of_process("auto")
