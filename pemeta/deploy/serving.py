"""Serving many fine-tuned tasks with one primed backbone in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.tokenizers import check_tokenizer, load_tokenizer, tokenizer_digest
from pemeta.deploy.predictions import Classified, Tagged, tagged
from pemeta.errors import ConfigError, DataError, ModelError, reason, unknown_name
from pemeta.heads import HeadSpec, SequenceClassification, TokenClassification
from pemeta.model.manifest import TASKS, read_manifest, resolve_base
from pemeta.model.model_files import theta_p_digest
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import TASK_MANIFEST, StoredTask, apply_task, read_task, read_task_manifest
from pemeta.typing import Batch, State
from pemeta.utils.devices import resolve_device


class Server:
    """One primed backbone, and any number of tasks between which it switches in memory.

    A task consists of its θ_a and its head. Switching copies θ_a into place; the backbone is loaded once. Threads may
    share a server, which makes one prediction at a time.

    Args:
        model: the primed model, which the server takes over and puts in evaluation mode.
        tokenizer: its tokenizer, which must be a fast one.

    Raises:
        ModelError: the tokenizer is not a fast one, or not the one that the model's data was encoded with.

    >>> server = Server.load("runs/demo/models/adapter-seed0")  # doctest: +SKIP
    >>> server.predict("nl", ["Anna woont in Utrecht"])[0].entities[1].text  # doctest: +SKIP
    'Utrecht'
    """

    def __init__(self, model: PEModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__} does not align tokens with words; use a fast tokenizer")
        digest = tokenizer_digest(tokenizer)
        check_tokenizer("this model", model.tokenizer_digest, digest)
        model.tokenizer_digest = digest  # tasks' digests are compared with it
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._digest = theta_p_digest(model)
        self._tasks: dict[str, StoredTask] = {}
        self._active: str | None = None
        self._lock = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        tasks: Sequence[str | Path] | None = None,
        device: str = "auto",
        attention: str | None = None,
        trust_remote_code: bool = False,
    ) -> Server:
        """Create a server for a saved model.

        Args:
            path: a folder written by ``save_pretrained`` or ``pemeta run``, or a name on the hub.
            tasks: names in the folder's ``tasks/``, or folders of tasks; by default all in ``tasks/``.
            device: ``auto``, ``cpu``, ``cuda`` ...
            attention: ``eager`` or ``sdpa``; by default transformers chooses.
            trust_remote_code: run Python code that comes with a model whose architecture is not part of transformers.

        Raises:
            ModelError: this is not a saved model, it has no tokenizer, or a task is unknown or does not fit.
        """
        path = _local(path)
        manifest = read_manifest(path)
        folders = list(task_folders(path).values()) if tasks is None else [find_task(path, task) for task in tasks]
        tokenizer = load_tokenizer(resolve_base(path, manifest), trust_remote_code)
        model = PEModel.from_pretrained(path, attention=attention, trust_remote_code=trust_remote_code)
        server = cls(model.to(resolve_device(device)), tokenizer)
        for folder in folders:
            server.add_task(folder)
        return server

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self._tasks)

    def add_task(self, folder: str | Path, name: str | None = None) -> str:
        """Add a task from its folder, replacing one of the same name and head, and return its name.

        Raises:
            ModelError: the folder is incomplete, belongs to another method, θ_p or head, or cannot be served.
        """
        stored = read_task(self.model, Path(folder), self._digest)
        spec = stored.manifest.head
        if not isinstance(spec, TokenClassification | SequenceClassification):
            raise ModelError(
                f"task {stored.manifest.task!r} has the head {spec.name!r}, which does not label texts; only "
                "token_classification and sequence_classification are served"
            )
        name = name or stored.manifest.task
        with self._lock:
            self._active = None  # in case an interrupt comes in between
            apply_task(self.model, stored, name)
            self._tasks[name] = StoredTask(stored.manifest, self._theta_a(), {})
            self._active = name
        return name

    def _theta_a(self) -> State:
        """Copies of θ_a, on the model's device."""
        return {name: self.model.get_parameter(name).detach().clone() for name in self.model.partition().theta_a}

    @contextmanager
    def using(self, task: str) -> Iterator[PEModel]:
        """Lock the model and give it the task's θ_a for the duration of the block.

        Raises:
            ModelError: there is no such task.
        """
        with self._lock:
            if task not in self._tasks:
                raise ModelError(f"{unknown_name('task', task, self._tasks)}; add it with add_task")
            if self._active != task:
                self._active = None
                self.model.load_state(self._tasks[task].theta_a)
                self._active = task
            yield self.model

    @torch.no_grad()
    def predict(self, task: str, texts: Sequence[str], batch_size: int = 32) -> list[Tagged] | list[Classified]:
        """Predictions of a task for each text, in their order.

        Token classification labels words, which are separated by whitespace: put spaces around punctuation wherever
        the training data had them. Texts longer than the task's ``max_length`` are cut.

        Args:
            task: name of the task.
            texts: a list of texts, not a single string.
            batch_size: number of texts in a batch, which are of similar length.

        Raises:
            ModelError: there is no such task.
            DataError: ``texts`` is not a list of strings, or a text to be classified is empty.
            ConfigError: ``batch_size`` is not positive.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise DataError("texts must be a list of strings; put a single one in brackets")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be positive; found {batch_size}")
        with self.using(task) as model:
            stored = self._tasks[task].manifest
            if isinstance(stored.head, TokenClassification):
                words = [tuple(text.split()) for text in texts]
                encoded = self._encode([list(one) for one in words if one], stored.max_length, split=True)
                probabilities = iter(self._probabilities(model, task, encoded["input_ids"], batch_size))
                encodings = iter(range(len(encoded["input_ids"])))
                return [
                    tagged(one, next(probabilities), encoded.word_ids(next(encodings)), stored.head)
                    if one
                    else Tagged((), (), ())
                    for one in words
                ]
            return self._classified(model, task, list(texts), stored.head, stored.max_length, batch_size)

    def _classified(
        self, model: PEModel, task: str, texts: list[str], spec: HeadSpec, max_length: int | None, batch_size: int
    ) -> list[Classified]:
        assert isinstance(spec, SequenceClassification)  # add_task checks it
        empty = [i for i, text in enumerate(texts) if not text.strip()]
        if empty:
            raise DataError(f"text {empty[0] + 1} of {len(texts)} is empty; remove it")
        encoded = self._encode(texts, max_length, split=False)
        unknown = [i for i, ids in enumerate(encoded["input_ids"]) if not ids]
        if unknown:
            raise DataError(f"text {unknown[0] + 1} of {len(texts)} has no token in this vocabulary; remove it")
        rows = self._probabilities(model, task, encoded["input_ids"], batch_size)
        best = [(int(row.argmax()), float(row.max())) for row in rows]
        return [Classified(text, spec.labels[i], score) for text, (i, score) in zip(texts, best, strict=True)]

    def _encode(self, texts: list[Any], max_length: int | None, split: bool) -> Any:
        """Tokenize texts, and cut them like :func:`pemeta.encode`."""
        limit = min(max_length or 128, self.tokenizer.model_max_length)
        if not texts:
            return {"input_ids": []}
        return self.tokenizer(texts, is_split_into_words=split, truncation=True, max_length=limit)

    def _probabilities(self, model: PEModel, task: str, ids: Sequence[list[int]], batch_size: int) -> list[Tensor]:
        """Label probabilities, on the CPU: (T, C) or (C) for each text."""
        found: list[Tensor] = [torch.empty(0)] * len(ids)  # empty for a text without a token in this vocabulary
        order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            logits = model(self._batch([torch.tensor(ids[i]) for i in chosen]), task)
            for i, row in zip(chosen, logits.float().softmax(-1).cpu(), strict=True):
                found[i] = row
        return found

    def _batch(self, ids: list[Tensor]) -> Batch:
        pad = self.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        }
        return {key: value.to(self.model.device) for key, value in batch.items()}


def task_folders(path: str | Path) -> dict[str, Path]:
    """Mapping from the names of tasks to their folders in a model's ``tasks/``."""
    folders = sorted(file.parent for file in (Path(path) / TASKS).glob(f"*/{TASK_MANIFEST}"))
    return {read_task_manifest(folder).task: folder for folder in folders}


def find_task(path: str | Path, task: str | Path) -> Path:
    """The folder of a task, given by its name in a model's ``tasks/`` or as any folder.

    Raises:
        ModelError: there is no such task or folder.
    """
    known = task_folders(path)
    if str(task) in known:
        return known[str(task)]
    if (Path(task) / TASK_MANIFEST).is_file():
        return Path(task)
    raise ModelError(f"{unknown_name('task', str(task), known)}; give one of {Path(path) / TASKS}, or a task's folder")


def only_task(path: str | Path) -> str:
    """The name of a model's only task.

    Raises:
        ModelError: it has no task or several, or is not a saved model.
    """
    read_manifest(path)
    known = task_folders(path)
    if len(known) != 1:
        raise ModelError(
            f"{path} has {len(known)} tasks ({', '.join(sorted(known)) or 'none'}); specify the task by its name or "
            "its folder"
        )
    return next(iter(known))


def _local(path: str | Path) -> Path:
    """A model's folder, which is the one in the hub's cache for a name on the hub."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path)))
    except Exception as error:  # the hub's client raises nearly anything here
        raise ModelError(
            f"cannot load a model from {str(path)!r}: there is no such folder, and {reason(error)}"
        ) from None
