import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview import legends
from crossview.legends import CROSSVIEW, MAP_KEYS, ORIENTERNET, Mark


def test_orienternet_has_7_areas_10_ways_and_33_points():
    assert (len(ORIENTERNET.areas), len(ORIENTERNET.ways), len(ORIENTERNET.points)) == (7, 10, 33)


@pytest.mark.parametrize("legend", legends.LEGENDS.values(), ids=legends.LEGENDS)
def test_class_names_are_unique_over_the_channels(legend):
    assert len(legend.names) == len(legend.areas) + len(legend.ways) + len(legend.points)


@pytest.mark.parametrize("legend", legends.LEGENDS.values(), ids=legends.LEGENDS)
def test_buildings_are_an_area_class_of_every_legend(legend):
    assert legend.classify("area", {"building": "yes"}) == ("building", "building_outline")
    assert legend.find("building")[0] == 0


def test_class_id_is_index_plus_one_in_its_channel():
    assert ORIENTERNET.find("building") == (0, 1)
    assert ORIENTERNET.find("water") == (0, 7)
    assert ORIENTERNET.find("building_outline") == (1, 5)
    assert ORIENTERNET.find("tree_row") == (1, 10)
    assert ORIENTERNET.find("tree") == (2, 1)
    assert ORIENTERNET.find("street_cabinet") == (2, 33)


def test_unknown_class_is_an_error_that_lists_the_classes():
    with pytest.raises(ValueError, match=r"'crossview' has no class 'sidewalk'.*road.*wall.*tree"):
        CROSSVIEW.find("sidewalk")


def test_unknown_legend_is_an_error_that_lists_the_legends():
    with pytest.raises(ValueError, match=r"'google'.*orienternet, crossview"):
        legends.legend("google")


@pytest.mark.parametrize(
    ("kind", "tags", "names"),
    [
        ("area", {"building": "church", "amenity": "place_of_worship"}, "building"),
        ("area", {"building": "no"}, "building"),  # any value at all
        ("area", {"amenity": "parking"}, "parking"),
        ("area", {"leisure": "pitch"}, "playground"),
        ("area", {"landuse": "meadow"}, "grass"),
        ("area", {"landcover": "grass"}, "grass"),
        ("area", {"leisure": "garden"}, "park"),
        ("area", {"natural": "wood"}, "forest"),
        ("area", {"waterway": "riverbank"}, "water"),
        ("area", {"amenity": "fountain", "natural": "water"}, "fountain"),  # first key decides
        ("area", {"area:highway": "footway"}, "path"),  # falls through to the ways
        ("area", {"amenity": "restaurant"}, "restaurant"),  # and to the points
        ("line", {"barrier": "fence"}, "fence"),
        ("line", {"barrier": "yes"}, "fence"),
        ("line", {"barrier": "retaining_wall"}, "wall"),
        ("line", {"highway": "footway", "barrier": "kerb"}, "path"),
        ("line", {"highway": "motorway_link"}, "road"),
        ("line", {"highway": "busway"}, "busway"),
        ("line", {"natural": "tree_row"}, "tree_row"),
        ("line", {"barrier": "gate"}, "gate"),  # falls through to the points
        ("point", {"natural": "tree"}, "tree"),
        ("point", {"barrier": "block"}, "stone"),
        ("point", {"highway": "street_lamp"}, "lamp"),
        ("point", {"shop": "anything"}, "shop"),
        ("point", {"amenity": "bank"}, "shop"),
        ("point", {"barrier": "yes"}, "fence"),  # falls through to the ways
        ("point", {"amenity": "disused:bar", "shop": "toys"}, "shop"),  # disused is skipped
    ],
)
def test_orienternet_classes(kind, tags, names):
    expected = (names, "building_outline") if names == "building" else (names,)
    assert ORIENTERNET.classify(kind, tags) == expected


@pytest.mark.parametrize(
    ("kind", "tags", "name"),
    [
        ("area", {"amenity": "parking_space"}, "parking"),
        ("area", {"amenity": "parking_entrance"}, "parking"),
        ("line", {"highway": "services"}, "road"),
        ("line", {"highway": "tertiary_linkage"}, "road"),
        ("point", {"natural": "tree_row"}, "tree"),
        ("point", {"amenity": "barracks"}, "bar"),
        ("point", {"shop": "no"}, "shop"),
    ],
)
def test_orienternet_takes_what_only_starts_like_a_class(kind, tags, name):
    assert ORIENTERNET.classify(kind, tags) == (name,)


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("line", {"highway": "living_street"}),
        ("line", {"building": "yes"}),
        ("line", {"waterway": "river"}),
        ("area", {"landuse": "residential"}),
        ("area", {"building:part": "yes"}),
        ("point", {"entrance": "yes"}),
        ("point", {"amenity": "school", "natural": "tree"}),  # only the first key counts
    ],
)
def test_orienternet_has_no_class_for(kind, tags):
    assert ORIENTERNET.classify(kind, tags) == ()


@pytest.mark.parametrize(
    ("tags", "is_drawn"),
    [
        ({"level": "0"}, True),
        ({"level": "-1,1"}, True),
        ({"level": "2"}, False),
        ({"level": "0-2"}, False),  # not a list of numbers
        ({"layer": "-1"}, False),
        ({"layer": "-1;0"}, True),
        ({"layer": "below"}, True),
        ({"location": "underground"}, False),
        ({"parking": "underground"}, False),
        ({"tunnel": "yes"}, True),
    ],
)
def test_orienternet_drops_other_levels(tags, is_drawn):
    assert bool(ORIENTERNET.classify("area", {"amenity": "parking", **tags})) == is_drawn


def test_orienternet_does_not_look_at_the_layer_of_relations():
    tags = {"building": "yes", "layer": "-1"}
    assert ORIENTERNET.classify("area", tags) == ()
    assert ORIENTERNET.classify("area", {**tags, "type": "multipolygon"})[0] == "building"


@pytest.mark.parametrize(
    ("tags", "is_area"),
    [
        ({"building": "yes"}, True),
        ({"building": "no"}, False),
        ({"area": "yes", "highway": "pedestrian"}, True),
        ({"building": "yes", "area": "no"}, False),
        ({"natural": "water"}, True),
        ({"natural": "scrub"}, False),
        ({"highway": "service", "amenity": "parking"}, True),
        ({"tourism": "hotel"}, False),
    ],
)
def test_orienternet_areas_of_closed_ways(tags, is_area):
    assert ORIENTERNET.is_area(tags) == is_area


@pytest.mark.parametrize(
    ("tags", "is_area"),
    [
        ({"building": "yes"}, True),
        ({"building": "yes", "area": "no"}, False),
        ({"highway": "residential", "junction": "roundabout"}, False),
        ({"highway": "pedestrian"}, False),
        ({"highway": "pedestrian", "area": "yes"}, True),
        ({"highway": "service", "amenity": "parking"}, False),
        ({"highway": "elevator", "building": "yes"}, True),
        ({"highway": "platform"}, True),
        ({"barrier": "fence"}, False),
        ({"barrier": "hedge", "area": "yes"}, True),
        ({"barrier": "fence", "amenity": "school"}, True),
        ({"natural": "scrub"}, True),
        ({"natural": "tree_row"}, False),
        ({"natural": "coastline"}, False),
        ({"leisure": "track"}, False),
        ({"leisure": "pitch"}, True),
        ({"waterway": "riverbank"}, True),
        ({"waterway": "canal"}, False),
        ({"railway": "rail"}, False),
        ({"landuse": "no"}, False),
    ],
)
def test_crossview_areas_of_closed_ways(tags, is_area):
    assert CROSSVIEW.is_area(tags) == is_area


@pytest.mark.parametrize(
    ("kind", "tags", "names"),
    [
        ("line", {"highway": "living_street"}, ("road", "road_axis")),
        ("line", {"highway": "footway"}, ("path", "path_axis")),
        ("area", {"highway": "pedestrian", "area": "yes"}, ("path",)),
        ("area", {"area:highway": "residential"}, ("road",)),
        ("line", {"railway": "tram"}, ("rail", "rail_axis")),
        ("line", {"waterway": "stream"}, ("stream", "stream_axis")),
        ("area", {"building": "house"}, ("building", "building_outline")),
        ("area", {"building:part": "yes"}, ("building", "building_outline")),
        ("area", {"building": "roof"}, ("roof", "roof_outline")),
        ("area", {"building": "no", "amenity": "parking"}, ("parking",)),
        ("area", {"building": "yes", "shop": "toys"}, ("building", "building_outline", "shop")),
        ("area", {"barrier": "wall", "leisure": "park"}, ("park", "wall")),
        ("line", {"barrier": "city_wall"}, ("wall",)),
        ("line", {"highway": "services"}, ()),
        ("line", {"highway": "construction"}, ()),
        ("line", {"highway": "residential", "tunnel": "yes"}, ()),
        ("line", {"landuse": "grass"}, ()),
        ("line", {"building": "yes"}, ()),
        ("point", {"natural": "tree"}, ("tree",)),
        ("point", {"amenity": "barracks"}, ()),
        ("point", {"shop": "no"}, ()),
        ("point", {"traffic_sign": "DE:250", "highway": "stop"}, ("sign",)),
        ("point", {"building": "yes"}, ()),
    ],
)
def test_crossview_classes(kind, tags, names):
    assert CROSSVIEW.classify(kind, tags) == names


def test_crossview_roads_are_strips_as_wide_as_the_road():
    marks = CROSSVIEW.marks("line", {"highway": "residential", "width": "7"})
    assert marks == (Mark("road", "strip", 7.0), Mark("road_axis", "line"))


def test_orienternet_roads_are_lines():
    assert ORIENTERNET.marks("line", {"highway": "residential", "width": "7"}) == (
        Mark("road", "line"),
    )


some_tags = st.dictionaries(
    st.sampled_from([*sorted(MAP_KEYS), "name", "source", "layer", "level", "area"]),
    st.sampled_from(["yes", "no", "tree", "wall", "residential", "0", "-1", "parking", "water"]),
    max_size=5,
)


@given(tags=some_tags, kind=st.sampled_from(["area", "line", "point"]))
def test_a_feature_has_at_most_one_class_per_channel(tags, kind):
    for legend in legends.LEGENDS.values():
        channels = [legend.find(name)[0] for name in legend.classify(kind, tags)]
        assert len(channels) == len(set(channels))


@given(tags=some_tags, kind=st.sampled_from(["area", "line", "point"]))
def test_only_features_with_a_map_key_have_a_class(tags, kind):
    without = {key: value for key, value in tags.items() if key not in MAP_KEYS}
    assert all(legend.classify(kind, without) == () for legend in legends.LEGENDS.values())
