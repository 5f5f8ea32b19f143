"""Levelled columns of class images: the same thing at the same angle, whoever saw it."""

import numpy as np
import pytest
from fakes.court import CAMERA, COURT, HEIGHT_M, rig_taken, sphere_taken, taken
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from shapely import box

from crossview import columns
from crossview.cameras import Equirectangular, Pinhole
from crossview.columns import GROUPS, NUM_AZIMUTHS, NUM_ELEVATIONS, ColumnView
from crossview.frames import Pose
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.synthetic.palette import CLASSES, PaletteSegmenter, colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Building, Scene

SEGMENTER = PaletteSegmenter()
POSE = Pose(2.3, -3.1, 37.0)
ROAD, WALL, SKY, OTHER = (list(GROUPS).index(name) for name in ("road", "wall", "sky", "other"))
GROUP_OF = np.array(
    [next(i for i, names in enumerate(GROUPS.values()) if name in names) for name in CLASSES]
)
CORNERS = tuple(Mount(heading_deg) for heading_deg in (0.0, 90.0, 180.0, 270.0))
LARGE = Pinhole.from_focal(800, 600, 400.0)


def observed(query):
    return columns.observed(query, SEGMENTER)


def exact_columns(scene, pose, *, height_m=HEIGHT_M):
    """What levelled columns hold, by one ray for every sample of every bin."""
    # four samples to a column of 256, four rows to a degree; columns of a bin straddle its centre
    rendering = render_photo(scene, pose, Equirectangular(1024, 720), height_m=height_m)
    shares = np.eye(len(GROUPS), dtype=np.float32)[GROUP_OF[rendering.classes]]
    upwards = np.roll(shares[::-1], 2 - 512, axis=1)[120:]
    return upwards.reshape(600, 256, 4, len(GROUPS)).mean(axis=2).transpose(1, 0, 2)


@pytest.fixture(scope="module")
def exact_court():
    return exact_columns(COURT, POSE)


def wrong_share(view, probability, *, at_least=0.05):
    """Mean probability that a view puts elsewhere, where it sees anything."""
    assert view.seen.mean() > at_least
    off = np.abs(view.probability - probability).sum(axis=-1) / 2
    return off[view.seen].mean()


def blank(label, *, camera=CAMERA, **options):
    """A photo all of one class."""
    labels = np.full((camera.height_px, camera.width_px), CLASSES.index(label), np.uint8)
    return Photo(colored(labels), camera, **options)


def lowest_deg(view, group, azimuth):
    """Lower edge of what a column shows of a group."""
    bins = np.flatnonzero(view.probability[azimuth, :, group] > 0.5)
    return columns.LOWEST_DEG + 0.25 * bins[0]


# ---------------------------------------------------------------------- geometry


def test_a_panorama_shows_what_exact_rays_meet(exact_court):
    view = observed(sphere_taken(COURT, POSE, width_px=1440))
    assert view.seen.all()
    assert wrong_share(view, exact_court) < 0.001


def test_a_photo_shows_what_exact_rays_meet_and_only_its_field_of_view(exact_court):
    view = observed(taken(COURT, POSE, LARGE))
    assert wrong_share(view, exact_court) < 0.002
    # 90 degrees across: 32 columns to both sides, the outermost in part
    seen = np.flatnonzero(view.seen.any(axis=1))
    assert set(range(-31, 32)) <= {(k + 128) % 256 - 128 for k in seen}
    assert set(seen) <= {k % 256 for k in range(-32, 33)}


def test_a_rig_around_one_point_shows_what_exact_rays_meet_in_all_directions(exact_court):
    view = observed(rig_taken(COURT, POSE, CORNERS, LARGE))
    assert view.seen.any(axis=1).all()
    assert wrong_share(view, exact_court) < 0.002


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(7.0, -5.0), (-9.0, 12.0), (0.0, 90.0)])
def test_pitch_and_roll_are_undone(exact_court, pitch_deg, roll_deg):
    photo = taken(COURT, POSE, LARGE, pitch_deg=pitch_deg, roll_deg=roll_deg)
    assert wrong_share(observed(photo), exact_court) < 0.002


def test_ignoring_a_pitch_of_7_degrees_would_show():
    tilted = taken(COURT, POSE, LARGE, pitch_deg=7.0)
    believed = Photo(tilted.image, LARGE, height_m=HEIGHT_M)
    assert wrong_share(observed(believed), exact_columns(COURT, POSE)) > 0.05


def test_a_photo_stored_upside_down_gives_the_same_columns():
    upright = taken(COURT, POSE, LARGE)
    stored = Photo(upright.image[::-1, ::-1], LARGE, roll_deg=180.0, height_m=HEIGHT_M)
    assert np.array_equal(observed(stored).probability, observed(upright).probability)


def test_azimuth_90_is_to_the_right_in_column_64():
    labels = np.full((180, 360), CLASSES.index("sky"), np.uint8)
    labels[:, 264:277] = CLASSES.index("building")  # 84 .. 97 degrees to the right of the middle
    view = observed(Panorama(colored(labels)))
    walls = np.flatnonzero((view.probability[..., WALL] == 1).all(axis=1))
    # whole columns within: 84 / 1.40625 = 59.7 and 97 / 1.40625 = 69.0, each half a column wide
    assert walls.tolist() == list(range(61, 69))


def test_a_row_of_a_panorama_is_at_its_elevation():
    labels = np.full((360, 720), CLASSES.index("sky"), np.uint8)
    labels[176:178] = CLASSES.index("building")  # 2 .. 1 degrees above the middle row
    view = observed(Panorama(colored(labels)))
    bins = np.flatnonzero(view.probability[17, :, WALL])
    assert columns.elevations_deg()[bins] == approx([1.125, 1.375, 1.625, 1.875])


def test_the_number_of_columns_is_free():
    view = columns.observed(sphere_taken(COURT, POSE), SEGMENTER, num_azimuths=64)
    assert view.seen.shape == (64, NUM_ELEVATIONS)
    fine = observed(sphere_taken(COURT, POSE))
    # 4 samples are spread over 4 times the width
    middle = fine.probability[32 * 4]
    assert np.abs(view.probability[32] - middle).mean() < 0.02


# --------------------------------------------------------------- cameras of a rig


WALL_AHEAD = Scene((Building(box(-30, 8, 30, 20), 9.0),))
NORTH = Pose(0.0, 0.0, 0.0)
SHIFTED = (Mount(0.0, 0.0, 0.0), Mount(0.0, 0.5, 0.5))


@pytest.mark.parametrize("mount", [Mount(0.0, 0.5, 0.5), Mount(20.0, -0.4, -0.6)])
def test_a_wall_base_is_where_the_reference_would_see_it(mount):
    # the first photo is the reference, and masked away
    rig = rig_taken(WALL_AHEAD, NORTH, (Mount(), mount), LARGE)
    hidden = Photo(rig.photos[0].image, LARGE, height_m=HEIGHT_M, mask=np.zeros((600, 800), bool))
    view = observed(Rig((hidden, rig.photos[1]), rig.mounts))
    for azimuth in (0, 3, 6, 9, 12):
        range_m = 8.0 / np.cos(2 * np.pi * azimuth / NUM_AZIMUTHS)
        expected_deg = -np.rad2deg(np.arctan(HEIGHT_M / range_m))
        assert lowest_deg(view, WALL, azimuth) == approx(expected_deg, abs=0.26)


def test_without_the_offset_the_wall_base_would_be_elsewhere():
    rig = rig_taken(WALL_AHEAD, NORTH, (Mount(0.0, 0.5, 0.5),), LARGE)
    believed = Rig(rig.photos, (Mount(),))
    expected_deg = -np.rad2deg(np.arctan(HEIGHT_M / 8.0))
    assert abs(lowest_deg(observed(believed), WALL, 0) - expected_deg) > 0.5


def test_a_higher_camera_of_a_rig_sees_the_ground_where_the_reference_would():
    low = taken(WALL_AHEAD, NORTH, LARGE, height_m=1.6)
    high = taken(WALL_AHEAD, NORTH, LARGE, height_m=2.1)
    hidden = Photo(low.image, LARGE, height_m=1.6, mask=np.zeros((600, 800), bool))
    view = observed(Rig((hidden, high), (Mount(), Mount())))
    assert view.height_m == 1.6
    assert lowest_deg(view, WALL, 0) == approx(-np.rad2deg(np.arctan(1.6 / 8.0)), abs=0.26)


def test_what_stands_10_metres_away_is_moved_exactly():
    scene = Scene((Building(box(-30, 10, 30, 20), 6.0),))
    rig = rig_taken(scene, NORTH, (Mount(), Mount(0.0, 0.6, 0.0)), LARGE)
    hidden = Photo(rig.photos[0].image, LARGE, height_m=HEIGHT_M, mask=np.zeros((600, 800), bool))
    view = observed(Rig((hidden, rig.photos[1]), rig.mounts))
    roof = np.flatnonzero(view.probability[0, :, WALL] > 0.5)[-1] + 1
    expected_deg = np.rad2deg(np.arctan((6.0 - HEIGHT_M) / 10.0))
    assert columns.LOWEST_DEG + 0.25 * roof == approx(expected_deg, abs=0.26)


def test_where_two_photos_see_the_same_they_are_averaged():
    view = observed(Rig((blank("road"), blank("sky")), (Mount(), Mount())))
    shares = view.probability[view.seen]
    assert shares[:, ROAD] == approx(0.5)
    assert shares[:, SKY] == approx(0.5)


def test_the_height_of_the_view_is_that_of_the_first_photo():
    rig = Rig((blank("sky", height_m=2.5), blank("sky", height_m=1.0)), (Mount(), Mount(90.0)))
    assert observed(rig).height_m == 2.5


# ------------------------------------------------------------- seen and not seen


def test_probabilities_sum_to_1_where_seen_and_to_0_elsewhere():
    view = observed(taken(COURT, POSE))
    total = view.probability.sum(axis=-1)
    assert total[view.seen] == approx(1.0, abs=1e-5)
    assert np.all(total[~view.seen] == 0.0)
    assert 0.02 < view.seen.mean() < 0.25


def test_masked_pixels_are_not_seen():
    mask = np.ones((300, 400), bool)
    mask[200:] = False  # more than 50 px below the middle of a focal length of 200 px
    masked, whole = observed(blank("road", mask=mask)), observed(blank("road"))
    edge_deg = -np.rad2deg(np.arctan(50 / 200))
    seen_deg = columns.elevations_deg()[masked.seen[0]]
    assert seen_deg.min() == approx(edge_deg, abs=0.3)
    assert columns.elevations_deg()[whole.seen[0]].min() == approx(
        -np.rad2deg(np.arctan(150 / 200)), abs=0.3
    )


def test_a_masked_half_of_a_panorama_leaves_the_other_half():
    labels = np.full((90, 180), CLASSES.index("sky"), np.uint8)
    mask = np.ones((90, 180), bool)
    mask[:, 90:] = False
    view = observed(Panorama(colored(labels), mask=mask))
    assert view.seen[129:256].all()
    assert not view.seen[1:128].any()


def test_what_is_all_masked_sees_nothing():
    view = observed(blank("road", mask=np.zeros((300, 400), bool)))
    assert not view.seen.any()
    assert not view.probability.any()


class HalfSize(PaletteSegmenter):
    """A segmenter whose output has half the rows and columns, as a network's may."""

    def __call__(self, image):
        return super().__call__(image)[::2, ::2]


def test_a_segmenter_may_answer_in_another_resolution(exact_court):
    view = columns.observed(taken(COURT, POSE, LARGE), HalfSize())
    assert wrong_share(view, exact_court) < 0.01


def test_segmenting_first_and_levelling_later_is_observing():
    rig = rig_taken(COURT, POSE, CORNERS)
    whole = observed(rig)
    parts = columns.levelled(columns.segmented(rig, SEGMENTER))
    assert np.array_equal(parts.probability, whole.probability)


# ------------------------------------------------------------------------- groups


def test_every_class_of_cityscapes_is_in_one_group():
    member = columns.grouping(CLASSES)
    assert member.shape == (len(CLASSES), len(GROUPS))
    assert np.array_equal(np.argmax(member, axis=1), GROUP_OF)
    assert np.all(member.sum(axis=1) == 1)


def test_probabilities_of_a_groups_classes_are_added():
    class Undecided:
        classes = ("wall", "sky", "building")

        def __call__(self, image):
            return np.broadcast_to(np.float32([0.25, 0.35, 0.4]), (*image.shape[:2], 3))

    view = columns.observed(blank("road"), Undecided())
    assert view.probability[0, 240, WALL] == approx(0.65)
    assert view.probability[0, 240, SKY] == approx(0.35)


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(ValueError, match=r"do not: boat, crane\. Expected names of Cityscapes"):
        columns.grouping(("road", "boat", "sky", "crane"))


# --------------------------------------------------------------------------- bins


def test_elevation_bins_run_from_60_below_to_the_zenith():
    elevations = columns.elevations_deg()
    assert (len(elevations), elevations[0], elevations[-1]) == (600, -59.875, 89.875)


@pytest.mark.parametrize(
    ("elevation_deg", "expected"),
    [(-90, 0), (-60, 0), (-59.8, 1), (-0.1, 240), (0, 240), (0.2, 241), (89.9, 600), (90, 600)],
)
def test_the_bins_below_an_elevation_by_hand(elevation_deg, expected):
    assert columns.elevation_bin(np.array(elevation_deg)) == expected


@given(st.floats(-90, 90))
def test_as_many_bins_have_their_centre_below_an_elevation(elevation_deg):
    below = int(columns.elevation_bin(np.array(elevation_deg)))
    elevations = columns.elevations_deg()
    assert np.all(elevations[:below] <= elevation_deg + 1e-9)
    assert np.all(elevations[below:] >= elevation_deg - 1e-9)


# ---------------------------------------------------------------------- keeping


def test_a_saved_view_comes_back_to_a_level_of_255(tmp_path):
    view = observed(taken(COURT, POSE, height_m=2.25))
    view.save(tmp_path / "view.npz")
    again = ColumnView.load(tmp_path / "view.npz")
    assert np.abs(again.probability - view.probability).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(again.seen, view.seen)
    assert (again.height_m, again.num_azimuths) == (2.25, NUM_AZIMUTHS)


def test_the_arrays_of_a_view_are_read_only():
    view = observed(blank("sky"))
    for name in ("probability", "seen"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(view, name)[0] = 0


@pytest.mark.parametrize("shape", [(8, NUM_ELEVATIONS, 6), (8, 10, 7), (9, NUM_ELEVATIONS, 7)])
def test_arrays_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"probabilities of \(azimuths, 600, 7\)"):
        ColumnView(np.zeros(shape, np.float32), np.zeros((8, NUM_ELEVATIONS), bool), 1.6)
