"""A program that kills the making of files in the cache (SIGKILL) at chosen points, and then has them made again.

    python -m faults.killed_caches FOLDER few|all   (in the folder tests)

stores sentences and encodes them, in a child process for each of a few points, or of all, with a cache of its own,
FOLDER/POINT. The child is killed at that point, and then the same is done undisturbed in another one. Every operation
on the disk and every few sentences are a point. It prints one JSON object for each: the points of an undisturbed run,
or how the processes ended.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.killed_runs import Points
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import pemeta.data.encoding
from pemeta import LabelSet, Sentence, encode, store_sentences
from pemeta.data import arrow
from pemeta.data.stored_sentences import stored_once
from pemeta.utils import cache

LABELS = LabelSet(("PER",))
SENTENCES = 250
arrow.ROWS = 100


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "Ada": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16)


def sentences(points: Points) -> Iterator[Sentence]:
    for number in range(SENTENCES):
        if not number % 50:
            points.pass_("sentence")
        yield Sentence(("Ada", f"word{number}"), ("B-PER", "O"))


def work(points: Points) -> dict[str, Any]:
    """Store sentences of a generator and of a source, and encode both."""
    labels, found = LABELS, {}
    sources = {
        "generator": lambda: store_sentences(sentences(points), labels),
        "source": lambda: stored_once(lambda: sentences(points), labels, lambda: "the source"),
    }
    for name, store in sources.items():
        stored = store()
        encoded = encode(stored, labels, tokenizer(), 8 if name == "source" else 16)
        found[name] = [
            stored.kept_digest,
            len(stored),
            encoded.digest(),
            encoded.batch([SENTENCES - 1])["input_ids"].tolist(),
        ]
    return found


def child(folder: Path, deadly: int | None) -> tuple[int, dict[str, Any]]:
    """Work in a child process; return its exit status (negative for a signal), and what it found."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.environ[cache.VARIABLE] = str(folder)
            points = Points(deadly)
            points.watch()
            for name, kind in (("_checksum", "checksum"), ("flush", "flush"), ("flush_folder", "flush names")):
                points.before(cache, name, kind)
            points.before(pemeta.data.encoding, "_encode", "tokenise")
            found = work(points)
            os.write(writer, json.dumps({"found": found, "points": points.seen}).encode())
        except BaseException as error:
            os.write(writer, json.dumps({"error": repr(error)}).encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        received = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), json.loads(received or "{}")


def held(folder: Path) -> list[str]:
    """What a cache holds, without locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


def main() -> None:
    folder = Path(sys.argv[1])
    code, whole = child(folder / "whole", None)
    print(json.dumps({"code": code, **whole, "held": held(folder / "whole")}), flush=True)
    places = range(1, 1 + len(whole["points"]))
    if sys.argv[2] == "few":
        places = [i for i in places if whole["points"][i - 1] in ("sentence", "tokenise", "checksum")][2::5]
    for place in places:
        point = str(place)
        death = child(folder / point, place)[0]
        last, outcome = child(folder / point, None)
        print(
            json.dumps({"point": point, "death": death, "last": last, **outcome, "held": held(folder / point)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
