"""Places out of tables, tracks, GeoJSON and photos."""

import json

import pytest
import shapely
from fakes import images
from fakes.geojson import write_geojson
from pytest import approx

from data_tools.points import read_points


def test_points_of_a_csv(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id,Longitude,Latitude\na,-123.12,49.28\nb,,\nc,-123.11,49.29\n")
    found = read_points(path)
    assert found.names == ("a", "c")
    assert found.lat_deg.tolist() == [49.28, 49.29]
    assert found.lon_deg.tolist() == [-123.12, -123.11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lat,lon\n49.2,8.1\n-123.12,49.28\n", "p.csv row 3: .*seem to be swapped"),
        ("lat,lon\n49.2,8.1\n\n91,8.1\n", "p.csv row 4: .*91"),
        ("lat,lon\nnan,8.1\n", "p.csv row 2: "),
        ("lat,lon\n49.28\n", "p.csv row 2: '49.28', '' is not a position"),
        ("lat,lon\n49.28,west\n", "p.csv row 2: .*'west' is not a position"),
        ("x,y\n1,2\n", "has the columns x, y; expected a latitude"),
        ("lat,lon\n", "holds no points"),
        ("", "has the columns none"),
    ],
)
def test_a_table_without_possible_points_is_refused(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_points(path)


def test_points_of_a_gpx_are_waypoints_and_tracks(tmp_path):
    path = tmp_path / "walk.gpx"
    path.write_text(
        '<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1">'
        '<wpt lat="49.28" lon="-123.12"><name>start</name></wpt><trk><trkseg>'
        '<trkpt lat="49.281" lon="-123.121"/><trkpt lat="49.282" lon="-123.122"/>'
        "</trkseg></trk></gpx>"
    )
    found = read_points(path)
    assert found.lat_deg.tolist() == [49.28, 49.281, 49.282]
    assert found.lon_deg.tolist() == [-123.12, -123.121, -123.122]
    assert found.names == ("start", "", "")


def test_points_of_a_geojson_are_points_and_corners_of_lines(tmp_path):
    path = write_geojson(
        tmp_path / "p.geojson",
        shapely.Point(8.0, 50.0),
        shapely.LineString([(8.1, 50.1), (8.2, 50.2)]),
    )
    found = read_points(path)
    assert found.lat_deg.tolist() == [50.0, 50.1, 50.2]


def test_points_of_a_folder_are_those_of_photos_that_have_one(tmp_path):
    (tmp_path / "day").mkdir()
    images.phone_photo(tmp_path / "day" / "a.jpg")
    images.phone_photo(tmp_path / "b.jpg", gps=None)
    found = read_points(tmp_path)
    assert found.names == ("day/a.jpg",)
    assert found.lat_deg[0] == approx(49 + 16 / 60 + 56.47 / 3600)
    assert found.lon_deg[0] == approx(-(123 + 6 / 60 + 52.04 / 3600))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "p.geojson",
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [
                        {
                            "type": "Feature",
                            "properties": {},
                            "geometry": place and {"type": "Point", "coordinates": place},
                        }
                        for place in (None, [8, 50], [50, 98])
                    ],
                }
            ),
            "p.geojson feature 3: Latitude 98",
        ),
        (
            "w.gpx",
            '<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1">'
            '<wpt lat="49" lon="8"/><trk><trkseg><trkpt lat="49" lon="8"/>'
            '<trkpt lat="49" lon="188"/></trkseg></trk></gpx>',
            "w.gpx track point 2: Latitude 49 and longitude 188",
        ),
    ],
)
def test_an_impossible_position_names_its_feature(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / name)


def test_a_gpx_that_is_an_entity_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.gpx"
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    path.write_text(
        f'<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY e0 "bomb">{entities}]>'
        '<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1">'
        '<wpt lat="49" lon="8"><name>&e11;</name></wpt></gpx>'
    )
    with pytest.raises(ValueError, match=r"bomb\.gpx"):
        read_points(path)
