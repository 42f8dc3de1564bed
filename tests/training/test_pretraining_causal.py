"""A tiny causal language model: it learns, equal arguments give equal models, and transformers loads it whole."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pemeta.data.synthetic import SyntheticWorld
from pemeta.errors import DataError
from pemeta.training.pretraining import one_thread
from pemeta.training.pretraining_causal import (
    TinyCausalTransformer,
    _stream,
    _train,
    pretrain_causal,
    train_byte_tokenizer,
)

WORLD = SyntheticWorld(languages=("aru",), text_sentences=200)
TEXTS = list(WORLD.text("aru"))
TINY = TinyCausalTransformer(hidden_size=32, heads=2, vocab_size=400, steps=4, batch_size=8, block_size=32)


def test_it_learns_more_than_token_frequencies() -> None:
    description = TINY.model_copy(update={"steps": 120})
    tokenizer = train_byte_tokenizer([" ".join(words) for words in TEXTS], description)
    stream = _stream([" ".join(words) for words in TEXTS], tokenizer)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(0)
        losses = _train(LlamaForCausalLM(description.configuration(len(tokenizer))), stream, description, False)
    counts = Counter(stream.tolist())
    unigram = -sum(count / len(stream) * math.log(count / len(stream)) for count in counts.values())
    assert losses[0] > 0.9 * math.log(len(tokenizer))  # starts at chance
    assert sum(losses[-20:]) / 20 < unigram - 0.3


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_same_every_time_and_transformers_loads_it_whole(tied: bool, tmp_path: Path) -> None:
    description = TINY.model_copy(update={"tied": tied})
    torch.manual_seed(1)
    first, tokenizer = pretrain_causal(TEXTS, description, progress=False)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again, other_tokenizer = pretrain_causal(TEXTS, description, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert tokenizer.get_vocab() == other_tokenizer.get_vocab()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))

    first.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, restored = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([restored(" ".join(TEXTS[0]))["input_ids"]])
    assert ids.tolist() == [tokenizer(" ".join(TEXTS[0]))["input_ids"]]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, first(input_ids=ids).logits)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_no_text_is_unknown_to_its_tokenizer_and_none_gets_a_special_token() -> None:
    tokenizer = train_byte_tokenizer([" ".join(words) for words in TEXTS], TINY)
    for text in ("naïve 𝕃 \u2028 日本語\n\ttabs  and  blanks ", "", "<|im_start|"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert not {*ids} & {*tokenizer.all_special_ids}
    assert len(tokenizer) <= TINY.vocab_size


def test_its_template_is_that_of_chatml_and_tells_what_the_assistant_says() -> None:
    tokenizer = train_byte_tokenizer([" ".join(words) for words in TEXTS], TINY)
    chat = [{"role": "user", "content": "say a"}, {"role": "assistant", "content": "a"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|im_start|>user\nsay a<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    told = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(told["input_ids"], told["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "a<|im_end|>"


def test_what_it_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(DataError, match="there is none with a letter in it"):
        pretrain_causal([["", " "], []], TINY, progress=False)
    with pytest.raises(
        ValueError, match="hidden_size must be a multiple of twice the heads; found 4 heads and width 36"
    ):
        TinyCausalTransformer(hidden_size=36)
    with pytest.raises(ValueError, match="block_size must be at most max_length; found 128 and 64"):
        TinyCausalTransformer(max_length=64)
