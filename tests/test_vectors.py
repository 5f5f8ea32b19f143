import numpy as np
import pytest
import shapely
from fakes.osm_files import OsmXml
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import vectors
from crossview.errors import MapError, MapOutsideError, OutOfRegionError
from crossview.features import Feature, MapFeatures, feature_table
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.tiles import GeoBounds
from crossview.vectors import VectorMap

FRAME = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
AUSTRALIA = GeoBounds(110, -45, 155, -10)
HOUSE = {"building": "yes"}
LEGENDS = ("crossview", "orienternet")


def grid_of(height=20, width=20, *, west_m=0.0, north_m=20.0, cell_m=1.0, frame=FRAME):
    """Cells of 1 m, whose (row, col) (0, 0) has its centre at (0.5, 19.5) m."""
    return MapGrid(frame, west_m, north_m, cell_m, height, width)


def to_degrees(geometry, frame=FRAME):
    def convert(xy_m):
        lat_deg, lon_deg = frame.to_geodetic(xy_m[:, 0], xy_m[:, 1])
        return np.column_stack([lon_deg, lat_deg])

    return shapely.transform(geometry, convert)


def map_of(*features, extent=AUSTRALIA, **options):
    """A map of features (geometry in metres, tags[, height_m]); no rounding on the way."""
    rows = []
    for i, (geometry, tags, *height_m) in enumerate(features):
        kind = {0: "point", 1: "line", 2: "area"}[shapely.get_dimensions(geometry)]
        osm_type = {"point": "node"}.get(kind, "way")
        rows.append(Feature(osm_type, i, kind, tags, to_degrees(geometry), *height_m))
    return VectorMap(MapFeatures(feature_table(rows), extent, "test"), **options)


def picture(mask):
    return ["".join(".#"[cell] for cell in row) for row in mask.astype(int)]


def test_north_is_up_and_east_is_right():
    house = shapely.box(12, 15, 18, 18)
    mask = map_of((house, HOUSE))(grid_of()).class_mask("building")
    expected = np.zeros((20, 20), bool)
    expected[2:5, 12:18] = True
    assert np.array_equal(mask, expected)


def test_hole_of_a_building_stays_open():
    house = shapely.box(2, 2, 18, 18) - shapely.box(6, 6, 10, 14)
    raster = map_of((house, HOUSE, 9.0))(grid_of())
    assert raster.class_mask("building").sum() == 16 * 16 - 4 * 8
    assert not raster.class_mask("building")[6:14, 6:10].any()
    assert np.all(raster.building_height_m[6:14, 6:10] == 0)


@given(
    corners=st.lists(st.tuples(st.floats(-3, 23), st.floats(-3, 23)), min_size=3, max_size=9),
    hole=st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0.5, 6)),
)
def test_a_cell_belongs_to_the_polygon_that_holds_its_centre(corners, hole):
    polygon = shapely.MultiPoint(corners).convex_hull.buffer(0.3)
    polygon -= shapely.Point(hole[:2]).buffer(hole[2])
    if polygon.is_empty:
        return
    grid = grid_of(17, 21)
    mask = map_of((polygon, HOUSE))(grid).class_mask("building")
    x_m, y_m = np.meshgrid(*grid.centers())
    inside = shapely.contains_xy(polygon, x_m, y_m)
    # a centre within a micrometre of an edge may go either way
    decided = shapely.distance(shapely.boundary(polygon), shapely.points(x_m, y_m)) > 1e-6
    assert np.array_equal(mask[decided], inside[decided])


@given(
    start=st.tuples(st.floats(-5, 25), st.floats(-5, 25)),
    end=st.tuples(st.floats(-5, 25), st.floats(-5, 25)),
    width_m=st.floats(1, 9),
)
def test_road_is_as_wide_as_its_tag_says(start, end, width_m):
    line = shapely.LineString([start, end])
    if line.length < 0.1:
        return
    grid = grid_of()
    tags = {"highway": "residential", "width": f"{width_m:.3f}"}
    mask = map_of((line, tags))(grid).class_mask("road")
    x_m, y_m = np.meshgrid(*grid.centers())
    distance_m = shapely.distance(line, shapely.points(x_m, y_m))
    assert np.all(mask[distance_m < width_m / 2 - 0.12])  # its round ends are polygons
    assert not np.any(mask[distance_m > width_m / 2 + 0.002])


def test_road_without_a_width_has_that_of_its_kind():
    line = shapely.LineString([(-50, 10), (50, 10)])
    mask = map_of((line, {"highway": "residential"}))(grid_of()).class_mask("road")
    assert np.array_equal(np.flatnonzero(mask.any(axis=1)), np.arange(7, 13))


def test_living_street_is_a_road_for_us_and_nothing_for_orienternet():
    street = (shapely.LineString([(-50, 10), (50, 10)]), {"highway": "living_street"})
    assert map_of(street)(grid_of()).class_mask("road").any()
    assert not map_of(street, legend="orienternet")(grid_of()).classes.any()


def test_line_is_one_cell_wide_and_the_axis_of_its_road():
    line = shapely.LineString([(-50, 10.5), (50, 10.5)])
    mask = map_of((line, {"highway": "residential"}))(grid_of()).class_mask("road_axis")
    assert np.array_equal(np.argwhere(mask)[:, 0], np.full(20, 9))


def test_outline_of_a_building_is_one_cell_wide_hole_included():
    house = shapely.box(1.5, 1.5, 8.5, 8.5) - shapely.box(3.5, 3.5, 6.5, 6.5)
    grid = grid_of(10, 10, north_m=10)
    assert picture(map_of((house, HOUSE))(grid).class_mask("building_outline")) == [
        "..........",
        ".########.",
        ".#......#.",
        ".#.####.#.",
        ".#.#..#.#.",
        ".#.#..#.#.",
        ".#.####.#.",
        ".#......#.",
        ".########.",
        "..........",
    ]


def test_orienternet_moves_corners_to_cell_centres_and_fills_their_edges():
    # corners in cells 1 and 8, hole with corners in cells 3 and 6: the hole's edge is filled too
    house = shapely.box(1.1, 1.1, 8.9, 8.9) - shapely.box(3.2, 3.2, 6.8, 6.8)
    grid = grid_of(10, 10, north_m=10)
    raster = map_of((house, HOUSE), legend="orienternet")(grid)
    assert picture(raster.class_mask("building")) == [
        "..........",
        ".########.",
        ".########.",
        ".########.",
        ".###..###.",
        ".###..###.",
        ".########.",
        ".########.",
        ".########.",
        "..........",
    ]
    assert raster.class_mask("building_outline").sum() == 28 + 12


def test_thin_wall_that_holds_no_centre_is_drawn_by_orienternet_only():
    sliver = shapely.box(2.6, 5.0, 2.9, 15.0)
    assert not map_of((sliver, HOUSE))(grid_of()).class_mask("building").any()
    assert map_of((sliver, HOUSE), legend="orienternet")(grid_of()).class_mask("building").any()


@pytest.mark.parametrize("legend", LEGENDS)
def test_first_class_of_the_list_wins_whatever_the_order_in_the_file(legend):
    park = (shapely.box(0, 0, 20, 20), {"leisure": "park"})
    house = (shapely.box(5, 5, 10, 10), HOUSE)
    one, other = map_of(park, house, legend=legend), map_of(house, park, legend=legend)
    assert one(grid_of()).class_mask("building").any()
    assert np.array_equal(one(grid_of()).classes, other(grid_of()).classes)


def test_point_is_one_cell():
    raster = map_of((shapely.Point(3.2, 18.7), {"natural": "tree"}))(grid_of())
    assert np.argwhere(raster.class_mask("tree")).tolist() == [[1, 3]]


def test_shop_in_a_building_is_a_point_inside_of_it():
    shop = shapely.box(4, 4, 8, 8)
    raster = map_of((shop, {**HOUSE, "shop": "toys"}))(grid_of())
    (row, col), *others = np.argwhere(raster.class_mask("shop"))
    assert not others
    assert raster.class_mask("building")[row, col]


@pytest.mark.parametrize("legend", LEGENDS)
@pytest.mark.parametrize(
    ("col", "row", "is_inside"),
    [(0, 0, True), (20, 0, False), (0, 20, False), (20, 20, False), (20, 7.5, False), (0, 7, True)],
)
def test_node_exactly_on_the_edge_belongs_to_the_cell_it_opens(legend, col, row, is_inside):
    # a whole number of metres goes to degrees and back; put the grid where it lands
    source = map_of((shapely.Point(5, 5), {"natural": "tree"}), legend=legend)
    point = source.features.table.geometry.iat[0]
    x_m, y_m = FRAME.to_local(point.y, point.x)
    grid = MapGrid(FRAME, x_m - col, y_m + row, 1.0, 20, 20)
    assert grid.to_pixel(x_m, y_m) == (col, row)
    assert source(grid).class_mask("tree").any() == is_inside


@pytest.mark.parametrize("legend", LEGENDS)
@given(
    row=st.integers(0, 30),
    col=st.integers(0, 30),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
)
def test_window_is_drawn_like_the_same_cells_of_the_whole(legend, row, col, height, width):
    rng = np.random.default_rng(5)
    things = [
        (shapely.Polygon(rng.uniform(0, 60, (3, 2))), HOUSE, rng.uniform(3, 30)) for _ in range(6)
    ]
    streets = [
        (shapely.LineString(rng.uniform(-40, 100, (3, 2))), {"highway": "footway"})
        for _ in range(6)
    ]
    town = map_of(*things, *streets, legend=legend)
    whole = town(grid_of(60, 60, north_m=60.0))
    part = town(grid_of(height, width, west_m=float(col), north_m=60.0 - row))
    window = slice(row, row + height), slice(col, col + width)
    assert np.array_equal(part.classes, whole.classes[window])
    assert np.array_equal(part.building_height_m, whole.building_height_m[window])


@pytest.mark.parametrize("legend", LEGENDS)
def test_road_that_leaves_the_region_is_cut_and_never_bent_to_the_anchor(legend):
    # in degrees: from 1 km east of the anchor 6 degrees (540 km) to the east
    lat_deg, lon_deg = FRAME.to_geodetic(1000.0, 0.0)
    far = shapely.LineString([(lon_deg, lat_deg), (lon_deg + 6, lat_deg)])
    row = Feature("way", 1, "line", {"highway": "motorway"}, far)
    town = VectorMap(MapFeatures(feature_table([row]), AUSTRALIA, "test"), legend=legend)
    assert not town(grid_of(200, 200, west_m=-100, north_m=100)).classes.any()
    at_start = town(grid_of(200, 200, west_m=950, north_m=100))
    assert at_start.class_mask("road").any(axis=0).sum() >= 150
    near_the_rim = town(grid_of(400, 200, west_m=49_000, north_m=200))
    assert near_the_rim.class_mask("road").any(axis=0).all()


def test_lake_that_leaves_the_region_is_cut():
    lat_deg, lon_deg = FRAME.lat_deg, FRAME.lon_deg
    lake = shapely.box(lon_deg + 0.001, lat_deg - 2, lon_deg + 3, lat_deg + 2)
    row = Feature("relation", 1, "area", {"natural": "water"}, lake)
    town = VectorMap(MapFeatures(feature_table([row]), AUSTRALIA, "test"))
    water = town(grid_of(100, 400, west_m=-100, north_m=50)).class_mask("water")
    shore_m, _ = FRAME.to_local(lat_deg, lon_deg + 0.001)
    assert not water[:, : int(100 + shore_m) - 1].any()
    assert water[:, int(100 + shore_m) + 2 :].all()


def test_features_of_another_continent_are_nowhere():
    here = Feature("way", 1, "area", HOUSE, to_degrees(shapely.box(5, 5, 10, 10)))
    there = Feature("node", 2, "point", {"natural": "tree"}, shapely.Point(2.33, 48.85))
    features = MapFeatures(feature_table([here, there]), AUSTRALIA, "test")
    raster = VectorMap(features)(grid_of())
    assert raster.class_mask("building").sum() == 25
    assert not raster.classes[..., 2].any()


def test_grid_beyond_the_region_of_its_frame_is_an_error():
    town = map_of((shapely.box(0, 0, 1, 1), HOUSE))
    with pytest.raises(OutOfRegionError, match=r"reaches 60 km .* serves 50 km"):
        town(grid_of(west_m=60_000.0))


def test_frame_at_the_180th_meridian_is_an_error():
    town = map_of((shapely.box(0, 0, 1, 1), HOUSE), extent=GeoBounds(-180, -90, 180, 90))
    with pytest.raises(MapError, match="180th meridian"):
        town(grid_of(frame=LocalFrame(-16.8, 179.99)))


def test_covered_is_where_the_extent_holds_the_cell_centre():
    lon_deg = FRAME.to_geodetic(7.2, 0.0)[1]
    extent = AUSTRALIA._replace(west=lon_deg)
    covered = map_of((shapely.box(0, 0, 1, 1), HOUSE), extent=extent)(grid_of()).covered
    assert not covered[:, :7].any()  # centre 6.5
    assert covered[:, 7:].all()  # centre 7.5


def test_everything_is_covered_where_the_extent_holds_the_grid():
    assert map_of((shapely.box(0, 0, 1, 1), HOUSE))(grid_of()).covered.all()


def test_extent_can_be_overruled():
    features = map_of((shapely.box(0, 0, 1, 1), HOUSE)).features
    lon_deg = FRAME.to_geodetic(10.0, 0.0)[1]
    town = VectorMap(features, extent=AUSTRALIA._replace(east=lon_deg))
    assert town.bounds_geo.east == lon_deg
    assert town(grid_of()).covered.sum() == 20 * 10


def test_map_that_does_not_reach_the_grid_is_an_error_that_names_both():
    town = map_of((shapely.box(0, 0, 1, 1), HOUSE), extent=GeoBounds(2.3, 48.8, 2.4, 48.9))
    message = r"test covers latitude 48\.8.*longitude 2\.3.*the grid latitude -35\.28.*149\.13"
    with pytest.raises(MapError, match=message):
        town(grid_of())


def test_heights_are_nan_where_unknown_and_zero_where_nothing_stands():
    known, unknown = shapely.box(0, 0, 5, 20), shapely.box(10, 0, 15, 20)
    raster = map_of((known, HOUSE, 12.5), (unknown, HOUSE))(grid_of())
    assert np.all(raster.building_height_m[:, :5] == 12.5)
    assert np.all(raster.building_height_m[:, 5:10] == 0)
    assert np.all(np.isnan(raster.building_height_m[:, 10:15]))
    assert np.array_equal(raster.building_height_m != 0, raster.class_mask("building"))


def test_tallest_building_of_a_cell_counts_in_any_order():
    low, tower = (shapely.box(0, 0, 20, 20), HOUSE, 6.0), (shapely.box(5, 5, 9, 9), HOUSE, 40.0)
    unknown = (shapely.box(0, 0, 20, 20), HOUSE)
    for order in ([low, tower, unknown], [unknown, tower, low]):
        height_m = map_of(*order)(grid_of()).building_height_m
        assert (height_m == 40).sum() == 16
        assert (height_m == 6).sum() == 400 - 16


def test_parts_know_better_than_the_whole_building():
    whole = (shapely.box(0, 0, 20, 20), HOUSE, 60.0)
    podium = (shapely.box(0, 0, 20, 15), {"building:part": "yes"}, 8.0)
    tower = (shapely.box(5, 5, 9, 9), {"building:part": "yes"}, 90.0)
    vague = (shapely.box(0, 0, 20, 20), {"building:part": "yes"})
    height_m = map_of(whole, tower, vague, podium)(grid_of()).building_height_m
    assert (height_m == 90).sum() == 16
    assert (height_m == 8).sum() == 20 * 15 - 16
    assert np.all(height_m[:5] == 60)


def test_roof_without_walls_is_no_building():
    raster = map_of((shapely.box(5, 5, 10, 10), {"building": "roof"}, 5.0))(grid_of())
    assert raster.class_mask("roof").sum() == 25
    assert not raster.class_mask("building").any()
    assert not raster.building_height_m.any()


def test_buildings_are_whole_polygons_in_metres():
    house = shapely.box(-30, 5, 3, 10) - shapely.box(-20, 6, -10, 9)
    part = shapely.box(5, 5, 9, 9)
    town = map_of(
        (house, HOUSE, 7.0),
        (part, {"building:part": "yes"}),
        (shapely.box(100, 100, 110, 110), HOUSE),
        (shapely.box(0, 12, 20, 14), {"leisure": "park"}),
    )
    buildings = town.buildings(grid_of())
    assert buildings["osm_id"].tolist() == [0, 1]
    assert buildings["height_m"].tolist() == approx([7.0, np.nan], nan_ok=True)
    assert buildings["is_part"].tolist() == [False, True]
    assert buildings["min_height_m"].tolist() == [0, 0]
    assert buildings.geometry.iat[0].symmetric_difference(house).area < 1e-3
    assert buildings.crs == FRAME.crs


def test_buildings_far_away_are_none():
    town = map_of((shapely.box(100, 100, 110, 110), HOUSE))
    assert len(town.buildings(grid_of())) == 0


def test_map_without_any_class_of_the_legend_is_void():
    town = map_of((shapely.Point(3, 3), {"entrance": "yes"}), legend="orienternet")
    raster = town(grid_of())
    assert not raster.classes.any()
    assert len(town.buildings(grid_of())) == 0


def test_everything_is_surveyed_unless_the_features_say_otherwise():
    town = map_of((shapely.box(0, 0, 1, 1), HOUSE))
    assert town(grid_of()).surveyed == town.legend.names
    table, extent = town.features.table, town.features.extent
    footprints = MapFeatures(table, extent, "test", surveyed=frozenset({"building"}))
    assert VectorMap(footprints)(grid_of()).surveyed == {"building"}
    assert VectorMap(footprints, surveyed={"road"})(grid_of()).surveyed == {"road"}


@pytest.mark.parametrize("surveyed", [None, frozenset({"building"})])
def test_a_map_names_whom_its_features_name_whatever_they_survey(surveyed):
    table = feature_table([Feature("way", 1, "area", HOUSE, shapely.box(149, -35, 149.1, -34.9))])
    for attribution in ("", "© Somebody"):
        features = MapFeatures(table, AUSTRALIA, "test", surveyed=surveyed, attribution=attribution)
        assert VectorMap(features).attribution == attribution


def test_surveying_an_unknown_class_is_an_error():
    with pytest.raises(ValueError, match=r"surveyed names sidewalk.*'crossview'.*road"):
        map_of((shapely.box(0, 0, 1, 1), HOUSE), surveyed={"sidewalk"})


def test_legends_disagree_on_which_closed_ways_are_areas():
    ring = shapely.box(4, 4, 16, 16).exterior
    lot = (shapely.LineString(ring), {"highway": "service", "amenity": "parking"})
    hotel = (shapely.box(4, 4, 16, 16), {"barrier": "wall", "tourism": "hotel"})
    theirs = map_of(lot, legend="orienternet")(grid_of())
    assert theirs.class_mask("parking")[10, 10]
    assert not theirs.class_mask("road").any()
    ours = map_of(lot)(grid_of())
    assert not ours.class_mask("parking").any()
    assert ours.class_mask("road").any()
    assert not ours.class_mask("road")[10, 10]
    for legend in LEGENDS:  # an area for us, a line for them, a wall around it for both
        wall = map_of(hotel, legend=legend)(grid_of()).class_mask("wall")
        assert wall.any()
        assert not wall[10, 10]


def test_what_a_map_says_it_does_not_map_is_not_covered():
    house = feature_table([Feature("way", 1, "area", HOUSE, to_degrees(shapely.box(2, 2, 6, 6)))])
    beyond = to_degrees(shapely.box(10, -50, 90, 50) - shapely.box(14, 14, 18, 18))
    town = VectorMap(MapFeatures(house, AUSTRALIA, "test", unmapped=beyond))
    raster = town(grid_of())
    expected = np.ones((20, 20), bool)
    expected[:, 10:] = False
    expected[2:6, 14:18] = True
    assert np.array_equal(raster.covered, expected)
    assert town(grid_of(west_m=-40)).covered.all()
    with pytest.raises(MapOutsideError, match="cut out along a border"):
        town(grid_of(west_m=30))


def test_one_map_serves_several_frames():
    other = LocalFrame(FRAME.lat_deg + 0.001, FRAME.lon_deg - 0.001)
    house = shapely.box(5, 5, 10, 10)
    town = map_of((house, HOUSE))
    shift_x_m, shift_y_m = other.to_local(FRAME.lat_deg, FRAME.lon_deg)
    for frame in (FRAME, other, FRAME):
        polygon = town.buildings(grid_of(500, 500, west_m=-250, north_m=250, frame=frame))
        centre = polygon.geometry.iat[0].centroid
        expected = (7.5, 7.5) if frame == FRAME else (7.5 + shift_x_m, 7.5 + shift_y_m)
        assert (centre.x, centre.y) == approx(expected, abs=1e-3)


def test_frames_are_kept_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(vectors, "MAX_FRAMES", 2)
    town = map_of((shapely.box(5, 5, 10, 10), HOUSE))
    for shift_deg in (0, 1e-5, 2e-5, 0):
        grid = grid_of(frame=LocalFrame(FRAME.lat_deg + shift_deg, FRAME.lon_deg))
        assert town(grid).class_mask("building").sum() == approx(25, abs=5)
    assert len(town._local_maps) == 2


def test_files_are_read_by_their_suffix(tmp_path):
    town = OsmXml(FRAME, bounds=AUSTRALIA)
    town.box(5, 5, 10, 10, HOUSE)
    path = town.write(tmp_path / "town.osm")
    from_osm = VectorMap.read(path, legend="orienternet")
    assert from_osm.surveyed == from_osm.legend.names
    from_osm.features.table[["geometry"]].to_file(tmp_path / "town.geojson")
    footprints = VectorMap.read(tmp_path / "town.geojson", legend="orienternet", extent=AUSTRALIA)
    assert footprints.surveyed == {"building"}
    assert np.array_equal(footprints(grid_of()).classes, from_osm(grid_of()).classes)


def test_system_of_an_osm_file_cannot_be_chosen(tmp_path):
    with pytest.raises(MapError, match="leave out crs"):
        VectorMap.read(tmp_path / "town.osm", crs="EPSG:2154")


def test_way_and_relation_with_one_id_are_both_drawn(tmp_path):
    town = OsmXml(FRAME, bounds=AUSTRALIA)
    ring = town.box(0, 0, 4, 4, id=8)
    town.box(10, 10, 14, 14, HOUSE, id=7)
    town.relation([(ring, "outer")], {"type": "multipolygon", **HOUSE}, id=7)
    path = town.write(tmp_path / "town.osm")
    for legend in LEGENDS:
        mask = VectorMap.read(path, legend=legend)(grid_of()).class_mask("building")
        assert mask[18, 2]
        assert mask[8, 12]


def test_paris_courtyards_are_open_and_heights_are_those_of_the_file(data_dir):
    path = data_dir / "paris_itowns" / "buildingFootprint.json"
    town = VectorMap.read(path, crs="EPSG:2154")
    frame = LocalFrame(48.8509, 2.3347)
    raster = town(MapGrid.around(frame, 0, 0, radius_m=150, cell_m=0.5))
    assert raster.covered.all()
    # Saint-Sulpice stands there, the square west of it is free, and so is the seminary's court
    assert raster.class_mask("building")[raster.grid.cell_of(10, 0)]
    assert not raster.class_mask("building")[raster.grid.cell_of(-95, 0)]
    assert np.nanmax(raster.building_height_m) <= 41


@pytest.mark.parametrize("legend", LEGENDS)
def test_windows_of_real_towns_agree_with_the_whole(data_dir, legend):
    town = VectorMap.read(data_dir / "osm" / "monaco.osm.gz", legend=legend)
    frame = LocalFrame(43.7355, 7.4225)
    grid = MapGrid.around(frame, 0, 0, radius_m=150, cell_m=0.5)
    whole = town(grid)
    part = town(MapGrid(frame, grid.west_m + 50, grid.north_m - 80, 0.5, 200, 250))
    assert np.array_equal(part.classes, whole.classes[160:360, 100:350])
    assert len(np.unique(whole.classes[..., 0])) >= 3
