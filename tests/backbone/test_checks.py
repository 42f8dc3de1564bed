"""Backbones and data that would make priming silently wrong are refused with the reason."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.distributed as dist
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from architectures import backbone
from tiny_models import ADAPTER, TASKS, data, tiny, with_heads
from torch import nn
from transformers import BertConfig, BertModel

from pemeta import (
    BitFit,
    FineTuning,
    HeadOnly,
    LoRA,
    MetaPriming,
    Peft,
    PEModel,
    PrimingLearner,
    Task,
    evaluate,
    finetune,
    prime,
)
from pemeta.errors import ArgumentError, ModelError
from pemeta.model.partition import Partition


@pytest.fixture
def one_process():
    """A process group of one process, as a launcher creates it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# Quantised backbones are in test_quantised.py


@pytest.mark.parametrize("where", ["model", "config", "both"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_declaration_without_quantised_parameters_is_removed(where, architecture, tmp_path):
    """Models that transformers has unpacked from GGUF files have it; left there, what is saved could not be loaded."""
    model = backbone(architecture).float()
    if where != "config":
        model.is_quantized, model.quantization_method = True, "gguf"
    if where != "model":
        model.config.quantization_config = {"quant_method": "gguf", "gguf_file": "some.gguf"}
    saved = PEModel(model, ADAPTER)
    assert not hasattr(model.config, "quantization_config")
    saved.save_pretrained(tmp_path / "model")
    assert PEModel.from_pretrained(tmp_path / "model").method == ADAPTER


def test_half_precision_is_not_quantisation():
    PEModel(backbone("bert").to(torch.bfloat16), ADAPTER)


# Backbones that the peft package has tuned


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # in peft itself
@pytest.mark.parametrize("given", ["its wrapper", "the model that it changed"])
def test_a_backbone_with_a_tuner_of_peft_is_refused(given):
    peft = pytest.importorskip("peft")
    plain = backbone("bert")
    wrapped = peft.get_peft_model(plain, peft.LoraConfig(target_modules=["query"]))
    assert not plain.encoder.layer[0].output.dense.weight.requires_grad  # peft freezes θ_p
    with pytest.raises(ModelError, match=r"already has a tuner of the peft package .*attach the tuner with the "):
        PEModel(wrapped if given == "its wrapper" else plain, HeadOnly())


def test_a_backbone_that_pemeta_tuned_by_peft_is_accepted_after_its_model():
    pytest.importorskip("peft")
    first = PEModel(backbone("bert"), Peft(config={"peft_type": "LORA", "r": 2, "target_modules": ["query"]}))
    plain = first.backbone
    with pytest.raises(ModelError, match="is the backbone of another PEModel, with its method peft"):
        PEModel(plain, HeadOnly())
    del first
    PEModel(plain, HeadOnly())
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]


# Shapes of batches


IDS = torch.tensor([[3, 4, 5], [6, 7, 8]])
MISSHAPEN = {
    "one dimension": ({"input_ids": IDS[0]}, r"found int64 of shape \(3,\)"),
    "floating point": ({"input_ids": IDS.float()}, r"found float32 of shape \(2, 3\)"),
    "no sentence": ({"input_ids": IDS[:0]}, r"found int64 of shape \(0, 3\)"),
    "no token": ({"input_ids": IDS[:, :0]}, r"found int64 of shape \(2, 0\)"),
    "a shorter mask": (
        {"input_ids": IDS, "attention_mask": torch.ones(2, 2)},
        r"shape of input_ids, \(2, 3\); found \(2, 2\)",
    ),
    "a mask to spread": ({"input_ids": IDS, "attention_mask": torch.ones(2, 1)}, r"found \(2, 1\)"),
    "a mask of others": ({"input_ids": IDS, "attention_mask": torch.ones(3, 3)}, r"found \(3, 3\)"),
}


@pytest.mark.parametrize("case", MISSHAPEN)
def test_token_ids_and_masks_of_other_shapes_are_refused(case):
    batch, says = MISSHAPEN[case]
    model = with_heads(tiny())
    for use in (lambda: model(batch, "en"), lambda: model.placed(batch), lambda: model.hidden_states(batch)):
        with pytest.raises(ArgumentError, match=rf"(input_ids|attention_mask) must be .*{says}"):
            use()
    whole = {"input_ids": IDS.int(), "attention_mask": torch.ones(1, 3, dtype=torch.long)}  # of one row for all
    assert model(whole, "en").shape == (2, 3, 3)


# Frozen parameters


def test_priming_refuses_what_is_wholly_frozen():
    """A Trainer may have frozen everything before."""
    model = tiny()
    model.requires_grad_(False)
    few = MetaPriming(outer_steps=1, inner_steps=1, support_size=3, query_size=3)
    with pytest.raises(
        ModelError, match=r"moves backbone\.embeddings\..*, .* and \d+ more, but .* call requires_grad_\(\)"
    ):
        prime(model, TASKS, few, progress=False)
    model.requires_grad_(True)
    prime(model, TASKS, few, progress=False)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_a_clone_adapts_what_is_frozen_and_the_original_gets_no_gradient():
    model = with_heads(tiny())
    frozen = {"backbone.encoder.layer.0.output.dense.weight", "backbone.pemeta_adapter.up.weight"}
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    clone = PrimingLearner(model).clone("en")
    before = clone.adapted_parameters()["backbone.pemeta_adapter.up.weight"]
    data = TASKS[0].train.batch(range(3))
    clone.adapt(clone.loss(data, "en"))
    clone.loss(data, "en").backward()
    assert not torch.equal(clone.adapted_parameters()["backbone.pemeta_adapter.up.weight"], before)
    assert {n for n, p in model.backbone.named_parameters(prefix="backbone") if p.grad is None} == frozen


def test_batch_normalisation_is_refused():
    def head(width):
        return nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 3))

    with pytest.raises(ModelError, match=r"^0 is a BatchNorm1d with running statistics"):
        tiny().add_head("one", head)
    own = backbone("bert")
    own.encoder.extra = nn.BatchNorm1d(2)
    with pytest.raises(ModelError, match=r"encoder\.extra is a BatchNorm1d"):
        PEModel(own, ADAPTER)


def test_a_method_that_a_compiled_graph_would_ignore_is_refused():
    model = PEModel(backbone("bert"), HeadOnly())
    model.backbone.compile(backend="eager")
    with pytest.raises(ModelError, match=r"this BertModel is compiled, .* lora is attached or detached; do this"):
        model.attach(LoRA(rank=2))
    assert model.attached == (HeadOnly(),)
    model.attach(BitFit())  # adds no module
    model = PEModel(backbone("bert"), LoRA(rank=2))
    model.backbone.encoder.compile(backend="eager")
    with pytest.raises(ModelError, match=r"this BertModel is compiled"):
        model.detach(LoRA(rank=2))


def test_a_wrapper_of_torch_compile_is_refused_and_the_remedy_works():
    with pytest.raises(ModelError, match=r"the module is what torch\.compile has made .*; use the module itself"):
        PEModel(torch.compile(backbone("bert"), backend="eager"), ADAPTER)
    model = with_heads(tiny())
    model.backbone = torch.compile(model.backbone, backend="eager")
    with pytest.raises(ModelError, match=r"backbone is what torch\.compile has made of a module"):
        PrimingLearner(model)
    model = with_heads(tiny())
    model.backbone.compile(backend="eager")
    PrimingLearner(model).clone("en").adapt_to([TASKS[0].train.batch([0, 1])], "en")


# More than one device


@pytest.mark.parametrize("spread", [cpu_offload, partial(add_hook_to_module, hook=AlignDevicesHook("cpu"))])
def test_a_backbone_with_hooks_of_accelerate_is_refused(spread):
    hooked = backbone("bert")
    spread(hooked)
    with pytest.raises(ModelError, match="has a forward of its own"):
        PEModel(hooked, ADAPTER)
    model = tiny()
    spread(model.backbone.encoder)
    with pytest.raises(ModelError, match=r"backbone\.encoder.* has a forward of its own"):
        PrimingLearner(model)


def test_data_parallel_is_refused():
    with pytest.raises(ModelError, match="the module is spread over devices by DataParallel"):
        PEModel(nn.DataParallel(backbone("bert")), ADAPTER)
    model = tiny()
    model.backbone.encoder = nn.DataParallel(model.backbone.encoder)
    with pytest.raises(ModelError, match=r"backbone\.encoder is spread over devices by DataParallel"):
        PrimingLearner(model)


def test_distributed_data_parallel_is_refused(one_process):
    wrapped = nn.parallel.DistributedDataParallel(with_heads(tiny()))
    with pytest.raises(ModelError, match="the module is spread over devices by DistributedDataParallel"):
        PrimingLearner(wrapped, partition=Partition.of(wrapped, [], []))
    with pytest.raises(ModelError, match="by DistributedDataParallel, but the inner loop clones"):
        PEModel(nn.parallel.DistributedDataParallel(backbone("bert")), ADAPTER)


def test_fully_sharded_parameters_are_refused(one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    model = with_heads(tiny())
    fully_shard(model.backbone.encoder.layer[0], mesh=mesh)
    with pytest.raises(ModelError, match=r"backbone\.encoder\.layer\.0 is spread over devices by FSDPModule"):
        PrimingLearner(model)
    plain = backbone("bert")
    query = plain.encoder.layer[0].attention.self.query
    query.weight = nn.Parameter(distribute_tensor(query.weight.detach(), mesh))
    with pytest.raises(ModelError, match=r"query\.weight is a DTensor, .*load the model on one device"):
        PEModel(plain, ADAPTER)


# Token ids that the model does not have


@pytest.fixture
def small():
    """A model of 20 tokens; the data of :mod:`tiny_models` has up to 30."""
    return BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)


@pytest.mark.parametrize("method", [ADAPTER, LoRA(rank=2)], ids=["output", "in layers"])
def test_data_of_another_vocabulary_is_refused(small, method):
    def model() -> PEModel:
        return PEModel(BertModel(small, add_pooling_layer=False), method)

    says = r"the data has the token id 2\d, but this model's vocabulary has only 20 tokens \(0 to 19\); encode the data"
    with pytest.raises(ModelError, match=says):
        prime(model(), TASKS, MetaPriming(outer_steps=1, support_size=4, query_size=4), progress=False)
    for settings in (FineTuning(epochs=1), FineTuning(epochs=1, reuse_trunk=False)):
        with pytest.raises(ModelError, match=says):
            finetune(model(), Task.token_classification("en", data(0)), data(1), settings, progress=False)
    with pytest.raises(ModelError, match=says):
        evaluate(with_heads(model()), data(0), "en")


def test_a_negative_token_id_is_refused():
    with pytest.raises(ModelError, match="the data has the token id -1, but"):
        tiny().hidden_states({"input_ids": torch.tensor([[0, -1]])})
