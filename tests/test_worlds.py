"""Worlds: map files become scenes, and what a map does not tell is drawn."""

import numpy as np
from pytest import approx

from crossview.synthetic.scene import STOREYS
from crossview.synthetic.worlds import Source, World
from crossview.vectors import VectorMap

METRE_DEG = 1 / 111_000


def houses(count, tags):
    """An extract: a street on the equator and houses along both sides, each 10 m square."""
    corners, ways = [], []
    for k in range(count):
        west, south = 15 * k * METRE_DEG, (10, -20)[k % 2] * METRE_DEG
        east, north = west + 10 * METRE_DEG, south + 10 * METRE_DEG
        corners += [(south, west), (south, east), (north, east), (north, west)]
        refs = (4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k + 4, 4 * k + 1)
        ways.append((refs, {"building": "yes"} | tags))
    corners += [(0.0, 0.0), (0.0, 15 * count * METRE_DEG)]
    ways.append(((4 * count + 1, 4 * count + 2), {"highway": "residential"}))
    lines = ['<osm version="0.6">']
    for number, (lat_deg, lon_deg) in enumerate(corners, 1):
        lines.append(f'<node id="{number}" version="1" lat="{lat_deg:.7f}" lon="{lon_deg:.7f}"/>')
    for number, (refs, some) in enumerate(ways, 1):
        lines.append(f'<way id="{number}" version="1">' + "".join(f'<nd ref="{k}"/>' for k in refs))
        lines += [f'<tag k="{key}" v="{value}"/>' for key, value in some.items()]
        lines.append("</way>")
    return "\n".join([*lines, "</osm>"])


def test_heights_that_an_extract_does_not_tell_are_drawn_and_the_map_stays_without(tmp_path):
    extract = tmp_path / "somewhere.osm"
    extract.write_text(houses(60, {}))
    path = Source("somewhere", file=str(extract)).write_map(tmp_path / "out")
    one, again = (
        [building.height_m for building in World.read("somewhere", path).scene.buildings]
        for _ in range(2)
    )
    assert one == again
    assert set(one) <= {3.0 * storeys for storeys in STOREYS}
    assert np.mean(one) == approx(3.0 * np.mean(STOREYS), abs=1.5)
    table = VectorMap.read(path).features.table
    assert np.isnan(table["height_m"]).all()


def test_heights_that_an_extract_tells_stay(tmp_path):
    extract = tmp_path / "somewhere.osm"
    extract.write_text(houses(5, {"building:levels": "2"}))
    scene = World.read("somewhere", extract).scene
    assert [building.height_m for building in scene.buildings] == [6.0] * 5
