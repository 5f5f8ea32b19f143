"""CSV tables: types, limits, and where a problem is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview import tables
from crossview.errors import ManifestError
from crossview.tables import Column, Problem

COLUMNS = (
    Column("name", required=True),
    Column("height_m", "number", valid=lambda value: value > 0, expected="a number above 0"),
    Column("count", "integer"),
)


def parsed(*rows):
    return tables.parse("t.csv", rows, COLUMNS)


def texts(problems):
    return [str(problem) for problem in problems]


@given(st.lists(st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1),
    st.one_of(st.none(), st.floats(min_value=5e-324, allow_infinity=False)),
    st.integers(-(2**53), 2**53),
)))  # fmt: skip
def test_values_come_back_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "t.csv"
    table, problems = parsed(
        *(dict(zip(("name", "height_m", "count"), r, strict=True)) for r in rows)
    )
    assert problems == []
    tables.write(path, table, COLUMNS)
    again, problems = tables.read(path, COLUMNS)
    assert problems == []
    assert again["name"].tolist() == [row[0] for row in rows]
    assert again["count"].tolist() == [row[2] for row in rows]
    heights = [math.nan if row[1] is None else row[1] for row in rows]
    assert np.array_equal(again["height_m"], np.array(heights, dtype=float), equal_nan=True)


def test_an_empty_cell_is_not_known():
    table, problems = parsed({"name": "a", "height_m": "", "count": "3"})
    assert problems == []
    assert math.isnan(table["height_m"][0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"count": 1}, "t.csv row 2, column name: empty, and every row needs a value."),
        ({"name": "a"}, "t.csv row 2, column count: empty, and every row needs a value."),
        (
            {"name": "a", "count": "1.5"},
            "t.csv row 2, column count: '1.5' is not a whole number.",
        ),
        (
            {"name": "a", "count": 1, "height_m": "tall"},
            "t.csv row 2, column height_m: 'tall' is not a number.",
        ),
        (
            {"name": "a", "count": 1, "height_m": "nan"},
            "t.csv row 2, column height_m: 'nan' is not a number.",
        ),
        (
            {"name": "a", "count": 1, "height_m": "1_0"},
            "t.csv row 2, column height_m: '1_0' is not a number.",
        ),
        (
            {"name": "a", "count": 1, "height_m": -2.0},
            "t.csv row 2, column height_m: '-2.0' is not possible; expected a number above 0.",
        ),
        ({"name": "a", "count": 1, "width": 2}, "t.csv row 1, column width: the schema has no"),
    ],
)
def test_a_problem_names_file_row_and_column(row, message):
    _, problems = parsed(row)
    assert len(problems) == 1
    assert texts(problems)[0].startswith(message)


def test_all_problems_are_found_at_once():
    _, problems = parsed({"count": 1}, {"name": "a", "count": "x", "height_m": "0"})
    assert [(p.row, p.column) for p in problems] == [(2, "name"), (3, "height_m"), (3, "count")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,height_m\n", "t.csv row 1: the header does not fit: missing 'count'."),
        (b"name,height_m,count,x\n", "t.csv row 1: the header does not fit: unknown 'x'."),
        (b"name,name,height_m,count\n", "t.csv row 1: the header does not fit: repeated 'name'."),
        (b"", "t.csv row 1: the header does not fit: missing 'name', 'height_m', 'count'."),
        (b"name,height_m,count\na,1\n", "t.csv row 2: 2 cells, and the header has 3."),
        (b'name,height_m,count\n"a,1,2\n', "t.csv: not a CSV file in UTF-8"),
        (b"name,height_m,count\n\xff,1,2\n", "t.csv: not a CSV file in UTF-8"),
    ],
)
def test_a_file_of_the_wrong_shape_says_so(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    _, problems = tables.read(path, COLUMNS)
    assert texts(problems)[0].startswith(message)


def test_a_missing_file_is_a_problem(tmp_path):
    _, problems = tables.read(tmp_path / "t.csv", COLUMNS)
    assert texts(problems) == ["t.csv: the file is missing."]


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffheight_m,count,name\r\n2.5,3,Zürich\r\n".encode())
    table, problems = tables.read(path, COLUMNS)
    assert problems == []
    assert tables.records(table) == [{"name": "Zürich", "height_m": 2.5, "count": 3}]


def test_duplicates_and_dangling_keys_are_named():
    table, _ = parsed(
        {"name": "a", "count": 1}, {"name": "b", "count": 1}, {"name": "a", "count": 1}
    )
    assert tables.duplicates("t.csv", table, "name") == [
        Problem("t.csv", 4, "name", "'a' is in row 2 already.")
    ]
    assert texts(tables.dangling("t.csv", table, "name", ["a"], "keys.csv")) == [
        "t.csv row 3, column name: there is no 'b' in keys.csv."
    ]


def names_below(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_takes_its_name_only_when_all_went_well(tmp_path):
    with (
        pytest.raises(RuntimeError, match="full disk"),
        tables.atomic_folder(tmp_path / "a" / "out") as folder,
    ):
        (folder / "half").write_text("half")
        assert not (tmp_path / "a" / "out").exists()
        raise RuntimeError("full disk")
    assert names_below(tmp_path / "a") == []


def test_a_folder_that_exists_is_not_replaced_unasked(tmp_path):
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(ManifestError, match=r"exists already.*--overwrite"),
        tables.atomic_folder(tmp_path / "out"),
    ):
        raise AssertionError("nothing may be written")
    assert names_below(tmp_path) == ["out"]


def test_overwriting_replaces_the_whole_folder(tmp_path):
    for text in ("old", "new"):
        with tables.atomic_folder(tmp_path / "out", overwrite=True) as folder:
            (folder / "t.csv").write_text(text)
    assert (tmp_path / "out" / "t.csv").read_text() == "new"
    assert names_below(tmp_path) == ["out"]


def test_overwriting_never_deletes_what_it_does_not_know(tmp_path):
    (tmp_path / "out" / "photos").mkdir(parents=True)
    (tmp_path / "out" / "photos" / "a.jpg").write_text("precious")
    with (
        pytest.raises(ManifestError, match=r"holds files.*photos"),
        tables.atomic_folder(tmp_path / "out", overwrite=True) as folder,
    ):
        (folder / "t.csv").write_text("new")
    assert (tmp_path / "out" / "photos" / "a.jpg").read_text() == "precious"
    assert names_below(tmp_path) == ["out"]


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("precious")
    with (
        pytest.raises(ManifestError, match="is a file"),
        tables.atomic_folder(tmp_path / "out", overwrite=True),
    ):
        pass
    assert (tmp_path / "out").read_text() == "precious"
