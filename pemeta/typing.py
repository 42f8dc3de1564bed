"""Types shared by the whole library, and the legend of the shape letters used in docstrings.

| letter | meaning |
|---|---|
| B | examples in a batch: sentences, texts or blocks of running text |
| T | tokens in the longest example of a batch, special tokens included |
| D | width of the backbone's hidden states |
| K | bottleneck width of an adapter |
| C | labels of a task |
| V | tokens in the vocabulary |
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Batch: TypeAlias = dict[str, Tensor]
"""The inputs of the backbone, such as ``input_ids`` and ``attention_mask`` (B, T) long, and ``labels``.

The labels are long, -100 where unlabelled: (B, T) for one label per token, (B,) for one per sequence.

``trunk`` (B, T, D), if present, holds the backbone's last hidden states, computed earlier; ``input_of_layer_K`` holds
the input of layer K, so that a pass skips the layers below it.
"""

State: TypeAlias = dict[str, Tensor]
"""Parameter values by name, with the names of ``named_parameters()``."""

IGNORE_INDEX = -100
"""Label of positions that losses and scores ignore (PyTorch's default ``ignore_index``)."""
