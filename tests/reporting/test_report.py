"""Reports: hand-counted means and errors, honest gaps, refusals, and output that its readers can parse."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_records import make, primed
from processes import finished
from pydantic import ValidationError

from pemeta.errors import ConfigError, OutputError
from pemeta.experiments.config import GridConfig
from pemeta.experiments.config import Run as Run
from pemeta.experiments.report_files import read_report
from pemeta.reporting import (
    Cell,
    Planned,
    Report,
    Table,
    build_report,
    table,
    to_html,
    to_markdown,
    to_terminal,
)
from pemeta.reporting import write_report as write_files
from pemeta.reporting.records import Record, write_record
from pemeta.reporting.spec import ReportSpec
from pemeta.utils.digests import config_digest


def cell(of: Table, label: str, column: str) -> Cell:
    (row,) = [row for row in of.rows if row.label == label]
    return row.cells[of.columns.index(column)]


def titled(report: Report, start: str) -> Table:
    (found,) = [one for one in (*report.tables, *report.details) if one.title.startswith(start)]
    return found


def save(folder: Path, *records: Record) -> None:
    for record in records:
        write_record(folder, record)


# Means and errors


def test_mean_and_standard_error_by_hand() -> None:
    # Seeds 0.80, 0.82, 0.87: mean 0.83, deviations -.03 -.01 .04, s² = .0026 / 2, s / √3 = .020817.
    result = table([make(seed=seed, f1=f1) for seed, f1 in enumerate((0.80, 0.82, 0.87))])
    found = cell(result, "adapter", "hi")
    assert found.text == "83.0 ± 2.1"
    assert found.mean == pytest.approx(83.0)
    assert found.error == pytest.approx(100 * math.sqrt(0.0013 / 3))


def test_mean_column_has_the_error_of_seed_means() -> None:
    # Seed means: 0.5 and 0.5. Each target moves by 0.2 between the seeds, their mean does not move at all.
    scores = {("hi", 0): 0.4, ("af", 0): 0.6, ("hi", 1): 0.6, ("af", 1): 0.4}
    result = table([make(target=target, seed=seed, f1=f1) for (target, seed), f1 in scores.items()])
    assert cell(result, "adapter", "hi").text == "50.0 ± 10.0"
    assert cell(result, "adapter", "Mean").text == "50.0 ± 0.0"


def test_one_seed_has_no_error() -> None:
    result = table([make(f1=0.4), make(target="af", f1=0.5)])
    assert [entry.text for entry in result.rows[0].cells] == ["0.062 %", "50.0", "40.0", "45.0"]
    assert "±" not in to_terminal(build_report([make()])).split("Scores:")[0]


def test_partial_seeds_use_complete_seeds_for_the_error_and_are_named() -> None:
    # hi: 0.2, 0.4, 0.9 → 0.5; af: 0.6, 0.8 → 0.7; Mean 0.6. Complete seeds 0 and 1: 0.4 and 0.6 → s / √2 = 0.1.
    records = [make(seed=seed, f1=f1) for seed, f1 in enumerate((0.2, 0.4, 0.9))]
    records += [make(target="af", seed=seed, f1=f1) for seed, f1 in enumerate((0.6, 0.8))]
    result = table(records)
    assert cell(result, "adapter", "Mean").text == "60.0 ± 10.0"
    assert "1 of 6 runs missing." in result.notes
    assert "Some cells lack seeds: adapter on af has 0, 1 of 0, 1, 2." in result.notes


def test_many_partial_cells_are_counted() -> None:
    records = [make(target=f"t{index}") for index in range(12)]
    (note,) = [note for note in table(records, Planned(seeds=(0, 1))).notes if note.startswith("Some cells")]
    assert note.count(" has 0 of 0, 1") == 8
    assert note.endswith("; and 4 more cells.")


# Rows, groups, gaps


def test_best_is_marked_per_group_and_column() -> None:
    records = [make("full", f1=0.9), make("adapter", f1=0.7), make("full", "af", f1=0.6), make("adapter", "af", f1=0.8)]
    records += [primed("meta", f1=0.3), primed("meta", "af", f1=0.2)]
    result = table(records)
    assert [name for name, _ in result.groups] == ["Without priming", "With priming"]
    best = {
        (row.label, name) for row in result.rows for name, c in zip(result.columns, row.cells, strict=True) if c.best
    }
    assert best >= {("full", "hi"), ("adapter", "af")}
    assert best.isdisjoint({("adapter", "hi"), ("full", "af"), ("full", "Stored"), ("meta", "Stored")})


def test_one_row_alone_is_not_best() -> None:
    records = [make("full", f1=0.9), make("adapter", f1=0.7), primed("meta", f1=0.3)]
    marked = {row.label: [cell.best for cell in row.cells] for row in table(records).rows}
    assert marked == {"full": [False, True, True], "adapter": [False] * 3, "meta": [False] * 3}
    lonely = ReportSpec.model_validate(
        {"figures": [{"name": "bars", "title": "x", "settings": ["full"]},
                     {"name": "matrix", "title": "y", "rows": ["r"], "columns": ["c"], "settings": [["full"]]}]}
    )  # fmt: skip
    for chart in build_report(records, spec=lonely).charts.values():
        assert not any(cell.best for row in chart.table().rows for cell in row.cells)


def test_what_shows_as_equal_ties() -> None:
    result = table([make("a", f1=0.90004), make("b", f1=0.90001), make("c", f1=0.899)])
    assert [row.cells[1].best for row in result.rows] == [True, True, False]
    assert [row.cells[1].text for row in result.rows] == ["90.0", "90.0", "89.9"]


def test_missing_cells_are_shown_and_counted() -> None:
    records = [make("a"), make("a", "af"), make("b"), primed("c", "af")]
    result = table(records, Planned(settings=("a", "b", "c", "never")))
    assert cell(result, "b", "af").text == "–"
    assert cell(result, "b", "Mean").text == "–", "a mean over fewer targets cannot be compared"
    assert not cell(result, "b", "af").best
    assert "4 of 8 runs missing." in result.notes
    assert "Omitted because none of their runs has finished: never." in result.notes


def test_a_full_grid_has_no_notes_on_gaps() -> None:
    result = table([make(seed=0), make(seed=1)])
    assert not [note for note in result.notes if "missing" in note or "seeds" in note]


def test_a_target_and_a_seed_without_record_count() -> None:
    result = table([make()], Planned(targets=("nl", "hi"), seeds=(0, 1, 2)))
    assert result.columns == ("Stored", "nl", "hi", "Mean")
    assert "5 of 6 runs missing." in result.notes


@pytest.mark.parametrize(
    ("fraction", "text"), [(1.0, "100 %"), (0.00003, "0.003 %"), (0.004, "0.4 %"), (0.0000001, "0.00001 %")]
)
def test_stored_share(fraction: float, text: str) -> None:
    assert cell(table([make(fraction_adapted=fraction)]), "adapter", "Stored").text == text


def test_stored_share_is_a_range_where_heads_differ() -> None:
    records = [make(fraction_adapted=0.001), make(target="af", fraction_adapted=0.002)]
    assert cell(table(records), "adapter", "Stored").text == "0.1–0.2 %"


# Refusals


def test_differing_configurations_are_refused() -> None:
    other = make(seed=1, config={"target": "hi", "seed": 1, "finetuning": {"epochs": 10, "lr": 0.001}})
    with pytest.raises(OutputError) as caught:
        table([make(), other])
    message = str(caught.value)
    for part in ("'adapter'", "finetuning.epochs is 3", "and 10 in", "adapter__hi__seed1.json", "remove"):
        assert part in message


def test_an_absent_key_is_a_difference() -> None:
    config = {"target": "hi", "seed": 1, "finetuning": {"epochs": 3, "lr": 0.001, "warmup": 5}}
    with pytest.raises(OutputError, match=r"finetuning\.warmup is absent in .* and 5 in"):
        table([make(), make(seed=1, config=config)])


def test_only_the_top_level_seed_may_differ() -> None:
    records = [make(seed=seed, config={"seed": seed, "data": {"seed": seed}}) for seed in (0, 1)]
    with pytest.raises(OutputError, match=r"data\.seed is 0"):
        table(records)


def test_settings_may_differ_from_each_other() -> None:
    assert len(table([make("a"), make("b", config={"finetuning": {"epochs": 9}})]).rows) == 2


def test_the_same_run_twice_is_refused() -> None:
    with pytest.raises(OutputError, match="two records of target 'hi' with seed 0"):
        table([make(), make(f1=0.6)])


# The other tables and the facts


def test_scores_per_type_are_means_over_targets() -> None:
    records = [make(scores_by={"LOC": 0.2, "PER": 0.4}), make(target="af", scores_by={"LOC": 0.6})]
    types = titled(build_report(records), "F1 per entity type")
    assert [entry.text for entry in types.rows[0].cells] == ["40.0", "40.0"]
    missing_af = titled(build_report([*records, make("b", scores_by={"LOC": 0.9, "PER": 0.9})]), "F1 per entity type")
    assert [entry.text for entry in missing_af.rows[1].cells] == ["–", "90.0"]


def test_no_types_no_table() -> None:
    assert not [one for one in build_report([make(scores_by={})]).details if "type" in one.title]


def test_scores_on_unseen_sentences() -> None:
    records = [make(f1=0.9, score_unseen=0.6), make(target="af", score_unseen=None, num_unseen=0)]
    unseen = titled(build_report(records), "F1 on unseen")
    assert [entry.text for entry in unseen.rows[0].cells] == ["–", "60.0", "–"]
    assert "af 0 of 100, hi 80 of 100" in unseen.notes[0]


def test_counts_that_agree_are_given_once() -> None:
    unseen = titled(build_report([make(), make(target="af")]), "F1 on unseen")
    assert unseen.notes[0].endswith("a source: 80 of 100 on each target.")


def test_seconds() -> None:
    times = (2.0, 3.0, 100.0)  # the last while the machine did something else too
    records = [*(make("a", seed=i, seconds=s) for i, s in enumerate(times)), primed("b", seconds=1500.0)]
    seconds = titled(build_report(records), "Median seconds")
    assert [[entry.text for entry in row.cells] for row in seconds.rows] == [["0", "3.0"], ["60", "1,500"]]
    unknown = make("b", priming="maml")
    assert titled(build_report([unknown]), "Median seconds").rows[0].cells[0].text == "–"


def test_facts() -> None:
    one = dict(build_report([make(), make(seed=1)]).facts)
    assert one["Seeds"] == "0, 1"
    assert one["Truncated test sentences"] == "none"
    assert one["Packages"] == "torch 2.13.0"
    other = make(seed=1, num_truncated=2, packages={"torch": "2.4.0"}, hardware={"device": "H200", "cores": 2})
    facts = dict(build_report([make(), other]).facts)
    assert facts["Packages"] == "torch 2.13.0 / 2.4.0 (runs differ)"
    assert facts["Hardware"] == "device H200 / cpu (runs differ), cores 2"
    assert facts["Truncated test sentences"].startswith("hi 0–2 of 100; ")
    assert "micro F1" in facts["Scores"]


# What users see

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that tags nest, and collects the texts of cells and everything that could load a file.

    Attributes:
        sources: of each ``src``, whether it holds the picture itself.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.cells: list[str] = []
        self.attributes: set[str] = set()
        self.sources: list[bool] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [str(value).startswith("data:image/") for name, value in attrs if name == "src"]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


AWKWARD = "meta-primed → adapter <b>|*x*</b> & co"


def test_html_parses_escapes_and_stands_alone() -> None:
    report = build_report(
        [primed("meta", "<i>", label=AWKWARD, hardware={"device": "<img>"}), make()], title="<script>alert(1)</script>"
    )
    text = to_html(report)
    page = Page(text)
    assert AWKWARD in page.cells
    assert "<i>" in page.cells
    assert {"table", "caption", "thead", "tbody"} <= set(page.seen)
    assert not {"b", "i", "script", "link", "img"} & set(page.seen)
    assert not {"src", "href"} & page.attributes
    assert not re.search(r"https?:|url\(|@import", text)
    assert '<meta charset="utf-8">' in text


def test_html_rows_have_every_column() -> None:
    for part in to_html(build_report([make("a"), make("b", "af"), primed("c")])).split("<table>")[1:]:
        columns = part.split("</thead>")[0].count("<th ")
        rows = re.findall(r'<tr><th scope="row">.*</tr>', part)
        assert len(rows) == 3
        assert {1 + row.count("<td>") for row in rows} == {columns}


def test_markdown_marks_and_escapes() -> None:
    text = to_markdown(build_report([primed("meta", label=AWKWARD, f1=0.8), primed("other", f1=0.7)]))
    lines = text.splitlines()
    assert r"| meta-primed → adapter \<b\>\|\*x\*\</b\> \& co | 0.062 % | **80.0** | **80.0** |" in lines
    assert "| other | 0.062 % | 70.0 | 70.0 |" in lines
    assert lines.index("| *With priming* |  |  |  |") < lines.index("| other | 0.062 % | 70.0 | 70.0 |")


def test_markdown_leaves_underscores_inside_words() -> None:
    text = to_markdown(build_report([make(label="x86_64 __init__ _a_")]))
    assert r"| x86_64 \_\_init\_\_ \_a\_ |" in text


def test_terminal_columns_are_aligned() -> None:
    records = [primed("meta", label="日本語 → adapter", f1=0.8), primed("meta", seed=1, f1=0.9), make("x", f1=0.71)]
    records += [primed("other", f1=0.6), primed("other", seed=1, f1=0.6), make("y", f1=0.6)]
    text = to_terminal(build_report(records))
    lines = text.split("\n\n")[1].splitlines()
    assert lines[0].startswith("F1 on all test")
    wide, narrow = (next(line for line in lines if start in line) for start in ("日本語", "  x "))
    assert "85.0 ± 5.0*" in wide
    assert "71.0*" in narrow
    # Three wide characters take six columns of the terminal, so that line has three characters fewer.
    assert wide.index("*") + 3 == narrow.index("*")
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_terminal_is_plain_text() -> None:
    assert "\x1b" not in to_terminal(build_report([make(label="a\nb")]))
    assert "  a b  " in to_terminal(build_report([make(label="a\nb")]))


# Files


def write_report(folder: Path) -> str:
    report = read_report(folder)
    write_files(folder, report)
    return to_terminal(report)


def test_records_on_other_data_are_refused() -> None:
    with pytest.raises(
        OutputError, match=r"'adapter' mixes data: .*seed0\.json and .*seed1\.json are of different data; run the grid"
    ):
        table([make(seed=0, data_digest="one"), make(seed=1, data_digest="two")])
    table([make(target="af", data_digest="one"), make(target="hi", data_digest="two")])


def test_write_report(tmp_path: Path) -> None:
    save(tmp_path, make(f1=0.75), primed("meta", label="meta-primed → adapter", f1=0.85))
    text = write_report(tmp_path)
    assert text == write_report(tmp_path), "a report can be rebuilt"
    for name in ("report.md", "report.html"):
        assert "meta-primed → adapter" in (tmp_path / name).read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Results: ")
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records", "report.html", "report.md"]
    assert re.search(r"meta-primed → adapter +0\.062 % +85\.0 +85\.0", text)
    assert f"Results: {tmp_path.name}" in text


def test_order_from_config(tmp_path: Path) -> None:
    save(tmp_path, make("a", "af"), make("b", "af"), make("z", "hi"), make("c", "xx"))
    (tmp_path / "config.yaml").write_text("settings: {z: {}, b: {}, later: {}}\ntargets: [hi, af]\nseeds: [0, 1]\n")
    text = write_report(tmp_path)
    main = text.split("\n\n")[1]
    assert main.splitlines()[1].split() == ["Stored", "hi", "af", "xx", "Mean"]
    assert re.findall(r"^  ([a-z]) ", main, re.MULTILINE) == ["z", "b", "a", "c"]
    assert "17 of 21 runs missing." in main
    assert "finished: later." in main


@pytest.mark.parametrize("config", [None, "", "[1, 2]", "settings: 3\ntargets: hi\nseeds: {}\n", "targets: [no, hi]\n"])
def test_without_an_order_it_is_alphabetical(tmp_path: Path, config: str | None) -> None:
    save(tmp_path, make("b"), make("a"))
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    main = write_report(tmp_path).split("\n\n")[1]
    assert re.findall(r"^  ([a-z]) ", main, re.MULTILINE) == ["a", "b"]
    assert main.splitlines()[1].split() == ["Stored", "hi", "Mean"]


def test_broken_config_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, make())
    (tmp_path / "config.yaml").write_text("settings: [")
    with pytest.raises(OutputError, match=r"config\.yaml.*repair it"):
        write_report(tmp_path)


def test_no_folder_and_no_records(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is not a folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="no records in"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_may_have_their_own_targets_and_seeds(tmp_path: Path) -> None:
    save(tmp_path, *(make("a", target, seed) for target in ("af", "hi") for seed in (0, 1)), make("b", "hi", 0))
    config: dict[str, Any] = {
        "settings": {"a": {"targets": None}, "b": {"targets": ["hi"], "seeds": [0]}},
        "targets": ["hi", "af"],
        "seeds": [0, 1],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main = read_report(tmp_path).tables[0]
    marked = "Best scores are marked where all rows of a group have the same."
    assert main.notes[1:] == (f"Seeds differ: 0, 1 of a; 0 of b. {marked}",)
    assert not cell(main, "a", "hi").best
    config["settings"]["b"]["seeds"] = [0, 5]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    notes = read_report(tmp_path).tables[0].notes
    assert "1 of 6 runs missing." in notes
    assert "Some cells lack seeds: b on hi has 0 of 0, 5." in notes


# What a configuration asks for

REFERENCE = {
    "title": "Gheini et al. (2023), Table 1",
    "columns": ["hi", "lt"],
    "rows": {"1/Full FT": [86.73, 89.43], "3/AT": [77.7, None]},
}
SPEC: dict[str, Any] = {
    "title": "Cross-lingual NER",
    "tables": [
        {"title": "Table 1", "settings": ["meta", "adapter"], "notes": ["On one core."], "reference": REFERENCE},
        {"title": "Figure 3 in numbers", "settings": ["full"], "targets": ["hi"]},
    ],
    "comparisons": [
        {"title": "4 − 3", "first": "meta", "second": "adapter"},
        {"title": "4 − 1", "first": "meta", "second": "full", "targets": ["hi"]},
        {"title": "later", "first": "later", "second": "full"},
    ],
    "figures": [
        {"name": "bars", "title": "Scores", "settings": ["adapter", "meta"]},
        {"name": "gain", "title": "Not yet", "pairs": {"adapter": ["later", "adapter"]}},
    ],
}


def some_records() -> list[Record]:
    records = [make("adapter", target, seed, 0.5) for target in ("hi", "af") for seed in (0, 1)]
    records += [primed("meta", target, seed, 0.6 + 0.1 * seed) for target in ("hi", "af") for seed in (0, 1)]
    return [*records, make("full", "hi", 0, 0.8)]


def of_spec(**changes: Any) -> Report:
    return build_report(some_records(), spec=ReportSpec.model_validate({**SPEC, **changes}))


def test_tables_are_those_of_the_configuration() -> None:
    report = of_spec()
    assert report.title == "Cross-lingual NER"
    one, published, two, compared = report.tables
    assert (one.title, one.columns) == ("Table 1", ("Stored", "af", "hi", "Mean"))
    assert [row.label for row in one.rows] == ["adapter", "meta"]
    assert "On one core." in one.notes
    assert (two.columns, [row.label for row in two.rows]) == (("Stored", "hi", "Mean"), ["full"])
    assert not [note for note in one.notes if "missing" in note], "the other table's settings are none of its business"
    assert compared.title.startswith("Paired differences")
    assert published.title == "For comparison: Gheini et al. (2023), Table 1"
    assert [cell.text for cell in published.rows[0].cells] == ["86.73", "89.43", "88.08"]
    assert [cell.text for cell in published.rows[1].cells] == ["77.70", "–", "–"]
    assert not any(cell.best for row in published.rows for cell in row.cells)
    for shown in (to_markdown(report), to_html(report), to_terminal(report)):
        assert "Published, not from this run" in shown
        assert "Other model, other data" in shown


def test_a_table_of_all_without_a_configuration() -> None:
    (only,) = build_report(some_records()).tables
    assert [row.label for row in only.rows] == ["adapter", "full", "meta"]
    assert build_report(some_records()).charts == {}


def test_rows_and_columns_are_in_the_order_of_the_table() -> None:
    table = {"title": "T", "settings": ["full", "adapter"], "targets": ["hi", "af"]}
    (found,) = of_spec(tables=[table], comparisons=[]).tables
    assert [row.label for row in found.rows] == ["full", "adapter"]
    assert found.columns == ("Stored", "hi", "af", "Mean")


def test_comparisons() -> None:
    compared = of_spec().tables[-1]
    assert compared.head == "Comparison"
    by_title = {row.label: [cell.text for cell in row.cells] for row in compared.rows}
    # 60 and 70 against 50: two seeds give Student's t with one degree of freedom and a little more, from sentences.
    assert by_title["4 − 3"][:1] + by_title["4 − 3"][2:6] == ["+15.0", "4 of 4", "2", "2", "+18.8"]
    low, high = (float(end.replace("−", "-")) for end in by_title["4 − 3"][1].split(" to "))
    assert low + high == pytest.approx(2 * 15, abs=0.21)
    assert 5 * 2 < high - 15 < 5 * 12.71
    assert by_title["4 − 1"][:1] + by_title["4 − 1"][2:5] == ["−20.0", "0 of 1", "1", "1"]
    assert set(by_title["later"]) == {"–"}
    assert "One seed, so the interval covers sentences only: 4 − 1." in compared.notes
    assert "The two settings have no run in common yet: later." in compared.notes
    single = titled(of_spec(), "Paired differences on each target")
    assert single.columns == ("af", "hi")
    assert [cell.text.split(" ")[0] for row in single.rows for cell in row.cells] == ["+15.0", "+15.0", "–", "−20.0"]


def test_a_comparison_of_other_sentences_is_refused() -> None:
    records = [make("adapter"), primed("meta", gold=(2,) * 100)]
    spec = ReportSpec.model_validate({"comparisons": SPEC["comparisons"][:1]})
    with pytest.raises(OutputError, match="test both settings on the same sentences"):
        build_report(records, spec=spec)


def saved_grid(folder: Path, config: dict[str, Any], *records: Record, choices: dict[str, Any] | None = None) -> None:
    """An output folder with the digests that its configuration gives."""
    whole = GridConfig.model_validate(config)
    final = whole.chosen({name: choice["values"] for name, choice in (choices or {}).items()})
    for record in records:
        if record.setting not in final.settings:
            save(folder, record)
            continue
        run = Run(record.setting, record.target, record.seed)
        save(folder, record.model_copy(update={"digest": config_digest(final.run_config(run))}))
    (folder / "config.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json")))
    if choices is not None:
        (folder / "chosen.json").write_text(json.dumps(choices))


def whole_config(**changes: Any) -> dict[str, Any]:
    data = {"name": "conll", "path": "data"}
    settings = {"a": {"method": "adapter"}, "b": {"method": "adapter"}}
    start = {"output": "out", "backbone": "tiny", "data": data, "targets": ["hi"], "settings": settings}
    return {**start, **changes}


def test_records_of_another_configuration_are_excluded(tmp_path: Path) -> None:
    saved_grid(tmp_path, whole_config(max_length=32), make("a"), make("b", f1=0.7))
    saved_grid(tmp_path, whole_config(max_length=16), make("a", f1=0.6), make("unknown"))
    report = read_report(tmp_path)
    assert [row.label for row in report.tables[0].rows] == ["a", "unknown"]
    assert dict(report.facts)["Excluded"] == (
        "1 of 3 records, of another configuration than config.yaml (b); run the grid again"
    )
    (tmp_path / "records" / "a__hi__seed0.json").unlink()
    (tmp_path / "records" / "unknown__hi__seed0.json").unlink()
    with pytest.raises(OutputError, match=r"has 1 record, but none of the configuration in its config.yaml"):
        read_report(tmp_path)


def test_records_are_those_of_what_the_search_chose(tmp_path: Path) -> None:
    rates = {"method": "adapter", "search": {"finetuning.lr": [1.0, 2.0, 3.0]}}
    settings = {"a": rates, "b": {"method": "adapter", "search": "a"}, "c": {"method": "head_only"}}
    config = whole_config(settings=settings)
    choice = {
        "setting": "a",
        "values": {"finetuning.lr": 3.0},
        "f1": {"a, 3": 0.5, "a, 2": 0.41},
        "at_edge": ["finetuning.lr"],
    }
    records = [make(name) for name in ("a", "b", "c")]
    saved_grid(tmp_path, config, *records, choices={"a": {**choice, "diverged": ["a, 1"]}})
    report = read_report(tmp_path)
    assert "Excluded" not in dict(report.facts)
    chosen = titled(report, "What the search chose")
    assert [(row.label, [cell.text for cell in row.cells]) for row in chosen.rows] == [
        ("a", ["3 (1 diverged)", "50.0", "41.0", "finetuning.lr 3", "finetuning.lr"])
    ]
    # Another choice, a choice that is no candidate any more, and none: the records are of none of them.
    for values in ({"finetuning.lr": 2.0}, {"finetuning.lr": 9.0}, None):
        text = json.dumps({"a": {**choice, "values": values, "diverged": []}} if values else {})
        (tmp_path / "chosen.json").write_text(text)
        found = read_report(tmp_path)
        assert [row.label for row in found.tables[0].rows] == ["c"]
        assert dict(found.facts)["Excluded"].startswith(
            "2 of 3 records, of another configuration than config.yaml (a, b)"
        )


def test_scores_on_validation_sentences_are_called_so() -> None:
    records = [make(seed=seed, config={"scored_on": "validation"}) for seed in (0, 1)]
    report = build_report(records)
    assert report.tables[0].title == "F1 on all validation sentences, in percent"
    assert "test sentences" not in to_markdown(report)


def test_best_scores_are_marked_where_runs_are_the_same() -> None:
    def best(*records: Record) -> list[list[bool]]:
        report = build_report(records)
        tables = [report.tables[0], *(t for t in report.details if "unseen" in t.title or "type" in t.title)]
        return [[any(cell.best for row in table.rows for cell in row.cells[-1:])] for table in tables]

    assert best(make("a"), make("b")) == [[True], [True], [True]]
    assert best(make("a"), make("b"), make("b", seed=1)) == [[False], [False], [False]]
    assert best(make("a"), make("b", unseen=(1, 2))) == [[True], [False], [True]]


def test_a_value_given_twice_is_refused() -> None:
    for spec in (
        {"tables": [{"targets": ["af", "af"]}]},
        {"tables": [{"settings": ["a", "a"]}]},
        {"comparisons": [{"title": "x", "first": "a", "second": "b", "targets": ["af", "af"]}]},
        {"figures": [{"name": "bars", "title": "x", "settings": ["a", "a"]}]},
    ):
        with pytest.raises((ValidationError, ConfigError), match="duplicate value in"):
            ReportSpec.model_validate(spec)


def test_figures_have_notes_of_their_own() -> None:
    figure = {"name": "bars", "title": "x", "settings": ["adapter"], "notes": ["As it is.", "And more."]}
    report = build_report([make()], spec=ReportSpec.model_validate({"figures": [figure]}))
    (chart,) = report.charts.values()
    assert chart.notes == ("As it is.", "And more.")
    assert "As it is." in to_markdown(report)
    assert "As it is." in to_html(report)


def test_what_each_setting_saw() -> None:
    config = {
        "priming": {"name": "meta", "outer_steps": 300, "outer_lr": 5e-5, "inner_steps": 5, "inner_lr": 0.03},
        "finetuning": {"lr": 0.001},
    }
    changes = {"config": config, "inner_steps": 5}
    records = [make("a"), primed("meta", **changes), primed("meta", "af", **changes, num_train=1500)]
    seen = titled(build_report(records), "What each setting saw")
    assert [cell.text for cell in seen.rows[0].cells] == ["0", "0", "–", "–", "–", "–", "0.001", "150", "20"]
    assert [cell.text for cell in seen.rows[1].cells] == [
        "4,800",
        "60",
        "300",
        "5e-05",
        "5",
        "0.03",
        "0.001",
        "150–1,500",
        "20",
    ]


def test_settings_and_targets_that_a_report_names() -> None:
    spec = ReportSpec.model_validate(SPEC)
    assert spec.settings_named() == {"meta", "adapter", "full", "later"}
    assert spec.targets_named() == {"hi"}
    assert ReportSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert (ReportSpec().settings_named(), ReportSpec().targets_named()) == (set(), set())


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("3", "report: input should be a mapping"),
        ("{tabels: []}", "report: tabels: unknown key 'tabels'; did you mean 'tables'"),
        ("{figures: [{name: pie, title: x}]}", r"figures\.0: unknown figure 'pie'; Known: bars, cost"),
        ("{figures: [{name: bars, title: x}]}", r"figures\.0\.settings: this key is required"),
        ("{comparisons: [{title: x, first: a}]}", r"comparisons\.0\.second: this key is required"),
        (
            "{tables: [{reference: {title: x, columns: [hi, af], rows: {y: [1]}}}]}",
            r"tables\.0\.reference: rows: expected 2 numbers, one for each of columns; found 1 in 'y'",
        ),
    ],
)
def test_a_wrong_description_is_one_sentence(tmp_path: Path, report: str, message: str) -> None:
    save(tmp_path, make())
    (tmp_path / "config.yaml").write_text(f"report: {report}\n")
    with pytest.raises(
        OutputError, match=rf"config\.yaml: {message if message.startswith('report') else 'report: ' + message}"
    ) as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


# Pictures


def with_pictures(folder: Path) -> Path:
    save(folder, *some_records())
    (folder / "config.yaml").write_text(yaml.safe_dump({"report": SPEC}))
    write_files(folder, read_report(folder))
    return folder


def test_pictures_are_files_and_in_the_page(tmp_path: Path) -> None:
    folder = with_pictures(tmp_path)
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["bars-scores.png", "bars-scores.svg"]
    assert (folder / "figures" / "bars-scores.png").read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.seen.count("img") == 1
    assert page.sources == [True], "the page stands alone"
    assert page.seen.count("figcaption") == 2
    assert "<a" not in (folder / "report.html").read_text(encoding="utf-8")
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.*?)\)", text) == ["figures/bars-scores.png"]
    assert "## Not yet\n\nNothing to draw yet.\n" in text
    assert "- Omitted because their settings have no run in common yet: adapter." in text


def test_reports_are_the_same_each_time(tmp_path: Path) -> None:
    folder = with_pictures(tmp_path)
    names = ["report.md", "report.html", "figures/bars-scores.png", "figures/bars-scores.svg"]
    before = [(folder / name).read_bytes() for name in names]
    (folder / "figures" / "gone.png").write_bytes(b"")
    write_files(folder, read_report(folder))
    assert [(folder / name).read_bytes() for name in names] == before
    assert not (folder / "figures" / "gone.png").exists(), "no picture of an earlier report stays"


def test_the_numbers_of_a_picture_are_beside_it() -> None:
    report = of_spec()
    for shown in (to_markdown(report), to_html(report)):
        assert "Scores" in shown
        assert "65.0 ± 5.0" in shown.split("Bars: F1 on all")[-1]


def test_a_terminal_names_what_it_does_not_show() -> None:
    text = to_terminal(of_spec())
    assert "Pictures in figures/, also as .svg: bars-scores.png." in text
    assert "Nothing to draw yet: Not yet." in text
    assert (
        "Only in the files: Paired differences on each target, in points, What each setting saw, Table 1: F1 on unseen"
        in text
    )
    assert "Median seconds of a run\n" not in text
    assert max(map(len, text.splitlines())) < 400
    assert text.count("\n") < 60


def test_without_matplotlib_the_report_says_how_to_get_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save(folder, *some_records())
    (folder / "config.yaml").write_text(yaml.safe_dump({"report": SPEC}))
    code = (
        "import sys, pathlib; sys.modules['matplotlib'] = None\n"
        "from pemeta.experiments.report_files import read_report\n"
        "from pemeta.reporting import to_terminal, write_report\n"
        "folder = pathlib.Path(sys.argv[1]); report = read_report(folder); write_report(folder, report)\n"
        "print(to_terminal(report))"
    )
    found = finished("-c", code, folder, check=True)
    page = (folder / "report.html").read_text(encoding="utf-8")
    for shown in (found.stdout, page.replace("&#x27;", "'"), (folder / "report.md").read_text(encoding="utf-8")):
        lines = [
            line
            for line in shown.splitlines()
            if "matplotlib is not installed; run" in line and "'pemeta[plots]'" in line.replace("\\", "")
        ]
        assert len(lines) == 1
    assert "<img" not in page
    assert "65.0 ± 5.0" in page, "the numbers are there"
    assert not (folder / "figures").exists()


def test_the_description_in_the_how_to_is_one_of_the_grid_that_it_belongs_to(tmp_path: Path) -> None:
    from pemeta.experiments.config_file import load_config

    pages = Path(__file__).parents[2] / "docs" / "howto"
    blocks = [
        re.findall(r"^```yaml\n(.*?)^```$", (pages / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]
        for name in ("run-a-grid.md", "reports.md")
    ]
    (tmp_path / "grid.yaml").write_text("\n".join(blocks), encoding="utf-8")
    report = load_config(tmp_path / "grid.yaml").report
    assert [figure.name for figure in report.figures] == ["bars", "gain", "steps"]
