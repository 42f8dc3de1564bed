"""The only module that imports learn2learn, and only the parts of it that pemeta needs.

learn2learn's ``__init__`` imports gym, torchvision and compiled extensions; ``utils`` and ``algorithms`` need none of
them, so these modules are loaded from the installed package without running that ``__init__``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from pemeta.errors import MissingLearn2LearnError
from pemeta.utils.learn2learn_setup import SETUP_COMMAND


def _load(*names: str) -> list[ModuleType]:
    """Import submodules of learn2learn by name.

    Meanwhile, bare package modules stand in for ``learn2learn`` and ``learn2learn.algorithms``; they are removed
    afterwards, so that a user's own ``import learn2learn`` still gets the real package, with the same classes.
    """
    if "learn2learn" in sys.modules:
        return [importlib.import_module(f"learn2learn.{name}") for name in names]
    spec = importlib.util.find_spec("learn2learn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingLearn2LearnError(
            f"PrimingLearner needs learn2learn, which is not installed; run `{SETUP_COMMAND}` (about a minute)"
        )
    root = spec.submodule_search_locations[0]
    bare = {"learn2learn": root, "learn2learn.algorithms": f"{root}/algorithms"}
    for package, folder in bare.items():
        module = ModuleType(package)
        module.__path__ = [folder]
        sys.modules[package] = module
    try:
        return [importlib.import_module(f"learn2learn.{name}") for name in names]
    finally:
        for package in bare:
            del sys.modules[package]


_utils, _base_learner = _load("utils", "algorithms.base_learner")
BaseLearner = _base_learner.BaseLearner
clone_parameters = _utils.clone_parameters
