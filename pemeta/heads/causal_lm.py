"""Causal language modelling: the next token from those before it."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.output_map import Factors
from pemeta.backbone.output_matrix import why_not_tied
from pemeta.errors import ConfigError, ModelError
from pemeta.heads.base import HeadSpec
from pemeta.heads.future import hidden_states_without_future
from pemeta.heads.vocabulary import VocabularyHead, word_embedding
from pemeta.utils.signatures import checked

Output: TypeAlias = Literal["pretrained", "tied", "own"]


@checked(hidden_size=(1, 2**24), vocab_size=(1, 2**24))
class CausalLMHead(VocabularyHead):
    """Logits of the next token from the hidden state of a token.

    With ``pretrained`` output, the logits are exactly those of transformers' own language model: its output matrix,
    tied to the word embedding or not, and whatever bias, scale, cap or further map it has. All that is the model's, in
    θ_p (or in θ_a, if a method puts it there), is shared by all tasks, and gets its meta-gradient. The head has no
    parameters: θ_h is empty. The backbone has to come in a whole language model; it may come alone where all parameters
    of that are its own, as in GPT-2.

    Otherwise they are ``W x + b`` over a vocabulary of V tokens. With ``tied`` output, W is the backbone's word
    embedding, and the head is b: ``V`` parameters, 50 257 for GPT-2. That is refused where transformers' own language
    model has another output matrix (most of Llama's kind), or scales, caps or maps its logits further (Gemma 2,
    Granite, Cohere). With ``own`` output, W belongs to the head: ``V D + V`` parameters, 38.6 million for GPT-2's
    width. It starts as a copy of the embedding where that is the output matrix, and else at random. b starts at zero.

    Labels are the input ids themselves, -100 for tokens that are not to be predicted. The loss is that of the labelled
    tokens after the first of each sequence, and predictions are their log-probabilities given the tokens before them.

    Args:
        hidden_size: Width D of the hidden states.
        vocab_size: Vocabulary size V; the embedding may have more rows than that, of which the first V are used. With
            pretrained output there are logits for all rows, and None stands for any number of tokens.
        output: ``pretrained``, ``tied`` or ``own``.

    Raises:
        ConfigError: ``tied`` and ``own`` lack a vocabulary size.
    """

    output_kind: ClassVar[OutputKind] = "causal_lm"
    shift: ClassVar[int] = 1

    def __init__(self, hidden_size: int, vocab_size: int | None = None, output: Output = "pretrained") -> None:
        super().__init__(vocab_size, output == "pretrained")
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if output == "pretrained":
            return
        if vocab_size is None:
            raise ConfigError(f"output={output!r} has a parameter for each token, and needs vocab_size; found None")
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        if output == "own":
            self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size).normal_(std=0.02))

    def _own_factors(self, hidden: Tensor, backbone: nn.Module) -> Factors:
        weight = self._tied_matrix(backbone) if self.weight is None else self.weight
        return Factors(hidden, weight, self.bias, None)

    def check(self, backbone: nn.Module) -> None:
        """Refuse a backbone without a suitable output, or one that sees the tokens that it has to predict.

        Raises:
            ModelError: There is no word embedding, it has fewer than V rows or another width than the hidden
                states, it is not the output matrix that it is to be, the hidden state of a token depends on a later
                one, or there is no pretrained output.
        """
        self._check_rows(backbone)
        embedding = word_embedding(backbone)
        rows, width = embedding.shape
        values = not embedding.is_meta and not (self.bias is not None and self.bias.is_meta)
        if values:  # without them there is nothing to test
            hidden = hidden_states_without_future(backbone, rows)
            if self.bias is not None and self.weight is None and hidden.shape[-1] != width:
                raise ModelError(
                    f"the word embedding of {type(backbone).__name__} is {width} wide but its hidden states are "
                    f"{hidden.shape[-1]} wide, so it cannot serve as the output matrix; use a head with output='own'"
                )
        if self.pretrained:
            self._check_output(backbone)
        elif self.weight is None and (why := why_not_tied(backbone)):
            raise ModelError(
                f"output='tied' takes the word embedding as the output matrix, but {why}; use output='pretrained', for "
                "which the model is made of the whole language model, or output='own', a matrix of the task's own"
            )

    def start_from(self, backbone: nn.Module) -> None:
        """Copy the embedding into W, if the head has its own W and the embedding is the pretrained output matrix."""
        if self.weight is None:
            return
        embedding = word_embedding(backbone)[: len(self.weight)]
        if embedding.shape == self.weight.shape and not why_not_tied(backbone):
            with torch.no_grad():
                self.weight.copy_(embedding)


class CausalLM(HeadSpec):
    """Description of a :class:`CausalLMHead`.

    Attributes:
        vocab_size: Vocabulary size V; null for any, with ``pretrained`` output.
        output: ``pretrained``: that of the language model which the backbone is a part of, with no parameters per task;
            ``tied`` to the backbone's word embedding (V parameters per task); or an ``own`` matrix of the task (V D + V
            parameters).

    >>> sum(p.numel() for p in CausalLM()(hidden_size=8).parameters())
    0
    >>> sum(p.numel() for p in CausalLM(vocab_size=100, output="own")(hidden_size=8).parameters())
    900
    """

    name: ClassVar[str] = "causal_lm"

    vocab_size: int | None = Field(None, ge=2)
    output: Output = "pretrained"

    @model_validator(mode="after")
    def _needs_size(self) -> Self:
        if self.vocab_size is None and self.output != "pretrained":
            raise ValueError(f"vocab_size must be given with output {self.output!r}, which has parameters for each")
        return self

    def __call__(self, hidden_size: int) -> CausalLMHead:  # noqa: D102 - inherited
        return CausalLMHead(hidden_size, self.vocab_size, self.output)
