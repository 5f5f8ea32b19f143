"""Copies of tables in Parquet: the CSV wins, and both say the same."""

import logging

import pytest
from fakes import manifests as fake

from crossview import manifest_schema, parquet
from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.manifest import Manifest

pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MIN_ROWS", 5)
    return fake.manifest("images").save(tmp_path / "made-up")


def read_with_pyarrow(folder):
    from pyarrow import parquet as pyarrow_parquet

    return pyarrow_parquet.read_table(folder / "views.parquet")


def test_only_large_tables_have_a_copy(saved):
    assert sorted(path.name for path in saved.folder.glob("*.parquet")) == ["views.parquet"]


def test_other_programs_read_the_same_values(saved):
    table = read_with_pyarrow(saved.folder)
    assert table.column("view_id").to_pylist() == ["a-1", "a-0", "a-2", "b-1", "p"]
    assert table.column("lat_deg").to_pylist() == saved.views["lat_deg"].tolist()
    assert table.column("order").to_pylist() == [0, 0, 0, 1, 0]


def test_the_copy_is_what_is_loaded(saved, monkeypatch):
    original = manifest_schema.tables.read

    def read(path, *arguments, **options):
        assert path.name != "views.csv"
        return original(path, *arguments, **options)

    monkeypatch.setattr(manifest_schema.tables, "read", read)
    for table in Manifest.TABLES:
        assert getattr(Manifest.load(saved.folder), table).equals(getattr(saved, table))


def test_an_edited_csv_wins_and_the_old_copy_is_a_problem(saved, caplog):
    path = saved.folder / "views.csv"
    path.write_text(path.read_text().replace("b-1,", "b-9,", 1))
    with caplog.at_level(logging.WARNING):
        assert Manifest.load(saved.folder).views["view_id"][3] == "b-9"
    assert "it was made of another views.csv than the present one" in caplog.text
    (problem,) = manifest_schema.problems(saved.folder)
    assert str(problem).startswith("views.parquet: it was made of another views.csv")


def test_a_copy_that_says_something_else_names_file_row_and_column(saved):
    path = saved.folder / "views.csv"
    views = saved.views.assign(height_m=[2.5, 2.5, 2.5, 7.0, 2.5])
    parquet.write(path, views, manifest_schema.SCHEMA["views"])
    (problem,) = manifest_schema.problems(saved.folder)
    assert str(problem).startswith(
        "views.parquet row 5, column height_m: 7.0, and the CSV says 2.5"
    )
    parquet.write(path, saved.views[:4], manifest_schema.SCHEMA["views"])
    (problem,) = manifest_schema.problems(saved.folder)
    assert str(problem) == "views.parquet: 4 rows, and views.csv has 5."


def test_a_copy_is_checked_as_the_csv_is(saved):
    views = saved.views.assign(pitch_deg=[0, 100.0, 0, 0, 0])
    parquet.write(saved.folder / "views.csv", views, manifest_schema.SCHEMA["views"])
    with pytest.raises(ManifestError, match=r"views\.csv row 3, column pitch_deg: '100.0'"):
        Manifest.load(saved.folder)


def test_a_damaged_copy_is_left_aside(saved, caplog):
    (saved.folder / "views.parquet").write_bytes(b"PAR1 and nothing else")
    with caplog.at_level(logging.WARNING):
        assert Manifest.load(saved.folder).views.equals(saved.views)
    assert "The CSV is read" in caplog.text
    assert [p.file for p in manifest_schema.problems(saved.folder)] == ["views.parquet"]


def test_without_pyarrow_the_csv_is_read(saved, monkeypatch):
    monkeypatch.setattr(parquet, "is_available", lambda: False)
    assert Manifest.load(saved.folder).views.equals(saved.views)
    assert manifest_schema.problems(saved.folder) == []
    # and a manifest with a copy can be replaced by one without
    saved.save(saved.folder, overwrite=True)
    assert list(saved.folder.glob("*.parquet")) == []


def test_after_rows_were_added_the_csv_is_read_until_the_table_is_rewritten(saved):
    Manifest.append(saved.folder, views=[fake.view("n", "side", Pose(0, 0, 0))])
    assert not (saved.folder / "views.parquet").exists()
    assert manifest_schema.problems(saved.folder) == []
    Manifest.load(saved.folder).rewrite("views")
    assert read_with_pyarrow(saved.folder).num_rows == 6
    assert manifest_schema.problems(saved.folder) == []
