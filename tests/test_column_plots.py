import numpy as np
import pytest
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pytest import approx

from crossview import columns, plots
from crossview.cameras import Equirectangular
from crossview.column_plots import GROUP_COLORS
from crossview.columns import GROUPS, NUM_ELEVATIONS, ColumnView, elevation_bin
from crossview.frames import Pose
from crossview.photos import Panorama
from crossview.synthetic.palette import PaletteSegmenter, colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Building, Scene

FULL_TURN = slice(None)
HORIZON = int(elevation_bin(0.0))


def new_axes(layout="constrained", size=(10.0, 5.0)):
    return Figure(figsize=size, layout=layout, dpi=72).subplots()


def view_of(drawn, *, num_azimuths=256, seen=None, height_m=2.0):
    """Road below the horizon and sky above it, but for (azimuths, elevations, {group: share})."""
    probability = np.zeros((num_azimuths, NUM_ELEVATIONS, len(GROUPS)), np.float32)
    names = list(GROUPS)
    probability[:, :HORIZON, names.index("road")] = 1
    probability[:, HORIZON:, names.index("sky")] = 1
    for azimuths, elevations, shares in drawn:
        probability[azimuths, elevations] = 0
        for name, share in shares.items():
            probability[azimuths, elevations, names.index(name)] = share
    if seen is None:
        seen = np.ones(probability.shape[:2], bool)
    return ColumnView(probability * seen[..., None], seen, height_m)


def color_at(ax, azimuth_deg, elevation_deg):
    """(red, green, blue, opacity) of the picture at a place of the axes."""
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    rows, cols, _ = image.get_array().shape
    col = int((azimuth_deg - left) / (right - left) * cols)
    row = int((elevation_deg - bottom) / (top - bottom) * rows)
    return np.ma.getdata(image.get_array())[row, col]


def drawn(ax, name, part):
    """Elevations by relative azimuth of a pose's first or second line."""
    lines = [line for line in ax.lines if line.get_label().startswith(f"{name}:")]
    x, y = lines[("wall foot", "skyline").index(part)].get_data()
    return dict(zip(np.round(x, 6).tolist(), y.tolist(), strict=True))


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def nowhere(num_azimuths=256):
    return np.full(num_azimuths, np.inf), np.zeros(num_azimuths)


def test_ahead_is_in_the_middle_and_the_right_on_the_right():
    view = view_of(
        [(0, slice(HORIZON, None), {"wall": 1}), (64, slice(HORIZON, None), {"plant": 1})]
    )
    ax = new_axes()
    assert plots.columns(view, ax) is ax
    assert ax.get_xlim() == (-180, 180)
    assert color_at(ax, 0.0, 5.0) == approx([*to_rgb(GROUP_COLORS["wall"]), 1])
    assert color_at(ax, 90.0, 5.0) == approx([*to_rgb(GROUP_COLORS["plant"]), 1])
    # bins are 1.4 degrees wide and centred
    assert color_at(ax, 0.8, 5.0) == approx([*to_rgb(GROUP_COLORS["sky"]), 1])
    assert color_at(ax, -0.8, 5.0) == approx([*to_rgb(GROUP_COLORS["sky"]), 1])
    assert color_at(ax, 0.0, -5.0) == approx([*to_rgb(GROUP_COLORS["road"]), 1])


@pytest.mark.parametrize("num_azimuths", [8, 9])
def test_what_is_behind_shows_at_both_ends(num_azimuths):
    behind = [(slice(4, 6), slice(HORIZON, None), {"wall": 1})]
    ax = new_axes()
    plots.columns(view_of(behind, num_azimuths=num_azimuths), ax)
    for azimuth_deg in (-179.9, 179.9):
        assert color_at(ax, azimuth_deg, 5.0) == approx([*to_rgb(GROUP_COLORS["wall"]), 1])


def test_up_is_up_and_axes_say_degrees():
    ax = new_axes()
    plots.columns(view_of([]), ax)
    low, high = ax.get_ylim()
    assert low < 0 < high
    assert "(°)" in ax.get_xlabel()
    assert ax.get_ylabel() == "elevation (°)"
    assert "0\nahead" in [label.get_text() for label in ax.get_xticklabels()]


def test_a_wall_10_m_away_seen_from_2_m_begins_at_minus_11_3_degrees():
    range_m, skyline_deg = nowhere()
    range_m[0], skyline_deg[64] = 10.0, 33.0
    ax = new_axes()
    plots.columns(view_of([]), ax, poses={"best": (range_m, skyline_deg)})
    foot = drawn(ax, "best", "wall foot")
    assert foot[0.0] == approx(-11.3, abs=0.01)
    # there is no wall anywhere else
    assert np.isfinite(list(foot.values())).sum() == 1
    skyline = drawn(ax, "best", "skyline")
    assert skyline[90.0] == approx(33.0)
    assert skyline[-90.0] == 0


def test_what_a_map_does_not_know_is_a_gap():
    range_m, skyline_deg = np.full(256, np.nan), np.full(256, np.nan)
    ax = new_axes()
    plots.columns(view_of([]), ax, poses={"best": (range_m, skyline_deg)})
    assert not np.isfinite(list(drawn(ax, "best", "wall foot").values())).any()
    assert not np.isfinite(list(drawn(ax, "best", "skyline").values())).any()


def test_the_line_of_the_true_pose_lies_on_the_foot_of_the_wall():
    """A panorama of one house whose front is 10 m ahead, taken from 2 m."""
    scene = Scene(buildings=(Building(shapely.box(-20, 10, 20, 30), 8.0),))
    camera = Equirectangular(width_px=1024, height_px=512)
    classes = render_photo(scene, Pose(0, 0, 0), camera, height_m=2.0).classes
    view = columns.observed(Panorama(colored(classes), height_m=2.0), PaletteSegmenter())
    range_m, skyline_deg = nowhere()
    range_m[0], skyline_deg[0] = 10.0, np.rad2deg(np.arctan2(6, 10))
    ax = new_axes()
    plots.columns(view, ax, poses={"true": (range_m, skyline_deg)})
    wall = [*to_rgb(GROUP_COLORS["wall"]), 1]
    foot_deg = drawn(ax, "true", "wall foot")[0.0]
    roof_deg = drawn(ax, "true", "skyline")[0.0]
    assert color_at(ax, 0.0, foot_deg + 0.5) == approx(wall, abs=0.01)
    assert color_at(ax, 0.0, foot_deg - 0.5) != approx(wall, abs=0.01)
    assert color_at(ax, 0.0, roof_deg - 0.5) == approx(wall, abs=0.01)
    assert color_at(ax, 0.0, roof_deg + 0.5) != approx(wall, abs=0.01)


def test_a_photo_is_cropped_to_what_it_sees():
    seen = np.zeros((256, NUM_ELEVATIONS), bool)
    across = np.arange(-32, 33)  # 45 degrees to both sides
    seen[np.ix_(across, np.arange(*elevation_bin(np.array([-30.0, 40.0]))))] = True
    ax = new_axes()
    plots.columns(view_of([], seen=seen), ax)
    half_bin_deg, margin_deg = 360 / 512, 3
    assert ax.get_xlim() == approx(
        (-45 - half_bin_deg - margin_deg, 45 + half_bin_deg + margin_deg)
    )
    assert ax.get_ylim() == approx((-33, 43))
    assert color_at(ax, 47.0, 0.0)[3] == 0
    assert "not seen" in texts(ax)


def test_a_full_turn_without_a_column_is_a_full_turn():
    seen = np.ones((256, NUM_ELEVATIONS), bool)
    seen[126:131] = False
    ax = new_axes()
    plots.columns(view_of([], seen=seen), ax)
    assert ax.get_xlim() == (-180, 180)


def test_unsure_bins_are_paler():
    ax = new_axes()
    where = (slice(None), slice(HORIZON, None))
    plots.columns(view_of([(*where, {"wall": 0.6, "sky": 0.4})]), ax)
    expected = 0.4 + 0.6 * np.array(to_rgb(GROUP_COLORS["wall"]))
    assert color_at(ax, 0.0, 5.0)[:3] == approx(expected, abs=1e-6)


def test_the_legend_names_groups_that_occur_and_poses():
    ax = new_axes()
    plots.columns(view_of([(3, 3, {"mover": 1})]), ax, poses={"best": nowhere(), "true": nowhere()})
    assert texts(ax) == [
        "road",
        "sky",
        "mover",
        "best: wall foot, skyline",
        "true: wall foot, skyline",
    ]
    best, true = (handle for handle in ax.get_legend().get_lines())
    assert best.get_color() != true.get_color()
    assert best.get_linestyle() != true.get_linestyle()


def test_every_group_has_a_colour_of_its_own():
    assert list(GROUP_COLORS) == list(GROUPS)
    assert len(set(GROUP_COLORS.values())) == len(GROUPS)


@pytest.mark.parametrize("layout", ["constrained", None])
def test_strips_lie_below_the_columns_that_they_are_about(layout):
    ax = new_axes(layout)
    fit = np.zeros(256)
    fit[64] = 1.5
    plots.columns(view_of([]), ax, poses={"best": nowhere()}, explained={"best": fit, "true": -fit})
    FigureCanvasAgg(ax.figure).draw()
    first, second = (child for child in ax.child_axes if child.get_yticklabels())
    above, renderer = ax.get_window_extent(), ax.figure.canvas.get_renderer()
    for strip, sign in ((first, 1), (second, -1)):
        box = strip.get_window_extent()
        assert (box.x0, box.x1) == approx((above.x0, above.x1), abs=0.01)
        assert box.y1 < above.y0
        above_right, _ = strip.transData.transform((90.0, 0.5))
        assert above_right == approx(ax.transData.transform((90.0, 0))[0])
        (image,) = strip.images
        left, right, _, _ = image.get_extent()
        values = image.get_array()
        at = int((90.0 - left) / (right - left) * values.shape[1])
        assert values[0, at] == approx(1.5 * sign)
        assert np.count_nonzero(values) == 1
        assert image.get_clim() == (-1.5, 1.5)
    assert second.get_window_extent().y1 < first.get_window_extent().y0
    for artist in (ax, *ax.child_axes, ax.get_legend()):
        box = artist.get_tightbbox(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= ax.figure.bbox.x1
    assert second.get_xlabel()
    assert not ax.get_xlabel()


def test_columns_want_one_number_per_azimuth():
    with pytest.raises(ValueError, match="ranges of 'best': expected one number per azimuth"):
        plots.columns(view_of([]), new_axes(), poses={"best": (np.zeros((4, 4)), np.zeros(4))})
    with pytest.raises(ValueError, match="What 'best' explains: expected one"):
        plots.columns(view_of([]), new_axes(), explained={"best": np.float64(3)})


def test_a_view_that_sees_nothing_is_refused():
    seen = np.zeros((256, NUM_ELEVATIONS), bool)
    with pytest.raises(ValueError, match="sees nothing"):
        plots.columns(view_of([], seen=seen), new_axes())
