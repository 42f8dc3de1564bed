"""Generation with each method: what an unroll without a cache gives, merged models, and models of the peft package."""

import copy

import pytest
import torch
import transformers as t
from tiny_models import METHODS, shaken
from transformers import GenerationConfig

from pemeta import CausalLM, PEModel
from pemeta.errors import ArgumentError, ConfigError, DataError, ModelError
from pemeta.methods import IA3, BitFit, Full, HeadOnly, LayerNormTuning, LoRA, Prefix, Prompt
from pemeta.methods.base import PEMethod
from pemeta.model import candidates, generation_ways
from pemeta.model.candidates import candidate_scores
from pemeta.model.generation import Generator, completions, generate, left_padded
from pemeta.model.generation_ways import Way, way_for

PROMPTS = [torch.tensor(ids) for ids in ([5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [3], [20, 21, 22, 23, 24])]
NEW = 6
GPT2 = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 40}
LLAMA = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS = {
    "gpt2": lambda: t.GPT2Config(vocab_size=30, **GPT2),
    "llama": lambda: t.LlamaConfig(vocab_size=30, tie_word_embeddings=True, **LLAMA, num_key_value_heads=1),
    "mistral": lambda: t.MistralConfig(  # each token sees three before it
        vocab_size=30, tie_word_embeddings=True, **LLAMA, num_key_value_heads=1, head_dim=4, sliding_window=4
    ),
}


def whole(name) -> t.PreTrainedModel:
    """A language model of transformers with random weights, large enough that tokens differ."""
    torch.manual_seed(0)
    config = name() if callable(name) else CONFIGS[name]()
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    made = t.AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


def model_on(plain: t.PreTrainedModel, method: PEMethod) -> PEModel:
    model = PEModel(copy.deepcopy(plain.base_model), method)
    model.add_head("lm", CausalLM(vocab_size=30))
    return shaken(model.double()).eval()


def unrolled(model: PEModel, prompt: torch.Tensor, count: int = NEW) -> list[int]:
    ids = prompt[None]
    for _ in range(count):
        with torch.no_grad():
            logits = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "lm")
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(prompt) :].tolist()


def by_transformers(plain, prompt: torch.Tensor, **options) -> list[int]:
    """One prompt by transformers' own generate, or peft's."""
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    plain.generation_config = GenerationConfig()
    ids = prompt[None]
    found = plain.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, **options)
    return found[0, len(prompt) :].tolist()


QUICK = {("gpt2", "lora"), ("gpt2", "prefix"), ("mistral", "prompt")}
"""The others are among the long tests."""


def pairs():
    for name in CONFIGS:
        for method in METHODS:
            if (name, method) != ("gpt2", "peft") and (method != "bitfit" or name == "gpt2"):
                yield pytest.param(name, method, marks=[] if (name, method) in QUICK else [pytest.mark.long])


@pytest.mark.parametrize(("name", "method"), list(pairs()))
def test_each_method_generates_with_a_cache_and_padding_what_an_unroll_gives(name, method):
    model = model_on(whole(name), METHODS[method][0])
    expected = [unrolled(model, prompt) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in expected}) > (method != "prefix-network")  # whose vectors are the largest
    assert way_for(Generator(model, "lm"), PROMPTS) == Way(cache=True, padded=True)
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected
    assert [completions(model, "lm", [prompt], max_new_tokens=NEW)[0] for prompt in PROMPTS] == expected
    ids, mask = left_padded(PROMPTS, 0)
    options = {"attention_mask": mask, "use_cache": False, "max_new_tokens": NEW, "pad_token_id": 0}
    found = generate(model, "lm", ids, GenerationConfig(do_sample=False), options)
    assert found[:, ids.shape[1] :].tolist() == expected
    check_candidates(model)


def check_candidates(model: PEModel) -> None:
    """Scores of answers are those that the head's own predictions have for prompt and answer, one by one."""
    answers = [[[4], [5, 6, 7]], [[4], [5, 6, 7], [9, 9]], [[11, 12], [4]], [[1]]]
    expected = []
    for prompt, own in zip(PROMPTS, answers, strict=True):
        for answer in own:
            ids = torch.cat([prompt, torch.tensor(answer)])[None]
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
            with torch.no_grad():
                each = model.head("lm").predictions(model(batch, "lm"), batch)[0, len(prompt) :]
            expected.append((float(each.sum()), float(each.mean())))
    for number, normalised in enumerate([False, True]):
        for size in (1, 16):
            found = candidate_scores(model, "lm", PROMPTS, answers, normalised=normalised, batch_size=size)
            assert [value for values in found for value in values] == pytest.approx([pair[number] for pair in expected])
    assert list(candidates._shares[model].values()) == [(7, True)]


MERGEABLE = [
    pytest.param("gpt2", LoRA(rank=2)),
    pytest.param("mistral", LoRA(rank=2)),
    pytest.param("gpt2", IA3(), marks=pytest.mark.long),
    pytest.param("mistral", IA3(), marks=pytest.mark.long),
    pytest.param("gpt2", BitFit(), marks=pytest.mark.long),
    pytest.param("llama", LayerNormTuning(), marks=pytest.mark.long),
    pytest.param("llama", Full(), marks=pytest.mark.long),
]


@pytest.mark.parametrize(("name", "method"), MERGEABLE)
def test_generation_is_that_of_the_merged_model(name, method):
    plain = whole(name)
    model = model_on(plain, method)
    merged = copy.deepcopy(model.backbone)
    for attached in reversed(model.attached):
        attached.merge(merged)
    setattr(plain, plain.base_model_prefix, merged)
    plain.tie_weights()
    expected = [by_transformers(plain, prompt) for prompt in PROMPTS]
    assert expected != [by_transformers(whole(name), prompt) for prompt in PROMPTS]
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected


OUTPUTS = {
    "untied": lambda: t.LlamaConfig(vocab_size=30, tie_word_embeddings=False, **LLAMA),
    "capped": lambda: t.Gemma2Config(
        vocab_size=30, final_logit_softcapping=1.5, head_dim=4, num_key_value_heads=1, **LLAMA
    ),
    "scaled": lambda: t.GraniteConfig(vocab_size=30, logits_scaling=3.0, **LLAMA),
    "scaled otherwise": lambda: t.CohereConfig(vocab_size=30, logit_scale=0.3, **LLAMA),
    "not named lm_head": lambda: t.GPTNeoXConfig(vocab_size=30, **LLAMA, max_position_embeddings=40),
    "with a bias": lambda: t.PhiConfig(vocab_size=30, **LLAMA),
}


@pytest.mark.parametrize(
    "name", ["capped", *(pytest.param(n, marks=pytest.mark.long) for n in OUTPUTS if n != "capped")]
)
def test_generation_has_the_output_of_the_language_model(name):
    plain = whole(OUTPUTS[name])
    model = PEModel(copy.deepcopy(plain), LoRA(rank=2))
    model.add_head("lm", CausalLM())
    model = shaken(model.double()).eval()
    merged = copy.deepcopy(model.backbone)
    model.method.merge(merged)
    setattr(plain, plain.base_model_prefix, merged)
    plain.tie_weights()
    expected = [by_transformers(plain, prompt) for prompt in PROMPTS]
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected
    scores = candidate_scores(model, "lm", PROMPTS, [[tokens, [4]] for tokens in expected])
    for prompt, tokens, found in zip(PROMPTS, expected, scores, strict=True):
        ids = torch.cat([prompt, torch.tensor(tokens)])
        with torch.no_grad():
            each = plain(ids[None]).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(ids) - 1)
        assert found[0] == pytest.approx(float(each[places, ids[len(prompt) :]].sum()))
        assert found[1] == pytest.approx(float(each[len(prompt) - 1, 4]))


@pytest.mark.parametrize("name", ["gpt2", pytest.param("llama", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore")
def test_a_prompt_generates_what_pefts_does(name):
    peft = pytest.importorskip("peft")
    plain = whole(name)
    model = model_on(plain, Prompt(length=3))
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    theirs = peft.get_peft_model(plain, config).double().eval()
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(model.backbone.pemeta_prompt.tokens)
    expected = [by_transformers(theirs, prompt) for prompt in PROMPTS]
    assert expected != [by_transformers(whole(name), prompt) for prompt in PROMPTS]
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected


@pytest.mark.parametrize("name", ["gpt2", pytest.param("llama", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore")
def test_a_prefix_generates_what_pefts_does(name):
    """In PEFT a prefix takes positions, which it does not here: there, tokens have the positions from P on."""
    peft, length = pytest.importorskip("peft"), 3
    plain = whole(name)
    model = model_on(plain, Prefix(length=length))
    pairs = [part.pemeta_prefix() for part in model.backbone.modules() if hasattr(part, "pemeta_prefix")]
    with torch.no_grad():
        if name == "gpt2":  # so the table begins P rows later
            table = plain.transformer.wpe.weight
            table.copy_(torch.cat([torch.zeros_like(table[:length]), table[:-length]]))
        else:  # and keys of the prefix are turned by as much as queries are
            angles = plain.model.rotary_emb(torch.zeros(1, 1, 1).double(), torch.tensor([[length]]))
            pairs = [(turned(keys, *angles), values) for keys, values in pairs]
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
        theirs = peft.get_peft_model(plain, config).double().eval()
        both = torch.cat([torch.cat([keys, values], -1) for keys, values in pairs], -1)
        theirs.prompt_encoder["default"].embedding.weight.copy_(both)
    expected = [by_transformers(theirs, prompt) for prompt in PROMPTS]
    assert expected != [by_transformers(whole(name), prompt) for prompt in PROMPTS]
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected


def turned(keys, cos, sin):
    """Keys (P, W) of one head of width 4, rotated by one angle."""
    heads = keys.view(len(keys), -1, cos.shape[-1])
    half = heads.shape[-1] // 2
    return (heads * cos[0] + torch.cat([-heads[..., half:], heads[..., :half]], -1) * sin[0]).flatten(1)


class Centred(HeadOnly):
    """A method with which a token's output depends on all tokens before it, padding too."""

    @property
    def identity_at_start(self):
        return False

    def transform(self, backbone, hidden):
        return hidden - hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


def test_what_a_cache_or_padding_would_change_goes_without():
    model = model_on(whole("gpt2"), Centred())
    assert way_for(Generator(model, "lm"), PROMPTS) == Way(cache=False, padded=False)
    assert way_for(Generator(model, "lm"), PROMPTS[:1]) == Way(cache=False, padded=True)
    expected = [unrolled(model, prompt) for prompt in PROMPTS]
    assert completions(model, "lm", PROMPTS, max_new_tokens=NEW) == expected
    ids, mask = left_padded(PROMPTS, 0)
    with pytest.raises(ModelError, match="computes something else where prompts are padded; generate for prompts of"):
        generate(model, "lm", ids, GenerationConfig(max_new_tokens=2), {"attention_mask": mask})
    found = candidate_scores(model, "lm", PROMPTS, [[[4], [5, 6]]] * 4)
    for prompt, values in zip(PROMPTS, found, strict=True):
        logits = Generator(model, "lm").logits_of(prompt, torch.tensor([5, 6])).log_softmax(-1)
        assert values[1] == pytest.approx(float(logits[0, 5] + logits[1, 6]))


def test_a_backbone_that_generates_something_else_is_refused(monkeypatch):
    model = model_on(whole("gpt2"), LoRA(rank=2))
    steps = Generator.steps
    monkeypatch.setattr(Generator, "steps", lambda *a: (lambda found: (found[0], found[1] + 1))(steps(*a)))
    with pytest.raises(ModelError, match="GPT2Model gives other logits in transformers' generate than in a pass"):
        completions(model, "lm", PROMPTS)


def test_the_trial_is_made_once_and_again_for_longer_prompts(monkeypatch):
    model, tried = model_on(whole("gpt2"), LoRA(rank=2)), []
    agrees = generation_ways._agrees
    monkeypatch.setattr(generation_ways, "_agrees", lambda *a: tried.append(len(a[1][-1])) or agrees(*a))
    for prompts in (PROMPTS, PROMPTS[:2], PROMPTS[:1], [torch.arange(3, 18), PROMPTS[0]]):
        completions(model, "lm", prompts, max_new_tokens=2)
    assert tried == [7, 3, 15]


def test_generation_ends_where_it_is_to_end():
    model = model_on(whole("gpt2"), LoRA(rank=2))
    free = completions(model, "lm", PROMPTS, max_new_tokens=8)
    stop = free[1][3]
    ended = completions(model, "lm", PROMPTS, max_new_tokens=8, stop=[stop])
    assert ended == [tokens[: tokens.index(stop)] if stop in tokens else tokens for tokens in free]
    assert len(ended[1]) < 8
    long = torch.arange(3, 30).repeat(2)[:38]
    assert [len(tokens) for tokens in completions(model, "lm", [*PROMPTS, long], max_new_tokens=8)] == [8, 8, 8, 8, 2]
    with pytest.raises(ModelError, match="prompt 2 has 41 tokens, and the backbone has positions for 40; shorten it"):
        completions(model, "lm", [long, torch.ones(41).long()])
    with pytest.raises(ModelError, match="prompt 1 is empty, so there is nothing to continue"):
        completions(model, "lm", [[]])
    with pytest.raises(ModelError, match="token id 30, but this model's vocabulary has only 30 tokens"):
        completions(model, "lm", [[30]])
    assert completions(model, "lm", []) == []


@pytest.mark.parametrize("given", ["abc", [5.5, 6], torch.tensor([[5, 6]]), 5, [None], [True]])
def test_what_is_no_sequence_of_token_ids_is_refused(given):
    model = model_on(whole("gpt2"), LoRA(rank=2))
    expected = r"must be token ids, such as \[5, 6, 7\]; found"
    for call in (
        lambda: completions(model, "lm", [[3], given]),
        lambda: candidate_scores(model, "lm", [given], [[[4]]]),
        lambda: candidate_scores(model, "lm", [[3]], [[[4], given]]),
    ):
        with pytest.raises(ArgumentError, match=expected):
            call()


def test_where_generation_stops_is_said_by_token_ids():
    model = model_on(whole("gpt2"), LoRA(rank=2))
    free = completions(model, "lm", PROMPTS, max_new_tokens=4)
    assert completions(model, "lm", PROMPTS, max_new_tokens=4, stop=[30, 31]) == free  # tokens that it has not
    assert completions(model, "lm", PROMPTS, max_new_tokens=4, stop=torch.tensor([30])) == free
    for stop in ([None], 5, ["</s>"]):
        with pytest.raises(ArgumentError, match=r"stop must be token ids, such as"):
            completions(model, "lm", PROMPTS, stop=stop)
    with pytest.raises(ArgumentError, match=r"stop must be token ids, which are not negative; found -1"):
        completions(model, "lm", PROMPTS, stop=[2, -1])
    with pytest.raises(ConfigError, match=r"options has eos_token_id 7, but what ends .* is given as stop"):
        completions(model, "lm", PROMPTS, options={"eos_token_id": 7})
    for options in ({"num_return_sequences": 2, "num_beams": 2}, {"return_dict_in_generate": True}):
        with pytest.raises(ConfigError, match=r"something else than one sequence for each prompt; leave out num_ret"):
            completions(model, "lm", PROMPTS, max_new_tokens=2, options=options)


def test_what_candidates_need():
    model = model_on(whole("gpt2"), LoRA(rank=2))
    with pytest.raises(DataError, match="each prompt needs its candidates; found 2 prompts and candidates for 1"):
        candidate_scores(model, "lm", [[3], [4]], [[[5]]])
    with pytest.raises(DataError, match=r"prompt 1 has 1 tokens, and candidates of \[1, 0\]; a prompt needs a token"):
        candidate_scores(model, "lm", [[3]], [[[5], []]])
    long = list(range(3, 30)) + [3] * 11
    assert len(candidate_scores(model, "lm", [long], [[[5] * 3]])[0]) == 1
    with pytest.raises(ModelError, match=r"prompt 2 has 38 tokens and a candidate has 4, but .* positions for 40"):
        candidate_scores(model, "lm", [[3], long], [[[5]], [[5] * 2, [5] * 4]])
    assert candidate_scores(model, "lm", [], []) == []


def test_options_are_those_of_transformers_and_modes_are_restored():
    model = model_on(whole("gpt2"), LoRA(rank=2)).train()
    torch.manual_seed(0)
    drawn = [completions(model, "lm", PROMPTS, max_new_tokens=8, options={"do_sample": True}) for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert all(part.training for part in model.modules())
