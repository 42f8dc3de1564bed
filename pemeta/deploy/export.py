"""Export of a fine-tuned task as a plain transformers model, with θ_a folded into the weights."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pemeta.backbone.tokenizers import check_tokenizer, load_tokenizer, tokenizer_digest
from pemeta.deploy.class_heads import filled, pretrained_output
from pemeta.errors import ModelError
from pemeta.heads import HeadSpec
from pemeta.model.given import require_model
from pemeta.model.pe_model import PEModel
from pemeta.model.same_outputs import check_same_logits
from pemeta.model.task_classes import REMEDY, TaskClass, class_of, shell_for
from pemeta.utils.files import follow_umask
from pemeta.utils.messages import warn
from pemeta.utils.signatures import checked

PROBLEMS: dict[str, Any] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""transformers' names of what a sequence-classification head is trained for, by ours."""


@checked(model=None)
def to_transformers(
    model: PEModel, task: str | None = None, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedModel:
    """Export a task as a plain model of transformers, with the same logits.

    The methods are merged into a copy of the backbone; the model itself is not changed. The class is the one that
    ``AutoModelForTokenClassification``, ``AutoModelForSequenceClassification`` or ``AutoModelForCausalLM`` loads, by
    the task's head; without a task the bare backbone, for embeddings. Save the result with its own ``save_pretrained``,
    which saves the tokenizer too, or pass it to a ``pipeline``.

    Sequence classes of encoders have two maps, between which a function acts on the first token; there the first is
    made the identity up to rounding (the head's pooling must be ``first``). Such a model is for serving, not for
    further training. Those of decoders read the last token (``last``), without a bias.

    Args:
        model: a fine-tuned model whose methods can be merged (``PEMethod.mergeable``).
        task: a task; by default only the backbone with θ_a is exported.
        tokenizer: saved with the result; by default the one in the folder that the model was loaded from. Without
            any, saving says so, because transformers would make an empty one in its place.

    Raises:
        ModelError: a method cannot be merged, the tokenizer is not the model's, or transformers has no class for the
            head and this architecture that computes the same logits.
    """
    require_model(model, "to_transformers")
    spec = None if task is None else model.head_spec(task)
    wanted = None if spec is None else _class_for(task, spec)
    _refuse_unmergeable(model)
    if tokenizer is not None:
        check_tokenizer("this model", model.tokenizer_digest, tokenizer_digest(tokenizer))
    own = _tokenizer_beside(model) if tokenizer is None else tokenizer
    plain = copy.deepcopy(model.backbone)
    for method in reversed(model.attached):
        method.merge(plain)
    if task is None or spec is None or wanted is None:
        exported = plain
    else:
        pad = getattr(own, "pad_token_id", None)
        output = pretrained_output(model, task)
        if output is None:
            labels = getattr(spec, "labels", None)
            shell = shell_for(model.backbone, wanted, None if labels is None else len(labels), pad)
            exported, _ = filled(model, task, shell, plain)
        else:
            exported = copy.deepcopy(output).around(plain).eval()
            check_same_logits(model, task, exported)
        exported.config = _configured(exported if output is not None else plain, spec, pad)
        _set_dropout(exported, spec)
        _tie(exported)
        _set_generation(exported, model, keep=output is not None)
    # A partial function rather than a method: copies and pickles of the model have one of their own.
    vars(exported)["save_pretrained"] = partial(_save_with_tokenizer, exported, own)
    return exported


def _class_for(task: str | None, spec: HeadSpec) -> TaskClass:
    """The class for a task's head.

    Raises:
        ModelError: there is none.
    """
    found = class_of(spec)
    if found is None:
        raise ModelError(f"task {task!r} has the head {spec.name!r}, of which transformers has no equal; {REMEDY}")
    return found


def _refuse_unmergeable(model: PEModel) -> None:
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


def _configured(plain: PreTrainedModel, spec: HeadSpec, pad: int | None) -> Any:
    """The backbone's configuration, with what users of a task's class read in it."""
    config = copy.deepcopy(plain.config)
    labels = getattr(spec, "labels", None)
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in config.id2label.items()}
    problem = getattr(spec, "problem", None)
    if problem is not None:
        config.problem_type = PROBLEMS[problem]
    if pad is not None:
        config.get_text_config().pad_token_id = pad
    return config


def _set_dropout(exported: PreTrainedModel, spec: HeadSpec) -> None:
    """Give the class the head's dropout, if it has one."""
    probability = getattr(spec, "dropout", None)
    if probability is None:
        return
    for name, part in exported.named_modules():
        if isinstance(part, nn.Dropout) and not name.startswith(f"{exported.base_model_prefix}."):
            part.p = probability
    for key in ("classifier_dropout", "seq_classif_dropout"):
        if hasattr(exported.config, key):
            setattr(exported.config, key, probability)


def _tie(exported: PreTrainedModel) -> None:
    """Let a language model's output matrix be the word embedding if it has its values, and say so in its configuration.

    Else it would not be saved where the class ties them, and be replaced in loading.
    """
    output, words = exported.get_output_embeddings(), exported.get_input_embeddings()
    text = exported.config.get_text_config()
    if output is None or not getattr(text, "tie_word_embeddings", False):
        return
    if output.weight.shape == words.weight.shape and bool((output.weight == words.weight).all()):
        output.weight = words.weight
    else:
        for config in (exported.config, text):
            config.tie_word_embeddings = False


def _set_generation(exported: PreTrainedModel, model: PEModel, keep: bool) -> None:
    """Keep how a language model's own folder says to generate, such as the tokens that end a turn.

    Args:
        exported: the exported model.
        model: the model that it was made of.
        keep: whether the exported model has what its folder said.
    """
    if not exported.can_generate():
        return
    folder = str(getattr(model.backbone.config, "_name_or_path", "") or "/nowhere")
    if (Path(folder) / "generation_config.json").is_file():
        exported.generation_config = GenerationConfig.from_pretrained(folder)
    elif not keep or exported.generation_config is None:
        exported.generation_config = GenerationConfig.from_model_config(exported.config)


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
