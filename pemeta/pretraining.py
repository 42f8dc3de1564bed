"""Pretraining a tiny Transformer on text: the backbone where no downloaded one is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast
from transformers import get_linear_schedule_with_warmup as linear_schedule

from pemeta.errors import ConfigError, DataError, TrainingError
from pemeta.registry import Frozen
from pemeta.seeding import derive_seed
from typing_extensions import Self

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
INIT = 0.05
SINUS = 0.05
SVD = 0.1
IGNORED = -100  # the label that transformers' losses leave out
MIN_WORD_PIECES = 16  # a vocabulary smaller than this cannot even hold the special tokens and a few letters


class TinyTransformer(Frozen):
    """A BERT-shaped encoder and how to pretrain it by masked language modelling (Devlin et al., 2019).

    The mask probability and its 80/10/10 split are Devlin et al.'s. All other defaults are our choice: small
    enough to pretrain on two processor cores in about half a minute.

    Attributes:
        hidden_size: Width of the hidden states.
        layers: Transformer layers.
        heads: Attention heads per layer; they divide ``hidden_size``.
        vocab_size: Most word pieces that the tokenizer may have.
        max_length: Longest sequence of word pieces; longer ones are cut.
        steps: Optimizer steps.
        batch_size: Sentences per step.
        lr: Highest learning rate; it rises over the first tenth of the steps, then falls linearly to zero.
        weight_decay: AdamW's.
        mask_probability: Share of the word pieces to be predicted.
        dropout: On hidden states and attention.
        seed: Initial parameters, order of the sentences, masks and dropout.
    """

    hidden_size: int = Field(default=64, ge=1)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=1500, ge=MIN_WORD_PIECES)
    max_length: int = Field(default=64, ge=4)
    steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    mask_probability: float = Field(default=0.15, gt=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads must divide hidden_size; found {self.heads} heads and width {self.hidden_size}")
        return self


def pretrain(
    texts: Iterable[Sequence[str]], description: TinyTransformer, *, progress: bool = True
) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """A backbone without pooler, and its tokenizer, trained on ``texts``.

    The same arguments give the same parameters on the same machine; the global random state is neither used
    nor changed.

    Args:
        texts: Sentences as words, of all languages together.
        description: The model's shape and its training.
        progress: Show a progress bar with the loss.

    Returns:
        The model in evaluation mode, and the tokenizer. Both come back exactly from ``save_pretrained`` by
        ``AutoModel.from_pretrained(folder, add_pooling_layer=False)`` and ``AutoTokenizer.from_pretrained(folder)``.

    Raises:
        DataError: there is no text.
        TrainingError: the loss is not finite.
    """
    sentences = [list(words) for words in texts if words]
    if not sentences:
        raise DataError("pretraining needs text; found no sentence with a word in it")
    tokenizer = train_tokenizer(sentences, description)
    # fork_rng restores the caller's state; within, the global generator serves initialisation and dropout.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(description.seed, "pretraining", "parameters"))
        model = BertForMaskedLM(_config(tokenizer, description))
        if SINUS:
            _sinus(model)
        losses = _train(model, tokenizer, sentences, description, progress)
    model.eval()
    backbone = model.bert
    backbone.config.architectures = ["BertModel"]
    return backbone, tokenizer


def train_tokenizer(sentences: Iterable[Sequence[str]], description: TinyTransformer) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer (Wu et al., 2016) with at most ``vocab_size`` pieces, for text split into words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("’", "merged_with_previous")]
    )
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=description.vocab_size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator((" ".join(words) for words in sentences), trainer)
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=description.max_length, **names)


def _config(tokenizer: PreTrainedTokenizerFast, description: TinyTransformer) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=description.hidden_size,
        num_hidden_layers=description.layers,
        num_attention_heads=description.heads,
        intermediate_size=4 * description.hidden_size,
        max_position_embeddings=description.max_length,
        initializer_range=INIT,
        hidden_dropout_prob=description.dropout,
        attention_probs_dropout_prob=description.dropout,
        pad_token_id=tokenizer.pad_token_id,
    )


def _train(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    sentences: list[list[str]],
    description: TinyTransformer,
    progress: bool,
) -> list[float]:
    """Train ``model`` in place; the loss of each step."""
    encoded = tokenizer(sentences, is_split_into_words=True, truncation=True, padding=True, return_tensors="pt")[
        "input_ids"
    ]
    if SVD:
        _svd(model, encoded, tokenizer)
    generator = torch.Generator().manual_seed(derive_seed(description.seed, "pretraining", "masks"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=description.lr, weight_decay=description.weight_decay)
    schedule = linear_schedule(optimizer, math.ceil(description.steps / 10), description.steps)
    losses: list[float] = []
    model.train()
    bar = tqdm(range(description.steps), desc="pretraining", unit="step", disable=not progress)
    for step in bar:
        rows = torch.randint(len(encoded), (description.batch_size,), generator=generator)
        loss = _loss(model, *mask(_trimmed(encoded[rows], tokenizer), tokenizer, description, generator))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"the pretraining loss is {losses[-1]} at step {step + 1} of {description.steps}; lower the learning "
                f"rate, which is {description.lr}"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


def _trimmed(ids: Tensor, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """``ids`` without the columns that are padding in every row."""
    return ids[:, : int((ids != tokenizer.pad_token_id).sum(1).max())]


def _loss(model: BertForMaskedLM, ids: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy at the masked places; the vocabulary's logits are computed nowhere else."""
    hidden = model.bert(input_ids=ids, attention_mask=attention).last_hidden_state
    chosen = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.cls(hidden[chosen]), labels[chosen])


def mask(
    ids: Tensor, tokenizer: PreTrainedTokenizerFast, description: TinyTransformer, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Hide word pieces as BERT does: of those chosen, 80 % become ``[MASK]``, 10 % a random piece, 10 % stay.

    Args:
        ids: Word pieces, ``(batch, length)``.
        tokenizer: For its special tokens, which are never chosen.
        description: For its ``mask_probability``.
        generator: Where the choices come from.

    Returns:
        Input ids, attention mask and labels, ``(batch, length)`` each; the label is -100 where nothing is predicted.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=generator) < description.mask_probability) & ~special
    if not chosen.any():  # a tiny batch may choose nothing, and an empty mean is not a number
        chosen = (~special).cumsum(1).eq(1) & ~special
    fate = torch.rand(ids.shape, generator=generator)
    randoms = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=generator)
    hidden = torch.where(fate < 0.8, torch.full_like(ids, int(tokenizer.mask_token_id)), ids)
    hidden = torch.where((fate >= 0.8) & (fate < 0.9), randoms, hidden)
    labels = torch.where(chosen, ids, torch.full_like(ids, IGNORED))
    return torch.where(chosen, hidden, ids), (ids != tokenizer.pad_token_id).long(), labels


def _sinus(model: BertForMaskedLM) -> None:
    table = model.bert.embeddings.position_embeddings.weight
    length, width = table.shape
    rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    with torch.no_grad():
        table.copy_(SINUS * torch.stack((angles.sin(), angles.cos()), -1).flatten(1))


def _svd(model: BertForMaskedLM, ids: Tensor, tokenizer) -> None:
    table = model.bert.embeddings.word_embeddings.weight
    size, width = table.shape
    blocks = []
    for offset in (1, 2):
        left, right = ids[:, :-offset].flatten(), ids[:, offset:].flatten()
        counts = torch.zeros(size, size, dtype=torch.float64)
        counts.index_put_((left, right), torch.ones(len(left), dtype=torch.float64), accumulate=True)
        blocks += [counts, counts.T]
    counts = torch.cat(blocks, 1)
    counts[tokenizer.pad_token_id] = 0
    counts[:, tokenizer.pad_token_id :: size] = 0
    total = counts.sum()
    ppmi = (
        (counts * total / (counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True)).clamp(min=1e-9))
        .clamp(min=1)
        .log()
    )
    values, vectors = torch.linalg.eigh(ppmi @ ppmi.T)
    found = (vectors * values.clamp(min=0) ** 0.25)[:, -width:]
    found = found[:, torch.randperm(width)] * (torch.randint(0, 2, (width,)) * 2 - 1)
    found = SVD * found / found.std()
    with torch.no_grad():
        table.copy_(found.float())
        table[tokenizer.pad_token_id] = 0
