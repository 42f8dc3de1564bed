"""Completions of prompts by a language model's task that is in place in a model, at once or token by token."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextStreamer

from pemeta.data.completions import encode_prompts
from pemeta.deploy.labelling import InPlace
from pemeta.deploy.predictions import Completed, Prompt
from pemeta.errors import ConfigError
from pemeta.model.generation import Generator, completions, generate
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
    asked = _asked(place, prompts, new_tokens)
    made = completions(
        place.model,
        place.task,
        asked.ids,
        max_new_tokens=asked.new,
        stop=asked.ends,
        batch_size=place.batch_size,
        options=options,
    )
    texts = [str(place.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in made]
    most = options.get("max_new_tokens", asked.new)
    return [
        Completed(prompt, text, len(tokens) < most) for prompt, text, tokens in zip(prompts, texts, made, strict=True)
    ]


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
    asked = _asked(place, [prompt], new_tokens)
    pieces: queue.Queue[str | BaseException | None] = queue.Queue()
    left = _Left()

    def work() -> None:
        try:
            _run(place, asked, {**options, "stopping_criteria": StoppingCriteriaList([left])}, pieces)
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


class _Asked(NamedTuple):
    """What a model is asked for.

    Attributes:
        ids: token ids of prompts, as in training.
        new: most new tokens, for which there is room.
        ends: tokens that end a completion.
    """

    ids: tuple[Tensor, ...]
    new: int
    ends: tuple[int, ...]


def _asked(place: InPlace, prompts: Sequence[Prompt], new_tokens: int | None) -> _Asked:
    about, tokenizer = place.manifest.prompting or Prompting(), place.tokenizer
    new = new_tokens or about.max_new_tokens or NEW_TOKENS
    rooms = (Generator(place.model, place.task).room, tokenizer.model_max_length)
    limit = int(min(2**31, *(room for room in rooms if room is not None)))
    if new >= limit:
        raise ConfigError(
            f"max_new_tokens must be less than the {limit} tokens that the model takes; found {new}; give fewer"
        )
    found = encode_prompts(
        prompts,
        tokenizer,
        min(limit - new, place.manifest.max_length or limit),
        template=about.template,
        template_options=about.template_options or None,
    )
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return _Asked(found.input_ids, new, tuple(sorted({*about.end_ids, *own})))


def _run(place: InPlace, asked: _Asked, options: Mapping[str, Any], pieces: queue.Queue[Any]) -> None:
    """Generate for one prompt, with pieces of text as they come."""
    ids = asked.ids[0][None].to(place.model.device)
    pad = min(asked.ends, default=0)
    defaults = GenerationConfig(
        max_new_tokens=asked.new, do_sample=False, eos_token_id=list(asked.ends) or None, pad_token_id=pad
    )
    streamer = _Pieces(place.tokenizer, pieces)
    generate(
        place.model,
        place.task,
        ids,
        defaults,
        {"attention_mask": torch.ones_like(ids), "streamer": streamer, **options},
    )
