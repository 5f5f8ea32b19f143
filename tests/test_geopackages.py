import json

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from fakes.osm_files import OsmXml

from crossview.errors import MapError, MapOutsideError
from crossview.features import Feature, MapFeatures, feature_table
from crossview.frames import LocalFrame
from crossview.geopackages import map_facts, read_geopackage, write_geopackage
from crossview.grids import MapGrid
from crossview.osm import read_osm
from crossview.tiles import GeoBounds
from crossview.vectors import VectorMap

FRAME = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
BOUNDS = GeoBounds(149.125, -35.285, 149.135, -35.275)


@pytest.fixture
def town(tmp_path):
    """Every kind of feature, with holes, several parts, quotes and words in other scripts."""
    town = OsmXml(FRAME, bounds=BOUNDS)
    town.box(0, 0, 20, 10, {"building": "house", "height": "7 m", "min_height": "2"})
    town.box(30, 0, 40, 10, {"building": "yes", "name": 'Кафе "Ö" \n 2'})
    outer, inner, other = (
        town.box(0, 20, 40, 60),
        town.box(10, 30, 30, 50),
        town.box(60, 20, 80, 40),
    )
    members = [(outer, "outer"), (inner, "inner"), (other, "outer")]
    town.relation(members, {"type": "multipolygon", "natural": "water"}, id=2**40)
    town.way([(-50, -5), (50, -5)], {"highway": "residential"}, id=-3)
    town.node(5, -8, {"natural": "tree"})
    return read_osm(town.write(tmp_path / "town.osm"))


@pytest.fixture
def path(town, tmp_path):
    path = tmp_path / "town.gpkg"
    write_geopackage(town, path, date="2026-11-25", licence="ODbL-1.0")
    return path


def change_facts(path, **changes):
    """Rewrite what a file says of itself, behind the back of whoever wrote it."""
    layers = pyogrio.list_layers(path)
    tables = {name: pyogrio.read_dataframe(path, layer=name) for name, _ in layers}
    said = json.loads(pyogrio.read_info(path, layer="areas")["dataset_metadata"]["CROSSVIEW_MAP"])
    path.unlink()
    for name, table in tables.items():
        metadata = {"CROSSVIEW_MAP": json.dumps(said | changes)}
        pyogrio.write_dataframe(table, path, layer=name, dataset_metadata=metadata)


def test_what_is_written_is_read_back_as_it_was(town, path):
    again = read_geopackage(path)
    assert (again.extent, again.surveyed, again.skipped) == (BOUNDS, None, {})
    assert again.attribution == town.attribution == "© OpenStreetMap contributors"
    columns = ["osm_type", "osm_id", "kind", "tags", "height_m", "min_height_m"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(again.table[columns]), pd.DataFrame(town.table[columns])
    )
    for ours, theirs in zip(again.table.geometry, town.table.geometry, strict=True):
        assert shapely.equals_exact(ours, theirs)
        assert ours.geom_type == theirs.geom_type


def test_reading_a_map_leaves_no_file_beside_it(path):
    before = sorted(path.parent.iterdir())
    read_geopackage(path)
    map_facts(path)
    assert sorted(path.parent.iterdir()) == before


def test_what_a_map_skipped_and_surveyed_comes_back(town, tmp_path):
    features = MapFeatures(
        town.table, BOUNDS, "a test", surveyed=frozenset({"building"}), skipped={"open rings": 2}
    )
    write_geopackage(features, tmp_path / "town.gpkg")
    again = read_geopackage(tmp_path / "town.gpkg")
    assert again.surveyed == {"building"}
    assert again.skipped == {"open rings": 2}
    assert again.attribution == ""


def test_what_a_map_does_not_map_comes_back(town, tmp_path):
    beyond = shapely.box(149.13, -35.285, 149.135, -35.275) - shapely.Point(149.132, -35.28).buffer(
        0.001
    )
    features = MapFeatures(town.table, BOUNDS, "a test", unmapped=beyond)
    write_geopackage(features, tmp_path / "town.gpkg")
    assert shapely.equals_exact(read_geopackage(tmp_path / "town.gpkg").unmapped, beyond)
    write_geopackage(town, tmp_path / "town.gpkg")
    assert read_geopackage(tmp_path / "town.gpkg").unmapped is None


def test_kinds_that_a_map_lacks_are_empty_layers(tmp_path):
    table = feature_table(
        [Feature("node", 1, "point", {"natural": "tree"}, shapely.Point(149, -35))]
    )
    path = tmp_path / "tree.gpkg"
    write_geopackage(MapFeatures(table, BOUNDS, "a test"), path)
    assert [name for name, _ in pyogrio.list_layers(path)] == ["areas", "lines", "points"]
    again = read_geopackage(path).table
    assert again["tags"].tolist() == [{"natural": "tree"}]
    assert again["osm_id"].dtype == np.int64


def test_a_vector_map_draws_it_like_the_map_that_it_was_made_of(town, path):
    grid = MapGrid(FRAME, -50, 70, 0.5, 160, 260)
    for legend in ("crossview", "orienternet"):
        ours, theirs = VectorMap.read(path, legend=legend), VectorMap(town, legend=legend)
        assert np.array_equal(ours(grid).classes, theirs(grid).classes)
        heights_m = [source(grid).building_height_m for source in (ours, theirs)]
        assert np.array_equal(*heights_m, equal_nan=True)
        assert ours.attribution == "© OpenStreetMap contributors"


def test_date_licence_extent_and_attribution_can_be_read_without_us(path):
    said = pyogrio.read_info(path, layer="areas")["dataset_metadata"]
    assert said["DATE"] == "2026-11-25"
    assert said["LICENCE"] == "ODbL-1.0"
    assert said["ATTRIBUTION"] == "© OpenStreetMap contributors"
    assert json.loads(said["CROSSVIEW_MAP"])["extent"] == list(BOUNDS)
    assert geopandas.read_file(path, layer="lines").crs.to_epsg() == 4326


def test_facts_say_date_licence_and_extent(path):
    facts = map_facts(path)
    assert (facts.date, facts.licence, facts.extent) == ("2026-11-25", "ODbL-1.0", BOUNDS)


def test_a_place_outside_of_its_extent_is_an_error(path):
    away = MapGrid.around(LocalFrame(-35.4, 149.13), 0, 0, radius_m=50, cell_m=1)
    with pytest.raises(MapOutsideError, match=r"town\.gpkg covers latitude -35\.28500"):
        VectorMap.read(path)(away)


def test_another_schema_version_is_refused_with_what_to_do(path):
    change_facts(path, schema_version=2)
    for read in (read_geopackage, VectorMap.read):
        with pytest.raises(MapError, match=r"schema version 2.*reads version 1.*Make it again"):
            read(path)


@pytest.mark.parametrize("changes", [{"extent": [1, 2]}, {"colour": "red"}, {"extent": None}])
def test_facts_that_are_none_are_refused(path, changes):
    change_facts(path, **changes)
    with pytest.raises(MapError, match=r"damaged|cannot be read"):
        read_geopackage(path)


def test_tags_that_are_not_json_are_refused(path):
    table = pyogrio.read_dataframe(path, layer="lines").assign(tags="highway")
    pyogrio.write_dataframe(table, path, layer="lines")
    with pytest.raises(MapError, match="cannot be read"):
        read_geopackage(path)


def test_a_layer_that_is_gone_is_an_error(path):
    table = pyogrio.read_dataframe(path, layer="lines").drop(columns="tags")
    pyogrio.write_dataframe(table, path, layer="lines")
    with pytest.raises(MapError, match="damaged"):
        read_geopackage(path)


def test_somebody_elses_geopackage_is_footprints(tmp_path):
    path = tmp_path / "houses.gpkg"
    houses = geopandas.GeoDataFrame(
        geometry=[shapely.box(149.13, -35.281, 149.131, -35.28)], crs=4326
    )
    houses.to_file(path)
    assert map_facts(path) is None
    assert VectorMap.read(path, legend="orienternet").surveyed == {"building"}
    with pytest.raises(MapError, match="not a map of crossview"):
        read_geopackage(path)


def test_a_file_that_is_none_is_an_error(tmp_path):
    with pytest.raises(MapError, match="There is no map file"):
        read_geopackage(tmp_path / "none.gpkg")
    (tmp_path / "bad.gpkg").write_bytes(b"SQLite format 3\0" + bytes(range(256)))
    for read in (read_geopackage, VectorMap.read):
        with pytest.raises(MapError, match="cannot be read"):
            read(tmp_path / "bad.gpkg")


def test_options_of_footprints_are_refused(path):
    with pytest.raises(MapError, match="leave out crs"):
        VectorMap.read(path, crs="EPSG:2154")


def test_an_interrupted_write_leaves_the_old_map(town, path, monkeypatch):
    before = path.read_bytes()
    write = pyogrio.write_dataframe

    def failing(table, file, *, layer, **options):
        if layer == "points":
            raise OSError("no space left on device")
        write(table, file, layer=layer, **options)

    monkeypatch.setattr(pyogrio, "write_dataframe", failing)
    with pytest.raises(OSError, match="no space"):
        write_geopackage(town, path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["town.gpkg", "town.osm"]


def test_maps_are_written_as_geopackage_only(town, tmp_path):
    with pytest.raises(MapError, match=r"does not end in \.gpkg"):
        write_geopackage(town, tmp_path / "town.geojson")


# ---------------------------------------------------------------- areas of a map


def test_within_keeps_what_reaches_into_the_box_whole(town):
    part = town.within(GeoBounds(149.1299, -35.2812, 149.1302, -35.28085))
    assert sorted(part.table["osm_id"]) == sorted(
        town.table["osm_id"][[tags.get("name") is None for tags in town.table["tags"]]].pipe(
            lambda ids: ids[ids != 2**40]
        )
    )
    road = part.table.set_index("osm_id").geometry[-3]
    assert road.equals(town.table.set_index("osm_id").geometry[-3])
    assert part.extent == (149.1299, -35.2812, 149.1302, -35.28085)


def test_within_shares_the_extent_where_the_box_reaches_beyond_it(town):
    part = town.within(GeoBounds(149.0, -35.2812, 149.1302, -35.2))
    assert part.extent == (149.125, -35.2812, 149.1302, -35.275)


def test_within_a_box_beside_the_map_is_an_error(town):
    with pytest.raises(MapOutsideError, match="lies outside of it"):
        town.within(GeoBounds(-35.29, 149.1, -35.27, 149.2))


def test_within_a_box_where_nothing_is_mapped_is_an_error(town):
    with pytest.raises(MapError, match="Nothing is mapped"):
        town.within(GeoBounds(149.1255, -35.2845, 149.1256, -35.2844))


def test_within_a_box_that_is_not_mapped_is_an_error(town):
    beyond = shapely.box(149.13, -35.285, 149.135, -35.275)
    features = MapFeatures(town.table, BOUNDS, "a test", unmapped=beyond)
    with pytest.raises(MapOutsideError, match="cut out along a border"):
        features.within(GeoBounds(149.1301, -35.2812, 149.1303, -35.2808))
    part = features.within(GeoBounds(149.1295, -35.2812, 149.1305, -35.2808))
    assert shapely.equals(part.unmapped, shapely.box(149.13, -35.2812, 149.1305, -35.2808))
    assert features.within(GeoBounds(149.1292, -35.2812, 149.13, -35.2808)).unmapped is None
