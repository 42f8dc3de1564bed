"""Any injectable tuner of the ``peft`` package as a method."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from pemeta.errors import ConfigError, ModelError, reason
from pemeta.methods.base import PEMethod

ADAPTER = "pemeta_peft"
"""What the tuner's parameters are called; so every one of their names has a part that begins with ``pemeta_``."""


class Peft(PEMethod):
    """A tuner of the ``peft`` package (DoRA, VeRA, OFT, LoHa ...): θ_a is what it adds, its count is PEFT's.

    Needs ``pip install 'pemeta[peft]'``. PEFT puts a layer of its own around each map that it tunes, and so renames
    the backbone's own parameters while it is attached (``query.weight`` is ``query.base_layer.weight``). Methods of
    pemeta's own do not; prefer those where there is one.

    Attributes:
        config: fields of the tuner's configuration and ``peft_type``, as in PEFT's ``adapter_config.json``.

    >>> Peft(config={"peft_type": "VERA", "r": 8}).to_config()
    {'name': 'peft', 'config': {'peft_type': 'VERA', 'r': 8}}
    """

    name: ClassVar[str] = "peft"
    paper: ClassVar[str] = "Mangrulkar et al. (2022), PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods"

    config: dict[str, Any] = Field(min_length=1)

    @property
    def identity_at_start(self) -> bool:
        """Not known here; most of PEFT's tuners are."""
        return False

    @property
    def mergeable(self) -> bool:
        """Not here; PEFT itself can merge most of its tuners."""
        return False

    def unsupported(self, backbone: nn.Module) -> str | None:
        """Where the package is missing, the configuration is not one, or the backbone has a tuner already."""
        try:
            self._peft_config()
        except ConfigError as error:
            return str(error)
        if any(True for _ in _tuned(backbone)):
            return "it has a tuner of the peft package already; detach that first"
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Let PEFT put its layers in; what required gradients before does so afterwards."""
        self.require(backbone)
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        config = self._peft_config()
        before = {id(parameter): parameter.requires_grad for parameter in backbone.parameters()}
        mode = backbone.training
        try:
            with warnings.catch_warnings():  # it sets that flag right itself
                warnings.filterwarnings("ignore", "fan_in_fan_out is set to False but the target module is `Conv1D`")
                # Not by `inject_adapter_in_model`: it refuses tuners with shared state (VeRA), which layers hold too.
                PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](backbone, config, ADAPTER)
        except Exception as error:  # PEFT raises nearly anything here
            self.detach(backbone)
            raise ModelError(
                f"peft cannot be attached to {type(backbone).__name__}: {reason(error)}; change the method's config"
            ) from None
        finally:
            for parameter in backbone.parameters():  # PEFT freezes θ_p, which priming moves
                parameter.requires_grad_(before.get(id(parameter), True))
            backbone.train(mode)

    def detach(self, backbone: nn.Module) -> None:
        """Put each tuned map back in its place."""
        for name, layer in list(_tuned(backbone)):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
        vars(backbone).pop("peft_config", None)

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """The tuner's parameters."""
        prefixes = tuple(
            f"{name}.{part}.{ADAPTER}" for name, layer in _tuned(backbone) for part in layer.adapter_layer_names
        )
        names = tuple(name for name, _ in backbone.named_parameters() if prefixes and name.startswith(prefixes))
        if not names:
            raise ModelError("peft is not attached to this backbone; attach it first")
        return names

    def _peft_config(self) -> Any:
        """PEFT's own configuration object.

        Raises:
            ConfigError: PEFT is not installed, or does not take the configuration.
        """
        try:
            from peft import PeftConfig
            from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
        except ImportError:
            raise ConfigError("the package peft is not installed; run `pip install 'pemeta[peft]'`") from None
        tuners = sorted(str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_TUNER_MAPPING)
        kind = self.config.get("peft_type")
        if kind not in tuners:
            raise ConfigError(
                f"config.peft_type must be a tuner of the peft package; found {kind!r}. Known: {', '.join(tuners)}"
            )
        try:
            return PeftConfig.from_peft_type(**self.config)  # type: ignore[no-untyped-call]
        except Exception as error:  # TypeError for an unknown key, ValueError for a wrong value
            raise ConfigError(f"peft does not take this config: {reason(error)}") from None


def _tuned(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that PEFT has put in, with their names."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return
    yield from ((name, module) for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer))
