"""Refusal of backbones and data on which priming would be silently wrong."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.backbone.given import require_backbone
from pemeta.backbone.quantised import forget_declaration
from pemeta.errors import ArgumentError, ModelError, counted, excerpt
from pemeta.typing import Batch
from pemeta.utils.remembered import Remembered

PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
"""Names of classes that spread a module over devices; names, because not every build of PyTorch has all of them."""


def check_backbone(backbone: PreTrainedModel) -> None:
    """Refuse a backbone that cannot be primed, or of which a part would silently be ignored.

    Raises:
        ModelError: It is no bare model of transformers, spread over devices or hooked, already tuned by
            peft, or has a pooler or batch normalisation.
    """
    if isinstance(backbone, nn.Module):
        refuse_unfaithful(backbone)
        _refuse_tuned(backbone)
    require_backbone(backbone)
    forget_declaration(backbone)
    _refuse_pooler(backbone)
    refuse_running_statistics(backbone)


def refuse_running_statistics(module: nn.Module) -> None:
    """Refuse batch normalisation: training changes its buffers, but checkpoints and tasks store parameters only.

    Raises:
        ModelError: The module has running statistics; the message names them.
    """
    for name, part in module.named_modules():
        if getattr(part, "track_running_stats", False):
            raise ModelError(
                f"{name or 'the module'} is a {type(part).__name__} with running statistics, which training changes "
                "but no checkpoint or task stores; use LayerNorm or GroupNorm, or track_running_stats=False"
            )


def refuse_unfaithful(module: nn.Module) -> None:
    """Refuse a module whose clone would silently compute with other parameters than its own.

    Raises:
        ModelError: A submodule or parameter has this effect; the message names it.
    """
    for name, part in module.named_modules():
        if "_orig_mod" in part._modules:
            raise ModelError(
                f"{name or 'the module'} is what torch.compile has made of a module, whose parts have other names; use "
                "the module itself, and call its compile() once methods are attached"
            )
        if "forward" in vars(part):
            raise ModelError(
                f"{name or type(part).__name__} has a forward of its own, which may compute with parameters from "
                "elsewhere (a device_map and offloading do this), so that a clone would not adapt; load the model "
                "without them"
            )
        wrapper = _first_base(type(part), PARALLEL)  # type: ignore[arg-type] # a type can be hashed
        if wrapper is not None:
            raise ModelError(
                f"{name or 'the module'} is spread over devices by {wrapper}, but the inner loop clones parameters of "
                "one process on one device; use the plain model that it wraps, on one device"
            )
    for name, parameter in module.named_parameters():
        if _first_base(type(parameter), ("DTensor",)):
            raise ModelError(
                f"{name} is a DTensor, of which each device holds a part (fully_shard and tensor parallelism do this), "
                "but the inner loop needs all of it; load the model on one device"
            )


@functools.cache  # a module has many parts of few types
def _first_base(kind: type, names: tuple[str, ...]) -> str | None:
    """The first of a type's bases, itself included, that has one of some names."""
    return next((base.__name__ for base in kind.__mro__ if base.__name__ in names), None)


def _refuse_tuned(backbone: nn.Module) -> None:
    """Refuse a backbone after peft's ``get_peft_model``: θ_p is frozen, and the tuner would count as part of θ_p."""
    tuners = [name for name in getattr(backbone, "peft_config", None) or {} if not name.startswith("pemeta_")]
    if tuners:
        raise ModelError(
            f"this {type(backbone).__name__} already has a tuner of the peft package ({tuners[0]!r}), which has frozen "
            "θ_p; use the plain backbone, and attach the tuner with the method peft"
        )


def _refuse_pooler(backbone: nn.Module) -> None:
    pooler = getattr(backbone, "pooler", None)
    droppable = "add_pooling_layer" in inspect.signature(type(backbone).__init__).parameters  # loading drops it
    if droppable and isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        raise ModelError(
            f"this {type(backbone).__name__} has a pooler, which tasks do not use; load it with "
            "add_pooling_layer=False, or set backbone.pooler = None"
        )


def check_batch(batch: object) -> Batch:
    """The batch, unless it is none.

    Raises:
        ArgumentError: It is no mapping of names to tensors.
    """
    if not isinstance(batch, Mapping) or not all(isinstance(value, Tensor) for value in batch.values()):
        raise ArgumentError(f"a batch must be a mapping of names to tensors, such as input_ids; found {excerpt(batch)}")
    return dict(batch)


def _check_shapes(ids: Tensor, mask: Tensor | None) -> None:
    """Refuse token ids, or a mask over them, of shapes that a backbone would report as an error of its own."""
    if ids.ndim < 2 or 0 in ids.shape or ids.is_floating_point():
        kind = str(ids.dtype).removeprefix("torch.")
        raise ArgumentError(
            f"input_ids must be whole numbers of shape (sentences, tokens), one or more of each; found {kind} of shape "
            f"{tuple(ids.shape)}"
        )
    if mask is not None and mask.ndim == 2 and (mask.shape[1] != ids.shape[1] or len(mask) not in (1, len(ids))):
        raise ArgumentError(
            f"attention_mask must be of the shape of input_ids, {tuple(ids.shape)}; found {tuple(mask.shape)}"
        )


def check_token_ids(backbone: nn.Module, batch: Batch) -> None:
    """Refuse shapes that do not fit, and token ids without an embedding, if a device need not be waited for.

    PyTorch's own error on a CPU names neither the id nor the vocabulary's size; on CUDA it makes the device unusable
    for the rest of the process.

    Raises:
        ArgumentError: Ids or mask are of a wrong type or shape.
        ModelError: An id is not in the vocabulary.
    """
    ids, table = batch.get("input_ids"), _word_embeddings(backbone)
    if ids is not None:
        _check_shapes(ids, batch.get("attention_mask"))
    if table is None or type(ids) is not Tensor or ids.device.type != "cpu":
        return  # subclasses of Tensor need not have values
    lowest, highest = ends_of(ids)
    if lowest < 0 or highest >= table.num_embeddings:
        raise ModelError(
            f"the data has the token id {lowest if lowest < 0 else highest}, but this model's vocabulary has only "
            f"{counted(table.num_embeddings, 'token')} (0 to {table.num_embeddings - 1}); encode the data with the "
            "model's own tokenizer"
        )


ends_of = Remembered(lambda ids: tuple(int(end) for end in ids.aminmax()))
"""The lowest and the highest of some token ids."""


def note_joined(ids: Tensor, parts: Sequence[Tensor], padding: int) -> None:
    """Remember what is known of token ids that were joined from others, so that they are not checked once more."""
    if all(map(ends_of.knows, parts)):
        lows, highs = zip(*map(ends_of, parts), strict=True)
        ends_of.note(ids, (min(*lows, padding), max(*highs, padding)))


def _word_embeddings(backbone: nn.Module) -> nn.Embedding | None:
    """The table of word embeddings, or None if the backbone has none, for example because it takes images."""
    try:
        table = backbone.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return table if isinstance(table, nn.Embedding) else None
