"""Learners that share one module, each with values of its own for some of its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.priming._learn2learn import BaseLearner
from pemeta.priming.layout import Facts, Layout, facts, refuse_other_facts
from pemeta.priming.placing import Place, View, find_places, placed


class SharingLearner(BaseLearner):  # type: ignore[misc]
    """A learner of learn2learn's whose clones hold values and no module.

    The original has none: its module computes with its own parameters. A shallow copy of a clone has the clone's
    values, and goes its own way from there. A deep copy, and a pickled one, is an original on a copy of the module with
    the clone's values.

    Before a clone computes, it makes sure that the module still is what it was
    (:class:`~pemeta.priming.layout.Layout`).

    Args:
        module: The module that the learner and all its clones share.
        names: First names of the parameters that clones may have values for.

    Attributes:
        values: A clone's values, by first name; None for the original.
    """

    values: dict[str, Tensor] | None

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__(module)
        self.names = tuple(names)
        self.values = None
        self._places: list[Place] | None = None  # found with the first clone
        self._layout: Layout | None = None
        self._facts: dict[str, Facts] = {}  # of the original's parameters, when this clone was made
        _ = self.layout  # taken now: what changes from here on makes a difference

    @property
    def shared(self) -> nn.Module:
        """The module itself."""
        module = self._modules["module"]
        assert isinstance(module, nn.Module)  # the constructor has put it there
        return module

    @property
    def layout(self) -> Layout:
        """What the module consisted of when the learner was made, or copied."""
        if self._layout is None:
            with placed(self.shared, self, (), {}):  # or a clone's values would be taken for parameters
                self._layout = Layout(self.shared)
        return self._layout

    @property
    def module(self) -> Any:
        """The module; for a clone a :class:`~pemeta.priming.placing.View` of it with the clone's values."""
        return self.shared if self.values is None else View(self.shared, self.placed)

    def placed(self) -> AbstractContextManager[None]:
        """Let the shared module compute with this learner's values within the block.

        Raises:
            ModelError: Another clone, or another thread, computes with the module just now; or it has changed since the
                learner, or this clone, was made.
        """
        if self.values is None:
            return placed(self.shared, self, (), {})
        return placed(self.shared, self, self._all_places(), self.values, self.verify)

    def verify(self) -> None:
        """Refuse a pass whose result would depend on what has happened to the module in the meantime.

        Raises:
            ModelError: The module's parameters are not those that it had when the learner was made, or those that this
                clone has values for were converted, moved, resized, frozen or thawed after the clone was made.
        """
        self.layout.check(self._facts)
        graph, parameters = torch.is_grad_enabled(), self.layout.parameters
        for name, before in self._facts.items():
            now = facts(parameters[name], before[3] is not None)
            if now != before:
                refuse_other_facts(name, before, now, graph)

    def with_values(self, values: dict[str, Tensor]) -> Self:
        """A clone: the same settings, also those of a subclass, and the same module, with these values."""
        made = self.__class__.__new__(self.__class__)
        nn.Module.__init__(made)
        made.__dict__.update({name: value for name, value in vars(self).items() if name not in made.__dict__})
        made._modules["module"] = self.shared
        made.training = self.training
        made.values = values
        made._places = [place for place in self._all_places() if place.name in values]
        return made

    def as_original(self) -> None:
        """Be a learner that was not cloned."""

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked for is the module's, for a clone with its values."""
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if "values" not in self.__dict__:  # while it is being made
                raise
            return getattr(self.module, name)

    def state_dict(self, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Names and tensors of the module, with a clone's values."""
        with self.placed():
            return super().state_dict(*arguments, **kwargs)  # type: ignore[no-any-return]

    def named_parameters(self, *arguments: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Names and parameters of the module, with a clone's values."""
        with self.placed():
            return iter(list(super().named_parameters(*arguments, **kwargs)))

    def __copy__(self) -> Self:
        made = self.with_values(dict(self.values or {}))
        if self.values is None:
            made.values, made._places = None, None
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with self.placed():
            if self.values is not None:  # what else is copied by this memo has the module's own values
                there = [held[key] for held, key, _ in self._all_places()]
                memo = memo | {id(value): nn.Parameter(value.detach().clone()) for value in there}
            module = copy.deepcopy(self.shared, memo)
        made = self.with_values({})
        made._modules["module"], made.values, made._places = module, None, None
        made._layout, made._facts = None, {}
        made.as_original()
        _ = made.layout
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol) if self.values is None else copy.deepcopy(self).__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_places": None, "_layout": None}  # of the module that is left behind

    def _all_places(self) -> list[Place]:
        if self._places is None:
            self._places = find_places(self.shared, self.names)
        return self._places
