import json
import logging

import geopandas
import numpy as np
import pytest
import shapely
from pytest import approx

from crossview import frames
from crossview.errors import MapError
from crossview.footprints import read_footprints

# in Paris: Lambert-93 (EPSG:2154) metres
EAST_M, NORTH_M = 651_200.0, 6_861_500.0
SQUARE = [[0, 0], [10, 0], [10, 20], [0, 20], [0, 0]]


@pytest.fixture
def geojson(tmp_path):
    """Writes features, [(geometry, properties)], as a GeoJSON file."""

    def write(*features, **members):
        path = tmp_path / "footprints.geojson"
        rows = [
            {"type": "Feature", "geometry": geometry, "properties": properties}
            for geometry, properties in features
        ]
        content = {"type": "FeatureCollection", "features": rows, **members}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def lambert(*rings):
    """A polygon near the church of Saint-Sulpice, in Lambert-93."""
    rings = [[[EAST_M + x, NORTH_M + y] for x, y in ring] for ring in rings]
    return {"type": "Polygon", "coordinates": rings}


def degrees(*ring):
    return {"type": "Polygon", "coordinates": [[[2.33 + x, 48.85 + y] for x, y in ring]]}


HERE = degrees((0, 0), (1e-4, 0), (1e-4, 1e-4), (0, 0))


def test_footprints_in_metres_land_where_the_system_says(geojson):
    features = read_footprints(geojson((lambert(SQUARE), {})), crs="EPSG:2154")
    west, south, east, north = features.table.total_bounds
    lat_deg, lon_deg = frames.geodetic_from_projected(
        "EPSG:2154", EAST_M + np.array([0, 10, 10, 0]), NORTH_M + np.array([0, 0, 20, 20])
    )
    assert (west, east) == approx((lon_deg.min(), lon_deg.max()), abs=1e-9)
    assert (south, north) == approx((lat_deg.min(), lat_deg.max()), abs=1e-9)
    assert features.extent == approx((west, south, east, north))


def test_metres_taken_for_degrees_are_an_error_that_names_the_option(geojson):
    with pytest.raises(MapError, match=r"WGS 84.*651200\.0, 6861500\.0.*crs='EPSG:2154'"):
        read_footprints(geojson((lambert(SQUARE), {})))


def test_legacy_crs_member_is_understood(geojson):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    features = read_footprints(geojson((lambert(SQUARE), {}), crs=crs))
    assert features.table.total_bounds == approx((2.334, 48.852, 2.334, 48.852), abs=2e-3)


def test_argument_wins_over_the_file(geojson):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::27572"}}
    path = geojson((lambert(SQUARE), {}), crs=crs)
    features = read_footprints(path, crs="EPSG:2154")
    assert features.table.total_bounds == approx((2.334, 48.852, 2.334, 48.852), abs=2e-3)


def test_unknown_system_is_an_error(geojson):
    with pytest.raises(MapError, match="'EPSG:123456' is not a coordinate system"):
        read_footprints(geojson((HERE, {})), crs="EPSG:123456")


def test_file_that_names_no_system_is_an_error(tmp_path):
    table = geopandas.GeoDataFrame({"height": [3.0]}, geometry=[shapely.box(0, 0, 1, 1)])
    with pytest.warns(UserWarning, match="crs"):
        table.to_file(tmp_path / "footprints.fgb")
    with pytest.raises(MapError, match=r"does not name its coordinate system.*crs='EPSG:2154'"):
        read_footprints(tmp_path / "footprints.fgb")


def test_footprints_know_of_buildings_only(geojson):
    features = read_footprints(geojson((HERE, {})))
    assert features.surveyed == {"building"}
    assert features.table["tags"].tolist() == [{"building": "yes"}]
    assert features.table["osm_type"].tolist() == ["footprint"]


def test_kind_of_building_is_kept(geojson):
    path = geojson((HERE, {"building": "church"}), (HERE, {"building": ""}), (HERE, {}))
    kinds = [tags["building"] for tags in read_footprints(path).table["tags"]]
    assert kinds == ["church", "yes", "yes"]


def test_height_comes_from_the_first_column_that_a_row_fills(geojson):
    path = geojson(
        (HERE, {"Height": 12.5, "hauteur": 7, "building:levels": "2"}),
        (HERE, {"Height": None, "hauteur": 7, "building:levels": "2"}),
        (HERE, {"Height": 0, "hauteur": None, "building:levels": "2"}),
        (HERE, {"Height": None, "hauteur": None, "building:levels": ""}),
    )
    height_m = read_footprints(path).table["height_m"].tolist()
    assert height_m == approx([12.5, 7, 6, np.nan], nan_ok=True)


def test_height_may_be_written_with_its_unit(geojson):
    path = geojson((HERE, {"height": "40 ft"}), (HERE, {"height": "12,5"}))
    assert read_footprints(path).table["height_m"].tolist() == approx([12.192, 12.5])


def test_height_columns_can_be_named(geojson):
    path = geojson((HERE, {"height": 3, "roof_z": 9.0, "storeys": 5}))
    assert read_footprints(path, height_columns=["roof_z"]).table["height_m"].tolist() == [9.0]
    by_levels = read_footprints(path, height_columns=[], levels_columns=["storeys"])
    assert by_levels.table["height_m"].tolist() == [15.0]


def test_holes_stay_and_altitudes_go(geojson):
    hole = [[3, 3], [7, 3], [7, 17], [3, 17], [3, 3]]
    polygon = lambert(SQUARE, hole)
    polygon["coordinates"] = [[[x, y, 50.0] for x, y in ring] for ring in polygon["coordinates"]]
    table = read_footprints(geojson((polygon, {})), crs="EPSG:2154").table
    assert not table.geometry.has_z.any()
    assert table.to_crs("EPSG:2154").area.iat[0] == approx(200 - 4 * 14, rel=1e-6)


def test_self_intersecting_footprint_is_repaired(geojson):
    bow_tie = lambert([[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]])
    table = read_footprints(geojson((bow_tie, {})), crs="EPSG:2154").table
    assert table.geometry.is_valid.all()
    assert table.to_crs("EPSG:2154").area.iat[0] == approx(200, rel=1e-6)


def test_geojson_says_itself_who_must_be_named(geojson):
    path = geojson((HERE, {}), attribution="© Ville de Paris")
    assert read_footprints(path).attribution == "© Ville de Paris"


@pytest.mark.parametrize("members", [{}, {"attribution": None}, {"attribution": ["A", "B"]}])
def test_nobody_is_named_where_the_file_says_no_name(geojson, members):
    assert read_footprints(geojson((HERE, {}), **members)).attribution == ""


def test_other_geometries_are_left_out_and_counted(geojson, caplog):
    point = {"type": "Point", "coordinates": [2.33, 48.85]}
    flat = degrees((0, 0), (1e-4, 0), (2e-4, 0), (0, 0))
    with caplog.at_level(logging.WARNING):
        features = read_footprints(geojson((point, {}), (HERE, {}), (flat, {}), (None, {})))
    assert len(features.table) == 1
    assert features.skipped == {"features that are not polygons": 1, "collapsed areas": 1}
    assert "features that are not polygons" in caplog.text


def test_file_without_polygons_is_an_error(geojson):
    point = {"type": "Point", "coordinates": [2.33, 48.85]}
    with pytest.raises(MapError, match=r"holds no polygon.*1 other"):
        read_footprints(geojson((point, {})))


def test_file_without_features_is_an_error(geojson):
    with pytest.raises(MapError, match="no features"):
        read_footprints(geojson())


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(MapError, match="no map file"):
        read_footprints(tmp_path / "nowhere.geojson")


@pytest.mark.parametrize("content", [b"", b"hello", b"<html/>", b'{"type": "FeatureColl'])
def test_file_that_is_no_vector_map_is_an_error(tmp_path, content):
    path = tmp_path / "footprints.geojson"
    path.write_bytes(content)
    with pytest.raises(MapError, match=r"cannot be read as building footprints.*GeoJSON.*\.osm"):
        read_footprints(path)


def test_geopackage_layers_can_be_chosen(tmp_path):
    path = tmp_path / "town.gpkg"
    boxes = geopandas.GeoDataFrame(
        {"height": [4.0, 5.0]},
        geometry=[shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)],
        crs="EPSG:32755",
    ).translate(500_000, 6_100_000)
    boxes[:1].to_file(path, layer="sheds")
    boxes.to_file(path, layer="houses")
    assert len(read_footprints(path, layer="houses").table) == 2
    with pytest.raises(MapError, match="castles"):
        read_footprints(path, layer="castles")


def test_paris_footprints_are_540_buildings_of_which_513_have_a_height(data_dir):
    path = data_dir / "paris_itowns" / "buildingFootprint.json"
    features = read_footprints(path, crs="EPSG:2154")
    assert len(features.table) == 540
    assert np.isfinite(features.table["height_m"]).sum() == 513
    assert not features.skipped
    # Saint-Sulpice
    assert features.extent.west < 2.3347 < features.extent.east
    assert features.extent.south < 48.8510 < features.extent.north


def test_atlanta_footprints_name_their_system_in_the_file(data_dir):
    features = read_footprints(data_dir / "aerial" / "atlanta_buildings.geojson")
    assert len(features.table) == 43
    assert features.extent == approx((-84.4813, 33.6364, -84.4766, 33.6405), abs=1e-4)


def two_layers(path, first, second):
    square = geopandas.GeoDataFrame(
        {"height": [5.0]}, geometry=[shapely.box(8.0, 50.0, 8.001, 50.001)], crs="EPSG:4326"
    )
    square.to_file(path, layer=first, engine="pyogrio")
    square.translate(0.01).to_frame("geometry").to_file(path, layer=second, engine="pyogrio")
    return path


def test_of_several_layers_the_one_named_for_buildings_is_read(tmp_path):
    features = read_footprints(two_layers(tmp_path / "town.gpkg", "parcels", "buildings"))
    assert features.table.geometry.iloc[0].bounds[0] == approx(8.01)


def test_several_layers_without_a_name_for_buildings_are_refused(tmp_path):
    path = two_layers(tmp_path / "town.gpkg", "parcels", "earth")
    with pytest.raises(MapError, match="--map-layer"):
        read_footprints(path)
    assert len(read_footprints(path, layer="earth").table) == 1
