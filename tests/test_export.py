import itertools
import json
import math
import warnings

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from rio_cogeo import cog_validate
from shapely.geometry import shape

import crossview
from crossview import export
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localization
from crossview.posterior import Posterior

BERLIN = LocalFrame(lat_deg=52.5, lon_deg=13.4)


def grid_at(west_m=0.0, north_m=0.0, *, rows=8, cols=8, cell_m=1.0, headings=1, frame=BERLIN):
    return PoseGrid(MapGrid(frame, west_m, north_m, cell_m, rows, cols), headings)


def posterior_on(grid, mass, log_evidence=0.0):
    """A posterior from relative masses; cells that are not in the dict are impossible."""
    volume = np.zeros(grid.shape)
    for index, value in mass.items():
        volume[index] = value
    with np.errstate(divide="ignore"):
        return Posterior(grid, np.log(volume / volume.sum()), log_evidence)


def posterior_of_cells(values, **options):
    """A posterior without headings from relative masses of all cells."""
    values = np.asarray(values, dtype=float)
    grid = grid_at(rows=values.shape[0], cols=values.shape[1], **options)
    with np.errstate(divide="ignore"):
        return Posterior(grid, np.log(values / values.sum())[:, :, None])


def blob(grid, row, col, *, sigma_cells=1.5, k=0):
    rows, cols = np.indices(grid.map.shape)
    log_mass = -((rows - row) ** 2 + (cols - col) ** 2) / (2 * sigma_cells**2)
    volume = np.full(grid.shape, -np.inf)
    volume[:, :, k] = log_mass
    return Posterior.flat(grid).update(volume)


def features_of(collection, kind):
    return [f for f in collection["features"] if f["properties"]["kind"] == kind]


def pose_of(collection):
    (feature,) = features_of(collection, "pose")
    return feature["properties"]


# ------------------------------------------------- a small RFC 7946 checker


def check_rfc_7946(collection):
    """Sections 3 to 5, as far as a FeatureCollection of Points and MultiPolygons can break them."""
    assert json.loads(json.dumps(collection, allow_nan=False)) == collection
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in json.dumps(collection)
    assert not {"geometry", "properties", "coordinates", "geometries"} & set(collection)
    everything = []
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert not {"features", "coordinates", "geometries"} & set(feature)
        assert isinstance(feature["properties"], dict)
        positions = list(positions_of(feature["geometry"]))
        check_bbox(feature["bbox"], positions)
        everything += positions
    check_bbox(collection["bbox"], everything)


def positions_of(geometry):
    assert set(geometry) == {"type", "coordinates"}
    if geometry["type"] == "Point":
        yield check_position(geometry["coordinates"])
        return
    assert geometry["type"] == "MultiPolygon"
    assert geometry["coordinates"]
    for exterior, *holes in geometry["coordinates"]:
        assert signed_area(exterior) > 0, "exterior rings are counter-clockwise"
        assert all(signed_area(hole) < 0 for hole in holes), "holes are clockwise"
        for ring in (exterior, *holes):
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
            yield from map(check_position, ring)


def check_position(position):
    lon, lat = position
    assert -180 <= lon <= 180
    assert -90 <= lat <= 90
    assert [round(lon, 7), round(lat, 7)] == position
    return lon, lat


def signed_area(ring):
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring)) / 2


def check_bbox(bbox, positions):
    west, south, east, north = bbox
    assert south == min(lat for _, lat in positions)
    assert north == max(lat for _, lat in positions)
    if west <= east:
        assert west == min(lon for lon, _ in positions)
        assert east == max(lon for lon, _ in positions)
    else:  # across the antimeridian
        assert all(lon >= west or lon <= east for lon, _ in positions)


ring_of_cells = [
    [1, 1, 1, 0, 0],
    [1, 0, 1, 0, 0],
    [1, 1, 1, 0, 1],
    [0, 0, 0, 1, 0],
]


@pytest.mark.parametrize(
    "answer",
    [
        posterior_of_cells(ring_of_cells),
        blob(grid_at(headings=8, west_m=-700, north_m=900), 3, 4, k=3),
        Localization((blob(grid_at(), 2, 2), blob(grid_at(west_m=500), 3, 3)), log_rest=-1.0),
        blob(grid_at(frame=LocalFrame(-17.8, 180.0), west_m=-4, cell_m=1.0), 3, 4),
    ],
    ids=["holes", "headings", "windows", "antimeridian"],
)
def test_the_collection_keeps_rfc_7946(answer):
    check_rfc_7946(export.to_geojson(answer))


def test_the_checker_refuses_what_common_writers_get_wrong():
    good = export.to_geojson(posterior_of_cells(ring_of_cells))
    clockwise = json.loads(json.dumps(good))
    clockwise["features"][-1]["geometry"]["coordinates"][0][0].reverse()
    swapped = json.loads(json.dumps(good))
    swapped["features"][0]["geometry"]["coordinates"].reverse()
    for bad in (clockwise, swapped, good | {"crs": {}}, good | {"bbox": [0, 0, 1, 1]}):
        with pytest.raises(AssertionError):
            check_rfc_7946(bad)


# --------------------------------------------------------------- best pose


def test_the_best_pose_is_a_point_longitude_first():
    collection = export.to_geojson(posterior_on(grid_at(west_m=1000), {(3, 4, 0): 1.0}))
    (feature,) = features_of(collection, "pose")
    lat_deg, lon_deg = BERLIN.to_geodetic(1004.5, -3.5)
    assert feature["geometry"] == {
        "type": "Point",
        "coordinates": [approx(lon_deg, abs=6e-8), approx(lat_deg, abs=6e-8)],
    }
    assert feature["geometry"]["coordinates"][0] == approx(13.4, abs=0.02)


def test_headings_count_from_true_north():
    # at 52.5 N the meridian 30 km east of the anchor leans over by dlon * sin(lat)
    radius_m = pyproj.Geod(ellps="WGS84").a / math.sqrt(1 - 0.00669438 * math.sin(0.9163) ** 2)
    dlon_deg = math.degrees(30_000 / (radius_m * math.cos(math.radians(52.5))))
    convergence_deg = dlon_deg * math.sin(math.radians(52.5))
    assert convergence_deg == approx(0.351, abs=1e-3)
    posterior = posterior_on(grid_at(west_m=30_000, headings=8), {(0, 0, 2): 3, (7, 7, 5): 1})
    collection = export.to_geojson(posterior)
    assert pose_of(collection)["heading_deg"] == approx(90 + convergence_deg, abs=2e-3)
    (mode,) = features_of(collection, "mode")
    assert mode["properties"]["heading_deg"] == approx(225 + convergence_deg, abs=2e-3)


def test_a_heading_just_west_of_north_is_below_360():
    # a metre west of the anchor the frame's north is 0.00001 deg west of true north
    posterior = posterior_on(grid_at(west_m=-1.5, headings=4), {(0, 0, 0): 1.0})
    assert pose_of(export.to_geojson(posterior))["heading_deg"] == 0.0


def test_heading_is_null_where_it_is_not_represented():
    collection = export.to_geojson(posterior_on(grid_at(), {(0, 0, 0): 2, (7, 7, 0): 1}))
    assert pose_of(collection)["heading_deg"] is None
    assert pose_of(collection)["heading_std_deg"] is None
    assert features_of(collection, "mode")[0]["properties"]["heading_deg"] is None


def test_heading_std_of_one_bin_is_that_of_a_uniform_bin():
    posterior = posterior_on(grid_at(headings=4), {(0, 0, 1): 1.0})
    assert pose_of(export.to_geojson(posterior))["heading_std_deg"] == approx(
        90 / math.sqrt(12), abs=1e-3
    )


def test_covariance_and_ellipse_at_the_anchor_by_hand():
    # two cells 4 m apart in x: variance 4, and 1 / 12 of a square metre within a cell
    grid = grid_at(west_m=-4, north_m=4)
    pose = pose_of(export.to_geojson(posterior_on(grid, {(4, 2, 0): 1, (4, 6, 0): 1})))
    assert np.array(pose["cov_en_m2"]) == approx(np.diag([4 + 1 / 12, 1 / 12]), abs=1e-5)
    assert pose["ellipse_level"] == 0.95
    # the 95 % quantile of chi-square with two degrees of freedom is 5.9915
    assert pose["semi_major_m"] == approx(math.sqrt(5.9915 * (4 + 1 / 12)), abs=1e-3)
    assert pose["semi_minor_m"] == approx(math.sqrt(5.9915 / 12), abs=1e-3)
    assert pose["ellipse_azimuth_deg"] == approx(90, abs=1e-3)


def test_an_ellipse_to_the_north_east_has_azimuth_45():
    grid = grid_at(west_m=-4, north_m=4)
    pose = pose_of(export.to_geojson(posterior_on(grid, {(6, 2, 0): 1, (2, 6, 0): 1})))
    assert pose["ellipse_azimuth_deg"] == approx(45, abs=1e-3)
    assert pose["cov_en_m2"][0][1] == approx(4, abs=1e-3)


def test_covariance_is_along_true_east_and_north():
    # 0.7 deg of convergence at 45 km east and 60 N
    grid = grid_at(west_m=45_000, frame=LocalFrame(60.0, 10.0))
    pose = pose_of(export.to_geojson(posterior_on(grid, {(4, 2, 0): 1, (4, 6, 0): 1})))
    turn = math.radians(float(grid.map.frame.convergence_deg(45_002.5, -4.5)))
    assert math.degrees(turn) == approx(0.70, abs=0.01)
    # the frame's east is turned clockwise, so its far end lies south of true east
    assert pose["cov_en_m2"][0][1] == approx(-4 * math.sin(turn) * math.cos(turn), abs=1e-5)
    assert pose["cov_en_m2"][1][1] == approx(4 * math.sin(turn) ** 2 + 1 / 12, abs=1e-5)
    assert pose["ellipse_azimuth_deg"] == approx(90 + math.degrees(turn), abs=2e-3)


def test_true_azimuth_of_the_ellipse_agrees_with_a_geodesic():
    grid = grid_at(west_m=45_000, frame=LocalFrame(60.0, 10.0))
    pose = pose_of(export.to_geojson(posterior_on(grid, {(6, 2, 0): 1, (3, 6, 0): 1})))
    lat_deg, lon_deg = grid.map.frame.to_geodetic([45_002.5, 45_006.5], [-6.5, -3.5])
    azimuth_deg, _, _ = pyproj.Geod(ellps="WGS84").inv(
        lon_deg[0], lat_deg[0], lon_deg[1], lat_deg[1]
    )
    assert pose["ellipse_azimuth_deg"] == approx(azimuth_deg, abs=2e-3)


# ------------------------------------------------- probabilities and modes


def two_windows(first=0.6, second=0.3, rest=0.1):
    """Windows 500 m apart with one certain cell each."""
    with np.errstate(divide="ignore"):
        log_first, log_second, log_rest = np.log([first, second, rest])
    return Localization(
        (
            posterior_on(grid_at(), {(1, 1, 0): 1.0}, log_first),
            posterior_on(grid_at(west_m=500), {(2, 2, 0): 1.0}, log_second),
        ),
        log_rest=float(log_rest),
    )


def test_probabilities_count_all_windows_and_elsewhere():
    pose = pose_of(export.to_geojson(two_windows()))
    assert pose["probability_within_5m"] == approx(0.6, abs=1e-6)
    assert pose["probability_elsewhere"] == approx(0.1, abs=1e-6)
    assert pose["mass"] == approx(0.6, abs=1e-6)
    assert pose["rank"] == 1


@pytest.mark.parametrize(("probability", "answer"), [(0.49, "no answer"), (0.51, "ok")])
def test_less_than_even_odds_within_5m_is_no_answer(probability, answer):
    localization = two_windows(probability, 0.3, 0.7 - probability)
    assert pose_of(export.to_geojson(localization))["answer"] == answer


def test_the_threshold_of_an_answer_can_be_set():
    collection = export.to_geojson(two_windows(0.6, 0.3, 0.1), min_probability=0.7)
    assert pose_of(collection)["answer"] == "no answer"


def test_modes_follow_by_mass_and_the_best_pose_is_not_repeated():
    mass = {(0, 0, 0): 5, (0, 31, 0): 2, (31, 0, 0): 3}
    collection = export.to_geojson(posterior_on(grid_at(rows=32, cols=32), mass))
    modes = [feature["properties"] for feature in features_of(collection, "mode")]
    assert [mode["rank"] for mode in modes] == [2, 3]
    assert [mode["mass"] for mode in modes] == [approx(0.3, abs=1e-6), approx(0.2, abs=1e-6)]
    assert pose_of(collection)["mass"] == approx(0.5, abs=1e-6)


def test_the_best_pose_comes_first_even_where_a_flat_peak_holds_more():
    plateau = {(row, col, 0): 0.05 for row in range(28, 32) for col in range(28, 32)}
    posterior = posterior_on(grid_at(rows=32, cols=32), {(0, 0, 0): 0.2, **plateau})
    collection = export.to_geojson(posterior)
    (feature,) = features_of(collection, "pose")
    lat_deg, lon_deg = BERLIN.to_geodetic(0.5, -0.5)
    assert feature["geometry"]["coordinates"] == approx([lon_deg, lat_deg], abs=1e-7)
    assert pose_of(collection)["mass"] == approx(0.2, abs=1e-6)
    assert features_of(collection, "mode")[0]["properties"]["mass"] > 0.2


def test_num_modes_counts_the_best_pose():
    mass = {(0, 0, 0): 5, (0, 31, 0): 2, (31, 0, 0): 3}
    posterior = posterior_on(grid_at(rows=32, cols=32), mass)
    assert len(features_of(export.to_geojson(posterior, num_modes=2), "mode")) == 1
    assert features_of(export.to_geojson(posterior, num_modes=1), "mode") == []
    with pytest.raises(ValueError, match="num_modes must be at least 1"):
        export.to_geojson(posterior, num_modes=0)


def test_peaks_below_a_thousandth_are_left_out():
    posterior = posterior_on(grid_at(rows=32, cols=32), {(0, 0, 0): 1, (31, 31, 0): 5e-4})
    assert features_of(export.to_geojson(posterior), "mode") == []


# ------------------------------------------------------------------ regions


def test_regions_hold_the_densest_cells_of_all_windows_together():
    first = posterior_on(grid_at(), {(0, 0, 0): 3, (0, 1, 0): 1}, math.log(0.8))
    second = posterior_on(grid_at(west_m=500), {(4, 4, 0): 1}, math.log(0.2))
    # cells of 0.6, 0.2 and 0.2
    half, most, everything = export.credible_regions(
        Localization((first, second)), levels=(0.5, 0.75, 1.0)
    )
    assert (half.area_m2, most.area_m2, everything.area_m2) == (1.0, 2.0, 3.0)
    assert half.mass == approx(0.6, abs=1e-6)
    assert most.mass == approx(0.8, abs=1e-6)
    assert half.cells[0][0, 0]
    assert half.cells[1].sum() == 0


def test_small_cells_are_denser_than_large_ones_of_the_same_mass():
    fine = posterior_on(grid_at(cell_m=0.5), {(0, 0, 0): 1}, math.log(0.5))
    coarse = posterior_on(grid_at(west_m=500, cell_m=2.0), {(0, 0, 0): 1}, math.log(0.5))
    (region,) = export.credible_regions(Localization((coarse, fine)), levels=[0.4])
    assert region.area_m2 == 0.25


def test_a_level_that_the_windows_do_not_reach_says_so_and_what_is_held():
    localization = two_windows(0.6, 0.3, 0.1)
    regions = [
        feature["properties"]
        for feature in features_of(export.to_geojson(localization), "credible_region")
    ]
    assert [region["level"] for region in regions] == [0.5, 0.9, 0.95]
    assert [region["reached"] for region in regions] == [True, True, False]
    assert [region["mass"] for region in regions] == approx([0.6, 0.9, 0.9], abs=1e-6)
    assert [region["area_m2"] for region in regions] == [1.0, 2.0, 2.0]


def test_the_region_of_one_window_is_that_of_its_posterior():
    posterior = blob(grid_at(rows=20, cols=30, headings=4), 7.3, 11.8, sigma_cells=3)
    for region in export.credible_regions(posterior, levels=(0.3, 0.5, 0.9, 0.95)):
        assert np.array_equal(region.cells[0], posterior.region(region.level))


def test_a_region_holds_its_own_cells_and_leaves_the_callers_alone():
    cells = np.ones((8, 8), dtype=bool)
    region = export.CredibleRegion(0.5, 0.5, (grid_at().map,), (cells,))
    cells[:] = False
    assert region.cells[0].all()
    with pytest.raises(ValueError, match="read-only"):
        region.cells[0][0, 0] = False


def test_half_of_a_flat_posterior_is_half_of_its_cells():
    (region,) = export.credible_regions(Posterior.flat(grid_at()), levels=[0.5])
    assert region.area_m2 == 32


def test_impossible_cells_are_in_no_region():
    (region,) = export.credible_regions(posterior_of_cells(ring_of_cells), levels=[1.0])
    assert np.array_equal(region.cells[0], np.array(ring_of_cells, bool))


@pytest.mark.parametrize("level", [0.0, 1.2, math.nan])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="probability in"):
        export.to_geojson(Posterior.flat(grid_at()), levels=[level])


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=9))
def test_outlines_are_valid_and_cover_exactly_the_cells(rows):
    values = np.array(rows, float)
    values[0, 0] = 1
    posterior = posterior_of_cells(values, west_m=-3.3, north_m=7.7, cell_m=0.3)
    (region,) = export.credible_regions(posterior, levels=[1.0])
    outline = region.outline()
    assert outline.is_valid
    assert outline.area == approx(region.area_m2, abs=1e-6)
    assert region.area_m2 == approx(0.09 * values.sum())
    for row, col in np.ndindex(*values.shape):
        x_m, y_m = posterior.grid.map.to_xy(col + 0.5, row + 0.5)
        assert outline.contains(shapely.Point(x_m, y_m)) == bool(values[row, col])


def test_a_hole_is_kept_and_cells_that_touch_at_a_corner_stay_apart():
    (region,) = export.credible_regions(posterior_of_cells(ring_of_cells), levels=[1.0])
    outline = region.outline()
    assert sorted(part.area for part in outline.geoms) == [1, 1, 8]
    assert sum(len(part.interiors) for part in outline.geoms) == 1


def test_neighbouring_windows_share_one_outline():
    left = posterior_on(grid_at(cell_m=0.3), {(2, 7, 0): 1, (3, 7, 0): 1})
    right = posterior_on(grid_at(west_m=8 * 0.3, cell_m=0.3), {(2, 0, 0): 1, (4, 0, 0): 1})
    (region,) = export.credible_regions(Localization((left, right)), levels=[1.0])
    outline = region.outline()
    assert outline.is_valid
    assert sorted(part.area for part in outline.geoms) == approx([0.09, 0.27], abs=1e-6)


@pytest.mark.parametrize("anchor", [BERLIN, LocalFrame(-35.3, 149.1), LocalFrame(64.1, -21.9)])
def test_written_regions_have_the_stated_area_on_the_ellipsoid(anchor):
    grid = grid_at(west_m=2000, north_m=-3000, rows=64, cols=64, cell_m=2.0, frame=anchor)
    collection = export.to_geojson(blob(grid, 30, 20, sigma_cells=7))
    for feature in features_of(collection, "credible_region"):
        area_m2, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape(feature["geometry"]))
        assert area_m2 == approx(feature["properties"]["area_m2"], rel=1e-3)


def test_written_corners_are_the_cells_corners():
    collection = export.to_geojson(posterior_on(grid_at(), {(2, 3, 0): 1}), levels=[0.5])
    (feature,) = features_of(collection, "credible_region")
    ((ring,),) = feature["geometry"]["coordinates"]
    x_m, y_m = BERLIN.to_local(*np.array(ring)[:, ::-1].T)
    assert {(round(x, 1), round(y, 1)) for x, y in zip(x_m, y_m, strict=True)} == {
        (3, -2), (4, -2), (4, -3), (3, -3),
    }  # fmt: skip


def test_regions_across_the_antimeridian_are_cut():
    frame = LocalFrame(-17.8, 179.9999)
    # the antimeridian runs 10.6 m east of the anchor
    cells = np.ones((4, 32))
    collection = export.to_geojson(posterior_of_cells(cells, frame=frame), levels=[1.0])
    (feature,) = features_of(collection, "credible_region")
    outline = shape(feature["geometry"])
    assert outline.is_valid
    west, east = sorted(outline.geoms, key=lambda part: part.area)
    assert west.bounds[2] == 180.0
    assert east.bounds[0] == -180.0
    assert west.area / outline.area == approx(10.6 / 32, abs=0.005)
    bbox = feature["bbox"]
    assert bbox[0] == approx(179.9999, abs=1e-6)
    assert bbox[2] == approx(-179.9998, abs=1e-5)
    assert collection["bbox"] == bbox


def test_a_pose_beyond_the_antimeridian_has_a_western_longitude():
    grid = grid_at(west_m=100, frame=LocalFrame(-17.8, 179.9999))
    collection = export.to_geojson(posterior_on(grid, {(0, 0, 0): 1}))
    (feature,) = features_of(collection, "pose")
    assert feature["geometry"]["coordinates"][0] == approx(-179.9992, abs=1e-4)


# -------------------------------------------------------------- whole files


def test_the_file_holds_what_is_returned(tmp_path):
    path = tmp_path / "answer.geojson"
    collection = export.to_geojson(two_windows(), path, query_id="Zürich/1")
    assert json.loads(path.read_text(encoding="utf-8")) == collection
    assert {f["properties"]["query_id"] for f in collection["features"]} == {"Zürich/1"}
    assert list(tmp_path.iterdir()) == [path]


def test_output_is_deterministic_and_names_version_and_frame(tmp_path):
    for name in ("a", "b"):
        export.to_geojson(two_windows(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    member = json.loads((tmp_path / "a").read_text())["crossview"]
    assert member == {
        "version": crossview.__version__,
        "frame": {"lat_deg": 52.5, "lon_deg": 13.4},
    }


def test_provenance_stands_beside_the_version():
    provenance = {
        "attribution": ["© OpenStreetMap contributors"],
        "created": "2024-05-01T12:00:00Z",
    }
    member = export.to_geojson(two_windows(), provenance=provenance)["crossview"]
    assert member["attribution"] == ["© OpenStreetMap contributors"]
    assert member["created"] == "2024-05-01T12:00:00Z"
    assert member["version"] == crossview.__version__


def test_an_interrupted_write_leaves_nothing_behind_and_the_old_file_alone(tmp_path):
    path = tmp_path / "answer.geojson"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        export.to_geojson(two_windows(), path, provenance={"score": math.nan})
    assert path.read_text() == "old"
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        export.to_geojson(two_windows(), folder)
    assert sorted(tmp_path.iterdir()) == [path, folder]


# ------------------------------------------------------------------ GeoTIFF


def test_geotiff_holds_the_position_marginal_on_the_exact_cells(tmp_path):
    grid = grid_at(west_m=123.25, north_m=-456.75, rows=40, cols=30, cell_m=0.25, headings=8)
    posterior = blob(grid, 11, 22, sigma_cells=2, k=5)
    export.to_geotiff(posterior, tmp_path / "heat.tif")
    with rasterio.open(tmp_path / "heat.tif") as raster:
        mass = raster.read(1)
        assert raster.transform == grid.map.transform
        assert raster.nodata == -9999
        assert raster.dtypes == ("float32",)
        col, row = 22.5, 11.5
        assert raster.xy(11, 22) == approx(raster.transform @ (col, row))
    assert mass == approx(posterior.position(), abs=1e-7)
    assert mass.sum(dtype=float) == approx(1, abs=1e-6)
    assert np.unravel_index(mass.argmax(), mass.shape) == (11, 22)


def test_cells_of_one_metre_at_the_anchor_keep_their_place(tmp_path):
    # their transform is the identity flipped, which rasterio warns of
    posterior = blob(grid_at(), 2, 5)
    export.to_geotiff(posterior, tmp_path / "heat.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "heat.tif") as raster:
            assert raster.transform == posterior.grid.map.transform
            assert raster.bounds == (0, -8, 8, 0)


def test_geotiff_lies_where_the_frame_says(tmp_path):
    frame = LocalFrame(-35.2809, 149.13)
    posterior = blob(grid_at(west_m=4000, north_m=-3000, frame=frame), 2, 5)
    export.to_geotiff(posterior, tmp_path / "heat.tif")
    with rasterio.open(tmp_path / "heat.tif") as raster:
        to_globe = pyproj.Transformer.from_crs(
            pyproj.CRS.from_wkt(raster.crs.to_wkt()), "EPSG:4326", always_xy=True
        )
        lon_deg, lat_deg = to_globe.transform(*raster.xy(2, 5))
    pose = frame.geo_pose(posterior.mode())
    assert (lat_deg, lon_deg) == (approx(pose.lat_deg, abs=1e-9), approx(pose.lon_deg, abs=1e-9))


@pytest.mark.parametrize("side", [24, 700])
def test_geotiff_is_cloud_optimized(tmp_path, side):
    path = tmp_path / "heat.tif"
    export.to_geotiff(blob(grid_at(rows=side, cols=side), 5, 7), path)
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    assert list(tmp_path.iterdir()) == [path]


def test_geotiff_tags_say_what_the_numbers_are(tmp_path):
    path = tmp_path / "heat.tif"
    provenance = {"attribution": ["© A", "B"], "created": "2024-05-01T12:00:00Z"}
    export.to_geotiff(two_windows(0.6, 0.3, 0.1), path, provenance=provenance)
    with rasterio.open(path) as raster:
        tags = raster.tags()
        structure = raster.tags(ns="IMAGE_STRUCTURE")
    assert tags["AREA_OR_POINT"] == "Area"
    assert tags["unit"].startswith("probability per cell")
    assert float(tags["cell_m"]) == 1.0
    assert float(tags["probability_of_window"]) == approx(0.6)
    assert tags["crossview_version"] == crossview.__version__
    assert json.loads(tags["attribution"]) == ["© A", "B"]
    assert tags["created"] == "2024-05-01T12:00:00Z"
    assert (structure["COMPRESSION"], structure["PREDICTOR"]) == ("DEFLATE", "3")


def test_geotiff_of_a_localization_is_its_best_window(tmp_path):
    export.to_geotiff(two_windows(0.2, 0.7, 0.1), tmp_path / "heat.tif")
    with rasterio.open(tmp_path / "heat.tif") as raster:
        assert raster.bounds.left == 500
        assert raster.read(1).sum() == approx(1)


def test_excluded_cells_are_zero_and_not_nodata(tmp_path):
    export.to_geotiff(posterior_of_cells(ring_of_cells), tmp_path / "heat.tif")
    with rasterio.open(tmp_path / "heat.tif") as raster:
        assert raster.read_masks(1).all()
        assert np.array_equal(raster.read(1) > 0, np.array(ring_of_cells, bool))


def test_mode_of_a_pose_and_of_the_file_agree():
    grid = grid_at(west_m=40, north_m=-8, headings=16)
    collection = export.to_geojson(blob(grid, 3, 6, k=9))
    (feature,) = features_of(collection, "pose")
    lon_deg, lat_deg = feature["geometry"]["coordinates"]
    x_m, y_m = BERLIN.to_local(lat_deg, lon_deg)
    pose = Pose(x_m, y_m, feature["properties"]["heading_deg"])
    assert grid.index_of(pose) == (3, 6, 9)
