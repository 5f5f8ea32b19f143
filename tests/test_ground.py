"""The ground: a partition, and whose part is whose."""

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, Point, box

from crossview.synthetic.ground import Layer, ground_mesh
from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.palette import CLASSES

REST = ("terrain", "soil")
BOUNDS = (-50.0, -40.0, 60.0, 70.0)


def areas_m2(mesh: Mesh) -> dict[tuple[str, str], float]:
    """Area of every class and material."""
    a, b, c = np.moveaxis(mesh.triangles_m[..., :2], 1, 0)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert area.min() > 0, "a triangle looks down"
    total = np.bincount(mesh.surfaces, area, len(mesh.classes))
    kinds = [(CLASSES[c], MATERIALS[m]) for c, m in zip(mesh.classes, mesh.materials, strict=True)]
    return {
        kind: float(sum(area for other, area in zip(kinds, total, strict=True) if other == kind))
        for kind in kinds
    }


def random_layers(seed: int, count: int) -> list[Layer]:
    rng = np.random.default_rng(seed)
    kinds = [
        ("road", "asphalt"),
        ("sidewalk", "slabs"),
        ("background", "water"),
        ("terrain", "grass"),
    ]
    layers = []
    for k in range(count):
        places = rng.uniform(-60, 80, (6, 2))
        lines = LineString(places).buffer(rng.uniform(1, 8))
        layers.append(Layer(*kinds[k % 4], lines))
    return layers


@pytest.mark.parametrize("seed", range(3))
def test_the_ground_fills_its_rectangle_with_what_lies_on_top(seed: int):
    layers = random_layers(seed, 8)
    mesh = ground_mesh(layers, BOUNDS, rest=REST)
    expected, taken = {}, shapely.Polygon()
    for layer in [*layers, Layer(*REST, box(*BOUNDS))]:
        left = shapely.intersection(layer.area, box(*BOUNDS)).difference(taken)
        kind = layer.class_name, layer.material
        expected[kind] = expected.get(kind, 0.0) + left.area
        taken = taken.union(layer.area)
    found = areas_m2(mesh)
    assert sum(found.values()) == approx(box(*BOUNDS).area, rel=1e-6)
    for kind, area in expected.items():
        assert found[kind] == approx(area, rel=1e-3, abs=0.5), kind


def test_no_two_triangles_overlap():
    mesh = ground_mesh(random_layers(5, 6), BOUNDS, rest=REST)
    triangles = shapely.polygons(mesh.triangles_m[..., :2])
    one, other = shapely.STRtree(triangles).query(triangles, predicate="overlaps")
    assert (
        shapely.area(shapely.intersection(triangles[one], triangles[other])).max(initial=0) < 1e-6
    )
    assert np.all(mesh.triangles_m[..., 2] == 0.0)


def test_many_corners_are_cut_in_cells():
    """50,000 corners in a second or so, which all at once would take minutes."""
    turn = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    radius = 40 + 2 * np.sin(900 * turn)
    lake = shapely.Polygon(np.column_stack([radius * np.cos(turn), radius * np.sin(turn)]))
    mesh = ground_mesh([Layer("background", "water", lake)], BOUNDS, rest=REST)
    expected = shapely.intersection(lake, box(*BOUNDS)).area
    assert areas_m2(mesh)["background", "water"] == approx(expected, rel=1e-4)


def test_a_layer_without_area_leaves_nothing():
    mesh = ground_mesh([Layer("road", "asphalt", shapely.Polygon())], BOUNDS, rest=REST)
    assert areas_m2(mesh) == {REST: approx(110 * 110)}
    dot = ground_mesh([Layer("road", "asphalt", Point(0, 0).buffer(1e-4))], BOUNDS, rest=REST)
    assert sum(areas_m2(dot).values()) == approx(110 * 110)
