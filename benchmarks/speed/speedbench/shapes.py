"""The backbones, methods and batches of the benchmark: real shapes, random weights, nothing to download."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import BertConfig, BertModel, PreTrainedModel, XLMRobertaConfig, XLMRobertaModel

from pemeta.data.encoding import Encoded
from pemeta.data.sentences import Sentence
from pemeta.heads import TokenClassification
from pemeta.methods import Adapter, BitFit, LoRA, PEMethod, Prefix
from pemeta.model.pe_model import PEModel
from pemeta.tasks.episodes import Episode, EpisodeSampler
from pemeta.tasks.task import Task
from speedbench.cases import Case
from speedbench.sentences import LABELS, wikiann

REAL = 1000
"""Training sentences of each language that episodes of real ones are drawn from."""


def _minilm(layers: int) -> BertConfig:
    return BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
    )


def _tiny() -> BertConfig:
    return BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def _xlmr_large() -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
    )


CONFIGS: dict[str, Callable[[], BertConfig | XLMRobertaConfig]] = {
    "tiny": _tiny,  # for the tests
    "MiniLM": lambda: _minilm(6),
    "MiniLM-L12": lambda: _minilm(12),
    "mBERT": lambda: BertConfig(vocab_size=119547),
    "XLM-R large": _xlmr_large,
}

METHODS: dict[str, Callable[[], PEMethod]] = {
    "adapter": Adapter,
    "houlsby": lambda: Adapter(placement="houlsby"),
    "lora": LoRA,
    "prefix": Prefix,
    "bitfit": BitFit,
    "houlsby, top 3": lambda: Adapter(placement="houlsby", top_layers=3),
    "lora, top 3": lambda: LoRA(top_layers=3),
    "prefix, top 3": lambda: Prefix(top_layers=3),
}


def task_names(count: int) -> list[str]:
    """The names of the first ``count`` tasks."""
    return [f"task{number}" for number in range(count)]


def make_backbone(shape: str, attention: str = "sdpa") -> PreTrainedModel:
    """A backbone with random weights, the same each time, in evaluation mode."""
    config = CONFIGS[shape]()
    config._attn_implementation = attention
    torch.manual_seed(0)
    if isinstance(config, XLMRobertaConfig):
        return XLMRobertaModel(config, add_pooling_layer=False).eval()
    return BertModel(config, add_pooling_layer=False).eval()


def make_model(case: Case, device: str) -> PEModel:
    """The backbone, method and heads of a case; the same values each time, in evaluation mode.

    PyTorch's fused attention has no second derivative: second order gets eager attention, but for pemeta where the
    method acts on the backbone's output, for which it needs none.
    """
    method = METHODS[case.method]()
    fused = case.first_order or (case.contender == "pemeta" and method.output_only)
    model = PEModel(make_backbone(case.shape, "sdpa" if fused else "eager"), method)
    for name in task_names(case.tasks):
        model.add_head(name, TokenClassification(labels=LABELS.tags))
    set_padding(model, case.padding)
    return model.to(device).eval()


def set_padding(model: PEModel, padding: str) -> None:
    """Let a model's passes run packed or padded.

    Raises:
        NotImplementedError: this version of pemeta knows padding only.
    """
    if hasattr(model, "padding"):
        model.padding = padding
    elif padding != "padded":
        raise NotImplementedError(f"this version of pemeta has no passes that are {padding}")


def episodes_by_round(case: Case) -> Callable[[int], list[Episode]]:
    """The episodes of a round, counted from 0: the same ones each time, or of real sentences others in each round."""
    if case.data == "random":
        episodes = make_episodes(case)
        return lambda number: episodes
    tasks = [
        Task.token_classification(name, _real(case, number)[0]) for number, name in enumerate(task_names(case.tasks))
    ]
    return EpisodeSampler(tasks, case.sentences, case.sentences).__getitem__


def source_of(case: Case) -> str:
    """Where the real sentences of a case are from."""
    return _real(case, 0)[1]


def _real(case: Case, number: int) -> tuple[Encoded, str]:
    """The sentences of a task: English, Spanish, English ..."""
    return wikiann(("en", "es")[number % 2], "train", REAL, CONFIGS[case.shape]().vocab_size)


def make_episodes(case: Case) -> list[Episode]:
    """For each task one episode, with a support and a query set of random tokens and labels, without padding."""
    size = case.sentences
    return [
        Episode(
            Task.token_classification(name, _examples(case, seed)), tuple(range(size)), tuple(range(size, 2 * size))
        )
        for seed, name in enumerate(task_names(case.tasks))
    ]


def _examples(case: Case, seed: int) -> Encoded:
    """Enough sentences for a support and a query set."""
    size = (2 * case.sentences, case.tokens)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, CONFIGS[case.shape]().vocab_size, size, generator=generator)
    tags = torch.randint(len(LABELS), size, generator=generator)
    # Words and tags only matter to readers and scores, and there are none here.
    placeholder = Sentence(("x",) * case.tokens, ("O",) * case.tokens)
    first_tokens = {position: position for position in range(case.tokens)}
    return Encoded(
        sentences=(placeholder,) * len(tokens),
        labels=LABELS,
        input_ids=tuple(tokens),
        label_ids=tuple(tags),
        first_tokens=(first_tokens,) * len(tokens),
        pad_id=0,
        num_truncated=0,
        num_cut_words=0,
    )
