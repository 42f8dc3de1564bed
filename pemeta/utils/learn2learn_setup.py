"""Build learn2learn, which plain ``pip install`` cannot do on the Python versions that pemeta supports.

There are two obstacles. learn2learn's source distribution contains C files that were generated years ago and do not
compile on Python 3.11 or later, so they are regenerated with a current Cython. And its metadata requires gym,
torchvision, qpth and gsutil, which meta-learning does not need, so it is installed without its dependencies.

Run it as ``pemeta setup-learn2learn`` or ``python -m pemeta.utils.learn2learn_setup``; arguments are passed on to pip.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pemeta.errors import PemetaError

LEARN2LEARN_VERSION = "0.2.0"
SETUP_COMMAND = "pemeta setup-learn2learn"

# Build requirements in the environment, with the lowest major version that works.
_BUILD_TOOLS = {"cython": 3, "setuptools": 0, "wheel": 0}

# `--use-pep517` is not redundant: older pips otherwise run setup.py directly, which ignores `--config-settings` and
# compiles the stale C files.
_BUILD_OPTIONS = (
    "--no-deps",
    "--no-build-isolation",
    "--use-pep517",
    "--config-settings=--global-option=build_ext",
)

_NO_COMPILER = "no C compiler was found; install one"

# Patterns in pip's output and the likely reasons. The first match wins, so certain ones come before guesses.
_REASONS = (
    (r"externally-managed-environment", "this Python belongs to the operating system; use a virtual environment"),
    (r"Permission denied|Read-only file system", "the environment is not writable"),
    (r"Python\.h", "Python's C headers are missing; install your system's Python development package"),
    (r"(cc|clang)' failed: No such file|No such file or directory: '\S*(cc|clang)'", _NO_COMPILER),
    (r"Microsoft Visual C\+\+|xcrun: error", _NO_COMPILER),
    (
        r"NewConnectionError|Max retries exceeded|ConnectTimeout|No matching distribution found",
        "the package index cannot be reached; check the network",
    ),
)


def install_learn2learn(pip_args: Sequence[str] = ()) -> None:
    """Build learn2learn and install it into the running Python's environment, unless it is already installed.

    Args:
        pip_args: Further arguments for every ``pip install``, such as ``["--no-cache-dir"]`` or
            ``["-c", "constraints.txt"]``.

    Raises:
        PemetaError: pip is missing or failed; the message names the likely reason and the file with pip's output.
    """
    if _installed("learn2learn") == LEARN2LEARN_VERSION:
        print(f"learn2learn {LEARN2LEARN_VERSION} is already installed: nothing to do.", flush=True)
        return
    if importlib.util.find_spec("pip") is None:
        raise PemetaError(
            f"expected pip in the environment of {sys.executable}, found none (uv creates environments without it); "
            f"add it with `uv pip install pip` or `python -m ensurepip`, then run `{SETUP_COMMAND}` again"
        )
    print(f"Building learn2learn {LEARN2LEARN_VERSION} from its source; this takes about a minute.", flush=True)
    log = _new_log()
    missing = [_requirement(tool) for tool in _BUILD_TOOLS if _is_missing(tool)]
    if missing:
        print(f"  installing what the build needs: {', '.join(missing)}", flush=True)
        _pip_install([*missing, *pip_args], log)
    print("  compiling and installing", flush=True)
    _pip_install([*_BUILD_OPTIONS, f"learn2learn=={LEARN2LEARN_VERSION}", *pip_args], log)
    log.unlink()
    print(f"learn2learn {LEARN2LEARN_VERSION} is installed.", flush=True)


def _installed(distribution: str) -> str | None:
    """The installed version of a distribution, without importing it; ``None`` if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _is_missing(tool: str) -> bool:
    version = _installed(tool)
    return version is None or int(version.split(".")[0]) < _BUILD_TOOLS[tool]


def _requirement(tool: str) -> str:
    """The requirement specifier of a tool for pip.

    >>> _requirement("cython"), _requirement("wheel")
    ('cython>=3', 'wheel')
    """
    lowest = _BUILD_TOOLS[tool]
    return f"{tool}>={lowest}" if lowest else tool


def _new_log() -> Path:
    """An empty file for pip's output, which is long and only useful if something fails."""
    handle, name = tempfile.mkstemp(prefix="pemeta-learn2learn-", suffix=".log")
    os.close(handle)
    return Path(name)


def _pip_install(arguments: Sequence[str], log: Path) -> None:
    """Run ``pip install`` in the running Python's environment and append its output to ``log``."""
    # No input: pip's question would go into the log, and the user would wait forever.
    command = [sys.executable, "-m", "pip", "install", "--no-input", *arguments]
    with log.open("a", encoding="utf-8") as output:
        finished = subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CYTHON_FORCE_REGEN": "1"},
            check=False,
        )
    if finished.returncode != 0:
        reason = _likely_reason(log.read_text(encoding="utf-8", errors="replace"))
        raise PemetaError(f"pip could not install learn2learn {LEARN2LEARN_VERSION}: {reason} (pip's output: {log})")


def _likely_reason(output: str) -> str:
    """The likely reason of a failure, from pip's output.

    >>> _likely_reason("error: [Errno 2] No such file or directory: 'cc'")
    'no C compiler was found; install one'
    """
    for pattern, reason in _REASONS:
        if re.search(pattern, output):
            return reason
    return "see pip's output for the reason"


def main() -> int:
    """Run the module as a command: arguments are passed on to pip, and the exit status is 1 if the build fails."""
    try:
        install_learn2learn(sys.argv[1:])
    except PemetaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
