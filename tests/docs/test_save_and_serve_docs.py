"""Every Python block of the how-to runs as it stands, in its order."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from processes import finished

pytest.importorskip("peft")
pytest.importorskip("accelerate")
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "save-and-serve.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
CHECKS = """
import torch

cim = encode(world.corpus("cim").train, world.corpus("cim").labels, tokenizer)
assert all(torch.equal(one, other) for one, other in zip(train.input_ids, cim.input_ids, strict=True))
batch = train.batch(range(4))
expected = to_transformers(model.eval(), "cim")(batch["input_ids"], batch["attention_mask"]).logits
assert torch.allclose(expected, model(batch, "cim"), atol=1e-5)
assert PEModel.from_pretrained("primed").load_task("primed/tasks/cim") == "cim"
assert again.tasks == ("cim",) and server.tasks == ("cim", "dov")
"""


@pytest.mark.slow
@pytest.mark.long
def test_the_blocks_run(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = finished("-c", "\n".join(BLOCKS) + CHECKS, cwd=tmp_path, environment=environment, check=True)
    assert re.search(r"^cim \d+ bytes$", done.stdout, flags=re.MULTILINE)
