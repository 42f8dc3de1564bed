"""What the checks have in common: the device, sizes, models and sentences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from pemeta import LabelSet, MetaPriming, PEMethod, PEModel, Sentence, Task
from pemeta.data.encoding import Encoded

LABELS = LabelSet(("PER", "ORG", "LOC"))
TASKS = ("en", "es")
METHODS: dict[str, Any] = {
    "adapter": "adapter",
    "houlsby": {"name": "adapter", "placement": "houlsby"},
    "lora": "lora",
    "prefix": "prefix",
    "prompt": "prompt",
    "bitfit": "bitfit",
    "ia3": "ia3",
    "layer_norm": "layer_norm",
    "full": "full",
    "head_only": "head_only",
}

Finding: TypeAlias = dict[str, Any]
"""What a check says; ``ok`` is False where something is wrong, and absent where it only measures."""
Check: TypeAlias = Callable[["Setting"], Iterator[Finding]]


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: a GPU, or the CPU to try the script itself.
        small: sizes with which everything takes two minutes on a processor.
    """

    device: torch.device
    small: bool

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA's or AMD's."""
        return self.device.type == "cuda"

    @property
    def length(self) -> int:
        """Tokens of the longest sentence; odd, as kernels for rows of 8 like it least."""
        return 9 if self.small else 127

    @property
    def sentences(self) -> int:
        """In a support and in a query set."""
        return 2 if self.small else 16

    @property
    def large(self) -> dict[str, int]:
        """mBERT's layers and vocabulary."""
        return {"layers": 2, "vocabulary": 100} if self.small else {"layers": 12, "vocabulary": 119547}

    def config(
        self, layers: int = 2, vocabulary: int = 100, attention: str = "sdpa", dropout: float = 0.0
    ) -> BertConfig:
        """A BERT of mBERT's width."""
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=24 if self.small else 768,
            num_hidden_layers=layers,
            num_attention_heads=12,
            intermediate_size=48 if self.small else 3072,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            attn_implementation=attention,
        )

    def model(
        self, method: str, dtype: torch.dtype | None = None, device: torch.device | None = None, **sizes: Any
    ) -> PEModel:
        """A model with random weights, the same each time, in evaluation mode."""
        torch.manual_seed(0)
        model = PEModel(BertModel(self.config(**sizes), add_pooling_layer=False), PEMethod.parse(METHODS[method]))
        for task in self.tasks():
            model.add_head(task.name, task.make_head)
        model.autocast_dtype = dtype
        return model.to(device or self.device).eval()

    def data(self, seed: int, number: int, ragged: bool = True, vocabulary: int = 90) -> Encoded:
        """Sentences of random tokens and labels; ragged ones differ in length by up to two tokens."""
        generator = torch.Generator().manual_seed(seed)
        lengths = [self.length - (i % 3 if ragged else 0) for i in range(number)]
        return Encoded(
            sentences=[Sentence(("w",) * length, ("O",) * length) for length in lengths],
            labels=LABELS,
            input_ids=tuple(torch.randint(5, vocabulary, (length,), generator=generator) for length in lengths),
            label_ids=tuple(torch.randint(0, len(LABELS), (length,), generator=generator) for length in lengths),
            first_tokens=tuple({i: i for i in range(length)} for length in lengths),
            pad_id=0,
            num_truncated=0,
            num_cut_words=0,
        )

    def tasks(self, ragged: bool = True, vocabulary: int = 90) -> list[Task]:
        """Two tasks."""
        return [
            Task.token_classification(name, self.data(seed, 8 * self.sentences, ragged, vocabulary))
            for seed, name in enumerate(TASKS)
        ]

    def priming(self, **settings: Any) -> MetaPriming:
        """Priming with the setting's sizes, and by default without dropout."""
        sizes = {"support_size": self.sentences, "query_size": self.sentences, "outer_dropout": False}
        return MetaPriming(**{**sizes, **settings})

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, action: Callable[[], object], times: int = 5) -> float:
        """The median time of an action after two that are not timed."""
        found = []
        for number in range(2 + times):
            begun = time.perf_counter()
            action()
            self.synchronize()
            if number > 1:
                found.append(time.perf_counter() - begun)
        return round(1000 * sorted(found)[times // 2], 3)


def gradients(model: PEModel, algorithm: MetaPriming, tasks: list[Task]) -> dict[str, Tensor]:
    """The outer gradients of a first step, on the CPU."""
    model.zero_grad()
    algorithm.accumulate(model, algorithm.sampler(tasks, 0)[0])
    named = model.named_parameters()
    return {name: p.grad.detach().to_dense().cpu().clone() for name, p in named if p.grad is not None}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of a tensor, of its norm or of a hundredth of the largest one's."""
    if found.keys() != expected.keys():
        return float("inf")
    least = 0.01 * max(float(value.norm()) for value in expected.values())
    return max(float((found[n] - expected[n]).norm()) / max(float(expected[n].norm()), least) for n in expected)
