"""Priming algorithms: one file each, with the gradients that one outer step takes."""

from pemeta.priming.algorithms.base import PhaseMemory as PhaseMemory
from pemeta.priming.algorithms.base import PrimingAlgorithm as PrimingAlgorithm
from pemeta.priming.algorithms.base import StepLosses as StepLosses
from pemeta.priming.algorithms.finetune import FineTunePriming as FineTunePriming
from pemeta.priming.algorithms.meta import MetaPriming as MetaPriming
