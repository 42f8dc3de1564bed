"""The how-to on padding: its keys and values exist."""

import inspect
import re
from pathlib import Path
from typing import get_args

import yaml

from pemeta import FineTuning, MetaPriming, PEModel, Server, evaluate
from pemeta.backbone.packed_passes import Padding

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "padding.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """The page's only block of a kind."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return str(found)


def test_its_configuration_is_one() -> None:
    given = yaml.safe_load(block("yaml"))
    assert MetaPriming(**given["priming"]).padding == FineTuning(**given["finetuning"]).padding == "auto"
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## See")[0], flags=re.MULTILINE)
    assert set(rows) == {"padding", *get_args(Padding)}


def test_its_python_names_what_there_is() -> None:
    compile(block("python"), "padding.md", "exec")
    assert inspect.signature(Server.load).parameters["padding"].default == "auto"
    assert "max_tokens" in inspect.signature(evaluate).parameters
    assert isinstance(PEModel.padding, property)
    assert isinstance(PEModel.packs, property)
