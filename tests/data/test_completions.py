"""Completions: what is learned, against transformers' own masks, TRL's conventions and ids by hand; and refusals."""

import pytest
import torch
from chat_templates import CHATML, GEMMA, MARKED, MISTRAL, PHI, PLAIN, THINKING, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from pemeta import Completion, encode_completions, encode_prompts
from pemeta.errors import ConfigError, DataError
from pemeta.typing import IGNORE_INDEX

USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is 4."}
MORE = [{"role": "user", "content": "And 3?"}, {"role": "assistant", "content": "6, yes"}]
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, USER, ANSWER, *MORE]


def learned(encoded, tokenizer, index=0) -> list[str]:
    """The texts of an example that are learned, one for each run of labels."""
    found, run = [], []
    for label in [*encoded.label_ids[index].tolist(), IGNORE_INDEX]:
        if label != IGNORE_INDEX:
            run.append(label)
        elif run:
            found.append(tokenizer.decode(run))
            run = []
    return found


def text(encoded, tokenizer, index=0) -> str:
    return tokenizer.decode(encoded.input_ids[index])


def test_texts_are_as_in_trl_with_eos_once():
    tokenizer = byte_tokenizer()
    rows = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "2 + 2 =", "completion": " 4</s>"}]
    encoded = encode_completions(rows, tokenizer)
    # TRL: the tokens of prompt + completion + EOS, of which the first len(tokens of prompt) have no label.
    ids = tokenizer("2 + 2 = 4</s>")["input_ids"]
    prompt = tokenizer("2 + 2 =")["input_ids"]
    for index in range(2):
        assert encoded.input_ids[index].tolist() == ids
        assert encoded.label_ids[index].tolist() == [IGNORE_INDEX] * len(prompt) + ids[len(prompt) :]
        assert encoded.prompt_ids[index].tolist() == prompt
    assert encoded.completions == (" 4", " 4</s>")
    assert encoded.end_ids == (tokenizer.eos_token_id,)
    assert (encoded.num_truncated, encoded.num_apart) == (0, 0)


def test_bos_comes_once_where_the_tokenizer_puts_it():
    with_bos = byte_tokenizer(bos=True)
    for prompt in ("2 + 2 =", "<s>2 + 2 ="):
        encoded = encode_completions([{"prompt": prompt, "completion": " 4"}], with_bos)
        assert text(encoded, with_bos) == "<s>2 + 2 = 4</s>"
        assert encoded.prompt_ids[0].tolist() == with_bos("2 + 2 =")["input_ids"]
        assert encode_prompts([prompt], with_bos).input_ids[0].tolist() == encoded.prompt_ids[0].tolist()
    gemma = byte_tokenizer(GEMMA, bos=True)
    encoded = encode_completions([{"messages": [USER, ANSWER]}], gemma)
    assert text(encoded, gemma).count("<s>") == 1
    assert not text(encode_completions([{"prompt": "a", "completion": "b"}], byte_tokenizer()), gemma).count("<s>")


def test_a_model_without_eos_gets_none():
    tokenizer = byte_tokenizer(eos=None)
    encoded = encode_completions([{"prompt": "a", "completion": "b"}], tokenizer)
    assert text(encoded, tokenizer) == "ab"
    assert encoded.end_ids == ()


def test_a_token_of_both_prompt_and_completion_is_split_as_in_generation():
    tokenizer = byte_tokenizer()
    encoded = encode_completions([{"prompt": "Is it? ", "completion": "yes"}], tokenizer)
    assert len(tokenizer("Is it? yes")["input_ids"]) == len("Is it?") + 1  # " yes" is one token
    prompt, own = (tokenizer(part)["input_ids"] for part in ("Is it? ", "yes"))
    assert encoded.input_ids[0].tolist() == [*prompt, *own, tokenizer.eos_token_id]
    assert encoded.prompt_ids[0].tolist() == prompt
    assert encoded.num_apart == 1


@pytest.mark.parametrize("turns", [[USER, ANSWER], TALK, TALK[1:], [ANSWER, *TALK[1:]]], ids=len)
def test_marks_of_a_template_are_followed_as_transformers_does(turns):
    tokenizer = byte_tokenizer(MARKED)
    encoded = encode_completions([{"messages": turns}], tokenizer)
    whole = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = whole["input_ids"], whole["assistant_masks"]
    last = max(place for place, counts in enumerate(mask) if counts) + 1  # nothing is learned after it
    assert encoded.input_ids[0].tolist() == ids[:last]
    assert (encoded.label_ids[0] != IGNORE_INDEX).long().tolist() == mask[:last]


@pytest.mark.parametrize("turns", [[USER, ANSWER], TALK, TALK[1:], [ANSWER, *TALK[1:]]], ids=len)
def test_without_marks_the_rule_finds_what_marks_say(turns):
    """The two templates differ in nothing but the marks."""
    rows = [{"messages": turns}]
    marked = encode_completions(rows, byte_tokenizer(MARKED))
    found = encode_completions(rows, byte_tokenizer(CHATML))
    assert found.input_ids[0].tolist() == marked.input_ids[0].tolist()
    assert found.label_ids[0].tolist() == marked.label_ids[0].tolist()
    assert found.prompt_ids[0].tolist() == marked.prompt_ids[0].tolist()
    assert found.end_ids == tuple(sorted(byte_tokenizer().convert_tokens_to_ids(["</s>", "<|im_end|>"])))


words = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<|>"), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=40)
@given(st.lists(words, min_size=2, max_size=6))
def test_the_rule_holds_for_any_content(contents):
    contents = contents[: len(contents) // 2 * 2]
    turns = [{"role": ("user", "assistant")[i % 2], "content": one} for i, one in enumerate(contents)]
    marked = encode_completions([{"messages": turns}], byte_tokenizer(MARKED))
    found = encode_completions([{"messages": turns}], byte_tokenizer(CHATML))
    # Blanks at the end of a content are learned where a template says so; the rule ends with the content's characters.
    if all(one == one.strip() for one in contents):
        assert found.label_ids[0].tolist() == marked.label_ids[0].tolist()
    assert found.input_ids[0].tolist() == marked.input_ids[0].tolist()


@pytest.mark.parametrize(
    ("template", "expected", "prompt"),
    [
        (CHATML, ["It is 4.<|im_end|>", "6, yes<|im_end|>"], "<|im_start|>assistant\n"),
        (GEMMA, ["It is 4.<end_of_turn>", "6, yes<end_of_turn>"], "<start_of_turn>model\n"),
        (PHI, ["It is 4.<|end|>", "6, yes<|end|>"], "<|assistant|>\n"),
        (THINKING, ["It is 4.<|im_end|>", "<think>\n\n</think>\n\n6, yes<|im_end|>"], "<|im_start|>assistant\n"),
        (MISTRAL, [" It is 4.</s>", " 6, yes</s>"], "[/INST]"),
        (PLAIN, ["It is 4.", "6, yes</s>"], "assistant: "),
    ],
    ids=["chatml", "gemma", "phi", "thinking", "mistral", "plain"],
)
def test_templates_of_families(template, expected, prompt):
    tokenizer = byte_tokenizer(template, bos=template is GEMMA)
    turns = [USER, ANSWER, *MORE]
    encoded = encode_completions([{"messages": turns}], tokenizer)
    assert learned(encoded, tokenizer) == expected
    start = tokenizer.decode(encoded.prompt_ids[0])
    assert start.endswith(prompt)
    assert encode_prompts([turns[:-1]], tokenizer).input_ids[0].tolist() == encoded.prompt_ids[0].tolist()
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(text(encoded, tokenizer).removesuffix("</s>"))
    if template is not PLAIN:  # which has no generation prompt
        assert start == tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    only = encode_completions([{"prompt": turns[:-1], "completion": turns[-1:]}], tokenizer)
    assert learned(only, tokenizer) == expected[-1:]
    assert only.input_ids[0].tolist() == encoded.input_ids[0].tolist()


@pytest.mark.parametrize("template", [CHATML, THINKING, GEMMA, PLAIN], ids=["chatml", "thinking", "gemma", "plain"])
@pytest.mark.parametrize("content", ["in", "<", "think", "end", "assistant", "a: ", " 4\n", ">"])
def test_contents_that_are_also_in_the_template(template, content):
    """Whatever the content, what is learned is what the template shows after its generation prompt."""
    tokenizer = byte_tokenizer(template, bos=template is GEMMA)
    turns = [USER, {"role": "assistant", "content": content}] * 2
    rows = [{"messages": [USER, ANSWER, *MORE]}, {"messages": turns}]
    for given_rows in (rows, rows[1:]):  # after others, and first
        encoded = encode_completions(given_rows, tokenizer)
        end = {GEMMA: "<end_of_turn>", PLAIN: "</s>"}.get(template, "<|im_end|>")
        shown = content.strip() if template is GEMMA else content.rstrip() if template is PLAIN else content
        thought = "<think>\n\n</think>\n\n" if template is THINKING else ""
        expected = [shown if template is PLAIN else f"{shown}{end}", f"{thought}{shown}{end}"]
        assert learned(encoded, tokenizer, len(given_rows) - 1) == expected


def test_texts_are_wrapped_in_a_template_where_it_is_asked_for():
    tokenizer = byte_tokenizer(CHATML)
    rows = [{"prompt": "2 + 2?", "completion": "It is 4."}]
    wrapped = encode_completions(rows, tokenizer, template="chat")
    turns = encode_completions([{"messages": [USER, ANSWER]}], tokenizer)
    assert wrapped.input_ids[0].tolist() == turns.input_ids[0].tolist()
    assert wrapped.label_ids[0].tolist() == turns.label_ids[0].tolist()
    own = encode_completions(rows, byte_tokenizer(), template=CHATML)
    assert own.input_ids[0].tolist() == turns.input_ids[0].tolist()
    assert encode_prompts(["2 + 2?"], tokenizer, template="chat").input_ids[0].tolist() == own.prompt_ids[0].tolist()
    assert text(encode_completions(rows, tokenizer), tokenizer) == "2 + 2?It is 4.</s>"


def test_options_reach_the_template():
    template = "{{ mood }}" + CHATML
    encoded = encode_completions(
        [{"messages": [USER, ANSWER]}], byte_tokenizer(), template=template, template_options={"mood": "calm"}
    )
    assert text(encoded, byte_tokenizer()).startswith("calm<|im_start|>user")


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("most", range(5, 14))
def test_the_prompt_is_cut_from_the_left_and_counted(most, bos):
    tokenizer = byte_tokenizer(bos=bos)
    whole = encode_completions([{"prompt": "abcdefgh", "completion": "xyz"}], tokenizer)
    encoded = encode_completions([{"prompt": "abcdefgh", "completion": "xyz"}], tokenizer, most)
    cut = max(0, 12 + bos - most)
    assert text(encoded, tokenizer) == "<s>" * bos + "abcdefgh"[cut:] + "xyz</s>"
    assert (encoded.num_truncated, encoded.num_cut_tokens, encoded.num_cut_completions) == (cut > 0, cut, 0)
    assert learned(encoded, tokenizer) == ["xyz</s>"]
    assert encoded.prompt_ids[0].tolist() == encoded.input_ids[0].tolist()[:-4]
    assert encode_prompts(["abcdefgh"], tokenizer, most).num_truncated == (8 + bos > most)
    assert (encoded.digest() == whole.digest()) == (cut == 0)


def test_a_completion_that_does_not_fit_is_refused_or_cut_and_counted():
    tokenizer = byte_tokenizer()
    rows = [{"prompt": "ab", "completion": "uvwxyz"}, {"prompt": "ab", "completion": "u"}]
    message = (
        "row 1 of 2: the completion has 7 tokens, which with one of its prompt are more than max_length 6; raise "
        "max_length, or cut their ends off with long_completions: truncate"
    )
    with pytest.raises(DataError, match=f"^{message}$"):
        encode_completions(rows, tokenizer, 6)
    encoded = encode_completions(rows, tokenizer, 6, long_completions="truncate")
    assert [text(encoded, tokenizer, i) for i in (0, 1)] == ["buvwxy", "abu</s>"]
    assert (encoded.num_truncated, encoded.num_cut_tokens, encoded.num_cut_completions) == (1, 3, 1)
    with pytest.raises(ConfigError, match="unknown choice for long completions 'cut'"):
        encode_completions(rows, tokenizer, long_completions="cut")


def test_turns_at_the_left_are_cut_with_what_is_learned_of_them():
    tokenizer = byte_tokenizer(CHATML)
    whole = encode_completions([{"messages": TALK}], tokenizer)
    for most in range(30, len(whole.input_ids[0]) + 1):
        encoded = encode_completions([{"messages": TALK}], tokenizer, most)
        kept = min(most, len(whole.input_ids[0]))
        assert encoded.input_ids[0].tolist() == whole.input_ids[0].tolist()[-kept:]
        expected = whole.label_ids[0].tolist()[-kept:]
        expected[0] = IGNORE_INDEX  # nothing is before it
        assert encoded.label_ids[0].tolist() == expected


def test_batches_predictions_and_scores():
    tokenizer = byte_tokenizer()
    rows = [{"prompt": "ab", "completion": "xyz"}, {"prompt": "abc", "completion": "x"}]
    encoded = encode_completions(rows, tokenizer)
    batch = encoded.batch([0, 1])
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert batch["labels"].dtype == torch.long
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE_INDEX).all()
    assert (encoded.kind, encoded.per_position, len(encoded.outputs)) == ("causal_lm", True, len(tokenizer))
    row = [0.0, 0.0, -1.0, -2.0, -3.0, -4.0]
    assert encoded.decode(row, 0) == [-1.0, -2.0, -3.0, -4.0]
    assert encoded.decode(row, 1) == [-2.0, -3.0]
    assert encoded.scores([[-1.0, -2.0], [-3.0]]).loss == pytest.approx(2.0)
    assert encoded.has_label(0)
    assert len(encode_completions([], tokenizer)) == 0


def test_the_digest_depends_on_what_is_learned():
    tokenizer = byte_tokenizer(CHATML)
    rows = [
        {"messages": TALK},
        {"prompt": TALK[:-1], "completion": TALK[-1:]},
        {"prompt": TALK[:2], "completion": TALK[2:]},
    ]
    digests = [encode_completions([row], tokenizer).digest() for row in rows]
    assert digests[0] == digests[2] != digests[1]


# Bad input


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "completion": " "}, "the completion is empty; give it a text, or remove the row: nothing"),
        ({"prompt": "", "completion": "b"}, "row 1 of 1: the prompt is empty; text without a prompt is for task"),
        ({"prompt": "a", "completion": None}, "the completion is missing; give it a text, or remove the row"),
        ({"prompt": "a", "completion": 3}, "prompt and completion must both be texts"),
        ({"prompt": "a", "completions": "b"}, "unknown column 'completion'; did you mean 'completions'?"),
        ({"text": "a"}, "expected the columns 'prompt' and 'completion', or 'messages'; unknown column 'prompt'"),
        ({"messages": []}, "row 1 of 1: messages are empty"),
        ({"messages": [USER]}, "the last turn must be the assistant's, which is learned; found the roles user;"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "the completion is empty, the assistant's last"),
        ({"messages": [{"from": "human", "value": "a"}]}, "its key is 'from' here, and 'value' that of the content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1 of 1: the content must be a text"),
        ({"messages": "[{"}, "messages look like a list in JSON, but cannot be read"),
        (["a", "b"], "expected a row with 'prompt' and 'completion', or 'messages'; found a list"),
    ],
)
def test_wrong_rows(row, says):
    with pytest.raises(DataError) as caught:
        encode_completions([row], byte_tokenizer(CHATML))
    assert says in str(caught.value)


def test_a_system_turn_that_the_template_refuses():
    rows = [{"messages": [USER, ANSWER]}, {"messages": TALK}]
    with pytest.raises(DataError) as caught:
        encode_completions(rows, byte_tokenizer(GEMMA, bos=True))
    assert str(caught.value) == (
        "row 2 of 2: the chat template fails for turns of system, user, assistant, user, assistant: System role not "
        "supported; put what the system turn says into the first turn of the user"
    )
    with pytest.raises(DataError, match=r"row 1 of 1: .*must alternate.*; let turns of user and assistant take turns"):
        encode_completions([{"messages": [USER, USER, ANSWER]}], byte_tokenizer(GEMMA, bos=True))


def test_templates_that_fail_and_tokenizers_without_one():
    with pytest.raises(ConfigError, match="row 1 of 1 needs a chat template, and the tokenizer has none, as"):
        encode_completions([{"messages": [USER, ANSWER]}], byte_tokenizer())
    with pytest.raises(ConfigError, match="template: chat needs a chat template, and the tokenizer has none"):
        encode_completions([{"prompt": "a", "completion": "b"}], byte_tokenizer(), template="chat")
    with pytest.raises(ConfigError, match=r"the chat template is no Jinja: .*, in line 1; correct it"):
        encode_completions([{"messages": [USER, ANSWER]}], byte_tokenizer(), template="{% for m in %}")
    with pytest.raises(DataError, match=r"row 1 of 1: the chat template fails for turns of user.*: can only concat"):
        encode_completions([{"messages": [USER, ANSWER]}], byte_tokenizer(), template="{{ messages[0].role + 1 }}")
    with pytest.raises(ConfigError, match="template must be 'chat', or a chat template in Jinja; found ''"):
        encode_completions([{"prompt": "a", "completion": "b"}], byte_tokenizer(), template="")


def test_a_template_that_shows_a_beginning_otherwise_is_refused():
    counting = "{{ messages | length }}" + CHATML
    with pytest.raises(DataError) as caught:
        encode_completions([{"messages": [USER, ANSWER]}], byte_tokenizer(), template=counting)
    assert "row 1 of 1: the chat template shows the beginning of the conversation otherwise" in str(caught.value)
    assert "{% generation %}" in str(caught.value)


def test_lengths_beyond_the_model_and_prompts_alone():
    short = byte_tokenizer(longest=16)
    with pytest.raises(ConfigError, match="max_length must be from 3 to the model's 16; found 17"):
        encode_completions([{"prompt": "a", "completion": "b"}], short, 17)
    encoded = encode_completions([{"prompt": "a" * 40, "completion": "b"}], short)
    assert (len(encoded.input_ids[0]), encoded.num_truncated) == (16, 1)
    found = encode_prompts(["a" * 40, "b"], short)
    assert ([len(ids) for ids in found.input_ids], found.num_truncated) == ([16, 1], 1)
    with pytest.raises(DataError, match="prompt 2 of 2 must be a text that is not empty, or turns; found ' '"):
        encode_prompts(["a", " "], short)


def test_the_place_of_a_row_is_named():
    row = Completion("a", "b" * 20, where="train.jsonl, line 7")
    with pytest.raises(DataError, match=r"^train\.jsonl, line 7: the completion has 21 tokens"):
        encode_completions([row], byte_tokenizer(), 8)
    assert row == Completion("a", "b" * 20)
