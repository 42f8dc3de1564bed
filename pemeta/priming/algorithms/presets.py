"""Published algorithms that are settings of :class:`~pemeta.MetaPriming`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FULL = {"name": "meta", "inner_method": "full", "inner_lr": 1e-4}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "maml": {**_FULL, "first_order": False},
    "fomaml": {**_FULL, "first_order": True},
    "anil": {
        "name": "meta",
        "inner_method": "head_only",
        "primes": ["theta_p", "theta_h"],
        "first_order": False,
    },
    "multi_step_loss": {"name": "meta", "outer_loss": "annealed"},
}
"""The algorithm and its settings by name; a configuration's own keys override them."""

PAPERS: Mapping[str, str] = {
    "maml": "Finn, Abbeel and Levine (2017); the inner loop adapts the whole backbone; second order",
    "fomaml": "Finn, Abbeel and Levine (2017) in first order; Gheini, Ma and May (2023), setting 6 (§5.1)",
    "anil": "Raghu, Raghu, Bengio and Vinyals (2020); the inner loop adapts the head, whose start is primed too",
    "multi_step_loss": "Antoniou, Edwards and Storkey (2019), MAML++; a loss after every step, annealed to the last",
}
"""Where each preset is from, and what it is."""
