"""What a public function says of an argument that is not what its annotation says; the whole of it is in faults/."""

from __future__ import annotations

import copy
import pickle
import re
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_models import TASKS, data, tiny, with_heads
from transformers import BatchEncoding

import pemeta
from pemeta import (
    Adapter,
    BitFit,
    CausalLM,
    FineTuning,
    LoRA,
    MetaPriming,
    PrimingLearner,
    SequenceClassification,
    SyntheticWorld,
    TinyTransformer,
)
from pemeta.data.sources import ConllData
from pemeta.errors import ArgumentError, ConfigError, PemetaError
from pemeta.priming.inner_rules import Adam
from pemeta.training.callbacks import EarlyStopping, JsonLog
from pemeta.utils.signatures import checked

BRIEF = MetaPriming(outer_steps=1, inner_steps=1, support_size=2, query_size=2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Adapter(botleneck=4), "Adapter: unknown argument 'botleneck'; did you mean 'bottleneck'? Known: act"),
        (lambda: MetaPriming(outer_step=3), "MetaPriming: unknown argument 'outer_step'; did you mean 'outer_steps'?"),
        (lambda: FineTuning(epoch=3), "FineTuning: unknown argument 'epoch'; did you mean 'epochs'?"),
        (
            lambda: SyntheticWorld(langauges=()),
            "SyntheticWorld: unknown argument 'langauges'; did you mean 'languages'?",
        ),
        (lambda: TinyTransformer(width=3), "TinyTransformer: unknown argument 'width'; Known: batch_size, dropout"),
        (lambda: Adam(beta=0.9), "Adam: unknown argument 'beta'; did you mean 'beta"),
        (lambda: CausalLM(vocabsize=3), "CausalLM: unknown argument 'vocabsize'; did you mean 'vocab_size'?"),
        (lambda: SequenceClassification(), "SequenceClassification: labels: this argument is required"),
        (lambda: Adapter(bottleneck=0), "Adapter: bottleneck: input should be greater than 0; found 0"),
        (
            lambda: Adapter(bottleneck=True),
            "Adapter: bottleneck: input should be a number of at most 64 bits; found True",
        ),
        (
            lambda: Adapter(bottleneck=np.bool_(True)),
            "Adapter: bottleneck: input should be a number of at most 64 bits",
        ),
        (lambda: Adapter(scale=float("nan")), "Adapter: scale: input should be"),
        (lambda: Adapter(scale=np.float32("inf")), "Adapter: scale: input should be"),
        (
            lambda: Adapter(top_layers=1),
            "Adapter: top_layers is 1, but the adapter at the output is outside the layers",
        ),
        (
            lambda: LoRA(rank="four"),
            "LoRA: rank: input should be a valid integer, unable to parse string as an integer",
        ),
        (
            lambda: LoRA(rank=torch.zeros(2, 2)),
            "LoRA: rank: input should be a valid integer; found tensor([[0., 0.], [0., ",
        ),
        (
            lambda: MetaPriming(inner_rule={"name": "adam", "beta": 1}),
            "MetaPriming: inner_rule.beta: unknown key 'beta'",
        ),
        (
            lambda: SyntheticWorld(train=-1),
            "SyntheticWorld: train: input should be greater than or equal to 1; found -1",
        ),
        (lambda: ConllData(path="", types=("PER",)), "ConllData: path: "),
        (
            lambda: ConllData(path="x", types=("PER", "PER")),
            "ConllData: types: a label set needs one or more different",
        ),
    ],
)
def test_settings_made_in_python_say_what_a_configuration_says(make, says):
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}") as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_numbers_of_numpy_and_pytorch_and_paths_are_taken_as_what_they_are():
    assert Adapter(bottleneck=np.int64(4), scale=np.float32(2)) == Adapter(bottleneck=4, scale=2.0)
    assert LoRA(rank=torch.tensor(4)) == LoRA(rank=4)
    assert type(LoRA(rank=torch.tensor(4)).rank) is int
    assert ConllData(path=Path("a") / "b").path == str(Path("a") / "b")
    assert SyntheticWorld(languages=["aru"]) == SyntheticWorld(languages=("aru",))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Adapter(4), "Adapter takes arguments by name only; found 4; give its name. Known: bottleneck, "),
        (lambda: BitFit("all", top=1), "BitFit takes arguments by name only; found 'all'; give its name. Known: none"),
        (lambda: CausalLM(30), "CausalLM takes arguments by name only; found 30; give its name. Known: vocab_size, "),
    ],
)
def test_settings_take_arguments_by_name(make, says):
    with pytest.raises(TypeError, match=f"^{re.escape(says)}"):
        make()


def test_settings_are_copied_and_pickled():
    method = LoRA(rank=2, targets=["query"])
    for one in (copy.deepcopy(method), copy.copy(method), pickle.loads(pickle.dumps(method)), method.model_copy()):
        assert one == method


def test_a_copy_and_a_configuration_go_past_the_constructor():
    method = Adapter(bottleneck=4)
    assert method.model_copy(update={"bottleneck": 8}).bottleneck == 8
    assert Adapter.parse(method.to_config()) == method
    with pytest.raises(
        ConfigError, match=r"^PE method 'adapter': botleneck: unknown key 'botleneck'; .*, name, placement"
    ):
        Adapter.parse({"name": "adapter", "botleneck": 4})


@checked(size=1, share=(0, 1))
def called(
    size: int = 1,
    share: float = 0.5,
    names: Sequence[str] = (),
    pairs: Sequence[tuple[str, int]] = (),
    files: str | Path | Iterable[str | Path] = "",
    mode: Literal["stop", "skip"] | None = None,
    *others: int,
    **more: str,
) -> tuple[object, ...]:
    return size, share, names, pairs, files, mode, others, more


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": "1"}, "called: size must be a whole number of at least 1; found '1'"),
        ({"size": 0}, "called: size must be a whole number of at least 1; found 0"),
        ({"size": True}, "called: size must be a whole number of at least 1; found True"),
        ({"size": 1.5}, "called: size must be a whole number of at least 1; found 1.5"),
        ({"share": 2}, "called: share must be a finite number from 0 to 1; found 2"),
        ({"share": np.float32("nan")}, "called: share must be a finite number from 0 to 1; found nan"),
        ({"names": "ab"}, "called: names must be a list of strings; found 'ab'"),
        ({"names": ["a", None]}, "called: names must be a list of strings; found ['a', None]"),
        ({"names": iter([1])}, "called: names must be a list of strings; found [1]"),
        ({"pairs": [("a", 1, 2)]}, "called: pairs must be a list of tuples of a string, a whole number; found [('a', "),
        ({"files": [3]}, "called: files must be a string or a Path or a list of strings or Path objects; found [3]"),
        ({"mode": "go"}, "called: mode must be 'stop' or 'skip' or None; found 'go'"),
        ({"names": torch.nn.Linear(1, 1)}, "called: names must be a list of strings; found Linear(in_features=1, out_"),
    ],
)
def test_what_is_not_what_the_annotation_says_is_refused(arguments, says):
    with pytest.raises(ArgumentError, match=f"^{re.escape(says)}"):
        called(**arguments)


def test_what_it_says_is_taken():
    given = {"size": np.int32(2), "share": 1, "names": (one for one in "ab"), "pairs": [("a", 1)], "files": {"a": 1}}
    assert called(**given, mode="skip") == (2, 1, ["a", "b"], [("a", 1)], {"a": 1}, "skip", (), {})
    assert called(1, 0.5, (), (), "", None, 3, 4, five="5")[-2:] == ((3, 4), {"five": "5"})


class Folder:
    """A path of another library."""

    def __fspath__(self) -> str:
        return "a/b"


def test_what_is_as_good_as_it_is_taken():
    """Values of dictionaries, arrays, lists in place of tuples, and paths of other libraries."""
    for names in ({1: "a"}.values(), {"a": 1}.keys(), np.array(["a"]), deque(["a"])):
        assert list(called(names=names)[2]) == ["a"]
    assert called(files=Folder())[4] == Path("a/b")
    model = with_heads(tiny())
    name = next(iter(model.state()))
    for names in ([name], (name,), iter([name]), {name: 0}.keys()):
        assert list(model.state(names)) == [name]
    assert pemeta.Partition(["a"], ["b"], []).theta_a == ("b",)
    pemeta.prime(model, {task.name: task for task in TASKS}.values(), BRIEF, progress=False)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda model: pemeta.PEModel(model.backbone, "lora", sead=1),
            "PEModel: unknown argument 'sead'; did you m",
        ),
        (lambda model: pemeta.PEModel(model.backbone, "lora", seed="1"), "PEModel: seed must be a whole number; f"),
        (lambda model: PrimingLearner(model, partition="all"), "PrimingLearner: partition must be a Partition or None"),
        (lambda model: PrimingLearner(model, method="lora"), "PrimingLearner: method must be a PEMethod or None"),
        (lambda model: PrimingLearner(model, rule="sgd"), "PrimingLearner: rule must be an InnerRule or None; found"),
        (lambda model: PrimingLearner(model, fist_order=1), "PrimingLearner: unknown argument 'fist_order'; did you m"),
        (lambda model: pemeta.TaskModel("bert", "en"), "TaskModel takes a PEModel; found 'bert'; load it with PEModel"),
        (lambda model: pemeta.to_transformers(model.backbone, "en"), "to_transformers takes a PEModel; found a BertM"),
        (lambda model: pemeta.save_peft(None, "x"), "save_peft takes a PEModel; found None; make one of a backbone"),
        (lambda model: pemeta.Server.load(model), "Server.load takes a folder or a name on the hub; found a PEModel"),
        (
            lambda model: model.add_head("x", pemeta.TokenClassificationHead),
            "the head of task 'x' is made with the width of the hidden states as the only argument, but TokenClassi",
        ),
        (
            lambda model: model.add_head("x", pemeta.TokenClassificationHead(8, 3)),
            "a head is made for a task, by a HeadSpec or a function of the width of the hidden states; found a TokenCl",
        ),
        (
            lambda model: pemeta.finetune(model, TASKS[0], data(2), checkpoint="."),
            "checkpoint must be a file to write to; found the folder '.'; add a file's name",
        ),
    ],
)
def test_what_models_and_learners_are_not_made_with(call, says):
    with pytest.raises((PemetaError, TypeError), match=f"^{re.escape(says)}"):
        call(with_heads(tiny()))


def test_an_inner_rate_of_any_library():
    for rate in (np.float32(0.25), np.float64(0.25), torch.tensor(0.25), 0.25):
        clone = PrimingLearner(with_heads(tiny(dropout=0)), rate).clone("en")
        assert clone.adapt_to([BATCH, BATCH], "en") == PrimingLearner(with_heads(tiny(dropout=0)), 0.25).clone(
            "en"
        ).adapt_to([BATCH, BATCH], "en")


def test_a_misspelt_argument_of_a_function_or_a_class():
    with pytest.raises(TypeError, match=r"^prime: unknown argument 'algoritm'; did you mean 'algorithm'"):
        pemeta.prime(tiny(), TASKS, algoritm=BRIEF)
    with pytest.raises(TypeError, match=r"^EarlyStopping: unknown argument 'patiance'; did you mean 'patience'"):
        EarlyStopping(patiance=3)
    with pytest.raises(TypeError, match=r"^finetune: missing a required argument: 'validation'"):
        pemeta.finetune(tiny(), TASKS[0])


def test_values_beyond_what_they_can_be():
    with pytest.raises(ArgumentError, match=r"^EarlyStopping: patience must be a whole number of at least 1; found 0"):
        EarlyStopping(patience=0)
    with pytest.raises(PemetaError, match="null byte"):
        JsonLog("a\0b")


class Lazy(Sequence):
    """A sequence that makes its items when asked, each time anew."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= self.length:
            raise IndexError(index)
        return TASKS[0].train.batch([0, 1])


BATCH = TASKS[0].train.batch([0, 1])


@pytest.mark.parametrize("batches", [(BATCH for _ in range(2)), Lazy(2), (BATCH, BATCH), iter([BATCH] * 2)])
def test_batches_of_the_inner_loop_come_in_any_iterable(batches):
    expected = PrimingLearner(with_heads(tiny()), 0.1).clone("en").adapt_to([BATCH, BATCH], "en")
    assert PrimingLearner(with_heads(tiny()), 0.1).clone("en").adapt_to(batches, "en") == expected


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([], "the inner loop needs a batch for each of its steps; found none"),
        (iter([]), "the inner loop needs a batch for each of its steps; found none"),
        (BATCH, "PrimingLearner.adapt_to: batches must be a list of mappings; found {'input_ids': "),
        ([None], "PrimingLearner.adapt_to: batches must be a list of mappings; found [None]"),
    ],
)
def test_what_is_no_batches(batches, says):
    clone = PrimingLearner(with_heads(tiny()), 0.1).clone("en")
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
        clone.adapt_to(batches, "en")


def test_a_batch_of_transformers_is_a_batch():
    model = with_heads(tiny(dropout=0))
    assert torch.equal(model.loss(BatchEncoding(BATCH), "en"), model.loss(BATCH, "en"))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (None, "a batch must be a mapping of names to tensors, such as input_ids; found None"),
        (
            {"input_ids": [[1, 2]]},
            "a batch must be a mapping of names to tensors, such as input_ids; found {'input_ids'",
        ),
        ({"labels": BATCH["labels"]}, "a batch needs inputs of the backbone, such as input_ids; found ['labels']"),
    ],
)
def test_what_is_no_batch(batch, says):
    with pytest.raises(PemetaError, match=f"^{re.escape(says)}"):
        with_heads(tiny()).loss(batch, "en")


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ([], "priming needs one or more source tasks with different names; found []"),
        ([TASKS[0], TASKS[0]], "priming needs one or more source tasks with different names; found ['en', 'en']"),
        (TASKS[0], "prime: tasks must be a list of Task objects; found Task(name='en'"),
        (["en"], "prime: tasks must be a list of Task objects; found ['en']"),
    ],
)
def test_tasks_to_prime_on(tasks, says):
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
        pemeta.prime(tiny(), tasks, BRIEF, progress=False)


def test_a_generator_of_tasks():
    one, other = tiny(), tiny()
    pemeta.prime(one, TASKS, BRIEF, progress=False)
    pemeta.prime(other, (task for task in TASKS), BRIEF, progress=False)
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in one.state().items())


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("task", "en", "finetune: task must be a Task; found 'en'"),
        ("validation", [], "finetune: validation must be an Examples; found []"),
        ("settings", {"epochs": 1}, "finetune: settings must be a FineTuning or None; found {'epochs': 1}"),
        ("seed", "0", "finetune: seed must be a whole number; found '0'"),
        ("progress", "no", "finetune: progress must be True or False; found 'no'"),
        ("checkpoint", 3, "finetune: checkpoint must be a string or a Path or None; found 3"),
        ("checkpoint_every", 0, "checkpoint_every counts steps, 1 or more; found 0"),
        ("not_finite", "go", "finetune: not_finite must be 'stop' or 'skip'; found 'go'"),
    ],
)
def test_what_fine_tuning_is_not_given(argument, value, says):
    given = {"model": tiny(), "task": TASKS[0], "validation": data(2), argument: value}
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
        pemeta.finetune(**given)
