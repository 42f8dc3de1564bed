"""The cases of priming algorithms: rules, orders, objectives, sets that are primed, and algorithms."""

from __future__ import annotations

import copy

import torch
from tiny_models import TASKS
from unroll import OUTER_GRADIENTS, episodes, largest_error

from pemeta import (
    Adapter,
    FineTunePriming,
    LoRA,
    MetaPriming,
    PEModel,
    PersistentPriming,
    ReptilePriming,
)
from pemeta.priming.algorithms import PrimingAlgorithm

RULES = {
    "sgd": {"name": "sgd"},
    "momentum": {"name": "momentum", "momentum": 0.7},
    "adam": {"name": "adam", "beta1": 0.8},
    "adamw": {"name": "adamw", "weight_decay": 0.3},
    "clipped": {"name": "sgd", "max_grad_norm": 0.02},
    "warmed up": {"name": "adam", "warmup_steps": 3, "max_grad_norm": 0.02},
}
OBJECTIVES = {
    "last": {},
    "mean": {"outer_loss": "mean"},
    "annealed": {"outer_loss": "annealed", "annealing_steps": 5},
    "both": {"sentences": "both"},
    "mean of both": {"outer_loss": "mean", "sentences": "both"},
    "plain": {"hybrid": 0.5},
}
SETS = {
    "default": {},
    "theta_p": {"primes": ("theta_p",)},
    "theta_a": {"primes": ("theta_a",)},
    "theta_h": {"primes": ("theta_h",)},
    "all": {"primes": ("theta_p", "theta_a", "theta_h")},
    "a layer": {"primes": ("encoder.layer.1.*", "theta_a")},
}
PE = {"adapter": Adapter(bottleneck=4), "lora": LoRA(rank=2)}
STEP = 3  # annealing has begun, and with hybrid 0.5 it is a plain step
SMALL = {"inner_steps": 3, "inner_lr": 0.05, "outer_dropout": False}

OTHERS = {
    "reptile": (ReptilePriming(**SMALL), "lora"),
    "reptile of theta_a": (ReptilePriming(**SMALL, inner_method=None), "lora"),
    "reptile of theta_a and heads": (
        ReptilePriming(**SMALL, inner_method=None, primes=("theta_a", "theta_h")),
        "adapter",
    ),
    "reptile with Adam": (ReptilePriming(**SMALL, inner_rule=RULES["adam"]), "adapter"),
    "fine-tuning": (FineTunePriming(outer_dropout=False), "lora"),
    "fine-tuning of theta_a": (FineTunePriming(outer_dropout=False, primes=("theta_a",)), "lora"),
    "persistent": (PersistentPriming(outer_dropout=False), "lora"),
    "persistent on queries": (PersistentPriming(outer_dropout=False, sentences="query"), "adapter"),
    "persistent, a layer": (PersistentPriming(outer_dropout=False, primes=("*.0.*",)), "lora"),
    "anil": (PrimingAlgorithm.parse({"name": "anil", **SMALL}), "adapter"),
    "maml": (PrimingAlgorithm.parse({"name": "maml", **SMALL}), "adapter"),
    "fomaml": (PrimingAlgorithm.parse({"name": "fomaml", **SMALL}), "lora"),
    "multi-step loss": (PrimingAlgorithm.parse({"name": "multi_step_loss", **SMALL, "outer_steps": 10}), "lora"),
    "fresh support": (MetaPriming(**SMALL, fresh_support=True, sentences="both"), "lora"),
    "fresh support, all steps": (MetaPriming(**SMALL, fresh_support=True, outer_loss="mean"), "adapter"),
    "reptile, fresh support": (ReptilePriming(**SMALL, fresh_support=True), "adapter"),
    "all steps, tasks as one batch": (MetaPriming(**SMALL, outer_loss="mean", batch_tasks=True), "adapter"),
    "in parts": (MetaPriming(**SMALL, micro_batch_size=1), "lora"),
    "both, all steps, in parts": (
        MetaPriming(**SMALL, outer_loss="mean", sentences="both", micro_batch_size=3, hybrid=0.5),
        "adapter",
    ),
    "maml in parts": (PrimingAlgorithm.parse({"name": "maml", **SMALL, "micro_batch_size": 1}), "adapter"),
    "persistent in parts": (PersistentPriming(outer_dropout=False, micro_batch_size=2), "lora"),
}


# The outer gradients that are not those of a loss on the query set, once more by hand.


def reptile(algorithm, points, episode, loss):
    """The way that the inner loop went, over α."""
    return {name: (value - points[-1][name]) / algorithm.inner_lr for name, value in points[0].items()}


OUTER_GRADIENTS["reptile"] = reptile


def error_of_a_step(
    algorithm: PrimingAlgorithm, model: PEModel, architecture: str, *, checkpointed: bool = False
) -> float:
    """The largest error of a step on two tasks against the unroll, over outer gradients and new heads."""
    algorithm.prepare(model, 0)
    algorithm.make_heads(model, TASKS, 0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # each task's own θ_a is another
        for parameter in (p for name, p in model.named_parameters() if ".theta_a." in name):
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.1)
    plain = copy.deepcopy(model)
    if checkpointed:
        model.checkpoint_layers()
    supports = algorithm.inner_steps if getattr(algorithm, "fresh_support", False) else 1
    return float(largest_error(model, algorithm, plain, episodes(architecture, supports), STEP))
