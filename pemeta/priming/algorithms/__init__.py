"""Priming algorithms: one file each, with the gradients that one outer step takes; registered by this import."""

from pemeta.priming.algorithms.base import OuterStep as OuterStep
from pemeta.priming.algorithms.base import PhaseMemory as PhaseMemory
from pemeta.priming.algorithms.base import PrimingAlgorithm as PrimingAlgorithm
from pemeta.priming.algorithms.base import StepLosses as StepLosses
from pemeta.priming.algorithms.finetune import FineTunePriming as FineTunePriming
from pemeta.priming.algorithms.inner_loop import InnerLoopPriming as InnerLoopPriming
from pemeta.priming.algorithms.meta import MetaPriming as MetaPriming
from pemeta.priming.algorithms.persistent import PersistentPriming as PersistentPriming
from pemeta.priming.algorithms.query import Query as Query
from pemeta.priming.algorithms.reptile import ReptilePriming as ReptilePriming
