"""Pretraining learns, depends only on its seed, and returns a model that can be saved and loaded."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM, BertModel

from pemeta.data.synthetic import SyntheticWorld
from pemeta.errors import DataError, TrainingError
from pemeta.training.pretraining import TinyTransformer, _train, mask, one_thread, pretrain, train_tokenizer
from pemeta.typing import IGNORE_INDEX

WORLD = SyntheticWorld(languages=("aru", "bex"), text_sentences=300)
TEXTS = [sentence for name in WORLD.languages for sentence in WORLD.text(name)]
TINY = TinyTransformer(hidden_size=32, heads=2, vocab_size=400, steps=4, batch_size=8, dropout=0.1)


def test_it_learns_more_than_token_frequencies() -> None:
    description = TINY.model_copy(update={"steps": 300, "batch_size": 16, "lr": 4e-3, "dropout": 0.0})
    tokenizer = train_tokenizer(TEXTS, description)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(0)
        losses = _train(
            BertForMaskedLM(description.configuration(len(tokenizer))), tokenizer, TEXTS, description, False
        )
    tokens = Counter(token for words in TEXTS for token in tokenizer.tokenize(" ".join(words)))
    total = sum(tokens.values())
    unigram = -sum(count / total * math.log(count / total) for count in tokens.values())
    assert losses[0] > 0.9 * math.log(len(tokenizer))  # starts at chance
    assert sum(losses[-30:]) / 30 < unigram - 0.6


def test_the_same_seed_gives_the_same_parameters_and_another_gives_others() -> None:
    torch.manual_seed(1)
    first, _ = pretrain(TEXTS, TINY, progress=False)
    torch.manual_seed(2)
    again, _ = pretrain(TEXTS, TINY, progress=False)
    other, _ = pretrain(TEXTS, TINY.model_copy(update={"seed": 1}), progress=False)
    name = "encoder.layer.0.attention.self.query.weight"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_the_global_random_state_and_the_number_of_threads_are_left_alone() -> None:
    torch.set_num_threads(2)  # tests have one, as pretraining does
    before = torch.random.get_rng_state(), torch.get_num_threads()
    pretrain(TEXTS, TINY, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    after = torch.get_num_threads()
    torch.set_num_threads(1)
    assert after == before[1]


def test_the_tokenizer_is_the_same_every_time() -> None:
    """The trainer by itself orders tokens by a hash table that differs from call to call."""
    vocabularies = [train_tokenizer(TEXTS, TINY).get_vocab() for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_saving_and_loading_changes_no_bit(tmp_path: Path) -> None:
    backbone, tokenizer = pretrain(TEXTS, TINY, progress=False)
    assert isinstance(backbone, BertModel)
    assert backbone.pooler is None
    assert not backbone.training
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again = AutoTokenizer.from_pretrained(tmp_path)
    options = {"is_split_into_words": True, "padding": True, "return_tensors": "pt"}
    batch, same = tokenizer(TEXTS[:20], **options), again(TEXTS[:20], **options)
    assert batch["input_ids"].equal(same["input_ids"])
    assert [batch.word_ids(i) for i in range(20)] == [same.word_ids(i) for i in range(20)]
    assert (again.model_max_length, again.mask_token, again.is_fast) == (64, "[MASK]", True)
    with torch.no_grad():
        assert backbone(**batch).last_hidden_state.equal(loaded(**same).last_hidden_state)


def test_the_tokenizer_splits_after_an_apostrophe_and_knows_every_letter_of_the_text() -> None:
    tokenizer = train_tokenizer(TEXTS, TINY)
    word = next(word for words in TEXTS for word in words if "’" in word)
    tokens = tokenizer.tokenize(word)
    assert "".join(token.removeprefix("##") for token in tokens) == word
    assert any(token.endswith("’") for token in tokens)
    assert not any("’" in token[:-1] for token in tokenizer.get_vocab())
    ids = tokenizer(TEXTS, is_split_into_words=True)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_masking_hides_the_right_share_in_the_right_ways() -> None:
    tokenizer = train_tokenizer(TEXTS, TINY)
    ids = tokenizer(TEXTS, is_split_into_words=True, padding=True, return_tensors="pt")["input_ids"]
    hidden, attention, labels = mask(ids, tokenizer, TINY, torch.Generator().manual_seed(0))
    ordinary = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = labels != IGNORE_INDEX
    assert not (chosen & ~ordinary).any()
    assert hidden[~chosen].equal(ids[~chosen])
    assert labels[chosen].equal(ids[chosen])
    assert attention.bool().equal(ids != tokenizer.pad_token_id)
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.02)
    shown = hidden[chosen]
    assert (shown == tokenizer.mask_token_id).float().mean() == pytest.approx(0.8, abs=0.04)
    assert (shown == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.04)


def test_words_used_alike_start_alike() -> None:
    """The initial embeddings of two nouns are closer to each other than to a verb's."""
    texts = [[noun, verb, "."] for noun in ("cat", "dog") for verb in ("runs", "sits")] * 20
    backbone, tokenizer = pretrain(texts, TINY.model_copy(update={"steps": 1, "lr": 1e-9}), progress=False)
    table = torch.nn.functional.normalize(backbone.get_input_embeddings().weight.detach(), dim=1)
    cat, dog, runs = (table[tokenizer.convert_tokens_to_ids(word)] for word in ("cat", "dog", "runs"))
    assert cat @ dog > 0.9
    assert cat @ runs < 0.5


def test_wrong_input_and_diverging_training_are_errors() -> None:
    with pytest.raises(DataError, match="no sentence with a word"):
        pretrain([[], []], TINY, progress=False)
    with pytest.raises(
        TrainingError, match=r"at step \d+ of 40 is (nan|inf); lower the learning rate|gradient's norm is"
    ):
        pretrain(TEXTS, TINY.model_copy(update={"lr": 1e30, "steps": 40}), progress=False)
    with pytest.raises(ValueError, match="heads must divide hidden_size; found 3 heads and width 32"):
        TinyTransformer(hidden_size=32, heads=3)


def test_one_sentence_of_one_word_is_enough() -> None:
    backbone, tokenizer = pretrain([["a"]], TINY, progress=False)
    assert all(parameter.isfinite().all() for parameter in backbone.parameters())
    assert len(tokenizer) == 7  # the special tokens, "a" and "##a"


def test_of_more_letters_than_fit_the_most_frequent_are_known() -> None:
    """As in Chinese; all would make the vocabulary as large as the text has letters, and the start slow."""
    rare = [[chr(0x4E00 + i)] for i in range(300)]
    tokenizer = train_tokenizer([*rare, *TEXTS], TINY)
    assert len(tokenizer) <= TINY.vocab_size
    words = {word for words in TEXTS for word in words}
    assert tokenizer.unk_token not in tokenizer.tokenize(" ".join(words))
    assert tokenizer.tokenize(rare[299][0]) == [tokenizer.unk_token]
    assert tokenizer.get_vocab() == train_tokenizer([*rare, *TEXTS], TINY).get_vocab()


@pytest.mark.parametrize("words", [["x" * 101], ["\u00a0"]], ids=["too long", "a blank"])
def test_a_sentence_without_a_token_of_its_own_is_not_trained_on(words: list[str]) -> None:
    alone, _ = pretrain([words], TINY, progress=False)
    assert all(parameter.isfinite().all() for parameter in alone.parameters())
    description = TINY.model_copy(update={"steps": 4, "batch_size": 1})
    among, _ = pretrain([words] * 20 + [["a", "b"]], description, progress=False)
    assert all(parameter.isfinite().all() for parameter in among.parameters())
