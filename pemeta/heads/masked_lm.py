"""Masked language modelling: tokens that were hidden, from those around them."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from pemeta.backbone.language_models import find_output
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.output_map import Factors
from pemeta.errors import ConfigError
from pemeta.heads.base import HeadSpec, new_linear
from pemeta.heads.vocabulary import VocabularyHead, word_embedding
from pemeta.utils.signatures import checked

MaskedOutput: TypeAlias = Literal["auto", "pretrained", "new"]


@checked(hidden_size=(1, 2**24), vocab_size=(1, 2**24))
class MaskedLMHead(VocabularyHead):
    """Logits of a token from the hidden state in its place.

    With ``pretrained`` output, the logits are exactly those of transformers' own masked language model, which is in
    θ_p, and the head has no parameters, as with :class:`CausalLMHead`. A ``new`` head is that of BERT (Devlin et al.,
    2019): ``E LayerNorm(gelu(A x + a)) + b`` with the backbone's word embedding E, of V tokens and width W, which stays
    in θ_p, and ``W D + 3 W + V`` parameters of its own: 641 thousand for multilingual BERT's size without the bias of
    each token, which starts at zero.

    Labels are token ids where a token is to be predicted, and -100 elsewhere.

    Args:
        hidden_size: Width D of the hidden states.
        vocab_size: Vocabulary size V; the embedding may have more rows than that, of which the first V are used.
        output: ``pretrained`` or ``new``.
        embedding_size: Width W of the word embedding, for a new head; by default D.

    Raises:
        ConfigError: A new head lacks a vocabulary size.
    """

    output_kind: ClassVar[OutputKind] = "masked_lm"
    shift: ClassVar[int] = 0

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int | None = None,
        output: Literal["pretrained", "new"] = "pretrained",
        embedding_size: int | None = None,
    ) -> None:
        super().__init__(vocab_size, output == "pretrained")
        if output == "pretrained":
            return
        if vocab_size is None:
            raise ConfigError("output='new' has a parameter for each token, and needs vocab_size; found None")
        width = hidden_size if embedding_size is None else embedding_size
        self.dense = new_linear(hidden_size, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def _own_factors(self, hidden: Tensor, backbone: nn.Module) -> Factors:
        weight = self._tied_matrix(backbone)
        return Factors(self.norm(F.gelu(self.dense(hidden))), weight, self.bias, None)

    def check(self, backbone: nn.Module) -> None:
        """Refuse a backbone without a word embedding of at least V rows, or without the pretrained output.

        Raises:
            ModelError: It has none.
        """
        self._check_rows(backbone)
        if self.pretrained:
            self._check_output(backbone)


class MaskedLM(HeadSpec):
    """Description of a :class:`MaskedLMHead`.

    Attributes:
        vocab_size: Vocabulary size V; null for any, with ``pretrained`` output.
        output: ``pretrained``: that of the masked language model which the backbone is a part of; a ``new`` one of the
            task's own, tied to the word embedding; or ``auto``, pretrained where the model carries one, and else new.
        embedding_size: Width of the word embedding, for a new head; null for the backbone's.

    >>> MaskedLM(vocab_size=100, output="new")(hidden_size=8).dense
    Linear(in_features=8, out_features=8, bias=True)
    """

    name: ClassVar[str] = "masked_lm"

    vocab_size: int | None = Field(None, ge=2)
    output: MaskedOutput = "auto"
    embedding_size: int | None = Field(None, ge=1)

    def on(self, backbone: nn.Module) -> Self:
        """The description with what the backbone decides: which output it is, and the sizes of the word embedding."""
        output = self.output
        if output == "auto":
            output = "new" if isinstance(find_output(backbone, "masked_lm"), str) else "pretrained"
        rows, width = word_embedding(backbone).shape
        sizes = {"vocab_size": self.vocab_size or rows, "embedding_size": self.embedding_size or width}
        return self.model_copy(update={"output": output, **sizes})

    def __call__(self, hidden_size: int) -> MaskedLMHead:  # noqa: D102 - inherited
        output: Literal["pretrained", "new"] = "new" if self.output == "new" else "pretrained"
        return MaskedLMHead(hidden_size, self.vocab_size, output, self.embedding_size)
