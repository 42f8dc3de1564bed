"""Types used everywhere, and the one legend of shape letters used in docstrings.

| letter | meaning |
|---|---|
| B | examples in a batch: sentences, texts or blocks of running text |
| T | word pieces in the longest example of a batch, special tokens included |
| D | width of the backbone's hidden states |
| K | bottleneck width of an adapter |
| C | labels of a task |
| V | word pieces in the vocabulary |
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Batch: TypeAlias = dict[str, Tensor]
"""What the backbone takes, such as ``input_ids`` and ``attention_mask`` (B, T) long, and ``labels``.

The labels are long, -100 where unlabelled: (B, T) for tokens and pieces, (B,) for sequences.

``trunk`` (B, T, D), if it is there, are the backbone's last hidden states, computed before; ``input_of_layer_K`` are
those that layer K gets, so that a pass leaves out the layers below.
"""

State: TypeAlias = dict[str, Tensor]
"""Parameter name to value, names as in ``named_parameters()``."""

IGNORE_INDEX = -100
"""Label of a position that no loss or score counts (PyTorch's default ``ignore_index``)."""
