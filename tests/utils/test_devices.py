"""Moving batches: copies to CUDA go through pinned memory; nothing else is copied."""

import pytest
import torch

from pemeta.utils.devices import _pinned, to_device

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def pins(monkeypatch):
    """Pinning without an accelerator: a recorded copy."""
    pinned = []

    def pin_memory(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: any(tensor is other for other in pinned))
    return pinned


def test_a_tensor_on_its_way_to_cuda_is_pinned_once(pins):
    tensor = torch.arange(3)
    first = _pinned(tensor, CUDA)
    assert first is not tensor
    assert torch.equal(first, tensor)
    assert _pinned(first, CUDA) is first
    assert len(pins) == 1


@pytest.mark.parametrize(
    ("tensor", "device"),
    [(torch.arange(3), CPU), (torch.arange(3), torch.device("mps")), (torch.zeros(3, device="meta"), CUDA)],
)
def test_other_moves_need_no_pinning(tensor, device, pins):
    assert _pinned(tensor, device) is tensor
    assert not pins


def test_a_whole_batch_is_pinned_and_copied_without_waiting(pins, monkeypatch):
    moves = []

    def to(tensor, device, non_blocking=False):
        moves.append((any(tensor is other for other in pins), device, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    batch = {"input_ids": torch.ones(2, 3), "labels": torch.zeros(2)}
    moved = to_device(batch, CUDA)
    assert moves == [(True, CUDA, True)] * 2
    assert all(torch.equal(moved[key], batch[key]) for key in batch)


def test_on_the_cpu_nothing_is_copied(pins):
    batch = {"input_ids": torch.ones(2, 3)}
    assert to_device(batch, CPU)["input_ids"] is batch["input_ids"]
    assert not pins
