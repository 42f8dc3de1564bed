"""The page on serving: its tables say what methods and heads declare, and its blocks run in their order."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from processes import finished
from tiny_models import METHODS, tiny

from pemeta import HeadSpec, PEMethod
from pemeta.model.task_classes import CLASSES

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "serve-it.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
NOT_RUN = ("vllm", "curl", "python", "text-embeddings-router")
"""Programs of the page that are not installed here; it says so."""

COMMAND = """
import sys
import pemeta.cli

def pemeta_command(*words):
    sys.argv = ["pemeta", *words]
    try:
        pemeta.cli.main()
    except SystemExit as end:
        assert not end.code, words
"""


def rows(heading: str) -> list[list[str]]:
    lines = PAGE.split(f"## {heading}")[1].split("\n## ")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return table[2:]


def test_the_table_of_methods_is_what_they_declare() -> None:
    named = {row[0].strip("`"): [cell == "✓" for cell in row[1:]] for row in rows("Which method goes where")}
    assert set(named) | {"compose"} == set(PEMethod.members())
    for name, (method, _) in METHODS.items():
        if method.name == "compose":
            continue
        files = tiny(method).method.peft_config(tiny(method).backbone)
        lora = files is not None and files["peft_type"] == "LORA"
        assert named[method.name] == [True, method.mergeable, files is not None, lora], name


def test_the_table_of_heads_has_every_head_with_its_class() -> None:
    table = rows("Which head goes where")
    found = {
        re.match(r"`(\w+)`", head).group(1): where.split("`")[1] for head, where, _ in table if head != "any other"
    }
    known = {spec.name: wanted.auto.__name__ for spec, wanted in CLASSES.items()}
    assert found == known
    assert {name for name, spec in HeadSpec.members().items() if spec.__module__.startswith("pemeta.")} == set(known)


def test_what_is_not_run_is_said() -> None:
    assert "**not run**" in PAGE
    for kind, block in BLOCKS:
        for line in block.splitlines() if kind == "console" else ():
            assert line.startswith("$ ")
            assert shlex.split(line)[1] in ("pemeta", *NOT_RUN)


@pytest.mark.long
@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path) -> None:
    """All in one process, which starts once."""
    pytest.importorskip("peft")
    pieces = [COMMAND]
    for kind, block in BLOCKS:
        for line in block.splitlines() if kind == "console" else ():
            program, *words = shlex.split(line)[1:]
            if program == "pemeta":
                pieces.append(f"pemeta_command(*{words!r})")
        if kind == "python":
            pieces.append(block)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = finished("-c", "\n".join(pieces), cwd=tmp_path, environment=environment, check=True)
    assert done.stdout.count("vLLM: no reason to refuse") == 2
    assert '"label": "' in done.stdout
