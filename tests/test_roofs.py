"""Roofs and walls: closed, outward, and as large as the formulas of solids say."""

import numpy as np
import pytest
from pytest import approx
from shapely import Point, Polygon, affinity, box

from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.roofs import MIN_RECTANGULARITY, SHAPES, Roof, fits, roof_triangles
from crossview.synthetic.scene import Building, Scene

HOUSE = affinity.rotate(box(0, 0, 12, 8), 27.0)
HEXAGON = Polygon([(5 * np.cos(k), 5 * np.sin(k)) for k in np.arange(6) * np.pi / 3])
ALMOST = Polygon([(0, 0), (12, 0), (12, 8), (5, 8), (5, 7.5), (0, 7.5)])
COURT = box(0, 0, 30, 20).difference(box(10, 8, 20, 12))
STRAIGHT = Polygon([(0, 0), (5, 0), (12, 0), (12, 8), (0, 8), (0, 3)])
ELL = Polygon([(0, 0), (12, 0), (12, 5), (5, 5), (5, 12), (0, 12)])


def building_mesh(*buildings: Building) -> Mesh:
    """Triangles of buildings, without the ground below them."""
    mesh = Scene(buildings).mesh
    rows = np.flatnonzero(mesh.classes[mesh.surfaces] == CLASSES.index("building"))
    columns = {name: getattr(mesh, name) for name in mesh.__dataclass_fields__}
    columns |= {"triangles_m": mesh.triangles_m[rows], "surfaces": mesh.surfaces[rows]}
    return Mesh(**columns)


def volume_m3(triangles_m: np.ndarray) -> float:
    """By the divergence theorem; a missing floor at height 0 adds nothing."""
    a, b, c = np.moveaxis(triangles_m, 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def open_edges(triangles_m: np.ndarray) -> np.ndarray:
    """Edges without the same edge the other way round, (n, 2, 3)."""
    starts = triangles_m.reshape(-1, 3)
    ends = np.roll(triangles_m, -1, axis=1).reshape(-1, 3)
    there = [(*a, *b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    assert len(set(there)) == len(there), "an edge is run through twice the same way"
    back = {edge[3:] + edge[:3] for edge in there}
    return np.array([edge for edge in there if edge not in back]).reshape(-1, 2, 3)


ROOFS = [Roof(shape, 0.0 if shape == "flat" else 2.5) for shape in SHAPES]
FITTING = [
    (footprint, roof)
    for footprint in (HOUSE, HEXAGON, ALMOST, COURT, STRAIGHT, ELL)
    for roof in ROOFS
    if fits(footprint, roof)
]


def test_most_roofs_fit_most_footprints():
    assert len(FITTING) == 24


@pytest.mark.parametrize(("footprint", "roof"), FITTING)
def test_a_building_is_closed_but_for_its_floor(footprint: Polygon, roof: Roof):
    edges = open_edges(building_mesh(Building(footprint, 9.0, roof=roof)).triangles_m)
    assert np.all(edges[..., 2] == 0.0)
    around = sum(ring.length for ring in (footprint.exterior, *footprint.interiors))
    assert np.hypot(*(edges[:, 1] - edges[:, 0])[:, :2].T).sum() == approx(around, rel=1e-5)


@pytest.mark.parametrize("roof", ROOFS)
def test_a_part_above_the_ground_is_closed(roof: Roof):
    mesh = building_mesh(Building(HOUSE, 9.0, 4.0, roof))
    assert not len(open_edges(mesh.triangles_m))
    assert mesh.triangles_m[..., 2].min() == 4.0


def test_volumes_are_those_of_the_solids():
    """Closed forms for 12 x 8 m, 6 m to the eaves and 3 m of roof."""
    walls = 12 * 8 * 6.0
    roofs = {
        "flat": 12 * 8 * 3.0,
        "gabled": 12 * 8 * 3 / 2,
        "skillion": 12 * 8 * 3 / 2,
        "pyramidal": 12 * 8 * 3 / 3,
        # a ridge of 4 m: a prism in the middle and a pyramid at both ends
        "hipped": 4 * 8 * 3 / 2 + 8 * 8 * 3 / 3,
    }
    for shape, expected in roofs.items():
        roof = Roof(shape, 0.0 if shape == "flat" else 3.0)
        mesh = building_mesh(Building(HOUSE, 9.0, roof=roof))
        assert volume_m3(mesh.triangles_m) == approx(walls + expected, rel=1e-5), shape


def test_the_volume_of_a_court_is_that_of_its_ring():
    assert volume_m3(building_mesh(Building(COURT, 9.0)).triangles_m) == approx(COURT.area * 9)


def test_a_hipped_roof_on_a_hexagon_is_its_pyramid():
    roofs = [Roof(shape, 3.0) for shape in ("hipped", "pyramidal")]
    hipped, pyramid = (building_mesh(Building(HEXAGON, 9.0, roof=roof)) for roof in roofs)
    assert volume_m3(hipped.triangles_m) == approx(volume_m3(pyramid.triangles_m), rel=1e-5)


def heights_at(roof: Roof, footprint: Polygon, *points: tuple[float, float]) -> list[float]:
    """Height of the roof above points, by barycentric coordinates."""
    triangles = roof_triangles(footprint, roof, 9.0)
    heights = []
    for point in points:
        a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
        sides = np.stack([b - a, c - a], axis=-1)[:, :2]
        share = np.linalg.solve(sides, (np.array(point) - a[:, :2])[..., None])[..., 0]
        inside = (share >= -1e-9).all(axis=1) & (share.sum(axis=1) <= 1 + 1e-9)
        at = a[:, 2] + np.einsum("ij,ij->i", share, np.stack([b - a, c - a], axis=1)[:, :, 2])
        heights.append(float(at[inside][0]))
    return heights


def test_a_ridge_runs_along_the_longer_side_unless_it_is_across():
    plain = box(0, 0, 12, 8)
    along = heights_at(Roof("gabled", 3.0), plain, (6, 4), (0.0, 4), (6, 0.0), (6, 2))
    assert along == approx([9, 9, 6, 7.5])
    across = heights_at(Roof("gabled", 3.0, None, True), plain, (6, 4), (6, 0.0), (0.0, 4), (3, 4))
    assert across == approx([9, 9, 6, 7.5])
    assert heights_at(Roof("gabled", 3.0, 90.0), plain, (6, 0.0), (0.0, 4)) == approx([9, 6])


def test_a_skillion_roof_falls_into_its_direction():
    east = heights_at(Roof("skillion", 3.0, 90.0), box(0, 0, 12, 8), (0, 4), (12, 4), (6, 1))
    assert east == approx([9, 6, 7.5])


def test_hips_rise_alike_from_all_sides():
    heights = heights_at(Roof("hipped", 3.0), box(0, 0, 12, 8), (1, 4), (6, 1), (4, 4), (8, 4))
    assert heights == approx([6.75, 6.75, 9, 9], abs=1e-5)


def test_roofs_need_footprints_that_carry_them():
    nearly = Polygon([(0, 0), (10, 0), (10, 10), (5, 10), (5, 8.5), (0, 8.5)])
    assert nearly.area / 100 > MIN_RECTANGULARITY
    assert fits(nearly, Roof("gabled", 2.0))
    assert not fits(ELL, Roof("gabled", 2.0))
    assert not fits(ELL, Roof("hipped", 2.0))
    assert not fits(COURT, Roof("pyramidal", 2.0))
    assert not fits(
        Point(0, 0).buffer(3).difference(box(0.5, -0.2, 4, 0.2)), Roof("pyramidal", 2.0)
    )
    assert fits(COURT, Roof("skillion", 2.0))
    with pytest.raises(ValueError, match="does not fit"):
        Building(ELL, 9.0, roof=Roof("gabled", 2.0))


def test_what_a_roof_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected one of flat, gabled"):
        Roof("onion", 2.0)
    with pytest.raises(ValueError, match="A flat roof has 0"):
        Roof("gabled", 0.0)
    with pytest.raises(ValueError, match="no room for a roof"):
        Building(HOUSE, 5.0, 3.0, Roof("gabled", 2.5))
    with pytest.raises(ValueError, match="'gold' is no material"):
        Building(HOUSE, 5.0, wall_material="gold")


def test_walls_know_where_they_begin_and_how_high_they_are_rectangles():
    mesh = building_mesh(Building(box(0, 0, 12, 8), 9.0, roof=Roof("gabled", 3.0)))
    frames = mesh.frames[mesh.frames[:, 4] > 0]
    expected = [
        (0, 0, 1, 0, 12, 6),
        (12, 0, 0, 1, 8, 6),
        (12, 8, -1, 0, 12, 6),
        (0, 8, 0, -1, 8, 6),
    ]
    assert sorted(map(tuple, np.round(frames, 4).tolist())) == sorted(expected)


def test_corners_in_straight_walls_do_not_cut_them():
    frames = building_mesh(Building(STRAIGHT, 9.0)).frames
    assert sorted(frames[frames[:, 4] > 0, 4].tolist()) == approx([8, 8, 12, 12])


def test_walls_look_outwards():
    mesh = building_mesh(Building(COURT, 9.0))
    a, b, c = np.moveaxis(mesh.triangles_m, 1, 0)
    normal, middle = np.cross(b - a, c - a), (a + b + c) / 3
    is_wall = normal[:, 2] == 0
    ahead = (
        middle[is_wall] + 0.01 * normal[is_wall] / np.linalg.norm(normal[is_wall], axis=1)[:, None]
    )
    assert not any(COURT.contains(Point(x, y)) for x, y, _ in ahead)
    assert is_wall.sum() == 16


def test_a_shop_has_the_wall_that_is_nearest():
    houses = Building(box(0, 0, 10, 10), 6.0), Building(box(20, 0, 30, 10), 6.0)
    scene = Scene(houses, shops_m=((5.0, 1.0), (25.0, -2.9), (15.0, 5.0)))
    mesh = scene.mesh
    fronts = np.array([MATERIALS[k] for k in mesh.materials]) == "plaster_shop"
    assert sorted(map(tuple, mesh.frames[fronts, :4])) == [(0, 0, 1, 0), (20, 0, 1, 0)]
