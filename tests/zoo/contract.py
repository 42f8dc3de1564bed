"""The quick checks of one method on one architecture, and what came of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import transformers as t
from tiny_models import shaken
from torch import Tensor
from torch.func import functional_call
from zoo.animals import backbone, batch, inputs, plain_states, untouched
from zoo.purpose import ROWS, nothing_to_act_on

from pemeta import PEModel, PrimingLearner
from pemeta.errors import ConfigError, ModelError, PemetaError
from pemeta.heads import TokenClassification

HEAD = TokenClassification(labels=("O", "B-PER", "I-PER"))
RATE, STEPS, TASK = 0.1, 2, "en"
TOLERANCE = 1e-6
"""Of an error, relative to the largest gradient: some architectures compute softmax, norms or rotations in float32."""

Ways = tuple[tuple[str, str], ...]
QUICK: Ways = (("first", "adapt_to"), ("second", "adapt"))
"""Orders of gradients, and ways to take inner steps: with hidden states that are reused, or a pass for each."""
ALL: Ways = (*QUICK, ("first", "adapt"), ("second", "adapt_to"))

Result = Literal["exact", "refused", "nothing", "wrong", "late", "crash"]
GOOD: tuple[Result, ...] = ("exact", "refused", "nothing")


@dataclass(frozen=True)
class Outcome:
    """What came of a pair.

    Attributes:
        result: ``exact``: attached and equal to the oracle in both orders; ``refused`` at attach in one sentence;
            ``nothing``: refused too, because there is nothing to act on. What must not be: ``wrong``, ``late`` (refused
            after it was attached) and ``crash`` (an error that is not pemeta's).
        says: the sentence, or what is wrong.
        lacks: what the backbone lacks where there is nothing to act on.
    """

    result: Result
    says: str = ""
    lacks: str = ""


class WrongError(Exception):
    """A promise that was not kept."""


def tried(name: str, row: str, ways: Ways = ALL, whole: t.PreTrainedModel | None = None) -> Outcome:
    """Try a method on an architecture, and check it if it is attached; its gradients in these ways.

    A backbone that is given is afterwards as it was, if the result is a good one.
    """
    whole, plain = whole or backbone(name), untouched(name)
    lacks = nothing_to_act_on(plain, row) or ("" if plain_states(name) is not None else "no sequence of hidden states")
    try:
        model = PEModel(whole, ROWS[row])
    except (ModelError, ConfigError) as refusal:
        fault = fault_of_refusal(str(refusal)) or difference(whole, plain, name)
        if fault:
            return Outcome("wrong", f"{fault}; {refusal}")
        return Outcome("nothing" if lacks else "refused", str(refusal), lacks)
    except Exception as error:
        return Outcome("crash", f"at attach: {described(error)}")
    try:
        check(model, plain, name, ways)
    except WrongError as error:
        return Outcome("wrong", str(error))
    except PemetaError as error:
        return Outcome("late", str(error))
    except Exception as error:
        return Outcome("crash", described(error))
    return Outcome("exact")


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def fault_of_refusal(message: str) -> str:
    """What is wrong with a refusal's sentence."""
    if "\n" in message or not message.strip():
        return "a refusal is one line"
    if message.rstrip().endswith(".") or ". " in message.replace("e.g. ", "").replace("...", ""):
        return "a refusal is one sentence"
    return ""


def check(model: PEModel, plain: t.PreTrainedModel, name: str, ways: Ways) -> None:
    """Identity at the start where it is promised, gradients of both orders, and detaching."""
    model.add_head(TASK, HEAD)
    method = model.method
    with torch.no_grad():
        hidden = method.transform(model.backbone, model.hidden_states(inputs(name)))
    if method.identity_at_start and not torch.equal(hidden, present(plain_states(name))):
        raise WrongError("attached, it is not the identity, as it promises to be")
    if ways:
        check_gradients(model, name, ways)
    model.detach(method)
    if fault := difference(model.backbone, plain, name):
        raise WrongError(f"detached, {fault}")


def check_gradients(model: PEModel, name: str, ways: Ways) -> None:
    """Gradients and adapted values, from values of θ_a at which few of them are zero."""
    state = model.state()
    shaken(model)
    oracle = copy.deepcopy(model)  # functional_call leaves other values in a module that has two names
    expected = {order: unrolled(model, oracle, name, order) for order in dict(ways)}
    for order, way in ways:
        compare(adapted(model, name, order, way), expected[order], f"{order} order by {way}")
    if model.method.adds_modules and model.method.mergeable:
        check_merged(oracle, name)
    model.load_state(state)  # some of θ_a is the backbone's own


def check_merged(model: PEModel, name: str) -> None:
    """In the backbone's own maps, an added module computes the same: so it is where its formula says, and acts once."""
    with torch.no_grad():
        before = model.hidden_states(inputs(name))
        model.method.merge(model.backbone)
        after = model.backbone(**inputs(name)).last_hidden_state
    effect = (before - present(plain_states(name))).abs().max()
    if not float((after - before).abs().max()) <= TOLERANCE * float(effect):
        raise WrongError("merged into the backbone's maps, it computes something else")


def present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def difference(found: t.PreTrainedModel, plain: t.PreTrainedModel, name: str) -> str:
    """What a backbone has that it had not before a method, or has no more."""
    if [n for n, _ in found.named_modules()] != [n for n, _ in plain.named_modules()]:
        return "the backbone has other modules"
    own, before = dict(found.named_parameters()), dict(plain.named_parameters())
    if own.keys() != before.keys() or not all(torch.equal(own[n], before[n]) for n in own):
        return "the backbone has other parameters"
    if any(part._forward_hooks or part._forward_pre_hooks for part in found.modules()):
        return "the backbone has hooks"
    if found.config.to_dict() != plain.config.to_dict():
        return "the backbone has another configuration"
    if plain_states(name) is not None:
        with torch.no_grad():
            if not torch.equal(found(**inputs(name)).last_hidden_state, present(plain_states(name))):
                return "the backbone computes something else"
    return ""


Gradients = dict[str, Tensor | None]
Found = tuple[Gradients, dict[str, Tensor]]
"""Outer gradients by name, and the adapted values."""


def adapted(model: PEModel, name: str, order: str, way: str) -> Found:
    """By the learner."""
    support, query = batch(name, 1), batch(name, 2)
    model.zero_grad()
    clone = PrimingLearner(model, RATE, first_order=order == "first").clone(TASK)
    if way == "adapt_to":
        clone.adapt_to([support] * STEPS, TASK)
    else:
        for _ in range(STEPS):
            clone.adapt(clone.loss(support, TASK))
    clone.loss(query, TASK).backward()
    heads = set(model.partition().theta_h)
    gradients = {n: p.grad for n, p in model.named_parameters() if n not in heads}
    return gradients, {n: value.detach() for n, value in clone.adapted_parameters().items()}


def unrolled(model: PEModel, oracle: PEModel, name: str, order: str) -> Found:
    """By an explicit unroll over whole passes: no clone, no reuse, no hook of ours."""
    support, query, parts = batch(name, 1), batch(name, 2), model.partition()
    moving = [*parts.theta_a, *model.head_names(TASK)]
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    values = dict(start)

    def loss(data: dict[str, Tensor]) -> Tensor:
        logits = functional_call(oracle, values, (data, TASK))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"].flatten(), ignore_index=-100)

    for _ in range(STEPS):
        found = torch.autograd.grad(
            loss(support), [values[n] for n in moving], create_graph=order == "second", allow_unused=True
        )
        values |= {n: values[n] - RATE * g for n, g in zip(moving, found, strict=True) if g is not None}
    outer = [n for n in start if n not in parts.theta_h]
    # Where the peft package tunes fused experts, autograd.grad would find no path to them but that of the last pass.
    loss(query).backward()
    return {n: start[n].grad for n in outer}, {n: values[n].detach() for n in moving}


def compare(found: Found, expected: Found, where: str) -> None:
    """Raise an error if gradients or adapted values differ from the oracle's."""
    for kind, ours, theirs in zip(("gradient", "value"), found, expected, strict=True):
        largest = max((float(v.abs().max()) for v in theirs.values() if v is not None and v.numel()), default=0.0)
        if kind == "gradient" and largest < 1e-6:
            raise WrongError(f"{where}: there is no gradient to compare")
        for name, value in theirs.items():
            other = ours[name]
            error = (other if value is None else value) if value is None or other is None else value - other
            if error is not None and error.numel() and not float(error.abs().max()) <= TOLERANCE * largest:
                size = float(error.abs().max()) / largest
                raise WrongError(f"{where}: the {kind} of {name} differs by {size:.0e} of the largest")
