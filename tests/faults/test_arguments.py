"""Wrong arguments, drawn for everything public and for the command line: a call returns, or says why not in a line."""

from __future__ import annotations

import datetime as dt
import inspect
import math
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from faults.public import Stage, arguments_of, public, valid_call
from faults.test_malformed import LONGEST, SECONDS, limited
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from transformers import PreTrainedTokenizerBase

from pemeta.errors import PemetaError

EACH = 40
"""Values drawn for each argument."""
SAMPLE = 250
"""Calls that are tried by default."""

# Without separators, which would lead out of the test's folder.
LETTERS = st.characters(exclude_characters="/\\~:", exclude_categories=["Cs", "Cc"])
TEXTS = st.one_of(
    st.sampled_from(["", " ", "\n", "\0", ".", "en", "O", "auto", "1e-3", "null"]), st.text(LETTERS, max_size=8)
)
NUMBERS = st.one_of(
    st.sampled_from([True, False, 0, -1, 2**62, -(2**70), math.nan, math.inf, -math.inf, 1e308, 0.5, 1j]),
    st.integers(-3, 3),
    st.floats(-2, 2),
)
SIMPLE = st.one_of(st.none(), NUMBERS, TEXTS, st.binary(max_size=4))


def odd() -> list[Any]:
    """Values of kinds that a literal does not make."""
    return [object(), object, len, ..., KeyError("en"), dt.date(2023, 1, 2), range(3), Path("nothing"), set(),
            {"en"}, np.float32("nan"), np.int64(3), np.zeros((2, 2)), np.array("en"), torch.zeros(2, 2),
            torch.tensor(-1), torch.empty(2, device="meta"), torch.nn.Linear(2, 2), [[]], [[[["deep"]]]], {None: None},
            {"input_ids": [1]}, {"input_ids": torch.zeros(1, 2)}, Unreadable(),
            *map(iter, ([], [1, None], ["en"]))]  # fmt: skip


class Unreadable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("this object has no text")


WRONG: SearchStrategy[Any] = st.one_of(
    SIMPLE,
    st.integers(0, len(odd()) - 1).map(lambda index: odd()[index]),
    st.lists(SIMPLE, max_size=3),
    st.lists(SIMPLE, max_size=2).map(tuple),
    st.lists(SIMPLE, max_size=2).map(iter),
    st.dictionaries(TEXTS, SIMPLE, max_size=2),
)


def drawn(examples: int) -> Callable[[Any], Any]:
    """Settings of a property that draws the same in each run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase, tiny_bert_dir: Path
) -> Iterator[Stage]:
    """What valid calls need, without a hub, in a folder that is the working directory."""
    folder = tmp_path_factory.mktemp("arguments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
        yield Stage(folder, tokenizer, tiny_bert_dir)


def spoken(value: object) -> str:
    """A text as it is, or a path; other values as they are shown."""
    return str(value) if isinstance(value, str | Path | np.ndarray) else shown(value)


def shown(value: object) -> str:
    try:
        return repr(value)
    except RuntimeError:
        return "an object without a text"


def fault(stage: Stage, name: str, argument: str, value: object) -> str | None:
    """What is wrong with the answer to a call with a wrong argument; None if it returns or is refused in a sentence."""
    call, arguments = valid_call(name, stage)
    tried = f"{name}({argument}={shown(value)[:200]})"
    try:
        with limited(SECONDS):
            call(**{**arguments, argument: value})
    except PemetaError as refusal:
        said = str(refusal)
        if "\n" in said or not said.strip() or len(said) > LONGEST:
            return f"{tried} is refused in more than a line: {said}"
        usual = inspect.signature(call).parameters.get(argument)
        fine = value is None and usual is not None and usual.default is None  # the call's other arguments are refused
        fine = fine or "offline" in said or names(said, argument, value)
        return None if fine else f"{tried} is refused without a name: {said}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{tried} ends with {type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
    return None


def names(said: str, argument: str, value: object) -> bool:
    """Whether a message names an argument or its value."""
    words = {argument, argument.replace("_", " "), argument.rstrip("s"), argument.split("_")[-1]}
    values = [value, *(value if isinstance(value, list | tuple | dict) else ())]
    texts = [" ".join(text.split())[:20].strip("'") for one in values for text in (shown(one), spoken(one))]
    plain = said.replace("\\\\", "\\")
    if isinstance(value, Iterator):  # which has been read
        return True
    if (
        isinstance(value, str | bytes | list | tuple | dict | set)
        and not value
        and re.search(r"\b(0|no|none|empty)\b", said)
    ):
        return True
    named = any(re.search(rf"\b{re.escape(word)}", said) for word in words)
    typed = re.search(rf"\b{type(value).__name__}\b", said) is not None
    return named or typed or any(text in plain for text in texts)


@pytest.mark.parametrize("name", list(public()))
def test_the_valid_call_is_valid(stage: Stage, name: str) -> None:
    call, arguments = valid_call(name, stage)
    if name == "PEModel.push_to_hub":
        with pytest.raises(PemetaError, match="offline"):
            call(**arguments)
    else:
        call(**arguments)


@drawn(SAMPLE)
@given(draw=st.data())
def test_a_sample(stage: Stage, draw: Any) -> None:
    name = draw.draw(st.sampled_from(list(public())))
    argument = draw.draw(st.sampled_from(arguments_of(valid_call(name, stage)[0])))
    assert fault(stage, name, argument, draw.draw(WRONG)) is None


@pytest.mark.faults("wrong arguments answered clearly")
@pytest.mark.parametrize("name", list(public()))
def test_all(stage: Stage, name: str, figures: Any) -> None:
    tried, faults = 0, []

    @drawn(EACH)
    @given(value=WRONG)
    def try_it(argument: str, value: object) -> None:
        nonlocal tried
        tried += 1
        faults.append(fault(stage, name, argument, value))

    for argument in arguments_of(valid_call(name, stage)[0]):
        try_it(argument)
    found = [one for one in faults if one is not None]
    figures(tried - len(found), tried)
    assert not found, "\n".join(found)


# The command line

VERBS = ("validate", "plan", "run", "report", "predict", "methods", "algorithms", "data")
KEYS = ("output", "data", "data.path", "backbone", "backbone.path", "targets", "sources", "seeds", "settings", "report",
        "settings.plain", "settings.plain.method", "settings.plain.method.bottleneck", "settings.primed.priming",
        "priming.inner_lr", "priming.outer_step", "finetuning.epochs", "finetunin.epochs", "search.seeds", "threads",
        "target_sizes.train", "trackers", "precision", "max_length", "validation_tasks", "device")  # fmt: skip
FLAGS = (
    "--fast",
    "--jobs",
    "--jobs=-1",
    "--device=warp",
    "--json=no",
    "--length=0",
    "--world-size=0",
    "--task",
    "-z",
    "--",
)
WORDS = st.one_of(
    st.tuples(st.sampled_from(KEYS) | TEXTS, st.sampled_from(["=", ":"]), SIMPLE.map(str) | TEXTS).map("".join),
    st.tuples(st.sampled_from(KEYS), st.recursive(SIMPLE, lambda some: st.lists(some, max_size=2))).map(
        lambda pair: f"{pair[0]}={as_yaml(pair[1])}"
    ),
    st.sampled_from(FLAGS),
    TEXTS,
)


def as_yaml(value: object) -> str:
    try:
        return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    except yaml.YAMLError:  # a complex number
        return str(value)


@pytest.fixture
def answered(
    pemeta: Callable[..., Any], run_config: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> Callable[..., Any]:
    """Try a command line; what is wrong with its answer, or None."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = tmp_path / "config.yaml"
    text = yaml.safe_dump(run_config, sort_keys=False)

    def answer(verb: str, words: list[str], content: bytes | None) -> str | None:
        config.write_bytes(text.encode() if content is None else content)
        first = [config, *(["--dry-run"] if verb == "run" else [])] if verb in ("validate", "plan", "run") else []
        with limited(SECONDS):
            outcome = pemeta(verb, *first, *words)
        lines = outcome.err.splitlines()
        if outcome.code == 0 and "Traceback" not in outcome.out + outcome.err:
            return None
        clear = outcome.code == 2 and len(lines) == 1 and lines[0].startswith("pemeta: error: ")
        return None if clear else f"{verb} {words} {content!r}: exit code {outcome.code}: {outcome.out}{outcome.err}"

    return answer


WHOLE = st.tuples(
    st.sampled_from(VERBS), st.lists(WORDS, min_size=1, max_size=2), st.none() | st.none() | st.binary(max_size=30)
)


@drawn(40)
@given(given=WHOLE)
def test_a_sample_of_command_lines(answered: Any, given: Any) -> None:
    assert answered(*given) is None


@pytest.mark.faults("wrong command lines answered in a line")
def test_all_command_lines(answered: Any, figures: Any) -> None:
    faults = []

    @drawn(1000)
    @given(given=WHOLE)
    def try_it(given: Any) -> None:
        faults.append(answered(*given))

    try_it()
    found = [one for one in faults if one is not None]
    figures(len(faults) - len(found), len(faults))
    assert not found, "\n".join(found)
