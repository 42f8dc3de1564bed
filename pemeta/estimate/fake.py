"""Models and batches that have shapes but no values, on which the library's own code runs in order to be counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from transformers import PreTrainedConfig

from pemeta.backbone.loading import empty_backbone_of
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.packed_passes import Padding
from pemeta.backbone.packing import ROOM, pack
from pemeta.backbone.row_masks import Form
from pemeta.backbone.tokenizers import max_positions
from pemeta.data.examples import Examples
from pemeta.estimate.tokens import Layout, packs
from pemeta.experiments.build import DTYPES
from pemeta.heads import CausalLM, HeadSpec, SequenceClassification, TokenClassification
from pemeta.methods.base import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.tasks.task import Task
from pemeta.typing import Batch

_NO_ROOM = torch.tensor(0, device="cpu")
"""Places for a prompt, with a value, which passes ask for; fake tensors have none."""

SEVEN_LABELS = TokenClassification(labels=tuple(map(str, range(7))))
"""A head for three entity types, as WikiAnn has."""


@dataclass(frozen=True)
class Shape:
    """Sizes and settings that the cost of any step depends on.

    Attributes:
        backbone: the backbone's configuration.
        length: number of tokens in every sentence.
        head: the head of each task.
        attention: ``eager`` or ``sdpa``; None for transformers' choice.
        precision: as in a configuration.
        dtype: type of the backbone's parameters.
        checkpoint_layers: as in a configuration.
        share: share of a padded batch's positions that are tokens; the longest sentence has ``length``.
        padding: how batches run: their positions, and so time and memory, are those of rows where they are packed.
        output: the kind of language model that the backbone is loaded as, whose output map heads may use.
        gpu: count what a GPU does otherwise than a CPU: AdamW and clipping work on all parameters in one operation,
            dropout is one operation that keeps a byte for each value, and fused attention has dropout of its own.
    """

    backbone: PreTrainedConfig
    length: int
    head: HeadSpec = SEVEN_LABELS
    attention: str | None = None
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    checkpoint_layers: bool = False
    gpu: bool = False
    dtype: torch.dtype = torch.float32
    share: float = 1.0
    padding: Padding = "padded"
    output: OutputKind | None = None

    @property
    def layout(self) -> Layout:
        """What batches consist of."""
        return Layout(self.length, self.share, self.padding, self.backbone, max_positions(self.backbone))

    def running(self, padding: Padding, methods: Sequence[PEMethod]) -> Shape:
        """The shape with batches that run so, or padded if the backbone has something else in rows.

        With a prompt batches count as padded, which is more than they take.
        """
        rows = padding != "padded" and not any(method.extra_positions for method in methods)
        rows = rows and packs(self.backbone, self.attention, methods)
        return replace(self, padding=padding if rows else "padded")

    @property
    def vocabulary(self) -> int | None:
        """Size of the vocabulary that heads predict tokens of; None for those that predict something else."""
        return getattr(self.head, "vocab_size", None)

    def task(self, name: str) -> Task:
        """A task with an unlimited number of sentences."""
        return Task(name, FakeSentences(self.length, self.layout, self.dtype, self.head.name), self.head)

    def model(self, methods: Sequence[PEMethod], tasks: Sequence[Task]) -> PEModel:
        """A model with methods attached, the first of them fine-tuning's, and a head for each task.

        It is on the meta device; run it within :func:`fake_tensors`.

        Raises:
            ModelError: a method cannot be attached to this backbone.
        """
        where = type(self.backbone).__name__
        with torch.device("meta"):
            backbone = empty_backbone_of(self.backbone, where, self.attention, self.dtype, self.output)
            model = PEModel(backbone, methods[0])
            for method in methods[1:]:
                model.attach(method)
            for task in tasks:
                model.add_head(task.name, task.make_head)
        model.autocast_dtype = DTYPES[self.precision]
        if self.checkpoint_layers:
            model.checkpoint_layers()
        return model


class FakeSentences(Examples[Any, Any]):
    """An unlimited number of sentences, of which only batches can be used.

    Args:
        length: of the longest sentence of each batch, to which they are padded.
        layout: how batches run; padded by default.
        dtype: type of the mask of rows.
        head: name of the head's kind.
    """

    kind: ClassVar[str] = TokenClassification.name
    unit: ClassVar[str] = "sentence"
    per_position: ClassVar[bool] = True

    def __init__(
        self,
        length: int,
        layout: Layout | None = None,
        dtype: torch.dtype = torch.float32,
        head: str = TokenClassification.name,
    ) -> None:
        self._length, self._head = length, head
        self._layout, self._dtype = layout or Layout(length), dtype
        self.num_truncated = 0
        self.trunk = None

    @property
    def outputs(self) -> Sequence[object]:  # noqa: D102 - inherited
        return ()

    def __len__(self) -> int:
        return 10**6

    def length(self, index: int) -> int:  # noqa: D102 - inherited
        return self._length

    def tensors(self, indices: Sequence[int] | np.ndarray) -> Batch:  # noqa: D102 - inherited
        size = (len(indices), self._length)
        names = ("input_ids", "attention_mask", "labels")
        batch: Batch = {name: torch.zeros(size, dtype=torch.long) for name in names}
        if self._head == SequenceClassification.name:
            batch["labels"] = torch.zeros(len(indices), dtype=torch.long)
        rows = self._layout.rows(len(indices))
        if rows is None:
            return batch
        return {
            **pack(batch, rows, Form(causal=self._head == CausalLM.name, positions=None), self._dtype),
            ROOM: _NO_ROOM,
        }

    def has_label(self, index: int) -> bool:  # noqa: D102 - inherited
        return True

    def digest(self) -> str:  # noqa: D102 - inherited
        return ""

    def decode(self, prediction: Any, index: int) -> Any:  # noqa: D102 - inherited
        return prediction

    def scores(self, decoded: Sequence[Any]) -> Any:  # noqa: D102 - inherited
        return None


@contextmanager
def gpu_dropout() -> Iterator[None]:
    """Let dropout in this thread be within the block what a GPU has for it, where a CPU takes several operations.

    PyTorch's functions are replaced: a mode of its own would not see the layers that a backward pass runs again.
    """
    here, plain, attention = threading.get_ident(), F.dropout, F.scaled_dot_product_attention

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if threading.get_ident() == here and training and 0 < p < 1:
            return torch.native_dropout(input, p, True)[0]
        return plain(input, p, training, inplace)

    def attend(*args: Any, **kwargs: Any) -> Tensor:
        if threading.get_ident() == here:
            kwargs["dropout_p"] = 0.0  # a GPU draws within its kernel; a CPU would leave it for several operations
        return attention(*args, **kwargs)

    F.dropout, F.scaled_dot_product_attention = dropout, attend
    try:
        yield
    finally:
        F.dropout, F.scaled_dot_product_attention = plain, attention


@contextmanager
def fake_tensors(model: PEModel, gpu: bool = False) -> Iterator[None]:
    """Let a model on the meta device run within the block as on a CPU, without computing or holding anything.

    Unlike on the meta device itself, PyTorch then chooses attention kernels, autocast and sparse gradients as it would.
    With ``gpu``, dropout is a GPU's.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), gpu_dropout() if gpu else nullcontext():
        made: dict[int, Tensor] = {}  # a tied parameter stays one
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = made.setdefault(id(tensor), _on_processor(tensor))  # type: ignore[assignment]
        yield


def _on_processor(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    return nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
