"""Types used everywhere, and the one legend of shape letters used in docstrings.

| letter | meaning |
|---|---|
| B | sentences in a batch |
| T | word pieces in the longest sentence of a batch, special tokens included |
| D | width of the backbone's hidden states |
| K | bottleneck width of an adapter |
| C | labels of a task |
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Batch: TypeAlias = dict[str, Tensor]
"""``input_ids`` (B, T) long, ``attention_mask`` (B, T) long, ``labels`` (B, T) long with -100 where unlabelled.

``trunk`` (B, T, D), if it is there, are the backbone's last hidden states, computed before.
"""

State: TypeAlias = dict[str, Tensor]
"""Parameter name to value, names as in ``named_parameters()``."""

IGNORE_INDEX = -100
"""Label of a position that no loss or score counts (PyTorch's default ``ignore_index``)."""
