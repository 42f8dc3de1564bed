"""Runs that are interrupted in the middle, and models with equal values."""

import signal
from typing import Any

import pytest
import torch
from torch import nn

from pemeta import PEModel


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int, owner: Any = PEModel, name: str = "loss") -> list[Any]:
    """Send SIGINT in a call of a function, counted from 1; returns a list of the arguments of each call."""
    original, calls = getattr(owner, name), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    return calls


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have equal parameters, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
