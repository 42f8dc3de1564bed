"""The public model: a network with its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pemeta.methods.base import PEMethod
from pemeta.model.model_files import load_model, push_model, save_model
from pemeta.model.network import Network
from pemeta.model.task_files import apply_task, read_task, save_task


class PEModel(Network):
    """``h(g(f(x; θ_p); θ_a); θ_h)``: backbone f, PE method g, and a head h for each task (paper, §4).

    Args:
        backbone: a Hugging Face encoder, without a pooler where it can do without; it is changed in place.
        method: the method that fine-tuning uses; its modules are attached here.
        seed: of the method's new parameters.

    Attributes:
        autocast_dtype: ``torch.bfloat16`` or ``torch.float16`` to compute in lower precision where PyTorch's autocast
            holds that safe, with parameters, logits and losses as they are; None, as at first, for no such.
        tokenizer_digest: :func:`~pemeta.tokenizer_digest` of the tokenizer that the model's data is encoded with, where
            that is known: saved tasks remember it, and are refused by a model with another. Set it to have yours so.

    Raises:
        ModelError: a method cannot be attached to this backbone, or the backbone has a pooler, is quantised, is spread
            over devices, or has a tuner of the peft package in it already.
    """

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        method: PEMethod | None = None,
        *,
        seed: int = 0,
        attention: str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> PEModel:
        """A saved model, or a method newly attached to a pretrained encoder, from a folder or the Hugging Face hub.

        Args:
            path: what :meth:`save_pretrained` or ``pemeta run`` wrote, or any encoder.
            method: of fine-tuning. By default the saved one. Where it is not among the saved ones, the saved backbone
                gets it newly attached, without what the saved ones added.
            seed: of the parameters of a newly attached method.
            attention: ``eager`` or ``sdpa``; by default transformers chooses.
            dtype: of the parameters; by default what was saved, and float32 for an encoder that pemeta did not save.
            trust_remote_code: run Python code that comes with a model whose architecture is not one of transformers'.

        Raises:
            ModelError: there is no model at ``path``, it cannot be loaded, or it is not a saved one and ``method`` is
                not given.
        """
        return load_model(cls, path, method, seed, attention, dtype, trust_remote_code)

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write θ_p and θ_a as a folder that :meth:`from_pretrained` reads, and transformers' ``AutoModel`` too.

        Heads are not in it: :meth:`save_task` writes each with the task's own θ_a.

        Args:
            folder: it appears whole or not at all. An earlier model in it is replaced. All other files stay; tasks
                must be of this θ_p and method.
            tokenizer: saved beside the model, as ``pemeta predict`` needs it.
            facts: how the model was made, for its model card.

        Raises:
            ModelError: the tokenizer is another than the one that the model's data was encoded with.
            OutputError: the folder holds something else, or tasks that do not fit, or cannot be written.
        """
        save_model(self, Path(folder), tokenizer, facts)

    def push_to_hub(
        self,
        repo_id: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub; returns the address.

        Raises:
            OutputError: the hub refuses it.
        """
        return push_model(self, repo_id, tokenizer, private, commit_message, facts)

    def save_task(self, folder: str | Path, task: str, max_length: int | None = None) -> int:
        """Write what one task stores, θ_a and its head, with what these belong to; returns the number of bytes.

        Args:
            folder: such as ``MODEL_DIR/tasks/NAME``, where ``pemeta predict`` finds it; an earlier task is replaced.
            task: one with a head.
            max_length: word pieces per sentence that the task was trained with, for serving.

        Raises:
            ModelError: the task has no head, or one that no :class:`~pemeta.HeadSpec` describes.
            OutputError: the folder holds something else, or cannot be written.
        """
        return save_task(self, Path(folder), task, max_length)

    def load_task(self, folder: str | Path, name: str | None = None) -> str:
        """Take θ_a and the head from a task's folder; returns the task's name.

        θ_a is that of the loaded task from now on: :class:`pemeta.Server` keeps several tasks.

        Args:
            folder: what :meth:`save_task` wrote.
            name: of the task; by default the one that it was saved under.

        Raises:
            ModelError: the folder is not whole, or belongs to another method, θ_p, head or tokenizer.
        """
        return apply_task(self, read_task(self, Path(folder)), name)
