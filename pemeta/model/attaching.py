"""Attaching a method to a backbone as a whole, or not at all."""

from __future__ import annotations

from torch import nn

from pemeta.backbone.layer_reuse import separable
from pemeta.backbone.quantised import refuse_quantised
from pemeta.errors import ModelError, reason, shortened
from pemeta.methods.base import PEMethod
from pemeta.model.attach_trial import AttachTrial
from pemeta.utils.devices import lacks_memory
from pemeta.utils.modules import Structure
from pemeta.utils.seeding import seeded


def attach_whole(method: PEMethod, backbone: nn.Module, seed: int) -> None:
    """Attach a method; whatever goes wrong, the backbone is then as it was.

    Raises:
        ModelError: the method cannot be attached to this backbone, does not work in a pass of a tiny batch, or no
            memory holds its parameters.
    """
    before, trial = Structure(backbone), AttachTrial(method, backbone)
    try:
        with seeded(seed, "theta_a", method.name):
            method.attach(backbone)
        refuse_quantised(backbone, method.theta_a(backbone), f"{method.name} adapts", "load the backbone unquantised")
        trial.check()
        if not method.output_only:  # now, since in the middle of a run other threads may use the backbone
            separable(backbone, method.first_layer(backbone))
    except BaseException as error:
        before.restore()
        if not lacks_memory(error):
            raise
        raise ModelError(
            f"{method!r} cannot be attached to {type(backbone).__name__}: not enough memory for its parameters "
            f"({shortened(reason(error))}); configure it with fewer"
        ) from None
