"""One photo answered for a person: what is searched, what is said, which files appear."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
from PIL import Image
from pytest import approx

from crossview.answers import Answer, localize_photo
from crossview.cameras import Pinhole
from crossview.errors import MissingLocationError, VolumeTooLargeError
from crossview.frames import Fix, LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localization
from crossview.photos import Panorama, Photo
from crossview.posterior import Posterior
from crossview.rasters import MapRaster

PLACE = Fix(50.0, 8.0)
PHOTO = Photo(np.zeros((6, 8, 3), np.uint8), Pinhole.from_focal(8, 6, 4.0))


@dataclass(frozen=True)
class PeakMatcher:
    """Sure of one pose around the place, if any."""

    peak: Pose | None = None
    cell_m: float = 1.0
    num_headings: int = 16
    reach_m: float = 3.0
    map_parts: int = 1
    scale: float = 1.0

    def observe(self, query):
        return query

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        scores = np.zeros(grid.shape)
        if self.peak is not None:
            scores[grid.index_of(self.peak)] = 40.0
        return scores


def blank_map(grid: MapGrid) -> MapRaster:
    return MapRaster(
        grid,
        np.zeros((*grid.shape, 3), np.uint8),
        "crossview",
        np.ones(grid.shape, bool),
        frozenset(),
        np.zeros(grid.shape, np.float32),
    )


def answered(*, peak=None, query=PHOTO, place=PLACE, radius_m=20.0, **options) -> Answer:
    return localize_photo(
        query, blank_map, PeakMatcher(peak), place=place, radius_m=radius_m, **options
    )


def headings_of(answer):
    return answer.localization.best.heading()


# ---------------------------------------------------------------------- search


def test_the_search_is_centred_on_the_place():
    best = answered().localization.best
    assert best.grid.map.frame == LocalFrame(50.0, 8.0)
    mean = best.mean()
    assert (mean.x_m, mean.y_m) == approx((0, 0), abs=1e-3)


def test_everything_within_the_radius_is_searched_and_nothing_outside():
    best = answered(radius_m=20.0).localization.best
    x_m, y_m = np.meshgrid(*best.grid.map.centers())
    assert np.array_equal(best.position() > 0, np.hypot(x_m, y_m) <= 20.0)
    assert best.grid.num_headings == 16


@pytest.mark.parametrize("radius_m", [5.0, 100.0, 150.0])
def test_no_part_of_the_disc_is_left_out(radius_m):
    localization = answered(radius_m=radius_m, outside=0.0).localization
    assert localization.probability_elsewhere == approx(0.0, abs=1e-6)


def test_a_photo_that_fits_nowhere_in_the_disc_is_probably_elsewhere():
    fits = answered(peak=Pose(7.5, -3.5, 90.0), outside=0.05)
    assert fits.localization.probability_elsewhere < 0.01
    nowhere = answered(outside=0.05)  # the matcher says nothing
    assert not nowhere.is_certain
    assert nowhere.localization.probability_elsewhere == approx(0.05, abs=1e-3)
    assert "probability elsewhere: 0.050" in nowhere.summary()
    assert "(with probability 0.95)" in nowhere.summary()


@pytest.mark.parametrize("options", [{}, {"heading_deg": 90.0}, {"compass_sigma_deg": 5.0}])
def test_what_is_known_before_does_not_make_elsewhere_more_probable(options):
    """A compass is a density per degree: its evidence is not the query's."""
    if "compass_sigma_deg" in options:
        options = {**options, "heading_deg": 90.0}
    found = answered(outside=0.2, **options).localization
    assert found.probability_elsewhere == approx(0.2, abs=1e-3)


def test_the_answer_is_the_matchers_peak():
    answer = answered(peak=Pose(7.5, -3.5, 90.0))
    assert answer.localization.best.mode() == Pose(7.5, -3.5, 90.0)
    assert answer.is_certain


def test_without_a_compass_all_headings_are_searched():
    assert headings_of(answered()) == approx(np.full(16, 1 / 16))


def test_a_heading_alone_counts_as_a_compass_of_15_degrees():
    heading = headings_of(answered(heading_deg=90.0))
    assert np.argmax(heading) == 4
    # half a bin is 11.25 degrees: 0.75 sigma to either side
    assert heading[4] == approx(0.547, abs=0.01)


def test_a_narrow_compass_leaves_its_bin():
    heading = headings_of(answered(heading_deg=90.0, compass_sigma_deg=2.0))
    assert heading[4] > 0.999


def test_a_compass_that_is_asked_for_is_that_of_the_photos_fix():
    place = Fix(50.0, 8.0, heading_deg=180.0)
    assert headings_of(answered(place=place, compass_sigma_deg=2.0))[8] > 0.999


def test_a_fix_with_a_heading_is_no_compass_unless_it_is_asked_for():
    place = Fix(50.0, 8.0, heading_deg=180.0)
    assert headings_of(answered(place=place)) == approx(np.full(16, 1 / 16))


def test_a_panoramas_own_heading_serves_as_the_compass():
    panorama = Panorama(np.zeros((8, 16, 3), np.uint8), heading_deg=270.0)
    assert headings_of(answered(query=panorama, compass_sigma_deg=2.0))[12] > 0.999


def test_a_heading_that_is_given_wins_over_that_of_the_photo():
    place = Fix(50.0, 8.0, heading_deg=180.0)
    heading = headings_of(answered(place=place, heading_deg=0.0, compass_sigma_deg=2.0))
    assert heading[0] > 0.999


def test_a_compass_without_any_heading_is_refused_and_both_options_are_named():
    with pytest.raises(MissingLocationError, match=r"--heading-deg.*--compass-sigma-deg"):
        answered(compass_sigma_deg=5.0)


def test_a_magnetic_heading_is_never_taken_for_a_true_one():
    place = Fix(50.0, 8.0, heading_deg=10.0, heading_reference="magnetic")
    with pytest.raises(MissingLocationError, match=r"10\.0 deg from \*magnetic\*.*declination"):
        answered(place=place, compass_sigma_deg=5.0)


def test_a_disc_too_large_to_search_is_refused_with_the_limit():
    with pytest.raises(VolumeTooLargeError, match=r"1000 m.*170 m.*smaller radius_m"):
        answered(radius_m=1000.0)


# --------------------------------------------------------------------- words


def lines_of(answer):
    return dict(line.split(": ", 1) for line in answer.summary().splitlines())


def test_the_summary_says_where_how_turned_and_how_sure():
    lines = lines_of(answered(peak=Pose(7.5, -3.5, 90.0)))
    lat_deg, lon_deg = LocalFrame(50.0, 8.0).to_geodetic(7.5, -3.5)
    assert lines["answer"] == "ok"
    assert lines["lat, lon"] == f"{lat_deg:.7f}, {lon_deg:.7f}"
    # 22.5 degrees of one bin have a standard deviation of 6.5
    assert lines["heading"] == "90.0 deg clockwise from true north (std 6.5 deg)"
    assert lines["probability within 5 m"] == "1.000"
    assert lines["assumed"].startswith("the camera is within 20 m of ")


def test_an_answer_below_even_odds_is_no_answer():
    answer = answered(radius_m=20.0)
    # at most 5 of 20 m: a sixteenth of the disc
    assert 0 < answer.localization.probability_within(5.0) < 0.07
    assert not answer.is_certain
    assert lines_of(answer)["answer"] == "no answer (too uncertain)"


def test_an_unknown_heading_is_said():
    grid = PoseGrid(MapGrid(LocalFrame(50.0, 8.0), -2.0, 2.0, 1.0, 4, 4), 1)
    answer = Answer(Localization((Posterior.flat(grid),)), blank_map)
    assert lines_of(answer)["heading"] == "unknown"


# --------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answer") / "made" / "here"
    answer = answered(peak=Pose(7.5, -3.5, 90.0), provenance={"attribution": "© nobody"})
    return folder, answer.write(folder, name="photo")


def test_three_files_are_written_and_no_others(written):
    folder, _ = written
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["photo.geojson", "photo.png", "photo.tif"]


def test_the_file_holds_the_geojson_that_is_returned(written):
    folder, collection = written
    assert json.loads((folder / "photo.geojson").read_text(encoding="utf-8")) == collection


def test_the_geojson_names_the_query_and_who_must_be_named(written):
    _, collection = written
    best = collection["features"][0]["properties"]
    assert (best["query_id"], best["answer"]) == ("photo", "ok")
    assert best["heading_deg"] == approx(90.0, abs=0.01)
    assert collection["crossview"]["attribution"] == "© nobody"


def test_an_uncertain_answer_is_flagged_in_the_geojson(tmp_path):
    collection = answered().write(tmp_path, name="p")
    assert collection["features"][0]["properties"]["answer"] == "no answer"


def test_the_geotiff_holds_the_probability_of_every_cell(written):
    folder, _ = written
    with rasterio.open(folder / "photo.tif") as raster:
        mass = raster.read(1)
        row, col = raster.index(7.5, -3.5)
        assert raster.tags()["attribution"] == "© nobody"
    assert mass.sum() == approx(1.0, abs=1e-5)
    assert mass[row, col] == approx(1.0, abs=1e-5)


def test_the_heat_map_is_a_picture(written):
    folder, _ = written
    with Image.open(folder / "photo.png") as image:
        assert min(image.size) > 800
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 50


def test_a_known_truth_is_drawn_into_the_heat_map(written, tmp_path):
    folder, _ = written
    answer = answered(peak=Pose(7.5, -3.5, 90.0))
    Answer(answer.localization, blank_map, truth=Pose(-5.0, 5.0, 0.0)).write(tmp_path, name="photo")
    assert (tmp_path / "photo.png").read_bytes() != (folder / "photo.png").read_bytes()
