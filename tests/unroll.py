"""The oracle of meta-gradients: an explicit unroll over whole passes of an eager backbone, and what it runs on."""

import copy
from dataclasses import dataclass
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


def unrolled(model, algorithm, drawn):
    """Meta-gradients by name, None where there is none, and the adapted heads: no clone, no reuse, no hook of ours."""
    parts = model.partition()
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    oracle = copy.deepcopy(model).eval()  # functional_call leaves other values in a module that has two names
    total, heads = 0.0, {}
    for episode in drawn:
        task = episode.task.name
        adapted = [*parts.theta_a, *model.head_names(task)]
        values = dict(start)

        def loss(data, values=values, task=task):
            logits = functional_call(oracle, values, (data, task))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

        steps = episode.all_supports if algorithm.fresh_support else [episode.support] * algorithm.inner_steps
        for support in steps:
            gradients = torch.autograd.grad(
                loss(support), [values[n] for n in adapted], create_graph=not algorithm.first_order
            )
            values.update({n: values[n] - algorithm.inner_lr * g for n, g in zip(adapted, gradients, strict=True)})
        total = total + loss(episode.query)
        heads.update({n: values[n].detach() for n in model.head_names(task)})
    outer = parts.theta_p + parts.theta_a
    found = torch.autograd.grad(total, [start[n] for n in outer], allow_unused=True)
    return dict(zip(outer, found, strict=True)), heads


def meta(order, **settings):
    return MetaPriming(
        **{"inner_steps": 2, "inner_lr": 0.1, "first_order": order == "first", "outer_dropout": False} | settings
    )
