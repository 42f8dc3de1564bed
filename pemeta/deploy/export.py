"""Export of a fine-tuned task as a plain transformers model, with θ_a folded into the weights."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pemeta.backbone.tokenizers import check_tokenizer, load_tokenizer, tokenizer_digest
from pemeta.errors import ModelError
from pemeta.heads import TokenClassification
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import check_same_logits
from pemeta.model.task_classes import CLASSES, REMEDY, linear_of, shell_for
from pemeta.utils.files import follow_umask
from pemeta.utils.messages import warn
from pemeta.utils.signatures import checked


@checked(model=None)
def to_transformers(model: PEModel, task: str, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedModel:
    """Export a task as a plain token-classification model of transformers, with the same logits.

    The methods are merged into a copy of the backbone; the model itself is not changed. Save the result with its own
    ``save_pretrained``, which saves the tokenizer too, or pass it to a ``pipeline("token-classification")``.

    Args:
        model: a fine-tuned model whose methods can be merged (``PEMethod.mergeable``).
        task: a task with a token-classification head.
        tokenizer: saved with the result; by default the one in the folder that the model was loaded from. Without
            any, saving says so, because transformers would make an empty one in its place.

    Raises:
        ModelError: a method cannot be merged, the head is of another kind, the tokenizer is not the model's, or
            transformers' own token-classification model for this architecture is not a linear map on the last hidden
            states.
    """
    require_model(model, "to_transformers")
    spec = token_classification(model, task)
    odd = next((method for method in model.attached if not method.mergeable), None)
    if odd is not None:
        raise ModelError(
            f"{odd.name} cannot be merged into the backbone's own parameters; {REMEDY} and use pemeta.Server"
        )
    adding = [method.name for method in model.attached if method.adds_modules]
    if len(adding) > 1:
        raise ModelError(
            f"{' and '.join(adding)} are attached together, and merging would lose their order; detach all but one, "
            f"or {REMEDY}"
        )
    if tokenizer is not None:
        check_tokenizer("this model", model.tokenizer_digest, tokenizer_digest(tokenizer))
    shell = shell_for(model.backbone, CLASSES[TokenClassification])
    head = linear_of(model, task, shell)
    plain = copy.deepcopy(model.backbone)
    for method in reversed(model.attached):
        method.merge(plain)
    exported = shell.fill(plain, head)
    exported.config = copy.deepcopy(plain.config)
    exported.config.id2label = dict(enumerate(spec.labels))
    exported.config.label2id = {label: i for i, label in exported.config.id2label.items()}
    for part in exported.children():
        if isinstance(part, nn.Dropout):
            part.p = spec.dropout
    if hasattr(exported.config, "classifier_dropout"):
        exported.config.classifier_dropout = spec.dropout
    check_same_logits(model, task, exported)
    # A partial function rather than a method: copies and pickles of the model have one of their own.
    own = _tokenizer_beside(model) if tokenizer is None else tokenizer
    vars(exported)["save_pretrained"] = partial(_save_with_tokenizer, exported, own)
    return exported


def token_classification(model: PEModel, task: str) -> TokenClassification:
    """The specification of a task's token-classification head.

    Raises:
        ModelError: it is not a token-classification head.
    """
    spec = model.head_spec(task)
    if not isinstance(spec, TokenClassification):
        raise ModelError(
            f"task {task!r} has the head {spec.name!r}, but only token_classification has an equivalent in "
            f"transformers; {REMEDY}"
        )
    return spec


def _tokenizer_beside(model: PEModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder that the backbone was loaded from, if there is one and it is the model's."""
    folder = Path(str(getattr(model.backbone.config, "_name_or_path", "") or "/nowhere"))
    if not folder.is_dir():
        return None
    try:
        tokenizer = load_tokenizer(str(folder))
        check_tokenizer("this model", model.tokenizer_digest, tokenizer_digest(tokenizer))
    except ModelError:
        return None
    return tokenizer


def _save_with_tokenizer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    save_directory: str | Path,
    *rest: Any,
    **options: Any,
) -> None:
    """Save a model as its class does, and its tokenizer."""
    type(model).save_pretrained(model, save_directory, *rest, **options)
    folder = Path(save_directory)
    if folder.is_dir():
        follow_umask(folder, "model*.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    elif not any(folder.glob("tokenizer*")):
        warn(
            f"{folder} has no tokenizer, and transformers would make an empty one in its place; save the model's "
            "there too (tokenizer.save_pretrained), or give it to to_transformers"
        )
