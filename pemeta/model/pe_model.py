"""The public model class: a network that can be saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.backbone.given import require_location
from pemeta.backbone.output_kinds import OutputKind
from pemeta.methods.base import PEMethod
from pemeta.model.model_files import Loading, load_model, save_model
from pemeta.model.network import Network
from pemeta.model.pushing import push_model
from pemeta.model.task_files import Prompting, apply_task, read_task, save_task
from pemeta.utils.signatures import checked


class PEModel(Network):
    """``h(g(f(x; θ_p); θ_a); θ_h)``: backbone f, PE method g, and a head h for each task (paper, §4).

    Args:
        backbone: a model of transformers without a head, and without a pooler if possible; or a whole language model,
            ``...ForCausalLM`` or ``...ForMaskedLM``, which is taken apart. It is changed in place, and has this one
            model. If it had one that no longer exists, that one's methods are detached. It may be quantised: θ_p is
            then left as it is, by priming with ``primes: [theta_a]`` and by fine-tuning.
        method: the method that fine-tuning uses; it is attached to the backbone.
        seed: seed of the method's new parameters.

    Attributes:
        output: what a language model has behind its backbone, an ``OutputMap``; None for a backbone without. Its
            parameters that are not tied to the backbone are in θ_p, under names that begin with ``output.``.
        autocast_dtype: ``torch.bfloat16`` or ``torch.float16`` to compute in lower precision wherever PyTorch's
            autocast considers that safe, with parameters, logits and losses in their own; None (initially) for full
            precision.
        tokenizer_digest: :func:`~pemeta.tokenizer_digest` of the tokenizer that the model's data is encoded with, or
            None if unknown. Saved tasks record it, and models with another one refuse them. Set it to enable this.

    Raises:
        ModelError: the method cannot be attached to this backbone, or the backbone is the one of another model, is no
            bare model of transformers, has a pooler, is spread over devices, or already has a tuner of
            the peft package.
    """

    @classmethod
    @checked(path=None, method=None)
    def from_pretrained(
        cls,
        path: str | Path,
        method: PEMethod | None = None,
        *,
        seed: int = 0,
        attention: str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
        output: OutputKind | None = None,
    ) -> PEModel:
        """Load a saved model, or a pretrained encoder with a newly attached method, from a folder or the hub.

        Args:
            path: a folder, or a name on the Hugging Face hub, written by :meth:`save_pretrained` or ``pemeta run``, or
                of any encoder.
            method: the fine-tuning method; by default the saved one. If it is not among the saved methods, it is newly
                attached to the saved backbone, without the parameters that the saved methods added.
            seed: seed of the parameters of a newly attached method.
            attention: ``eager`` or ``sdpa``; by default transformers chooses.
            dtype: dtype of the backbone's parameters; by default the saved one, and float32 for an encoder that pemeta
                did not save. In half precision θ_a and heads are in float32 all the same; prime in float32, with
                ``autocast_dtype`` for speed, because what priming has moved is rounded to this type at its end.
            trust_remote_code: run Python code that comes with a model whose architecture is not part of transformers.
            output: of a model that pemeta did not save, load the whole language model: ``causal_lm``, or ``masked_lm``,
                which is the backbone alone where the files have no such head. A saved model has what it was saved with.

        Raises:
            ModelError: there is no model at ``path``, it cannot be loaded, or pemeta did not save it and ``method`` is
                not given.
        """
        require_location(path, "PEModel.from_pretrained")
        method = None if method is None else PEMethod.parse(method)
        return load_model(cls, path, method, seed, Loading(attention, dtype, trust_remote_code, output))

    @checked()
    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write θ_p and θ_a to a folder that both :meth:`from_pretrained` and transformers' ``AutoModel`` can load.

        With the output map of a language model it is a folder of this whole one, for ``AutoModelForCausalLM``.
        Heads are not included: :meth:`save_task` writes each with the task's own θ_a.

        Args:
            folder: the folder, written completely or not at all. An earlier model in it is replaced. All other files
                are kept; tasks must belong to this θ_p and method.
            tokenizer: saved with the model, because ``pemeta predict`` needs it.
            facts: how the model was made, for its model card; keys of the hub's front matter (``license``,
                ``language``, ``datasets``, ``metrics``, ``tags``, ``base_model``) go there.

        Raises:
            ModelError: the tokenizer is not the one that the model's data was encoded with.
            OutputError: the folder holds something else, or tasks that do not fit, or cannot be written.
        """
        save_model(self, Path(folder), tokenizer, facts)

    @checked()
    def push_to_hub(
        self,
        repo_id: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload the output of :meth:`save_pretrained` to the Hugging Face hub, and return its URL.

        Raises:
            OutputError: the upload fails.
        """
        return push_model(self, repo_id, tokenizer, private, commit_message, facts)

    @checked(max_length=1)
    def save_task(
        self, folder: str | Path, task: str, max_length: int | None = None, prompting: Prompting | None = None
    ) -> int:
        """Write θ_a and the head of one task with a manifest, and return the number of bytes.

        Args:
            folder: the folder, e.g. ``MODEL_DIR/tasks/NAME``, where ``pemeta predict`` finds it; an earlier task in it
                is replaced.
            task: the task, which must have a head.
            max_length: maximum number of tokens per sentence in the task's training, for serving.
            prompting: of a language model, how its prompts are made, for serving; by default texts as they are, and
                turns by the tokenizer's chat template.

        Raises:
            ModelError: the task has no head, or its head was not made from a :class:`~pemeta.HeadSpec`.
            OutputError: the folder holds something else, or cannot be written.
        """
        return save_task(self, Path(folder), task, max_length, prompting)

    @checked()
    def load_task(self, folder: str | Path, name: str | None = None) -> str:
        """Load θ_a and the head from a task's folder, and return the task's name.

        This replaces the model's θ_a; to keep several tasks in memory, use :class:`pemeta.Server`.

        Args:
            folder: a folder written by :meth:`save_task`.
            name: name of the task; by default the one it was saved under.

        Raises:
            ModelError: the folder is incomplete, or belongs to another method, θ_p, head or tokenizer.
        """
        return apply_task(self, read_task(self, Path(folder)), name)
