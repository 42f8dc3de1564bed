"""Completions that are served: those of plain transformers, whole or token by token, from Python and the terminal."""

from __future__ import annotations

import copy
import json
import threading

import pytest
import torch
from exported_models import LORA
from tokenizer_kinds import tokenizer_of
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, TextStreamer

from pemeta import PEMethod, PEModel, Server, to_transformers
from pemeta.deploy.exporting import export_task
from pemeta.errors import ConfigError, DataError, ModelError, OutputError
from pemeta.heads import CausalLM, SequenceClassification
from pemeta.model.task_files import Prompting

PROMPTS = ["the town of", "Bergen", "Tuva reads in Bergen and works"]
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
NEW = 12


def chatty():
    made = copy.deepcopy(tokenizer_of("GPT-2"))
    made.model_max_length = 64
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A language model with two tasks: one of texts as they are, one whose prompts become turns."""
    folder, tokenizer = tmp_path_factory.mktemp("lm") / "m", chatty()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_key_value_heads=1, **shape)
    model = PEModel(LlamaForCausalLM(config), PEMethod.parse(LORA)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder, tokenizer)
    for seed, (task, prompting) in enumerate({"plain": None, "chat": Prompting(template="chat", end_ids=(2,))}.items()):
        model.add_head(task, CausalLM())
        torch.manual_seed(seed)
        with torch.no_grad():
            for name in model.stored_names(task):
                model.get_parameter(name).add_(torch.randn_like(model.get_parameter(name)), alpha=0.3)
        model.save_task(folder / "tasks" / task, task, max_length=40, prompting=prompting)
    return folder


@pytest.fixture
def server(served):
    return Server.load(served, device="cpu")


def by_transformers(served, task: str, ids: list[int]) -> list[int]:
    """The new tokens of the merged model, in plain transformers."""
    model = PEModel.from_pretrained(served)
    model.load_task(served / "tasks" / task)
    made = to_transformers(model, task).generate(
        torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=2, pad_token_id=0
    )
    return made[0, len(ids) :].tolist()


@pytest.mark.parametrize("task", ["plain", "chat"])
def test_completions_are_those_of_plain_transformers(served, server, task):
    tokenizer = server.tokenizer
    found = server.predict(task, PROMPTS, max_new_tokens=NEW)
    assert [one.prompt for one in found] == PROMPTS
    for prompt, one in zip(PROMPTS, found, strict=True):
        if task == "plain":
            ids = [1, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        else:
            turns = [{"role": "user", "content": prompt}]
            ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        expected = by_transformers(served, task, ids)
        assert one.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert one.finished == (2 in expected)
    assert len({one.text for one in found}) > 1


def test_a_stream_has_the_same_text_in_pieces(server):
    for task in ("plain", "chat"):
        pieces = list(server.stream(task, PROMPTS[0], max_new_tokens=NEW))
        assert "".join(pieces) == server.predict(task, [PROMPTS[0]], max_new_tokens=NEW)[0].text
    assert len(pieces) > 1


def test_turns_are_prompts_too(server):
    asked = [{"role": "user", "content": PROMPTS[0]}]
    (turns,), (text,) = (server.predict("chat", [one], max_new_tokens=NEW) for one in (asked, PROMPTS[0]))
    assert turns.text == text.text
    assert json.loads(json.dumps(turns.to_json()))["prompt"] == asked
    assert "".join(server.stream("chat", asked, max_new_tokens=NEW)) == text.text


def test_a_stream_that_is_left_ends_and_frees_the_server(server):
    before = threading.active_count()
    stream = server.stream("plain", PROMPTS[0], max_new_tokens=40)
    next(stream)
    stream.close()
    assert threading.active_count() == before
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(server.predict("chat", PROMPTS, max_new_tokens=2)))
    thread.start()
    thread.join(60)
    assert len(answers) == len(PROMPTS)


def test_sampling_and_what_goes_wrong(server, monkeypatch):
    torch.manual_seed(0)
    drawn = {
        server.predict("plain", [PROMPTS[0]], max_new_tokens=NEW, do_sample=True, temperature=5.0)[0].text
        for _ in "abc"
    }
    assert len(drawn) > 1
    for texts, says in (
        ("one", "task 'plain' completes prompts: a list of strings.*put a single one in brackets"),
        ([3], "prompt 1 of 1 is 3"),
        (["a", " "], "prompt 2 of 2 is empty; remove it"),
        ([[{"role": "user"}]], "prompt 1 of 1 is"),
    ):
        with pytest.raises(DataError, match=says):
            server.predict("plain", texts)
    with pytest.raises(ConfigError, match="less than the 64 tokens that the model takes; found 64"):
        server.predict("plain", PROMPTS, max_new_tokens=64)
    with pytest.raises(ConfigError, match="max_new_tokens must be a whole number of at least 1"):
        list(server.stream("plain", PROMPTS[0], max_new_tokens=0))
    with pytest.raises(DataError, match="prompt 1 of 1"):
        list(server.stream("plain", ""))
    monkeypatch.setattr(TextStreamer, "put", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # in the thread that generates
        list(server.stream("plain", PROMPTS[0], max_new_tokens=2))


def test_a_task_that_generates_nothing_refuses_to(served, tmp_path):
    model = PEModel.from_pretrained(served)
    model.add_head("mood", SequenceClassification(labels=("a", "b")))
    model.save_task(tmp_path / "mood", "mood")
    server = Server.load(served, [tmp_path / "mood"], "cpu")
    assert not server.completes("mood")
    with pytest.raises(ModelError, match="'sequence_classification', which completes nothing; use predict"):
        list(server.stream("mood", "a"))
    with pytest.raises(ConfigError, match="max_new_tokens is for tasks that complete prompts, and 'mood' has the head"):
        server.predict("mood", ["a"], max_new_tokens=3)


def test_long_prompts_lose_their_beginning_but_not_bos(served, server):
    long = "Bergen " * 60
    room = min(40, 64 - NEW)
    ids = server.tokenizer(long, add_special_tokens=False)["input_ids"]
    assert len(ids) > room
    (found,) = server.predict("plain", [long], max_new_tokens=NEW)
    expected = by_transformers(served, "plain", [1, *ids[-room + 1 :]])
    assert found.text == server.tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("problem", "check"),
    [("multi_label", "labels"), ("regression", "values")],
)
def test_several_labels_and_numbers_are_served(tiny_bert_dir, tmp_path, tokenizer, problem, check):
    model = PEModel.from_pretrained(tiny_bert_dir, PEMethod.parse("lora"))
    model.save_pretrained(tmp_path / "m", tokenizer)
    model.add_head("t", SequenceClassification(labels=("x", "y", "z"), problem=problem))
    torch.manual_seed(0)
    with torch.no_grad():
        model.head("t").classifier.weight.normal_()
    model.save_task(tmp_path / "m" / "tasks" / "t", "t")
    texts = ["Anna met Otto", "near", "Rome today"]
    found = Server.load(tmp_path / "m", device="cpu").predict("t", texts)
    for text, one in zip(texts, found, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            row = model.eval()({key: encoded[key] for key in ("input_ids", "attention_mask")}, "t")[0]
        if problem == "regression":
            assert list(one.values.values()) == pytest.approx(row.tolist(), abs=1e-5)
        else:
            assert one.labels == tuple(label for label, value in zip("xyz", row.tolist(), strict=True) if value > 0)
            assert list(one.scores.values()) == pytest.approx(row.sigmoid().tolist(), abs=1e-5)
        assert str(one).endswith(f"  {text}")
        assert json.loads(json.dumps(one.to_json()))["text"] == text


# The command line


def test_predict_streams_one_prompt_and_prints_several(pemeta, served, server, tmp_path):
    expected = [one.text for one in server.predict("plain", PROMPTS, max_new_tokens=NEW)]
    base = ("predict", served, "--task", "plain", "--device", "cpu", "--max-new-tokens", NEW)
    shown = pemeta(*base, PROMPTS[0])
    assert (shown.code, shown.err, shown.out) == (0, "", expected[0] + "\n")
    assert pemeta(*base, *PROMPTS).out == "".join(f"{text}\n" for text in expected)
    file = tmp_path / "asked.jsonl"
    rows = [{"prompt": PROMPTS[0]}, {"messages": [{"role": "user", "content": PROMPTS[1]}]}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    answers = [json.loads(line) for line in pemeta(*base, "--json", "--file", file).out.splitlines()]
    assert [one["prompt"] for one in answers] == [PROMPTS[0], rows[1]["messages"]]
    assert answers[0]["text"] == expected[0]
    file.write_text('{"question": "a"}\n')
    assert "line 1: expected an object with text, prompt or messages; found" in pemeta(*base, "--file", file).err
    assert pemeta(*base, "--temperature", 3, PROMPTS[0]).code == 0


@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_export_writes_what_others_load(pemeta, served, tmp_path, form):
    if form == "adapter":
        peft = pytest.importorskip("peft")
    done = pemeta("export", served, tmp_path / "out", "--task", "plain", "--as", form, "--vllm")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1] == f"vLLM: no reason to refuse {tmp_path / 'out'}"
    ids = torch.tensor([[5, 6, 7, 8]])
    model = PEModel.from_pretrained(served)
    model.load_task(served / "tasks" / "plain")
    if form == "merged":
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    else:
        theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=ids).logits, model.eval()({"input_ids": ids}, "plain"), atol=1e-5)


def test_export_says_what_is_wrong(pemeta, served, tmp_path):
    for arguments, says in (
        ((tmp_path / "out",), "has 2 tasks (chat, plain)"),
        ((tmp_path / "out", "--task", "plain", "--as", "gguf"), "unknown form of an export 'gguf'"),
        ((served, "--task", "plain"), "is a model saved by pemeta, which an export would replace"),
    ):
        done = pemeta("export", served, *arguments)
        assert done.code == 2
        assert says in done.err
    assert not (tmp_path / "out").exists()
    done = pemeta(
        "export", served, tmp_path / "out", "--task", "plain", "--as", "adapter", "--vllm", "--max-lora-rank", 1
    )
    assert done.code == 2
    assert "its rank 2 is more than --max-lora-rank 1; start the server with --max-lora-rank 8" in done.err


def test_an_export_does_not_replace_its_own_base(served, tmp_path, monkeypatch):
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(served).save_pretrained(base)
    monkeypatch.setattr("pemeta.deploy.exporting.resolve_base", lambda *_: str(base))
    before = (base / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="is the task's own base, which an export would replace"):
        export_task(served, base, "plain")
    assert (base / "model.safetensors").read_bytes() == before


def test_a_model_with_a_table_of_positions_is_not_run_beyond_it(tmp_path):
    tokenizer = chatty()
    tokenizer.model_max_length = 10**6
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, n_positions=16)
    model = PEModel(GPT2LMHeadModel(config), PEMethod.parse({"name": "prefix", "length": 3}))
    model.save_pretrained(tmp_path / "m", tokenizer)
    model.add_head("t", CausalLM())
    model.save_task(tmp_path / "m" / "tasks" / "t", "t")
    server = Server.load(tmp_path / "m", device="cpu")
    (found,) = server.predict("t", ["Bergen " * 20], max_new_tokens=5)
    assert isinstance(found.text, str)
