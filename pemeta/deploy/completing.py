"""Completions of prompts by a language model's task that is in place in a model, at once or token by token."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextStreamer

from pemeta.data.completions import encode_prompts
from pemeta.deploy.generation import generate
from pemeta.deploy.labelling import InPlace
from pemeta.deploy.predictions import Completed, Prompt
from pemeta.errors import ConfigError
from pemeta.model.task_files import Prompting

NEW_TOKENS = 128
"""Most tokens of a completion if neither the call nor the task says; our choice."""


def complete(
    place: InPlace, prompts: Sequence[Prompt], new_tokens: int | None, options: Mapping[str, Any]
) -> list[Completed]:
    """A completion for each prompt, in their order.

    Args:
        place: the task.
        prompts: texts, or turns of conversations.
        new_tokens: most tokens of a completion.
        options: of transformers' ``generate``.

    Raises:
        ConfigError: the model has no room for that many tokens.
        DataError: a prompt is empty, or the template fails.
    """
    ids = _encoded(place, prompts, new_tokens)
    found: dict[int, Completed] = {}
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    defaults = _defaults(place, new_tokens)
    ends = set(defaults.eos_token_id or ())
    for start in range(0, len(order), place.batch_size):
        chosen = order[start : start + place.batch_size]
        made = _generated(place, [ids[i] for i in chosen], defaults, options)
        for i, row in zip(chosen, made, strict=True):
            kept = _until(row.tolist(), ends)
            text = str(place.tokenizer.decode(kept, skip_special_tokens=True))
            found[i] = Completed(prompts[i], text, len(kept) < len(row))
    return [found[i] for i in range(len(ids))]


def stream(place: InPlace, prompt: Prompt, new_tokens: int | None, options: Mapping[str, Any]) -> Iterator[str]:
    """The text of a prompt's completion in pieces, each as soon as it is certain.

    Generation ends with the iteration, also where that is left early.

    Args:
        place: the task, which stays in place until the end.
        prompt: the prompt.
        new_tokens: most tokens of the completion.
        options: of transformers' ``generate``.

    Raises:
        ConfigError: the model has no room for that many tokens.
        DataError: the prompt is empty, or the template fails.
    """
    ids = _encoded(place, [prompt], new_tokens)
    pieces: queue.Queue[str | BaseException | None] = queue.Queue()
    left = _Left()

    def work() -> None:
        try:
            own = {
                **options,
                "streamer": _Pieces(place.tokenizer, pieces),
                "stopping_criteria": StoppingCriteriaList([left]),
            }
            _generated(place, ids, _defaults(place, new_tokens), own)
        except BaseException as error:  # which belongs to the reader
            pieces.put(error)
        finally:
            pieces.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            if piece:
                yield piece
    finally:
        left.now.set()
        thread.join()


class _Pieces(TextStreamer):
    """Puts what is certain of a text into a queue."""

    def __init__(self, tokenizer: Any, pieces: queue.Queue[Any]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._pieces = pieces

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by transformers with each further piece of text."""
        self._pieces.put(text)


class _Left(StoppingCriteria):
    """Ends a generation that nobody reads any more."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __call__(self, input_ids: Tensor, scores: Tensor, **rest: Any) -> Tensor:
        return torch.full((len(input_ids),), self.now.is_set(), device=input_ids.device)


def _encoded(place: InPlace, prompts: Sequence[Prompt], new_tokens: int | None) -> list[Tensor]:
    """Token ids of prompts as in training, which leave room for new ones."""
    about = place.manifest.prompting or Prompting()
    limit, new = place.tokenizer.model_max_length, _new_tokens(place, new_tokens)
    positions = getattr(place.model.backbone.config.get_text_config(), "max_position_embeddings", None)
    limit = min(limit, positions) if isinstance(positions, int) and positions > 0 else limit
    if new >= limit:
        raise ConfigError(
            f"max_new_tokens must be less than the {limit} tokens that the model takes; found {new}; give fewer"
        )
    room = int(min(limit - new, place.manifest.max_length or limit, 2**31))
    found = encode_prompts(
        prompts,
        place.tokenizer,
        room,
        template=about.template,
        template_options=about.template_options or None,
    )
    return list(found.input_ids)


def _new_tokens(place: InPlace, new_tokens: int | None) -> int:
    about = place.manifest.prompting or Prompting()
    return new_tokens or about.max_new_tokens or NEW_TOKENS


def _defaults(place: InPlace, new_tokens: int | None) -> GenerationConfig:
    """Greedy decoding that ends where completions did in training."""
    about, tokenizer = place.manifest.prompting or Prompting(), place.tokenizer
    ends = {*about.end_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        max_new_tokens=_new_tokens(place, new_tokens),
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=(min(ends) if ends else 0) if pad is None else pad,
    )


def _generated(
    place: InPlace, ids: Sequence[Tensor], defaults: GenerationConfig, options: Mapping[str, Any]
) -> list[Tensor]:
    """The new tokens after each of some sequences, which are padded on the left."""
    width, device = max(map(len, ids)), place.model.device
    rows = torch.full((len(ids), width), int(defaults.pad_token_id or 0))
    mask = torch.zeros_like(rows)
    for i, one in enumerate(ids):
        rows[i, width - len(one) :], mask[i, width - len(one) :] = one, 1
    made = generate(place.model, place.task, rows.to(device), defaults, {"attention_mask": mask.to(device), **options})
    return list(made[:, width:].cpu())


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Token ids before the first one that ends a completion."""
    return ids[: next((i for i, one in enumerate(ids) if one in ends), len(ids))]
