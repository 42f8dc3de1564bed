"""Tasks of each kind on random word pieces, and a tiny random GPT-2 in float64 that all of them can stand on."""

import torch
from tiny_models import ADAPTER, data
from transformers import GPT2Config, GPT2Model

from pemeta import EncodedBlocks, EncodedMasked, EncodedTexts, PEModel, Task

VOCABULARY = 30
CLASSES = ("bad", "fair", "good")


def tiny_gpt2(method=ADAPTER, dropout=0.1) -> PEModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_inner=12,
        n_positions=16,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return PEModel(GPT2Model(config).double(), method)


def pieces(seed: int, size: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 8, (size,), generator=generator).tolist()
    return tuple(torch.randint(0, VOCABULARY, (n,), generator=generator) for n in lengths)


def texts(seed: int, size: int = 12) -> EncodedTexts:
    generator = torch.Generator().manual_seed(100 + seed)
    labels = torch.randint(0, len(CLASSES), (size,), generator=generator).tolist()
    return EncodedTexts(CLASSES, tuple(CLASSES[i] for i in labels), pieces(seed, size), None, 0, 0)


def blocks(seed: int, size: int = 12) -> EncodedBlocks:
    return EncodedBlocks(VOCABULARY, pieces(seed, size), 0)


def hidden(seed: int, size: int = 12) -> EncodedMasked:
    """Pieces in which token 1 stands for every third one."""
    ids = pieces(seed, size)
    shown = tuple(torch.where(torch.arange(len(one)) % 3 == 0, 1, one) for one in ids)
    labels = tuple(torch.where(torch.arange(len(one)) % 3 == 0, one, -100) for one in ids)
    return EncodedMasked(VOCABULARY, shown, labels, 0)


NER = Task.token_classification("ner", data(0))
TOPIC = Task.sequence_classification("topic", texts(1))
LAST = Task.sequence_classification("last", texts(2), pooling="last")
TEXT = Task.causal_lm("text", blocks(3), output="tied")
OWN = Task.causal_lm("own", blocks(4), output="own")
MIXED = [NER, TOPIC, LAST, TEXT, OWN]
EACH_KIND = [(NER, data(7)), (TOPIC, texts(7)), (TEXT, blocks(7))]
