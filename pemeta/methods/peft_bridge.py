"""A method that wraps any injectable tuner of the ``peft`` package."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import nn
from typing_extensions import Self

from pemeta.backbone.maps import is_linear
from pemeta.backbone.reach import used_maps
from pemeta.errors import ConfigError, ModelError, clause, excerpt, unknown_name
from pemeta.methods.base import PEMethod
from pemeta.methods.peft_probe import forgets, one_of_each_kind, strays, try_layer
from pemeta.methods.peft_targets import ALL_LINEAR, changes_base
from pemeta.methods.peft_values import fields_of, saved_values, without
from pemeta.typing import State
from pemeta.utils.distributed import Processes
from pemeta.utils.messages import warn
from pemeta.utils.modules import Structure

ADAPTER = "pemeta_peft"
"""Name of PEFT's adapter, which the name of each of its parameters contains; it begins with ``pemeta_``."""


OTHER_MODULES = ("modules_to_save", "trainable_token_indices", "layer_replication")
"""Fields that make PEFT replace or repeat modules other than those that it tunes."""
PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "orthogonal")
"""Initialisations of LoRA that do not change the backbone's own weights; PiSSA, OLoRA, CorDA and LoftQ do."""
_CHANGED = (
    "changed the backbone's own parameters, so that it cannot be detached; reload the backbone, and choose an "
    "initialisation that does not change them"
)
_SURROGATE = (
    "the tuner {} treats a part of what it computes as constant, as its authors chose, so that its gradients, in "
    "priming too, are not those of finite differences"
)
_OTHERS = "use another tuner of that package, or one of pemeta's own methods"
_FREEZE = ", or freeze the backbone before if only θ_a is to move"


class Peft(PEMethod):
    """A tuner of the ``peft`` package (DoRA, VeRA, OFT, LoHa ...), whose parameters are θ_a.

    Requires ``pip install 'pemeta[peft]'``. PEFT wraps each map that it tunes in a layer of its own, which renames
    the backbone's own parameters while it is attached (``query.weight`` becomes ``query.base_layer.weight``).
    pemeta's own methods do not; prefer one of these where it exists.

    Attributes:
        config: ``peft_type`` and the fields of the tuner's configuration, as in PEFT's ``adapter_config.json``;
            ``all-linear`` leaves out maps that the last hidden states do not depend on (poolers).

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

    @field_validator("config")
    @classmethod
    def _as_peft_has_it(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Refuse what PEFT would, or would ignore, such as a misspelt key; without PEFT this has to wait."""
        if find_spec("peft") is not None:
            tuner_config(config)
        return config

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
            tuner_config(self.config)
        except ConfigError as error:
            return str(error)
        if any(True for _ in _tuned(backbone)):
            return "it already has a tuner of the peft package; detach that first"
        return None

    def attach(self, backbone: nn.Module) -> None:
        """Let PEFT insert its layers; parameters that required gradients before still do.

        Raises:
            ModelError: PEFT refuses, or θ_p could not be primed with this tuner, as a trial of its layers shows; the
                backbone is then unchanged, unless PEFT has changed its parameters, which the message says.
        """
        self.require(backbone)
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        config, before = self._config_for(backbone), Structure(backbone)
        own = {id(parameter): parameter.requires_grad for parameter in backbone.parameters()}
        sums = {id(parameter): _sum(parameter) for parameter in backbone.parameters()}
        mode = backbone.training
        try:
            with warnings.catch_warnings():  # PEFT corrects that flag itself
                warnings.filterwarnings("ignore", "fan_in_fan_out is set to False but the target module is `Conv1D`")
                if not self.config.keys() & {"rank_pattern", "alpha_pattern"}:  # PEFT makes some for fused experts
                    warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match")
                # `inject_adapter_in_model` would refuse tuners with shared state (VeRA), although their layers hold it.
                tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](backbone, config, ADAPTER)
                tuner._cast_adapter_dtype(ADAPTER, autocast_adapter_dtype=True)  # from half precision to float32
            trained = {name for name in self.theta_a(backbone) if backbone.get_parameter(name).requires_grad}
            constant = {id(p) for n, p in backbone.named_parameters() if id(p) not in own and n not in trained}
            for parameter in backbone.parameters():  # PEFT freezes θ_p, which priming trains
                parameter.requires_grad_(own.get(id(parameter), True))
            backbone.train(mode)
            changed = sums.items() - {id(parameter): _sum(parameter) for parameter in backbone.parameters()}.items()
            fault = _CHANGED if changed else self._fault(backbone, tuner, before, own, constant)
        except Exception as error:  # PEFT raises nearly anything
            before.restore()
            raise ModelError(
                f"peft cannot be attached to {type(backbone).__name__}: {clause(error)}; change the method's config"
            ) from None
        if fault is not None:
            before.restore()
            raise ModelError(f"the tuner {self.config['peft_type']} {fault}")
        for _, layer in _tuned(backbone):
            if hasattr(layer, "parameter_name"):
                layer.pemeta_order = list(layer.get_base_layer()._parameters)
                layer.register_forward_hook(_put_in_order, always_call=True)

    def _config_for(self, backbone: nn.Module) -> Any:
        """PEFT's configuration object; of all linear maps without those that passes do not use."""
        config = tuner_config(self.config)
        given = getattr(config, "exclude_modules", None)
        if str(getattr(config, "target_modules", None)).lower() == ALL_LINEAR and hasattr(config, "exclude_modules"):
            every = [name for name, part in backbone.named_modules() if is_linear(part)]
            out = set(every) - set(used_maps(backbone, every))
            if out:
                names = [given] if isinstance(given, str) else [rf"(.*\.)?{re.escape(name)}" for name in given or ()]
                config.exclude_modules = "|".join(f"({one})" for one in (*names, *map(re.escape, sorted(out))))
        return config

    def _fault(
        self, backbone: nn.Module, tuner: nn.Module, before: Structure, own: dict[int, bool], constant: set[int]
    ) -> str | None:
        """Why the tuner cannot be used, of those reasons that show once it is attached; None if there is none.

        Args:
            backbone: With the tuner's layers.
            tuner: PEFT's object, which pemeta does not keep.
            before: What the backbone was before.
            own: Whether each of the backbone's own parameters, by identity, is to move.
            constant: The parameters, by identity, that PEFT has added and does not train.
        """
        stray = next(strays(tuner, backbone), None)
        if stray is not None:
            return f"keeps parameters outside of the backbone ({stray}), which no inner loop adapts; {_OTHERS}"
        if before.hooked():
            return f"puts hooks on the backbone, of which detaching would leave a rest; {_OTHERS}"
        for name, parameter in list(backbone.named_parameters()):
            if id(parameter) in constant and not _fix(backbone, name, parameter):
                return f"does not train {name}, whose random values no saved task would hold; {_OTHERS}"
            if parameter._backward_hooks and id(parameter) not in own:
                return f"changes the gradient of {name} by a hook, which the inner loop's clones do not have; {_OTHERS}"
        return self._fault_of_layers(backbone, lambda parameter: not own.get(id(parameter), True))

    def _fault_of_layers(self, backbone: nn.Module, frozen: Callable[[nn.Parameter], bool]) -> str | None:
        """Why one of the tuner's layers cannot be used, as a trial shows; None if all can."""
        for name, layer in one_of_each_kind(_tuned(backbone)):
            base, found = layer.get_base_layer(), try_layer(layer, frozen)
            if found.fault is not None:
                return f"cannot be primed: {name} {found.fault}; {_OTHERS}{_FREEZE if found.theta_p else ''}"
            moves = not all(map(frozen, base.parameters()))
            if forgets(base, self._insert, moves):
                remedy = _FREEZE if moves and not forgets(base, self._insert, False) else ""
                return (
                    f"keeps values beside its parameters in {name}, which are drawn at random or computed of the "
                    f"backbone's weights as they are now, so that a saved model would lose them; {_OTHERS}{remedy}"
                )
            if found.surrogate and Processes().first:
                warn(_SURROGATE.format(self.config["peft_type"]), once=True)
        return None

    def _insert(self, module: nn.Module) -> None:
        """Put the tuner's layer around a module's child ``part``."""
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        config = tuner_config(self.config)
        config.target_modules = {"part"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](module, config, ADAPTER)

    def detach(self, backbone: nn.Module) -> None:
        """Put each tuned part back into its place, the innermost first: PEFT nests layers around fused experts."""
        for name, layer in reversed(list(_tuned(backbone))):
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

    def load_peft(self, backbone: nn.Module, values: State) -> State:
        """Load what PEFT itself makes of the values, buffers included."""
        plain = without(backbone, self.detach)
        state, rest = saved_values(plain, self._config_for(plain), ADAPTER, values)
        every = (*backbone.named_parameters(remove_duplicate=False), *backbone.named_buffers(remove_duplicate=False))
        own = {name: tensor for name, tensor in every if ADAPTER in name.split(".")}
        if own.keys() - state.keys():
            raise ModelError(f"has no value for {min(own.keys() - state.keys())}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])
        return rest

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], backbone: nn.Module) -> Self | None:
        """The tuner of any configuration that selects modules of the backbone; None if peft is not installed."""
        if find_spec("peft") is None:
            return None
        return cls(config=fields_of(config, backbone))


def tuner_config(config: Mapping[str, Any]) -> Any:
    """PEFT's own configuration object.

    Raises:
        ConfigError: PEFT is not installed, or rejects the configuration.
    """
    try:
        from peft import PeftConfig
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError:
        raise ConfigError("the package peft is not installed; run `pip install 'pemeta[peft]'`") from None
    # The others, such as prompt tuning, do not insert layers.
    kinds: dict[Any, Any] = PEFT_TYPE_TO_TUNER_MAPPING
    inserting = [kind for kind, tuner in kinds.items() if issubclass(tuner, BaseTuner)]
    tuners = sorted(str(getattr(kind, "value", kind)) for kind in inserting)
    kind = config.get("peft_type")
    if kind not in tuners:
        if isinstance(kind, str) and kind in set(PEFT_TYPE_TO_CONFIG_MAPPING):
            raise ConfigError(f"the tuner {kind} puts no layers into a backbone; use {', '.join(tuners)}")
        raise ConfigError(f"peft_type: {unknown_name('tuner of the peft package', kind, tuners)}")
    fields = [field.name for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])]
    if unknown := sorted(config.keys() - set(fields)):  # PEFT would ignore it
        raise ConfigError(unknown_name(f"key of {kind}", unknown[0], fields))
    odd = [key for key in OTHER_MODULES if config.get(key)]
    if odd or config.get("bias", "none") != "none":
        raise ConfigError(
            f"{odd[0] if odd else 'bias'} adapts more than PEFT's own layers, which pemeta does not "
            "support; remove it, or compose with bitfit or layer_norm to adapt biases or norms"
        )
    if config.get("init_lora_weights") not in PLAIN_INITIALISATIONS:
        fault = "changes the backbone's own weights, so the tuner could not be detached"
        if not changes_base(config):
            fault = "takes more than the backbone, such as data, which only PEFT's own functions give it"
        raise ConfigError(
            f"init_lora_weights {config['init_lora_weights']!r} {fault}; use true, gaussian or "
            "orthogonal, or load_peft for an adapter that PEFT saved"
        )
    try:
        return PeftConfig.from_peft_type(**config)  # type: ignore[no-untyped-call]
    except Exception as error:  # ValueError for a wrong value, for example
        raise ConfigError(f"peft rejects this config: {clause(error)}") from None


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


def _fix(backbone: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Make a constant of a parameter that PEFT does not train; False if it holds values that were drawn at random."""
    value = parameter.detach()
    if not value.is_meta and bool((value != value.flatten()[:1]).any()):
        return False
    parent, _, key = name.rpartition(".")
    part = backbone.get_submodule(parent)
    del part._parameters[key]
    part.register_buffer(key, value)
    return True


def _put_in_order(layer: Any, *_: Any) -> None:
    """Put the parameters of a part back in order: for a pass PEFT takes out those that it tunes, and then appends them.

    Digests and optimisers go by the order. A clone's value, which is not a parameter, would even come back as a buffer.
    """
    part = layer.get_base_layer()
    back = {key: part._buffers.pop(key) for key in layer.pemeta_order if key in part._buffers}
    found = {**part._parameters, **back}
    part._parameters.clear()
    part._parameters.update({key: found[key] for key in layer.pemeta_order if key in found})
