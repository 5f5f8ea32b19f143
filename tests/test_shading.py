"""Pictures: shadows where geometry puts them, weather that does what it says, no flicker."""

import math
from dataclasses import replace
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import shapely
from pytest import approx
from shapely import Point, box

from crossview import angles
from crossview.cameras import Equirectangular, Pinhole, RadialDistortion
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.synthetic.appearance import Appearance
from crossview.synthetic.mesh import MeshBuilder, prism, regular_ring
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.scene import Building, Scene, Tree

NORTH = Pose(0.0, 0.0, 0.0)
CAMERA = Pinhole.from_focal(160, 120, 100.0)
PANORAMA = Equirectangular(128, 64)
MAP = MapGrid(LocalFrame(51.75, -1.25), -40.0, 40.0, 0.25, 320, 320)
BUILDING, ROAD, SKY = (CLASSES.index(name) for name in ("building", "road", "sky"))

PLAIN = Appearance(texture=0.0, paint=0.0, blur=0.0, visibility_m=math.inf)
"""Nothing but light."""

TOWER = Scene((Building(box(-5, -5, 5, 5), 12.0),), roads=box(-200, -200, 200, 200))
STREET = Scene(
    (
        Building(box(-30, 12, -4, 30), 9.0),
        Building(box(4, 15, 25, 40), 15.0),
        Building(box(-40, -30, 40, -20), 7.0),
    ),
    (Tree(0.0, 14.0, 7.0, 2.0), Tree(8.0, 6.0, 8.0, 2.5)),
    roads=box(-60, -3, 60, 3),
    sidewalks=box(-60, -6, 60, 6),
    water=box(-60, 45, 60, 60),
)


def photo(scene=STREET, appearance=PLAIN, camera=CAMERA, pose=NORTH, **options):
    return render_photo(scene, pose, camera, appearance=appearance, **options)


def brightness(rgb):
    return rgb.astype(float).mean(axis=-1)


def test_a_picture_has_the_shape_of_its_classes_and_cannot_be_written_to():
    rendering = photo()
    assert (rendering.rgb.shape, rendering.rgb.dtype) == ((120, 160, 3), np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        rendering.rgb[0] = 0
    view = render_satellite(STREET, MAP, appearance=PLAIN)
    assert (view.rgb.shape, view.rgb.dtype) == ((320, 320, 3), np.uint8)


def test_appearance_changes_no_class_and_no_distance():
    plain = render_photo(STREET, NORTH, PANORAMA)
    for seed in range(6):
        drawn = photo(appearance=Appearance.drawn(seed), camera=PANORAMA)
        assert np.array_equal(drawn.classes, plain.classes)
        assert np.array_equal(drawn.distance_m, plain.distance_m)


def test_pictures_are_the_same_whatever_the_number_of_threads():
    views = [(Pose(k - 3.0, 0.5, 40.0 * k), Appearance.drawn(k)) for k in range(8)]

    def taken(view):
        return photo(appearance=view[1], camera=PANORAMA, pose=view[0])

    alone = [taken(view) for view in views]
    for num_threads in (2, 4):
        with ThreadPool(num_threads) as pool:
            together = pool.map(taken, views)
        for one, other in zip(alone, together, strict=True):
            assert np.array_equal(one.classes, other.classes)
            assert np.array_equal(one.rgb, other.rgb)


# ---------------------------------------------------------------------- the sun


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(180, 45), (225, 30), (90, 60)])
def test_a_shadow_on_the_ground_is_where_shapely_puts_it(azimuth_deg, elevation_deg):
    sunny = replace(PLAIN, sun_azimuth_deg=azimuth_deg, sun_elevation_deg=elevation_deg)
    view = render_satellite(TOWER, MAP, appearance=sunny)
    east, north = angles.forward(azimuth_deg)
    length_m = 12.0 / math.tan(math.radians(elevation_deg))
    foot = box(-5, -5, 5, 5)
    far = shapely.affinity.translate(foot, -length_m * east, -length_m * north)
    x_m, y_m = np.meshgrid(*MAP.centers())
    expected = shapely.contains_xy(
        shapely.union_all([foot, far]).convex_hull.difference(foot), x_m, y_m
    )
    is_road = view.classes == ROAD
    level = brightness(view.rgb)
    dark = is_road & (level < (level[is_road].min() + level[is_road].max()) / 2)
    assert (dark & expected).sum() / (dark | expected).sum() > 0.95


def test_the_same_shadow_is_seen_from_the_street():
    sunny = replace(PLAIN, sun_azimuth_deg=270.0, sun_elevation_deg=45.0)
    # 12 m high: its shadow reaches from x = 5 to 17 on y = -5 to 5
    rendering = photo(TOWER, sunny, pose=Pose(11.0, -20.0, 0.0), height_m=4.0)
    lit, dark = (rendering.rgb[60 + round(100 * 4.0 / d), 80] for d in (11.0, 20.0))
    assert dark.astype(int).sum() < 0.75 * lit.astype(int).sum()


def test_walls_in_the_sun_are_brighter_than_those_that_turn_away():
    morning, evening = (
        photo(TOWER, replace(PLAIN, sun_azimuth_deg=azimuth), pose=Pose(-20, 0.0, 90.0))
        for azimuth in (90.0, 270.0)
    )
    # looking east at the western wall
    assert evening.classes[60, 80] == BUILDING
    assert (
        brightness(evening.rgb)[50:60, 70:90].mean()
        > 1.5 * brightness(morning.rgb)[50:60, 70:90].mean()
    )


def test_an_overcast_sky_casts_no_shadow():
    view = render_satellite(TOWER, MAP, appearance=replace(PLAIN, cloud_cover=1.0))
    ground = view.rgb[view.classes == ROAD].astype(int)
    assert np.ptp(ground, axis=0).max() <= 1


# ---------------------------------------------------------------------- patterns


@pytest.mark.parametrize("distance_m", [15.0, 40.0, 120.0])
def test_patterns_fade_into_their_mean_instead_of_flickering(distance_m):
    """A coarse image is the mean of a fine one, where a pixel sees several windows too."""
    scene = Scene((Building(box(-60, distance_m, 60, distance_m + 10), 24.0),))
    appearance = Appearance(blur=0.0, sun_azimuth_deg=30.0, visibility_m=math.inf)
    coarse = photo(scene, appearance, Pinhole.from_focal(40, 30, 25.0))
    fine = photo(scene, appearance, Pinhole.from_focal(640, 480, 400.0))
    mean = fine.rgb.reshape(30, 16, 40, 16, 3).astype(float).mean(axis=(1, 3))
    whole = (fine.classes == BUILDING).reshape(30, 16, 40, 16).all(axis=(1, 3))
    whole &= coarse.classes == BUILDING
    assert whole.sum() > 50
    difference = coarse.rgb[whole].astype(float) - mean[whole]
    assert np.abs(difference).mean() < 8
    assert np.abs(difference.mean(axis=0)).max() < 6


def test_walls_have_windows_up_close():
    scene = Scene((Building(box(-20, 10, 20, 20), 12.0),))
    rendering = photo(scene, replace(PLAIN, sun_azimuth_deg=0.0))
    wall = brightness(rendering.rgb)[:40][rendering.classes[:40] == BUILDING]
    assert np.ptp(wall) > 40


def test_a_world_seed_repaints_the_houses_and_nothing_else():
    one, other = (
        photo(appearance=replace(PLAIN, paint=1.0, world_seed=seed), camera=PANORAMA)
        for seed in (1, 2)
    )
    changed = (one.rgb != other.rgb).any(axis=-1)
    assert changed[one.classes == BUILDING].mean() > 0.5
    assert not changed[one.classes == SKY].any()
    assert not changed[one.classes == ROAD].any()


def test_things_differ_in_colour_only_as_much_as_paint_says():
    cars = MeshBuilder()
    for k in range(20):
        row = cars.surface("car", "paintwork", k + 1)
        cars.triangles(prism(regular_ring(-30.0 + 3 * k, 0.0, 1.0, 8), 0.0, 1.5), row)
    roads = Scene(roads=box(-50, -50, 50, 50))

    def spread(paint):
        look = replace(PLAIN, paint=paint, cloud_cover=1.0)
        view = render_satellite(roads, MAP, movers=cars.mesh(), appearance=look)
        roofs = view.rgb[(view.classes == CLASSES.index("car")) & (view.height_m > 1.49)]
        return roofs.astype(float).std(axis=0).max()

    assert spread(0.0) < 1
    assert spread(1.0) > 30


# ---------------------------------------------------------------------- weather and night


def test_snow_whitens_the_ground_and_roofs_and_leaves_walls():
    winter = replace(PLAIN, season="winter")
    bare, snowy = (photo(appearance=replace(winter, snow=s), height_m=12.0) for s in (0.0, 1.0))
    level = bare.normals[..., 2] > 0.9
    walls = (bare.classes == BUILDING) & ~level
    assert brightness(snowy.rgb)[level].mean() > 1.5 * brightness(bare.rgb)[level].mean()
    assert brightness(snowy.rgb)[walls].mean() == approx(
        brightness(bare.rgb)[walls].mean(), rel=0.15
    )


def test_snow_on_the_ground_puts_no_clouds_into_a_clear_sky():
    # the ground in the first rows: what comes after them must not know of it
    camera = Pinhole(64, 96, 60.0, 60.0, 32.0, 48.0)
    house = Scene((Building(box(-6, 10, 6, 20), 4.0),), roads=box(-90, -90, 90, 90))
    bare, snowy = (
        photo(house, replace(PLAIN, season="winter", snow=s), camera, height_m=12.0, roll_deg=180.0)
        for s in (0.0, 0.6)
    )
    is_sky = bare.classes == SKY
    assert is_sky.mean() > 0.2
    np.testing.assert_array_equal(snowy.rgb[is_sky], bare.rgb[is_sky])


def test_rain_darkens_the_street():
    dry, wet = (
        photo(appearance=replace(PLAIN, wetness=w, cloud_cover=0.3), pose=Pose(-30, 0, 90))
        for w in (0.0, 1.0)
    )
    near = np.zeros(dry.classes.shape, bool)
    near[-20:] = True
    assert brightness(wet.rgb)[near].mean() < 0.9 * brightness(dry.rgb)[near].mean()


def test_fog_hides_what_is_far_and_not_what_is_near():
    clear, foggy = (
        photo(TOWER, replace(PLAIN, cloud_cover=1.0, visibility_m=v), pose=Pose(0, -80, 0))
        for v in (math.inf, 60.0)
    )

    def contrast(rendering):  # of the tower before the sky
        level = brightness(rendering.rgb)
        return abs(level[rendering.classes == BUILDING].mean() - level[:20].mean())

    # 75 m off: exp(-3.912 * 75 / 60) is 0.8 %; 3 m off 82 % are left
    assert contrast(foggy) < 0.15 * contrast(clear)
    foot = brightness(foggy.rgb)[-1].mean() - brightness(clear.rgb)[-1].mean()
    assert 0 < foot < 0.5 * (brightness(foggy.rgb)[70].mean() - brightness(clear.rgb)[-1].mean())


def test_windows_and_lamps_shine_at_night():
    lamps = MeshBuilder()
    row = lamps.surface("pole", "lamp", 1)
    lamps.triangles(prism(regular_ring(0.0, 0.0, 0.3, 6), 5.0, 5.4), row)
    night = replace(PLAIN, sun_elevation_deg=-14.0)
    roads = Scene(roads=box(-50, -50, 50, 50))
    dark = render_satellite(roads, MAP, appearance=night)
    lamp = render_satellite(roads, MAP, appearance=night, movers=lamps.mesh())
    gain = brightness(lamp.rgb) - brightness(dark.rgb)
    assert gain[160 + 12, 160] > 10  # 3 m from it
    assert abs(gain[10, 10]) < 1
    houses = photo(Scene((Building(box(-40, 12, 40, 30), 15.0),)), night)
    walls = brightness(houses.rgb)[houses.classes == BUILDING]
    assert np.percentile(walls, 99) > 2 * np.median(walls)


@pytest.mark.parametrize("cloud_cover", [0.0, 1.0])
def test_the_sky_darkens_through_the_twilights_until_it_is_night(cloud_cover):
    def sky(elevation_deg):
        look = replace(PLAIN, sun_elevation_deg=elevation_deg, cloud_cover=cloud_cover)
        rendering = photo(TOWER, look, pose=Pose(0.0, -60.0, 0.0), pitch_deg=25.0)
        is_high = rendering.classes == SKY
        is_high[30:] = False
        return brightness(rendering.rgb)[is_high].mean()

    day, civil, nautical, astronomical, night = map(sky, (10.0, -6.0, -9.0, -12.0, -18.0))
    assert day > civil + 30 > nautical + 60 > astronomical + 75
    assert astronomical < 60  # 90, as at dusk, is no night
    assert night < 35
    assert sky(-12.5) <= astronomical


def test_bare_crowns_have_no_seams():
    tree = Scene(trees=(Tree(0.0, 12.0, 10.0, 3.0),))
    camera = Pinhole.from_focal(600, 600, 1500.0)
    look = replace(PLAIN, season="winter", cloud_cover=1.0)
    rendering = photo(tree, look, camera, Pose(3.0, -1.0, 342.0), pitch_deg=24.0)
    level = brightness(rendering.rgb)
    east, north, up = np.moveaxis(np.abs(rendering.normals), -1, 0)
    is_crown = rendering.classes == CLASSES.index("vegetation")
    inner = is_crown[:-1] & is_crown[1:]
    assert inner.mean() > 0.5
    step = np.abs(np.diff(level, axis=0))
    for side in (up < 0.6, (east > north) | (up > 0.6)):
        row, col = np.nonzero((inner & (side[:-1] != side[1:]))[3:-3])
        assert len(row) > 50
        beside = (step[row, col] + step[row + 6, col]) / 2  # 3 pixels above and below
        assert step[row + 3, col].mean() < 1.5 * beside.mean()


def test_broad_leaved_trees_change_with_the_season():
    colors = {}
    for season in ("summer", "autumn", "winter"):
        rendering = photo(appearance=replace(PLAIN, season=season))
        crown = rendering.rgb[(rendering.classes == CLASSES.index("vegetation"))].astype(float)
        colors[season] = crown.mean(axis=0)
    assert colors["summer"][1] > 1.2 * colors["summer"][0]
    assert colors["autumn"][0] > colors["summer"][0]
    assert colors["winter"][1] < 1.1 * colors["winter"][0]


# ---------------------------------------------------------------------- the camera


def test_exposure_saturation_and_colour_cast():
    plain = photo()
    brighter = photo(appearance=replace(PLAIN, exposure_ev=1.0))
    assert brightness(brighter.rgb).mean() > 1.15 * brightness(plain.rgb).mean()
    grey = photo(appearance=replace(PLAIN, saturation=0.0)).rgb.astype(int)
    assert np.ptp(grey, axis=-1).max() <= 1
    warm = photo(appearance=replace(PLAIN, color_cast=(1.3, 1.0, 0.8))).rgb.astype(float)
    assert warm[..., 0].mean() > plain.rgb[..., 0].mean()
    assert warm[..., 1].mean() == approx(plain.rgb[..., 1].mean())
    assert warm[..., 2].mean() < plain.rgb[..., 2].mean()


def test_noise_has_the_deviation_that_is_asked_for():
    still = photo().rgb.astype(float)
    noisy = photo(appearance=replace(PLAIN, noise_levels=5.0, noise_seed=1)).rgb
    other = photo(appearance=replace(PLAIN, noise_levels=5.0, noise_seed=2)).rgb
    inner = (still > 30) & (still < 225)
    difference = (noisy.astype(float) - still)[inner]
    assert difference.std() == approx(5.0, rel=0.05)
    assert difference.mean() == approx(0.0, abs=0.2)
    assert (noisy != other).mean() > 0.8


def test_a_picture_through_jpeg_differs_a_little():
    plain = photo().rgb.astype(float)
    good, poor = (
        photo(appearance=replace(PLAIN, jpeg_quality=quality)).rgb.astype(float)
        for quality in (95, 10)
    )
    assert 0 < np.abs(good - plain).mean() < np.abs(poor - plain).mean() < 15


def test_a_panorama_has_no_seam():
    # a uniform ground and sky: both ends are neighbours
    appearance = replace(PLAIN, blur=0.5, cloud_cover=1.0)
    rgb = photo(TOWER, appearance, PANORAMA, Pose(0, -30, 0)).rgb.astype(int)
    assert np.abs(rgb[:, 0] - rgb[:, -1]).max() <= 2


def test_what_the_lens_does_not_reach_is_black():
    lens = RadialDistortion(80.0, 60.0, (-5e-5,))
    camera = Pinhole(160, 120, 100.0, 100.0, 80.0, 60.0, lens)
    rendering = photo(camera=camera, pitch_deg=3.0)
    beyond = np.isnan(rendering.distance_m)
    assert beyond.any()
    assert not rendering.rgb[beyond].any()


def test_a_level_camera_sees_the_same_colours_by_columns_and_ray_by_ray():
    level = photo(appearance=Appearance(), pose=Pose(0.3, 0.1, 20.0))
    # a pitch too small to see makes it go ray by ray
    single = photo(appearance=Appearance(), pose=Pose(0.3, 0.1, 20.0), pitch_deg=1e-9)
    assert np.mean(level.rgb != single.rgb) < 0.01


def test_crowns_cast_round_shadows():
    tree = Scene(trees=(Tree(0.0, 0.0, 10.0, 3.0),), roads=box(-50, -50, 50, 50))
    view = render_satellite(
        tree, MAP, appearance=replace(PLAIN, sun_azimuth_deg=180.0, sun_elevation_deg=45.0)
    )
    # the crown's middle is 6.5 m up, and its shadow as far north; halves 3 and hypot(3, 3.5) m
    level, x_m, y_m = brightness(view.rgb), *np.meshgrid(*MAP.centers())
    ellipse = (x_m / 3.0) ** 2 + ((y_m - 6.5) / math.hypot(3.0, 3.5)) ** 2 < 1
    expected = ellipse & (view.classes == ROAD)
    road = view.classes == ROAD
    dark = road & (level < (level[road].min() + level[road].max()) / 2)
    near = Point(0, 6.5).buffer(5).contains(shapely.points(x_m, y_m))
    assert (dark & expected & near).sum() / ((dark | expected) & near).sum() > 0.85
