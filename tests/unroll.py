"""The oracle of meta-gradients: an explicit unroll over whole passes of an eager backbone, and what it runs on."""

import copy
import math
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from architectures import backbone, batch
from tiny_models import shaken
from torch.func import functional_call

from pemeta import (
    MetaPriming,
    PEModel,
)
from pemeta.heads import TokenClassification
from pemeta.priming.job import PrimingJob
from pemeta.utils.distributed import Processes
from pemeta.utils.modules import only_trainable

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))


# They take softmax or norms in float32, whose rounding is that of each gradient's size: the gradient that comes back
# in two parts in second order differs from that of their sum by 1e-8.
FLOAT32 = {"modernbert", "gpt2", "llama", "qwen2", "mistral", "qwen3", "vit", "t5", "mt5"}


@dataclass(frozen=True)
class Made:
    """An episode of made-up batches, with as many support batches as there are inner steps, or one."""

    task: SimpleNamespace
    all_supports: tuple
    query: dict
    seed = None

    @property
    def support(self):
        return self.all_supports[0]

    def supports(self, parts):
        assert parts == len(self.all_supports)
        return list(self.all_supports)

    @property
    def both(self):
        parts = (*self.all_supports, self.query)
        return {key: torch.cat([part[key] for part in parts]) for key in self.query}

    def parts(self, sentences, size):
        whole = getattr(self, sentences)
        size = size or len(whole["labels"])
        return [{k: v[i : i + size] for k, v in whole.items()} for i in range(0, len(whole["labels"]), size)]

    def __len__(self):
        return 4


def episodes(architecture, supports=1, shorter=0):
    """Of two tasks; those of the second are shorter by some pieces."""

    def made(seed, cut):
        found = batch(architecture, seed)
        return {key: value[:, : value.shape[1] - cut] if value.ndim == 2 else value for key, value in found.items()}

    return [
        Made(
            SimpleNamespace(name=name),
            tuple(made(10 * i + k, shorter * i) for k in range(supports)),
            made(10 * i + 9, shorter * i),
        )
        for i, name in enumerate(("en", "es"))
    ]


def model_of(method, architecture, attention="eager", seed=0):
    model = PEModel(backbone(architecture, attention), method, seed=seed)
    model.add_head("en", HEAD)
    model.add_head("es", HEAD)
    return shaken(model)


def unrolled(model, algorithm, drawn, number=0):
    """Outer gradients by name, None where there is none, and the new heads: no clone, no reuse, no hook of ours."""
    parts = model.partition(algorithm.adapted_method)
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    oracle = copy.deepcopy(model).eval()  # functional_call leaves other values in a module that has two names
    names, total, heads, ways = algorithm.trained(model), 0.0, {}, {}

    def loss(values, data, task):
        logits = functional_call(oracle, values, (data, task))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    for episode in drawn:
        task = episode.task.name
        own = model.head_names(task)
        batch = episode.both if getattr(algorithm, "sentences", "query") == "both" else episode.query
        if algorithm.name in ("finetune", "persistent"):
            private = [n for n in own if ".theta_a." in n]
            placed = dict(zip(parts.theta_a, (start[n] for n in private), strict=True)) if private else {}
            total = total + loss({**start, **placed}, batch, task)
            continue
        if plain(algorithm, number):
            now = loss(start, episode.both, task)
            moved = torch.autograd.grad(now, [start[n] for n in own], retain_graph=True)
            heads.update({n: (start[n] - algorithm.inner_lr * g).detach() for n, g in zip(own, moved, strict=True)})
            total = total + now
            continue
        path = inner_loop(algorithm, start, [*parts.theta_a, *own], episode, partial(loss, task=task))
        heads.update({n: path[-1][n].detach() for n in own})
        if by_hand := OUTER_GRADIENTS.get(algorithm.name):
            added = by_hand(algorithm, [start, *path], episode, partial(loss, task=task))
            ways.update({n: ways.get(n, 0) + added[n].detach() for n in names})
            continue
        weights = weights_by_hand(algorithm, number)
        total = total + sum(w * loss(values, batch, task) for w, values in zip(weights, path, strict=True) if w)
    if "theta_h" in algorithm.primes or algorithm.name in ("finetune", "persistent"):
        heads = {n: start[n].detach() for n in parts.theta_h}  # the optimiser moves them, and nothing else
    if ways:
        return ways, heads
    found = torch.autograd.grad(total, [start[n] for n in names], allow_unused=True)
    return dict(zip(names, found, strict=True)), heads


OUTER_GRADIENTS = {}
"""A task's outer gradient by name of the algorithm, where it is not that of a loss on the query set.

Each gets the algorithm, all values at the start and after each inner step, the episode, and the loss of values on a
batch, and returns a tensor for each name; those that ``primes`` does not list are ignored. They are in
``algorithm_cases``, beside the algorithms' rows.
"""


def plain(algorithm, number):
    """Whether a step is a plain one: the share of them among the steps so far has just reached another whole one."""
    share = getattr(algorithm, "hybrid", 0)
    return math.floor(share * (number + 1)) != math.floor(share * number)


def weights_by_hand(algorithm, number):
    """The weight of the loss after each inner step."""
    steps = algorithm.inner_steps
    last, even = [0.0] * (steps - 1) + [1.0], [1 / steps] * steps
    part = {"last": 1.0, "mean": 0.0}.get(algorithm.outer_loss)
    if part is None:
        part = min(1.0, number / (algorithm.annealing_steps or algorithm.outer_steps))
    return [part * a + (1 - part) * b for a, b in zip(last, even, strict=True)]


def inner_loop(algorithm, start, adapted, episode, loss):
    """All values after each inner step."""
    first_order = getattr(algorithm, "first_order", True)
    values, path, moments = dict(start), [], {n: {} for n in adapted}
    supports = episode.all_supports if algorithm.fresh_support else [episode.support] * algorithm.inner_steps
    rule = algorithm.inner_rule
    for step, support in enumerate(supports):
        found = torch.autograd.grad(loss(values, support), [values[n] for n in adapted], create_graph=not first_order)
        rate = algorithm.inner_lr * (min(1, (step + 1) / rule.warmup_steps) if rule.warmup_steps else 1)
        if rule.max_grad_norm:
            norm = torch.sqrt(sum(g.square().sum() for g in found))
            found = [g * torch.clamp(rule.max_grad_norm / norm, max=1.0) for g in found]
        new = {n: by_hand(rule, rate, values[n], g, moments[n], step) for n, g in zip(adapted, found, strict=True)}
        values = {**values, **new}
        path.append(values)
    return path


def by_hand(rule, rate, value, g, moments, step):
    """The rules once more, each written out for one parameter."""
    if rule.name == "sgd":
        return value - rate * g
    if rule.name == "momentum":
        moments["m"] = g if step == 0 else rule.momentum * moments["m"] + g
        return value - rate * moments["m"]
    b1, b2 = rule.beta1, rule.beta2
    moments["m"] = (1 - b1) * g if step == 0 else b1 * moments["m"] + (1 - b1) * g
    moments["v"] = (1 - b2) * g**2 if step == 0 else b2 * moments["v"] + (1 - b2) * g**2
    top, below = moments["m"] / (1 - b1 ** (step + 1)), moments["v"] / (1 - b2 ** (step + 1))
    zero = below == 0
    root = torch.where(zero, 0.0, (below + zero).sqrt())
    decayed = value - rate * rule.weight_decay * value if rule.name == "adamw" else value
    return decayed - rate * top / (root + rule.eps)


def errors(model, found, expected, heads):
    """The largest error over outer gradients and new heads; infinite if zeros would be compared with zeros."""
    largest = [0.0]
    for name, value in expected.items():
        zero = torch.zeros_like(model.get_parameter(name))
        largest.append(
            float(((zero if found[name] is None else found[name]) - (zero if value is None else value)).abs().max())
        )
    largest += [float((model.get_parameter(name).detach() - value).abs().max()) for name, value in heads.items()]
    moved = sum(float(value.abs().sum()) for value in expected.values() if value is not None)
    return max(largest) if moved > 1e-6 else float("inf")


def largest_error(model, algorithm, plain_model, drawn, number=0):
    """The largest error of a priming step against the unroll, over gradients and new heads."""
    with only_trainable(model, algorithm.trained(model)) as trained:
        job = PrimingJob(model, None, algorithm, 0, trained.values(), None, Processes())
        job.meta_gradient(drawn, number)
        gradients = {name: parameter.grad for name, parameter in trained.items()}
    return errors(model, gradients, *unrolled(plain_model, algorithm, drawn, number))


def meta(order, **settings):
    return MetaPriming(
        **{"inner_steps": 2, "inner_lr": 0.1, "first_order": order == "first", "outer_dropout": False} | settings
    )
