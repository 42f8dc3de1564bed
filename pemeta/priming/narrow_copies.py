"""θ_p in autocast's type: copied once for the inner loop of first order, and not in each of its passes.

Autocast computes products in half precision, with a copy of each weight. It keeps a copy for the length of one pass,
and none of a parameter that needs no gradient, as θ_p in the inner loop of first order. Such copies are made here, and
are in the parameters' places within the block. This is done with those parameters alone of which passes use nothing
but such a copy; so nothing changes in what is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pemeta.backbone.attention import attention_of
from pemeta.backbone.layer_reuse import is_compiled, is_stochastic
from pemeta.backbone.structure.undisturbed import has_values
from pemeta.model.pe_model import PEModel
from pemeta.priming.placing import find_places, placed
from pemeta.priming.sharing import SharingLearner
from pemeta.typing import Batch
from pemeta.utils.seeding import generators_kept

Results: TypeAlias = Callable[[], Sequence[Tensor]]
"""A pass that gives hidden states and losses, with a graph."""

_found: WeakKeyDictionary[nn.Module, list[tuple[object, tuple[str, ...]]]] = WeakKeyDictionary()
"""By model, for each kind of pass the parameters of which it uses a copy and nothing else."""


def narrow_for(
    clone: SharingLearner, theta_p: Sequence[str], batches: Sequence[Batch], loss: Callable[[Batch], Tensor]
) -> AbstractContextManager[None]:
    """:func:`narrow_once` for the passes of one clone, which give a loss for each batch."""

    def results() -> list[Tensor]:
        of_batch = loss(batches[0])  # first, as it refuses wrong batches
        with torch.inference_mode(False), torch.enable_grad(), clone.placed():
            own = {key: value.clone() if value.is_inference() else value for key, value in batches[0].items()}
            return [_model_of(clone).transformed(own), of_batch]

    return narrow_once(clone, theta_p, batches, results, list((clone.values or {}).values()))


@contextmanager
def narrow_once(
    clone: SharingLearner,
    theta_p: Sequence[str],
    batches: Sequence[Batch],
    results: Results,
    values: Sequence[Tensor],
) -> Iterator[None]:
    """Have copies of θ_p in autocast's type in the places of θ_p within the block.

    Which parameters these are is seen in a pass with its backward pass, on the first use of each kind; another pass,
    with the copies, must then give the same to the bit. Where layers are checkpointed everything stays as it is: memory
    is what counts there, of which copies take half of θ_p's; otherwise passes hold as much of it for their gradients.

    Args:
        clone: the owner of the passes, beside which nothing computes with its module within the block.
        theta_p: names of the parameters that no gradient is asked of.
        batches: a batch for each pass.
        results: what the first of them gives.
        values: what it is differentiated by.
    """
    names: tuple[str, ...] = ()
    alike = len(batches) > 1 and len(set(map(frozenset, batches))) == 1
    if theta_p and alike and _may(_model_of(clone)):
        names = _names(clone, theta_p, batches[0], results, values)
    with _copied(clone, names):
        yield


def _model_of(clone: SharingLearner) -> PEModel:
    assert isinstance(clone.shared, PEModel)  # or it would have no tasks
    return clone.shared


def _may(model: PEModel) -> bool:
    if model.autocast_dtype is None or is_compiled(model) or not has_values(model):
        return False
    return not any(getattr(part, "gradient_checkpointing", False) for part in model.backbone.modules())


def _names(
    clone: SharingLearner, theta_p: Sequence[str], batch: Batch, results: Results, values: Sequence[Tensor]
) -> tuple[str, ...]:
    """The parameters that may be copied, by a trial if there was none of this kind."""
    model = _model_of(clone)
    how = attention_of(model.backbone), model.backbone.dtype, model.device, model.autocast_dtype
    heads = frozenset(type(head) for head in model.heads.values())
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())
    modes = is_stochastic(model.backbone), hooks, len(values)
    kind = tuple(theta_p), model.attached, *how, heads, frozenset(batch), *modes
    known = _found.setdefault(model, [])
    for other, names in known:
        if other == kind:
            return names
    names = _tried(clone, theta_p, results, values)
    known.append((kind, names))
    return names


def _tried(
    clone: SharingLearner, theta_p: Sequence[str], results: Results, values: Sequence[Tensor]
) -> tuple[str, ...]:
    model, parameters = _model_of(clone), clone.layout.parameters
    assert model.autocast_dtype is not None
    uses = _Uses({name: parameters[name] for name in theta_p}, model.autocast_dtype)
    with generators_kept(model.device), uses:
        expected = results()
        if sums := [one.sum() for one in expected if one.requires_grad]:  # else it is refused by whoever asks for it
            torch.autograd.grad(sums, list(values), allow_unused=True)
    try:
        with generators_kept(model.device), _copied(clone, uses.copied):
            found = results()
    except Exception:  # something looks at the type of a weight
        return ()
    return uses.copied if all(map(torch.equal, found, expected)) else ()


@contextmanager
def _copied(clone: SharingLearner, names: Sequence[str]) -> Iterator[None]:
    model, parameters = clone.shared, clone.layout.parameters
    originals = {name: parameters[name].detach() for name in names if parameters[name].dtype is torch.float32}
    if not originals:
        yield
        return
    dtype = _model_of(clone).autocast_dtype
    copies = {name: torch.empty_like(value, dtype=dtype) for name, value in originals.items()}
    torch._foreach_copy_(list(copies.values()), list(originals.values()))
    with placed(model, clone, find_places(model, originals), copies):
        yield


class _Uses(TorchDispatchMode):
    """Sees of which parameters a pass uses a copy in a type and nothing else."""

    def __init__(self, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype
        self._of = {_place(value): name for name, value in parameters.items() if value.numel()}
        self._shapes = {name: (value.shape, value.stride()) for name, value in parameters.items()}
        several = Counter(_place(value) for value in parameters.values() if value.numel())
        self._copied, self._otherwise = set[str](), {self._of[place] for place, n in several.items() if n > 1}

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of these parameters."""
        return tuple(name for name in self._shapes if name in self._copied - self._otherwise)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            strided = isinstance(value, Tensor) and value.layout is torch.strided
            name = self._of.get(_place(value)) if strided else None
            if name is not None:
                copies = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is self._dtype
                whole = (value.shape, value.stride()) == self._shapes[name]
                (self._copied if copies and whole else self._otherwise).add(name)
        return func(*args, **kwargs)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
