"""What a language model computes from its backbone's hidden states: transformers' own code, with its own parameters.

The logits of a ``...ForCausalLM`` are a product with an output matrix, tied to the word embedding or not, with or
without a bias, maybe with maps before it and a scale or a cap after it. None of this is known here: the class itself is
run, with a stand-in in its backbone's place that gives the hidden states at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pemeta.errors import ModelError
from pemeta.utils.precision import HALF, casts_itself

After: TypeAlias = Callable[[Tensor], Tensor]
"""What becomes of products with an output matrix, of each by itself: a scale, or a cap."""


class Factors(NamedTuple):
    """Logits (N, V) as ``after(hidden @ weight.T + bias)``.

    Attributes:
        hidden: (N, D), behind whatever comes before the product.
        weight: (V, D).
        bias: (V,), or None.
        after: what follows the product; None for nothing.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    after: After | None


class _Tie(NamedTuple):
    """A parameter of an output map that is another one.

    Attributes:
        within_backbone: whether the other is the backbone's, or the output map's own.
        name: its name there; empty for whatever the backbone says that its word embedding is.
    """

    within_backbone: bool
    name: str


class OutputMap(nn.Module):
    """The part of a language model of transformers behind its backbone: from hidden states to logits.

    Its parameters are those that are not the backbone's, by the names that they have in the language model. Those that
    are tied to the backbone's are read from it in each pass, so that they are what it has just then: in the inner loop,
    a clone's.

    Args:
        whole: the language model, which stays as it is, and shares its parameters.
        kinds: what it was trained for: ``causal_lm`` or ``masked_lm``.

    Attributes:
        kinds: the same.
        name: name of the language model's class.
        base: the class of its backbone.
        factored: whether logits are a product with an output matrix and functions of single numbers after it.
        plain: whether nothing follows the product.

    Raises:
        ModelError: the language model does not say what its output matrix is.
    """

    def __init__(self, whole: PreTrainedModel, kinds: frozenset[Any]) -> None:
        super().__init__()
        self.kinds, self.name, self.base = kinds, type(whole).__name__, type(whole.base_model)
        self._prefix = str(whole.base_model_prefix)
        self._product = _product_of(whole)
        self._ties = _ties(whole)
        self._missing = _rows(whole) - len(whole.get_output_embeddings().weight)
        shell = _skeleton(whole, whole.base_model, self._ties)
        # What the class holds is held here, by the same names; the class itself is in a tuple, and so no part.
        for kind in ("_modules", "_parameters", "_buffers"):
            vars(self)[kind] = vars(shell)[kind]
        self._shell = (shell,)
        self.training = whole.training
        self.factored, self.plain = True, False  # what a trial finds

    def around(self, base: nn.Module, backbone: nn.Module | None = None) -> PreTrainedModel:
        """The language model with any module as its backbone, newly made, which shares all parameters.

        Args:
            base: what is to be in the backbone's place, such as the backbone itself.
            backbone: where tied parameters are; by default ``base``.
        """
        whole = self._bound(base if backbone is None else backbone, {self._prefix: base})
        if type(getattr(base, "config", None)) is type(whole.config):
            vars(whole)["config"] = base.config
        return whole

    def forward(self, hidden: Tensor, backbone: nn.Module) -> Tensor:
        """Logits (..., V) from hidden states (N, D) or (B, T, D) of this backbone."""
        return self._run(hidden, backbone, {})

    def classes(self, backbone: nn.Module) -> int:
        """Number V of logits."""
        return len(self._matrix(self._bound(backbone, {})).weight)

    def refuse_resized(self, backbone: nn.Module) -> None:
        """Refuse a backbone whose word embedding was resized without this output map.

        Raises:
            ModelError: it was.
        """
        rows, classes = _rows(backbone), self.classes(backbone)
        if rows - classes != self._missing:
            raise ModelError(
                f"the word embedding of this {type(backbone).__name__} was resized to {rows} rows, but the output "
                f"matrix of its {self.name} has {classes}; resize the whole language model before the PEModel is made "
                "of it"
            )

    def factors(self, hidden: Tensor, backbone: nn.Module) -> Factors:
        """The logits of hidden states (N, D) as a product and what follows it, if they are ``factored``."""
        try:
            before = self._run(hidden, backbone, {self._product: _Catch()})
        except _Caught as caught:
            before = caught.value[0]
        matrix = self._matrix(self._bound(backbone, {}))
        return Factors(before, matrix.weight, matrix.bias, None if self.plain else self._after(hidden, backbone))

    def after(self, products: Tensor, width: int, backbone: nn.Module) -> Tensor:
        """What becomes of products (N, V) with the output matrix.

        Args:
            products: the products, which are left as they are unless the class changes them in place.
            width: width D of the hidden states.
            backbone: the backbone.
        """
        held = next(backbone.parameters())
        hidden = held.new_zeros(len(products), width)  # whose own products are not used
        return self._run(hidden, backbone, {self._product: _Give(products.unsqueeze(0))})

    def changes(self, products: Tensor, width: int, backbone: nn.Module) -> bool:
        """Whether anything follows products (N, V), as far as can be told without looking at values."""
        given = products.unsqueeze(0)
        before = given._version
        hidden = next(backbone.parameters()).new_zeros(1, len(products), width)
        found = self._run(hidden, backbone, {self._product: _Give(given)})
        return found is not given or given._version != before

    def _after(self, hidden: Tensor, backbone: nn.Module) -> After:
        width = hidden.shape[-1]
        return lambda products: self.after(products.clone(), width, backbone)

    def _run(self, hidden: Tensor, backbone: nn.Module, replaced: Mapping[str, nn.Module]) -> Tensor:
        whole = self._bound(backbone, replaced)
        rows = hidden if hidden.ndim == 3 else hidden.unsqueeze(0)
        kind = next(backbone.parameters()).dtype
        if kind in HALF and not casts_itself(hidden):
            rows = rows.to(kind)
        vars(whole)["_modules"][self._prefix] = StandIn(rows, StandIn(rows))
        logits: Tensor = whole(input_ids=rows.new_zeros(rows.shape[:2], dtype=torch.long)).logits
        return logits if hidden.ndim == 3 else logits[0]

    def _bound(self, backbone: nn.Module, replaced: Mapping[str, nn.Module]) -> PreTrainedModel:
        """The class with the backbone's tied parameters and other modules in place, and the present mode.

        Only modules on the way to these are copied; nothing of it stays.
        """
        whole = _shallow(self._shell[0])
        vars(whole)["training"] = self.training
        copies: dict[str, Any] = {"": whole}

        def copied(path: str) -> Any:
            if path not in copies:
                above, _, name = path.rpartition(".")
                held = vars(copied(above))["_modules"]
                copies[path] = held[name] = _shallow(held[name])
            return copies[path]

        for path, tie in self._ties.items():
            where, _, name = path.rpartition(".")
            value = _tied_to(tie, backbone if tie.within_backbone else self)
            vars(copied(where))["_parameters"][name] = value
        for path, module in replaced.items():
            where, _, name = path.rpartition(".")
            vars(copied(where))["_modules"][name] = module
        return whole  # type: ignore[no-any-return]

    def _matrix(self, whole: nn.Module) -> Any:
        return whole.get_submodule(self._product)


def _rows(model: Any) -> int:
    """Rows of the word embedding; 0 if there is none."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return len(weight) if isinstance(weight, Tensor) else 0


class _Output(tuple[Tensor]):
    """The output of a backbone: hidden states, by index and by name, and None for all else that a class may ask for."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class StandIn(nn.Module):
    """A stand-in for a backbone, or its decoder, that gives these hidden states whatever it is called with."""

    def __init__(self, hidden: Tensor, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.hidden = hidden
        self.decoder = decoder

    def forward(self, *arguments: Any, **kwargs: Any) -> _Output:  # noqa: D102 - a stand-in
        return _Output((self.hidden,))


class _Give(nn.Module):
    """In the output matrix's place: gives these products whatever it is called with."""

    def __init__(self, products: Tensor) -> None:
        super().__init__()
        self.products = products

    def forward(self, hidden: Tensor) -> Tensor:
        return self.products


class _Caught(Exception):  # noqa: N818 - no error
    """What the output matrix would have been multiplied with."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


class _Catch(nn.Module):
    """In the output matrix's place: stops the pass there."""

    def forward(self, hidden: Tensor) -> Tensor:
        raise _Caught(hidden)


def _product_of(whole: PreTrainedModel) -> str:
    """Name of the module that multiplies with the output matrix."""
    matrix = whole.get_output_embeddings()
    name = next((name for name, part in whole.named_modules() if part is matrix), None)
    if name is None or type(matrix).forward is not nn.Linear.forward:
        raise ModelError(
            f"{type(whole).__name__} does not say that a linear map makes its logits (get_output_embeddings), so "
            "nothing is known of its output; pass its base model, model.base_model, and use a head of the task's own"
        )
    return str(name)


def _ties(whole: PreTrainedModel) -> dict[str, _Tie]:
    """By name, the parameters outside of the backbone that are the backbone's, or others outside of it."""
    base: Any = whole.base_model
    inside = {id(parameter): _Tie(True, name) for name, parameter in base.named_parameters()}
    table = getattr(base.get_input_embeddings(), "weight", None)
    if isinstance(table, Tensor) and id(table) in inside:
        inside[id(table)] = _Tie(True, "")
    known, found = dict(inside), dict[str, _Tie]()
    for name, parameter in whole.named_parameters(remove_duplicate=False):
        if name.startswith(f"{whole.base_model_prefix}."):
            continue
        if id(parameter) in known:
            found[name] = known[id(parameter)]
        else:
            known[id(parameter)] = _Tie(False, name)
    return found


def _tied_to(tie: _Tie, owner: Any) -> Tensor:
    if not tie.name:
        return owner.get_input_embeddings().weight  # type: ignore[no-any-return]
    where, _, name = tie.name.rpartition(".")
    return getattr(owner.get_submodule(where), name)  # type: ignore[no-any-return] # of a clone it is no Parameter


def _shallow(part: Any) -> Any:
    """A module with the same contents, in dictionaries of its own."""
    made = copy.copy(part)
    for kind in ("_modules", "_parameters", "_buffers"):
        vars(made)[kind] = dict(vars(part)[kind])
    return made


def _skeleton(part: nn.Module, base: nn.Module, ties: Mapping[str, _Tie], path: str = "") -> Any:
    """A copy of a module without the backbone, and with nothing in the places of tied parameters."""
    made = _shallow(part)
    held, own = vars(made)["_modules"], vars(made)["_parameters"]
    for name, child in list(held.items()):
        if child is base:
            del held[name]
        elif child is not None:
            held[name] = _skeleton(child, base, ties, f"{path}{name}.")
    for name in own:
        if f"{path}{name}" in ties:
            own[name] = None
    return made
