"""Uploading a model's folder to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from pemeta.errors import OutputError, reason
from pemeta.model.model_files import save_model
from pemeta.model.network import Network


def push_model(
    model: Network,
    repo_id: str,
    tokenizer: PreTrainedTokenizerBase | None,
    private: bool | None,
    commit_message: str | None,
    facts: Mapping[str, Any] | None,
) -> str:
    """Upload a model's folder to the Hugging Face hub, and return its URL.

    Raises:
        OutputError: the upload fails.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_model(model, folder, tokenizer, facts)
        try:
            api = HfApi()
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            message = commit_message or "Upload model with pemeta"
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        except Exception as error:  # the hub's client raises nearly anything here
            raise OutputError(
                f"cannot push to {repo_id!r}: {reason(error)}; check the name, and log in with `hf auth login`"
            ) from None
    return f"https://huggingface.co/{name}"
