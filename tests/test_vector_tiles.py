"""Vector tiles as map features: what tiles cut is whole again, and nothing else is put together."""

from itertools import pairwise

import geopandas
import mercantile
import numpy as np
import pytest
import shapely
from fakes import vector_tiles as fake
from fakes.vector_tiles import feature, ring

from crossview import tiles
from crossview.errors import MapError, MapOutsideError
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.tiles import GeoBounds
from crossview.vectors import VectorMap
from data_tools import vector_tiles
from data_tools.vector_tiles import read_vector_tiles

ZOOM, COLUMN, ROW = 14, 8704, 5970  # in Florence
WEST, EAST, SOUTH = (COLUMN, ROW), (COLUMN + 1, ROW), (COLUMN, ROW + 1)
SOUTH_EAST = (COLUMN + 1, ROW + 1)
E = fake.UNITS


def box_of(*places):
    bounds = [mercantile.bounds(*place, ZOOM) for place in places]
    return GeoBounds(
        min(b.west for b in bounds),
        min(b.south for b in bounds),
        max(b.east for b in bounds),
        max(b.north for b in bounds),
    )


def write(path, layers_of_tiles, **metadata):
    content = {place: fake.tile(layers) for place, layers in layers_of_tiles.items()}
    path.write_bytes(fake.archive(content, box=box_of(*content), zoom=ZOOM, metadata=metadata))
    return path


@pytest.fixture
def read(tmp_path):
    """The table of tiles {place: {layer: [feature]}}, in units of the tile WEST."""

    def table(layers_of_tiles, **options):
        return in_units(read_vector_tiles(write(tmp_path / "town.pmtiles", layers_of_tiles)).table)

    return table


def in_units(table):
    def units(lon_lat):
        x, y = tiles.position(lon_lat[:, 1], lon_lat[:, 0], ZOOM)
        return np.column_stack([x - COLUMN, y - ROW]) * E

    return table.set_geometry(shapely.transform(table.geometry.to_numpy(), units))


def houses(*features):
    return {"buildings": list(features)}


def house(*rings, id=None, **tags):
    return feature("area", rings, tags, id=id)


def assert_areas(table, *expected, tolerance=1e-4):
    found = list(table.geometry)
    assert len(found) == len(expected)
    for polygon, wanted in zip(found, expected, strict=True):
        assert polygon.symmetric_difference(wanted).area < tolerance


# ---------------------------------------------------------------- one tile


def test_north_is_up_and_the_place_is_right(tmp_path):
    path = write(tmp_path / "town.pmtiles", {WEST: houses(house(ring(0, 0, E // 2, E // 4)))})
    west, south, east, north = read_vector_tiles(path).table.total_bounds
    whole = mercantile.bounds(*WEST, ZOOM)
    assert (west, north) == pytest.approx((whole.west, whole.north), abs=1e-9)
    assert east == pytest.approx((whole.west + whole.east) / 2, abs=1e-9)
    middle = mercantile.bounds(COLUMN * 4, ROW * 4, ZOOM + 2)
    assert south == pytest.approx(middle.south, abs=1e-9)


def test_kinds_tags_and_heights(read):
    layers = {
        "buildings": [house(ring(10, 10, 20, 20), id=7, height=12.5, **{"pmap:kind": "x"})],
        "roads": [feature("line", [[(0, 5), (90, 5)]], {"highway": "service", "layer": -1})],
        "pois": [feature("point", [[(3, 4)], [(5, 6)]], {"amenity": "bench", "covered": True})],
    }
    table = read({WEST: layers})
    assert table["kind"].tolist() == ["area", "line", "point", "point"]
    assert table["tags"].tolist() == [
        {"height": "12.5", "building": "yes"},
        {"highway": "service", "layer": "-1"},
        {"amenity": "bench", "covered": "yes"},
        {"amenity": "bench", "covered": "yes"},
    ]
    assert table["height_m"][0] == 12.5
    assert set(table["osm_type"]) == {"tile"}
    assert table["osm_id"][0] == 7
    places = shapely.get_coordinates(table.geometry[2:].to_numpy())
    assert places == pytest.approx(np.array([[3, 4], [5, 6]]), abs=1e-4)


def test_parts_of_buildings_are_not_called_buildings(read):
    layers = houses(house(ring(0, 0, 9, 9), **{"building:part": "yes"}))
    assert read({WEST: layers})["tags"].tolist() == [{"building:part": "yes"}]


def test_holes_and_several_parts(read):
    hole = ring(20, 20, 30, 30)[::-1]
    table = read({WEST: houses(house(ring(10, 10, 40, 40), hole, ring(50, 10, 60, 20)))})
    expected = shapely.box(10, 10, 40, 40) - shapely.box(20, 20, 30, 30)
    assert_areas(table, expected | shapely.box(50, 10, 60, 20))


def test_what_no_legend_wants_is_left_out(read):
    layers = {
        "earth": [house(ring(0, 0, E, E))],
        "places": [feature("point", [[(1, 1)]], {"name": "Firenze"})],
        "water": [house(ring(0, 0, 9, 9), natural="water")],
    }
    assert read({WEST: layers})["tags"].tolist() == [{"natural": "water"}]


def test_gdal_reads_the_same_houses(tmp_path):
    """A second implementation of the format, on a file of ours."""
    layers = houses(
        house(ring(10, 10, 400, 60), ring(20, 20, 60, 40)[::-1], id=1),
        house(ring(500, 500, 900, 560), ring(1000, 500, 1100, 560), id=2),
    )
    vector_layers = [{"id": "buildings", "fields": {}}]
    path = write(tmp_path / "town.pmtiles", {WEST: layers}, vector_layers=vector_layers)
    theirs = geopandas.read_file(path, layer="buildings").to_crs(4326).sort_values("mvt_id")
    ours = read_vector_tiles(path).table.sort_values("osm_id")
    difference = shapely.symmetric_difference(ours.geometry.to_numpy(), theirs.geometry.to_numpy())
    assert shapely.area(difference).max() < 1e-12
    assert ours["osm_id"].tolist() == theirs["mvt_id"].tolist() == [1, 2]


# ---------------------------------------------------------------- tile edges


@pytest.mark.parametrize("id", [5, None])
def test_a_house_that_two_tiles_cut_is_one_house(read, id):
    """With the buffer that generators leave around a tile, and without."""
    for buffer in (0, 64):
        pair = {
            WEST: houses(house(ring(E - 30, 10, E + min(20, buffer), 40), id=id)),
            EAST: houses(house(ring(-min(30, buffer), 10, 20, 40), id=id)),
        }
        assert_areas(read(pair), shapely.box(E - 30, 10, E + 20, 40))


def test_a_house_across_a_corner_of_four_tiles_is_one_house(read):
    whole = (E - 30, E - 10, E + 20, E + 40)
    moved = {
        (COLUMN + i, ROW + j): houses(
            house(ring(*(side - E * (i, j)[k % 2] for k, side in enumerate(whole))))
        )
        for i in (0, 1)
        for j in (0, 1)
    }
    assert_areas(read(moved), shapely.box(*whole))


def test_neighbours_with_ids_of_their_own_stay_two_houses(read):
    pair = {
        WEST: houses(house(ring(E - 30, 10, E, 40), id=1)),
        EAST: houses(house(ring(0, 10, 20, 40), id=2)),
    }
    assert_areas(read(pair), shapely.box(E - 30, 10, E, 40), shapely.box(E, 10, E + 20, 40))


def test_neighbours_with_other_tags_or_little_in_common_stay_two_houses(read):
    for other in (house(ring(0, 10, 20, 40), name="B"), house(ring(0, 35, 20, 65))):
        pair = {WEST: houses(house(ring(E - 30, 10, E, 40))), EAST: houses(other)}
        assert len(read(pair)) == 2


def test_an_id_that_tiles_use_for_different_things_puts_nothing_together(read):
    pair = {
        WEST: houses(house(ring(E - 30, 10, E, 40), id=1)),
        EAST: houses(house(ring(0, 100, 20, 140), id=1), house(ring(50, 10, 60, 20), id=3)),
    }
    assert len(read(pair)) == 3


def test_a_court_that_opens_across_the_edge_stays_open(read):
    """The western piece meets the edge twice, and so two eastern ones belong to it."""
    court = shapely.box(E - 30, 0, E + 30, 60) - shapely.box(E - 20, 20, E + 20, 40)
    pieces = {}
    for place, shift in ((WEST, 0), (EAST, E)):
        cut = court & shapely.box(shift, 0, shift + E, E)
        corners = [(int(x) - shift, int(y)) for x, y in cut.exterior.coords]
        pieces[place] = houses(house(corners if area(corners) > 0 else corners[::-1]))
    assert_areas(read(pieces), court)


def area(corners):
    return sum(x * v - u * y for (x, y), (u, v) in pairwise(corners))


def test_edges_that_tiles_round_differently_leave_no_step(read):
    """The eastern tile cuts the house one unit lower than the western one."""
    pair = {
        WEST: houses(house([(E - 40, 10), (E, 20), (E, 60), (E - 40, 50), (E - 40, 10)], id=1)),
        EAST: houses(house([(0, 21), (40, 30), (40, 70), (0, 61), (0, 21)], id=1)),
    }
    (joined,) = read(pair).geometry
    assert_no_wall_on(joined, E)
    assert joined.area == pytest.approx(2 * 40 * 40, rel=0.02)


def assert_no_wall_on(polygon, x):
    """No part of a ring runs along a line of constant x."""
    for part in shapely.get_parts(polygon):
        for outline in (part.exterior, *part.interiors):
            corners = np.asarray(outline.coords)
            on_edge = np.abs(corners[:, 0] - x) < 1e-3
            assert not np.any(on_edge[1:] & on_edge[:-1] & (np.diff(corners[:, 1]) != 0))


def test_no_wall_of_the_raster_stands_on_a_tile_edge(tmp_path):
    pair = {
        WEST: houses(house(ring(E - 60, 10, E + 64, 90), id=5)),
        EAST: houses(house(ring(-60, 10, 80, 90), id=5)),
    }
    town = VectorMap(read_vector_tiles(write(tmp_path / "town.pmtiles", pair)))
    bounds = mercantile.bounds(*EAST, ZOOM)
    frame = LocalFrame(bounds.north, bounds.west)
    raster = town(MapGrid.around(frame, 0, -20, radius_m=40, cell_m=0.5))
    row, col = raster.grid.cell_of(0, -20)
    inside = np.s_[row - 8 : row + 8, col - 20 : col + 20]
    assert raster.class_mask("building")[inside].all()
    assert not raster.class_mask("building_outline")[inside].any()
    assert raster.class_mask("building_outline").any()


def test_a_pair_of_tiles_that_gdal_cut_is_one_house(tmp_path):
    """GDAL wrote the archive: its tiles have buffers, and its features no ids."""
    edge = mercantile.bounds(*EAST, ZOOM)
    lat_deg = (edge.south + edge.north) / 2
    wall = shapely.box(edge.west - 4e-4, lat_deg, edge.west + 6e-4, lat_deg + 3e-4)
    path = tmp_path / "gdal.pmtiles"
    geopandas.GeoDataFrame({"building": ["yes"]}, geometry=[wall], crs=4326).to_file(
        path, driver="PMTiles", MINZOOM=ZOOM, MAXZOOM=ZOOM, layer="houses"
    )
    (row,) = read_vector_tiles(path).table.itertuples()
    assert row.tags == {"building": "yes"}
    unit_deg = (edge.east - edge.west) / E
    assert shapely.hausdorff_distance(row.geometry, wall) < 2 * unit_deg
    (in_tile_units,) = in_units(read_vector_tiles(path).table).geometry
    assert_no_wall_on(in_tile_units, E)


def test_lines_end_at_tile_edges_and_meet_there(read):
    road = {"highway": "service"}
    pair = {
        WEST: {"roads": [feature("line", [[(E - 50, 10), (E + 50, 10)]], road, id=3)]},
        EAST: {"roads": [feature("line", [[(-50, 10), (50, 10)]], road, id=3)]},
    }
    lines = read(pair).geometry
    assert [line.length for line in lines] == pytest.approx([50, 50], abs=1e-4)
    assert lines[0].distance(lines[1]) < 1e-4


def test_points_in_the_buffer_belong_to_the_other_tile(read):
    bench = {"amenity": "bench"}
    pair = {
        WEST: {"pois": [feature("point", [[(E + 8, 10)]], bench)]},
        EAST: {"pois": [feature("point", [[(8, 10)]], bench)]},
    }
    assert len(read(pair)) == 1


# ---------------------------------------------------------------- what the map says


def test_extent_attribution_and_surveyed_are_those_of_the_tiles(tmp_path):
    layers = {
        **houses(house(ring(0, 0, 9, 9))),
        "roads": [feature("line", [[(0, 5), (90, 5)]], {"highway": "service"})],
    }
    path = write(tmp_path / "town.pmtiles", {WEST: layers}, attribution="<b>©</b> OSM")
    features = read_vector_tiles(path)
    assert features.extent == pytest.approx(box_of(WEST), abs=1e-7)
    assert features.attribution == "© OSM"
    assert features.surveyed == {"building", "building_outline", "road"}
    for legend in ("crossview", "orienternet"):
        assert VectorMap(features, legend=legend).surveyed == features.surveyed


def test_the_mask_of_an_extract_is_not_mapped(tmp_path):
    layers = {
        **houses(house(ring(9, 9, 99, 99))),
        "mask": [house(ring(E // 2, -64, E + 64, E + 64))],
    }
    path = write(
        tmp_path / "town.pmtiles", {WEST: layers, EAST: {"mask": [house(ring(0, 0, E, E))]}}
    )
    features = read_vector_tiles(path)
    west, south, east, north = box_of(WEST, EAST)
    beyond = shapely.box(west + (east - west) / 4, south, east, north)
    assert features.unmapped.symmetric_difference(beyond).area < 1e-12
    with pytest.raises(MapOutsideError, match="cut out along a border"):
        read_vector_tiles(path, box_of(EAST))


def test_a_box_reads_its_tiles_only(tmp_path):
    path = write(
        tmp_path / "town.pmtiles",
        {
            WEST: houses(house(ring(9, 9, 99, 99), id=1)),
            EAST: houses(house(ring(9, 9, 99, 99), id=2)),
        },
    )
    west, south, east, north = box_of(EAST)
    part = read_vector_tiles(path, GeoBounds(west + 1e-5, south, east + 1, north))
    assert part.table["osm_id"].tolist() == [2]
    assert part.extent == pytest.approx((west + 1e-5, south, east, north), abs=1e-7)


def test_a_box_beside_the_tiles_is_an_error(tmp_path):
    path = write(tmp_path / "town.pmtiles", {WEST: houses(house(ring(9, 9, 99, 99)))})
    with pytest.raises(MapOutsideError, match="lies outside of it"):
        read_vector_tiles(path, GeoBounds(12, 43, 12.1, 43.1))


def test_a_country_of_tiles_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_tiles, "MAX_TILES", 3)
    corners = {place: houses(house(ring(9, 9, 99, 99))) for place in (WEST, SOUTH_EAST)}
    path = write(tmp_path / "town.pmtiles", corners)
    with pytest.raises(MapError, match=r"has \d tiles of zoom 14.*up to 3.*smaller area"):
        read_vector_tiles(path)
    west, south, east, north = box_of(WEST)
    inside = GeoBounds(west + 1e-4, south + 1e-4, east - 1e-4, north - 1e-5)
    assert len(read_vector_tiles(path, inside).table) == 1


# ---------------------------------------------------------------- bad input

BAD_COMMAND = fake.field(1, b"buildings") + fake.field(
    2, fake.field(3, 3) + fake.field(4, b"\x0b\x02\x02")
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff" * 40, "cannot be read"),
        (fake.field(3, fake.layer("buildings", [], units=8192)), "tiles of 8192 units"),
        (fake.field(3, BAD_COMMAND), "command 3"),
        (fake.field(3, fake.field(2, fake.field(2, b"\x00\x07") + fake.field(3, 3))), "cannot be"),
        (b"\x1a\xff\x01", "cut off"),
        (b"", "no map feature"),
    ],
)
def test_a_damaged_tile_is_a_clear_error(tmp_path, content, reason):
    path = tmp_path / "town.pmtiles"
    path.write_bytes(fake.archive({WEST: content}, box=box_of(WEST), zoom=ZOOM))
    with pytest.raises(MapError, match=reason):
        read_vector_tiles(path)


def test_flipped_bytes_are_clear_errors_or_other_maps(tmp_path):
    layers = houses(house(ring(E - 30, 10, E + 20, 40), ring(3, 3, 5, 5)[::-1], height=4.5))
    tile = fake.tile(layers | {"roads": [feature("line", [[(0, 5), (90, 5)]], {"highway": "x"})]})
    path = tmp_path / "town.pmtiles"
    rng = np.random.default_rng(4)
    num_errors = 0
    for _ in range(300):
        broken = bytearray(tile)
        broken[rng.integers(len(tile))] = rng.integers(256)
        path.write_bytes(fake.archive({WEST: bytes(broken)}, box=box_of(WEST), zoom=ZOOM))
        try:
            read_vector_tiles(path)
        except MapError:
            num_errors += 1
    assert 0 < num_errors < 300


# ---------------------------------------------------------------- Florence


@pytest.fixture(scope="module")
def florence(data_dir):
    return read_vector_tiles(data_dir / "osm" / "firenze.pmtiles")


@pytest.mark.slow
def test_florence_has_every_building_once_and_whole(data_dir, florence):
    """GDAL cuts the same tiles and puts nothing together: same area, fewer pieces, no seams."""
    path = data_dir / "osm" / "firenze.pmtiles"
    pieces = geopandas.read_file(path, layer="buildings").to_crs(4326)
    is_building = [not {"building", "building:part"}.isdisjoint(t) for t in florence.table["tags"]]
    whole = florence.table[np.array(is_building) & (florence.table["kind"] == "area")]
    assert len(whole) == pieces["mvt_id"].nunique() < len(pieces)
    assert not whole["osm_id"].duplicated().any()
    area = [shapely.area(in_units(table).geometry.to_numpy()).sum() for table in (whole, pieces)]
    assert area[0] == pytest.approx(area[1], rel=1e-5)
    # what stays on tile edges lies on the rim of the archive, or really stands there
    assert on_tile_edges(whole) < 0.003 * on_tile_edges(pieces)


@pytest.mark.slow
def test_beyond_the_border_of_florence_is_an_error_and_no_empty_map(florence):
    town = VectorMap(florence)
    cathedral = LocalFrame(43.7731, 11.2560)
    raster = town(MapGrid.around(cathedral, 0, 0, radius_m=128, cell_m=0.5))
    assert raster.covered.all()
    assert raster.class_mask("building").mean() > 0.4
    with pytest.raises(MapOutsideError, match="cut out along a border"):
        town(MapGrid.around(LocalFrame(43.737, 11.157), 0, 0, radius_m=128, cell_m=0.5))


def on_tile_edges(table):
    """Length of all walls on tile edges, in units."""
    length = 0.0
    for polygon in in_units(table).explode(ignore_index=True).geometry:
        for outline in (polygon.exterior, *polygon.interiors):
            corners = np.asarray(outline.coords)
            on_edge = np.abs(corners / E - np.round(corners / E)) * E < 0.01
            runs = on_edge[1:] & on_edge[:-1]
            length += np.abs(np.diff(corners, axis=0))[runs[:, ::-1]].sum()
    return length
