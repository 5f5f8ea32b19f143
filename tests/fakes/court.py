"""A made-up court with exact class photos, panoramas and rigs of it."""

import numpy as np
import shapely
from shapely import box

from crossview import angles
from crossview.cameras import Equirectangular, Pinhole
from crossview.frames import Pose
from crossview.photos import Panorama, Photo, Rig
from crossview.synthetic.palette import colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Building, Scene

HEIGHT_M = 1.6
CAMERA = Pinhole.from_focal(400, 300, 200.0)

COURT = Scene(
    (
        # 24 m wide and 30 m long; the north-eastern corner steps in by 4 m
        Building(box(-40, 15, 6, 40), 9.0),
        Building(box(6, 11, 40, 40), 6.0),
        Building(box(12, -15, 40, 11), 12.0),
        Building(box(-40, -40, 40, -15), 7.0),
        Building(box(-40, -15, -12, 15), 5.0),
    )
)
WALLS = shapely.union_all([house.footprint for house in COURT.buildings])


def taken(scene, pose, camera=CAMERA, *, pitch_deg=0.0, roll_deg=0.0, height_m=HEIGHT_M) -> Photo:
    rendering = render_photo(
        scene, pose, camera, height_m=height_m, pitch_deg=pitch_deg, roll_deg=roll_deg
    )
    return Photo(colored(rendering.classes), camera, roll_deg, pitch_deg, height_m)


def sphere_taken(scene, pose, *, width_px=720, height_m=HEIGHT_M) -> Panorama:
    camera = Equirectangular(width_px, width_px // 2)
    rendering = render_photo(scene, pose, camera, height_m=height_m)
    return Panorama(colored(rendering.classes), height_m=height_m)


def rig_taken(scene, pose, mounts, camera=CAMERA) -> Rig:
    ahead = np.array(angles.forward(pose.heading_deg))
    right = np.array([ahead[1], -ahead[0]])
    photos = []
    for mount in mounts:
        x_m, y_m = (pose.x_m, pose.y_m) + mount.forward_m * ahead + mount.right_m * right
        stands = Pose(x_m, y_m, pose.heading_deg + mount.heading_deg)
        photos.append(taken(scene, stands, camera))
    return Rig(tuple(photos), tuple(mounts))
