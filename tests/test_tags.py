import math

import pytest
from pytest import approx

from crossview import tags


@pytest.mark.parametrize(
    ("text", "expected_m"),
    [
        ("12", 12.0),
        ("12 m", 12.0),
        ("12m", 12.0),
        (" 12.5 metres ", 12.5),
        ("12,5", 12.5),
        (".5", 0.5),
        ("7.", 7.0),
        ("40'", 12.192),
        ("40 ft", 12.192),
        ("40feet", 12.192),
        ("5'10\"", 1.778),
        ("5' 10''", 1.778),
        ("0", 0.0),
    ],
)
def test_length_is_read_in_metres(text, expected_m):
    assert tags.length_m(text) == approx(expected_m)


@pytest.mark.parametrize(
    "text", [None, "", "m", "tall", "~12", "-3", "12;15", "10-12", "1e3", "nan", "inf", "12 km"]
)
def test_what_is_not_one_length_is_nan(text):
    assert math.isnan(tags.length_m(text))


@pytest.mark.parametrize(
    ("given", "expected_m"),
    [
        ({"height": "12"}, 12.0),
        ({"height": "12", "building:levels": "9"}, 12.0),
        ({"height": "unknown", "building:height": "8 m"}, 8.0),
        ({"est_height": "7"}, 7.0),
        ({"building:levels": "4"}, 12.0),
        ({"building:levels": "2,5"}, 7.5),
        ({"building:levels": "4", "roof:height": "2.5"}, 14.5),
        ({"building:levels": "4", "roof:levels": "1"}, 15.0),
        ({"building:levels": "0", "roof:levels": "2"}, 6.0),
        ({"height": "0", "building:levels": "3"}, 9.0),
        ({"height": "15000", "building:levels": "5"}, 15.0),
    ],
)
def test_height_comes_from_the_best_tag(given, expected_m):
    assert tags.height_m(given) == approx(expected_m)


@pytest.mark.parametrize(
    "given", [{}, {"height": "0"}, {"building:levels": "many"}, {"building:levels": "-2"}]
)
def test_height_is_nan_where_the_tags_do_not_tell(given):
    assert math.isnan(tags.height_m(given))


def test_underside_is_on_the_ground_unless_stated():
    assert tags.min_height_m({}) == 0
    assert tags.min_height_m({"min_height": "4.5 m"}) == approx(4.5)
    assert tags.min_height_m({"building:min_level": "2"}) == approx(6.0)


@pytest.mark.parametrize(
    ("given", "expected_m"),
    [
        ({"highway": "residential", "width": "7.5 m", "lanes": "3"}, 7.5),
        ({"highway": "residential", "est_width": "5"}, 5.0),
        ({"highway": "primary", "lanes": "4"}, 13.0),
        ({"highway": "primary", "lanes": "many"}, 9.0),
        ({"highway": "residential", "width": "9999"}, 6.0),
        ({"highway": "primary_link"}, 5.0),
        ({"railway": "tram", "lanes": "2"}, 3.0),
        ({"waterway": "river", "width": "30"}, 30.0),
        ({"waterway": "river"}, 12.0),
        ({"man_made": "pier"}, 3.0),
    ],
)
def test_strip_is_as_wide_as_the_tags_say(given, expected_m):
    assert tags.strip_width_m(given) == approx(expected_m)


@pytest.mark.parametrize(
    ("given", "is_seen"),
    [
        ({}, True),
        ({"layer": "-1"}, False),
        ({"layer": "-1;0"}, True),
        ({"layer": "1"}, True),
        ({"layer": "ground"}, True),
        ({"layer": "-1", "waterway": "river"}, True),
        ({"location": "underground"}, False),
        ({"parking": "underground"}, False),
        ({"tunnel": "yes"}, False),
        ({"tunnel": "culvert", "waterway": "stream"}, False),
        ({"tunnel": "building_passage"}, True),
        ({"tunnel": "no"}, True),
        ({"indoor": "yes"}, False),
        ({"level": "0"}, True),
        ({"level": "1"}, True),
        ({"level": "2"}, False),
        ({"level": "-1"}, False),
        ({"level": "-2;-1"}, False),
        ({"level": "-1-3"}, True),
        ({"level": "2-5"}, False),
        ({"level": "3;0.5"}, True),
        ({"level": "mezzanine"}, True),
    ],
)
def test_seen_is_what_stands_in_the_open_on_the_ground_floor(given, is_seen):
    assert tags.is_visible(given) == is_seen
