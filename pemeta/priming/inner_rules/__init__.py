"""Inner rules: one file each, how an inner step follows from gradients; registered by this import."""

from pemeta.priming.inner_rules.adam import Adam as Adam
from pemeta.priming.inner_rules.adam import AdamW as AdamW
from pemeta.priming.inner_rules.base import AnyRule as AnyRule
from pemeta.priming.inner_rules.base import InnerRule as InnerRule
from pemeta.priming.inner_rules.momentum import Momentum as Momentum
from pemeta.priming.inner_rules.sgd import SGD as SGD
