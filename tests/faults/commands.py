"""Wrong command lines, texts that cannot be labelled, and a failing hub, network or disk."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.errors as hub
from faults.room import Cases, Room

from pemeta.utils import files

CASES = Cases("command")

WORDS: dict[str, tuple[tuple[object, ...], str]] = {
    "an unknown command": (("rnu",), "no such command 'rnu'.*[;?] [sS]ee `pemeta --help`"),
    "an option in place of a command": (("--fast",), "no such option: --fast.*; see `pemeta --help`"),
    "a command in capitals": (("RUN", "x"), "no such command 'RUN'"),
    "an empty command": (("",), "no such command ''"),
    "run without a configuration": (("run",), "missing argument 'CONFIG'; see `pemeta run --help`"),
    "run with an unknown option": (("run", "x", "--fast"), "no such option: --fast.*; see `pemeta run --help`"),
    "run with an option of nothing": (("run", "x", "--jobs"), "option '--jobs' requires an argument"),
    "run with no jobs": (("run", "x", "--jobs", "0"), "invalid value for '--jobs'"),
    "run with a negative number of jobs": (("run", "x", "--jobs", "-3"), "invalid value for '--jobs'"),
    "run with jobs that are a word": (("run", "x", "--jobs", "many"), "invalid value for '--jobs'"),
    "run with a flag that takes no value": (("run", "x", "--dry-run=yes"), "'--dry-run' does not take a value|dry-run"),
    "a configuration that is not there": (("run", "no.yaml"), "cannot read no.yaml: No such file or directory; check"),
    "a configuration with an empty name": (("run", ""), "cannot read .*: Is a directory"),
    "an override in place of a configuration": (("run", "seeds=[1]"), "cannot read seeds=\\[1\\]: No such file"),
    "validate without a configuration": (("validate",), "missing argument 'CONFIG'; see `pemeta validate --help`"),
    "validate of what is not there": (("validate", "no.yaml"), "cannot read no.yaml: No such file or directory"),
    "report without a folder": (("report",), "missing argument 'DIR'"),
    "report of what is not there": (
        ("report", "nothing"),
        "nothing is not a folder; give the output folder of a grid",
    ),
    "report of a file": (("report", "/etc/hostname"), "/etc/hostname is not a folder"),
    "report of two folders": (("report", ".", "."), "unexpected extra argument"),
    "report of a folder without records": (("report", "."), "no records in records; run `pemeta run CONFIG`"),
    "predict without a model": (("predict",), "missing argument 'MODEL_DIR'"),
    "predict without a text": (("predict", "x"), "missing argument 'TEXT...', or --file FILE; see `pemeta predict"),
    "predict with a text and a file": (("predict", "x", "words", "--file", "y"), "give TEXT or --file, not both"),
    "predict with the name of a file": (
        ("predict", "x", "/etc/hostname"),
        "'/etc/hostname' is the name of a file; label its lines with --file",
    ),
    "predict with a file that is not there": (("predict", "x", "--file", "no.txt"), "cannot read no.txt: No such file"),
    "predict with a folder for a file": (("predict", "x", "--file", "/etc"), "cannot read /etc: Is a directory"),
    "predict with a model that is not there": (
        ("predict", "/no/where", "words"),
        "'?/no/where'? has no pemeta.json|no such",
    ),
    "data without a file": (("data",), "missing argument 'FILE'; see `pemeta data --help`"),
    "data of what is not there": (("data", "no.conll"), "cannot read no.conll: No such file or directory; check the"),
    "data of nothing": (("data", "/dev/null"), "/dev/null is empty; give a file with labelled sentences"),
    "data of a program": (("data", sys.executable), "is no text"),
    "data of an unknown scheme": (("data", "x", "--scheme", "IOB3"), "unknown scheme 'IOB3'; did you mean 'IOB2'"),
    "data of two files": (("data", "x", "y"), "unexpected extra argument"),
    "algorithms that nobody knows": (("algorithms", "mamla"), "unknown priming algorithm 'mamla'; did you mean 'maml'"),
    "algorithms that contradict themselves": (
        ("algorithms", "{name: meta, primes: [theta_h], source_heads: zero}"),
        "source_heads: zero gives each episode a new head",
    ),
    "algorithms that are no YAML": (("algorithms", "{name: meta"), "is neither an algorithm's name nor a YAML mapping"),
    "methods that nobody knows": (("methods", "adaptor"), "unknown PE method 'adaptor'; did you mean 'adapter'"),
    "methods with an unknown field": (
        ("methods", "{name: lora, ranks: 4}"),
        "ranks: unknown key 'ranks'; did you mean",
    ),
    "methods with a wrong value": (("methods", "{name: lora, rank: 0}"), "rank: input should be greater than 0"),
    "methods without a name": (("methods", "{rank: 4}"), "expected a PE method"),
    "methods that are no YAML": (("methods", "{name: lora"), "is neither a method's name nor a YAML mapping"),
    "methods with a date that is none": (
        ("methods", "{name: lora, rank: 2000-13-01}"),
        "is neither a method's name nor",
    ),
    "methods with brackets without end": (("methods", "[" * 3000), "is neither a method's name nor a YAML mapping"),
    "methods with a key twice": (("methods", "{name: lora, rank: 1, rank: 2}"), "is neither .*duplicate key"),
    "methods that are a number": (("methods", "3"), "expected a PE method"),
    "methods that are nothing": (("methods", ""), "expected a PE method"),
}
for _name, (_words, _says) in WORDS.items():
    CASES.add(_name, _says, lambda room, words=_words: words)

OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown device": (("--device", "warp"), "device 'warp' cannot be used here"),
    "an empty device": (("--device", ","), "device '' cannot be used here"),
    "one wrong device of two": (("--device", "cpu,warp"), "device 'warp' cannot be used here"),
    "a device without values": (("--device", "meta"), "device 'meta' cannot be used here"),
    "a second configuration": (
        ("second.yaml",),
        "expected key=value, such as finetuning.epochs=3; found 'second.yaml'",
    ),
    "an override with a colon": (("finetuning.epochs: 3",), "expected key=value"),
    "a device that was forgotten": (("--device",), "option '--device' requires an argument; see `pemeta run --help`"),
    "an override with dashes": (("--finetuning.epochs=3",), "no such option: --finetuning.epochs"),
}
for _name, (_words, _says) in OPTIONS.items():
    CASES.add(f"run with {_name}", _says, lambda room, words=_words: ("run", room.config, *words))

# Texts

CASES.add("predict on a device that is not there", "device 'warp' cannot be used here",
          lambda room: ("predict", room.served(), "--device", "warp", "words"))  # fmt: skip


@CASES.case("has the head 'causal_lm', which does not label texts|does not hold")
def a_task_that_labels_nothing(room: Room) -> Sequence[object]:
    path = room.served() / "tasks" / "cc" / "task.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "head": {"name": "causal_lm", "vocab_size": 160}}))
    return ("predict", room.served(), "words")


# The hub


class Answer:
    """The parts of a server's response that the hub's errors read."""

    def __init__(self, code: int) -> None:
        self.status_code = code
        self.headers: dict[str, str] = {}
        self.request = None


def hub_error(kind: Any, message: str, code: int) -> Exception:
    error: Exception = kind.__new__(kind)
    Exception.__init__(error, message)
    error.response = Answer(code)  # type: ignore[attr-defined]
    return error


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


FAILURES: dict[str, Callable[[], BaseException]] = {
    "no network": lambda: ConnectionError("Failed to establish a new connection: Name or service not known"),
    "a connection that is reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "a connection that is refused": lambda: ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    "a timeout": lambda: TimeoutError("The read operation timed out"),
    "a certificate that is not trusted": lambda: ssl.SSLError("certificate verify failed"),
    "a download that ends early": lambda: http.client.IncompleteRead(b"half", 100),
    "401": lambda: hub_error(hub.HfHubHTTPError, "401 Client Error: Unauthorized", 401),
    "403": lambda: hub_error(hub.HfHubHTTPError, "403 Client Error: Forbidden", 403),
    "404": lambda: hub_error(hub.RepositoryNotFoundError, "404 Client Error. Repository Not Found", 404),
    "a gate": lambda: hub_error(hub.GatedRepoError, "403 Client Error. Access to model some/model is restricted", 403),
    "a revision that is not there": lambda: hub_error(hub.RevisionNotFoundError, "404 Revision Not Found", 404),
    "too many requests": lambda: hub_error(hub.HfHubHTTPError, "429 Client Error: Too Many Requests", 429),
    "a server that fails": lambda: hub_error(hub.HfHubHTTPError, "500 Server Error: Internal Server Error", 500),
    "a server that is away": lambda: hub_error(hub.HfHubHTTPError, "503 Server Error: Service Unavailable", 503),
    "no cached copy": lambda: hub.LocalEntryNotFoundError("Cannot find the requested files in the cache"),
    "being offline on purpose": lambda: hub.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled"),
    "a disk that is full": lambda: of_system(errno.ENOSPC),
    "a cache that cannot be written": lambda: PermissionError(errno.EACCES, "Permission denied"),
    "an answer that is no JSON": lambda: json.JSONDecodeError("Expecting value", "<html>", 0),
}


def hub_fails(room: Room, failure: Callable[[], BaseException]) -> None:
    """Make every download fail with the given error."""

    def download(*_: object, **__: object) -> None:
        raise failure()

    room.patch.setattr("transformers.utils.hub.hf_hub_download", download)
    room.patch.setattr("transformers.utils.hub.snapshot_download", download)
    room.patch.setattr("huggingface_hub.snapshot_download", download)
    room.patch.setattr("huggingface_hub.hf_hub_download", download)


for _name, _failure in FAILURES.items():

    def _model(room: Room, failure: Callable[[], BaseException] = _failure) -> Sequence[object]:
        hub_fails(room, failure)
        return ("run", room.config, "backbone.path=some/model")

    def _served(room: Room, failure: Callable[[], BaseException] = _failure) -> Sequence[object]:
        hub_fails(room, failure)
        return ("predict", "some/model", "--task", "cc", "words")

    def _data(room: Room, failure: Callable[[], BaseException] = _failure) -> Sequence[object]:
        def load(*_: object, **__: object) -> None:
            raise failure()

        room.patch.setattr("datasets.load_dataset_builder", load)
        return ("run", room.config, "data={name: wikiann}")

    CASES.add(f"the hub's model: {_name}", "cannot load a tokenizer from 'some/model': .*; give a folder", _model)
    CASES.add(f"the hub's tasks: {_name}", "cannot load a model from 'some/model': |some/model", _served)
    CASES.add(f"the hub's data: {_name}", "the data set 'unimelb-nlp/wikiann \\(aa\\)': .*; check its name", _data)


def downloaded(room: Room, spoil: Callable[[Path], object]) -> Sequence[object]:
    """A damaged cache of the hub's downloads, without a connection to download them again."""
    spoil(room.model())
    repository = room.tmp / "cache" / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    shutil.copytree(room.model(), repository / "snapshots" / ("a" * 40))
    room.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    room.patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(room.tmp / "cache"))
    return ("run", room.config, "backbone.path=some/model")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CASES.add("weights that were downloaded in half", "cannot load a model from 'some/model': .*",
          lambda room: downloaded(room, lambda folder: half(folder / "model.safetensors")))  # fmt: skip
CASES.add("a configuration that was downloaded in half", "cannot load a tokenizer from 'some/model': ",
          lambda room: downloaded(room, lambda folder: half(folder / "config.json")))  # fmt: skip
CASES.add("a tokenizer that was downloaded in half", "cannot load a tokenizer from 'some/model': ",
          lambda room: downloaded(room, lambda folder: half(folder / "tokenizer.json")))  # fmt: skip

# Disks that fill up or fail during a run


def disk_fails(room: Room, target: object, name: str, number: int = errno.ENOSPC) -> Sequence[object]:
    config = room.write(room.written())

    def fail(*_: object, **__: object) -> None:
        raise of_system(number)

    room.patch.setattr(target, name, fail)
    return ("run", config)


for _what, _target, _attribute in (
    ("tensors", files, "save_file"),
    ("flushing", os, "fsync"),
    ("renaming", Path, "replace"),
):
    for _number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
        CASES.add(
            f"{_what}: {os.strerror(_number)}",
            f"cannot write .*: {os.strerror(_number)}; choose another folder with output=",
            lambda room, t=_target, a=_attribute, n=_number: disk_fails(room, t, a, n),
        )


@CASES.case("cannot write .*; choose another folder with output=|is a file")
def a_file_where_the_run_wants_a_folder(room: Room) -> Sequence[object]:
    (room.tmp / "out").mkdir()
    (room.tmp / "out" / "records").write_text("x")
    return ("run", room.config)


@CASES.case("cannot write |is a file|cannot read")
def a_file_where_the_primed_models_go(room: Room) -> Sequence[object]:
    (room.tmp / "out").mkdir()
    (room.tmp / "out" / "primed").write_text("x")
    return ("run", room.config)


@CASES.case("is in use by another run; wait until it ends")
def another_run_in_the_same_folder(room: Room) -> Sequence[object]:
    from filelock import FileLock

    (room.tmp / "out").mkdir()
    lock = FileLock(room.tmp / "out" / ".run.lock")
    lock.acquire()
    room.held.append(lock)
    return ("run", room.config)


# Training that goes wrong

DIVERGES = {
    "an inner learning rate beyond all": ("settings.primed.priming.inner_lr=1e30", "the inner loss .*lower inner_lr"),
    "an outer learning rate beyond all": ("priming.outer_lr=1e30", "priming, step 2: .*lower"),
    "a learning rate beyond all": ("finetuning.lr=1e30", "fine-tuning cc, epoch .*lower lr"),
    "a scale beyond all": ("settings.plain.method={name: adapter, scale: 1e38, init_std: 1e10}", "not finite|nan|inf"),
}
for _name, (_override, _says) in DIVERGES.items():
    CASES.add(_name, _says, lambda room, o=_override: ("run", room.config, o))
