"""Pretraining a tiny Transformer on text, as a backbone that needs no download."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast
from typing_extensions import Self

from pemeta.errors import DataError
from pemeta.training.optimizer import Optimization, check_finite
from pemeta.typing import IGNORE_INDEX
from pemeta.utils.registry import Frozen
from pemeta.utils.seeding import derive_seed
from pemeta.utils.signatures import checked

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
PAD_ID = 0  # the first special token
APOSTROPHE = "’"
CONTINUED = "##"  # marks a token that does not start a word
INITIAL_STD = 0.05  # of new parameters; BERT's 0.02 suits widths near 768 and slows a narrow model's start
NEIGHBOUR_STD = 0.1  # of the initial word embeddings
MIN_VOCAB_SIZE = 16  # a smaller vocabulary could not even hold the special tokens and a few letters


class TinyTransformer(Frozen):
    """A BERT-shaped encoder and how to pretrain it by masked language modelling (Devlin et al., 2019).

    The mask probability and its 80/10/10 split are Devlin et al.'s. All other defaults are our choice: small
    enough to pretrain on two processor cores in less than a minute. For this to suffice, the word embeddings are not
    initialised at random but from the co-occurrence of neighbouring tokens in the text: singular vectors of the
    positive pointwise mutual information (Levy and Goldberg, 2014). Words with similar use start out similar.

    Attributes:
        hidden_size: Width of the hidden states.
        layers: Transformer layers.
        heads: Attention heads per layer; they divide ``hidden_size``.
        vocab_size: Maximum size of the tokenizer's vocabulary; at most 4096, since the initialisation costs its cube.
            Of more letters than fit in twice, at a word's start and within, it has the most frequent, and words with
            others are unknown.
        max_length: Maximum number of tokens in a sequence; longer ones are cut.
        steps: Number of optimizer steps.
        batch_size: Sentences per step.
        lr: Peak learning rate; it rises over the first tenth of the steps, then falls linearly to zero.
        weight_decay: AdamW's weight decay.
        mask_probability: Fraction of the tokens to be predicted.
        dropout: Dropout probability on hidden states and attention.
        seed: Seed of initial parameters, order of the sentences, masks and dropout.
    """

    hidden_size: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=800, ge=MIN_VOCAB_SIZE, le=4096)
    max_length: int = Field(default=64, ge=4)
    steps: int = Field(default=1800, ge=1)
    batch_size: int = Field(default=32, ge=1)
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

    @checked(vocab_size=1)
    def configuration(self, vocab_size: int) -> BertConfig:
        """The model's configuration, with a vocabulary of ``vocab_size`` tokens."""
        return BertConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.hidden_size,
            max_position_embeddings=self.max_length,
            initializer_range=INITIAL_STD,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=PAD_ID,
        )


@checked()
def pretrain(
    texts: Iterable[Sequence[str]], description: TinyTransformer, *, progress: bool = True
) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Train a tokenizer and a backbone without a pooler on ``texts``.

    The same arguments give the same parameters on the same machine; the global random state is neither used
    nor changed.

    Args:
        texts: Sentences as sequences of words, of all languages together.
        description: The model's shape and its training.
        progress: Show a progress bar with the loss.

    Returns:
        The model in evaluation mode, and the tokenizer. After ``save_pretrained``, both are restored exactly by
        ``AutoModel.from_pretrained(folder, add_pooling_layer=False)`` and ``AutoTokenizer.from_pretrained(folder)``.

    Raises:
        DataError: there is no text.
        TrainingError: the loss is not finite.
    """
    sentences = [list(words) for words in texts if words]
    if not sentences:
        raise DataError("pretraining needs text, but there is no sentence with a word in it; provide some sentences")
    tokenizer = train_tokenizer(sentences, description)
    # fork_rng restores the caller's state; within, the global generator serves initialisation and dropout.
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.default_generator.manual_seed(derive_seed(description.seed, "pretraining", "parameters"))
        model = BertForMaskedLM(description.configuration(len(tokenizer)))
        _train(model, tokenizer, sentences, description, progress)
    model.eval()
    backbone = model.bert
    backbone.config.architectures = ["BertModel"]
    return backbone, tokenizer


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, because more do not help such small matrices, and are slow on a busy machine.

    This also makes the result independent of the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_tokenizer(sentences: Iterable[Sequence[str]], description: TinyTransformer) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer (Wu et al., 2016) with at most ``vocab_size`` tokens, for text split into words.

    A token also ends after an apostrophe, as in *l’eau*.
    """
    texts, letters = _common_letters([" ".join(words) for words in sentences], description.vocab_size)
    # The trainer numbers the inner letters in the order of a hash table and breaks ties by number, so its vocabulary
    # would differ each time. It keeps the order of special tokens, so the letters are passed as such, then dropped.
    trainer = trainers.WordPieceTrainer(
        vocab_size=description.vocab_size,
        special_tokens=[*SPECIAL.values(), *(CONTINUED + letter for letter in letters)],
        continuing_subword_prefix=CONTINUED,
        show_progress=False,
    )
    found = _word_piece({token: i for i, token in enumerate(SPECIAL.values())})
    found.train_from_iterator(texts, trainer)
    tokenizer = _word_piece(found.get_vocab())
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=description.max_length, **names)


def _common_letters(texts: list[str], vocab_size: int) -> tuple[list[str], list[str]]:
    """The words of texts whose letters fit into a vocabulary, and these letters in order."""
    counts = Counter(letter for text in texts for letter in text if not letter.isspace())
    most = (vocab_size - len(SPECIAL)) // 2
    if len(counts) <= most:
        return texts, sorted(counts)
    # The trainer's own limit would break ties in the order of a hash table.
    letters = sorted(counts, key=lambda letter: (-counts[letter], letter))[:most]
    common = set(letters)
    return [" ".join(word for word in text.split() if common.issuperset(word)) for text in texts], sorted(letters)


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk"], continuing_subword_prefix=CONTINUED))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(APOSTROPHE, "merged_with_previous")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUED)
    return tokenizer


def _train(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    sentences: list[list[str]],
    description: TinyTransformer,
    progress: bool,
) -> list[float]:
    """Train ``model`` in place, and return the loss of each step."""
    encoded = tokenizer(sentences, is_split_into_words=True, truncation=True, padding=True, return_tensors="pt")[
        "input_ids"
    ]
    encoded = encoded[_ordinary(encoded, tokenizer).any(1)]  # the others have nothing to predict
    if not len(encoded):
        return []
    _start_from_neighbours(model.bert.embeddings.word_embeddings.weight, encoded)
    generator = torch.Generator().manual_seed(derive_seed(description.seed, "pretraining", "masks"))
    steps, warmup = description.steps, math.ceil(description.steps / 10)
    optimization = Optimization(
        model.parameters(), description.lr, steps, description.weight_decay, warmup, max_grad_norm=1.0
    )
    losses: list[float] = []
    model.train()
    bar = tqdm(range(description.steps), desc="pretraining", unit="step", disable=None if progress else True)
    for step in bar:
        rows = torch.randint(len(encoded), (description.batch_size,), generator=generator)
        loss = _loss(model, *mask(_trimmed(encoded[rows]), tokenizer, description, generator))
        losses.append(loss.item())
        where = f"the pretraining loss at step {step + 1} of {steps}"
        check_finite(losses[-1], where, f"lower the learning rate (now {description.lr})")
        optimization.zero_grad()
        loss.backward()
        optimization.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


@torch.no_grad()
def _start_from_neighbours(table: Tensor, ids: Tensor) -> None:
    """Initialise ``table``, ``(tokens, width)``, from the tokens one and two positions before and after each token."""
    size, width = table.shape
    counts = []
    for distance in (1, 2):
        pairs = ids[:, :-distance].flatten() * size + ids[:, distance:].flatten()
        before = torch.bincount(pairs, minlength=size * size).view(size, size).double()
        before[PAD_ID] = before[:, PAD_ID] = 0
        counts += [before, before.T]
    joint = torch.cat(counts, 1)
    expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / joint.sum()
    information = (joint / expected.clamp(min=1e-9)).clamp(min=1).log()
    # Left singular vectors times the square roots of their values, through the smaller symmetric matrix.
    values, vectors = torch.linalg.eigh(information @ information.T)
    found = (vectors * values.clamp(min=0) ** 0.25)[:, -width:]
    table[:, : found.shape[1]] = (NEIGHBOUR_STD * found / found.std().clamp(min=1e-9)).to(table)
    table[PAD_ID] = 0


def _ordinary(ids: Tensor, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Which ids are not those of special tokens, to which words count that the vocabulary does not have."""
    return ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))


def _trimmed(ids: Tensor) -> Tensor:
    """``ids`` without the columns that are padding in every row."""
    return ids[:, : int((ids != PAD_ID).sum(1).max())]


def _loss(model: BertForMaskedLM, ids: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy at the masked positions, which are the only ones where logits are computed."""
    hidden = model.bert(input_ids=ids, attention_mask=attention).last_hidden_state
    chosen = labels != IGNORE_INDEX
    return torch.nn.functional.cross_entropy(model.cls(hidden[chosen]), labels[chosen])


def mask(
    ids: Tensor, tokenizer: PreTrainedTokenizerFast, description: TinyTransformer, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask tokens as BERT does: of those chosen, 80 % become ``[MASK]``, 10 % a random token, and 10 % are kept.

    Args:
        ids: Token ids, ``(batch, length)``.
        tokenizer: The tokenizer, whose special tokens are never chosen.
        description: The model's description, for its ``mask_probability``.
        generator: Random generator of the choices.

    Returns:
        Input ids, attention mask and labels, ``(batch, length)`` each; labels are -100 where nothing is predicted.
    """
    ordinary = _ordinary(ids, tokenizer)
    chosen = (torch.rand(ids.shape, generator=generator) < description.mask_probability) & ordinary
    if not chosen.any():  # a tiny batch may choose nothing, and an empty mean is not a number
        chosen = ordinary.cumsum(1).eq(1) & ordinary
    fate = torch.rand(ids.shape, generator=generator)
    randoms = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=generator)
    hidden = torch.where(fate < 0.8, torch.full_like(ids, int(tokenizer.mask_token_id)), ids)
    hidden = torch.where((fate >= 0.8) & (fate < 0.9), randoms, hidden)
    labels = torch.where(chosen, ids, torch.full_like(ids, IGNORE_INDEX))
    return torch.where(chosen, hidden, ids), (ids != PAD_ID).long(), labels
