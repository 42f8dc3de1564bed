"""Exchange between processes: on the devices that the group exchanges on, and each process on a GPU of its own."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pemeta.utils.distributed import Processes, process_group


@pytest.fixture
def nccl_alone(monkeypatch):
    """A group of two processes that, as with NCCL alone, takes nothing from the CPU: what it exchanges is recorded."""
    moved, exchanged = [], []

    def to(tensor, *where):
        assert where == ("cuda",)
        moved.append(tensor.clone())
        return moved[-1]

    def exchange(tensor, *_):
        assert any(tensor is one for one in moved), "No backend type associated with device type cpu"
        exchanged.append(tensor.clone())

    monkeypatch.setattr(dist, "get_backend_config", lambda: "cuda:nccl")
    monkeypatch.setattr(dist, "all_reduce", exchange)
    monkeypatch.setattr(dist, "broadcast", exchange)
    monkeypatch.setattr(torch.Tensor, "to", to)
    processes = Processes()
    processes.size = 2
    return processes, exchanged


def test_a_group_of_nccl_alone_exchanges_flags_on_its_own_devices(nccl_alone):
    processes, exchanged = nccl_alone
    assert processes.any(True)
    assert not processes.any(False)
    assert [int(one) for one in exchanged] == [1, 0]


def test_a_group_of_nccl_alone_exchanges_gradients_and_values_on_its_own_devices(nccl_alone):
    processes, exchanged = nccl_alone
    parameters = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.ones(3))]
    parameters[0].grad = torch.tensor([3.0, 4.0])
    processes.sum_gradients(parameters)
    processes.copy_from(1, parameters)
    assert [one.tolist() for one in exchanged] == [[1, 0], [3, 4], [1, 2, 1, 1, 1]]
    assert parameters[0].grad.tolist() == [3, 4]
    assert parameters[1].grad is None


@pytest.mark.parametrize(("backends", "moves"), [("cpu:gloo,cuda:nccl", False), ("cuda:nccl", True)])
def test_values_are_moved_only_where_the_group_does_not_take_them(backends, moves, monkeypatch):
    moved = []
    monkeypatch.setattr(dist, "get_backend_config", lambda: backends)
    monkeypatch.setattr(dist, "all_reduce", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, kind: moved.append(kind) or tensor)
    processes = Processes()
    processes.size = 2
    processes.any(True)
    assert moved == ["cuda"] * moves


@pytest.mark.parametrize(("devices", "chosen"), [(2, [1]), (1, [])])
def test_each_process_starts_on_the_gpu_of_its_number(devices, chosen, monkeypatch):
    """Before the group is made, whose objects go by way of the current GPU; with too few GPUs, on none of them."""
    done = []
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: done.append("group"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with process_group():
        assert done == [*chosen, "group"]
