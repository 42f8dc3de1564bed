"""Full fine-tuning: all parameters of the backbone are adapted."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pemeta.methods.base import PEMethod


class Full(PEMethod):
    """Full fine-tuning; as the inner loop's method it is MAML's own inner loop (paper, §5.1).

    θ_a consists of all parameters of the backbone, including those of other attached methods, and of a language model's
    own output map; θ_p is empty.
    """

    name: ClassVar[str] = "full"
    paper: ClassVar[str] = (
        "Finn et al. (2017), Model-Agnostic Meta-Learning, as the inner loop; Table 1, settings 1 and 6"
    )

    @property
    def adapts_output(self) -> bool:  # noqa: D102 - inherited
        return True

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:  # noqa: D102 - inherited
        return tuple(name for name, _ in backbone.named_parameters())
