"""Scores of given answers to a prompt: the log-probabilities of their tokens."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from pemeta.backbone.attention import attention_of
from pemeta.backbone.checks import check_token_ids
from pemeta.backbone.layer_reuse import TRANSFORMED
from pemeta.errors import DataError, ModelError, counted
from pemeta.model.generation import Generator, Tokens, left_padded, token_ids
from pemeta.model.generation_ways import alike, way_for
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.utils.modules import modes_kept
from pemeta.utils.signatures import checked

_shares: WeakKeyDictionary[PEModel, dict[Hashable, tuple[int, bool]]] = WeakKeyDictionary()
"""By model and by all that matters: the longest prompt that was tried, and whether its pass can be shared."""


@checked(model=None, batch_size=1, prompts=None, candidates=None)
@torch.no_grad()
def candidate_scores(
    model: PEModel,
    task: str,
    prompts: Sequence[Tokens],
    candidates: Sequence[Sequence[Tokens]],
    *,
    normalised: bool = False,
    batch_size: int = 16,
) -> list[list[float]]:
    """The log-probability of each given answer to each prompt, by a task's language model.

    It is the sum over the answer's tokens, each given those before it; normalised, their mean, which does not favour
    short answers (Brown et al., 2020, §2.4). Answers to one prompt share the pass of the prompt, where the first use
    finds that this changes nothing.

    Args:
        model: the model; it runs in evaluation mode, and its mode is restored.
        task: a task with a language model's head.
        prompts: token ids of each prompt.
        candidates: token ids of each answer to each prompt: one or more answers, of one or more tokens.
        normalised: whether a sum is divided by the number of tokens.
        batch_size: number of sequences that run together; 16, our choice.

    Returns:
        For each prompt, a natural log-probability for each of its answers.

    Raises:
        ArgumentError: a prompt or an answer is something else than token ids.
        DataError: there are not answers for each prompt, or a prompt or an answer has no token.
        ModelError: the task is not a language model, transformers has none for this architecture, or a prompt with an
            answer is longer than the backbone's positions.
    """
    require_model(model, "candidate_scores")
    rows = _rows(prompts, candidates)
    if not rows:
        return []
    for prompt, answers in rows:
        check_token_ids(model.backbone, {"input_ids": torch.cat([prompt, *answers])[None]})
    generator = Generator(model, task)
    _check_room(generator, rows)
    with modes_kept(model), generator.passes():
        model.eval()
        found = _summed(generator, rows, batch_size)
    sizes = [[len(answer) for answer in answers] for _, answers in rows]
    if not normalised:
        return found
    return [[v / n for v, n in zip(values, own, strict=True)] for values, own in zip(found, sizes, strict=True)]


Row = tuple[Tensor, list[Tensor]]
"""A prompt and its answers."""


def _rows(prompts: Sequence[Tokens], candidates: Sequence[Sequence[Tokens]]) -> list[Row]:
    """Prompts with their answers, as tensors."""
    if len(prompts) != len(candidates):
        raise DataError(
            f"each prompt needs its candidates; found {len(prompts)} prompts and candidates for {len(candidates)}; "
            "give a list of candidates for each prompt"
        )
    rows = []
    for number, (prompt, answers) in enumerate(zip(prompts, candidates, strict=True), 1):
        row = (
            token_ids(prompt, f"prompt {number}"),
            [token_ids(answer, f"a candidate of prompt {number}") for answer in answers],
        )
        if not len(row[0]) or not row[1] or not all(map(len, row[1])):
            raise DataError(
                f"prompt {number} has {len(row[0])} tokens, and candidates of {[len(answer) for answer in row[1]]}; a "
                "prompt needs a token, and one candidate or more, each with a token"
            )
        rows.append(row)
    return rows


def _check_room(generator: Generator, rows: Sequence[Row]) -> None:
    """Refuse answers that do not fit behind their prompt."""
    for number, (prompt, answers) in enumerate(rows, 1):
        longest = max(map(len, answers))
        if generator.room is not None and len(prompt) + longest - 1 > generator.room:
            raise ModelError(
                f"prompt {number} has {counted(len(prompt), 'token')} and a candidate has {longest}, but the backbone "
                f"has positions for {generator.room}; shorten the prompt, in a run by a lower max_length"
            )


def _summed(generator: Generator, rows: Sequence[Row], batch_size: int) -> list[list[float]]:
    """The sums, by the pass of a prompt or by one for each answer."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    share = _can_share(generator, [rows[order[0]], rows[order[-1]]])
    found: dict[int, list[float]] = {}
    size = batch_size if share else 1
    for start in range(0, len(order), size):
        part = order[start : start + size]
        run = _by_shared_pass if share else _by_whole_passes
        for index, values in zip(part, run(generator, [rows[index] for index in part], batch_size), strict=True):
            found[index] = values.double().tolist()
    return [found[index] for index in range(len(rows))]


def _by_whole_passes(generator: Generator, rows: Sequence[Row], batch_size: int) -> list[Tensor]:
    """The sums (C,) of each prompt's answers, by passes of prompt and answer."""
    model, task = generator.model, generator.task
    found = []
    for prompt, answers in rows:
        sums = []
        for part in _chunks(answers, batch_size):
            ids = pad_sequence([torch.cat([prompt, answer[:-1]]) for answer in part], batch_first=True)
            mask = pad_sequence(
                [torch.ones(len(prompt) + len(a) - 1, dtype=torch.long) for a in part], batch_first=True
            )
            batch = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            hidden = model.transformed(batch)[:, len(prompt) - 1 :]
            sums.append(_of_answers(model({TRANSFORMED: hidden}, task), part))
        found.append(torch.cat(sums))
    return found


def _by_shared_pass(generator: Generator, rows: Sequence[Row], batch_size: int) -> list[Tensor]:
    """The same by one pass of the prompts, whose keys and values those of the answers continue."""
    model = generator.model
    ids, mask = (given.to(model.device) for given in left_padded([prompt for prompt, _ in rows], 0))
    cache = DynamicCache(config=generator.whole.config.get_text_config(decoder=True))
    first = _pass(generator, ids, mask, cache, logits_to_keep=1).logits[:, -1:]
    flat = [(row, answer) for row, (_, answers) in enumerate(rows) for answer in answers]
    sums = []
    for part in _chunks(flat, batch_size):
        which = torch.tensor([row for row, _ in part], device=model.device)
        answers = [answer for _, answer in part]
        logits = first[which]
        if max(map(len, answers)) > 1:
            own = pad_sequence([answer[:-1] for answer in answers], batch_first=True).to(model.device)
            known = pad_sequence([torch.ones_like(answer[:-1]) for answer in answers], batch_first=True)
            after = _pass(generator, own, torch.cat([mask[which], known.to(model.device)], 1), _of(cache, which)).logits
            logits = torch.cat([logits, after], 1)
        sums.append(_of_answers(logits, answers))
    return list(torch.cat(sums).split([len(answers) for _, answers in rows]))


def _pass(generator: Generator, ids: Tensor, mask: Tensor, cache: DynamicCache, **options: Any) -> Any:
    """A pass that continues what is in the cache."""
    takes = inspect.signature(generator.whole.forward).parameters
    if "position_ids" in takes:
        options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return generator.whole(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)


def _of(cache: DynamicCache, which: Tensor) -> DynamicCache:
    """The keys and values of some rows, the same one several times too; the cache itself stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]  # which replace their tensors, and write to none
    chosen.batch_select_indices(which)
    return chosen


def _of_answers(logits: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """The summed log-probabilities (C,) of answers, from the logits (C, L, V) for their tokens."""
    tokens = pad_sequence(list(answers), batch_first=True).to(logits.device)
    known = pad_sequence([torch.ones_like(answer) for answer in answers], batch_first=True).to(logits.device)
    each = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return (each * known).sum(1)


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _can_share(generator: Generator, rows: Sequence[Row]) -> bool:
    """Whether answers can share the pass of their prompt, tried on the longest and the shortest prompt."""
    model, prompts = generator.model, [prompt for prompt, _ in rows]
    uneven = len({*map(len, prompts)}) > 1
    way = way_for(generator, prompts)
    if not way.cache or (uneven and not way.padded):
        return False
    key = (repr(model.attached), attention_of(model.backbone), model.compute_dtype, uneven)
    known, longest = _shares.setdefault(model, {}), max(map(len, prompts))
    if key not in known or longest > 2 * known[key][0]:
        few = [(prompt, answers[:2]) for prompt, answers in rows]
        known[key] = (longest, _agrees(generator, few))
    return known[key][1]


def _agrees(generator: Generator, rows: Sequence[Row]) -> bool:
    expected = torch.cat(_by_whole_passes(generator, rows, len(rows)))
    try:
        found = torch.cat(_by_shared_pass(generator, rows, 2 * len(rows)))
    except Exception:  # of a backbone that keeps something else than keys and values
        return False
    return alike(found, expected, generator.model.compute_dtype)
