import bz2
import gzip
import itertools
import logging

import numpy as np
import pandas as pd
import pytest
import shapely
from fakes.osm_files import OsmXml
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import osm
from crossview.errors import MapError, MapOutsideError
from crossview.frames import LocalFrame
from crossview.osm import read_osm
from crossview.tiles import GeoBounds

FRAME = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
HOUSE = {"building": "yes"}
LAKE = {"type": "multipolygon", "natural": "water"}


@pytest.fixture
def town():
    return OsmXml(FRAME)


@pytest.fixture
def read(town, tmp_path):
    """The table of the town, in metres, indexed by (osm_type, osm_id)."""

    def table(**options):
        return in_metres(read_osm(town.write(tmp_path / "town.osm", **options)).table)

    return table


def in_metres(table):
    table = table.set_geometry(
        shapely.transform(
            table.geometry.to_numpy(),
            lambda lonlat: np.column_stack(FRAME.to_local(lonlat[:, 1], lonlat[:, 0])),
        )
    )
    return table.set_index(["osm_type", "osm_id"])


def assert_same_area(polygon, expected, tolerance_m=0.02):
    assert polygon.is_valid
    assert polygon.symmetric_difference(expected).area < tolerance_m * expected.length


def test_building_is_an_area_with_its_tags_and_height(town, read):
    way = town.box(0, 0, 20, 10, {"building": "house", "height": "7 m", "min_height": "2"})
    row = read().loc["way", way]
    assert row["kind"] == "area"
    assert row["tags"] == {"building": "house", "height": "7 m", "min_height": "2"}
    assert (row["height_m"], row["min_height_m"]) == (7.0, 2.0)
    assert_same_area(row.geometry, shapely.box(0, 0, 20, 10))


def test_height_is_nan_where_unknown(town, read):
    way = town.box(0, 0, 20, 10, {"building": "yes", "height": "high"})
    assert np.isnan(read().loc[("way", way), "height_m"])


def test_tree_is_a_point_and_street_a_line(town, read):
    tree = town.node(3, 4, {"natural": "tree"})
    street = town.way([(0, 0), (50, 0), (50, 30)], {"highway": "residential"})
    table = read()
    assert table.loc[("node", tree), "kind"] == "point"
    assert shapely.get_coordinates(table.loc["node", tree].geometry)[0] == approx([3, 4], abs=0.02)
    assert table.loc[("way", street), "kind"] == "line"
    assert table.loc["way", street].geometry.length == approx(80, abs=0.05)


def test_elements_that_no_legend_wants_are_not_kept(town, read):
    town.box(0, 0, 20, 10, HOUSE)
    town.node(1, 1, {"addr:housenumber": "7"})
    town.way([(0, 0), (1, 1)], {"boundary": "administrative"})
    assert len(read()) == 1


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"highway": "residential", "junction": "roundabout"}, "line"),
        ({"barrier": "wall"}, "line"),
        ({"highway": "pedestrian", "area": "yes"}, "area"),
        ({"barrier": "hedge", "area": "yes"}, "area"),
        ({"building": "yes", "area": "no"}, "line"),
    ],
)
def test_closed_highways_and_barriers_are_lines_unless_area_is_yes(town, read, tags, kind):
    way = town.box(0, 0, 20, 10, tags)
    assert read().loc[("way", way), "kind"] == kind


def test_multipolygon_has_its_hole(town, read):
    outer, inner = town.box(0, 0, 40, 40), town.box(10, 10, 30, 30)
    relation = town.relation([(outer, "outer"), (inner, "inner")], LAKE)
    table = read()
    expected = shapely.box(0, 0, 40, 40) - shapely.box(10, 10, 30, 30)
    assert_same_area(table.loc["relation", relation].geometry, expected)
    assert len(table) == 1


def test_multipolygon_has_islands_in_its_holes(town, read):
    rings = [town.box(-d, -d, d, d) for d in (40, 30, 20)]
    members = list(zip(rings, ("outer", "inner", "outer"), strict=True))
    relation = town.relation(members, LAKE)
    expected = shapely.box(-40, -40, 40, 40) - shapely.box(-30, -30, 30, 30)
    expected |= shapely.box(-20, -20, 20, 20)
    assert_same_area(read().loc["relation", relation].geometry, expected)


def test_multipolygon_may_have_several_outer_rings(town, read):
    rings = [town.box(0, 0, 10, 10), town.box(20, 0, 30, 10)]
    relation = town.relation([(ring, "outer") for ring in rings], LAKE)
    expected = shapely.box(0, 0, 10, 10) | shapely.box(20, 0, 30, 10)
    assert_same_area(read().loc["relation", relation].geometry, expected)


def test_inner_rings_may_touch_each_other(town, read):
    outer = town.box(0, 0, 40, 40)
    a, b, c = town.node(10, 10), town.node(20, 10), town.node(30, 10)
    d, e, f = town.node(30, 30), town.node(20, 30), town.node(10, 30)
    inner = [town.ring([a, b, e, f]), town.ring([b, c, d, e])]
    relation = town.relation([(outer, "outer"), *((ring, "inner") for ring in inner)], LAKE)
    expected = shapely.box(0, 0, 40, 40) - shapely.box(10, 10, 30, 30)
    assert_same_area(read().loc["relation", relation].geometry, expected)


def test_wrong_and_missing_roles_do_not_fill_the_hole(town, read):
    outer, inner = town.box(0, 0, 40, 40), town.box(10, 10, 30, 30)
    relation = town.relation([(outer, "inner"), (inner, "")], LAKE)
    expected = shapely.box(0, 0, 40, 40) - shapely.box(10, 10, 30, 30)
    assert_same_area(read().loc["relation", relation].geometry, expected)


def test_a_hole_that_crosses_its_outer_ring_is_cut_by_the_even_odd_rule(town, read):
    outer, inner = town.box(0, 0, 20, 20), town.box(10, 5, 30, 15)
    relation = town.relation([(outer, "outer"), (inner, "inner")], LAKE)
    expected = shapely.box(0, 0, 20, 20) ^ shapely.box(10, 5, 30, 15)
    assert_same_area(read().loc["relation", relation].geometry, expected)


@given(st.data())
def test_rings_do_not_depend_on_how_they_are_cut_into_ways(tmp_path_factory, data):
    corners = [(0, 0), (30, 0), (30, 10), (10, 10), (10, 20), (30, 20), (30, 30), (0, 30)]
    hole = [(3, 12), (6, 12), (6, 18), (3, 18)]
    town = OsmXml(FRAME)
    pieces = []
    for ring in (corners, hole):
        refs = [town.node(*corner) for corner in ring]
        first = data.draw(st.integers(0, len(refs) - 1))
        refs = refs[first:] + refs[: first + 1]
        cuts = data.draw(st.sets(st.integers(1, len(refs) - 2)))
        ends = [0, *sorted(cuts), len(refs) - 1]
        pieces += [refs[a : b + 1] for a, b in itertools.pairwise(ends)]
    pieces = [piece[::-1] if data.draw(st.booleans()) else piece for piece in pieces]
    pieces = data.draw(st.permutations(pieces))
    relation = town.relation([(town.way(piece), "outer") for piece in pieces], LAKE)
    path = town.write(tmp_path_factory.mktemp("rings") / "town.osm")
    polygon = in_metres(read_osm(path).table).loc["relation", relation].geometry
    assert_same_area(polygon, shapely.Polygon(corners, [hole]))


def test_rings_that_share_two_ends_are_told_apart(town, read):
    p, q = town.node(0, 0), town.node(20, 0)
    ways = [
        town.way([p, (10, 30), q]),
        town.way([q, (10, -30), p]),
        town.way([p, (10, 10), q]),
        town.way([q, (10, -10), p]),
    ]
    relation = town.relation([(way, "outer") for way in ways], LAKE)
    diamond = shapely.Polygon([(0, 0), (10, 30), (20, 0), (10, -30)])
    hole = shapely.Polygon([(0, 0), (10, 10), (20, 0), (10, -10)])
    assert_same_area(read().loc["relation", relation].geometry, diamond - hole)


@given(st.permutations(range(4)))
def test_a_courtyard_that_touches_the_wall_at_one_node_stays_open(tmp_path_factory, order):
    town = OsmXml(FRAME)
    p, q, r = town.node(0, 0), town.node(100, 100), town.node(40, 40)
    ways = [
        town.way([p, (100, 0), q]),
        town.way([q, (0, 100), p]),
        town.way([p, (40, 0.5), r]),
        town.way([r, (0.5, 40), p]),
    ]
    relation = town.relation([(ways[i], "outer") for i in order], LAKE)
    path = town.write(tmp_path_factory.mktemp("touching") / "town.osm")
    features = read_osm(path)
    polygon = in_metres(features.table).loc["relation", relation].geometry
    courtyard = shapely.Polygon([(0, 0), (40, 0.5), (40, 40), (0.5, 40)])
    assert_same_area(polygon, shapely.box(0, 0, 100, 100) - courtyard)
    assert not features.skipped


def test_one_ring_through_a_node_twice_bounds_its_courtyard(town, read):
    p = town.node(0, 0)
    once, again = [(100, 0), (100, 100), (0, 100)], [(40, 5), (40, 40), (5, 40)]
    relation = town.relation([(town.way([p, *once, p, *again, p]), "outer")], LAKE)
    expected = shapely.box(0, 0, 100, 100) - shapely.Polygon([(0, 0), *again])
    assert_same_area(read().loc["relation", relation].geometry, expected)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_way_that_leads_nowhere_does_not_open_the_ring_it_starts_from(town, tmp_path, order):
    p, q = town.node(0, 0), town.node(20, 20)
    ways = [town.way([p, (20, 0), q]), town.way([q, (0, 20), p]), town.way([q, (60, 60)])]
    relation = town.relation([(ways[i], "outer") for i in order], LAKE)
    features = read_osm(town.write(tmp_path / "town.osm"))
    polygon = in_metres(features.table).loc["relation", relation].geometry
    assert_same_area(polygon, shapely.box(0, 0, 20, 20))
    assert features.skipped == {"relations with open rings or missing members": 1}


def test_relation_without_tags_is_no_feature_and_no_crash(town, read):
    way = town.box(0, 0, 20, 10, HOUSE)
    town.relation([(way, "outer")])
    assert read().index.tolist() == [("way", way)]


def test_untagged_multipolygon_takes_the_tags_of_its_outer_way_and_replaces_it(town, read):
    outer, inner = town.box(0, 0, 40, 40, {**HOUSE, "height": "9"}), town.box(10, 10, 30, 30)
    members = [(outer, "outer"), (inner, "inner")]
    relation = town.relation(members, {"type": "multipolygon", "source": "survey"})
    table = read()
    assert table.index.tolist() == [("relation", relation)]
    assert table["tags"].iat[0]["building"] == "yes"
    assert table["height_m"].iat[0] == 9
    assert_same_area(table.geometry.iat[0], shapely.box(0, 0, 40, 40) - shapely.box(10, 10, 30, 30))


def test_untagged_multipolygon_leaves_the_tags_of_its_inner_ways_to_them(town, read):
    outer = town.box(0, 0, 40, 40, HOUSE)
    inner = town.box(10, 10, 30, 30, {"landuse": "grass"})
    relation = town.relation([(outer, "outer"), (inner, "inner")], {"type": "multipolygon"})
    table = read()
    assert set(table.index) == {("relation", relation), ("way", inner)}
    assert "landuse" not in table.loc[("relation", relation), "tags"]


def test_inner_way_that_has_the_tags_of_the_relation_stays(town, read):
    outer = town.box(0, 0, 40, 40)
    inner = town.box(10, 10, 30, 30, HOUSE)
    relation = town.relation(
        [(outer, "outer"), (inner, "inner")], {"type": "multipolygon", **HOUSE}
    )
    assert set(read().index) == {("relation", relation), ("way", inner)}


def test_outer_way_that_repeats_the_relation_does_not_fill_its_hole(town, read):
    outer, inner = town.box(0, 0, 40, 40, HOUSE), town.box(10, 10, 30, 30)
    relation = town.relation(
        [(outer, "outer"), (inner, "inner")], {"type": "multipolygon", **HOUSE, "name": "Palace"}
    )
    assert read().index.tolist() == [("relation", relation)]


def test_members_with_other_tags_than_the_relation_stay(town, read):
    outer = town.box(0, 0, 40, 40, {"barrier": "wall"})
    inner = town.box(10, 10, 30, 30, HOUSE)
    relation = town.relation(
        [(outer, "outer"), (inner, "inner")], {"type": "multipolygon", "leisure": "park"}
    )
    expected = {("relation", relation), ("way", outer), ("way", inner)}
    assert set(read().index) == expected


def test_way_and_relation_with_the_same_id_are_both_read(town, read):
    ring = town.box(100, 100, 120, 120, id=8)
    town.box(0, 0, 20, 10, HOUSE, id=7)
    town.relation([(ring, "outer")], LAKE, id=7)
    table = read()
    assert set(table.index) == {("way", 7), ("relation", 7)}
    assert table.loc["way", 7].geometry.centroid.x == approx(10, abs=0.05)
    assert table.loc["relation", 7].geometry.centroid.x == approx(110, abs=0.05)


def test_line_is_cut_where_a_node_is_missing(town, tmp_path, caplog):
    a, b, d, e = (town.node(x, 0) for x in (0, 10, 30, 40))
    street = town.way([a, b, 999, d, e], {"highway": "residential"})
    with caplog.at_level(logging.WARNING):
        features = read_osm(town.write(tmp_path / "town.osm"))
    line = in_metres(features.table).loc["way", street].geometry
    parts = np.stack([shapely.get_coordinates(part) for part in line.geoms])
    assert parts == approx(np.array([[(0, 0), (10, 0)], [(30, 0), (40, 0)]]), abs=0.02)
    assert features.skipped == {"ways with missing nodes": 1}
    assert "1 ways with missing nodes" in caplog.text


def test_area_with_a_missing_node_is_dropped_and_counted(town, tmp_path):
    a, b, c = town.node(0, 0), town.node(10, 0), town.node(10, 10)
    town.way([a, b, c, 999, a], HOUSE)
    town.node(5, 5, {"natural": "tree"})
    features = read_osm(town.write(tmp_path / "town.osm"))
    assert features.table["kind"].tolist() == ["point"]
    assert features.skipped == {"ways with missing nodes": 1}


def test_relation_with_a_missing_member_keeps_the_rings_that_close(town, tmp_path):
    outer = town.box(0, 0, 10, 10)
    open_way = town.way([(20, 0), (30, 0), (30, 10)])
    members = [(outer, "outer"), (open_way, "outer"), (999, "outer")]
    relation = town.relation(members, LAKE)
    features = read_osm(town.write(tmp_path / "town.osm"))
    polygon = in_metres(features.table).loc["relation", relation].geometry
    assert_same_area(polygon, shapely.box(0, 0, 10, 10))
    assert features.skipped == {"relations with open rings or missing members": 1}


def test_self_intersecting_building_is_repaired_to_polygons(town, read):
    way = town.ring([(0, 0), (20, 20), (20, 0), (0, 20)], HOUSE)
    expected = shapely.union_all(
        [
            shapely.Polygon([(0, 0), (10, 10), (0, 20)]),
            shapely.Polygon([(20, 0), (10, 10), (20, 20)]),
        ]
    )
    assert_same_area(read().loc["way", way].geometry, expected)


def test_spike_of_a_building_is_cut_off(town, read):
    way = town.ring([(0, 0), (20, 0), (20, 10), (10, 10), (10, 30), (10, 10), (0, 10)], HOUSE)
    polygon = read().loc["way", way].geometry
    assert polygon.geom_type == "Polygon"
    assert_same_area(polygon, shapely.box(0, 0, 20, 10))


def test_building_without_an_inside_is_dropped_and_counted(town, tmp_path):
    town.ring([(0, 0), (10, 0), (20, 0)], HOUSE)
    town.node(5, 5, {"natural": "tree"})
    features = read_osm(town.write(tmp_path / "town.osm"))
    assert features.table["kind"].tolist() == ["point"]
    assert features.skipped == {"collapsed areas": 1}


def test_relation_without_an_inside_is_dropped_and_counted(town, tmp_path):
    a, b = town.node(0, 0), town.node(20, 0)
    there, again = town.way([a, (10, 5), b]), town.way([a, (10, 5), b])
    town.relation([(there, "outer"), (again, "outer")], LAKE)
    town.node(5, 5, {"natural": "tree"})
    features = read_osm(town.write(tmp_path / "town.osm"))
    assert features.table["kind"].tolist() == ["point"]
    assert features.skipped == {"collapsed areas": 1}


def test_ways_of_one_node_or_none_are_counted(town, tmp_path):
    town.way([], {"highway": "path"})
    town.way([(0, 0)], {"highway": "path"})
    town.node(5, 5, {"natural": "tree"})
    features = read_osm(town.write(tmp_path / "town.osm"))
    assert features.skipped == {"ways of less than two places": 2}


def test_deleted_elements_are_left_out(town, tmp_path):
    town.box(0, 0, 20, 10, HOUSE)
    gone = town.box(50, 0, 70, 10, HOUSE)
    path = tmp_path / "town.osm"
    path.write_text(town.text().replace(f'<way id="{gone}"', f'<way id="{gone}" visible="false"'))
    assert len(read_osm(path).table) == 1


def test_nodes_may_come_after_ways(town, read):
    way = town.box(0, 0, 20, 10, HOUSE)
    relation = town.relation([(town.box(30, 0, 40, 10), "outer")], LAKE)
    table = read(order=("relation", "way", "node"))
    assert_same_area(table.loc["way", way].geometry, shapely.box(0, 0, 20, 10))
    assert_same_area(table.loc["relation", relation].geometry, shapely.box(30, 0, 40, 10))


def test_ids_may_be_negative_and_unsorted(town, read):
    corners = [town.node(x, y, id=-i) for i, (x, y) in enumerate([(0, 0), (9, 0), (9, 9)], start=1)]
    town.ring(corners, HOUSE, id=-5)
    town.ring(corners[::-1], HOUSE, id=9)
    town.ring(corners, HOUSE, id=3)
    table = read()
    assert {i for _, i in table.index} == {-5, 9, 3}
    for polygon in table.geometry:
        assert_same_area(polygon, shapely.Polygon([(0, 0), (9, 0), (9, 9)]))


def test_openstreetmap_names_its_contributors(town, tmp_path):
    town.box(0, 0, 20, 10, HOUSE)
    features = read_osm(town.write(tmp_path / "town.osm"))
    assert features.attribution == "© OpenStreetMap contributors"


def test_extent_is_what_the_header_states(tmp_path):
    town = OsmXml(FRAME, bounds=(149.12, -35.29, 149.14, -35.27))
    town.box(0, 0, 20, 10, HOUSE)
    extent = read_osm(town.write(tmp_path / "town.osm")).extent
    assert extent == approx(GeoBounds(149.12, -35.29, 149.14, -35.27), abs=1e-7)


def test_extent_without_a_header_leaves_out_what_sticks_out(town, tmp_path):
    town.box(-100, -50, -90, -40, HOUSE)
    town.box(90, 40, 100, 50, HOUSE)
    town.way([(0, 0), (5000, 0)], {"highway": "primary"})
    extent = read_osm(town.write(tmp_path / "town.osm")).extent
    assert FRAME.to_local(extent.south, extent.west) == approx((-100, -50), abs=0.02)
    assert FRAME.to_local(extent.north, extent.east) == approx((100, 50), abs=0.02)


def test_compressed_files_and_pbf_hold_the_same_map(town, tmp_path):
    import osmium

    town.box(0, 0, 20, 10, HOUSE)
    outer, inner = town.box(0, 50, 40, 90), town.box(10, 60, 30, 80)
    town.relation([(outer, "outer"), (inner, "inner")], LAKE)
    town.node(1, 1, {"natural": "tree"})
    plain = town.write(tmp_path / "town.osm")
    (tmp_path / "town.osm.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "town.osm.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    with osmium.SimpleWriter(str(tmp_path / "town.osm.pbf")) as writer:
        for element in osmium.FileProcessor(str(plain)):
            writer.add(element)
    expected = read_osm(plain).table
    assert len(expected) == 3
    for suffix in (".gz", ".bz2", ".pbf"):
        table = read_osm(tmp_path / f"town.osm{suffix}").table
        assert table.drop(columns="geometry").equals(expected.drop(columns="geometry"))
        assert table.geometry.geom_equals_exact(expected.geometry, 1e-9).all()


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(MapError, match=r"no map file .*nowhere\.osm"):
        read_osm(tmp_path / "nowhere.osm")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.osm", b""),
        ("empty.osm.pbf", b""),
        ("page.osm", b"<html><body>Too many requests</body></html>"),
        ("text.osm", b"{}"),
        ("text.osm.gz", b"no gzip"),
        ("text.osm.pbf", b"no protocol buffers" * 10),
        ("map.txt", b"<osm/>"),
    ],
)
def test_file_that_is_not_openstreetmap_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MapError, match=r"cannot be read as OpenStreetMap.*\.osm\.gz.*download"):
        read_osm(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".pbf"])
def test_truncated_file_is_an_error(tmp_path, suffix):
    import osmium

    town = OsmXml(FRAME)
    for i in range(200):
        town.box(i, 0, i + 1, 1 + i % 7, {**HOUSE, "name": f"house {i * 7919 % 1000}"})
    plain = town.write(tmp_path / "whole.osm")
    whole = tmp_path / f"town.osm{suffix}"
    if suffix == ".pbf":
        with osmium.SimpleWriter(str(whole)) as writer:
            for element in osmium.FileProcessor(str(plain)):
                writer.add(element)
    else:
        compress = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
        whole.write_bytes(compress(plain.read_bytes()))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(MapError, match="complete file"):
        read_osm(whole)


def test_map_without_features_is_an_error(town, tmp_path):
    town.node(0, 0, {"addr:street": "Nowhere Lane"})
    with pytest.raises(MapError, match="holds no map feature"):
        read_osm(town.write(tmp_path / "town.osm"))


# Ways with a building tag as in the folder's list; relations that stand for such ways replace them.
REAL_MAPS = {
    "monaco.osm.gz": {"building": 962, "highway": 866},
    "north-bayreuth.osm.gz": {"building": 4267, "highway": 2056},
    "neukolln.osm.gz": {"building": 126, "highway": 211},
    "manhattan_west_village.osm.pbf": {"building": 1520},
    "vancouver_downtown.osm.gz": {"building": 3103, "highway": 1262},
}


@pytest.mark.parametrize("name", REAL_MAPS)
def test_real_extracts_keep_all_buildings_and_highways(data_dir, name):
    import osmium

    path = data_dir / "osm" / name
    features = read_osm(path)
    read = set(features.table["osm_id"][features.table["osm_type"] == "way"])
    replaced = {
        member.ref
        for relation in osmium.FileProcessor(str(path), osmium.osm.RELATION)
        if relation.tags.get("type") == "multipolygon"
        for member in relation.members
    }
    for key, number in REAL_MAPS[name].items():
        ids = {way.id for way in osmium.FileProcessor(str(path), osmium.osm.WAY) if key in way.tags}
        assert len(ids) == number
        missing = ids - read - replaced
        assert len(missing) <= features.skipped.get("ways with missing nodes", 0)


@pytest.mark.parametrize("name", ["manhattan_west_village.osm.pbf", "monaco.osm.gz"])
def test_relations_are_the_areas_that_libosmium_assembles(data_dir, name):
    import osmium

    path = data_dir / "osm" / name
    table = read_osm(path).table
    ours = table[table["osm_type"] == "relation"].set_index("osm_id").geometry
    wkb = osmium.geom.WKBFactory()
    compared = 0
    for area in osmium.FileProcessor(str(path)).with_areas():
        if area.is_area() and not area.from_way() and area.orig_id() in ours.index:
            try:
                theirs = shapely.from_wkb(wkb.create_multipolygon(area))
            except RuntimeError:  # rings that cross: libosmium gives up, we repair
                continue
            polygon = ours.loc[area.orig_id()]
            assert polygon.symmetric_difference(theirs).area < 1e-6 * theirs.area
            compared += 1
    assert compared >= 5


def test_north_bayreuth_has_the_extent_of_its_header(data_dir):
    extent = read_osm(data_dir / "osm" / "north-bayreuth.osm.gz").extent
    assert extent == approx(GeoBounds(11.4807, 49.9721, 11.6053, 50.0470), abs=1e-6)


def test_monaco_without_a_header_is_not_stretched_over_the_sea(data_dir):
    extent = read_osm(data_dir / "osm" / "monaco.osm.gz").extent
    assert extent.south > 43.72  # the maritime border lies at 43.51
    assert extent.north == approx(43.752, abs=0.002)


@pytest.mark.parametrize("bounds", [None, (149.1, -35.3, 149.16, -35.26)])
def test_a_box_keeps_what_within_keeps(town, tmp_path, bounds, monkeypatch):
    """Whether the file states its extent, and ways are dropped early, or not."""
    monkeypatch.setattr(osm, "_WAYS_AT_ONCE", 2)
    town.bounds = bounds
    town.box(-400, -400, 400, 400, {"landuse": "forest"})  # around the box
    outer, inner = town.box(-300, -300, 300, 300), town.box(-200, -200, 200, 200)
    town.relation([(outer, "outer"), (inner, "inner")], LAKE)
    for west_m in (-250, -150, -5, 150, 250):
        town.box(west_m, 0, west_m + 10, 10, HOUSE)
        town.node(west_m, -3, {"natural": "tree"})
        town.way([(west_m, -900), (west_m, 900)], {"highway": "residential"})
    path = town.write(tmp_path / "town.osm")
    lat_deg, lon_deg = FRAME.to_geodetic([-100, 260], [-50, 50])
    box = GeoBounds(lon_deg[0], lat_deg[0], lon_deg[1], lat_deg[1])
    ours, expected = read_osm(path, box), read_osm(path).within(box)
    assert ours.extent == expected.extent
    pd.testing.assert_frame_equal(ours.table, expected.table)
    assert len(ours.table) == 1 + 1 + 3 + 3 + 3
    if bounds:
        points, ways = osm._points_and_ways(path, {outer, inner}, box)
        assert (len(points), len(ways)) == (3, 3 + 3 + 1 + 2)
        with pytest.raises(MapError, match="Nothing is mapped"):
            read_osm(path, GeoBounds(149.101, -35.2999, 149.1011, -35.2998))
        with pytest.raises(MapOutsideError, match="lies outside of it"):
            read_osm(path, GeoBounds(9, 47, 10, 48))
