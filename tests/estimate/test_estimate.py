"""`pemeta plan`: its parameters, operations and memory are those of real models and real steps."""

from __future__ import annotations

import json
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, FNetConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "plan"))

import check
from check import Case

from pemeta.errors import ConfigError
from pemeta.estimate import cases, devices, estimate_grid
from pemeta.estimate.cases import PrimingCase, TuningCase
from pemeta.estimate.counter import CostCounter, Kind, Work
from pemeta.estimate.devices import DEVICES, Device, find_device
from pemeta.estimate.fake import Shape, fake_tensors, gpu_dropout
from pemeta.estimate.findings import Memory, Step
from pemeta.estimate.grid import GridEstimate, StageEstimate
from pemeta.estimate.monitor import StepMonitor
from pemeta.estimate.steps import EVALUATED, finetuning_step
from pemeta.estimate.tokens import share_of
from pemeta.experiments.build import Builder
from pemeta.experiments.config_file import load_config
from pemeta.methods import PEMethod
from pemeta.model.pe_model import PEModel
from pemeta.priming.algorithms import FineTunePriming, MetaPriming, PersistentPriming
from pemeta.training.finetuning import FineTuning
from pemeta.training.optimizer import Optimization

ROOT = Path(__file__).parents[2]
ORDERS = ("first", "second", "plain", "finetuning")
SHARED = FineTuning(epochs=2, batch_size=4)


SMALL = Case("tiny", sentences=4, length=16, inner_steps=2)
LONG = [pytest.mark.long]


def tiny_cases() -> list[Case]:
    """Every method, and everything else that changes memory, one at a time; benchmarks/plan/check.py has more pairs."""
    cases = [replace(SMALL, method=method) for method in check.METHODS]
    cases += [replace(SMALL, method=method, order="second") for method in ("adapter", "lora", "full")]
    cases += [replace(SMALL, method=method, order="finetuning") for method in ("adapter", "houlsby", "full")]
    lora = replace(SMALL, method="lora")
    cases += [replace(lora, checkpoint=True, length=64), replace(lora, checkpoint=True, order="second")]
    cases += [replace(lora, attention="eager", length=64), replace(lora, precision="bf16", length=64)]
    cases += [replace(SMALL, order="plain"), *(replace(SMALL, tasks=3, batch_tasks=both) for both in (False, True))]
    cases += [replace(SMALL, method=method, tasks=3, batch_tasks=True) for method in ("lora", "bitfit")]
    cases += [replace(SMALL, sentences=8, packed=True), replace(lora, sentences=8, order="finetuning", packed=True)]
    lm = replace(lora, shape="tiny LM")
    cases += [lm, replace(lm, sentences=12, micro=3), replace(lm, order="finetuning", sentences=8, micro=2)]
    cases += [replace(lm, method="full", order="plain"), replace(lm, sentences=32, length=64)]
    return cases


def of_long_tests(case: Case) -> bool:
    """What takes some seconds: graphs of second order, and what shorter cases have as well."""
    second = case.order == "second" and (case.method, case.checkpoint) != ("adapter", False)
    return second or case.attention == "eager" or case.precision == "bf16" or case.method in ("bitfit", "prefix")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=LONG if of_long_tests(case) else [], id=str(case)) for case in tiny_cases()]
)
def test_a_step_holds_what_the_allocator_measures(case: Case) -> None:
    assert check.estimated(case).total == pytest.approx(check.measured(case), rel=0.03)


def test_a_packed_batch_costs_what_its_rows_do() -> None:
    """Half of a padded batch's positions are tokens, and no more than a tenth of the rows' positions are not."""
    padded = replace(SMALL, method="lora", sentences=16, length=32).priced
    packed = replace(padded, shape=replace(padded.shape, share=0.5), algorithm=packing(padded))
    layout = packed.runs.layout

    assert layout.tokens(16) == pytest.approx(16 * 32 / 2, abs=16)
    assert layout.tokens(16) > 0.9 * layout.positions(16)
    assert 0.45 < packed.step.work.flops / padded.step.work.flops < 0.6
    assert packed.step.memory.activations < 0.65 * padded.step.memory.activations


def packing(case: PrimingCase | TuningCase) -> Any:
    assert isinstance(case, PrimingCase)
    return case.algorithm.model_copy(update={"padding": "packed"})


def test_what_does_not_give_the_same_in_rows_is_planned_padded() -> None:
    case = replace(SMALL, method="adapter").priced
    other = FNetConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, intermediate_size=64)
    found = replace(case, shape=replace(case.shape, backbone=other, attention=None, share=0.5), algorithm=packing(case))
    assert isinstance(found, PrimingCase)
    assert found.runs.padding == "padded"


def test_what_has_no_query_set_has_positions(pemeta: Any, run_config: dict[str, Any]) -> None:
    run_config["priming"] = {"inner_steps": 2, "support_size": 4, "sentences": "both", "query_size": 0}
    found = json.loads(pemeta("plan", run_config, "--device", "a100", "--json").out)
    primed, *tuned = found["stages"]
    assert (primed["positions"], primed["kind"]) == (4 * found["length"], "priming")
    assert all(one["tokens"] > 0 for one in tuned)


def test_a_batch_by_tokens_has_as_many_sentences_as_have_no_more() -> None:
    case = replace(SMALL, order="finetuning", length=32).priced
    assert isinstance(case, TuningCase)
    numbers = {"train": 100, "validation": 0, "test": 0}
    for padding, examples in (("padded", 6), ("packed", 12)):
        settings = FineTuning(epochs=1, max_tokens=200, padding=padding)  # type: ignore[arg-type]
        found = replace(case, shape=replace(case.shape, share=0.5), settings=settings)
        assert found.examples == examples
        assert found.steps(numbers) == -(-100 // examples)  # type: ignore[arg-type]


@pytest.mark.long
def test_checkpointing_takes_nothing_of_what_the_c_library_keeps() -> None:
    """It depends on all that passes, on a processor."""
    lora = replace(SMALL, method="lora", length=64)
    plain, light = lora.priced.step.memory, replace(lora, checkpoint=True).priced.step.memory
    assert light.activations < 0.6 * plain.activations
    assert light.activations + light.passing == plain.activations
    assert find_device("cpu", "cpu").overhead(light) == find_device("cpu", "cpu").overhead(plain)
    case = replace(lora, checkpoint=True).priced
    assert replace(case, shape=replace(case.shape, gpu=True)).step.memory.passing == 0


@pytest.mark.parametrize(("data", "share", "origin"), [("synthetic", None, "data"), ("wikiann", None, "assumed")])
def test_the_share_of_tokens_is_that_of_the_data_or_assumed(
    tmp_path: Path, run_config: dict[str, Any], data: str, share: float | None, origin: str
) -> None:
    config = load_config(_written(tmp_path, {**run_config, **({} if data == "synthetic" else {"data": data})}))
    found = share_of(config)
    assert (found is None) == (origin == "assumed")
    assert found is None or 0.3 < found < 1


def _written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("case", [Case("MiniLM")], ids=str)
def test_a_process_holds_what_is_estimated(case: Case) -> None:
    """One case of benchmarks/plan/check.py, each of which takes more than ten seconds."""
    held, resident = check.in_own_process(case)
    estimate = check.estimated(case)

    assert estimate.total == pytest.approx(held, rel=0.03)
    assert find_device("cpu", "cpu").needs(estimate) == pytest.approx(resident, rel=0.15)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        *(
            pytest.param(method, "first", marks=[] if method in ("adapter", "lora") else LONG)
            for method in check.METHODS
        ),
        *(pytest.param("lora", order, marks=LONG if order == "second" else []) for order in ORDERS[1:]),
    ],
)
def test_the_operations_of_a_step_are_those_that_pytorch_counts(method: str, order: str) -> None:
    # eager attention, because PyTorch's counter does not know the fused kernels of a processor
    case = Case("tiny", method, order, sentences=3, length=8, attention="eager", tasks=3, inner_steps=2)
    with check.step_of(case) as (step, _), FlopCounterMode(display=False) as counter:
        step()

    assert case.priced.step.work.flops == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("method", "algorithm", "forwards"),
    [
        ("adapter", {}, 4),
        ("adapter", {"first_order": False}, 6),
        ("lora", {}, 13),
        ({"name": "lora", "top_layers": 2}, {}, 2 / 3 + 2 / 3 * 5 + 3),
        ("full", {}, 18),
    ],
)
@pytest.mark.long
def test_a_task_costs_so_many_forward_passes(method: Any, algorithm: dict[str, Any], forwards: float) -> None:
    """The table of docs/concepts/speed.md."""
    sizes = {"vocab_size": 100, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    shape = Shape(BertConfig(**sizes, intermediate_size=1536), 32)
    parsed = PEMethod.parse(method)
    one = PrimingCase(shape, parsed, MetaPriming(**algorithm, support_size=8, query_size=8), tasks=1)
    forward = TuningCase(shape, (parsed,), SHARED).passes.whole.flops * 8 / EVALUATED

    assert one.step.work.flops / forward == pytest.approx(forwards, rel=0.05)


def test_tasks_one_after_the_other_cost_as_much_as_they_are_and_hold_no_more() -> None:
    steps = [replace(SMALL, method="lora", tasks=tasks).priced.step for tasks in (2, 4, 6)]

    assert steps[2].work.flops - steps[1].work.flops == steps[1].work.flops - steps[0].work.flops > 0
    assert len({step.memory for step in steps}) == 1


def test_theta_a_of_each_task_is_held_for_all_source_tasks() -> None:
    """θ_a, θ_h and their two moments for every source task, and their gradients for those of a step."""
    case = replace(SMALL, method="lora", order="plain").priced
    assert isinstance(case, PrimingCase)
    few, many = (
        replace(case, algorithm=PersistentPriming(support_size=4, query_size=4), tasks=tasks, sources=sources).step
        for tasks, sources in ((2, 3), (4, 8))
    )
    each = 4 * (few.parameters.theta_a + few.parameters.theta_h)
    assert few.parameters.theta_a == case.step.parameters.theta_a
    assert few.parameters.theta_h == case.step.parameters.theta_h
    assert many.parameters.trained - few.parameters.trained == 5 * each / 4
    assert many.memory.weights - few.memory.weights == 5 * each
    assert many.memory.optimizer - few.memory.optimizer == pytest.approx(10 * each, rel=0.01)  # and step counts
    updates = [one.phases["optimiser's step"].gradients for one in (few, many)]
    assert updates[1] - updates[0] == 2 * each


def test_plain_steps_among_others_hold_and_cost_what_they_do_alone() -> None:
    case = replace(SMALL, method="lora", order="first").priced
    assert isinstance(case, PrimingCase)
    sizes: dict[str, Any] = {"support_size": 8, "query_size": 8, "outer_steps": 8}
    meta, hybrid = (
        replace(case, algorithm=MetaPriming(**sizes, inner_steps=2, hybrid=share)).step for share in (0, 0.25)
    )
    plain = replace(case, algorithm=FineTunePriming(**sizes)).step
    assert hybrid.memory.activations == pytest.approx(plain.memory.activations, rel=0.02)
    assert hybrid.memory.total > 1.2 * meta.memory.total
    expected = 0.75 * meta.work.flops + 0.25 * plain.work.flops
    assert hybrid.work.flops == pytest.approx(expected, rel=0.02)
    assert abs(meta.work.flops - plain.work.flops) > 0.1 * expected


def test_tf32_is_planned_as_such(tmp_path: Path, run_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's operations take as long as their launch and memory do, unless these cost nothing."""
    run_config["settings"] = {"plain": {"method": "lora"}}
    monkeypatch.setattr(devices, "LAUNCH", 0.0)
    monkeypatch.setattr(devices, "BANDWIDTH_SHARE", 1e12)
    plain, tf32 = (estimated(tmp_path, run_config, f"precision={one}", device="h100") for one in ("fp32", "tf32"))
    peaks = DEVICES["h100"].peaks
    assert plain.seconds / tf32.seconds == pytest.approx(peaks["tf32"] / peaks["fp32"], rel=0.01)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_gpu_clips_and_moves_all_parameters_in_a_few_operations() -> None:
    """A CPU takes several for each parameter, and a copy of the largest one."""
    updates = []
    for gpu in (False, True):
        model = replace(SMALL, method="full").priced.shape.model([PEMethod.parse("full")], [])
        with fake_tensors(model, gpu), StepMonitor(model, [n for n, _ in model.named_parameters()], gpu) as monitor:
            for parameter in monitor.trained:
                parameter.grad = torch.zeros_like(parameter)
            monitor.counter.begin()
            held = monitor.counter.held
            monitor.update()
            updates.append(
                (sum(monitor.counter.take_work().values()), monitor.counter.peaks["optimiser's step"].held - held)
            )
    (many, copies), (few, nothing) = updates
    assert few < 20
    assert many > 4 * len(monitor.trained)
    assert nothing < 0.05 * copies


def test_dropout_keeps_a_byte_for_each_value_on_a_gpu() -> None:
    """Of 4 bytes and 1; a CPU keeps another 4, and takes more operations."""
    found = []
    for mode in (nullcontext(), gpu_dropout()):
        with FakeTensorMode(), mode, CostCounter() as counter:
            values = torch.zeros(100, 8, requires_grad=True)
            counter.begin()
            before = counter.held
            out = torch.nn.Dropout(0.1)(values)
            found.append((counter.held - before, sum(counter.work.values())))
            out.sum().backward()
    assert found[1] == (100 * 8 * 5, 1)
    assert found[0][0] == 100 * 8 * 8
    assert found[0][1] > 1


def test_fused_attention_with_dropout_keeps_no_weights_on_a_gpu() -> None:
    def step(gpu: bool, dropout: float) -> Step:
        config = BertConfig(**check.SHAPES["tiny"], intermediate_size=256, attention_probs_dropout_prob=dropout)
        shape = Shape(config, 128, attention="sdpa", gpu=gpu)
        return PrimingCase(shape, PEMethod.parse("adapter"), FineTunePriming(query_size=4, outer_dropout=True), 2).step

    weights = 4 * 4 * 128 * 128 * 4  # sentences, heads, places, bytes
    assert step(True, 0.1).memory.activations == pytest.approx(step(True, 0.0).memory.activations, rel=0.05)
    assert step(False, 0.1).memory.activations > step(False, 0.0).memory.activations + 2 * weights


def test_parts_of_the_memory_are_what_the_parameters_make_them() -> None:
    step = replace(SMALL, method="lora").priced.step
    n, memory = step.parameters, step.phases["query pass"]
    one_head = n.theta_h * 4

    assert memory.gradients == n.trained * 4 == (n.theta_p + n.theta_a) * 4
    assert memory.optimizer == pytest.approx(2 * memory.gradients, rel=0.01)  # and each parameter's number of steps
    assert memory.clone == n.theta_a * 4 + one_head
    buffers = 2 * 512 * 8  # BERT's numbers of positions, and of segments
    assert memory.weights == (n.theta_p + n.theta_a) * 4 + 2 * one_head + buffers
    assert memory.total <= step.memory.total


@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_parameters_in_half_precision_have_float32_values_beside_them(method: str) -> None:
    """Of what moves: two bytes of the parameter and two of its gradient, eight of the moments, four of the value."""
    case = replace(SMALL, method="lora").priced
    assert isinstance(case, PrimingCase)
    shape = replace(case.shape, dtype=torch.bfloat16)
    step = replace(case, shape=shape, method=PEMethod.parse(method)).step
    n, memory = step.parameters, step.phases["query pass"]
    added, own = (n.theta_a, n.theta_p) if method == "lora" else (0, n.theta_p + n.theta_a)
    buffers = 2 * 512 * 8

    assert memory.weights == 2 * own + 4 * added + 2 * 4 * n.theta_h + buffers
    assert memory.gradients == 2 * own + 4 * added
    assert memory.optimizer == pytest.approx(4 * own + 8 * (own + added), rel=0.01)
    assert memory.clone == 4 * (n.theta_a + n.theta_h)

    with torch.random.fork_rng():
        model = PEModel(BertModel(shape.backbone, add_pooling_layer=False).bfloat16(), PEMethod.parse(method))
    moved = [model.get_parameter(name) for name in case.algorithm.trained(model)]
    optimization = Optimization(moved, 1e-3, 10)
    for parameter in moved:
        parameter.grad = torch.zeros_like(parameter)
    optimization.step()
    held = [value for state in optimization.optimizer.state.values() for value in state.values()]
    held += optimization.optimizer.master_values().values()
    assert memory.optimizer == sum(value.nbytes for value in held)


def test_a_configuration_says_what_type_the_backbone_has(run_config: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        config = {**run_config, "backbone": {**run_config["backbone"], "dtype": dtype}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        found.append(estimate_grid(load_config(tmp_path / "config.yaml"), "t4").stages)
    for single, half in zip(*found, strict=True):
        n = single.parameters
        assert single.memory.weights - half.memory.weights == 2 * n.theta_p
        assert half.memory.optimizer - single.memory.optimizer == (4 * n.theta_p if half.kind == "priming" else 0)


def test_the_counter_counts_what_lives_and_what_moves() -> None:
    with FakeTensorMode(), CostCounter() as counter:
        a = torch.ones(8, 4)
        with counter.within("product"):
            b = a @ a.T  # 8 x 8; the transpose is a view
        del b
        with counter.within("sum"):
            total = a.sum()
            assert (total.item(), bool((a > 0).any())) == (1, False)  # nothing has a value

    assert counter.work.flops == 2 * 8 * 8 * 4
    assert counter.work[Kind(torch.float32, 2 * 8 * 8 * 4, 4 * (32 + 32 + 64))] == 1
    assert counter.peaks["product"].held == 4 * (32 + 64)
    assert counter.held == 4 * 32 + 4


def test_a_device_is_as_fast_as_its_data_sheet() -> None:
    device = Device("x", "X", "cuda", 0, {"fp32": 1e12, "tf32": 4e12, "bf16": 8e12, "fp16": 8e12}, 1e11, 1e10)
    launch = Kind(torch.float32, 0, 1)
    products, moves = Kind(torch.bfloat16, 10**12, 1), Kind(torch.float32, 1, 10**10)

    assert device.seconds(Work({products: 2})) == 2 * 1 / (8 * devices.UTILISATION)
    assert device.seconds(Work({moves: 1})) == pytest.approx(0.1 / devices.BANDWIDTH_SHARE)
    assert device.seconds(Work({launch: 3})) == pytest.approx(3 * devices.LAUNCH)
    assert device.exchange_seconds(10**10, 1) == 0
    assert device.exchange_seconds(10**10, 4) == pytest.approx(1.5 / devices.BANDWIDTH_SHARE)


def test_processes_on_a_processor_share_its_memory() -> None:
    memory = Memory(weights=100, activations=100)
    processor = find_device("cpu", "cpu")

    assert processor.needs(memory, copies=50, processes=2) == 2 * (250 + processor.overhead(memory))
    assert DEVICES["h100"].needs(memory, copies=50, processes=2) == 200 + DEVICES["h100"].overhead(memory)


def test_the_configurations_device_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device(None, "cpu", threads=3).title == "this CPU, 3 threads"
    with pytest.raises(
        ConfigError, match=r"'cuda:99' cannot be used here: .*, or name the device of the run with --device, one of"
    ):
        find_device(None, "cuda:99")
    monkeypatch.setattr(devices, "resolve_device", torch.device)
    with pytest.raises(ConfigError, match="the speed of a 'mps' device is unknown; give --device, one of a100, cpu"):
        find_device(None, "mps")
    properties = type("Properties", (), {"name": "NVIDIA H100 80GB HBM3", "total_memory": 7})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert find_device(None, "cuda:1") == replace(DEVICES["h100"], title="NVIDIA H100 80GB HBM3", memory=7)
    for other in ("GeForce 9000", "NVIDIA L40S", "NVIDIA T400 4GB", "NVIDIA GH200 480GB", "NVIDIA H100 PCIe"):
        monkeypatch.setattr(properties, "name", other)
        with pytest.raises(ConfigError, match=f"the speed of a {other} is unknown; give --device with a similar one"):
            find_device(None, "cuda")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("Tesla T4", "t4"),
    ],
)
def test_devices_are_recognised_by_their_whole_names(name: str, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "resolve_device", torch.device)
    properties = type("Properties", (), {"name": name, "total_memory": 7})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert find_device(None, "cuda").name == known


def estimated(tmp_path: Path, run_config: dict[str, Any], *overrides: str, **given: Any) -> GridEstimate:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(run_config), encoding="utf-8")
    return estimate_grid(load_config(path, overrides), **given)


def test_parameters_are_those_of_the_models_that_the_run_makes(tmp_path: Path, run_config: dict[str, Any]) -> None:
    run_config["settings"] = {name: {"method": name, "priming": "meta"} for name in ("adapter", "lora", "full")}
    found = estimated(tmp_path, run_config)
    builder = Builder(load_config(tmp_path / "config.yaml"), tmp_path, say=lambda line: None)

    assert [stage.kind for stage in found.stages] == ["priming"] * 3 + ["fine-tuning"] * 3
    for stage in found.stages:
        [setting] = stage.settings
        model = builder.model(setting, 0)
        for task in builder.sources():
            model.add_head(task.name, task.make_head)
        counts = stage.parameters
        assert counts.theta_a + counts.theta_h == model.num_stored("aa")
        assert counts.stored == model.fraction_stored("aa")
        moved = model.partition().theta_p + model.partition().theta_a if stage.kind == "priming" else ()
        moved = moved or model.stored_names("aa")
        assert counts.trained == sum(p.numel() for name, p in model.named_parameters() if name in set(moved))


def test_what_costs_the_same_is_one_stage(tmp_path: Path, run_config: dict[str, Any]) -> None:
    run_config["settings"] = {
        "plain": {"method": "adapter", "search": {"finetuning.lr": [0.1, 0.2]}},
        "primed": {"method": "adapter", "priming": "meta"},
        "other-rate": {"method": "adapter", "priming": {"name": "meta", "inner_lr": 0.1}},
        "again": {"method": "adapter", "primed_as": "primed"},
    }
    found = estimated(tmp_path, run_config, "seeds=[0, 1]", "targets=[bb, cc]")
    priming, tuning = found.stages

    assert priming.settings == ("primed", "other-rate", "again")
    assert (priming.runs, priming.steps) == (2 * 2, 3)  # rates and seeds
    assert tuning.runs == 4 * 2 * 2 + 2 * 2  # the grid's, and the candidates' on two targets
    assert tuning.steps == 2 * 3  # epochs, and 24 sentences in batches of 8
    assert found.seconds == pytest.approx(priming.seconds + tuning.seconds)


def test_processes_share_tasks_and_runs(tmp_path: Path, run_config: dict[str, Any]) -> None:
    run_config |= {"sources": ["aa", "bb", "cc"], "targets": ["aa", "bb", "cc"]}
    alone, shared = (estimated(tmp_path, run_config, device="h100", world_size=n) for n in (1, 2))
    one, two = alone.stages[0], shared.stages[0]

    assert two.step_flops * 3 == one.step_flops * 2  # the busier process has two of three tasks
    assert two.flops == pytest.approx(one.flops)
    exchange = DEVICES["h100"].exchange_seconds(one.parameters.trained * 4, 2)
    assert one.step_seconds * 0.6 < two.step_seconds - exchange < one.step_seconds * 0.7
    assert shared.seconds == pytest.approx(two.seconds + sum(stage.seconds for stage in shared.stages[1:]) / 2)


def test_processes_share_validation_tasks(
    tmp_path: Path, run_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The busier of two processes fine-tunes on two of three tasks; the cost of a step is computed once."""
    counted: list[object] = []

    def step(*arguments: Any) -> Step:
        counted.append(arguments)
        return finetuning_step(*arguments)

    monkeypatch.setattr(cases, "finetuning_step", step)
    sizes = {"train": 8, "validation": 8, "test": 8}
    few = {**run_config, "settings": {"primed": run_config["settings"]["primed"]}, "source_sizes": sizes}
    validated = {**few, "priming": {**few["priming"], "validate_every": 2}, "validation_tasks": ["xx", "yy", "zz"]}

    def priming(raw: dict[str, Any], world_size: int) -> StageEstimate:
        return estimated(tmp_path, raw, device="h100", world_size=world_size).stages[0]

    one, two = (priming(validated, size).seconds - priming(few, size).seconds for size in (1, 2))
    assert two == pytest.approx(one * 2 / 3)
    assert len(counted) == 2 + 4  # each run's fine-tuning, and that of two validations


def test_a_validation_may_need_the_most_memory(tmp_path: Path, run_config: dict[str, Any]) -> None:
    """Its fine-tuning holds what fine-tuning holds, and priming's moments."""
    brief = {"epochs": 1, "batch_size": 128}
    few = {**run_config, "settings": {"primed": {**run_config["settings"]["primed"], "finetuning": brief}}}
    few["source_sizes"] = {"train": 8, "validation": 8, "test": 8}
    priming = {**few["priming"], "validate_every": 2, "validation_finetuning": brief}
    alone, tuning = estimated(tmp_path, few).stages
    validated = estimated(tmp_path, {**few, "priming": priming, "validation_tasks": ["xx"]}).stages[0]

    assert (validated.fullest, tuning.fullest) == ("validation", "training step")
    assert validated.memory.activations == tuning.memory.activations > alone.memory.activations
    assert validated.memory.optimizer == alone.memory.optimizer + tuning.memory.optimizer
    assert {**validated.phases, "validation": 0} == {**alone.phases, "validation": 0}


def test_lengths_are_the_longest_where_none_is_given(tmp_path: Path, run_config: dict[str, Any]) -> None:
    long, short = estimated(tmp_path, run_config), estimated(tmp_path, run_config, length=8)
    unlimited = estimated(tmp_path, run_config, "max_length=null")

    assert (long.length, long.length_given, short.length, short.length_given) == (32, False, 8, True)
    assert unlimited.length == 32  # of the model's positions
    assert short.stages[0].step_flops < long.stages[0].step_flops / 3


def test_hidden_states_of_streamed_data_are_not_in_memory(
    tmp_path: Path, run_config: dict[str, Any], tiny_bert_dir: Path
) -> None:
    run_config["settings"] = {"head": {"method": "head_only", "finetuning": {"epochs": 2}}}
    memory, file = (
        estimated(tmp_path, run_config, f"streaming={value}", length=16).stages[0].copies for value in ("false", "true")
    )
    width = BertConfig.from_pretrained(tiny_bert_dir).hidden_size
    assert memory - file == 30 * 16 * width * 4  # of 24 sentences to train on, and 6 to validate on


def test_the_command_prints_every_table(pemeta: Any, run_config: dict[str, Any]) -> None:
    outcome = pemeta("plan", run_config, "--device", "h100", "--world-size", "2")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("NVIDIA H100 SXM, 74.5 GiB, 2 processes; 32 tokens per sentence (the longest")
    for words in ("parameters", "memory, MiB", "time", "priming: primed", "fine-tuning: plain and 1 more", "yes"):
        assert words in outcome.out
    assert "1 priming run and 2 fine-tuning runs: about " in outcome.out
    assert "Times assume 50 % of the data sheet's matrix-product rate" in outcome.out
    assert not Path(run_config["output"]).exists()


def test_a_length_beyond_the_backbone_is_refused(pemeta: Any, run_config: dict[str, Any]) -> None:
    outcome = pemeta("plan", run_config, "--length", "100000")
    assert outcome.code == 2
    assert re.search(r"length must be from 1 to \d+, the positions that the backbone has; found 100000", outcome.err)


def test_the_command_prints_json(pemeta: Any, run_config: dict[str, Any]) -> None:
    found = json.loads(pemeta("plan", run_config, "--json", "--length", "16").out)
    stage = found["stages"][0]

    assert (found["device"], found["length"], found["length_given"], found["fits"]) == ("cpu", 16, True, True)
    assert (stage["kind"], stage["settings"], stage["runs"]) == ("priming", ["primed"], 1)
    parts = ("weights", "gradients", "optimizer", "clone", "kept", "activations")
    held = sum(stage["memory"][part] for part in parts)
    assert held == stage["phases"][stage["fullest"]]
    assert stage["needs"] == held + stage["memory"]["overhead"] + stage["copies"]


@pytest.mark.long
def test_what_is_too_large_is_reported_with_remedies(
    pemeta: Any, run_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(DEVICES["t4"], memory=devices.FIXED["cuda"] + 6 * 10**5)
    monkeypatch.setitem(DEVICES, "t4", small)
    run_config["settings"] = {
        "lora": {"method": "lora", "priming": {"name": "meta", "first_order": False, "inner_steps": 1}}
    }
    out = pemeta("plan", run_config, "--device", "t4").out

    assert " NO " in out
    assert "priming: lora needs 0.8 GiB, but the device has 0.8 GiB" in out
    assert "    first_order: true: 0.8 GiB, which " in out
    assert "    support_size: 2 and query_size: 2: " in out
    assert "    max_length: 16: " in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--device", "h1000"], "unknown device 'h1000'; did you mean 'h100'? Known: a100, cpu, h100, h200, l4"),
        (["backbone.path=/no/model"], "cannot load a configuration from '/no/model': there is no such folder; give a"),
        (["data.path=/no/data"], "/no/data"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    refused: Any, run_config: dict[str, Any], words: list[str], expected: str
) -> None:
    assert expected in refused("plan", run_config, *words)


def test_a_prompt_leaves_a_sentence_fewer_positions(tmp_path: Path, run_config: dict[str, Any]) -> None:
    run_config |= {"max_length": 512, "settings": {"own": {"method": {"name": "prompt", "length": 5}}}}
    path = tmp_path / "given.yaml"
    path.write_text(yaml.safe_dump(run_config))
    whole = estimate_grid(load_config(path, ["settings.own.method=lora"])).length

    assert estimate_grid(load_config(path)).length == whole - 5


def test_no_sentence_is_read_where_all_sizes_are_given(pemeta: Any, run_config: dict[str, Any]) -> None:
    run_config |= {"target_sizes": {"train": 16, "validation": 8, "test": 8}, "data": {"name": "conll", "path": "/no"}}

    assert pemeta("plan", run_config).code == 0


@pytest.mark.long
def test_the_example_of_the_how_to_is_what_the_command_prints(pemeta: Any, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "howto" / "devices.md").read_text(encoding="utf-8")
    [configuration] = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    [(command, shown)] = re.findall(
        r"^```console\n\$ pemeta (plan .*?)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE
    )
    path = tmp_path / "plan.yaml"
    path.write_text(configuration, encoding="utf-8")
    shape = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 119547}
    (tmp_path / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    verb, _, *words = command.split()
    out = pemeta(verb, path, f"backbone.path={tmp_path}", *words).out

    number = r"\d[\d,]*\.?\d*"
    assert re.sub(number, "N", out).split() == re.sub(number, "N", shown).split()
    for expected, found in zip(re.findall(number, shown), re.findall(number, out), strict=True):
        assert float(expected.replace(",", "")) == pytest.approx(float(found.replace(",", "")), rel=0.1, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("name", ["demo.yaml", "xlner/paper.yaml", "methods/synthetic.yaml"])
def test_a_shipped_configuration_can_be_planned(tiny_bert_dir: Path, name: str) -> None:
    path = ROOT / "benchmarks" / name
    there = ["backbone.path=" + str(tiny_bert_dir), "max_length=32"] if "paper" in name else []
    found = estimate_grid(load_config(path, there), device="a100")

    config = load_config(path, there)
    runs = len(config.runs) + (len(config.to_search.runs) if config.to_search else 0)
    assert sum(stage.runs for stage in found.stages if stage.kind == "fine-tuning") == runs
    assert all(stage.fits for stage in found.stages)


def test_priming_by_fine_tuning_has_no_clone() -> None:
    case = replace(SMALL, order="plain").priced
    assert isinstance(case, PrimingCase)

    assert isinstance(case.algorithm, FineTunePriming)
    assert {memory.clone for memory in case.step.phases.values()} == {0}
