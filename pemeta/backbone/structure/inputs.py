"""A tiny random batch of whatever a backbone takes: token ids, images, or sound."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROWS, LENGTH = 2, 6
"""Sentences in a batch, and tokens in each; a number of its own, so that dimensions can be told apart."""
SAMPLES = (400, 1600, 6400)
"""Lengths of sound to try: after convolutions some positions have to remain."""
FRAMES = (24, 96)
"""Lengths of spectrograms to try, where the configuration does not say."""


def tiny_batches(backbone: nn.Module, length: int = LENGTH) -> Iterator[dict[str, Any]]:
    """Batches to try, the likeliest first, always of the same numbers.

    Args:
        backbone: A model of transformers.
        length: Number of tokens in a sentence.
    """
    name = str(getattr(backbone, "main_input_name", "input_ids"))
    reference = next(backbone.parameters())
    extra = {"use_cache": False} if "use_cache" in inspect.signature(backbone.forward).parameters else {}
    for value in _values(name, getattr(backbone, "config", None), length, reference.dtype):
        moved = value.to(reference.device)
        yield {name: moved, **extra}
        if name == "input_ids":
            yield {name: moved, "attention_mask": torch.ones_like(moved), **extra}


def _values(name: str, config: Any, length: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Values of the argument with this name."""
    generator = torch.Generator("cpu").manual_seed(0)
    if name == "input_ids":
        yield _token_ids(config, length, generator)
        return
    for shape in _shapes(name, config):
        yield torch.randn(shape, generator=generator, device="cpu").to(dtype)


def _token_ids(config: Any, length: int, generator: torch.Generator) -> Tensor:
    """Ids of ordinary tokens: padding, ends and masks make some backbones compute something else."""
    size = getattr(config, "vocab_size", 2)
    special = {value for key, value in vars(config).items() if key.endswith("token_id") and isinstance(value, int)}
    usual = [token for token in range(min(size, 1000)) if token not in special] or [0]
    drawn = torch.randint(len(usual), (ROWS, length), generator=generator, device="cpu")
    return torch.tensor(usual, device="cpu")[drawn]


def _shapes(name: str, config: Any) -> Iterator[tuple[int, ...]]:
    """Shapes of images or sound."""
    if name == "pixel_values":
        size = getattr(config, "image_size", None) or 32
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        channels = getattr(config, "num_channels", 3)
        yield ROWS, channels, height, width
        yield ROWS, getattr(config, "num_frames", 2), channels, height, width
        return
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", None)
    if name == "input_features" and bins:
        positions = getattr(config, "max_source_positions", None)
        if isinstance(positions, int):
            yield ROWS, bins, 2 * positions
        for frames in FRAMES:
            yield ROWS, frames, bins
            yield ROWS, bins, frames
    if name == "input_values":
        if bins:
            yield ROWS, getattr(config, "max_length", FRAMES[-1]), bins
        for samples in SAMPLES:
            yield ROWS, samples
            yield ROWS, 1, samples
