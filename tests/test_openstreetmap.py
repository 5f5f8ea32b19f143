"""Maps from files and servers: one schema, the same features, and clear words when it fails."""

import bz2
import gzip
import socket

import numpy as np
import pytest
import shapely
from fakes import overpass
from fakes.osm_files import OsmXml

from crossview import osm
from crossview.errors import (
    ContentError,
    DownloadError,
    MapError,
    ProviderDownError,
    RefusedError,
)
from crossview.frames import LocalFrame
from crossview.legends import CROSSVIEW, MAP_KEYS
from crossview.tiles import GeoBounds
from data_tools import openstreetmap
from data_tools.areas import geocoded_area
from data_tools.openstreetmap import Server, download_map, read_map

FRAME = LocalFrame(lat_deg=47.14, lon_deg=9.52)
BOUNDS = GeoBounds(9.518, 47.138, 9.524, 47.142)
INCOMPLETE = 999
HTML = (
    "<html><head><title>x</title></head><body><p><strong>Error</strong>: too many</p></body></html>"
)


@pytest.fixture(scope="module")
def extract(tmp_path_factory):
    """Every case of geometry that OpenStreetMap knows, drawn in metres."""
    town = OsmXml(FRAME, bounds=BOUNDS)
    town.box(0, 0, 20, 10, {"building": "house", "height": "7 m", "min_height": "2"})
    outer, inner = town.box(30, 0, 70, 40), town.box(40, 10, 60, 30)
    court = {"type": "multipolygon", "building": "yes", "building:levels": "4"}
    town.relation([(outer, "outer"), (inner, "inner")], court)
    shore = [town.node(x, y) for x, y in ((-90, -90), (-20, -90), (-20, -60), (-90, -60))]
    halves = [town.way(shore[:3]), town.way([shore[2], shore[3], shore[0]])]
    lake = {"type": "multipolygon", "natural": "water"}
    town.relation([(half, "outer") for half in halves], lake)
    wood = town.box(-90, 20, -60, 50, {"landuse": "forest"})
    glade = town.box(-80, 30, -70, 40, {"landuse": "meadow"})
    town.relation(
        [(wood, "outer"), (glade, "inner")], {"type": "multipolygon", "landuse": "forest"}
    )
    town.box(-50, 20, -30, 40, {"highway": "residential", "junction": "roundabout"})
    town.box(-50, -40, -30, -20, {"highway": "pedestrian", "area": "yes"})
    town.box(80, 0, 90, 10, {"barrier": "fence"})
    town.box(80, 20, 90, 30, {"barrier": "hedge", "area": "yes"})
    town.box(80, 40, 90, 50, {"building": "yes", "area": "no"})
    town.box(80, 60, 90, 70, {"leisure": "track"})
    town.way([(-100, -5), (100, -5)], {"highway": "secondary", "name": 'A "B" & <C>\n\tÖ'})
    town.way([(-100, -15), (100, -15)], {"railway": "subway", "layer": "-2", "tunnel": "yes"})
    town.node(5, -8, {"natural": "tree"})
    town.node(15, -8, {"highway": "street_lamp"})
    town.node(16, -8, {"addr:housenumber": "7"})
    incomplete = [(outer, "outer"), (10**9, "inner")]
    town.relation(incomplete, {"type": "multipolygon", "natural": "wood"}, id=INCOMPLETE)
    town.relation([(wood, "")], {"type": "route", "railway": "rail"})
    return town.write(tmp_path_factory.mktemp("extract") / "town.osm")


@pytest.fixture
def server(extract, tmp_path):
    """A Server for the stand-in, and what the stand-in has seen."""
    with overpass.serving(extract) as (url, state):
        yield Server(url, tmp_path / "cache", timeout_s=1, attempts=1), state


def by_identity(table):
    return table.sort_values(["osm_type", "osm_id"], ignore_index=True)


def assert_same_features(ours, theirs):
    ours, theirs = by_identity(ours), by_identity(theirs)
    columns = ["osm_type", "osm_id", "kind", "tags", "min_height_m"]
    assert ours[columns].to_dict("records") == theirs[columns].to_dict("records")
    assert np.array_equal(ours["height_m"], theirs["height_m"], equal_nan=True)
    assert shapely.equals_exact(ours.geometry.to_numpy(), theirs.geometry.to_numpy()).all()


# ---------------------------------------------------------------- the two sources


def test_file_and_server_give_identical_features(extract, server):
    from_file = read_map(extract, BOUNDS).features
    from_server = download_map(BOUNDS, server[0]).features
    assert len(from_file.table) >= 14
    assert set(from_file.table["kind"]) == {"area", "line", "point"}
    assert_same_features(from_server.table, from_file.table)
    assert from_server.extent == from_file.extent == BOUNDS
    assert from_server.attribution == from_file.attribution == osm.ATTRIBUTION


def osmnx_features(path):
    """What osmnx itself makes of a file, with our rules of what is an area applied to it."""
    import osmnx

    table = osmnx.features_from_xml(path, tags=dict.fromkeys(MAP_KEYS, True)).reset_index()
    for row in table.to_dict("records"):
        geometry = row.pop("geometry")
        skip = ("element", "id", "nodes", "ways", "members")
        tags = {k: v for k, v in row.items() if k not in skip and isinstance(v, str)}
        if row["element"] == "way" and geometry.geom_type == "Polygon":
            geometry = (
                geometry if CROSSVIEW.is_area(tags) else shapely.LineString(geometry.exterior)
            )
        elif row["element"] == "way" and geometry.is_ring and CROSSVIEW.is_area(tags):
            geometry = shapely.Polygon(geometry)
        yield (row["element"], row["id"]), tags, geometry


def assert_as_osmnx_has_them(path, *, repeated, incomplete):
    """Our table equals osmnx's, but for outer ways that only repeat their relation (theirs) and
    relations with missing members (ours)."""
    ours = {
        (row.osm_type, row.osm_id): (row.tags, row.geometry)
        for row in osm.read_osm(path).table.itertuples()
    }
    theirs = {place: (tags, geometry) for place, tags, geometry in osmnx_features(path)}
    assert set(theirs) - set(ours) == repeated
    assert set(ours) - set(theirs) == incomplete
    for place in set(ours) & set(theirs):
        (tags, geometry), (their_tags, their_geometry) = ours[place], theirs[place]
        assert tags == their_tags, place
        assert geometry.geom_type == their_geometry.geom_type, place
        assert shapely.equals(geometry, their_geometry), place


def test_osmnx_itself_makes_the_same_of_the_extract(extract):
    forests = {
        ("way", element["id"])
        for element in overpass.elements(extract)
        if element["type"] == "way" and element.get("tags", {}).get("landuse") == "forest"
    }
    assert len(forests) == 1
    incomplete = {("relation", INCOMPLETE)}
    assert_as_osmnx_has_them(extract, repeated=forests, incomplete=incomplete)


def test_osmnx_itself_makes_the_same_of_a_real_town(data_dir, tmp_path):
    path = tmp_path / "neukolln.osm"
    path.write_bytes(gzip.decompress((data_dir / "osm" / "neukolln.osm.gz").read_bytes()))
    incomplete = {("relation", 8100093)}  # a building of which a way is not in the file
    assert_as_osmnx_has_them(path, repeated=set(), incomplete=incomplete)


def test_compressed_files_are_the_same_map(extract, tmp_path):
    content = extract.read_bytes()
    (tmp_path / "town.osm.gz").write_bytes(gzip.compress(content))
    (tmp_path / "town.osm.bz2").write_bytes(bz2.compress(content))
    plain = read_map(extract).features
    for name in ("town.osm.gz", "town.osm.bz2"):
        assert_same_features(read_map(tmp_path / name).features.table, plain.table)
        assert read_map(tmp_path / name).features.source == name


def test_date_of_a_file_is_what_it_says(extract, tmp_path):
    assert read_map(extract).date == ""
    text = extract.read_text(encoding="utf-8")
    dated = text.replace('version="0.6">', 'version="0.6"><meta osm_base="2024-03-30T13:08:30Z"/>')
    assert dated != text
    for name, content in (("a.osm", dated.encode()), ("a.osm.gz", gzip.compress(dated.encode()))):
        (tmp_path / name).write_bytes(content)
        assert read_map(tmp_path / name).date == "2024-03-30T13:08:30Z"


def test_real_extracts_say_their_date_and_licence(data_dir):
    read = read_map(data_dir / "osm" / "neukolln.osm.gz")
    assert (read.date, read.licence) == ("2024-03-30T13:08:30Z", "ODbL-1.0")


# ---------------------------------------------------------------- asking a server


def test_an_answer_is_kept_and_not_asked_for_again(server):
    server, state = server
    first, second = download_map(BOUNDS, server), download_map(BOUNDS, server)
    assert len(state.queries) == 1
    assert_same_features(first.features.table, second.features.table)
    assert first.date == second.date == overpass.DATE
    assert first.licence == "ODbL-1.0"
    download_map(BOUNDS, server, refresh=True)
    download_map(BOUNDS._replace(west=9.5181), server)
    assert len(state.queries) == 3


def test_the_status_of_a_server_of_ones_own_is_not_asked_for(server):
    """Its rate limit may be zero, and osmnx would wait for ever."""
    server, state = server
    download_map(BOUNDS, server)
    assert state.status_reads == 0


def test_the_server_is_asked_for_every_key_of_the_legends_in_the_box(server):
    server, state = server
    download_map(BOUNDS, server)
    (query,) = state.queries
    for key in MAP_KEYS:
        assert f"['{key}']" in query
    corners = {("47.138000", "9.518000"), ("47.142000", "9.524000")}
    words = query.replace("'", " ").split()
    assert all(lat in words and lon in words for lat, lon in corners)
    (agent,) = state.agents
    assert agent.startswith("crossview/")


def test_osmnx_and_the_resolver_are_left_as_they_were(server, tmp_path, monkeypatch):
    import osmnx

    monkeypatch.chdir(tmp_path)
    names = [name for name in vars(osmnx.settings) if not name.startswith("_")]
    before = {name: getattr(osmnx.settings, name) for name in names}
    resolver = socket.getaddrinfo
    download_map(BOUNDS, server[0])
    server[1].faults = [(500, "text/html", HTML)]
    with pytest.raises(DownloadError):
        download_map(BOUNDS, server[0], refresh=True)
    assert {name: getattr(osmnx.settings, name) for name in names} == before
    assert socket.getaddrinfo is resolver
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]  # which the fixture names
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["overpass"]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ((509, "text/html", HTML), RefusedError, r"refuses \(HTTP 509: Error : too many\)"),
        ((403, "text/plain", ""), RefusedError, r"refuses \(HTTP 403\)"),
        ((429, "text/html", HTML), ProviderDownError, r"busy \(HTTP 429.*after 1 attempts"),
        ((504, "text/html", HTML), ProviderDownError, r"busy \(HTTP 504"),
        ((500, "text/html", HTML), ProviderDownError, r"fails \(HTTP 500"),
        ((400, "text/html", HTML), ContentError, r"does not understand.*HTTP 400"),
        ((404, "text/html", HTML), RefusedError, r"refuses \(HTTP 404"),
        ((200, "text/html", HTML), ContentError, r"not JSON: Error : too many"),
        ((200, "application/json", "[]"), ContentError, r"did not answer with OpenStreetMap data"),
        ((200, "application/json", "{}"), ContentError, r"no 'elements'"),
        ((200, "application/json", '{"elements": [{"id": 1}]}'), ContentError, r"no 'type'"),
        (
            (200, "application/json", '{"elements": [{"type": "node", "id": 1}]}'),
            ContentError,
            r"no 'lat'",
        ),
        (
            (200, "application/json", '{"elements": [], "remark": "runtime error: out of memory"}'),
            ContentError,
            r"gave up: runtime error: out of memory",
        ),
        ((200, "application/json", '{"elements": []}'), MapError, r"Nothing is mapped in latitude"),
        ("stall", ProviderDownError, r"takes too long \(ReadTimeout\)"),
    ],
)
def test_errors_of_servers_are_clear(server, fault, error, words):
    server, state = server
    state.faults = [fault]
    with pytest.raises(error, match=words) as caught:
        download_map(BOUNDS, server)
    assert len(state.queries) == 1
    assert "<" not in str(caught.value)
    # nothing of it is kept: the next answer is a good one
    assert len(download_map(BOUNDS, server).features.table) >= 14


def test_a_busy_server_is_asked_again_so_often_and_no_more(server, monkeypatch):
    import osmnx

    pauses_s = []
    monkeypatch.setattr(osmnx._overpass.time, "sleep", pauses_s.append)
    patient, state = Server(server[0].url, server[0].folder, 1, attempts=3), server[1]
    state.faults = [(429, "text/html", HTML)] * 2
    assert len(download_map(BOUNDS, patient).features.table) >= 14
    state.faults = [(429, "text/html", HTML)] * 9
    with pytest.raises(ProviderDownError, match="after 3 attempts"):
        download_map(BOUNDS, patient, refresh=True)
    assert len(state.queries) == 3 + 3
    assert pauses_s.count(55) == 4


def test_a_server_that_is_not_there_is_a_clear_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(f"http://user:secret@127.0.0.1:{port}/api", tmp_path)
    with pytest.raises(ProviderDownError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        download_map(BOUNDS, server)
    assert "secret" not in str(caught.value)


def test_the_public_server_is_not_asked_for_a_country(tmp_path):
    with pytest.raises(ValueError, match=r"has 25,\d+ square kilometres.*Download an extract"):
        download_map(GeoBounds(9, 46, 11, 47.5), Server(folder=tmp_path))


def test_boxes_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="antimeridian"):
        download_map(GeoBounds(179.9, 1, -179.9, 1.01), Server(folder=tmp_path))
    with pytest.raises(ValueError, match="seem to be swapped"):
        download_map(GeoBounds(47.13, 109.51, 47.14, 109.52), Server(folder=tmp_path))


@pytest.mark.parametrize("damage", ["half", "zeros", "plain", "empty"])
def test_a_damaged_answer_in_the_cache_names_the_way_out(server, damage):
    server, state = server
    whole = download_map(BOUNDS, server)
    (path,) = server.folder.rglob("*.osm.gz")
    content = path.read_bytes()
    path.write_bytes(
        {
            "half": content[: len(content) // 2],
            "zeros": content[:40] + bytes(len(content) - 40),
            "plain": b"<osm",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(MapError, match=r"kept in .*\.osm\.gz cannot be used .*--refresh"):
        download_map(BOUNDS, server)
    assert len(state.queries) == 1
    mended = download_map(BOUNDS, server, refresh=True)
    assert len(mended.features.table) == len(whole.features.table)
    assert len(download_map(BOUNDS, server).features.table) == len(whole.features.table)


def test_the_cache_is_where_the_user_wants_it(tmp_path):
    assert openstreetmap.cache_folder({"CROSSVIEW_CACHE": str(tmp_path)}) == tmp_path
    assert openstreetmap.cache_folder({"XDG_CACHE_HOME": "/x"}).parts == ("/", "x", "crossview")
    assert openstreetmap.cache_folder({}).parts[-2:] == (".cache", "crossview")


# ---------------------------------------------------------------- names of places


def vaduz(geometry):
    return {
        "place_id": 1,
        "lat": "47.14",
        "lon": "9.52",
        "display_name": "Vaduz",
        "importance": 0.5,
        "boundingbox": ["47.138", "47.142", "9.518", "9.524"],
        "geojson": geometry,
    }


def test_a_place_is_an_outline_or_the_box_of_a_point(server):
    server, state = server
    geocode = openstreetmap.geocoder(Server(server.url.removesuffix("/api"), server.folder))
    outline = shapely.box(9.51, 47.13, 9.53, 47.15)
    state.places = [vaduz(shapely.geometry.mapping(outline))]
    assert shapely.equals(geocoded_area("Vaduz", geocode).shape, outline)
    state.places = [vaduz({"type": "Point", "coordinates": [9.52, 47.14]})]
    assert geocoded_area("a point", geocode).bounds == BOUNDS
    state.places = []
    with pytest.raises(ValueError, match="No place is called 'nowhere'"):
        geocoded_area("nowhere", geocode)
