"""Fixtures that the tests share: three tiny languages in CoNLL files, a tiny BERT on them, and the command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fault_figures import figures as figures
from fault_figures import pytest_runtest_logreport as pytest_runtest_logreport
from fault_figures import pytest_runtest_setup as pytest_runtest_setup
from fault_figures import pytest_terminal_summary as pytest_terminal_summary
from processes import watchdog
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pemeta import cli
from pemeta.utils.hub import quiet

# The models are tiny: a second thread doubles the time on the processor and, where others compute too, that on the
# clock. The processes that tests start inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

LANGUAGES = {
    "aa": ("Anna Otto", "Acme Globex", "Rome Oslo", "met left near with today"),
    "bb": ("Ana Oto", "Akme Globeks", "Roma Osla", "mete lefe nara wita toda"),
    "cc": ("Анна Отто", "Акме Глобекс", "Рома Осло", "мет лефт неар вит тода"),
}
SIZES = {"train": 24, "validation": 6, "test": 8}


def make_sentence(rng: np.random.Generator, language: str) -> list[tuple[str, str]]:
    """Four to seven words, most of them ``O``; names of the three types, some of two words."""
    *names, common = (words.split() for words in LANGUAGES[language])
    words: list[tuple[str, str]] = []
    for _ in range(int(rng.integers(3, 5))):
        words.append((str(rng.choice(common)), "O"))
        kind = int(rng.integers(5))
        if kind < 3:
            entity = [str(rng.choice(names[kind])) for _ in range(int(rng.integers(1, 3)))]
            words += [(w, f"{'I' if i else 'B'}-{('PER', 'ORG', 'LOC')[kind]}") for i, w in enumerate(entity)]
    return words


def as_conll(sentences: list[list[tuple[str, str]]]) -> str:
    return "".join("".join(f"{word}\t{tag}\n" for word, tag in sentence) + "\n" for sentence in sentences)


def write_languages(folder: Path, languages: list[str] | None = None) -> Path:
    for number, language in enumerate(languages or LANGUAGES):
        rng = np.random.default_rng(number)
        (folder / language).mkdir(parents=True)
        for split, size in SIZES.items():
            text = as_conll([make_sentence(rng, language) for _ in range(size)])
            (folder / language / f"{split}.conll").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started in the background by a shell, which turns it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _processes_are_ended() -> Iterator[None]:
    """Nothing that a test starts outlives the tests, not even where these are killed."""
    with watchdog():
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of streamed data is the tests' own, and that of the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEMETA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def conll_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three languages, ``aa`` ``bb`` ``cc``: 24 training, 6 validation and 8 test sentences each."""
    return write_languages(tmp_path_factory.mktemp("data") / "conll")


@pytest.fixture
def own_conll_dir(tmp_path: Path) -> Path:
    """The same folder, for a test to change."""
    return write_languages(tmp_path / "conll")


@pytest.fixture(scope="session")
def tokenizer(conll_dir: Path) -> PreTrainedTokenizerBase:
    """A BERT-like WordPiece tokenizer trained on ``conll_dir``; at most 32 tokens in a sequence."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [path.read_text(encoding="utf-8") for path in sorted(conll_dir.rglob("*.conll"))]
    words = [line.split("\t")[0] for text in texts for line in text.splitlines() if line]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    inner.train_from_iterator(words, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **names)


@pytest.fixture(scope="session")
def tiny_bert_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A folder with a random BERT (width 16, two layers) and ``tokenizer``."""
    folder = tmp_path_factory.mktemp("model") / "tiny-bert"
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config, add_pooling_layer=False)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_config_of(conll_dir: Path, tiny_bert_dir: Path) -> Callable[[Path], dict[str, Any]]:
    """A configuration that runs in a second, by its output: a primed and an unprimed setting, one target, one seed."""
    return lambda output: {
        "output": str(output),
        "data": {"name": "conll", "path": str(conll_dir)},
        "backbone": {"name": "pretrained", "path": str(tiny_bert_dir)},
        "sources": ["aa", "bb"],
        "targets": ["cc"],
        "max_length": 32,
        "device": "cpu",
        "priming": {"outer_steps": 3, "outer_lr": 1e-3, "support_size": 4, "query_size": 4},
        "finetuning": {"epochs": 2, "batch_size": 8, "lr": 1e-2},
        "settings": {"plain": {"method": "adapter"}, "primed": {"method": "adapter", "priming": "meta"}},
    }


@pytest.fixture
def run_config(tmp_path: Path, run_config_of: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The configuration of a run into a folder of the test's own."""
    return run_config_of(tmp_path / "out")


@dataclass(frozen=True)
class Outcome:
    """What the command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def pemeta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """The command line in this process: ``pemeta("run", config, "seeds=[1]")``; a mapping is written to a file."""

    def call(*arguments: object) -> Outcome:
        words = []
        for argument in arguments:
            if isinstance(argument, dict):
                path = tmp_path / "config.yaml"
                path.write_text(yaml.safe_dump(argument, allow_unicode=True, sort_keys=False), encoding="utf-8")
                argument = path
            words.append(str(argument))
        monkeypatch.setattr(sys, "argv", ["pemeta", *words])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(pemeta: Callable[..., Outcome], tmp_path: Path) -> Callable[..., str]:
    """The error sentence of a command that must fail: one line, exit code 2, nothing half-written."""

    def call(*arguments: object) -> str:
        outcome = pemeta(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("pemeta: error: "), outcome.err
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.endswith("\n"), outcome.err
        assert "Traceback" not in outcome.out + outcome.err
        assert not list(tmp_path.rglob(".*.pemeta-*"))
        return outcome.err.removeprefix("pemeta: error: ").rstrip("\n")

    return call
