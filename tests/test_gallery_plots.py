"""Pictures of galleries: what is drawn where, in which colour."""

from dataclasses import replace

import numpy as np
import pytest
from fakes.galleries import FakeEncoder, descriptors, gallery, pictures, tile_dataset
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from crossview import gallery_plots
from crossview.frames import Pose
from crossview.gallery import Disc
from crossview.gallery_build import build
from crossview.grids import Bounds
from crossview.photos import Panorama
from crossview.preprocessing import Preprocessing

QUERY = descriptors(1, seed=7)[0]
VIEW = Bounds(-500, -400, 700, 600)


@pytest.fixture
def ax():
    return Figure(figsize=(6, 6), layout="constrained", dpi=72).subplots()


def drawn(ax, kind):
    (one,) = (artist for artist in ax.get_children() if isinstance(artist, kind))
    return one


def point(ax, label):
    (line,) = (line for line in ax.lines if line.get_label().startswith(label))
    return tuple(np.ravel(line.get_data()))


def test_a_dot_is_at_every_tile_in_view_with_its_similarity(ax):
    made = gallery()
    similarity = made.similarity(QUERY)
    assert gallery_plots.similarity_scatter(made, similarity, ax, view=VIEW) is ax
    dots = drawn(ax, EllipseCollection)
    shown = dict(
        zip(map(tuple, np.asarray(dots.get_offsets())), np.asarray(dots.get_array()), strict=True)
    )
    expected = {
        tuple(place): value
        for place, value in zip(made.positions_m, similarity, strict=True)
        if -500 <= place[0] <= 700 and -400 <= place[1] <= 600
    }
    assert 20 < len(expected) < 400
    assert shown == pytest.approx(expected)
    assert list(dots.get_array()) == sorted(dots.get_array())  # the reddest on top
    assert (ax.get_xlim(), ax.get_ylim()) == ((-500, 700), (-400, 600))
    # white is a tile like most, the darkest is the best of all, in view or not
    low, high = dots.get_clim()
    assert np.mean(similarity < low) == pytest.approx(0.2, abs=0.01)
    assert high == similarity.max()


def test_prior_best_and_truth_are_marked(ax):
    made, prior = gallery(), Disc(100, 50, 300)
    gallery_plots.similarity_scatter(
        made, made.similarity(QUERY), ax, prior=prior, truth=Pose(120, 80)
    )
    circle = drawn(ax, Circle)
    assert (circle.center, circle.radius) == ((100, 50), 300)
    assert point(ax, "truth") == (120, 80)
    best = made.search(QUERY, 1, prior=prior).rows[0]
    assert point(ax, "best tile in the prior") == tuple(made.positions_m[best])


def test_without_a_prior_the_best_is_that_of_all(ax):
    made = gallery()
    gallery_plots.similarity_raster(made, made.similarity(QUERY), ax)
    best = made.positions_m[made.search(QUERY, 1).rows[0]]
    assert point(ax, "best tile") == tuple(best)
    for low_high, axis in ((ax.get_xlim(), 0), (ax.get_ylim(), 1)):
        assert low_high[0] < made.positions_m[:, axis].min() - 32  # half a tile
        assert low_high[1] > made.positions_m[:, axis].max() + 32


def test_a_raster_has_the_similarity_of_the_tile_that_a_place_belongs_to(ax):
    made = gallery(1500)
    similarity = made.similarity(QUERY)
    gallery_plots.similarity_raster(made, similarity, ax, view=VIEW)
    (image,) = ax.images
    values = image.get_array()
    west, east, south, north = image.get_extent()
    rng = np.random.default_rng(0)
    covered = 0
    for x_m, y_m in zip(rng.uniform(-490, 690, 200), rng.uniform(-390, 590, 200), strict=True):
        row = int((north - y_m) / (north - south) * values.shape[0])
        col = int((x_m - west) / (east - west) * values.shape[1])
        center_x = west + (col + 0.5) * (east - west) / values.shape[1]
        center_y = north - (row + 0.5) * (north - south) / values.shape[0]
        owner = made.owner_of(center_x, center_y)
        assert bool(values.mask[row, col]) == (owner is None)
        if owner is not None:
            covered += 1
            assert values[row, col] == pytest.approx(similarity[owner])
    assert 40 < covered < 195


def test_three_zooms_show_all_and_what_is_around_the_truth():
    figure = Figure(figsize=(9, 6), layout="constrained", dpi=50)
    gallery_plots.similarity_zooms(
        gallery(), QUERY, figure, prior=Disc(0, 0, 400), truth=Pose(10, 20)
    )
    scatters, rasters = np.reshape(figure.axes[:6], (2, 3))
    for ax in (scatters[1], rasters[1]):
        assert (ax.get_xlim(), ax.get_ylim()) == ((-190, 210), (-180, 220))
    assert scatters[2].get_xlim() == (-40, 60)
    assert [ax.get_title(loc="left") for ax in scatters] == ["all 400 tiles", "± 200 m", "± 50 m"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "prior, 400 m", "best tile in the prior", "truth",
    ]  # fmt: skip
    figure.canvas.draw()


# ---------------------------------------------------------------- retrieval strip


@pytest.fixture
def tiles(tmp_path):
    return build(tile_dataset(tmp_path / "set"), FakeEncoder(), tmp_path / "g")


def test_a_strip_shows_the_query_and_frames_the_tiles_that_hold_the_truth(tiles):
    query = np.zeros((8, 16, 3), np.uint8)
    ranking = tiles.search(tiles.descriptors[tiles.tile_ids.tolist().index("t6")], 12)
    truth = Pose(110, 60)
    figure = gallery_plots.retrieval_strip(query, tiles, ranking, truth=truth)
    first, *others = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array(), query)
    for ax, row, rank in zip(others, ranking.rows, range(1, 13), strict=True):
        number = int(tiles.tile_ids[row][1:])
        np.testing.assert_array_equal(ax.images[0].get_array(), pictures(12)[number])
        east_m, north_m = 50 * (number % 4) - 110, 50 * (number // 4) - 60
        is_hit = abs(east_m) <= 32 and abs(north_m) <= 32
        assert is_hit == (number == 6)
        color = to_hex(ax.spines["left"].get_edgecolor())
        assert (color == gallery_plots._HIT_COLOR) == is_hit
        assert ax.get_title().startswith(f"{rank}: ")
        assert ax.get_title().endswith(f", {np.hypot(east_m, north_m):.0f} m off")


def test_a_strip_without_images_or_truth_says_so(tiles):
    ranking = tiles.search(tiles.descriptors[3], 2)
    lost = replace(tiles, images=None, attribution="Somebody")
    figure = gallery_plots.retrieval_strip(np.zeros((8, 8, 3), np.uint8), lost, ranking)
    assert [ax.texts[0].get_text() for ax in figure.axes[1:]] == ["no image", "no image"]
    assert "off" not in figure.axes[1].get_title()
    assert figure.get_supxlabel() == "Somebody"


# ---------------------------------------------------------------- activations


def test_an_overlay_is_opaque_where_features_are_strong(ax):
    activation = np.zeros((4, 8, 3))
    activation[1, 6] = (3, 0, 4)
    activation[2, 2] = (0, 2.5, 0)
    image = np.full((40, 80, 3), 100, np.uint8)
    gallery_plots.activation_overlay(image, activation, ax, title="local")
    below, above = ax.images
    assert below.get_array().mean() == 100
    opacity = above.get_array()[..., 3]
    assert np.unravel_index(opacity.argmax(), opacity.shape) == (1, 6)
    assert 0 < opacity[2, 2] < opacity[1, 6]
    assert opacity[0, 0] == 0
    assert above.get_extent() == below.get_extent()
    assert ax.get_title() == "local"


def test_a_flat_activation_is_drawn(ax):
    gallery_plots.activation_overlay(np.zeros((4, 4, 3), np.uint8), np.ones((2, 2)), ax)
    assert np.all(ax.images[1].get_array()[..., 3] == 0)


@pytest.mark.parametrize(
    "activation", [np.zeros(3), np.full((2, 2), np.nan), np.zeros((1, 2, 3, 4))]
)
def test_what_is_no_activation_is_refused(ax, activation):
    with pytest.raises(ValueError, match="Activations are"):
        gallery_plots.activation_overlay(np.zeros((4, 4, 3), np.uint8), activation, ax)


def test_networks_are_beside_each_other_on_every_image():
    images = {
        "ground": np.zeros((8, 32, 3), np.uint8),
        "overhead": np.full((16, 16, 3), 50, np.uint8),
    }
    strong = {name: {image: np.eye(4) * k for image in images} for k, name in enumerate("lg", 1)}
    figure = gallery_plots.activation_overlays(images, strong, Figure(layout="constrained"))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["ground", "l", "g", "overhead", "l", "g"]
    for first in (0, 3):
        np.testing.assert_array_equal(
            figure.axes[first].images[0].get_array(), images[titles[first]]
        )
    figure.canvas.draw()


def test_encoders_are_shown_by_what_is_strong_in_their_features():
    rules = Preprocessing((8, 32), (8, 32))

    class Looking:
        """Its features are the grey levels of one side, upside down."""

        def __init__(self, preprocessing=rules):
            self.preprocessing = preprocessing

        def activations(self, side, images):
            assert images.shape == (1, 8, 32, 3)
            return images[:, ::-1].astype(np.float32) * (side == "ground") + 1.0

    rng = np.random.default_rng(0)
    panorama = Panorama(rng.integers(0, 256, (64, 128, 3)).astype(np.uint8), 30.0)
    tile = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    figure = gallery_plots.encoder_overlays(
        {"local": Looking(), "global": Looking()}, panorama, tile, Figure(layout="constrained")
    )
    assert [ax.get_title() for ax in figure.axes[:3]] == ["ground", "local", "global"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), rules.ground(panorama))
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), rules.overhead(tile))
    strong = np.linalg.norm(rules.ground(panorama)[::-1] + 1.0, axis=2)
    opacity = figure.axes[1].images[1].get_array()[..., 3]
    assert opacity.flat[strong.argmax()] == opacity.max() > opacity.flat[strong.argmin()] == 0.0
    assert (figure.axes[4].images[1].get_array()[..., 3] == 0).all()
    with pytest.raises(ValueError, match="preprocessing of local, other differs"):
        gallery_plots.encoder_overlays(
            {"local": Looking(), "other": Looking(Preprocessing((8, 16), (8, 16)))},
            panorama, tile, Figure(),
        )  # fmt: skip
