"""The contenders: pemeta, and what a user would write or pick instead.

Each is a class in a file of its own; rivals from other packages are imported only when asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from speedbench.cases import Case

CONTENDERS = {
    "floor": "floor:Floor",
    "floor, tokens only": "token_floor:TokenFloor",
    "fine-tuning": "fine_tuning:FineTuningStep",
    "pemeta": "priming:Priming",
    "hand-written": "hand_written:HandWritten",
    "maml": "maml:Maml",
    "higher": "higher_loop:HigherLoop",
    "torchopt": "torchopt_loop:TorchOptLoop",
    "epochs, reuse": "epochs:ReusedTrunk",
    "epochs, recompute": "epochs:RecomputedTrunk",
    "epochs, real": "real_epochs:RealEpochs",
    "evaluation, real": "real_epochs:RealEvaluation",
    "python": "start_up:Python",
    "import pemeta": "start_up:ImportPemeta",
    "pemeta --help": "start_up:PemetaHelp",
}

PACKAGES = {"higher": "higher", "torchopt": "torchopt optree graphviz"}
"""What to install for the rivals that pemeta does not need itself."""


def make_contender(case: Case, device: str = "cpu") -> Any:
    """The contender of a case, with its model and data.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    module, name = CONTENDERS[case.contender].split(":")
    try:
        kind = getattr(importlib.import_module(f"speedbench.contenders.{module}"), name)
    except ModuleNotFoundError as error:
        if case.contender not in PACKAGES:
            raise
        raise ImportError(f"{error.name} is not installed: pip install --no-deps {PACKAGES[case.contender]}") from None
    return kind(case, device)
