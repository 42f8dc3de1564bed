"""Everything public that can be called, each with a valid call, of which one argument at a time is made wrong."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pandas as pd
import torch
from tiny_models import LABELS, TASKS, data, tiny, with_heads
from tiny_tasks import blocks, hidden, texts
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerBase
from typing_extensions import Unpack, get_type_hints

import pemeta
from pemeta import Adapter, EpisodeSampler, FineTuning, LoRA, MetaPriming, PEModel, PrimingLearner, Sentence
from pemeta.data.sentences import SPLITS
from pemeta.utils.registry import Frozen, Named

SENTENCE = Sentence(("Anna", "met"), ("B-PER", "O"))
TABLES = {split: pd.DataFrame({"tokens": [["Anna", "met"]], "tags": [["B-PER", "O"]]}) for split in SPLITS}
BRIEF = MetaPriming(outer_steps=1, inner_steps=1, support_size=2, query_size=2)
SEAMS = (pemeta.PEMethod, pemeta.PrimingAlgorithm, pemeta.HeadSpec, pemeta.Head, pemeta.Examples)
"""Classes whose methods the library calls, with what it has checked; users call their constructors and ``parse``."""
INSIDE = {
    "state_dict",
    "load_state_dict",
    "named_parameters",
    "train",
    "forward",
    "with_values",
    "transformed",
    "current",
    "problem",
    "check",
    "check_sentence",
    "make_ahead",
}
"""Methods with the signature of PyTorch, and what a learner's clones, the reading of data and priming's loop call."""


class Stage:
    """What valid calls need; models are made anew for each call, because calls change them."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, bert: Path) -> None:
        self.folder, self.tokenizer, self.bert = folder, tokenizer, bert

    def model(self, method: pemeta.PEMethod | None = None) -> PEModel:
        """A tiny BERT with the heads of two tasks."""
        return with_heads(tiny(method or Adapter(bottleneck=4)))

    def fresh(self) -> Any:
        """A tiny BERT to which nothing is attached."""
        model = tiny()
        model.detach(model.method)
        return model.backbone

    @functools.cached_property
    def batch(self) -> dict[str, torch.Tensor]:
        return TASKS[0].train.batch([0, 1])

    @functools.cached_property
    def saved(self) -> Path:
        """A model's folder with its tokenizer and a task."""
        model = self.served()
        model.save_pretrained(self.folder / "saved", self.tokenizer)
        model.save_task(self.folder / "saved" / "tasks" / "cc", "cc")
        return self.folder / "saved"

    def served(self) -> PEModel:
        """A model that fits the tokenizer, with a task."""
        model = PEModel.from_pretrained(self.bert, LoRA(rank=2))
        model.add_head("cc", pemeta.TokenClassification(labels=LABELS.tags))
        return model

    def server(self) -> pemeta.Server:
        return pemeta.Server.load(self.saved, device="cpu")

    @functools.cached_property
    def in_peft(self) -> Path:
        """An adapter in the files of peft."""
        pemeta.save_peft(self.model(LoRA(rank=2)), self.folder / "peft")
        return self.folder / "peft"

    def clone(self) -> PrimingLearner:
        return PrimingLearner(self.model(), inner_lr=0.1).clone("en")

    def loss(self, clone: PrimingLearner) -> torch.Tensor:
        return clone.loss(self.batch, "en")


Call = tuple[Callable[..., Any], dict[str, Any]]
BASES: dict[str, Callable[[Stage], Call]] = {}
"""A valid call of each, by its name in ``pemeta``: what is called, and its arguments."""


def base(*names: str) -> Callable[[Callable[[Stage], Call]], Callable[[Stage], Call]]:
    """A decorator that registers a function as the valid call of a name."""

    def register(make: Callable[[Stage], Call]) -> Callable[[Stage], Call]:
        BASES.update(dict.fromkeys(names, make))
        return make

    return register


def simple(name: str, /, **arguments: Any) -> None:
    """Register a call of a public name, or of its class method, with arguments that no call changes."""
    owner, _, method = name.partition(".")
    found = getattr(pemeta, owner)
    BASES[name] = lambda stage: (getattr(found, method) if method else found, dict(arguments))


def of_model(name: str, /, **arguments: Any) -> None:
    """Register a call of a method of ``PEModel``."""
    BASES[f"PEModel.{name}"] = lambda stage: (getattr(stage.model(), name), dict(arguments))


simple("Prompting", template="chat")
simple("Sentence", words=("Anna", "met"), tags=("B-PER", "O"))
simple("LabelSet", types=("PER", "LOC"))
simple("Corpus", name="aa", labels=LABELS, train=[SENTENCE], validation=[SENTENCE], test=[SENTENCE])
simple("Corpus.from_dataset", data=TABLES, name="aa", types=["PER"])
simple("Task", name="en", train=data(0), make_head=TASKS[0].make_head)
simple("Task.token_classification", name="en", train=data(0))
simple("Task.sequence_classification", name="en", train=texts(0))
simple("Task.causal_lm", name="en", train=blocks(0))
simple("Task.masked_lm", name="en", train=hidden(0))
simple("Episode", task=TASKS[0], support_indices=(0, 1), query_indices=(2, 3))
simple("EpisodeSampler", tasks=TASKS, support_size=2, query_size=2)
simple("Encoded", **{name: getattr(data(0, 2), name) for name in inspect.signature(pemeta.Encoded).parameters})
simple(
    "EncodedTexts", **{name: getattr(texts(0, 2), name) for name in inspect.signature(pemeta.EncodedTexts).parameters}
)
simple("EncodedBlocks", vocab_size=30, input_ids=blocks(0, 2).input_ids, pad_id=0)
simple("EncodedMasked", vocab_size=30, input_ids=hidden(0, 2).input_ids, labels=hidden(0, 2).labels, pad_id=0)
simple("Partition", theta_p=("a",), theta_a=("b",), theta_h=("c",))
simple("CausalLM", vocab_size=30)
simple("MaskedLM", vocab_size=30)
simple("SequenceClassification", labels=("bad", "good"))
simple("TokenClassification", labels=("O", "B-PER"))
simple("CausalLMHead", hidden_size=8, vocab_size=30, output="own")
simple("MaskedLMHead", hidden_size=8, vocab_size=30, output="new")
simple("SequenceClassificationHead", hidden_size=8, num_labels=2)
simple("TokenClassificationHead", hidden_size=8, num_labels=2)
simple("Compose", methods=(LoRA(), pemeta.BitFit()))
simple("Peft", config={"peft_type": "LORA", "target_modules": ["query"]})
BASES["SyntheticWorld.corpus"] = lambda stage: (
    pemeta.SyntheticWorld(train=1, validation=1, test=1).corpus,
    {"language": "aru"},
)
BASES["FineTuning.steps_per_epoch"] = lambda stage: (FineTuning().steps_per_epoch, {"examples": 3})
BASES["FineTuning.steps_of_epochs"] = lambda stage: (
    FineTuning().steps_of_epochs,
    {"train": data(0), "seed": 0, "task": "en"},
)
BASES["PEModel.padded_as"] = lambda stage: (stage.model().padded_as, {"padding": "auto"})
BASES["FineTuning.batches"] = lambda stage: (
    FineTuning().batches,
    {"train": data(0), "seed": 0, "task": "en", "epoch": 0},
)
BASES["FineTuning.parts"] = lambda stage: (FineTuning(micro_batch_size=1).parts, {"indices": np.arange(3)})
BASES["TinyTransformer.configuration"] = lambda stage: (pemeta.TinyTransformer().configuration, {"vocab_size": 30})
for _family, _member in ((pemeta.PEMethod, "lora"), (pemeta.PrimingAlgorithm, "meta")):
    simple(f"{_family.__name__}.parse", value=_member)
simple("HeadSpec.parse", value={"name": "causal_lm", "vocab_size": 30})

of_model("attach", method=LoRA())
of_model("detach", method=Adapter(bottleneck=4))
of_model("add_head", task="ru", make=TASKS[0].make_head)
of_model("share_head", task="ru", owner="en")
of_model("partition", method=Adapter(bottleneck=4))
of_model("state", names=("heads.task_en.classifier.bias",))
of_model("load_state", state={"heads.task_en.classifier.bias": torch.zeros(3)})
of_model("checkpoint_layers", enable=False)
of_model("record_saved_digest", digest="a", saved="b")
of_model("saved_digest", digest="a")
BASES["PEModel.joins"] = lambda stage: (stage.model().joins, {"batches": [stage.batch] * 2})
for _name in ("reuses_hidden_states", "first_layer", "unchanging"):
    of_model(_name, method=Adapter(bottleneck=4))
for _name in ("head", "head_spec", "drop_head", "head_names", "head_prefix", "stored_names", "num_stored",
              "fraction_stored"):  # fmt: skip
    of_model(_name, task="en")
for _name in ("placed", "hidden_states"):
    BASES[f"PEModel.{_name}"] = lambda stage, name=_name: (getattr(stage.model(), name), {"batch": stage.batch})


@base("SyntheticWorld.text")
def _(stage: Stage) -> Call:
    world = pemeta.SyntheticWorld(text_sentences=1)
    return world.text, {"language": "aru"}


@base("Corpus.split")
def _(stage: Stage) -> Call:
    return pemeta.Corpus("aa", LABELS, [SENTENCE], [SENTENCE], [SENTENCE]).split, {"name": "train"}


@base("Episode.supports")
def _(stage: Stage) -> Call:
    return EpisodeSampler(TASKS, 2, 2)[0][0].supports, {"parts": 2}


@base("Episode.parts")
def _(stage: Stage) -> Call:
    return EpisodeSampler(TASKS, 2, 2)[0][0].parts, {"sentences": "query", "size": 1}


@base("Partition.of")
def _(stage: Stage) -> Call:
    module = torch.nn.Linear(2, 2)
    return pemeta.Partition.of, {"module": module, "theta_a": ["bias"], "theta_h": ["weight"]}


@base("tokenizer_digest")
def _(stage: Stage) -> Call:
    return pemeta.tokenizer_digest, {"tokenizer": stage.tokenizer}


@base("encode")
def _(stage: Stage) -> Call:
    return pemeta.encode, {"sentences": [SENTENCE], "labels": LABELS, "tokenizer": stage.tokenizer}


@base("store_sentences")
def _(stage: Stage) -> Call:
    return pemeta.store_sentences, {"sentences": [SENTENCE], "labels": LABELS}


@base("SyntheticWorld.sentences")
def _(stage: Stage) -> Call:
    return pemeta.SyntheticWorld().sentences, {"language": "aru", "split": "test"}


@base("encode_texts")
def _(stage: Stage) -> Call:
    given = {"texts": ["Anna met", "near"], "labels": ["good", "bad"], "classes": ["bad", "good"]}
    return pemeta.encode_texts, {**given, "tokenizer": stage.tokenizer}


@base("encode_completions")
def _(stage: Stage) -> Call:
    given = {"rows": [{"prompt": "Anna met", "completion": "Otto near Rome"}], "max_length": 16}
    return pemeta.encode_completions, {**given, "tokenizer": stage.tokenizer}


@base("encode_prompts")
def _(stage: Stage) -> Call:
    return pemeta.encode_prompts, {"prompts": ["Anna met"], "tokenizer": stage.tokenizer}


@base("Completion")
def _(stage: Stage) -> Call:
    return pemeta.Completion, {"prompt": "Anna met", "completion": "Otto near Rome"}


@base("EncodedCompletions")
def _(stage: Stage) -> Call:
    ids = (torch.tensor([1, 2, 3]),)
    given = {"label_ids": ids, "prompt_ids": ids, "completions": ("Otto",), "pad_id": 0}
    return pemeta.EncodedCompletions, {"vocab_size": 30, "input_ids": ids, **given}


@base("encode_language_model")
def _(stage: Stage) -> Call:
    return pemeta.encode_language_model, {"texts": ["Anna met Otto near Rome"], "tokenizer": stage.tokenizer}


@base("encode_masked_language_model")
def _(stage: Stage) -> Call:
    return pemeta.encode_masked_language_model, {"texts": ["Anna met Otto"], "tokenizer": stage.tokenizer, "seed": 1}


@base("PEModel")
def _(stage: Stage) -> Call:
    return PEModel, {"backbone": stage.fresh(), "method": LoRA(rank=2)}


@base("PEModel.from_pretrained")
def _(stage: Stage) -> Call:
    return PEModel.from_pretrained, {"path": stage.bert, "method": LoRA(rank=2)}


@base("PEModel.save_pretrained")
def _(stage: Stage) -> Call:
    return stage.served().save_pretrained, {"folder": stage.folder / "new", "tokenizer": stage.tokenizer}


@base("PEModel.push_to_hub")
def _(stage: Stage) -> Call:
    return stage.served().push_to_hub, {"repo_id": "some/model", "tokenizer": stage.tokenizer}


@base("PEModel.save_task")
def _(stage: Stage) -> Call:
    return stage.model().save_task, {"folder": stage.folder / "task", "task": "en"}


@base("PEModel.load_task")
def _(stage: Stage) -> Call:
    model = PEModel.from_pretrained(stage.saved)
    return model.load_task, {"folder": stage.saved / "tasks" / "cc"}


@base("PEModel.loss")
def _(stage: Stage) -> Call:
    return stage.model().loss, {"batch": stage.batch, "task": "en"}


@base("PEModel.reusing")
def _(stage: Stage) -> Call:
    return stage.model().reusing, {"batches": [stage.batch]}


@base("PrimingLearner")
def _(stage: Stage) -> Call:
    return PrimingLearner, {"module": stage.model()}


@base("PrimingLearner.clone")
def _(stage: Stage) -> Call:
    return PrimingLearner(stage.model()).clone, {"task": "en"}


@base("PrimingLearner.loss")
def _(stage: Stage) -> Call:
    return stage.clone().loss, {"batch": stage.batch, "task": "en"}


@base("PrimingLearner.adapt")
def _(stage: Stage) -> Call:
    clone = stage.clone()
    return clone.adapt, {"loss": stage.loss(clone)}


@base("PrimingLearner.adapt_to")
def _(stage: Stage) -> Call:
    return stage.clone().adapt_to, {"batches": [stage.batch] * 2, "task": "en"}


@base("prime")
def _(stage: Stage) -> Call:
    return pemeta.prime, {"model": stage.model(), "tasks": TASKS, "algorithm": BRIEF, "progress": False}


@base("finetune")
def _(stage: Stage) -> Call:
    given = {"task": TASKS[0], "validation": data(2, 2), "settings": FineTuning(epochs=1, batch_size=12)}
    return pemeta.finetune, {"model": stage.model(), **given, "progress": False}


for _name in ("evaluate", "predict"):
    BASES[_name] = lambda stage, name=_name: (
        getattr(pemeta, name),
        {"model": stage.model(), "data": data(2, 2), "task": "en"},
    )


@base("pretrain")
def _(stage: Stage) -> Call:
    shape = pemeta.TinyTransformer(hidden_size=8, layers=1, heads=2, vocab_size=20, steps=1, batch_size=2)
    return pemeta.pretrain, {"texts": [["Anna", "met"], ["Otto"]], "description": shape, "progress": False}


@base("to_transformers")
def _(stage: Stage) -> Call:
    return pemeta.to_transformers, {"model": stage.model(LoRA(rank=2)), "task": "en"}


@base("vllm_refusals")
def _vllm_refusals(stage: Stage) -> Call:
    return pemeta.vllm_refusals, {"folder": stage.in_peft, "base": None, "max_lora_rank": 16}


@base("save_peft")
def _(stage: Stage) -> Call:
    return pemeta.save_peft, {"model": stage.model(LoRA(rank=2)), "folder": stage.folder / "other", "task": "en"}


@base("load_peft")
def _(stage: Stage) -> Call:
    return pemeta.load_peft, {"folder": stage.in_peft, "backbone": stage.fresh()}


@base("TaskModel")
def _(stage: Stage) -> Call:
    return pemeta.TaskModel, {"model": stage.model(), "task": "en"}


for _name, _given in (("num_parameters", {"only_trainable": True}), ("activation_checkpointing_enable", {}),
                      ("gradient_checkpointing_enable", {})):  # fmt: skip
    BASES[f"TaskModel.{_name}"] = lambda stage, name=_name, given=_given: (
        getattr(pemeta.TaskModel(stage.model(), "en"), name),
        dict(given),
    )


@base("TaskModel.save_pretrained")
def _(stage: Stage) -> Call:
    return pemeta.TaskModel(stage.model(), "en").save_pretrained, {"folder": stage.folder / "by Trainer"}


@base("TaskModel.generate")
def _(stage: Stage) -> Call:
    config = GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2)
    model = PEModel(GPT2Model(config), LoRA(rank=2))
    model.add_head("lm", pemeta.CausalLM(vocab_size=30))
    task = pemeta.TaskModel(model, "lm")
    return functools.partial(task.generate, max_new_tokens=2), {"inputs": torch.tensor([[5, 6]])}


@base("Server")
def _(stage: Stage) -> Call:
    return pemeta.Server, {"model": stage.served(), "tokenizer": stage.tokenizer}


@base("Server.load")
def _(stage: Stage) -> Call:
    return pemeta.Server.load, {"path": stage.saved, "tasks": ["cc"], "device": "cpu"}


@base("Server.add_task")
def _(stage: Stage) -> Call:
    return stage.server().add_task, {"folder": stage.saved / "tasks" / "cc"}


@base("Server.using")
def _(stage: Stage) -> Call:
    server = stage.server()

    def using(task: str) -> None:
        with server.using(task):
            pass

    return using, {"task": "cc"}


@base("Server.labels_pairs")
def _(stage: Stage) -> Call:
    return stage.server().labels_pairs, {"task": "cc"}


@base("Server.completes")
def _(stage: Stage) -> Call:
    return stage.server().completes, {"task": "cc"}


@base("Server.stream")
def _(stage: Stage) -> Call:
    folder = stage.folder / "completing"
    if not folder.is_dir():
        config = GPT2Config(vocab_size=len(stage.tokenizer), n_embd=8, n_layer=1, n_head=2, n_positions=32)
        model = PEModel(GPT2Model(config), LoRA(rank=2))
        model.add_head("lm", pemeta.CausalLM())
        model.save_pretrained(folder, stage.tokenizer)
        model.save_task(folder / "tasks" / "lm", "lm")
    server = pemeta.Server.load(folder, device="cpu")

    def stream(task: str, prompt: str, max_new_tokens: int | None = None) -> list[str]:
        return list(server.stream(task, prompt, max_new_tokens))

    return stream, {"task": "lm", "prompt": "Anna met", "max_new_tokens": 2}


@base("Server.predict")
def _(stage: Stage) -> Call:
    return stage.server().predict, {"task": "cc", "texts": ["Anna met"]}


@base("load_records")
def _(stage: Stage) -> Call:
    return pemeta.load_records, {"folder": Path(__file__).parents[2] / "benchmarks" / "algorithms" / "results" / "time"}


def public() -> Iterator[str]:
    """Names of everything public that is called with arguments: functions, constructors, and methods of classes."""
    for name in pemeta.__all__:
        found = getattr(pemeta, name)
        if inspect.isfunction(found):
            yield name
        elif inspect.isclass(found) and not issubclass(found, BaseException):
            if not inspect.isabstract(found) and arguments_of(found):
                yield name
            yield from (f"{name}.{method}" for method in methods_of(found))


def methods_of(kind: type) -> Iterator[str]:
    """Names of the public methods of a class that take arguments, but those that only the library calls."""
    if issubclass(kind, SEAMS):
        yield from ["parse"] if issubclass(kind, Named) and "kind" in vars(kind) else []
        return
    own = (one for one in kind.__mro__ if one.__module__.startswith("pemeta.") and one is not Frozen)
    for name in dict.fromkeys(name for one in own for name in vars(one)):
        found = getattr(kind, name)
        is_method = inspect.isroutine(found) and not name.startswith("_") and name not in INSIDE
        takes = [one for one in inspect.signature(found).parameters.values() if one.name != "self"] if is_method else []
        if any(one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in takes):
            yield name


def arguments_of(call: Callable[..., Any]) -> list[str]:
    """Names of the arguments of a function or class, and those of its options."""
    found = []
    for name, one in inspect.signature(call).parameters.items():
        if one.kind is one.VAR_KEYWORD:
            hint = get_type_hints(inspect.unwrap(call))[name] if inspect.isroutine(call) else None
            found += get_type_hints(get_args(hint)[0]) if get_origin(hint) is Unpack else []
        elif one.kind is not one.VAR_POSITIONAL:
            found.append(name)
    return found


def valid_call(name: str, stage: Stage) -> Call:
    """The valid call of a name; settings are valid without arguments."""
    if name in BASES:
        return BASES[name](stage)
    found = getattr(pemeta, name, None)
    assert inspect.isclass(found), f"{name} is public: give it a valid call in {__name__}"
    assert issubclass(found, Frozen), f"{name} is public: give it a valid call in {__name__}"
    return found, {}
