"""Moving batches: copies to CUDA go through pinned memory; nothing else is copied."""

import pytest
import torch

from pemeta.utils.devices import _pinned, lacks_memory, to_device

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


@pytest.mark.parametrize(
    ("batch", "device"),
    [({"labels": torch.zeros(2)}, torch.device("mps")), ({"x": torch.zeros(2, device="meta")}, CUDA)],
)
def test_a_copy_that_is_not_from_pinned_memory_waits(batch, device, pins, monkeypatch):
    """On MPS one that does not wait reads memory that may have been used for something else since."""
    waits = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking=False: waits.append(not non_blocking))
    to_device(batch, device)
    assert waits == [True]
    assert not pins


@pytest.mark.parametrize("shape", [(2**45,), (2**62, 2**10)])
def test_what_no_memory_holds_is_told_as_such(shape):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(shape)
    assert lacks_memory(raised.value)


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GiB)"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("unsupported memory format option Preserve"), False),
        (RuntimeError("value cannot be converted to type float without overflow"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_other_errors_that_speak_of_memory_are_not(error, lacks):
    assert lacks_memory(error) is lacks


def test_on_the_cpu_nothing_is_copied(pins):
    batch = {"input_ids": torch.ones(2, 3)}
    assert to_device(batch, CPU)["input_ids"] is batch["input_ids"]
    assert not pins
