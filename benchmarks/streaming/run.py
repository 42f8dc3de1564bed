"""The memory that priming, fine-tuning and evaluation take on data that is streamed, by default two million sentences.

    python benchmarks/streaming/run.py [--sentences N] [--cache FOLDER]

The sentences are those of one language of the synthetic world. They are made, stored, encoded, primed on, fine-tuned on
and evaluated. The process's memory is read twenty times a second, in two parts, since both count as resident: what only
this process can free, and pages of files that are mapped into memory, which the system takes back when it needs them.
What it had before, with all libraries and a model that has taken a step, is subtracted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pemeta import (
    Adapter,
    FineTuning,
    MetaPriming,
    PEModel,
    SyntheticWorld,
    Task,
    TinyTransformer,
    encode,
    evaluate,
    finetune,
    pretrain,
    prime,
    store_sentences,
)
from pemeta.data.sources import SyntheticData
from pemeta.training.callbacks import Callback
from pemeta.training.callbacks.base import TrainingState

STEPS = 300
"""Of fine-tuning; a whole epoch would take no more memory."""
PARTS = {"RssAnon": "own", "RssFile": "mapped"}


def memory() -> dict[str, float]:
    """The parts of the process's resident memory, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for key, name in PARTS.items()}


class Watch:
    """The largest memory in each phase, above that at the beginning."""

    def __init__(self) -> None:
        self.base = memory()
        print(f"before: own {self.base['own']:.0f} MB, mapped {self.base['mapped']:.0f} MB", flush=True)
        self.most = dict.fromkeys(self.base, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        most, done, started = dict.fromkeys(self.base, 0.0), threading.Event(), time.perf_counter()

        def look() -> None:
            while not done.wait(0.05):
                for part, size in memory().items():
                    most[part] = max(most[part], size - self.base[part])
                most["sum"] = max(most.get("sum", 0), sum(memory().values()) - sum(self.base.values()))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        self.most = {part: max(size, self.most.get(part, 0)) for part, size in most.items()}
        shown = ", ".join(f"{part} {size:.0f} MB" for part, size in most.items())
        print(f"{name}: {time.perf_counter() - started:.0f} s; above: {shown}", flush=True)


class Stop(Callback):
    """Ends fine-tuning after some steps."""

    def on_step(self, state: TrainingState) -> None:
        if state.step == STEPS:
            state.request_stop("enough is known")


def measure(sentences: int) -> None:
    torch.set_num_threads(1)
    small = SyntheticWorld(languages=("aru",), train=200, validation=100, test=300, text_sentences=500)
    shape = TinyTransformer(steps=20)
    backbone, tokenizer = pretrain(small.text("aru"), shape, progress=False)
    model = PEModel(backbone, Adapter(bottleneck=16))
    corpus = small.corpus("aru")
    parts = [encode(corpus.split(split), corpus.labels, tokenizer) for split in ("train", "validation", "test")]
    algorithm = MetaPriming(outer_steps=20, inner_steps=3)
    prime(model, [Task.token_classification("warm", parts[0])], MetaPriming(outer_steps=1), progress=False)
    finetune(model, Task.token_classification("warm", parts[0]), parts[1], FineTuning(epochs=1), progress=False)
    del parts
    watch = Watch()
    source = SyntheticData(languages=("aru",), train=sentences, validation=100, test=300)
    streams = source.streams("aru")
    with watch.phase("sentences made and stored"):
        stored = streams["train"].stored()
    with watch.phase("tokens made and stored"):
        train = encode(stored, stored.labels, tokenizer)
    with watch.phase("both opened again, and verified"):
        stored = streams["train"].stored()
        train = encode(stored, stored.labels, tokenizer)
    rest = [encode(streams[split].stored(), stored.labels, tokenizer) for split in ("validation", "test")]
    task = Task.token_classification("aru", train)
    with watch.phase("20 steps of priming"):
        prime(model, [task], algorithm, progress=False)
    settings = FineTuning(epochs=1, batch_size=32, reuse_trunk=False, bucket_by_length=True)
    with watch.phase(f"{STEPS} steps of fine-tuning"):
        finetune(model, task, rest[0], settings, progress=False, callbacks=[Stop()])
    with watch.phase("evaluation"):
        print(evaluate(model, rest[1], "aru").summary, flush=True)
    with watch.phase("sentences of a generator stored"):
        assert len(store_sentences(iter(stored), stored.labels)) == sentences
    print(f"digests {stored.kept_digest} and {train.digest()} of {len(train)} sentences")
    size = sum(path.stat().st_size for path in Path(os.environ["PEMETA_CACHE"]).rglob("*.arrow"))
    print(f"most above the model's: {', '.join(f'{part} {most:.0f} MB' for part, most in watch.most.items())}")
    print(f"files of the cache: {size / 2**20:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2_000_000)
    parser.add_argument("--cache", type=Path, help="kept; by default a folder that is removed")
    given = parser.parse_args()
    folder = given.cache or Path(tempfile.mkdtemp())
    os.environ["PEMETA_CACHE"] = str(folder)
    started = time.perf_counter()
    try:
        measure(given.sentences)
    finally:
        if given.cache is None:
            shutil.rmtree(folder)
    print(f"took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
