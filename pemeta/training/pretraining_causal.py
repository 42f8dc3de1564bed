"""Pretraining a tiny causal language model on text, as a backbone that needs no download."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typing_extensions import Self

from pemeta.errors import DataError
from pemeta.training.optimizer import Optimization, check_finite
from pemeta.training.pretraining import INITIAL_STD, one_thread
from pemeta.utils.registry import Frozen
from pemeta.utils.seeding import derive_seed
from pemeta.utils.signatures import checked

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
"""Special tokens in the order of their numbers: padding, and what begins and ends a turn of a chat or a text."""
MIN_VOCAB_SIZE = 256 + 3  # all bytes and the special tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, in which a turn's text stands between its role and the end of the turn."""


class TinyCausalTransformer(Frozen):
    """A Llama-shaped language model and how to pretrain it by predicting the next token (Touvron et al., 2023).

    Its tokenizer is byte-level byte-pair encoding (Radford et al., 2019), so that no text is unknown to it, with the
    tokens and the template of ChatML. All defaults are our choice: small enough to pretrain on two processor cores in
    less than a minute.

    Attributes:
        hidden_size: Width of the hidden states.
        layers: Transformer layers.
        heads: Attention heads per layer; ``hidden_size`` is a multiple of twice their number.
        vocab_size: Maximum size of the tokenizer's vocabulary; all 256 bytes are in it.
        max_length: Maximum number of tokens in a sequence.
        tied: Whether the output map is the word embeddings, as in most small models.
        steps: Number of optimizer steps.
        batch_size: Sequences per step.
        block_size: Tokens of a sequence in pretraining, at most ``max_length``.
        lr: Peak learning rate; it rises over the first tenth of the steps, then falls linearly to zero.
        weight_decay: AdamW's weight decay.
        seed: Seed of initial parameters and of the choice of sequences.
    """

    hidden_size: int = Field(default=64, ge=2)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=800, ge=MIN_VOCAB_SIZE, le=65536)
    max_length: int = Field(default=512, ge=4)
    tied: bool = True
    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=16, ge=1)
    block_size: int = Field(default=128, ge=2)
    lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):  # positions rotate pairs of a head's features
            raise ValueError(
                "hidden_size must be a multiple of twice the heads; found "
                f"{self.heads} heads and width {self.hidden_size}"
            )
        if self.block_size > self.max_length:
            raise ValueError(f"block_size must be at most max_length; found {self.block_size} and {self.max_length}")
        return self

    @checked(vocab_size=1)
    def configuration(self, vocab_size: int) -> LlamaConfig:
        """The model's configuration, with a vocabulary of ``vocab_size`` tokens."""
        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=4 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.max_length,
            initializer_range=INITIAL_STD,
            tie_word_embeddings=self.tied,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


@checked()
def pretrain_causal(
    texts: Iterable[Sequence[str]], description: TinyCausalTransformer, *, progress: bool = True
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a tokenizer and a causal language model on ``texts``.

    The same arguments give the same parameters on the same machine; the global random state is neither used
    nor changed.

    Args:
        texts: Texts as sequences of words, which spaces join; a sequence of one is running text.
        description: The model's shape and its training.
        progress: Show a progress bar with the loss.

    Returns:
        The model in evaluation mode, and the tokenizer. After ``save_pretrained``, both are restored exactly by
        ``AutoModelForCausalLM.from_pretrained(folder)`` and ``AutoTokenizer.from_pretrained(folder)``.

    Raises:
        DataError: there is no text.
        TrainingError: the loss is not finite.
    """
    joined = [text for text in (" ".join(words) for words in texts) if text.strip()]
    if not joined:
        raise DataError("pretraining needs text, but there is none with a letter in it; provide some texts")
    tokenizer = train_byte_tokenizer(joined, description)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.default_generator.manual_seed(derive_seed(description.seed, "causal pretraining", "parameters"))
        model = LlamaForCausalLM(description.configuration(len(tokenizer)))
        _train(model, _stream(joined, tokenizer), description, progress)
    model.eval()
    return model, tokenizer


def train_byte_tokenizer(texts: Iterable[str], description: TinyCausalTransformer) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with at most ``vocab_size`` tokens; it adds no special token to a text itself."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=description.vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        model_max_length=description.max_length,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """The tokens of all texts behind each other, each text with its end."""
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for text in ids for token in (*text, int(tokenizer.eos_token_id))])


def _train(model: LlamaForCausalLM, stream: Tensor, description: TinyCausalTransformer, progress: bool) -> list[float]:
    """Train ``model`` in place on random parts of the texts, and return the loss of each step."""
    generator = torch.Generator().manual_seed(derive_seed(description.seed, "causal pretraining", "texts"))
    steps, warmup = description.steps, math.ceil(description.steps / 10)
    optimization = Optimization(
        model.parameters(), description.lr, steps, description.weight_decay, warmup, max_grad_norm=1.0
    )
    length = min(description.block_size, len(stream) - 1)
    if length < 1:
        return []
    losses: list[float] = []
    model.train()
    bar = tqdm(range(steps), desc="pretraining", unit="step", disable=None if progress else True)
    for step in bar:
        starts = torch.randint(len(stream) - length, (description.batch_size, 1), generator=generator)
        rows = stream[starts + torch.arange(length + 1)]
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        losses.append(loss.item())
        where = f"the pretraining loss at step {step + 1} of {steps}"
        check_finite(losses[-1], where, f"lower the learning rate (now {description.lr})")
        optimization.zero_grad()
        loss.backward()
        optimization.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses
