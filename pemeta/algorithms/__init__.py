"""Priming algorithms: one file each, with the gradients that one outer step takes."""

from pemeta.algorithms.base import PrimingAlgorithm as PrimingAlgorithm
from pemeta.algorithms.base import StepLosses as StepLosses
from pemeta.algorithms.finetune import FineTunePriming as FineTunePriming
from pemeta.algorithms.meta import MetaPriming as MetaPriming
