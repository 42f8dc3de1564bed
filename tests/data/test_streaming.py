"""Sentences and tokens in files: the same as in memory, bit for bit, made once, verified, and in little memory."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from pemeta import (
    EpisodeSampler,
    FineTuning,
    LabelSet,
    MetaPriming,
    PEModel,
    Sentence,
    SyntheticWorld,
    Task,
    encode,
    evaluate,
    finetune,
    predict,
    prime,
    store_sentences,
)
from pemeta.data import arrow
from pemeta.data import encoding as encoding_module
from pemeta.data import stored_sentences as stored_module
from pemeta.data.arrow import ArrowFile, chunked, write_rows
from pemeta.data.conll import read_conll_corpus
from pemeta.data.encoding import Encoded
from pemeta.data.sentences import SPLITS, digest
from pemeta.data.sources import DataSource
from pemeta.data.stored_sentences import StoredSentences
from pemeta.data.streams import Stream, file_digest, stored_corpus
from pemeta.errors import ConfigError, DataError, ModelError, OutputError
from pemeta.reporting.records import read_records
from pemeta.utils import cache

LABELS = LabelSet(("PER", "ORG", "LOC"))
ROWS = 50
"""Of a batch of a file; 20 times as many otherwise."""
WORDS = ("Anna", "Otto", "met", "left", "near", "Rome", "\u200b", "Осло", "東京都", "a" * 90)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(arrow, "ROWS", ROWS)
    return tmp_path / "cache"


def made(number: int, longest: int = 12, seed: int = 0) -> Iterator[Sentence]:
    """Random sentences, some too long for the tokenizer, some without a token, some of a document."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        size = int(rng.integers(1, longest + 1))
        words = tuple(WORDS[i] for i in rng.integers(0, len(WORDS), size))
        kinds = rng.integers(0, 5, size).tolist()
        tags = [f"B-{LABELS.types[kind]}" if kind < 3 else "O" for kind in kinds]
        for i in range(1, size):
            if tags[i - 1] != "O" and kinds[i] == 4:
                tags[i] = f"I-{tags[i - 1][2:]}"
        yield Sentence(words, tuple(tags), index // 10 if index % 3 else None)


def entries(folder: Path) -> list[str]:
    """What the cache holds, without locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


# Sentences


@pytest.mark.parametrize("number", [0, 1, ROWS - 1, ROWS, 2 * ROWS + 7])
def test_stored_sentences_are_the_sequence_that_was_given(number: int) -> None:
    given = list(made(number))
    stored = store_sentences(iter(given), LABELS)
    assert len(stored) == number
    assert stored == store_sentences(given, LABELS)
    assert stored != store_sentences(made(number + 1), LABELS)
    assert stored != given
    assert list(stored) == given
    assert [one.document for one in stored] == [one.document for one in given]
    assert digest(stored) == digest(given)
    some = sorted({0, number // 2, number - 1} & set(range(number)))
    assert [stored[i] for i in some] == [given[i] for i in some]
    assert [stored[i].document for i in some] == [given[i].document for i in some]
    assert [stored[np.int64(i)] for i in some] == [given[i] for i in some]
    assert list(reversed(stored)) == given[::-1]
    for wrong in (number, -number - 1):
        with pytest.raises(IndexError):
            stored[wrong]


@pytest.mark.parametrize(
    "part", [slice(None), slice(3), slice(0, 120), slice(5, 9), slice(-3, None), slice(None, None, 7)]
)
def test_parts_are_those_of_a_list(part: slice) -> None:
    given = list(made(130))
    stored = store_sentences(given, LABELS)
    found = stored[part]
    assert list(found) == given[part]
    assert digest(found) == digest(given[part])
    assert isinstance(found, StoredSentences) == (part.start in (None, 0) and part.step is None)
    assert found[-1] == given[part][-1]


def test_a_generator_that_fails_leaves_nothing(folder: Path) -> None:
    def failing() -> Iterator[Sentence]:
        yield from made(150)
        raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError, match="the server is gone"):
        store_sentences(failing(), LABELS)
    assert entries(folder) == ["sentences"]


def test_a_generator_that_cannot_read_says_so(folder: Path) -> None:
    def unreadable() -> Iterator[Sentence]:
        yield from made(2)
        raise FileNotFoundError(2, "No such file or directory", "part-3.txt")

    with pytest.raises(DataError, match=r"cannot read sentence 3: .*No such file or directory: 'part-3.txt'"):
        store_sentences(unreadable(), LABELS)
    assert entries(folder) == ["sentences"]


NO_SENTENCES = {
    "a string": ("met Otto", "sentences must be in an order; found a str: 'met Otto'; give a list or a generator"),
    "a mapping": ({}, "found a dict"),
    "a set": (set(), "found a set"),
    "a number": (3, "found an int: 3"),
    "nothing": (None, "found a NoneType"),
    "an array of no dimension": (np.array("en"), "found a ndarray"),
    "words": ([["met"]], r"sentence 1 must be a pemeta.Sentence; found \['met'\]"),
    "a table": (pd.DataFrame({"a": [1]}), "sentence 1 must be a pemeta.Sentence; found 'a'"),
    "an unknown tag": (
        [*made(3), Sentence(("Ada",), ("B-DATE",))],
        "sentence 4: unknown tag 'B-DATE'; .*list the entity types",
    ),
    "a wrong tag": ([Sentence(("Ada",), ("I-PER",))], "sentence 1: tag 'I-PER' follows 'O'"),
}


@pytest.mark.parametrize("case", NO_SENTENCES)
def test_what_is_no_sequence_of_sentences_is_refused(case: str) -> None:
    given, message = NO_SENTENCES[case]
    with pytest.raises(DataError, match=message):
        store_sentences(given, LABELS)


def test_tags_are_no_label_set() -> None:
    with pytest.raises(ConfigError, match="expected a label set"):
        store_sentences(made(1), ["O", "B-PER"])  # type: ignore[arg-type]


# Tokens


def both(tokenizer: PreTrainedTokenizerBase, number: int = 2 * ROWS + 7, seed: int = 0) -> tuple[Encoded, Encoded]:
    """The same examples in memory and in a file."""
    given = list(made(number, seed=seed))
    return encode(given, LABELS, tokenizer), encode(store_sentences(given, LABELS), LABELS, tokenizer)


def assert_same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype
        assert torch.equal(value, other[key]), key


def test_tokens_in_a_file_are_those_in_memory(tokenizer: PreTrainedTokenizerBase) -> None:
    memory, file = both(tokenizer)
    assert (memory.on_disk, file.on_disk) == (False, True)
    assert len(file) == len(memory)
    assert all(map(torch.equal, memory.input_ids, file.input_ids))
    assert all(map(torch.equal, memory.label_ids, file.label_ids))
    assert list(file.first_tokens) == list(memory.first_tokens)
    assert (file.num_truncated, file.num_cut_words) == (memory.num_truncated, memory.num_cut_words)
    assert min(memory.num_truncated, memory.num_cut_words) > 0
    assert (file.pad_id, file.outputs, file.describe_outputs()) == (
        memory.pad_id,
        memory.outputs,
        memory.describe_outputs(),
    )
    assert file.digest() == memory.digest()
    assert file.lengths().tolist() == [memory.length(i) for i in range(len(memory))]
    assert [file.length(i) for i in range(50)] == [memory.length(i) for i in range(50)]
    labelled = [memory.has_label(i) for i in range(len(memory))]
    assert [file.has_label(i) for i in range(len(file))] == labelled
    assert False in labelled
    for size in (1, 32, 10**6):
        assert list(file.by_length(size)) == list(memory.by_length(size))


def test_batches_are_the_same_however_they_are_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    memory, file = both(tokenizer)
    for indices in ([0], [106, 3, 50, 49, 3], np.array([5, 99]), torch.tensor([7, 8]), [-1, -107], range(90)):
        assert_same(file.batch(indices), memory.batch(indices))
    for wrong in ([107], [-108]):
        with pytest.raises(DataError, match="a batch takes indices of sentences, from 0 to 106"):
            file.batch(wrong)
    batch = file.batch([0])
    batch["input_ids"].zero_()  # a copy: the file stays as it is
    assert_same(file.batch([0]), memory.batch([0]))


def test_what_is_made_of_such_examples_no_longer_has_their_digest(tokenizer: PreTrainedTokenizerBase) -> None:
    memory, file = both(tokenizer, 20)
    less = {"input_ids": memory.input_ids[:5], "label_ids": memory.label_ids[:5]}
    for name in (["input_ids"], ["label_ids"], ["input_ids", "label_ids"]):
        swapped = {key: less[key] for key in name}
        fewer = {key: getattr(memory, key)[:5] for key in ("input_ids", "label_ids") if key not in name}
        if not fewer:
            assert dataclasses.replace(file, **swapped).digest() == dataclasses.replace(memory, **swapped).digest()
    other = both(tokenizer, 20, seed=1)
    mixed = [
        dataclasses.replace(one, label_ids=one_other.input_ids)
        for one, one_other in zip((memory, file), other, strict=True)
    ]
    assert mixed[0].digest() == mixed[1].digest() != file.digest()


def test_examples_can_be_pickled(tokenizer: PreTrainedTokenizerBase) -> None:
    _, file = both(tokenizer, 30)
    again = pickle.loads(pickle.dumps(file))
    assert_same(again.batch(range(30)), file.batch(range(30)))
    assert again.digest() == file.digest()
    assert list(again.sentences) == list(file.sentences)
    assert len(pickle.dumps(both(tokenizer, 300)[1])) < 5000
    pickled = pickle.dumps(file)
    shutil.rmtree(cache.cache_folder())
    assert_same(file.batch(range(30)), again.batch(range(30)))  # what is mapped stays
    with pytest.raises(DataError, match=r"cannot read .*No such file or directory; it was removed or changed: make it"):
        pickle.loads(pickled)


def test_words_with_tabs_and_line_ends_have_tokens_of_their_own(tokenizer: PreTrainedTokenizerBase) -> None:
    alike = [Sentence(("met\tO\nRome",), ("B-LOC",))], [Sentence(("met", "Rome"), ("O", "B-LOC"))]
    assert digest(alike[0]) == digest(alike[1])
    for given in alike:
        file = encode(store_sentences(given, LABELS), LABELS, tokenizer)
        assert_same(file.batch([0]), encode(given, LABELS, tokenizer).batch([0]))


def test_tokens_of_a_part_and_of_other_labels_and_lengths(tokenizer: PreTrainedTokenizerBase) -> None:
    given = list(made(60))
    stored = store_sentences(given, LABELS)
    more = LabelSet((*LABELS.types, "DATE"))
    turned = LabelSet(LABELS.types[::-1])
    for sentences, labels, length in ((stored[:20], LABELS, None), (stored, more, 8), (stored, turned, 8)):
        file = encode(sentences, labels, tokenizer, length)
        memory = encode(given[: len(sentences)], labels, tokenizer, length)
        assert_same(file.batch(range(len(file))), memory.batch(range(len(memory))))
        assert file.digest() == memory.digest()
    with pytest.raises(DataError, match=r"sentence \d+ of 60: unknown tag '[BI]-(ORG|LOC)'"):
        encode(stored, LabelSet(("PER",)), tokenizer)


# Training


@pytest.fixture
def model(tiny_bert_dir: Path) -> Any:
    """Makes the same model each time."""
    return lambda: PEModel.from_pretrained(tiny_bert_dir, "adapter", seed=0)


def tasks(tokenizer: PreTrainedTokenizerBase) -> list[list[Task]]:
    pairs = [both(tokenizer, 110 + seed, seed) for seed in (3, 4)]
    return [[Task.token_classification(f"t{i}", pair[where]) for i, pair in enumerate(pairs)] for where in (0, 1)]


def equal_models(one: PEModel, other: PEModel) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


def test_episodes_and_priming_are_the_same(tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    memory, file = tasks(tokenizer)
    samplers = [EpisodeSampler(where, 4, 5, seed=1) for where in (memory, file)]
    for step in range(20):
        for one, other in zip(*(sampler[step] for sampler in samplers), strict=True):
            assert (one.support_indices, one.query_indices) == (other.support_indices, other.query_indices)
            assert_same(one.support, other.support)
            assert_same(one.query, other.query)
    models = [model(), model()]
    algorithm = MetaPriming(outer_steps=3, inner_steps=2, support_size=4, query_size=4)
    histories = [prime(m, where, algorithm, progress=False) for m, where in zip(models, (memory, file), strict=True)]
    assert [loss.outer for loss in histories[0].losses] == [loss.outer for loss in histories[1].losses]
    assert equal_models(*models)


@pytest.mark.parametrize("options", [{}, {"reuse_trunk": False}, {"bucket_by_length": True, "dropout": True}])
def test_fine_tuning_and_evaluation_are_the_same(
    tokenizer: PreTrainedTokenizerBase, model: Any, options: dict[str, Any]
) -> None:
    settings = FineTuning(epochs=2, batch_size=16, **options)
    trained, validation = both(tokenizer, 105, 5), both(tokenizer, 40, 6)
    models, histories, scores, predicted = [], [], [], []
    for where in (0, 1):
        models.append(model())
        task = Task.token_classification("t", trained[where])
        histories.append(finetune(models[-1], task, validation[where], settings, progress=False))
        scores.append(evaluate(models[-1], trained[where], "t"))
        predicted.append(predict(models[-1], trained[where], "t"))
    assert histories[0].losses == histories[1].losses
    assert histories[0].validation_scores == histories[1].validation_scores
    assert scores[0] == scores[1]
    assert predicted[0] == predicted[1]
    assert equal_models(*models)


def test_a_checkpoint_made_from_memory_goes_on_from_a_file(
    tokenizer: PreTrainedTokenizerBase, model: Any, tmp_path: Path
) -> None:
    """The digest that tells whether a run is the same is the same."""
    memory, file = tasks(tokenizer)
    brief = MetaPriming(outer_steps=4, inner_steps=1, support_size=2, query_size=2)
    whole, resumed = model(), model()
    prime(whole, memory, brief, progress=False)

    class StoppedError(Exception):
        pass

    from pemeta.training.callbacks import Callback

    class Stop(Callback):
        def on_step(self, state: Any) -> None:
            if state.step == 2:
                raise StoppedError

    options = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 1, "progress": False}
    with pytest.raises(StoppedError):
        prime(model(), memory, brief, callbacks=[Stop()], **options)
    prime(resumed, file, brief, **options)
    assert equal_models(whole, resumed)


# The cache


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sentences that are tokenised, by call."""
    calls: list[int] = []
    original = encoding_module.tokenize_words
    monkeypatch.setattr(
        encoding_module, "tokenize_words", lambda words, *rest: calls.append(len(words)) or original(words, *rest)
    )
    return calls


def test_tokens_are_made_once_for_each_tokenizer_length_and_labels(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    calls = counted(monkeypatch)
    given = list(made(70))
    first = encode(store_sentences(given, LABELS), LABELS, tokenizer)
    assert calls == [ROWS, 20]
    again = encode(store_sentences(iter(given), LABELS), LABELS, tokenizer, 32)  # the same length, named
    assert calls == [ROWS, 20]
    assert again.digest() == first.digest()
    assert len(entries(folder)) == 2 + 2 * 3
    encode(again.sentences, LABELS, tokenizer, 9)
    encode(again.sentences, LabelSet(LABELS.types[::-1]), tokenizer)
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed.add_tokens(["Anna"])
    encode(again.sentences, LABELS, changed)
    left = pickle.loads(pickle.dumps(tokenizer))
    left.truncation_side = "left"
    assert encode(again.sentences, LABELS, left).digest() == encode(given, LABELS, left).digest() != first.digest()
    assert len(calls) == 11  # two for each, and one in memory


def test_another_version_of_the_code_or_a_package_makes_its_own_files(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_sentences(made(10), LABELS)
    encode(stored, LABELS, tokenizer)
    calls = counted(monkeypatch)
    monkeypatch.setattr("pemeta.data.stored_tokens.code_and_packages", lambda _: ["another"])
    encode(stored, LABELS, tokenizer)
    assert calls == [10]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


DAMAGE = {
    "a flipped bit": lambda entry: flip(entry / cache.DATA),
    "a shorter file": lambda entry: os.truncate(entry / cache.DATA, 100),
    "an empty file": lambda entry: (entry / cache.DATA).write_bytes(b""),
    "no file": lambda entry: (entry / cache.DATA).unlink(),
    "notes that are no JSON": lambda entry: (entry / cache.ABOUT).write_text("{"),
    "notes of something else": lambda entry: (entry / cache.ABOUT).write_text("[]"),
    "another number in the notes": lambda entry: change(entry / cache.ABOUT, '"sentences": 120', '"sentences": 121'),
    "no notes": lambda entry: (entry / cache.ABOUT).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_noticed_and_made_again(
    damage: str, tokenizer: PreTrainedTokenizerBase, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = list(made(120))
    before = encode(store_sentences(given, LABELS), LABELS, tokenizer).digest()
    whole = entries(folder)
    for kind in ("tokens", "sentences"):
        (entry,) = (path for path in (folder / kind).iterdir() if path.is_dir())
        DAMAGE[damage](entry)
    again = encode(store_sentences(given, LABELS), LABELS, tokenizer)
    assert again.digest() == before
    assert list(again.sentences) == given
    assert_same(again.batch(range(120)), encode(given, LABELS, tokenizer).batch(range(120)))
    assert entries(folder) == whole
    assert ("is not what was written there" in capsys.readouterr().err) == (damage != "no notes")


def test_a_cache_that_cannot_be_written_is_refused_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "file").touch()
    stored = store_sentences(made(3), LABELS)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    for write in (lambda: store_sentences(made(3), LABELS), lambda: encode(stored, LABELS, tokenizer)):
        with pytest.raises(OutputError, match=r"cannot write .*file.*; set PEMETA_CACHE to another folder, or free up"):
            write()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "elsewhere"))  # the remedy
    assert len(encode(store_sentences(made(3), LABELS), LABELS, tokenizer)) == 3


def test_what_killed_processes_have_left_is_removed_when_anything_is_written(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encode(store_sentences(made(3), LABELS), LABELS, tokenizer)
    whole = entries(folder)
    for kind in ("sentences", "tokens"):
        for number in (0, 4):
            left = folder / kind / f".incoming-{number}"
            left.mkdir()
            (left / cache.DATA).write_text("half")
            left.with_name(f"{left.name}.lock").touch()
    encode(store_sentences(made(4), LABELS), LABELS, tokenizer)
    assert len(entries(folder)) == len(whole) + 2 * 3
    assert not list(folder.rglob(".incoming-[0-9]"))


@pytest.mark.parametrize("given", ["~/cache", "$HOME/cache", "cache"])
def test_the_folder_of_the_cache_is_found_as_those_of_hugging_face_are(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cache.cache_folder() == tmp_path / "cache"


def test_without_the_variable_the_cache_is_that_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setattr(cache, "HF_HOME", "/somewhere/huggingface")
    assert cache.cache_folder() == Path("/somewhere/huggingface/pemeta")


def test_a_tokenizer_that_cannot_be_told_from_others_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers import NormalizedString, PreTokenizedString, pre_tokenizers

    class Own:
        def pre_tokenize(self, text: PreTokenizedString) -> None:
            text.split(lambda _, part: self.split(part))

        def split(self, part: NormalizedString) -> list[NormalizedString]:
            return list(part.split(" ", "removed"))

    own = pickle.loads(pickle.dumps(tokenizer))
    own.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Own())
    stored = store_sentences(made(5), LABELS)
    with pytest.raises(ModelError, match=r"cannot be saved .*encode\(list\(sentences\), \.\.\.\)"):
        encode(stored, LABELS, own)
    assert len(encode(list(stored), LABELS, own)) == 5  # the remedy


def test_several_at_once_make_one_file(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    given = list(made(60))
    stored = store_sentences(given, LABELS)
    calls = counted(monkeypatch)
    barrier, found = threading.Barrier(3), []

    def work() -> None:
        barrier.wait()
        own = store_sentences(iter(given), LABELS)
        found.append((digest(own), encode(stored, LABELS, tokenizer).digest()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert calls == [ROWS, 10]
    assert len(entries(folder)) == 2 + 2 * 3


# Sources


def test_the_synthetic_world_streams_the_sentences_of_its_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"name": "synthetic", "train": 60, "validation": 10, "test": 20}
    world, source = SyntheticWorld(train=60, validation=10, test=20), DataSource.parse(config)
    for language in ("aru", "eki"):
        streams, corpus = source.streams(language), world.corpus(language)
        assert all(tuple(streams[split].stored()) == corpus.split(split) for split in SPLITS)
        assert list(streams["train"].stored(7)) == list(corpus.train[:7])
    written = entries(folder)
    monkeypatch.setattr(SyntheticWorld, "_say", lambda *_: pytest.fail("it is made again"))
    assert len(DataSource.parse(config).streams("aru")["train"].stored()) == 60
    assert entries(folder) == written
    with pytest.raises(ConfigError, match="unknown language 'hin'"):
        source.streams("hin")
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        world.sentences("aru", "dev")  # type: ignore[arg-type]


def test_a_source_whose_files_change_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    reads = []

    def read() -> Iterator[Sentence]:
        reads.append(1)
        return (Sentence((word,), ("O",)) for word in path.read_text().split())

    def stored() -> list[str]:
        stream = Stream(LABELS, read, lambda: file_digest(path))
        return [sentence.words[0] for sentence in stream.stored()]

    path.write_text("one two")
    about = path.stat()
    assert (stored(), stored(), len(reads)) == (["one", "two"], ["one", "two"], 1)
    path.write_text("one six")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # neither its size nor its time tells
    assert (stored(), len(reads)) == (["one", "six"], 2)
    path.write_text("one two")
    assert (stored(), len(reads)) == (["one", "two"], 2)
    with pytest.raises(DataError, match=r"cannot read .*none.txt: No such file or directory; check the path"):
        file_digest(tmp_path / "none.txt")


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("one two")

    def read() -> Iterator[Sentence]:
        yield Sentence(("one",), ("O",))
        path.write_text("one two three")

    with pytest.raises(DataError, match="the data changed while it was read; run again when it is complete"):
        Stream(LABELS, read, lambda: file_digest(path)).stored()
    assert entries(folder) == ["sentences"]


def test_a_source_without_a_fingerprint_is_read_each_time(conll_dir: Path, own_conll_dir: Path) -> None:
    expected = read_conll_corpus(conll_dir, "aa", LABELS)
    stream = Stream(LABELS, lambda: read_conll_corpus(own_conll_dir, "aa", LABELS).train)
    assert tuple(stream.stored()) == tuple(expected.train)
    path = own_conll_dir / "aa" / "train.conll"
    path.write_text(path.read_text(encoding="utf-8") + "Rome\tB-LOC\n\n", encoding="utf-8")
    assert tuple(stream.stored()) == (*expected.train, Sentence(("Rome",), ("B-LOC",)))


FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "usual": ({}, "-DOCSTART-\tO\n\nAda\tB-PER\nslept\tO\n\n# x = 1\nRome\tB-LOC\nNew\tI-LOC\n"),
    "columns": (
        {"columns": {"word": 1, "tag": -1}, "scheme": "detect", "types": {"PERS": "PER", "DATE": None}},
        "Ada NN I-PERS\nslept VB O\n\nOtto NN I-PERS\nAnna NN B-PERS\n\n2023 CD I-DATE\n",
    ),
    "conllu": (
        {"format": "conllu", "scheme": "IOBES"},
        "# newdoc\n1-2\tZum\t_\t_\t_\t_\t_\t_\t_\t_\n"
        + "".join(f"{i}\t{w}\t_\t_\t_\t_\t_\t_\t_\tname={t}\n" for i, w, t in ((1, "zu", "O"), (2, "Ada", "S-PER")))
        + "\n# newdoc\n1\tRom\t_\t_\t_\t_\t_\t_\t_\tname=S-LOC\n",
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_token_files_stream_the_sentences_of_their_corpus(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, text = FORMATS[name]
    (tmp_path / "files" / "aa").mkdir(parents=True)
    for split in SPLITS:
        (tmp_path / "files" / "aa" / f"{split}.conll").write_text(f"{text}\n" * (2 + len(split)), encoding="utf-8")
    source = DataSource.parse({"name": "conll", "path": str(tmp_path / "files"), **keys})
    corpus, streams = source.corpus("aa"), source.streams("aa")
    for split in SPLITS:
        stored = streams[split].stored()
        assert list(stored) == list(corpus.split(split))
        assert [one.document for one in stored] == [one.document for one in corpus.split(split)]
        assert list(streams[split].stored(3)) == list(corpus.split(split)[:3])
    assert stored_corpus("aa", streams, {}) == dataclasses.replace(corpus, **{s: streams[s].stored() for s in SPLITS})
    assert stored_corpus("aa", streams, {}).notes == corpus.notes
    assert bool(corpus.notes) == (name == "columns")
    assert source.sizes("aa") == {split: len(corpus.split(split)) for split in SPLITS}
    monkeypatch.setattr(stored_module, "_write", lambda *_: pytest.fail("it is stored again"))
    again = DataSource.parse({"name": "conll", "path": str(tmp_path / "files"), **keys}).streams("aa")
    assert list(again["test"].stored()) == list(corpus.test)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "Ada\tB-PER\n\nOtto B-PER\n"),
        ({}, "Ada\tB-PER\nOtto\tI-LOC\n"),
        ({}, "\n"),
        ({}, None),
        ({"columns": {"word": 1, "tag": 3}}, "Ada NN B-PER\nslept\n"),
        ({"columns": {"word": 1, "tag": 3}}, "Ada NN B-PER\n\nslept NN I-PER\n"),
        ({"columns": {"word": 1, "tag": 2}, "scheme": "detect"}, "Ada B-PER\nOtto E-PER\nmet L-LOC\n"),
        ({"splits": {split: f"{{task}}.{split}" for split in SPLITS}}, None),
    ],
)
def test_what_is_wrong_with_a_token_file_is_said_as_ever(
    keys: dict[str, Any], text: str | None, tmp_path: Path
) -> None:
    (tmp_path / "aa").mkdir()
    for split in SPLITS:
        if text is not None:
            (tmp_path / "aa" / f"{split}.conll").write_text(text, encoding="utf-8")
    source = DataSource.parse({"name": "conll", "path": str(tmp_path), **keys})
    with pytest.raises(DataError) as expected:
        source.corpus("aa")
    with pytest.raises(DataError) as found:
        stored_corpus("aa", source.streams("aa"), {})
    assert str(found.value) == str(expected.value)


def write_tables(folder: Path) -> None:
    """Sentences of two tasks and three splits in JSON lines, Parquet files and token files; names like en1 differ."""
    rows = [
        {
            "tokens": [f"{task}{n}", "Ada", "met"],
            "tags": ["O", "B-PERS", "B-LOC" if n % 2 else "I-PERS"],
            "task": task,
            "text": n // 5,
        }
        for n in range(30)
        for task in ("en", "de")
    ]
    folder.mkdir()
    table = pd.DataFrame(rows)
    for split, part in (("train", table), ("dev", table[:14]), ("test", table[10:40])):
        part.to_json(folder / f"{split}.jsonl", orient="records", lines=True)
    (folder / "hub").mkdir()
    names = {"O": 0, "B-PERS": 1, "I-PERS": 2, "B-LOC": 3}
    table["tags"] = [[names[tag] for tag in tags] for tags in table["tags"]]
    table.to_parquet(folder / "hub" / "train.parquet")
    lines = ("".join(f"{w} {t[2:] or t}\n" for w, t in zip(row["tokens"], row["tags"], strict=True)) for row in rows)
    (folder / "train.txt").write_text("\n".join(lines))


TYPES = {"PERS": "PER", "LOC": None}
SOURCES: dict[str, dict[str, Any]] = {
    "table": {"name": "table", "types": {"en": TYPES, "de": ["LOC", "PERS"]}, "columns": {"document": "text"}},
    "table, detected": {"name": "table", "scheme": "detect", "types": ["LOC", "PERS"]},
    "table, held out": {"name": "table", "splits": {"train": "train.jsonl", "test": "test.jsonl"}, "types": TYPES},
    "hub": {"name": "hub", "names": ["O", "B-PERS", "I-PERS", "B-LOC"], "validation": 0.2, "split_seed": 3},
    "conll": {"name": "conll", "splits": {"train": "train.txt"}, "scheme": "types", "types": TYPES, "separator": " "},
    "conll, train again": {"name": "conll", "splits": {"train": "train.txt"}, "scheme": "types", "types": TYPES}
    | {"validation": "train", "encoding": "latin-1"},
    "conll, detected": {"name": "conll", "splits": {"train": "train.txt"}, "scheme": "detect", "types": TYPES},
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_streams_the_sentences_of_its_corpus(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub_cache")
    write_tables(tmp_path / "data")
    where = {"repository": str(tmp_path / "data" / "hub")} if name == "hub" else {"path": str(tmp_path / "data")}
    keys = {} if name.startswith("conll") else {"task_column": "task"}
    source = DataSource.parse({**where, **keys, **SOURCES[name]})
    for task in ("en", "de"):
        corpus, streams = source.corpus(task), source.streams(task)
        stored = stored_corpus(task, streams, {})
        for split in SPLITS:
            assert list(stored.split(split)) == list(corpus.split(split))
            assert [one.document for one in stored.split(split)] == [one.document for one in corpus.split(split)]
            assert list(streams[split].stored(2)) == list(corpus.split(split)[:2])
        assert (stored.labels, stored.notes) == (corpus.labels, corpus.notes)
        assert source.sizes(task) == {split: len(corpus.split(split)) for split in SPLITS} or name == "hub"
    with monkeypatch.context() as patched:
        patched.setattr(stored_module, "_write", lambda *_: pytest.fail("it is stored again"))
        assert list(source.streams("de")["test"].stored()) == list(corpus.test)
    for changed in (tmp_path / "data").glob("t*.*"):
        changed.write_text(changed.read_text().replace("met", "saw"))
    assert list(source.streams("de")["test"].stored()) == list(source.corpus("de").test)


def test_rows_of_a_table_are_read_one_by_one(tmp_path: Path) -> None:
    write_tables(tmp_path / "data")
    for split in ("train", "test"):
        with (tmp_path / "data" / f"{split}.jsonl").open("a") as file:
            file.write('{"tokens": ["Ada"], "tags": ["B-DATE"]}\n')
    source = DataSource.parse({"name": "table", "path": str(tmp_path / "data"), "types": ["PERS", "LOC"]})
    with pytest.raises(DataError) as expected:
        source.corpus("en")
    streams = source.streams("en")
    assert len(streams["train"].stored(30)) == 30  # what is wrong comes later
    assert len(streams["validation"].stored()) == 14
    with pytest.raises(DataError) as found:
        streams["train"].stored()
    assert str(found.value) == str(expected.value)


def test_rows_of_single_words_are_no_sentences_however_few_are_wanted(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_text("tokens,tags\n" + "Ada,B-PER\n" * 9)
    source = DataSource.parse({"name": "table", "path": str(tmp_path)})
    with pytest.raises(DataError, match="each row seems to hold one word"):
        source.streams("en")["train"].stored(5)


# Grids


def records(folder: Path) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds", "priming_seconds"}) for record in read_records(folder)]


def test_a_grid_has_the_same_records_either_way(
    pemeta: Any, run_config: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    assert pemeta("run", run_config).code == 0
    assert not folder.exists()
    streamed = {**run_config, "streaming": True, "output": str(tmp_path / "streamed")}
    assert pemeta("run", streamed).code == 0
    assert records(tmp_path / "streamed") == records(tmp_path / "out")
    assert len(records(tmp_path / "out")) == 2
    # Of the three languages all splits of the target, and what sources and target train on; digests are the same, too.
    outcome = pemeta("run", {**run_config, "streaming": True})
    assert "2 of 2 runs are done already" in outcome.out


# Memory


def peak(number: int, tokenizer: PreTrainedTokenizerBase, keep: bool) -> int:
    """The most bytes of Python's objects and NumPy's arrays while sentences are made, encoded and drawn from."""
    tracemalloc.start()
    try:
        sentences: Any = (Sentence((f"met{i}", "Anna"), ("O", "B-PER")) for i in range(number))
        sentences = list(sentences) if keep else store_sentences(sentences, LABELS)
        encoded = encode(sentences, LABELS, tokenizer)
        sampler = EpisodeSampler([Task.token_classification("t", encoded)], 8, 8)
        for step in range(5):
            assert len(sampler[step][0].support["input_ids"]) == 8
        for indices in encoded.by_length(500):
            encoded.batch(indices)
        encoded.digest()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_sentences(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "ROWS", 100)
    peak(100, tokenizer, False)  # what is imported and cached
    file, memory = ([peak(size, tokenizer, keep) for size in (300, 900)] for keep in (False, True))
    more = [most - least for least, most in (file, memory)]
    assert more[0] / 600 < 150  # numbers, and objects for each batch of a file, which has ten times as many otherwise
    assert more[1] > 6 * more[0]


# Rows


def test_rows_of_a_file_are_those_that_were_written(tmp_path: Path) -> None:
    rows = [([i] * (i % 4), [str(i)] * (i % 3)) for i in range(2 * ROWS + 1)]
    chunks = ({"a": [a for a, _ in part], "b": [b for _, b in part]} for part in chunked(rows))
    assert write_rows(tmp_path / "f.arrow", {"a": "int32", "b": "string"}, chunks) == len(rows)
    file = ArrowFile(tmp_path / "f.arrow", {})
    assert len(file) == len(rows)
    assert list(file.rows("a", "b")) == rows
    for i in (0, 1, 2, 3, ROWS - 1, ROWS, 2 * ROWS):
        assert (file.numbers("a", i).tolist(), file.texts("b", i)) == rows[i]
    assert file.lengths("a").tolist() == [len(a) for a, _ in rows]
    assert file.lengths("b").tolist() == [len(b) for _, b in rows]
