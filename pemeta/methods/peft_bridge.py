"""A method that wraps any injectable tuner of the ``peft`` package."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import nn

from pemeta.errors import ConfigError, ModelError, excerpt, reason
from pemeta.methods.base import PEMethod

ADAPTER = "pemeta_peft"
"""Name of PEFT's adapter, which the name of each of its parameters contains; it begins with ``pemeta_``."""


OTHER_MODULES = ("modules_to_save", "trainable_token_indices", "layer_replication")
"""Fields that make PEFT replace or repeat modules other than those that it tunes."""
PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "orthogonal")
"""Initialisations of LoRA that do not change the backbone's own weights; PiSSA, OLoRA, CorDA and LoftQ do."""


class Peft(PEMethod):
    """A tuner of the ``peft`` package (DoRA, VeRA, OFT, LoHa ...), whose parameters are θ_a.

    Requires ``pip install 'pemeta[peft]'``. PEFT wraps each map that it tunes in a layer of its own, which renames
    the backbone's own parameters while it is attached (``query.weight`` becomes ``query.base_layer.weight``).
    pemeta's own methods do not; prefer one of these where it exists.

    Attributes:
        config: ``peft_type`` and the fields of the tuner's configuration, as in PEFT's ``adapter_config.json``.

    >>> Peft(config={"peft_type": "VERA", "r": 8}).to_config()
    {'name': 'peft', 'config': {'peft_type': 'VERA', 'r': 8}}
    """

    name: ClassVar[str] = "peft"
    paper: ClassVar[str] = "Mangrulkar et al. (2022), PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods"

    config: dict[str, Any] = Field(min_length=1)

    @field_validator("config", mode="before")
    @classmethod
    def _as_json(cls, config: Any) -> Any:
        """Convert to JSON types (tuples and sets to lists), so that a method equals itself after a round trip."""
        try:
            return json.loads(json.dumps(config, default=sorted))
        except TypeError:
            raise ValueError(f"expected values that JSON can represent; found {excerpt(config)}") from None

    @property
    def identity_at_start(self) -> bool:
        """False: unknown, although most of PEFT's tuners start as the identity."""
        return False

    @property
    def mergeable(self) -> bool:
        """False here; PEFT itself can merge most of its tuners."""
        return False

    def unsupported(self, backbone: nn.Module) -> str | None:
        """The reason, if peft is not installed, its configuration is invalid, or a tuner is already attached."""
        try:
            self._peft_config()
        except ConfigError as error:
            return str(error)
        if any(True for _ in _tuned(backbone)):
            return "it already has a tuner of the peft package; detach that first"
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Let PEFT insert its layers; parameters that required gradients before still do."""
        self.require(backbone)
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        config = self._peft_config()
        before = {id(parameter): parameter.requires_grad for parameter in backbone.parameters()}
        sums = {id(parameter): _sum(parameter) for parameter in backbone.parameters()}
        mode = backbone.training
        try:
            with warnings.catch_warnings():  # PEFT corrects that flag itself
                warnings.filterwarnings("ignore", "fan_in_fan_out is set to False but the target module is `Conv1D`")
                # `inject_adapter_in_model` would refuse tuners with shared state (VeRA), although their layers hold it.
                tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](backbone, config, ADAPTER)
                tuner._cast_adapter_dtype(ADAPTER, autocast_adapter_dtype=True)  # from half precision to float32
        except Exception as error:  # PEFT raises nearly anything here
            self.detach(backbone)
            raise ModelError(
                f"peft cannot be attached to {type(backbone).__name__}: {reason(error)}; change the method's config"
            ) from None
        finally:
            for parameter in backbone.parameters():  # PEFT freezes θ_p, which priming trains
                parameter.requires_grad_(before.get(id(parameter), True))
            backbone.train(mode)
        if sums.items() - {id(parameter): _sum(parameter) for parameter in backbone.parameters()}.items():
            raise ModelError(
                f"the tuner {self.config['peft_type']} changed the backbone's own parameters, so that it cannot be "
                "detached; reload the backbone, and choose an initialisation that does not change them"
            )

    def detach(self, backbone: nn.Module) -> None:
        """Put each tuned map back into its place."""
        for name, layer in list(_tuned(backbone)):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
        vars(backbone).pop("peft_config", None)

    def theta_a(self, backbone: nn.Module) -> tuple[str, ...]:
        """Names of the tuner's parameters."""
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
            ConfigError: PEFT is not installed, or rejects the configuration.
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
        odd = [key for key in OTHER_MODULES if self.config.get(key)]
        if odd or self.config.get("bias", "none") != "none":
            raise ConfigError(
                f"config.{odd[0] if odd else 'bias'} adapts more than PEFT's own layers, which pemeta does not "
                "support; remove it, or compose with bitfit or layer_norm to adapt biases or norms"
            )
        if self.config.get("init_lora_weights") not in PLAIN_INITIALISATIONS:
            raise ConfigError(
                f"config.init_lora_weights {self.config['init_lora_weights']!r} changes the backbone's own weights, so "
                "the tuner could not be detached; use true, gaussian or orthogonal"
            )
        try:
            return PeftConfig.from_peft_type(**self.config)  # type: ignore[no-untyped-call]
        except Exception as error:  # TypeError for an unknown key, ValueError for a wrong value
            raise ConfigError(f"peft rejects this config: {reason(error)}") from None


def _sum(parameter: nn.Parameter) -> float:
    """Sum of squares, which shows whether a parameter has changed without keeping a copy of it."""
    value = parameter.detach()
    return 0.0 if value.is_meta else float(value.double().square().sum())


def _tuned(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules of the layers that PEFT has inserted."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return
    yield from ((name, module) for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer))
