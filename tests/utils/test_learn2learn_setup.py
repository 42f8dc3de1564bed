from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import finished

from pemeta.errors import PemetaError
from pemeta.utils import learn2learn_setup
from pemeta.utils.learn2learn_setup import LEARN2LEARN_VERSION, install_learn2learn

ALL_TOOLS = {"cython": "3.3.1", "setuptools": "84.2.1", "wheel": "0.48.0"}


class FakePip:
    """A stand-in for `subprocess.run` that records commands, and writes and returns what the test sets."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.output = ""
        self.returncode = 0

    def __call__(self, command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> Any:
        self.commands.append(command)
        self.environments.append(env)
        stdout.write(self.output)
        return subprocess.CompletedProcess(command, self.returncode)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePip:
    fake = FakePip()
    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return fake


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """A function that sets which distributions the environment has."""

    def have(versions: dict[str, str]) -> None:
        monkeypatch.setattr(learn2learn_setup, "_installed", versions.get)

    return have


def test_builds_with_fresh_c_sources_and_without_dependencies(
    pip: FakePip, installed: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(ALL_TOOLS)
    install_learn2learn(["--no-cache-dir", "-c", "constraints.txt"])

    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "--no-build-isolation", "--use-pep517"} <= set(command)
    assert "--config-settings=--global-option=build_ext" in command
    assert command[-4:] == ["learn2learn==0.2.0", "--no-cache-dir", "-c", "constraints.txt"]
    assert pip.environments[0]["CYTHON_FORCE_REGEN"] == "1"
    assert "PATH" in pip.environments[0], "the compiler is found through the user's own environment"
    assert list(tmp_path.iterdir()) == [], "the log of a successful build was not removed"
    assert "about a minute" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("present", "asked"),
    [
        ({}, ["cython>=3", "setuptools", "wheel"]),
        ({**ALL_TOOLS, "cython": "0.29.37"}, ["cython>=3"]),
        ({"cython": "3.0.0", "setuptools": "65.5.0"}, ["wheel"]),
    ],
)
def test_installs_only_the_build_tools_that_are_missing(
    pip: FakePip, installed: Callable[..., None], present: dict[str, str], asked: list[str]
) -> None:
    installed(present)
    install_learn2learn(["-c", "constraints.txt"])

    tools, build = pip.commands
    assert tools[tools.index("--no-input") + 1 :] == [*asked, "-c", "constraints.txt"]
    assert f"learn2learn=={LEARN2LEARN_VERSION}" in build


def test_runs_nothing_when_already_installed(
    pip: FakePip, installed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    installed({"learn2learn": LEARN2LEARN_VERSION})
    install_learn2learn()

    assert pip.commands == []
    assert "already installed" in capsys.readouterr().out


def test_replaces_another_version(pip: FakePip, installed: Callable[..., None]) -> None:
    installed({**ALL_TOOLS, "learn2learn": "0.1.7"})
    install_learn2learn()

    assert f"learn2learn=={LEARN2LEARN_VERSION}" in pip.commands[-1]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("error: [Errno 2] No such file or directory: 'cc'", "no C compiler"),
        ("error: [Errno 2] No such file or directory: '/usr/bin/gcc'", "no C compiler"),
        ("error: command 'clang' failed: No such file or directory", "no C compiler"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", "no C compiler"),
        ("error: Microsoft Visual C++ 14.0 or greater is required", "no C compiler"),
        ("fatal error: Python.h: No such file or directory\ncommand 'gcc' failed with exit code 1", "C headers"),
        ("NewConnectionError(...)\nERROR: No matching distribution found for learn2learn==0.2.0", "network"),
        ("error: externally-managed-environment", "virtual environment"),
        ("something never seen before", "pip's output"),
    ],
)
def test_a_failure_is_one_sentence_with_the_likely_reason_and_the_log(
    pip: FakePip, installed: Callable[..., None], tmp_path: Path, output: str, reason: str
) -> None:
    installed(ALL_TOOLS)
    pip.output, pip.returncode = output, 1
    with pytest.raises(PemetaError, match=reason) as caught:
        install_learn2learn()

    (log,) = tmp_path.iterdir()
    assert str(log) in str(caught.value)
    assert log.read_text() == output
    assert "\n" not in str(caught.value)


def test_a_failure_with_the_build_tools_stops_there(pip: FakePip, installed: Callable[..., None]) -> None:
    installed({})
    pip.returncode = 1
    with pytest.raises(PemetaError):
        install_learn2learn()

    assert len(pip.commands) == 1


def test_an_environment_without_pip_says_how_to_add_it(
    pip: FakePip, installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed({})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PemetaError, match="uv pip install pip"):
        install_learn2learn()

    assert pip.commands == []


def test_the_command_passes_its_arguments_on_and_reports_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(pip_args: list[str]) -> None:
        raise PemetaError(f"refused {pip_args}")

    monkeypatch.setattr(learn2learn_setup, "install_learn2learn", refuse)
    monkeypatch.setattr(sys, "argv", ["learn2learn_setup", "--no-cache-dir"])

    assert learn2learn_setup.main() == 1
    assert capsys.readouterr().err == "error: refused ['--no-cache-dir']\n"


def test_starts_without_torch_and_without_learn2learn() -> None:
    program = "import sys, pemeta.utils.learn2learn_setup; print({'torch', 'learn2learn'} & set(sys.modules))"
    ran = finished("-c", program, check=True)
    assert ran.stdout.strip() == "set()"


def test_constraints_pin_the_version_that_is_built() -> None:
    constraints = Path(__file__).parents[2] / "constraints.txt"
    assert f"learn2learn=={LEARN2LEARN_VERSION}" in constraints.read_text().splitlines()
