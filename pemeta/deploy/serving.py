"""Serving many fine-tuned tasks with one primed backbone in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.given import require_location
from pemeta.backbone.packed_passes import Padding
from pemeta.backbone.tokenizers import check_tokenizer, load_tokenizer, tokenizer_digest
from pemeta.deploy.completing import complete, stream
from pemeta.deploy.folders import find_task, local_folder, task_folders
from pemeta.deploy.inputs import as_pairs, as_prompts, as_single_texts, as_words, checked_stride
from pemeta.deploy.labelling import InPlace, classify, tag
from pemeta.deploy.predictions import Prompt
from pemeta.errors import ConfigError, ModelError, unknown_name
from pemeta.heads import CausalLM, SequenceClassification, TokenClassification
from pemeta.model.given import require_model
from pemeta.model.manifest import read_manifest, resolve_base
from pemeta.model.model_files import theta_p_digest
from pemeta.model.pe_model import PEModel
from pemeta.model.task_files import StoredTask, apply_task, read_task
from pemeta.typing import State
from pemeta.utils.devices import resolve_device
from pemeta.utils.signatures import checked
from pemeta.utils.values import checked_size

SERVED = (TokenClassification, SequenceClassification, CausalLM)
"""Heads of tasks that a server answers with."""


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
        if not isinstance(spec, SERVED):
            raise ModelError(
                f"task {stored.manifest.task!r} has the head {spec.name!r}, which neither labels texts nor completes "
                f"them; served are {', '.join(kind.name for kind in SERVED)}"
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
        self,
        task: str,
        texts: Iterable[Any],
        batch_size: int = 32,
        stride: int | None = None,
        max_new_tokens: int | None = None,
        **generation: Any,
    ) -> Sequence[Any]:
        """Predictions of a task for each text, in their order.

        Token classification labels words, and takes them as lists or as strings: in a string they are separated by
        whitespace (a no-break space is part of its word), so put spaces around punctuation wherever the training data
        had them. Words become tokens as in :func:`pemeta.encode`. Texts longer than the task's ``max_length`` are
        labelled in windows that overlap; each word is labelled in the window where more text is on both sides of it.
        The result is :class:`~pemeta.deploy.predictions.Tagged`.

        Sequence classification labels single texts or, if it was trained on pairs, pairs ``(first, second)``; texts
        longer than ``max_length`` are cut. The result is :class:`~pemeta.deploy.predictions.Classified`, for several
        labels at once :class:`~pemeta.deploy.predictions.Labelled`, and for numbers
        :class:`~pemeta.deploy.predictions.Estimated`.

        A language model completes prompts: texts, or conversations as lists of turns with ``role`` and ``content``.
        They become tokens as in training; of one that leaves no room, the beginning is cut. The result is
        :class:`~pemeta.deploy.predictions.Completed`.

        Args:
            task: name of the task.
            texts: a list of texts, not a single string.
            batch_size: number of texts in a batch, which are of similar length.
            stride: number of tokens that a window shares with the one before; by default a quarter of ``max_length``,
                our choice.
            max_new_tokens: most tokens of a completion; by default what the task says, or else 128, our choice.
            generation: of a language model, arguments of transformers' ``generate``, such as ``do_sample=True``; by
                default, the most probable token is chosen each time.

        Raises:
            ModelError: there is no such task.
            DataError: ``texts`` is not a list of what the task takes, or a text to be classified or completed is empty.
            ConfigError: ``batch_size`` or ``max_new_tokens`` is not positive, ``stride`` is not less than
                ``max_length``, or there are arguments for a generation, and the task generates nothing.
        """
        batch_size = checked_size(batch_size, "batch_size")
        with self.using(task) as model:
            place = InPlace(model, self.tokenizer, task, self._stored(task).manifest, batch_size)
            head = place.manifest.head
            if isinstance(head, CausalLM):
                new = None if max_new_tokens is None else checked_size(max_new_tokens, "max_new_tokens")
                return complete(place, as_prompts(texts, task), new, generation)
            self._refuse_generation(task, max_new_tokens, generation)
            if isinstance(head, TokenClassification):
                return tag(place, as_words(texts), head, checked_stride(stride, place.length))
            assert isinstance(head, SequenceClassification)  # add_task checks it
            return classify(place, as_pairs(texts, task) if head.pairs else as_single_texts(texts, task), head)

    def stream(self, task: str, prompt: Prompt, max_new_tokens: int | None = None, **generation: Any) -> Iterator[str]:
        """The completion of one prompt by a language model, as pieces of text while it is being made.

        The server makes no other prediction until the last piece was taken, or the iterator closed.

        Args:
            task: name of the task.
            prompt: a text, or a list of turns with ``role`` and ``content``.
            max_new_tokens: most tokens of the completion; by default what the task says, or else 128, our choice.
            generation: arguments of transformers' ``generate``.

        Raises:
            ModelError: there is no such task, or it is no language model.
            DataError: the prompt is empty, or is neither a text nor turns.
            ConfigError: ``max_new_tokens`` is not positive.
        """
        head = self._stored(task).manifest.head
        if not isinstance(head, CausalLM):
            raise ModelError(f"task {task!r} has the head {head.name!r}, which completes nothing; use predict")
        (given,) = as_prompts([prompt], task)
        new = None if max_new_tokens is None else checked_size(max_new_tokens, "max_new_tokens")
        with self.using(task) as model:
            yield from stream(
                InPlace(model, self.tokenizer, task, self._stored(task).manifest, 1), given, new, generation
            )

    def completes(self, task: str) -> bool:
        """Whether a task completes prompts.

        Raises:
            ModelError: there is no such task.
        """
        return isinstance(self._stored(task).manifest.head, CausalLM)

    def labels_pairs(self, task: str) -> bool:
        """Whether a task labels pairs of texts.

        Raises:
            ModelError: there is no such task.
        """
        head = self._stored(task).manifest.head
        return isinstance(head, SequenceClassification) and head.pairs

    def _refuse_generation(self, task: str, max_new_tokens: int | None, generation: Mapping[str, Any]) -> None:
        given = [*generation, *([] if max_new_tokens is None else ["max_new_tokens"])]
        if given:
            head = self._stored(task).manifest.head.name
            raise ConfigError(
                f"{given[0]} is for tasks that complete prompts, and {task!r} has the head {head!r}; omit it"
            )
