"""Overture's GeoParquet with the tags of OpenStreetMap; needs pyarrow, the extra `parquet`."""

import builtins

import geopandas
import numpy as np
import pytest
import shapely

from crossview.errors import MapError
from crossview.tiles import GeoBounds
from data_tools import overture
from data_tools.overture import read_overture

OSM = [{"property": "", "dataset": "OpenStreetMap", "record_id": "w42@3"}]
ML = [{"property": "", "dataset": "Microsoft ML Buildings", "record_id": None}]
HOUSE = shapely.box(149.130, -35.281, 149.131, -35.280)


@pytest.fixture
def write(tmp_path):
    pytest.importorskip("pyarrow")

    def table(geometry, *, name="building.parquet", crs=4326, bbox=True, arrow=None, **columns):
        import pyarrow.parquet as pq

        rows = geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)
        rows.to_parquet(tmp_path / name, write_covering_bbox=bbox, schema_version="1.1.0")
        content = pq.read_table(tmp_path / name)
        for column, values in (arrow or {}).items():
            content = content.append_column(column, values)
        # Overture's files are not written by pandas
        geo = {b"geo": content.schema.metadata[b"geo"]}
        pq.write_table(content.replace_schema_metadata(geo), tmp_path / name)
        return tmp_path / name

    return table


def test_buildings_have_tags_heights_and_identities(write):
    path = write(
        [HOUSE, shapely.box(149.14, -35.29, 149.141, -35.289), HOUSE],
        **{
            "class": ["house", None, None],
            "has_parts": [False, True, False],
            "height": [7.5, np.nan, np.nan],
            "min_height": [2.0, np.nan, np.nan],
            "num_floors": [np.nan, 3.0, np.nan],
            "level": [np.nan, np.nan, -1.0],
            "is_underground": [False, False, True],
            "sources": [OSM, ML, ML],
        },
    )
    features = read_overture(path)
    table = features.table
    assert table["tags"].tolist() == [
        {"building": "house", "height": "7.5", "min_height": "2"},
        {"building": "yes", "building:levels": "3"},
        {"building": "yes", "layer": "-1", "location": "underground"},
    ]
    assert table["height_m"].tolist() == pytest.approx([7.5, 9.0, np.nan], nan_ok=True)
    assert table["min_height_m"].tolist() == [2.0, 0.0, 0.0]
    identities = list(zip(table["osm_type"], table["osm_id"], strict=True))
    assert identities == [("way", 42), ("overture", 1), ("overture", 2)]
    assert features.surveyed == {"building", "building_outline"}
    assert features.attribution == (
        "© OpenStreetMap contributors, Microsoft ML Buildings, Overture Maps Foundation"
    )


def test_segments_are_roads_and_railways(write):
    line = shapely.LineString([(149.13, -35.281), (149.131, -35.28)])
    tunnel = [{"values": ["is_tunnel"], "between": None}]
    partly = [{"values": ["is_tunnel"], "between": [0.0, 0.5]}]
    path = write(
        [line] * 5,
        name="segment.parquet",
        subtype=["road", "road", "rail", "water", "road"],
        **{"class": ["motorway", "unknown", "standard_gauge", "ferry", "footway"]},
        subclass=["link", None, None, None, "sidewalk"],
        road_flags=[tunnel, partly, None, None, None],
    )
    assert read_overture(path).table["tags"].tolist() == [
        {"highway": "motorway_link", "tunnel": "yes"},
        {"highway": "road"},
        {"railway": "rail"},
        {"highway": "footway"},
    ]


def test_the_base_theme_has_the_tags_of_its_source(write):
    import pyarrow as pa

    said = pa.array(
        [[("natural", "water"), ("name", "x")], None, [("boundary", "park")]],
        type=pa.map_(pa.string(), pa.string()),
    )
    path = write([HOUSE] * 3, arrow={"source_tags": said})
    table = read_overture(path).table
    assert table["tags"].tolist() == [{"natural": "water", "name": "x"}]


def test_a_folder_is_one_map(write, tmp_path):
    write([HOUSE], has_parts=[False])
    line = shapely.LineString([(149.13, -35.281), (149.131, -35.28)])
    write(
        [line], name="a_segment.parquet", type=["segment"], subtype=["road"], **{"class": ["path"]}
    )
    table = read_overture(tmp_path).table
    assert table["kind"].tolist() == ["area", "line"]
    assert not table["osm_id"].duplicated().any()


@pytest.mark.parametrize("bbox", [True, False])
def test_a_box_keeps_what_it_touches(write, bbox):
    far = shapely.box(149.2, -35.29, 149.201, -35.289)
    path = write([HOUSE, far], has_parts=[False, False], bbox=bbox)
    part = read_overture(path, GeoBounds(149.1, -35.3, 149.15, -35.2))
    assert len(part.table) == (1 if bbox else 2)  # without boxes the reader of maps cuts
    assert shapely.equals(part.table.geometry[0], HOUSE)


def test_other_files_are_clear_errors(write, tmp_path):
    with pytest.raises(MapError, match=r"none of Overture's types.*its columns are colour"):
        read_overture(write([HOUSE], colour=["red"]))
    with pytest.raises(MapError, match="Overture's files are in degrees"):
        read_overture(write([shapely.box(0, 0, 9, 9)], crs=2154, has_parts=[True]))
    with pytest.raises(MapError, match="holds no map feature of Overture"):
        read_overture(write([], has_parts=[]))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(MapError, match="cannot be read as GeoParquet"):
        read_overture(tmp_path / "bad.parquet")
    with pytest.raises(MapError, match="There is no map file"):
        read_overture(tmp_path / "none.parquet")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "building.parquet").write_bytes(b"PAR1")
    imported = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "pyarrow":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MapError, match=r"needs pyarrow: pip install 'crossview\[parquet\]'"):
        overture.read_overture(tmp_path / "building.parquet")
