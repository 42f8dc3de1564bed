"""Digests of θ_p, by which saved tasks know the model that they belong to."""

from __future__ import annotations

import hashlib

import torch

from pemeta.backbone.quantised import buffers_of_quantised
from pemeta.model.network import Network
from pemeta.utils.modules import plain_tensors


def theta_p_digest(model: Network) -> str:
    """Digest of θ_p as it was saved, even if it has been loaded in another dtype since."""
    return model.saved_digest(values_digest(model))


def values_digest(model: Network) -> str:
    """Twelve hexadecimal digits that change with every name and value in θ_p.

    16-bit values are widened to 32 bits first, so that the digest does not depend on which of the two is loaded.
    """
    names = set(model.partition().theta_p)
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name in names:
            sha.update(name.encode())
            for value in plain_tensors(parameter):
                sha.update(_wide(value).flatten().view(torch.uint8).numpy().data)
    sha.update(buffers_of_quantised(model.backbone))
    return sha.hexdigest()[:12]


def _wide(value: torch.Tensor) -> torch.Tensor:
    value = value.cpu().contiguous()
    return value.float() if value.is_floating_point() and value.element_size() < 4 else value
