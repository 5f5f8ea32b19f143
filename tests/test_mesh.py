"""Meshes: what they refuse, and how they are joined."""

from dataclasses import replace

import numpy as np
import pytest
from shapely import LineString, Polygon, box

from crossview.synthetic.mesh import Mesh, MeshBuilder, prism, regular_ring, triangulated, turned
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.scene import Barrier, Building, Post, Scene, Tree


def one_triangle(instance: int) -> Mesh:
    builder = MeshBuilder()
    row = builder.surface("car", "paintwork", instance)
    builder.triangles(np.array([[(0, 0, 1), (1, 0, 1), (0, 1, 1)]]), row)
    builder.crown((5.0, 5.0, 3.0, 2.0, 1.0), builder.surface("vegetation", "leaves", instance))
    return builder.mesh()


def test_surfaces_of_joined_meshes_stay_their_own():
    joined = Mesh.joined([one_triangle(3), one_triangle(8)])
    assert joined.instances[joined.surfaces].tolist() == [3, 8]
    assert joined.instances[joined.crown_surfaces].tolist() == [3, 8]
    assert joined.classes[joined.crown_surfaces].tolist() == [CLASSES.index("vegetation")] * 2


def test_bounds_hold_crowns_and_triangles():
    assert one_triangle(1).bounds == (0, 0, 1, 7, 7, 4)
    with pytest.raises(ValueError, match="no bounds"):
        _ = Mesh.joined([]).bounds


def test_arrays_are_read_only_and_checked():
    mesh = one_triangle(1)
    with pytest.raises(ValueError, match="read-only"):
        mesh.triangles_m[0] = 0.0
    with pytest.raises(ValueError, match="surfaces runs from 7 to 7; expected 0 to 1"):
        replace(mesh, surfaces=np.array([7]))
    with pytest.raises(ValueError, match="expected as many"):
        replace(mesh, surfaces=np.array([0, 0]))
    with pytest.raises(ValueError, match="shape"):
        replace(mesh, frames=np.zeros((2, 5)))


def test_triangles_cover_their_polygons_and_look_up():
    rings = [box(0, 0, 9, 9).difference(box(3, 3, 6, 6)), Polygon([(0, 0), (1, 2), (4, 0), (1, 1)])]
    corners, owner = triangulated(np.array(rings, dtype=object))
    (a, b), c = np.moveaxis(corners[:, :2], 1, 0), corners[:, 2]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert area.min() > 0
    assert np.bincount(owner, area) == pytest.approx([ring.area for ring in rings])


def test_heading_90_turns_ahead_to_the_east_and_right_to_the_south():
    assert turned(np.array([[0.0, 1.0], [1.0, 0.0]]), 90.0) == pytest.approx(
        np.array([[1.0, 0.0], [0.0, -1.0]])
    )


def test_a_prism_has_the_volume_of_its_ring():
    ring = regular_ring(3.0, 4.0, 2.0, 6)
    a, b, c = np.moveaxis(prism(ring, 1.0, 3.0, has_floor=True), 1, 0)
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert volume == pytest.approx(2 * 3 * np.sqrt(3) / 2 * 4)


def test_everything_that_stands_has_its_class_and_its_own_instance():
    scene = Scene(
        (Building(box(0, 0, 5, 5), 6.0), Building(box(9, 0, 12, 5), 6.0)),
        (Tree(20, 0, leaves="needles"),),
        (
            Barrier(LineString([(30, 0), (40, 0)]), 1.0),
            Barrier(LineString([(30, 5), (40, 5)]), 1.5, "vegetation"),
        ),
        posts=(Post("lamp", 50, 0), Post("signal", 55, 0), Post("sign", 60, 0)),
        benches=((70.0, 0.0, 0.0),),
    )
    mesh = scene.mesh
    seen = {}
    for kind, instance in zip(mesh.classes, mesh.instances, strict=True):
        seen.setdefault(int(instance), set()).add(CLASSES[kind])
    assert seen.pop(0) >= {"terrain"}
    assert list(seen.values()) == [
        {"building"},
        {"building"},
        {"vegetation"},
        {"fence"},
        {"vegetation"},
        {"pole"},
        {"pole", "traffic light"},
        {"pole", "traffic sign"},
        {"background"},
    ]


def test_hedges_are_boxes_and_fences_are_seen_from_both_sides():
    line = LineString([(0, 0), (10, 0)])
    hedge = Scene(barriers=(Barrier(line, 1.5, "vegetation"),)).mesh
    standing = hedge.triangles_m[hedge.instances[hedge.surfaces] == 1]
    assert np.ptp(standing[..., 1]) == pytest.approx(0.8)
    fence = Scene(barriers=(Barrier(line, 1.5),)).mesh
    standing = fence.triangles_m[fence.instances[fence.surfaces] == 1]
    a, b, c = np.moveaxis(standing, 1, 0)
    north = np.cross(b - a, c - a)[:, 1]
    assert sorted(np.sign(north)) == [-1, -1, 1, 1]
