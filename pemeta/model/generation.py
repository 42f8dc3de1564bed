"""Generation with a task that is a language model, by transformers' own ``generate``."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from pemeta.backbone.checks import check_token_ids
from pemeta.backbone.finite_masks import finite_masks
from pemeta.backbone.layer_reuse import TRANSFORMED
from pemeta.backbone.positions import first_position, position_limit
from pemeta.errors import ArgumentError, ConfigError, ModelError, counted, excerpt, reason
from pemeta.heads import CausalLMHead
from pemeta.model.generation_ways import Way, way_for
from pemeta.model.given import require_model
from pemeta.model.ownership import require_own
from pemeta.model.pe_model import PEModel
from pemeta.utils.hub import quiet
from pemeta.utils.modules import modes_kept
from pemeta.utils.signatures import checked

Tokens: TypeAlias = Sequence[int] | Tensor
"""Token ids, (T,)."""


class Generator:
    """A task's language model, for transformers' ``generate``.

    transformers' class for the architecture says what is done between steps. A step's pass is the model's own: the
    backbone with its PE methods, and the task's head on the last token. Keys and values of earlier steps are kept, and
    prompts of different lengths padded on the left, wherever the first use finds that logits are then those of each
    sequence by itself, in one pass (``pemeta.model.generation_ways``).

    Args:
        model: the model.
        task: the task.

    Raises:
        ModelError: the task is not a language model, or transformers has none for this architecture.
    """

    def __init__(self, model: PEModel, task: str) -> None:
        head = model.head(task)
        if not isinstance(head, CausalLMHead):
            raise ModelError(
                f"task {task!r} has a {type(head).__name__}, which does not generate; leave predict_with_generate off, "
                "or give the task the head causal_lm"
            )
        self.model, self.task = model, task
        self.whole = _language_model(model, task)

    @property
    def room(self) -> int | None:
        """Most tokens that a sequence can have; None without a limit."""
        limit = position_limit(self.model.backbone)
        return None if limit is None else limit - sum(method.extra_positions for method in self.model.attached)

    def passes(self) -> AbstractContextManager[Any]:
        """A block for passes, in the precision that the model computes in."""
        require_own(self.model.backbone, self.model)
        dtype = self.model.autocast_dtype
        return nullcontext() if dtype is None else torch.autocast(self.model.device.type, dtype)

    def run(self, inputs: Tensor | None, defaults: GenerationConfig, options: Mapping[str, Any]) -> Any:
        """The ``generate`` of transformers, in evaluation mode.

        Args:
            inputs: token ids (B, T), or None if ``options`` has them.
            defaults: what holds where ``options`` say nothing.
            options: all other arguments of ``generate``.
        """
        with modes_kept(self.model), self.passes():
            self.whole.eval()
            self.whole.generation_config = defaults
            return self.whole.generate(inputs, **options)  # type: ignore[operator]

    def steps(self, prompts: Sequence[Tensor], count: int, cache: bool) -> tuple[Tensor, Tensor]:
        """The likeliest next tokens (B, S) of prompts that run together, and the logits (B, S, V) of each step."""
        ids, mask = left_padded(prompts, 0)
        options = {"attention_mask": mask.to(self.model.device), "use_cache": cache, "max_new_tokens": count}
        kept = {"output_logits": True, "return_dict_in_generate": True, "do_sample": False, "pad_token_id": 0}
        found = self.run(ids.to(self.model.device), GenerationConfig(), {**options, **kept})
        return found.sequences[:, ids.shape[1] :], torch.stack(found.logits, 1)

    @torch.no_grad()
    def logits_of(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """The logits (S, V) of tokens (S,) after a prompt, by one pass of the model."""
        ids = torch.cat([prompt.to(tokens.device), tokens[:-1]])[None].to(self.model.device)
        with modes_kept(self.model):
            self.model.eval()
            hidden = self.model.transformed({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            return self.model({TRANSFORMED: hidden[:, -len(tokens) :]}, self.task)[0]  # type: ignore[no-any-return]


def _language_model(model: PEModel, task: str) -> PreTrainedModel:
    """A model of transformers' class for the backbone's architecture whose passes are those of a task.

    Raises:
        ModelError: there is no such class.
    """
    config = copy.deepcopy(model.backbone.config)
    try:
        with quiet(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            whole: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"transformers has no language model for {config.model_type}, so that its generate cannot be used "
            f"({reason(error)}); use a backbone of another architecture"
        ) from None
    for name, _ in list(whole.named_children()):
        setattr(whole, name, model.backbone if name == whole.base_model_prefix else nn.Identity())
    if getattr(whole, whole.base_model_prefix, None) is not model.backbone:
        raise ModelError(
            f"{type(whole).__name__} has no place for a backbone, so that its generate cannot be used; use a backbone "
            "of another architecture"
        )
    vars(whole)["forward"] = _forward(model, task, whole)
    return whole


def _forward(model: PEModel, task: str, whole: PreTrainedModel) -> Callable[..., ModelOutput]:
    """A pass for ``generate``: logits of a task, and whatever else the backbone gives, such as keys and values."""
    backbone = model.backbone
    takes = inspect.signature(backbone.forward).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    first = first_position(backbone)
    prepends = any(method.extra_positions for method in model.attached)  # then positions are the backbone's own affair

    @functools.wraps(whole.forward)  # generate reads which arguments there are
    def forward(input_ids: Tensor | None = None, **named: Any) -> ModelOutput:
        keep = named.pop("logits_to_keep", 0)
        inputs = {name: value for name, value in named.items() if (takes_all and name != "labels") or name in takes}
        positions = inputs.pop("position_ids", None)
        if positions is not None and not prepends:
            inputs["position_ids"] = positions + first
        with finite_masks(backbone):
            output = backbone(input_ids=input_ids, **inputs)
        hidden = model.transformed({"trunk": output.last_hidden_state})
        hidden = hidden[:, -keep:] if isinstance(keep, int) else hidden[:, keep]  # all of them if it is 0
        found = ModelOutput()
        found["logits"] = model({TRANSFORMED: hidden}, task)
        for name, value in output.items():
            if name != "last_hidden_state":
                found[name] = value
        return found

    return forward


def token_ids(tokens: Tokens, what: str) -> Tensor:
    """Token ids as a tensor (T,), which may be empty.

    Raises:
        ArgumentError: they are something else, such as a text, or the ids of several sequences.
    """
    try:
        ids = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError):
        ids = torch.empty(())
    if ids.ndim != 1 or (len(ids) and ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8)):
        raise ArgumentError(
            f"{what} must be token ids, such as [5, 6, 7]; found {excerpt(tokens)}; encode texts with the model's own "
            "tokenizer"
        )
    return ids.long()


def left_padded(prompts: Sequence[Tokens], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) of prompts with padding before the shorter ones, and their attention mask."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        mask[row, length - len(prompt) :] = 1
    return ids, mask


def generate(
    model: PEModel, task: str, inputs: Tensor | None, defaults: GenerationConfig, options: Mapping[str, Any]
) -> Any:
    """Continue sequences with a task that is a language model, with the arguments of transformers' ``generate``.

    Keys and values are cached where that changes nothing, unless ``options`` have ``use_cache=False``.

    Args:
        model: the model.
        task: the task.
        inputs: token ids (B, T), or None if ``options`` has ``input_ids``.
        defaults: what holds where ``options`` say nothing.
        options: all other arguments of transformers' ``generate``; ``labels`` are ignored.

    Raises:
        ModelError: the task is not a language model, transformers has none for this architecture, or the backbone
            computes something else where prompts are padded.
    """
    generator = Generator(model, task)
    rest = {name: value for name, value in options.items() if name != "labels"}
    ids = rest.get("input_ids") if inputs is None else inputs
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return generator.run(inputs, defaults, {"use_cache": False, **rest})
    mask = rest.get("attention_mask")
    check_token_ids(model.backbone, {"input_ids": ids, **({} if mask is None else {"attention_mask": mask})})
    prompts = list(ids) if mask is None else [row[kept > 0] for row, kept in zip(ids, mask, strict=True)]
    way = way_for(generator, prompts, rest.get("use_cache") is not False)
    if not way.padded and len({*map(len, prompts)}) > 1:
        raise ModelError(
            f"{type(model.backbone).__name__} computes something else where prompts are padded; generate for prompts "
            "of equal length"
        )
    return generator.run(inputs, defaults, {**rest, "use_cache": way.cache})


@checked(model=None, max_new_tokens=1, batch_size=1, prompts=None, stop=None)
def completions(
    model: PEModel,
    task: str,
    prompts: Sequence[Tokens],
    *,
    max_new_tokens: int = 64,
    stop: Collection[int] = (),
    batch_size: int = 16,
    options: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """The tokens with which a task's language model continues each prompt, up to a token that stops it.

    Greedy by default: each token is the likeliest one. Prompts of similar length run together, padded on the left. A
    prompt's continuation is what it is by itself, but for rounding where two tokens are as likely.

    Args:
        model: the model; it runs in evaluation mode, and its mode is restored.
        task: a task with a language model's head.
        prompts: token ids of each prompt, special tokens included.
        max_new_tokens: most tokens of a continuation; 64, our choice. Fewer where a table of positions ends before.
        stop: tokens that end a continuation, and are not part of it, such as the tokenizer's ``eos_token_id``.
        batch_size: number of prompts that run together; 16, our choice.
        options: further arguments of transformers' ``generate``, such as ``{"do_sample": True, "temperature": 0.7}``.

    Returns:
        The new tokens of each prompt, in order.

    Raises:
        ArgumentError: a prompt is something else than token ids, or so is ``stop``.
        ConfigError: ``options`` say where to stop, or ask for several continuations.
        ModelError: the task is not a language model, transformers has none for this architecture, or a prompt is empty
            or leaves no room for a token.
    """
    require_model(model, "completions")
    generator = Generator(model, task)
    given = [token_ids(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, 1)]
    ends = _ends(stop, options)
    rooms = [_room(generator, prompt, number, max_new_tokens) for number, prompt in enumerate(given, 1)]
    if not given:
        return []
    way = way_for(generator, given)
    settings = {"do_sample": False, **(options or {}), "use_cache": way.cache}
    pad = 0  # any token will do: it is not attended to, and follows what ends a continuation
    found: dict[int, list[int]] = {}
    for part in _parts(given, rooms, way, max_new_tokens, batch_size):
        ids, mask = left_padded([given[index] for index in part], pad)
        own = GenerationConfig(max_new_tokens=rooms[part[0]], pad_token_id=pad, eos_token_id=ends or None)
        masked = {"attention_mask": mask.to(model.device), **settings}
        made = generator.run(ids.to(model.device), own, masked)
        if not isinstance(made, Tensor) or len(made) != len(part):
            raise ConfigError(
                "options make transformers' generate return something else than one sequence for each prompt; leave "
                "out num_return_sequences and return_dict_in_generate, and repeat a prompt to have several"
            )
        new = made[:, ids.shape[1] :].tolist()
        found |= {index: _until(tokens, ends) for index, tokens in zip(part, new, strict=True)}
    return [found[index] for index in range(len(given))]


def _ends(stop: Any, options: Mapping[str, Any] | None) -> list[int]:
    """The tokens that stop."""
    if options and "eos_token_id" in options:
        raise ConfigError(
            f"options has eos_token_id {excerpt(options['eos_token_id'])}, but what ends a continuation is given as "
            "stop; give it there"
        )
    found = token_ids(list(stop) if isinstance(stop, Collection) else stop, "stop").tolist()
    if found and min(found) < 0:
        raise ArgumentError(f"stop must be token ids, which are not negative; found {min(found)}; leave it out")
    return sorted({*found})


def _room(generator: Generator, prompt: Tensor, number: int, wanted: int) -> int:
    """How many tokens a prompt may be continued with."""
    if not len(prompt):
        raise ModelError(f"prompt {number} is empty, so there is nothing to continue; begin it with a token")
    check_token_ids(generator.model.backbone, {"input_ids": prompt[None]})
    room = wanted if generator.room is None else min(wanted, generator.room - len(prompt))
    if room < 1:
        raise ModelError(
            f"prompt {number} has {counted(len(prompt), 'token')}, and the backbone has positions for "
            f"{generator.room}; shorten it, so that there is room for an answer"
        )
    return room


def _parts(prompts: Sequence[Tensor], rooms: Sequence[int], way: Way, wanted: int, batch_size: int) -> list[list[int]]:
    """The places of prompts that run together: of similar length, or of equal length where they must be."""

    def kind(index: int) -> tuple[int, int]:
        apart = not way.padded or rooms[index] < wanted
        return rooms[index], len(prompts[index]) if apart else 0

    groups: dict[tuple[int, int], list[int]] = {}
    for index in sorted(range(len(prompts)), key=lambda index: -len(prompts[index])):
        groups.setdefault(kind(index), []).append(index)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]


def _until(tokens: Sequence[int], stop: Collection[int]) -> list[int]:
    """The tokens before the first that stops."""
    end = next((place for place, token in enumerate(tokens) if token in stop), len(tokens))
    return list(tokens[:end])
