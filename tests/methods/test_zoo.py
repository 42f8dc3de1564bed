"""Every method on every architecture of the zoo: exact, or refused when it is attached; as the documentation says."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from zoo.animals import ALL, PROMISED, backbone
from zoo.contract import GOOD, QUICK, tried
from zoo.purpose import ROWS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "architectures" / "results.json"
COMMITTED = json.loads(RESULTS.read_text(encoding="utf-8"))
PAIRS = COMMITTED["pairs"]
SAME = all(version(package).startswith(number) for package, number in COMMITTED["versions"].items())
"""Whether results are those of the installed packages, of which others may have other architectures."""
EVERY = 8
"""A pair in so many has its gradients compared here; all have in the long test, which also compares the sentences."""


@pytest.mark.filterwarnings("ignore")  # of transformers and peft, on fields that tiny configurations lack
@pytest.mark.parametrize("name", ALL)
def test_each_method_works_or_is_refused_when_it_is_attached(name):
    found, whole = {}, backbone(name)  # one for all, which each leaves as it was
    for number, row in enumerate(ROWS):  # others for each architecture
        share = name in PROMISED and (ALL.index(name) + 3 * number) % EVERY == 0
        found[row] = tried(name, row, QUICK if share else (), whole).result
    assert set(found.values()) <= set(GOOD)
    if SAME:
        assert found == {row: result for row, (result, *_) in PAIRS[name].items()}


@pytest.mark.long
@pytest.mark.skipif(not SAME, reason="the committed results are of other versions of transformers, peft or torch")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ALL)
def test_results_are_those_of_the_table(name):
    found = {row: tried(name, row) for row in ROWS}
    assert {row: [one.result, one.says, one.lacks] for row, one in found.items()} == PAIRS[name]
