"""A pass of a tiny batch with a method that was just attached, so that what cannot work is refused at once."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from pemeta.backbone.architectures import kind_of
from pemeta.backbone.attention import attention_of
from pemeta.backbone.given import require_sequence
from pemeta.backbone.layer_reuse import is_compiled
from pemeta.backbone.reach import leaves_of, listed, unused
from pemeta.backbone.structure.inputs import LENGTH, ROWS, tiny_batches
from pemeta.backbone.structure.undisturbed import has_values, undisturbed
from pemeta.errors import ModelError, clause
from pemeta.methods.base import PEMethod, is_added
from pemeta.utils.modules import only_trainable
from pemeta.utils.precision import wide

_PASSED: set[Any] = set()
"""Methods, kinds of backbones and what was attached to these before, with which a trial has passed."""
_MOST = 10_000


class AttachTrial:
    """Compares a tiny batch's hidden states without a method, when this is made, with those after it is attached.

    A backbone on the meta device, one for which no batch can be made, and one that is compiled, have no trial.

    Args:
        method: The method.
        backbone: The backbone, to which it is not attached yet.

    Raises:
        ModelError: The backbone gives no hidden states (B, T, D).
    """

    def __init__(self, method: PEMethod, backbone: nn.Module) -> None:
        self.method, self.backbone = method, backbone
        self.inputs: dict[str, Any] | None = None
        self.before: Tensor | None = None
        self.there = {name for name, _ in backbone.named_parameters()}  # other methods' transforms do not run here
        if not has_values(backbone) or is_compiled(backbone):
            return
        others = tuple(sorted({name.rpartition(".")[2] for name, _ in backbone.named_modules() if is_added(name)}))
        config = json.dumps(method.to_config(), default=str, sort_keys=True)
        try:
            kind = kind_of(backbone)
        except ModelError:  # its layers are unknown, which is of no matter to some methods
            kind = object()
        self.key = kind, attention_of(backbone), next(backbone.parameters()).dtype, type(method), config, others
        if self.key not in _PASSED:
            self._run_before()

    def _run_before(self) -> None:
        """Find a batch that the backbone takes, and keep what it gives."""
        config = getattr(self.backbone, "config", None)
        most = getattr(config, "max_position_embeddings", None)
        room = most - 2 - self.method.extra_positions if isinstance(most, int) else LENGTH
        if room < 1:
            return
        with undisturbed(self.backbone, bare=False):
            for inputs in tiny_batches(self.backbone, min(LENGTH, room)):
                try:
                    states = getattr(self.backbone(**inputs), "last_hidden_state", None)
                except Exception:  # inputs of another kind than it takes
                    continue
                require_sequence(self.backbone, states, ROWS)
                self.inputs, self.before = inputs, states
                return

    def check(self) -> None:
        """Run the batch again, now that the method is attached.

        Raises:
            ModelError: The pass fails, gives states of another shape, or others although the method starts as the
                identity, or no gradient reaches θ_a.
        """
        if self.inputs is None or self.before is None:
            return
        try:
            fault = self._fault(self.inputs, self.before)
        except ModelError as error:
            fault = str(error)
        except Exception as error:  # of transformers' code, which the method does not suit
            fault = f"a pass of a tiny batch with it fails ({clause(error)}); use another method"
        if fault is not None:
            raise ModelError(f"{self.method.name} cannot be attached to {type(self.backbone).__name__}: {fault}")
        if len(_PASSED) >= _MOST:
            _PASSED.clear()
        _PASSED.add(self.key)

    def _fault(self, inputs: dict[str, Any], before: Tensor) -> str | None:
        """What is wrong with a pass, with the remedy; None if nothing is."""
        theta_a = self.method.theta_a(self.backbone)
        # Without gradients of θ_p, some modules of PyTorch call kernels of their own, past layers that were put in.
        with undisturbed(self.backbone, bare=False), only_trainable(self.backbone, theta_a), torch.enable_grad():
            states = getattr(self.backbone(**inputs), "last_hidden_state", None)
            if not isinstance(states, Tensor) or states.shape != before.shape:
                return "with it, a tiny batch has hidden states of another shape; use another method"
            states = self.method.transform(self.backbone, wide(states))
            if self.method.identity_at_start and not torch.allclose(states, wide(before), rtol=1e-4, atol=1e-5):
                return "it changes what a tiny batch gives, although it starts as the identity; use another method"
            wrong = self._unreached(states)
        if not wrong:
            return None
        return f"no gradient of a tiny batch reaches {listed(wrong)}; choose other targets, or use another method"

    def _unreached(self, states: Tensor) -> list[str]:
        """What of θ_a a pass should use and does not: what was added to a part in use, or all of it."""
        own = dict(self.backbone.named_parameters())
        names = list(self.method.theta_a(self.backbone))
        leaves = leaves_of(states)
        reached = [name for name in names if id(own[name]) in leaves]
        new = [name for name in names if is_added(name) and name not in self.there]
        missing = [name for name in new if id(own[name]) not in leaves]
        return list(unused(self.backbone, missing, reached)) if reached else names
