"""Every method of the test table on every architecture of the zoo: python benchmarks/architectures/run.py.

    [--only NAME,NAME] [--methods ROW,ROW] [--missing] [--output FILE]

Each pair is attached to a tiny random backbone in float64 (``tests/zoo``), or refused. Attached, it must be the
identity where the method promises it, have the outer gradients and adapted values of an explicit unroll in both
orders, with and without reuse of hidden states, and leave the backbone as it was when it is detached. ``results.json``
has what came of each pair; the documentation's table is made from it. Pairs of the file that are not tried anew stay,
if they are of the installed versions of the packages.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from zoo.animals import ALL, LACKING, PROMISED  # noqa: E402 - after its folder is known
from zoo.contract import GOOD, tried  # noqa: E402
from zoo.purpose import ROWS  # noqa: E402

from pemeta import Compose, PEMethod  # noqa: E402

RESULTS = HERE / "results.json"
VERSIONS = {package: version(package).partition("+")[0] for package in ("torch", "transformers", "peft")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=among(ALL), default=ALL, help="architectures, with commas between them")
    parser.add_argument("--methods", type=among(ROWS), default=ROWS, help="rows of the test table, in the same way")
    parser.add_argument("--missing", action="store_true", help="only pairs that the file lacks")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in LACKING:
        print(f"{name}: left out, since transformers {VERSIONS['transformers']} does not have it")
    pairs = earlier(given.output)
    for name in given.only:
        for row in given.methods:
            if given.missing and row in pairs.get(name, {}):
                continue
            outcome = tried(name, row)
            pairs.setdefault(name, {})[row] = [outcome.result, outcome.says, outcome.lacks]
            if outcome.result not in GOOD:
                print(f"{name}, {row}: {outcome.result}: {outcome.says}", flush=True)
        print(f"{name}: {dict(Counter(pair[0] for pair in pairs[name].values()))}", flush=True)
        write(given.output, pairs)
    for title, names in (("promised", PROMISED), ("all", ALL)):
        print(f"{title}: {summary(pairs, names)}")


def own(method: PEMethod) -> dict[str, Any]:
    """A method's configuration, without what is so by default."""
    found = {"name": method.name, **method.model_dump(mode="json", exclude_defaults=True)}
    return found | {"methods": [own(part) for part in method.methods]} if isinstance(method, Compose) else found


def among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """What takes names with commas between them, and refuses others."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := sorted(set(found) - set(known)):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return found

    return names


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """The pairs of a file, if they are of the installed versions."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    pairs: dict[str, dict[str, Any]] = found["pairs"] if found.get("versions") == VERSIONS else {}
    return pairs


def write(path: Path, pairs: dict[str, dict[str, Any]]) -> None:
    """One line for each pair, in the order of the zoo, so that a change shows as the lines that changed."""
    lines = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"    {json.dumps(row)}: {json.dumps(pairs[name][row])}" for row in ROWS if row in pairs[name])
        + "\n  }"
        for name in ALL
        if name in pairs
    ]
    settings = ",\n".join(f"  {json.dumps(row)}: {json.dumps(own(method))}" for row, method in ROWS.items())
    head = f'"versions": {json.dumps(VERSIONS)},\n"methods": {{\n{settings}\n}},\n'
    head += f'"promised": {json.dumps(PROMISED)},\n"pairs": {{\n'
    path.write_text("{\n" + head + ",\n".join(lines) + "\n}\n}\n", encoding="utf-8")


def summary(pairs: dict[str, dict[str, Any]], names: tuple[str, ...]) -> str:
    counts = Counter(pair[0] for name in names for pair in pairs.get(name, {}).values())
    acting = sum(counts.values()) - counts["nothing"]
    share = counts["exact"] / acting if acting else 0.0
    return f"{counts['exact']} of {acting} pairs with something to act on are exact ({share:.1%}); {dict(counts)}"


if __name__ == "__main__":
    main()
