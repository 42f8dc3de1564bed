"""Head tuning: only the task head is adapted."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pemeta.methods.base import PEMethod


class HeadOnly(PEMethod):
    """Head tuning: the backbone is a frozen feature extractor and θ_a is empty (paper, §4.3, setting 2)."""

    name: ClassVar[str] = "head_only"
    paper: ClassVar[str] = "Gheini et al. (2023), Table 1, setting 2; as the inner loop, Raghu et al. (2020), ANIL"

    @property
    def output_only(self) -> bool:
        """True, because θ_a is empty."""
        return True

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:  # noqa: D102 - inherited
        return ()
