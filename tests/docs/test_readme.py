"""Every Python block of the README runs as it stands, alone, and does what the text says of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from processes import finished

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)

PRIMES = """
assert set(model.tasks) == {"aru", "bex", "cim"}
assert 0.05 < evaluate(model, data("cim", "test"), "cim").f1 <= 1
assert model.num_stored("cim") == (2 * 64 * 32 + 32 + 64) + (64 * 7 + 7)
"""

ADAPTS = """
parts, own = model.partition(), dict(model.named_parameters())
cloned = dict(clone.module.named_parameters())
adapted = clone.adapted_parameters()
assert set(adapted) == set(parts.theta_a + parts.theta_h)
assert all(cloned[name] is own[name] for name in parts.theta_p)
assert not any(torch.equal(adapted[name], own[name]) for name in parts.theta_a)
assert all(own[name].grad is not None for name in parts.theta_a)
assert all(own[name].grad is None for name in parts.theta_h)
assert sum(own[name].grad is not None for name in parts.theta_p) == len(parts.theta_p)
"""


def run(code: str, folder: Path) -> str:
    """Output of code in a Python of its own, in which a warning is an error."""
    # One thread: the models are tiny, and threads that wait for each other on busy cores take several times as long.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return finished("-W", "error", "-c", code, cwd=folder, environment=environment, check=True).stdout


def test_it_has_these_two_blocks() -> None:
    assert ["prime(model" in block for block in BLOCKS] == [True, False]
    assert ["clone.adapt" in block for block in BLOCKS] == [False, True]


@pytest.mark.slow
def test_the_first_block_primes_a_model(tmp_path: Path) -> None:
    output = run(BLOCKS[0] + PRIMES, tmp_path)

    assert re.fullmatch(r"F1 [01]\.\d{3}, stored \d\.\d%\n", output)


def test_the_second_block_adapts_a_clone_and_gives_a_meta_gradient(tmp_path: Path) -> None:
    run(BLOCKS[1] + ADAPTS, tmp_path)


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]

    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_methods_that_it_names_are_there() -> None:
    from pemeta import PEMethod

    named = re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)
    assert named
    assert set(named) <= set(PEMethod.members())


def test_it_and_the_index_of_the_documentation_agree_on_what_is_supported() -> None:
    from pemeta import HeadSpec, PEMethod

    index = (README.parent / "docs" / "index.md").read_text(encoding="utf-8")
    for says in (
        r"BERT, RoBERTa,[\w\d,' -]+ and ViT",
        r"for Hugging Face \w+, with \w+ PE methods",
        r"A task is [\w ,]+ modelling, and one run may mix them",
    ):
        readme, docs = (re.findall(says, " ".join(text.split())) for text in (TEXT, index))
        assert len(readme) == 1, says
        assert readme == docs
    numbers = ("ten", "eleven", "twelve", "thirteen", "fourteen")
    assert f"with {numbers[len(PEMethod.members()) - 10]} PE methods" in " ".join(TEXT.split())
    assert set(HeadSpec.members()) == {"token_classification", "sequence_classification", "causal_lm", "masked_lm"}
