"""Records as a table: a row per record, dtypes, missing values, several folders, and the CSV file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_records import make, primed

import pemeta as library
from pemeta.errors import OutputError
from pemeta.reporting import load_records, read_records, write_csv
from pemeta.reporting.frame import NO_COLUMN, to_frame
from pemeta.reporting.records import Record, write_record

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "xlner" / "results" / "minilm"
EXACT: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) > 2 else {"float_precision": "round_trip"}
META = {
    "target": "hi",
    "seed": 0,
    "method": {"name": "adapter", "top_layers": None},
    "priming": {"name": "meta", "outer_lr": 2e-4, "outer_steps": 300, "first_order": True, "inner_method": None},
    "finetuning": {"epochs": 3, "lr": 1},
    "data": {"types": ["PER", "Ö"], "folders": {}},
}
PLAIN = {**META, "priming": None, "finetuning": {"epochs": 3, "lr": 0.5, "new": 7}}


def save(folder: Path, *records: Record) -> Path:
    for record in records:
        write_record(folder, record)
    return folder


def two(folder: Path) -> Path:
    """A folder with a primed record, which comes second in the order of file names, and one without priming."""
    meta = primed("meta", inner_steps=5, sources=("en", "es"), config=META)
    return save(folder, make("adapter", config=PLAIN, scores_by={"LOC": 0.25}), meta)


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        keep_default_na=False,
        na_values=[""],
        dtype={"digest": str, "data_digest": str, "test_digest": str},
        **EXACT,
    )


def test_a_row_for_each_record_with_dtypes(tmp_path: Path) -> None:
    frame = load_records(two(tmp_path))
    assert list(frame["setting"]) == ["adapter", "meta"]
    dtypes = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert {dtypes[name] for name in ("f1", "recall", "fraction_adapted", "priming_seconds")} == {"float64"}
    assert {dtypes[name] for name in ("seed", "num_test", "config.seed", "hardware.cores")} == {"int64"}
    assert {dtypes[name] for name in ("inner_steps", "gradient_sentences", "config.priming.outer_steps")} == {"Int64"}
    assert dtypes["config.finetuning.lr"] == "float64", "1 and 0.5 are numbers of one kind"
    assert dtypes["config.priming.first_order"] == "boolean"
    assert pd.api.types.is_string_dtype(frame["label"].dtype)
    assert frame["config.finetuning.lr"].tolist() == [0.5, 1.0]
    assert frame["scores_by.LOC"].tolist() == [0.25, 0.5]
    assert frame["sources"].tolist()[1] == "en, es"
    assert frame["config.data.types"].tolist() == ['["PER", "Ö"]'] * 2
    assert frame["packages.torch"].tolist() == ["2.13.0"] * 2


def test_what_a_record_lacks_is_missing(tmp_path: Path) -> None:
    frame = load_records(two(tmp_path)).set_index("setting")
    lacking = {name for name in frame if pd.isna(frame.loc["adapter", name])}
    assert lacking == {
        "priming",
        "inner_method",
        "inner_steps",
        "sources",
        "scores_by.PER",
        "priming_seconds",
        "gradient_sentences",
        "config.method.top_layers",
        *(f"config.priming.{key}" for key in META["priming"]),
    }
    assert pd.isna(frame.loc["meta", "config.finetuning.new"])
    assert pd.isna(load_records(save(tmp_path / "plain", make()))["inner_steps"]).all()
    assert str(load_records(tmp_path / "plain")["inner_steps"].dtype) == "Int64"
    assert str(load_records(tmp_path / "plain")["priming_seconds"].dtype) == "float64"


def test_columns_are_in_the_order_of_a_record(tmp_path: Path) -> None:
    names = list(load_records(two(tmp_path)))
    fields = list(dict.fromkeys(name.split(".")[0] for name in names))
    # F1 has no settings here, and an empty mapping has no column.
    expected = [name for name in Record.model_fields if name not in (*NO_COLUMN, "metric_settings")]
    place = expected.index("scores")
    assert fields == [*expected[:place], "f1", "precision", "recall", *expected[place + 1 :]]
    assert "config.priming" not in names, "a null where others have a mapping is no column"
    assert "config.data.folders" not in names
    # Only the second record has its keys; they stand where the first has its null.
    assert names.index("config.priming.name") == names.index("config.method.top_layers") + 1
    assert names.index("config.finetuning.new") == names.index("config.finetuning.lr") + 1


def test_values_of_many_kinds() -> None:
    configs = [{"a": 1, "b": 2**70, "c": True, "d": "x"}, {"a": "one", "b": 1, "c": 3, "d": {"e": 1}}]
    frame = to_frame([make(seed=seed, config=config) for seed, config in enumerate(configs)])
    for name in "abc":
        assert frame[f"config.{name}"].tolist() == [config[name] for config in configs]
    assert frame["config.d"][0] == "x"
    assert frame["config.d.e"][1] == 1


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = write_record(tmp_path, make())
    content = json.loads(path.read_text())
    optional = [name for name, field in Record.model_fields.items() if not field.is_required()]
    assert optional
    path.write_text(json.dumps({name: value for name, value in content.items() if name not in optional}))
    frame = load_records(tmp_path)
    assert Record.model_validate(json.loads(path.read_text())).metric_settings == {}  # which has no column
    for name in set(optional) - {"metric_settings"}:
        default = Record.model_fields[name].default
        assert pd.isna(frame[name][0]) if default is None else frame[name][0] == default


def test_folders(tmp_path: Path) -> None:
    one, other = two(tmp_path / "one"), save(tmp_path / "other", make("full", seed=3))
    assert load_records(str(one)).equals(load_records(one / "records"))
    moved = (other / "records").rename(tmp_path / "moved")
    both = load_records([one, str(moved)])
    assert next(iter(both)) == "folder"
    assert both["folder"].tolist() == [str(one), str(one), str(moved)]
    assert both["setting"].tolist() == ["adapter", "meta", "full"]
    assert "folder" in load_records([one]), "the columns do not depend on how many folders there are"
    assert "folder" not in load_records(one)
    assert load_records(folder for folder in (one, moved)).equals(both)


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*nothing; give the output folder of a grid"):
        load_records(tmp_path / "nothing")
    (tmp_path / "chosen.json").write_text("{}")
    with pytest.raises(OutputError, match="no records in"):
        load_records(tmp_path)
    with pytest.raises(OutputError, match="expected at least one folder"):
        load_records([])
    with pytest.raises(OutputError, match="there is no folder"):
        load_records([two(tmp_path / "one"), tmp_path / "nothing"])
    path = write_record(tmp_path / "one", make("spoilt"))
    path.write_text("{}")
    with pytest.raises(OutputError, match=r"spoilt__hi__seed0\.json is not a record"):
        load_records(tmp_path / "one")


def test_the_committed_records() -> None:
    frame = library.load_records(COMMITTED)
    assert len(frame) == 528
    assert not frame.duplicated(["setting", "target", "seed"]).any()
    # The report's table has the mean over targets of the mean over seeds.
    means = 100 * frame.groupby(["label", "target"])["f1"].mean().groupby("label").mean()
    shown = _means_in((COMMITTED / "report.md").read_text(encoding="utf-8"))
    assert len(shown) >= 7
    for label, mean in shown.items():
        assert f"{means[label]:.1f}" == mean


def _means_in(report: str) -> dict[str, str]:
    """The last column of the report's first table, by label."""
    lines = report.split("## Table 1\n\n")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].replace("\\", ""): row[-1].split(" ± ")[0].strip("*") for row in rows if row[1]}


AWKWARD = ('a, "b"', "two\nlines", "три → ü", "nan", " spaces ", "back\rhere", "'quoted'")


def test_a_csv_file_has_the_same_scalars(tmp_path: Path) -> None:
    records = [
        make(name, target="nan", seed=seed, f1=1 / (seed + 3), config={**META, "text": name}, digest="12345e678901")
        for seed, name in enumerate(AWKWARD)
    ]
    path = write_csv(save(two(tmp_path), *records))
    assert path == tmp_path / "records.csv"
    expected, found = load_records(tmp_path), read_csv(path)
    assert list(found) == list(expected)
    assert set(AWKWARD) <= set(found["setting"])
    _check_equal(expected, found)
    # Nothing but whole files: no temporary file stays.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["records", "records.csv"]


def _check_equal(expected: pd.DataFrame, found: pd.DataFrame) -> None:
    assert found.shape == expected.shape
    for name in expected:
        for one, other in zip(expected[name], found[name], strict=True):
            assert (pd.isna(one) and pd.isna(other)) or one == other, name


def test_the_committed_records_survive_a_csv_file(tmp_path: Path) -> None:
    frame = load_records(COMMITTED)
    frame.to_csv(tmp_path / "all.csv", index=False)
    _check_equal(frame, read_csv(tmp_path / "all.csv"))


def test_the_command_writes_a_csv_file(tmp_path: Path, pemeta: Callable[..., Any]) -> None:
    folder = two(tmp_path / "a, run → ü")
    outcome = pemeta("report", folder)
    assert (outcome.code, outcome.err, (folder / "records.csv").exists()) == (0, "", False)
    outcome = pemeta("report", folder, "--csv")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f"Records written to {folder / 'records.csv'}\n")
    _check_equal(load_records(folder), read_csv(folder / "records.csv"))


def test_a_csv_file_that_cannot_be_written(tmp_path: Path, pemeta: Callable[..., Any]) -> None:
    folder = two(tmp_path / "run")
    (folder / "records.csv").mkdir()  # nothing can take its place
    outcome = pemeta("report", folder, "--csv")
    assert outcome.code == 2
    assert outcome.err.startswith(f"pemeta: error: cannot write {folder / 'records.csv'}: ")
    assert outcome.err.count("\n") == 1
    assert (folder / "report.md").is_file()
    assert "Records written" not in outcome.out


def test_pandas_is_not_imported_before_a_table_is_made() -> None:
    code = "import sys, pemeta, pemeta.reporting; pemeta.load_records; print('pandas' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_columns_are_all_that_a_record_has_but_for_what_does_not_fit() -> None:
    frame = to_frame([make()])
    assert not set(NO_COLUMN) & set(frame)
    assert set(NO_COLUMN) <= set(Record.model_fields)
    assert all(pd.api.types.is_scalar(value) for value in frame.iloc[0])


def test_records_are_what_the_frame_has(tmp_path: Path) -> None:
    records = read_records(two(tmp_path))
    assert to_frame(records).equals(load_records(tmp_path))
