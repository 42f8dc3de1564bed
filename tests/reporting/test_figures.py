"""Figures: their numbers by hand, what they omit, and pictures that can be read."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from fake_records import by_setting, make, primed
from processes import finished

from pemeta.errors import ConfigError
from pemeta.reporting.figures import BarChart, Chart, CostChart, Figure, GainChart, MatrixChart, SizesChart, StepsChart
from pemeta.reporting.figures.picture import drawing, names, picture
from pemeta.reporting.figures.style import MARKERS, SMALL, looks
from pemeta.reporting.records import Record
from pemeta.reporting.tables import Table

EXAMPLES: dict[str, dict[str, Any]] = {
    "bars": {"title": "Bars", "settings": ["adapter", "meta"], "targets": ["hi", "af"]},
    "matrix": {
        "title": "Know where",
        "rows": ["PE", "full"],
        "columns": ["PE", "full"],
        "row_axis": "inner loop",
        "column_axis": "fine-tuning",
        "settings": [["meta", "meta-full"], ["maml", "maml-full"]],
        "reference": [[85.87, 90.33], [84.53, None]],
        "reference_title": "Gheini et al. (2023): other model, other data",
    },
    "gain": {"title": "Gain", "pairs": {"adapter": ["meta", "adapter"], "full": ["meta-full", "full"]}},
    "steps": {"title": "Steps", "settings": ["adapter", "meta"]},
    "sizes": {"title": "Sizes", "curves": {"none": ["adapter-10", "adapter"], "meta": ["meta-10", "meta"]}},
    "cost": {"title": "Cost", "settings": ["adapter", "full", "meta", "meta-full"]},
}
SETTINGS = ("adapter", "full", "meta", "meta-full", "maml", "maml-full", "adapter-10", "meta-10")


def grid() -> dict[str, list[Record]]:
    """All settings on two targets with two seeds."""
    found = []
    for (index, name), target, seed in itertools.product(enumerate(SETTINGS), ("hi", "af"), (0, 1)):
        f1 = 0.3 + 0.05 * index + 0.02 * seed + (0.1 if target == "hi" else 0.0)
        kind = primed if name.startswith("m") else make
        changes: dict[str, Any] = {"num_train": 10, "steps_per_epoch": 1} if name.endswith("-10") else {}
        found.append(kind(name, target, seed, round(f1, 2), seconds=float(index + 1), **changes))
    return by_setting(*found)


def chart(kind: str, records: dict[str, list[Record]], **changes: Any) -> Any:
    return Figure.parse({"name": kind, **EXAMPLES[kind], **changes}).compute(records)


def texts(table: Table, label: str) -> list[str]:
    (row,) = [row for row in table.rows if row.label == label]
    return [cell.text for cell in row.cells]


# Of every kind


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(Figure.members())


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_description_survives_a_configuration(kind: str) -> None:
    figure = Figure.parse({"name": kind, **EXAMPLES[kind]})
    assert Figure.parse(figure.to_config()) == figure
    assert figure.settings_named() <= set(SETTINGS)
    assert len(figure.settings_named()) >= 2
    assert Figure.parse({"name": kind, **EXAMPLES[kind], "targets": ["hi"]}).targets_named() == {"hi"}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_full_grid_is_drawn_without_notes(kind: str) -> None:
    found = chart(kind, grid())
    assert not found.empty
    assert found.notes == ()
    assert found.caption.endswith(".")
    table = found.table()
    assert table.rows
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_no_records_nothing_to_draw(kind: str) -> None:
    found = chart(kind, {})
    assert found.empty
    assert any(note.startswith("Omitted because ") for note in found.notes)


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_half_a_grid_is_drawn(kind: str, seed: int) -> None:
    every = [record for records in grid().values() for record in records]
    rng = np.random.default_rng(seed)
    kept = by_setting(*(record for record in every if rng.random() < 0.5))
    found = chart(kind, kept)
    table = found.table()
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    if not found.empty:
        picture(found)
    else:
        assert found.notes


@pytest.mark.parametrize("kind", EXAMPLES)
def test_unknown_keys_are_named(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"figure '{kind}': .*unknown key 'setings'"):
        Figure.parse({"name": kind, **EXAMPLES[kind], "setings": []})
    with pytest.raises(ConfigError, match="title"):
        Figure.parse({"name": kind, **EXAMPLES[kind], "title": ""})


# Numbers


def test_bars() -> None:
    meta = [primed("meta"), primed("meta", seed=1), primed("meta", seed=2, f1=0.9)]
    found = chart("bars", by_setting(make(f1=0.5), make(seed=1, f1=0.6), make(target="af", f1=0.3), *meta))
    assert isinstance(found, BarChart)
    assert found.columns == ("hi", "af", "Mean")
    assert found.notes == ("Of the seeds 0, 1, 2, only those that all settings have: 0, 1 on hi; 0 on af.",)
    assert texts(found.table(), "adapter") == ["55.0 ± 5.0", "30.0", "42.5"]
    assert texts(found.table(), "meta") == ["50.0 ± 0.0", "–", "–"], "a mean over fewer targets cannot be compared"


def test_bars_take_the_targets_that_there_are() -> None:
    found = chart("bars", by_setting(make(target="nl"), primed("meta", "et")), targets=[])
    assert found.columns == ("nl", "et", "Mean")
    absent = chart("bars", by_setting(make()))
    assert absent.notes == ("Omitted because none of their runs has finished: meta.",)


def test_matrix_is_of_the_targets_that_all_have() -> None:
    records = grid()
    records["maml"] = [record for record in records["maml"] if record.target == "hi"]
    found = chart("matrix", records)
    assert isinstance(found, MatrixChart)
    assert found.targets == ("hi",)
    assert found.notes == ("Omitted because not every setting has them yet: af.",)
    # meta on hi: .5 and .52; maml: .6 and .62, the higher of the column.
    assert [[cell.text for cell in row] for row in found.cells] == [
        ["51.0 ± 1.0", "56.0 ± 1.0"],
        ["61.0 ± 1.0", "66.0 ± 1.0"],
    ]
    assert [[cell.best for cell in row] for row in found.cells] == [[False, False], [True, True]]
    assert [[cell.text for cell in row] for row in found.reference] == [["85.87", "90.33"], ["84.53", "–"]]
    assert [[cell.best for cell in row] for row in found.reference] == [[True, True], [False, False]]


def test_matrix_shows_what_is_missing() -> None:
    records = grid()
    del records["meta"]
    found = chart("matrix", records)
    assert found.cells[0][0].text == "–"
    assert found.notes == ("Omitted because none of their runs has finished: meta.",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": [["meta", "maml"]]}, "settings: expected 2 lists of 2, one for each of rows and columns; found "),
        ({"settings": []}, "settings: expected 2 lists"),
        ({"reference": [[1.0], [2.0]]}, r"reference: expected 2 lists of 2.*\[1, 1\]"),
    ],
)
def test_a_matrix_of_another_shape_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Figure.parse({"name": "matrix", **EXAMPLES["matrix"], **changes})


def test_gain() -> None:
    records = grid()
    records["full"] = records["full"][:0]
    found = chart("gain", records)
    assert isinstance(found, GainChart)
    (gain,) = found.gains
    assert gain.difference.whole.mean == pytest.approx(0.1)
    assert found.notes == ("Omitted because their settings have no run in common yet: full.",)
    assert texts(found.table(), "adapter")[:3] == ["36.0 ± 1.0", "46.0 ± 1.0", "+10.0"]
    assert texts(found.table(), "adapter")[4:] == ["hi, af", "2"]


def test_steps() -> None:
    def runs(setting: str, *curves: tuple[str, int, tuple[float, ...]], **changes: Any) -> list[Record]:
        return [make(setting, target, seed, validation_curve=curve, **changes) for target, seed, curve in curves]

    adapter = runs("adapter", ("hi", 0, (0.1, 0.5, 0.6)), ("hi", 1, (0.3, 0.5, 0.6)), ("af", 0, (0.4, 0.4, 0.4)))
    meta = runs(
        "meta",
        *(("hi", seed, (0.5, 0.7)) for seed in (0, 1)),
        ("af", 0, (0.3, 0.5)),
        ("nl", 0, (0.1,)),
        steps_per_epoch=4,
    )
    found = chart("steps", {"adapter": adapter, "meta": meta})
    assert isinstance(found, StepsChart)
    assert list(found.panels) == ["Mean over targets", "hi", "af"]
    assert found.notes == (
        "Of the seeds 0, 1, only those that all settings have: 0 on af, nl.",
        "Omitted because not every setting has them yet: nl.",
    )
    mean, of_meta = found.panels["Mean over targets"]
    assert mean.steps == (10, 20, 30)
    assert of_meta.steps == (4, 8)
    # hi: (.1 + .3) / 2 = .2; with af's .4 the mean is .3.
    assert [round(cell.mean or 0, 9) for cell in mean.cells] == [30.0, 45.0, 50.0]
    assert [cell.text for cell in found.panels["hi"][0].cells] == ["20.0 ± 10.0", "50.0 ± 0.0", "60.0 ± 0.0"]
    assert found.table().columns == ("Epoch 1", "Epoch 2", "Last")
    assert texts(found.table(), "meta") == ["40.0", "60.0", "60.0"]


def test_steps_of_runs_that_stopped_early() -> None:
    """A curve is a mean over the same runs everywhere; a note says that some of them have more epochs."""
    curves = {0: (0.1, 0.2, 0.3), 1: (0.3, 0.2)}
    stopped = [make(seed=seed, validation_curve=curve) for seed, curve in curves.items()]
    whole = [primed("meta", seed=seed, validation_curve=(0.1, 0.2, 0.3)) for seed in curves]
    found = chart("steps", {"adapter": stopped, "meta": whole})
    assert isinstance(found, StepsChart)
    assert [len(curve.cells) for curve in found.panels["hi"]] == [2, 3]
    label = stopped[0].label
    note = f"Curves end with the last epoch that all of their runs have; some stopped early: {label}."
    assert found.notes == (note,)


def test_steps_of_one_target_have_one_panel() -> None:
    assert list(chart("steps", by_setting(make(), primed("meta"))).panels) == ["hi"]
    assert chart("steps", by_setting(make(validation_curve=()), primed("meta"))).notes


def test_sizes() -> None:
    found = chart("sizes", grid())
    assert isinstance(found, SizesChart)
    none, meta = found.curves.values()
    assert [point.examples for point in none] == [10, 150]
    assert [point.gain for point in none] == [None, None]
    assert [round(point.gain.whole.mean, 9) for point in meta if point.gain] == [0.05, 0.1]
    assert [[cell.text for cell in row.cells][:2] for row in found.table().rows] == [
        ["66.0 ± 1.0", "–"],
        ["36.0 ± 1.0", "–"],
        ["71.0 ± 1.0", "+5.0"],
        ["46.0 ± 1.0", "+10.0"],
    ]


def test_sizes_without_a_first_point_have_no_gain_there() -> None:
    records = grid()
    del records["adapter-10"]
    found = chart("sizes", records)
    assert [point.gain is None for point in found.curves["meta"]] == [True, False]
    assert found.notes == ("Omitted because none of their runs has finished: adapter-10.",)
    picture(found)


def test_curves_of_different_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"equally many settings in each.*'none': 1, 'meta': 2"):
        chart("sizes", {}, curves={"none": ["a"], "meta": ["b", "c"]})


def test_cost() -> None:
    meta = [primed("meta", seed=seed, seconds=6.0) for seed in (0, 1, 2)]
    times = (3.0, 5.0, 40.0)  # the last while the machine did something else too
    records = by_setting(*(make(seed=i, seconds=s, f1=0.4 + 0.05 * i) for i, s in enumerate(times)), *meta)
    found = chart("cost", records)
    assert isinstance(found, CostChart)
    assert [(one.label, one.priming, one.finetuning, one.total) for one in found.settings] == [
        ("adapter", 0.0, 5.0, 5.0),
        ("meta", 60.0, 6.0, 66.0),
    ]
    assert texts(found.table(), "meta") == ["60", "6.0", "66", "50.0 ± 0.0"]
    other = chart("cost", by_setting(make(), primed("meta", hardware={"device": "H200"})))
    assert "The runs were on different hardware, so seconds say little." in other.notes


# Pictures


def drawn(found: Chart) -> Any:
    """The matplotlib figure of a chart, laid out."""
    figure = drawing(found)
    figure.draw_without_rendering()
    return figure


def words(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    unseen = set()  # names of places beyond the end of an axis are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    every = (text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip())
    return [text for text in every if text not in unseen]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_pictures_are_whole_and_the_same_each_time(kind: str) -> None:
    import matplotlib.image

    one, other = picture(chart(kind, grid())), picture(chart(kind, grid()))
    assert one == other
    height, width = matplotlib.image.imread(io.BytesIO(one.png)).shape[:2]
    assert (width > 600, height > 200) == (True, True)
    svg = one.svg.decode()
    assert svg.startswith("<?xml")
    assert svg.endswith("</svg>\n")
    assert "<dc:date>" not in svg
    assert not any(line.endswith(" ") for line in svg.splitlines())


@pytest.mark.parametrize("kind", EXAMPLES)
def test_words_are_large_enough_and_within_the_picture(kind: str) -> None:
    figure = drawn(chart(kind, grid()))
    found = words(figure)
    assert len(found) > 4
    assert min(text.get_fontsize() for text in found) >= SMALL
    for text in found:
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0, text
        assert box.y1 <= figure.bbox.y1 + 1, text


def test_points_that_are_near_have_looks_and_names_of_their_own() -> None:
    runs = [
        make(f"a long name {i}", f1=f1, seconds=s)
        for i, (f1, s) in enumerate([(0.5, 4), (0.51, 4.2), (0.5, 4.4), (0.9, 40)])
    ]
    found = chart("cost", by_setting(*runs), settings=[run.setting for run in runs])
    figure = drawn(found)
    boxes = [text.get_window_extent() for text in words(figure) if text.get_text().startswith("a long")]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    lines = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 4


def test_a_label_is_shown_as_it_is() -> None:
    found = chart("bars", by_setting(make(label="costs $5 and $6"), primed("meta", label="日本語 → adapter")))
    shown = [text.get_text() for text in words(drawing(found))]
    assert "costs $5 and $6" in shown
    picture(found)  # a letter that the font lacks is no reason to fail


def test_the_style_of_the_user_is_left_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plain = picture(chart("bars", grid()))
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        assert picture(chart("bars", grid())) == plain


def test_looks_differ() -> None:
    series = [tuple(sorted(look.items())) for look in looks(20)]
    assert len(set(series)) == 20


def test_names_of_files() -> None:
    charts = [
        ("bars", chart("bars", {}, title=title)) for title in ("Figure 3: A → b!", "Figure 3 a b", "日本語", "日本")
    ]
    assert names(charts) == ["bars-figure-3-a-b", "bars-figure-3-a-b-2", "bars", "bars-2"]
    assert len(names([("bars", chart("bars", {}, title="long " * 50))])[0]) <= 65


def test_matplotlib_is_not_imported_before_something_is_drawn() -> None:
    code = "import sys, pemeta.reporting; print('matplotlib' in sys.modules)"
    found = finished("-c", code, check=True)
    assert found.stdout.strip() == "False"
