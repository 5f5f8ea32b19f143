"""A world votes back the poses of its own photos: renderer, bird's-eye view and voting agree."""

from dataclasses import replace

import numpy as np
import pytest

from crossview import angles, birdseye, voting
from crossview.cameras import Equirectangular
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Equirectangular(width_px=1024, height_px=512)
HEIGHT_M, REACH_M, CELL_M = 1.6, 30.0, 0.5
NUM_HEADINGS = 256
PARTS = 4
"""Of a cell's side: how much of a cell is of a class."""
GROUND = ("road", "sidewalk", "terrain")
BUILDING = CLASSES.index("building")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    town = Town.from_seed(5, pattern="organic", size_m=400)
    path = tmp_path_factory.mktemp("world") / "town.osm"
    town.write(path)
    scene = Scene.from_features(VectorMap.read(path).features, town.frame)
    # nothing hides the ground from the street or from above but buildings
    return town, replace(scene, trees=(), barriers=(), posts=(), benches=())


def from_above(photo):
    """The photo's true depth and classes, around the camera: ground and walls."""
    col, row = np.meshgrid(np.arange(CAMERA.width_px) + 0.5, np.arange(CAMERA.height_px) + 0.5)
    rays = CAMERA.rays(col, row)
    level = np.hypot(rays[..., 0], rays[..., 2])
    right_m = photo.distance_m * rays[..., 0] / level
    forward_m = photo.distance_m * rays[..., 2] / level
    channel = np.full(photo.classes.shape, -1)
    for k, name in enumerate((*GROUND, "building")):
        channel[photo.classes == CLASSES.index(name)] = k
    is_roof = (photo.classes == BUILDING) & (np.abs(photo.normals[..., 2]) > 0.1)
    wanted = (channel >= 0) & ~is_roof & (photo.distance_m < REACH_M)
    return birdseye.from_points(
        forward_m[wanted],
        right_m[wanted],
        np.eye(4, dtype=np.float32)[channel[wanted]],
        cell_m=CELL_M,
        reach_m=REACH_M,
        reduce="mean",
    )


def map_of(scene, grid):
    """How much more probable a class is to be seen in a cell than anywhere, with 2 % errors."""
    classes = render_satellite(scene, grid.divided(PARTS)).classes
    inside = classes == BUILDING
    shifted = [np.roll(inside, step, axis) for axis in (0, 1) for step in (-PARTS, PARTS)]
    walls = np.logical_or.reduce([inside, *shifted]) & ~np.logical_and.reduce([inside, *shifted])
    there = np.stack([*(classes == CLASSES.index(name) for name in GROUND), walls], axis=-1)
    there = there.reshape(grid.height, PARTS, grid.width, PARTS, -1).mean(axis=(1, 3))
    share = np.maximum(there.mean(axis=(0, 1)), 1e-3)
    return np.log((0.98 * there + 0.02 * share) / share).astype(np.float32)


def test_true_depth_and_classes_vote_back_the_pose_within_a_cell_on_100_of_100(world):
    town, scene = world
    missed = []
    for k, viewpoint in enumerate(town.viewpoints(100, seed=1)):
        grid = MapGrid.around(
            town.frame, viewpoint.x_m, viewpoint.y_m, radius_m=44.0, cell_m=CELL_M
        )
        # the pose is one that the volume has: narrow strips of ground do not forgive half a cell
        row, col = grid.cell_of(viewpoint.x_m, viewpoint.y_m)
        heading = int(angles.bin_of(viewpoint.heading_deg, NUM_HEADINGS))
        pose = Pose(*map(float, grid.to_xy(col + 0.5, row + 0.5)), heading * 360.0 / NUM_HEADINGS)
        rows, cols = np.random.default_rng(k).integers(-30, 31, 2)
        grid = grid.shifted(rows=int(rows), cols=int(cols))
        photo = render_photo(scene, pose, CAMERA, height_m=HEIGHT_M)
        votes = voting.vote_streaming(
            from_above(photo), map_of(scene, grid), num_headings=NUM_HEADINGS
        )
        (best,) = votes.top
        row, col = grid.cell_of(pose.x_m, pose.y_m)
        turn = (best.heading - heading + NUM_HEADINGS // 2) % NUM_HEADINGS - NUM_HEADINGS // 2
        if max(abs(best.row - row), abs(best.col - col), abs(turn)) > 1:
            missed.append((k, best.row - row, best.col - col, turn))
    assert missed == []
