"""The same code on an accelerator: the device of clones, and results equal to the CPU's."""

import pytest
import torch
from tiny_models import TASKS, data, each_method, tiny, with_heads

from pemeta import Adapter, EpisodeSampler, FineTuning, MetaPriming, PrimingLearner, finetune, prime
from pemeta.errors import ConfigError
from pemeta.utils.devices import resolve_device, to_device

DEVICE = resolve_device("auto")


def on_device(method):
    return with_heads(tiny(method, dropout=0.0).float()).to(DEVICE)


def check_clones_live_on_the_device(method):
    model = on_device(method)
    clone = PrimingLearner(model, 0.1).clone("en")
    episode = EpisodeSampler(TASKS, 3, 3)[0][0]
    clone.adapt(clone.loss(to_device(episode.support, model.device), "en"))
    assert {p.device.type for p in clone.adapted_parameters().values()} == {DEVICE.type}
    clone.loss(to_device(episode.query, model.device), "en").backward()
    assert all(p.grad is None or p.grad.device.type == DEVICE.type for p in model.parameters())


def check_same_as_on_the_cpu(method, first_order, **settings):
    algorithm = MetaPriming(inner_steps=3, first_order=first_order, outer_dropout=False, **settings)
    there, here = on_device(method), with_heads(tiny(method, dropout=0.0).float())
    there.checkpoint_layers()
    for model in (there, here):
        algorithm.accumulate(model, algorithm.sampler(TASKS, 0)[0])
    for (name, a), b in zip(there.named_parameters(), here.parameters(), strict=True):
        if not name.startswith("heads."):
            torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.gpu
@each_method
class TestOnWhateverDeviceThereIs:
    """Checks on any device, on the CPU too, so that they are known to be right when a GPU first runs them."""

    def test_clones_live_on_the_device(self, method):
        check_clones_live_on_the_device(method)

    @pytest.mark.parametrize("first_order", [True, False])
    def test_same_as_on_the_cpu(self, method, first_order):
        check_same_as_on_the_cpu(method, first_order, support_size=3, query_size=3)

    @pytest.mark.parametrize("first_order", [True, False])
    def test_all_tasks_and_steps_as_one_batch(self, method, first_order):
        check_same_as_on_the_cpu(
            method, first_order, support_size=2, query_size=3, fresh_support=True, batch_tasks=True
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_in_lower_precision(self, method, dtype):
        model = on_device(method)
        model.autocast_dtype = dtype
        history = prime(model, TASKS, MetaPriming(outer_steps=2, support_size=3, query_size=3), progress=False)
        assert len(history.losses) == 2
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA or MPS device")
def test_priming_resumes_on_the_device_and_fine_tuning_runs(tmp_path):
    """Use dropout in both loops, so that the device's generator matters."""
    algorithm = MetaPriming(outer_steps=4, support_size=3, query_size=3, inner_dropout=True)

    def primed(**checkpoint):
        model = tiny(Adapter(bottleneck=4)).float().to(DEVICE)
        return model, prime(model, TASKS, algorithm, progress=False, **checkpoint)

    path = tmp_path / "checkpoint.safetensors"
    whole, losses = primed()
    primed(checkpoint=path, checkpoint_every=2)  # leaves the checkpoint of step 2
    resumed, again = primed(checkpoint=path)
    assert again.losses[2:] == losses.losses[2:]
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    finetune(whole, TASKS[0], data(7), FineTuning(epochs=2), progress=False)
    assert whole.device.type == DEVICE.type


def test_unavailable_devices_are_refused():
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used here"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="device 'meta' cannot be used here"):
        resolve_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"device 'cuda' cannot be used here: .*; use device: auto or cpu"):
            resolve_device("cuda")
