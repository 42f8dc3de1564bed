"""TF32 and determinism: in force while a grid's runs are made, put back afterwards, and refused where there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import METHODS, TASKS, tiny, with_heads

from pemeta import MetaPriming
from pemeta.errors import ConfigError
from pemeta.experiments import build
from pemeta.experiments.config import GridConfig
from pemeta.experiments.executor import Executor
from pemeta.experiments.stage import Outcome, Stage
from pemeta.utils.numerics import numerics, precision_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A GPU that can be named, and its capability."""
    capability = [(8, 0)]
    monkeypatch.setattr(build, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    return capability


def state() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()


def config_of(run_config: dict[str, Any], tmp_path: Path, **keys: Any) -> GridConfig:
    return GridConfig.model_validate({**run_config, "output": str(tmp_path), **keys})


@pytest.mark.parametrize(
    ("keys", "within"),
    [
        ({}, ("highest", False)),
        ({"precision": "tf32", "device": "cuda"}, ("high", False)),
        ({"deterministic": True}, ("highest", True)),
    ],
)
@pytest.mark.parametrize("before", ["highest", "medium"])
def test_a_configurations_choice_holds_during_its_stages(
    keys: dict[str, Any],
    within: tuple[str, bool],
    before: str,
    gpu: object,
    run_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was set before: the record says what the configuration does."""
    seen = []

    def perform(self: Executor, stage: Stage) -> Outcome:
        seen.append(state())
        return Outcome(stage)

    monkeypatch.setattr(Executor, "_perform", perform)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.set_float32_matmul_precision(before)
    try:
        Executor(config_of(run_config, tmp_path, **keys), say=lambda line: None).perform(Stage("plain", 0))
        assert state() == (before, False)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [within]
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is within[1]


def test_what_does_not_compute_in_tf32_is_refused(
    gpu: list[tuple[int, int]], run_config: dict[str, Any], tmp_path: Path
) -> None:
    """Or a record would say TF32 of what was computed in float32."""
    with pytest.raises(ConfigError, match=r"tf32 needs an NVIDIA GPU .*; found device 'cpu'; use precision: fp32"):
        Executor(config_of(run_config, tmp_path, precision="tf32", device="cpu"), say=lambda line: None)
    gpu[0] = (7, 5)
    with pytest.raises(ConfigError, match="found device 'cuda'"):
        Executor(config_of(run_config, tmp_path, precision="tf32", device="cuda"), say=lambda line: None)


def test_tf32_makes_other_results_and_determinism_none(run_config: dict[str, Any], tmp_path: Path) -> None:
    plain, tf32, repeats = (
        config_of(run_config, tmp_path, **keys) for keys in ({}, {"precision": "tf32"}, {"deterministic": True})
    )
    [run, *_] = plain.runs
    assert plain.run_digest(run) == repeats.run_digest(run) != tf32.run_digest(run)


def test_a_run_in_tf32_is_another_than_one_in_float32() -> None:
    assert precision_of(None, CUDA) == "None"
    with numerics(tf32=True):
        assert precision_of(None, CUDA) == "tf32"
        assert precision_of(None, CPU) == "None"  # which computes in float32 whatever is set
        assert precision_of(torch.bfloat16, CUDA) == "torch.bfloat16"


@pytest.mark.parametrize("method", ["adapter-top", "lora", "prefix"])
def test_every_operation_of_a_step_has_a_deterministic_one(method: str) -> None:
    algorithm = MetaPriming(support_size=3, query_size=3, inner_steps=2, outer_dropout=False)

    def gradients(**keys: bool) -> list[torch.Tensor]:
        model = with_heads(tiny(METHODS[method][0], dropout=0.0))
        with numerics(**keys):
            algorithm.accumulate(model, algorithm.sampler(TASKS, 0)[0])
        return [p.grad.to_dense() for p in model.parameters() if p.grad is not None]

    first, second, plain = gradients(deterministic=True), gradients(deterministic=True), gradients()
    assert all(map(torch.equal, first, second))
    torch.testing.assert_close(first, plain)
