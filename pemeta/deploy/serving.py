"""Serving many fine-tuned tasks with one primed backbone in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.given import require_location
from pemeta.backbone.packed_passes import Padding
from pemeta.backbone.tokenizers import check_tokenizer, load_tokenizer, tokenizer_digest
from pemeta.data.words import tokenize_words
from pemeta.deploy.folders import find_task, local_folder, task_folders
from pemeta.deploy.inputs import Text, as_pairs, as_single_texts, as_words, checked_stride
from pemeta.deploy.predictions import Classified, Tagged, tagged
from pemeta.deploy.windows import windows
from pemeta.errors import DataError, ModelError, unknown_name
from pemeta.heads import SequenceClassification, TokenClassification
from pemeta.model.given import require_model
from pemeta.model.manifest import read_manifest, resolve_base
from pemeta.model.model_files import theta_p_digest
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import StoredTask, apply_task, read_task
from pemeta.typing import Batch, State
from pemeta.utils.devices import resolve_device
from pemeta.utils.signatures import checked
from pemeta.utils.values import checked_size


class Server:
    """One primed backbone, and any number of tasks between which it switches in memory.

    A task consists of its θ_a and its head. Switching copies θ_a into place; the backbone is loaded once. Threads may
    share a server, which makes one prediction at a time.

    Args:
        model: the primed model, which the server takes over and puts in evaluation mode; texts run as its ``padding``
            says.
        tokenizer: its tokenizer, which must be a fast one.

    Raises:
        ModelError: the tokenizer is not a fast one, or not the one that the model's data was encoded with.

    >>> server = Server.load("runs/demo/models/adapter-seed0")  # doctest: +SKIP
    >>> server.predict("nl", ["Anna woont in Utrecht"])[0].entities[1].text  # doctest: +SKIP
    'Utrecht'
    """

    def __init__(self, model: PEModel, tokenizer: PreTrainedTokenizerBase) -> None:
        require_model(model, "Server")
        if not getattr(tokenizer, "is_fast", False):
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
    @checked(path=None)
    def load(
        cls,
        path: str | Path,
        tasks: Sequence[str | Path] | None = None,
        device: str = "auto",
        attention: str | None = None,
        trust_remote_code: bool = False,
        padding: Padding = "auto",
    ) -> Server:
        """Create a server for a saved model.

        Args:
            path: a folder written by ``save_pretrained`` or ``pemeta run``, or a name on the hub.
            tasks: names in the folder's ``tasks/``, or folders of tasks; by default all in ``tasks/``.
            device: ``auto``, ``cpu``, ``cuda`` ...
            attention: ``eager`` or ``sdpa``; by default transformers chooses.
            trust_remote_code: run Python code that comes with a model whose architecture is not part of transformers.
            padding: how texts of different lengths run, with equal predictions up to rounding: ``auto``, our choice,
                without the work of padding where that is less work, however the model was trained; ``packed``, or
                ``padded``. It becomes :attr:`pemeta.PEModel.padding`.

        Raises:
            ModelError: this is not a saved model, it has no tokenizer, or a task is unknown or does not fit.
        """
        require_location(path, "Server.load")
        path = local_folder(path)
        manifest = read_manifest(path)
        folders = list(task_folders(path).values()) if tasks is None else [find_task(path, task) for task in tasks]
        tokenizer = load_tokenizer(resolve_base(path, manifest), trust_remote_code)
        model = PEModel.from_pretrained(path, attention=attention, trust_remote_code=trust_remote_code)
        model.padding = padding
        server = cls(model.to(resolve_device(device)), tokenizer)
        for folder in folders:
            server.add_task(folder)
        return server

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self._tasks)

    @checked()
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
            stored = self._stored(task)
            if self._active != task:
                self._active = None
                self.model.load_state(stored.theta_a)
                self._active = task
            yield self.model

    def _stored(self, task: object) -> StoredTask:
        if not isinstance(task, str) or task not in self._tasks:
            raise ModelError(f"{unknown_name('task', task, self._tasks)}; add it with add_task")
        return self._tasks[task]

    @torch.no_grad()
    def predict(
        self, task: str, texts: Iterable[Text], batch_size: int = 32, stride: int | None = None
    ) -> list[Tagged] | list[Classified]:
        """Predictions of a task for each text, in their order.

        Token classification labels words, and takes them as lists or as strings: in a string they are separated by
        whitespace (a no-break space is part of its word), so put spaces around punctuation wherever the training data
        had them. Words become tokens as in :func:`pemeta.encode`. Texts longer than the task's ``max_length`` are
        labelled in windows that overlap; each word is labelled in the window where more text is on both sides of it.

        Sequence classification labels single texts or, if it was trained on pairs, pairs ``(first, second)``; texts
        longer than ``max_length`` are cut.

        Args:
            task: name of the task.
            texts: a list of texts, not a single string.
            batch_size: number of texts in a batch, which are of similar length.
            stride: number of tokens that a window shares with the one before; by default a quarter of ``max_length``,
                our choice.

        Raises:
            ModelError: there is no such task.
            DataError: ``texts`` is not a list of what the task labels, or a text to be classified is empty.
            ConfigError: ``batch_size`` is not positive, or ``stride`` is not less than ``max_length``.
        """
        batch_size = checked_size(batch_size, "batch_size")
        with self.using(task) as model:
            stored = self._stored(task).manifest
            # As in encode and encode_texts.
            length = min(stored.max_length or 128, self.tokenizer.model_max_length)
            if isinstance(stored.head, TokenClassification):
                shared = checked_stride(stride, length)
                return self._tagged(model, task, as_words(texts), stored.head, batch_size, length, shared)
            assert isinstance(stored.head, SequenceClassification)  # add_task checks it
            given = as_pairs(texts, task) if stored.head.pairs else as_single_texts(texts, task)
            return self._classified(model, task, given, stored.head, batch_size, length)

    def labels_pairs(self, task: str) -> bool:
        """Whether a task labels pairs of texts.

        Raises:
            ModelError: there is no such task.
        """
        head = self._stored(task).manifest.head
        return isinstance(head, SequenceClassification) and head.pairs

    def _tagged(
        self,
        model: PEModel,
        task: str,
        texts: list[tuple[str, ...]],
        spec: TokenClassification,
        batch_size: int,
        length: int,
        stride: int,
    ) -> list[Tagged]:
        tokens = iter(tokenize_words([words for words in texts if words], self.tokenizer))
        cut = [windows(next(tokens), length, stride) if words else [] for words in texts]
        ids = [window.ids for text in cut for window in text]
        rows = iter(self._probabilities(model, task, ids, batch_size))
        return [
            tagged(
                words,
                {
                    word: row[i]
                    for window, row in zip(text, rows, strict=False)
                    for word, i in window.first_tokens.items()
                },
                spec,
            )
            for words, text in zip(texts, cut, strict=True)
        ]

    def _classified(
        self,
        model: PEModel,
        task: str,
        texts: Sequence[str | tuple[str, str]],
        spec: SequenceClassification,
        batch_size: int,
        length: int,
    ) -> list[Classified]:
        if not texts:
            return []
        options: dict[str, Any] = {"truncation": True, "max_length": length}
        first = [text if isinstance(text, str) else text[0] for text in texts]
        if spec.pairs:
            options["text_pair"] = [text[1] for text in texts]
        encoded = self.tokenizer(first, **options)
        unknown = [i for i, ids in enumerate(encoded["input_ids"]) if not ids]
        if unknown:
            raise DataError(f"text {unknown[0] + 1} of {len(texts)} has no token in this vocabulary; remove it")
        types = encoded.get("token_type_ids") if spec.pairs else None
        rows = self._probabilities(model, task, encoded["input_ids"], batch_size, types)
        best = [(int(row.argmax()), float(row.max())) for row in rows]
        return [Classified(text, spec.labels[i], score) for text, (i, score) in zip(texts, best, strict=True)]

    def _probabilities(
        self,
        model: PEModel,
        task: str,
        ids: Sequence[list[int]],
        batch_size: int,
        types: Sequence[list[int]] | None = None,
    ) -> list[Tensor]:
        """Label probabilities, on the CPU: (T, C) or (C) for each text."""
        found: list[Tensor] = [torch.empty(0)] * len(ids)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self._batch([ids[i] for i in chosen], None if types is None else [types[i] for i in chosen])
            logits = model(batch, task)
            for i, row in zip(chosen, logits.float().softmax(-1).cpu(), strict=True):
                found[i] = row
        return found

    def _batch(self, ids: list[list[int]], types: list[list[int]] | None) -> Batch:
        rows = [torch.tensor(row) for row in ids]
        pad = self.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        }
        if types is not None:
            batch["token_type_ids"] = pad_sequence([torch.tensor(row) for row in types], batch_first=True)
        return self.model.placed(batch)
