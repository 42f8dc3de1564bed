"""Export of a fine-tuned task as a plain transformers model, with θ_a folded into the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from pemeta.errors import ModelError, reason
from pemeta.heads import TokenClassification
from pemeta.model.pe_model import PEModel
from pemeta.utils.hub import quiet
from pemeta.utils.modules import modes_kept


def to_transformers(model: PEModel, task: str) -> PreTrainedModel:
    """Export a task as a plain token-classification model of transformers, with the same logits.

    The methods are merged into a copy of the backbone; the model itself is not changed. Save the result with its own
    ``save_pretrained``, or pass it to a ``pipeline("token-classification")``.

    Args:
        model: a fine-tuned model whose methods can be merged (``PEMethod.mergeable``).
        task: a task with a token-classification head.

    Raises:
        ModelError: a method cannot be merged, the head is of another kind, or transformers' own token-classification
            model for this architecture is not a linear map on the last hidden states.
    """
    spec = token_classification(model, task)
    odd = next((method for method in model.attached if not method.mergeable), None)
    if odd is not None:
        raise ModelError(
            f"{odd.name} cannot be merged into the backbone's own parameters; keep the task as a folder (save_task) "
            "and use pemeta.Server"
        )
    adding = [method.name for method in model.attached if method.adds_modules]
    if len(adding) > 1:
        raise ModelError(
            f"{' and '.join(adding)} are attached together, and merging would lose their order; detach all but one, "
            "or keep the task as a folder (save_task)"
        )
    shell, name = token_classifier(model)
    plain = copy.deepcopy(model.backbone)
    for method in reversed(model.attached):
        method.merge(plain)
    setattr(shell, shell.base_model_prefix, plain)
    setattr(shell, name, copy.deepcopy(model.head(task).classifier).to(next(plain.parameters()).dtype))
    shell.config = copy.deepcopy(plain.config)
    shell.config.id2label = dict(enumerate(spec.labels))
    shell.config.label2id = {label: i for i, label in shell.config.id2label.items()}
    for part in shell.children():
        if isinstance(part, nn.Dropout):
            part.p = spec.dropout
    if hasattr(shell.config, "classifier_dropout"):
        shell.config.classifier_dropout = spec.dropout
    _check_same_logits(model, task, shell.eval())
    return shell


def token_classification(model: PEModel, task: str) -> TokenClassification:
    """The specification of a task's token-classification head.

    Raises:
        ModelError: it is not a token-classification head.
    """
    spec = model.head_spec(task)
    if not isinstance(spec, TokenClassification):
        raise ModelError(
            f"task {task!r} has the head {spec.name!r}, but only token_classification has an equivalent in "
            "transformers; keep the task as a folder (save_task)"
        )
    return spec


def token_classifier(model: PEModel) -> tuple[PreTrainedModel, str]:
    """Transformers' token-classification model for a backbone's architecture, without values, and its head's name.

    Raises:
        ModelError: there is none, or its head is not one linear map on the last hidden states.
    """
    backbone = model.backbone
    kind = backbone.config.model_type
    try:
        with quiet(), torch.device("meta"):
            shell = AutoModelForTokenClassification.from_config(copy.deepcopy(backbone.config))
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"transformers has no token classification for {kind} ({reason(error)}); keep the task as a folder "
            "(save_task)"
        ) from None
    prefix = shell.base_model_prefix
    rest = {
        name: module
        for name, module in shell.named_children()
        if name != prefix and any(True for _ in module.parameters())
    }
    if len(rest) != 1 or not isinstance(next(iter(rest.values())), nn.Linear) or not hasattr(shell, prefix):
        raise ModelError(
            f"{type(shell).__name__} has {', '.join(rest)} after its backbone where pemeta's head has one linear map, "
            "so it cannot hold a task; keep the task as a folder (save_task)"
        )
    return shell, next(iter(rest))


@torch.no_grad()
def _check_same_logits(model: PEModel, task: str, exported: PreTrainedModel) -> None:
    """Compare logits on a few tokens, since an architecture may do more between backbone and head than is visible."""
    rows = next(model.backbone.get_input_embeddings().parameters()).shape[0]
    ids = torch.arange(8, device=model.device)[None] % rows
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with modes_kept(model):
        model.eval()
        here, there = model(batch, task).double(), exported(**batch).logits.double()
    tolerance = {8: 1e-6, 4: 1e-4}.get(next(exported.parameters()).element_size(), 0.1)
    if not torch.allclose(here, there, rtol=tolerance, atol=tolerance):
        raise ModelError(
            f"the logits of {type(exported).__name__} differ from this model's by up to "
            f"{(here - there).abs().max():.2g}; keep the task as a folder (save_task)"
        )
