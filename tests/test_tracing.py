"""Rays against a second implementation: every triangle and ellipsoid tried on every ray."""

import numpy as np
import pytest
import shapely
from pytest import approx
from rasterio.features import rasterize
from shapely import Polygon, box

from crossview.cameras import Equirectangular, map_from_camera
from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.synthetic import tracing
from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.mesh import Mesh, MeshBuilder, at_height, prism, triangulated
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.tracing import Fan, Index

FRAME = LocalFrame(lat_deg=51.75, lon_deg=-1.25)


def soup(seed, *, num_triangles=150, num_crowns=12):
    """Triangles in all directions and ellipsoids, above the ground and around the origin."""
    rng = np.random.default_rng(seed)
    middle_m = rng.uniform([-40, -40, 2], [40, 40, 22], (num_triangles, 3))
    corners_m = middle_m[:, None] + rng.normal(0, 3, (num_triangles, 3, 3))
    corners_m[..., 2] = np.abs(corners_m[..., 2]) + 0.01
    builder = MeshBuilder()
    for k in range(num_triangles):
        builder.triangles(corners_m[k], builder.surface("building", "brick", k + 1))
    low, high = [-40, -40, 6, 1, 1], [40, 40, 12, 4, 5]
    for k, crown in enumerate(rng.uniform(low, high, (num_crowns, 5))):
        instance = num_triangles + k + 1
        builder.crown(tuple(crown), builder.surface("vegetation", "leaves", instance))
    return builder.mesh()


def random_directions(seed, count):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def first_hits(mesh, eyes_m, directions):
    """Distance along unit rays and instance by Moeller and Trumbore (1997), one by one.

    Instance 0 is the ground, -1 the sky; from within an ellipsoid the distance is 0.
    """
    nearest, instances = np.full(len(directions), np.inf), np.full(len(directions), -1)
    eyes_m = np.broadcast_to(eyes_m, directions.shape)

    def keep(distance, is_hit, instance):
        is_nearer = is_hit & (distance >= 0) & (distance < nearest)
        nearest[is_nearer], instances[is_nearer] = distance[is_nearer], instance

    def dot(a, b):
        return (a * b).sum(axis=-1)

    with np.errstate(divide="ignore", invalid="ignore"):
        keep(-eyes_m[:, 2] / directions[:, 2], directions[:, 2] < 0, 0)
        for (a, b, c), surface in zip(mesh.triangles_m, mesh.surfaces, strict=True):
            across = np.cross(directions, c - a)
            determinant = across @ (b - a)
            u = dot(across, eyes_m - a) / determinant
            turned = np.cross(eyes_m - a, b - a)
            v = dot(directions, turned) / determinant
            distance = turned @ (c - a) / determinant
            keep(distance, (u >= 0) & (v >= 0) & (u + v <= 1), mesh.instances[surface])
        for (x, y, z, radius, half), surface in zip(
            mesh.crowns_m, mesh.crown_surfaces, strict=True
        ):
            scale = np.array([radius, radius, half])
            start, steps = (eyes_m - [x, y, z]) / scale, directions / scale
            a, b, c = dot(steps, steps), dot(steps, start), dot(start, start) - 1
            distance = np.where(c <= 0, 0.0, (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a)
            keep(distance, b * b >= a * c, mesh.instances[surface])
    return nearest, instances


@pytest.mark.parametrize("eye_m", [(1.0, 2.0, 3.0), (-90.0, 30.0, 40.0), (5.0, -70.0, 1.6)])
@pytest.mark.parametrize("seed", range(3))
def test_single_rays_meet_what_a_trial_of_every_triangle_and_ellipsoid_finds(seed, eye_m):
    mesh = soup(seed)
    directions = random_directions(seed, 3000)
    directions[:1500] = mesh.triangles_m.mean(axis=1).repeat(10, axis=0) - eye_m
    directions += random_directions(seed + 9, 3000) / 50
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    picture = tracing.trace([Index.of(mesh)], Fan.of_rays(eye_m, directions))
    expected_m, instances = first_hits(mesh, np.array(eye_m), directions)
    depth_m = picture.along[0] / np.hypot(*directions[:, :2].T)
    assert depth_m == approx(expected_m, rel=1e-6)
    assert np.array_equal(picture.instances[0], np.maximum(instances, 0))
    assert np.array_equal(picture.classes[0] == CLASSES.index("sky"), instances < 0)
    assert 100 < (instances > 0).sum() < 2900


@pytest.mark.parametrize("seed", range(3))
def test_whole_columns_meet_what_a_trial_of_every_triangle_and_ellipsoid_finds(seed):
    mesh, eye_m = soup(seed), np.array([3.0, -4.0, 2.5])
    camera = Equirectangular(96, 48)
    col, row = np.meshgrid(np.arange(96) + 0.5, np.arange(48) + 0.5)
    directions = camera.rays(col, row).reshape(-1, 3) @ map_from_camera(20.0).T
    azimuths_rad = np.deg2rad(20.0) + (np.arange(96) + 0.5) / 96 * 2 * np.pi - np.pi
    slopes = np.tan((0.5 - (np.arange(48) + 0.5) / 48) * np.pi)
    fan = Fan(
        eye_m[None], np.sin(azimuths_rad), np.cos(azimuths_rad), np.tile(slopes, (96, 1)),
        np.repeat(slopes[:, None], 96, axis=1)
    )  # fmt: skip
    picture = tracing.trace([Index.of(mesh)], fan)
    expected_m, instances = first_hits(mesh, eye_m, directions)
    depth_m = picture.along * np.sqrt(1 + slopes[:, None] ** 2)
    assert depth_m.ravel() == approx(expected_m, rel=1e-6)
    assert np.array_equal(picture.instances.ravel(), np.maximum(instances, 0))


def test_rays_may_start_in_different_places():
    mesh, directions = soup(4), random_directions(4, 200)
    eyes_m = np.random.default_rng(1).uniform([-60, -60, 1], [60, 60, 30], (200, 3))
    picture = tracing.trace([Index.of(mesh)], Fan.of_rays(eyes_m, directions))
    expected_m, _ = first_hits(mesh, eyes_m, directions)
    assert picture.along[0] == approx(expected_m * np.hypot(*directions[:, :2].T), rel=1e-6)
    assert (expected_m == 0).any()  # within a crown everything is leaves


def test_normals_point_out_of_triangles_and_ellipsoids():
    builder = MeshBuilder()
    triangle = np.array([[[-1, 5, 0.1], [1, 5, 0.1], [0, 5, 3.0]]])  # seen from the south
    builder.triangles(triangle, builder.surface("building", "brick", 1))
    builder.crown((0.0, -8.0, 2.0, 3.0, 2.0), builder.surface("vegetation", "leaves", 2))
    rays = np.array([[0, 1, 0], [0, -1, 0], [0, 0, -1.0]])
    picture = tracing.trace([Index.of(builder.mesh())], Fan.of_rays((0, 0, 2.0), rays))
    assert picture.normals[0] == approx(np.array([[0, -1, 0], [0, 1, 0], [0, 0, 1]]), abs=1e-6)
    assert picture.along[0, :2] == approx([5, 5])
    assert picture.materials[0].tolist() == [
        MATERIALS.index(m) for m in ("brick", "leaves", "soil")
    ]


def test_straight_up_and_down():
    builder = MeshBuilder()
    lid = at_height(np.array([[[-3.0, -2], [4, -2], [0, 5]]]), 9.0)
    builder.triangles(lid, builder.surface("building", "tiles", 1))
    rays = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    picture = tracing.trace([Index.of(builder.mesh())], Fan.of_rays((0.3, 0.2, 2.0), rays))
    assert picture.instances[0].tolist() == [1, 0]
    assert picture.along[0] * tracing.MAX_SLOPE == approx([7, 2])


def closed_ring(num_corners):
    """A wall of triangles around the origin whose seams face pixel centres."""
    ring = 20 * np.exp(2j * np.pi * np.arange(num_corners) / num_corners)
    builder = MeshBuilder()
    row = builder.surface("wall", "brick", 1)
    builder.triangles(prism(np.column_stack([ring.real, ring.imag]), 0.0, 50.0), row)
    return Index.of(builder.mesh())


def test_no_ray_slips_through_a_seam():
    index = closed_ring(360)
    turn = np.deg2rad(np.arange(0, 360, 0.5))
    rays = np.column_stack([np.sin(turn), np.cos(turn), np.zeros_like(turn)])
    for up in (-0.01, 0.0, 0.3, 1.1):
        rays[:, 2] = up
        for eye_m in ((0.0, 0.0, 2.0), (1e-3, -3.7, 4.0)):
            picture = tracing.trace([index], Fan.of_rays(eye_m, rays))
            assert np.all(picture.classes == CLASSES.index("wall"))


def test_of_two_meshes_the_nearer_thing_is_seen_and_instances_count_on():
    def wall(north_m, instance):
        builder = MeshBuilder()
        corners = np.array([[[-9, north_m, 0], [9, north_m, 0], [0, north_m, 9.0]]])
        builder.triangles(corners, builder.surface("car", "paintwork", instance))
        return Index.of(builder.mesh())

    near, far = wall(5.0, 3), wall(8.0, 2)
    fan = Fan.of_rays((0, 0, 1.0), np.array([[0, 1.0, 0], [0, -1.0, -0.1]]))
    for order, instance, number in (((near, far), 3, 0), ((far, near), 2 + 3, 1)):
        picture = tracing.trace(order, fan)
        assert picture.along[0] == approx([5.0, 10.0])
        assert picture.instances[0].tolist() == [instance, 0]
        assert picture.meshes[0].tolist() == [number, 0]


def test_no_ray_is_background_and_hits_nothing():
    rays = np.array([[np.nan] * 3, [0, 1, 0.5]])
    picture = tracing.trace([closed_ring(8)], Fan.of_rays((0, 0, 2.0), rays))
    assert picture.classes[0].tolist() == [CLASSES.index("background"), CLASSES.index("wall")]
    assert np.isnan(picture.along[0, 0])


def test_an_empty_mesh_is_a_plane_under_the_sky():
    rays = np.array([[0, 1, 0.1], [1, 0, -0.5]])
    picture = tracing.trace([Index.of(Mesh.joined([]))], Fan.of_rays((0, 0, 2.0), rays))
    assert picture.classes[0].tolist() == [CLASSES.index("sky"), CLASSES.index("terrain")]
    assert picture.along[0] == approx([np.inf, 4.0])


def test_walls_say_where_on_them_a_ray_hits():
    builder = MeshBuilder()
    # 10 m long, seen from the south, its left end in the west
    frame = np.array([[-4.0, 6.0, 1.0, 0.0, 10.0, 7.0]])
    row = builder.surfaces("building", ["brick"], np.array([1]), frame)[0]
    corners = np.array([[[-4, 6, 0], [6, 6, 0], [6, 6, 7.0]], [[-4, 6, 0], [6, 6, 7], [-4, 6, 7]]])
    builder.triangles(corners, int(row))
    rays = np.array([[-0.5, 1, 0], [0.5, 1, 0.2]])
    picture = tracing.trace([Index.of(builder.mesh())], Fan.of_rays((0, 0, 2.0), rays))
    assert picture.walls[0, :, :3] == approx(np.array([[1, 10, 7], [7, 10, 7]]))
    assert picture.walls[0, 0, 3] == picture.walls[0, 1, 3]


# ---------------------------------------------------------------------- the ground


def ground_of(polygons):
    """One surface (instance 0) per polygon; materials tell them apart."""
    builder = MeshBuilder()
    rows = np.array([builder.surface("road", MATERIALS[k]) for k in range(len(polygons))])
    corners, owner = triangulated(np.array(polygons, dtype=object))
    builder.triangles(at_height(corners, 0.0), rows[owner])
    return Index.of(builder.mesh())


def test_the_ground_is_the_polygon_that_shapely_finds_under_the_ray():
    rng = np.random.default_rng(0)
    lines = [box(-20.3, -15.7, 25.2, 18.1).exterior]
    lines += [shapely.LineString(rng.uniform(-30, 30, (2, 2))) for _ in range(25)]
    faces = list(shapely.polygonize(list(shapely.union_all(lines).geoms)).geoms)[: len(MATERIALS)]
    at_m = rng.uniform(-32, 32, (4000, 2))
    rays = np.column_stack([at_m - [1.0, 2.0], np.full(4000, -1.5)])
    picture = tracing.trace([ground_of(faces)], Fan.of_rays((1.0, 2.0, 1.5), rays))
    for face, material in zip(faces, range(len(faces)), strict=True):
        inside = shapely.contains_xy(face, *at_m.T)
        assert np.all(picture.materials[0, inside] == material)
        assert np.all(picture.classes[0, inside] == CLASSES.index("road"))
    outside = ~shapely.contains_xy(shapely.union_all(faces), *at_m.T)
    assert outside.sum() > 300
    assert np.all(picture.classes[0, outside] == CLASSES.index("terrain"))


# ---------------------------------------------------------------------- parallel rays


@pytest.mark.parametrize("lean", [(0.0, 0.0), (0.4, -0.25), (-1.5, 0.1)])
@pytest.mark.parametrize("seed", range(2))
def test_parallel_rays_meet_what_a_trial_of_every_triangle_and_ellipsoid_finds(seed, lean):
    mesh = soup(seed)
    grid = MapGrid(FRAME, -20.0, 15.0, 0.8, 40, 50)
    picture = tracing.drape([Index.of(mesh)], grid, lean=lean)
    x_m, y_m = np.meshgrid(*grid.centers())
    step = np.array([lean[0], lean[1], -1.0])
    length = np.linalg.norm(step)
    # from 100 m up, along the rays that end in the middle of the cells
    eyes_m = np.stack([x_m, y_m, np.zeros(grid.shape)], axis=-1).reshape(-1, 3) - 100 * step
    depth_m, instances = first_hits(mesh, eyes_m, np.tile(step / length, (len(eyes_m), 1)))
    assert picture.along.ravel() == approx(100 - depth_m / length, abs=1e-6)
    assert np.array_equal(picture.instances.ravel(), instances)
    assert (instances > 0).sum() > 200


def test_seen_from_above_prisms_cover_the_cells_that_rasterio_burns():
    rng = np.random.default_rng(5)
    footprints = []
    for _ in range(30):
        turn = np.sort(rng.uniform(0, 2 * np.pi, 5))
        ring = rng.uniform(-40, 40, 2) + 8 * np.column_stack([np.cos(turn), np.sin(turn)])
        footprints.append(Polygon(ring))
    builder = MeshBuilder()
    row = builder.surface("building", "tiles", 1)
    for footprint in footprints:
        ring = np.asarray(footprint.exterior.coords)[:-1]
        builder.triangles(prism(ring, 0.0, rng.uniform(3, 20)), row)
    grid = MapGrid(FRAME, -48.0, 48.0, 0.3, 320, 320)
    picture = tracing.drape([Index.of(builder.mesh())], grid, lean=(0.0, 0.0))
    burned = rasterize(footprints, out_shape=grid.shape, transform=grid.transform)
    assert np.mean((picture.instances > 0) == burned) > 0.9999


def test_the_index_tells_its_memory():
    index = Index.of(soup(0))
    assert index.num_bytes > index.things.triangles.nbytes + index.things.items.nbytes
    with pytest.raises(ValueError, match="read-only"):
        index.things.triangles[0] = 0


def test_without_numba_the_error_says_what_to_install(monkeypatch):
    tracing.kernels.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'crossview\[render\]'"):
            tracing.kernels()
    finally:
        tracing.kernels.cache_clear()
