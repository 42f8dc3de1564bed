"""Causal language modelling: the next token from those before it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pemeta.backbone.output_matrix import why_not_tied
from pemeta.errors import ModelError, reason
from pemeta.heads.base import (
    Head,
    HeadSpec,
    has_labels,
    labels_of,
    mean_cross_entropy,
    mean_over_labels,
    number_labelled,
)
from pemeta.heads.labelled import fits, labelled_places, summed_cross_entropy
from pemeta.typing import IGNORE_INDEX, Batch
from pemeta.utils.modules import calls_only, modes_kept, parts_with
from pemeta.utils.precision import HALF, casts_itself, wide
from pemeta.utils.signatures import checked

Output: TypeAlias = Literal["tied", "own"]


@checked(hidden_size=(1, 2**24), vocab_size=(1, 2**24))
class CausalLMHead(Head):
    """Logits of the next token from the hidden state of a token: ``W x + b`` over a vocabulary of V tokens.

    With ``tied`` output, W is the backbone's word embedding, as in GPT-2. It stays in θ_p (or in θ_a, if a method
    puts it there), is shared by all tasks, and gets its meta-gradient through the backbone as well as from here; the
    head itself is b: ``V`` parameters, 50 257 for GPT-2. That is refused where transformers' own language model has
    another output matrix (most of Llama's kind), or scales, caps or maps its logits further (Gemma 2, Granite, Cohere).
    With ``own`` output, W belongs to the head: ``V D + V`` parameters, 38.6 million for GPT-2's width. It starts as a
    copy of the embedding where that is the output matrix, and else at random; copy a pretrained output matrix into
    ``weight`` to start from that instead, in logits without any scaling or cap.

    b starts at zero.

    Args:
        hidden_size: Width D of the hidden states.
        vocab_size: Vocabulary size V; the embedding may have more rows than that, of which the first V are used.
        output: ``tied`` or ``own``.
    """

    def __init__(self, hidden_size: int, vocab_size: int, output: Output = "tied") -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size).normal_(std=0.02)) if output == "own" else None

    def forward(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """Logits (B, T, V) from hidden states (B, T, D); those at a position are for the token that comes next."""
        return self._logits(hidden, backbone)

    def _logits(self, hidden: Tensor, backbone: nn.Module) -> Tensor:
        weight = self._matrix(backbone)
        if weight.dtype in HALF and not casts_itself(hidden):  # an embedding in half precision; b is in float32
            return F.linear(hidden.to(weight.dtype), weight) + self.bias
        return F.linear(hidden, weight, self.bias)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the labelled tokens of (B, T) after the first; 0 without any, and without a gradient.

        ``labels`` are the input ids themselves, -100 for tokens that are not to be predicted.

        Raises:
            DataError: There is no label to learn from, or a label is no token of the vocabulary.
        """
        return mean_cross_entropy(logits[:, :-1], labels_of(batch)[:, 1:])

    def _matrix(self, backbone: nn.Module) -> Tensor:
        """W (V, D)."""
        if self.weight is not None:
            return self.weight
        weight = _embedding(backbone)
        # Not a slice of all rows: its gradient would be copied into another matrix of that size.
        return weight if len(weight) == len(self.bias) else weight[: len(self.bias)]

    @property
    def learns_from_few(self) -> bool:
        """Whether logits and loss are this class's own; then few positions may be labelled, while V is large."""
        return calls_only(self, CausalLMHead.forward) and type(self).loss is CausalLMHead.loss

    def loss_of(self, hidden: Tensor, batch: Batch, backbone: nn.Module) -> Tensor:
        """The loss from hidden states (B, T, D), with logits at labelled positions only.

        Where even these are large, they are computed in chunks, and again in each backward pass, so that what is held
        of them at a time is no more than one chunk (``pemeta.heads.labelled``).

        Raises:
            DataError: As :meth:`loss`.
        """
        labels, classes = labels_of(batch), len(self.bias)
        places = labelled_places(labels) if labels.shape == hidden.shape[:2] else None
        if places is None:
            return super().loss_of(hidden, batch, backbone)
        rows = hidden.flatten(0, 1).index_select(0, places - 1)
        own = labels.flatten().index_select(0, places)
        has_labels.note(own, len(own) > 0)
        if fits(len(rows), classes):
            logits = self._logits(rows, backbone)
            return mean_cross_entropy(logits.float() if casts_itself(hidden) else wide(logits), own)
        parts = self._as_multiplied(rows, backbone)
        return mean_over_labels(lambda: summed_cross_entropy(*parts, own), own, torch.Size([len(rows), classes]))

    def _as_multiplied(self, hidden: Tensor, backbone: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, W and b in the types that :meth:`forward` computes in."""
        weight = self._matrix(backbone)
        if casts_itself(hidden) and hidden.dtype != torch.float64:
            kind = torch.get_autocast_dtype(hidden.device.type)
            return hidden.to(kind), weight.to(kind), self.bias.to(kind)
        return hidden.to(weight.dtype) if weight.dtype in HALF else hidden, weight, self.bias

    def labelled(self, batch: Batch) -> float:
        """Number of labelled tokens after the first of each row."""
        return number_labelled(labels_of(batch)[:, 1:])

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Natural log-probability (B, T) of each token given those before it, from logits (B, T, V).

        0 for unlabelled tokens, and at the first position, which has no context.
        """
        labels = batch["labels"][:, 1:]
        nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
        return F.pad(-nll, (1, 0))

    def check(self, backbone: nn.Module) -> None:
        """Refuse a backbone without a suitable word embedding, or one that sees the tokens that it has to predict.

        Raises:
            ModelError: There is no word embedding, it has fewer than V rows or another width than the hidden
                states, it is not the output matrix that it is to be, or the hidden state of a token depends on a later
                one.
        """
        rows, width = _embedding(backbone).shape
        if rows < len(self.bias):
            raise ModelError(
                f"the head predicts {len(self.bias)} tokens, but the word embedding of {type(backbone).__name__} has "
                f"{rows} rows; encode with the tokenizer of this backbone"
            )
        if self.bias.is_meta or _embedding(backbone).is_meta:
            self._refuse_other_output(backbone)
            return  # without values there is nothing else to test
        hidden = _hidden_states_without_future(backbone, rows)
        if self.weight is None and hidden.shape[-1] != width:
            raise ModelError(
                f"the word embedding of {type(backbone).__name__} is {width} wide but its hidden states are "
                f"{hidden.shape[-1]} wide, so it cannot serve as the output matrix; use a head with output='own'"
            )
        self._refuse_other_output(backbone)

    def _refuse_other_output(self, backbone: nn.Module) -> None:
        """Refuse logits that are not those of the pretrained language model."""
        if self.weight is None and (why := why_not_tied(backbone)):
            raise ModelError(
                f"output='tied' takes the word embedding as the output matrix, but {why}; use output='own', a matrix "
                "of the task's own"
            )

    def start_from(self, backbone: nn.Module) -> None:
        """Copy the embedding into W, if the head has its own W and the embedding is the pretrained output matrix."""
        embedding = _embedding(backbone)[: len(self.bias)]
        if self.weight is not None and embedding.shape == self.weight.shape and not why_not_tied(backbone):
            with torch.no_grad():
                self.weight.copy_(embedding)


class CausalLM(HeadSpec):
    """Description of a :class:`CausalLMHead`.

    Attributes:
        vocab_size: Vocabulary size V.
        output: ``tied`` to the backbone's word embedding (V parameters per task), or an ``own`` matrix of the task
            (V D + V parameters).

    >>> sum(p.numel() for p in CausalLM(vocab_size=100)(hidden_size=8).parameters())
    100
    >>> sum(p.numel() for p in CausalLM(vocab_size=100, output="own")(hidden_size=8).parameters())
    900
    """

    name: ClassVar[str] = "causal_lm"

    vocab_size: int = Field(ge=2)
    output: Output = "tied"

    def __call__(self, hidden_size: int) -> CausalLMHead:  # noqa: D102 - inherited
        return CausalLMHead(hidden_size, self.vocab_size, self.output)


def _embedding(backbone: nn.Module) -> Tensor:
    """The backbone's word embedding (rows, width)."""
    try:
        weight = backbone.get_input_embeddings().weight  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        weight = None
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ModelError(f"a language model needs a word embedding, but {type(backbone).__name__} has none")
    return weight


def _hidden_states_without_future(backbone: nn.Module, rows: int) -> Tensor:
    """The hidden states of a short sequence, after checking that all but the last do not depend on the last token.

    The check is their gradient with respect to the last token's embedding, which a causal mask makes exactly zero in
    any precision.
    """
    ids = torch.tensor([[i % rows for i in range(4)]], device=next(backbone.parameters()).device)
    embedded: list[Tensor] = []

    def watch(*call: Any) -> Tensor:
        embedded.append(call[-1].detach().requires_grad_())
        return embedded[-1]

    # Not get_input_embeddings() alone: T5 calls another part with the same weight.
    hooks = [table.register_forward_hook(watch) for table in parts_with(backbone, _embedding(backbone))]
    with modes_kept(backbone), torch.enable_grad():
        backbone.eval()
        try:
            hidden = backbone(input_ids=ids).last_hidden_state
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{type(backbone).__name__} does not run on input_ids alone, as a language model does ({reason(error)})"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        weights = torch.arange(hidden[:, :-1].numel(), device=hidden.device).sin().view_as(hidden[:, :-1])
        (gradient,) = torch.autograd.grad((hidden[:, :-1].float() * weights).sum(), embedded[:1])
    if gradient[:, -1].any():
        raise ModelError(
            f"{type(backbone).__name__} sees the tokens that a causal language model has to predict, so its loss "
            "would be meaningless; use a backbone with causal attention, such as GPT-2"
        )
    assert isinstance(hidden, Tensor)
    return hidden.detach()
