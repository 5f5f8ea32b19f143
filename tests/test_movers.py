"""Cars and people: where they stand, that nothing is in their way, and that seeds fix them."""

import subprocess
import sys

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import LineString, Point, box

from crossview.frames import LocalFrame
from crossview.grids import MapGrid
from crossview.synthetic.markings import rectangles
from crossview.synthetic.mesh import Mesh
from crossview.synthetic.movers import KEEP_OUT_M, movers_mesh
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_satellite
from crossview.synthetic.scene import Barrier, Bay, Building, Carriageway, Post, Scene, Tree

STREET = LineString([(0, 0), (300, 0)])
PERSON, CAR, TRUCK = (CLASSES.index(name) for name in ("person", "car", "truck"))


def town(**fields) -> Scene:
    """A street of 7 m to the east, 3 m of sidewalk on both sides, and what else is there."""
    street = Carriageway(STREET, 7.0, 2, sidewalks_m=(3.0, 3.0))
    return Scene(
        roads=STREET.buffer(3.5).union(box(100, 20, 160, 40)),
        sidewalks=STREET.buffer(6.5),
        carriageways=(street,),
        **fields,
    )


def things(mesh: Mesh) -> list[tuple[int, shapely.Polygon]]:
    """Class and outline of every mover."""
    instances = mesh.instances[mesh.surfaces]
    found = []
    for instance in np.unique(instances):
        rows = instances == instance
        corners = mesh.triangles_m[rows].reshape(-1, 3)[:, :2]
        found.append(
            (int(mesh.classes[mesh.surfaces[rows][0]]), shapely.MultiPoint(corners).convex_hull)
        )
    return found


@pytest.fixture(scope="module")
def busy() -> tuple[Scene, Mesh]:
    scene = town(
        buildings=(Building(box(50, -3, 60, 20), 9.0),),
        trees=(Tree(30, 4.5), Tree(31, -5.0)),
        posts=(Post("lamp", 80, 3.9),),
        barriers=(Barrier(LineString([(120, -5), (140, -5)]), 1.0),),
        bays=tuple(Bay(101.25 + 2.5 * k, 24.0, 0.0) for k in range(20)),
        footways=(LineString([(0, 5), (300, 5)]),),
    )
    return scene, movers_mesh(scene, 3, density=2.0)


def test_nothing_is_in_the_way_of_anything(busy):
    scene, mesh = busy
    outlines = [outline for _, outline in things(mesh)]
    one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    assert np.all(one == other)
    obstacles = [
        scene.buildings[0].footprint,
        scene.barriers[0].line,
        *(Point(tree.x_m, tree.y_m).buffer(0.2) for tree in scene.trees),
        Point(80, 3.9).buffer(0.07),
    ]
    assert not any(outline.intersects(thing) for outline in outlines for thing in obstacles)


def test_cars_are_on_roads_and_people_on_sidewalks(busy):
    scene, mesh = busy
    kinds = [kind for kind, _ in things(mesh)]
    assert {PERSON, CAR} <= set(kinds) <= {PERSON, CAR, TRUCK}
    for kind, outline in things(mesh):
        if kind == PERSON:
            assert scene.sidewalks.contains(outline)
            assert not scene.roads.intersects(outline)
        else:
            assert scene.roads.buffer(1e-9).contains(outline)


def test_bays_hold_cars_that_head_along_them(busy):
    _, mesh = busy
    parked = [outline for _, outline in things(mesh) if outline.centroid.y > 20]
    assert len(parked) >= 5
    for outline in parked:
        west, south, east, north = outline.bounds
        assert north - south > east - west
        assert outline.centroid.y == approx(24.0, abs=1e-6)


@pytest.mark.parametrize("keeps_left", [False, True])
def test_traffic_keeps_to_its_side(keeps_left: bool):
    scene = Scene(
        roads=STREET.buffer(3.5),
        carriageways=(Carriageway(STREET, 7.0, 2, parking=(False, False)),),
    )
    mesh = movers_mesh(scene, 1, density=3.0, keeps_left=keeps_left)
    cars = np.flatnonzero(mesh.instances[mesh.surfaces] > 0)
    assert len(cars)
    for instance in np.unique(mesh.instances[mesh.surfaces]):
        corners = mesh.triangles_m[mesh.instances[mesh.surfaces] == instance].reshape(-1, 3)
        roof, middle = corners[corners[:, 2] == corners[:, 2].max()], np.ptp(corners, axis=0)
        # a cabin sits behind the middle of its car
        eastward = corners[:, 0].min() + middle[0] / 2 > roof[:, 0].mean()
        is_south = corners[:, 1].mean() < 0
        assert eastward == (is_south != keeps_left)


def test_a_one_way_street_is_driven_one_way():
    street = Carriageway(STREET, 7.0, 2, is_oneway=True, parking=(False, False))
    mesh = movers_mesh(Scene(roads=STREET.buffer(3.5), carriageways=(street,)), 1, density=3.0)
    for instance in np.unique(mesh.instances):
        corners = mesh.triangles_m[mesh.instances[mesh.surfaces] == instance].reshape(-1, 3)
        roof = corners[corners[:, 2] == corners[:, 2].max()]
        assert roof[:, 0].mean() < (corners[:, 0].min() + corners[:, 0].max()) / 2


def test_nobody_parks_at_crossings_and_junctions():
    streets = [LineString([(0, 0), (100, 0), (200, 0)]), LineString([(100, 0), (100, 90)])]
    scene = Scene(
        roads=shapely.union_all(streets).buffer(3.5),
        carriageways=tuple(Carriageway(line, 7.0, 1, parking=(True, True)) for line in streets),
        crossings_m=((50.0, 0.0),),
    )
    cars = [outline for _, outline in things(movers_mesh(scene, 2, density=3.0))]
    parked = [car for car in cars if car.distance(streets[0].union(streets[1])) > 1.0]
    assert len(parked) > 20
    assert min(car.distance(Point(100, 0)) for car in parked) > 7.0
    assert min(car.distance(Point(50, 0)) for car in parked) > 4.0


def test_nothing_comes_close_to_a_camera():
    eyes = [(x, y) for x in range(10, 300, 20) for y in (-1.75, 1.75, 5.0)]
    for _, outline in things(movers_mesh(town(), 5, density=2.0, keep_out_m=eyes)):
        assert min(outline.distance(Point(eye)) for eye in eyes) >= KEEP_OUT_M - 0.1


def test_a_seed_fixes_the_movers_and_another_moves_them():
    first, again, other = (movers_mesh(town(), seed) for seed in (7, 7, 8))
    assert np.array_equal(first.triangles_m, again.triangles_m)
    assert not np.array_equal(first.triangles_m, other.triangles_m)


def test_a_part_of_the_town_has_the_movers_of_the_whole():
    whole, part = (
        movers_mesh(town(), 7, bounds_m=bounds_m)
        for bounds_m in (None, (100.0, -50.0, 200.0, 50.0))
    )
    everywhere = {tuple(np.round(outline.centroid.coords[0], 6)) for _, outline in things(whole)}
    here = {tuple(np.round(outline.centroid.coords[0], 6)) for _, outline in things(part)}
    assert {place for place in everywhere if 106 < place[0] < 194} <= here
    assert all(99 < place[0] < 201 for place in here)


def test_numbers_in_pictures_follow_those_of_the_scene(busy):
    scene, mesh = busy
    grid = MapGrid(LocalFrame(50.0, 8.0), -20.0, 60.0, 0.25, 400, 1400)
    seen = np.unique(render_satellite(scene, grid, movers=mesh).instances)
    num_still, num_movers = scene.mesh.instances.max(), len(np.unique(mesh.instances))
    assert num_movers > 20
    moving = seen[seen > num_still]
    assert moving.max() == num_still + num_movers
    assert len(moving) > 0.9 * num_movers  # leaves hide some
    still = render_satellite(scene, grid).instances
    assert set(seen) - set(moving) <= set(np.unique(still))


def test_nobody_is_there_at_density_0_or_without_streets():
    assert not len(movers_mesh(town(), 1, density=0.0).triangles_m)
    assert not len(movers_mesh(Scene(), 1).triangles_m)
    with pytest.raises(ValueError, match="density must be 0 or more"):
        movers_mesh(town(), 1, density=-1.0)


def test_a_rectangle_lies_along_its_heading():
    (shape,) = rectangles(np.array([[1.0, 2.0]]), np.array([90.0]), 6.0, 2.0)
    assert shape.bounds == approx((-2, 1, 4, 3))


THREADS = """
import threading
from shapely import LineString
from crossview.synthetic.movers import movers_mesh
from crossview.synthetic.scene import Scene
from crossview.synthetic.things import Carriageway

line = LineString([(x, 20 * (x % 3)) for x in range(0, 3000, 7)])
street = Carriageway(line, 7.0, 2, sidewalks_m=(3.0, 3.0))
for _ in range(10):
    areas = {"roads": line.buffer(3.5), "sidewalks": line.buffer(6.5)}
    scene = Scene(**areas, carriageways=(street,), footways=(line,))
    start, made = threading.Barrier(8), []

    def make():
        start.wait()
        made.append(movers_mesh(scene, 3).triangles_m)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({triangles_m.tobytes() for triangles_m in made}) == 1 and len(made) == 8
"""


def test_a_new_scene_is_asked_by_threads_at_the_same_time():
    """GEOS crashes where two threads are the first to ask a prepared shape."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
