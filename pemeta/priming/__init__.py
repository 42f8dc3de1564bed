"""Priming: the learner and its inner loop, one file for each algorithm, and the outer loop."""

from typing import TYPE_CHECKING, Any

from pemeta.priming.algorithms import FineTunePriming as FineTunePriming
from pemeta.priming.algorithms import InnerLoopPriming as InnerLoopPriming
from pemeta.priming.algorithms import MetaPriming as MetaPriming
from pemeta.priming.algorithms import PersistentPriming as PersistentPriming
from pemeta.priming.algorithms import PrimingAlgorithm as PrimingAlgorithm
from pemeta.priming.algorithms import ReptilePriming as ReptilePriming
from pemeta.priming.history import PrimingHistory as PrimingHistory
from pemeta.priming.outer_loop import prime as prime

if TYPE_CHECKING:
    from pemeta.priming.learner import PrimingLearner as PrimingLearner


def __getattr__(name: str) -> Any:
    """``PrimingLearner`` on its first use, since it needs learn2learn and the rest does not."""
    if name != "PrimingLearner":
        raise AttributeError(f"module 'pemeta.priming' has no attribute {name!r}")
    from pemeta.priming.learner import PrimingLearner

    return PrimingLearner
