"""Posterior as a search plan (windows, the mass that none holds) and as a file."""

import json
import math
import pickle
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import evidence
from crossview.frames import LocalFrame
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localization
from crossview.posterior import Posterior

FRAME = LocalFrame(-35.28, 149.13)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Fineness:
    """What a matcher says about its resolution."""

    cell_m: float = 0.5
    num_headings: int = 16


def posterior_with(mass, *, cell_m=2.0, west_m=0.0, north_m=0.0, num_headings=1, **options):
    mass = np.asarray(mass, float)
    height, width = mass.shape
    grid = PoseGrid(MapGrid(FRAME, west_m, north_m, cell_m, height, width), num_headings)
    volume = np.repeat(mass[:, :, None], num_headings, axis=2)
    with np.errstate(divide="ignore"):
        log_mass = np.log(volume / volume.sum())
    return Posterior(grid, log_mass, **options)


def random_mass(seed, shape=(9, 11)):
    return np.random.default_rng(seed).random(shape) ** 8


def overlap_m2(a, b):
    a, b = a.map.bounds, b.map.bounds
    across = min(a.east_m, b.east_m) - max(a.west_m, b.west_m)
    along = min(a.north_m, b.north_m) - max(a.south_m, b.south_m)
    return max(across, 0) * max(along, 0)


# ---------------------------------------------------------------- windows


def test_a_window_is_a_square_of_the_matchers_cells_and_headings():
    mass = np.zeros((20, 20))
    mass[10, 10] = 1
    (window,) = posterior_with(mass).windows(1, 8.0, like=Fineness(0.5, 16))
    assert window.shape == (32, 32, 16)
    assert window.map.cell_m == 0.5
    assert window.map.frame == FRAME


def test_a_peak_is_looked_at_from_the_middle_of_its_window():
    mass = np.zeros((20, 20))
    mass[10, 10] = 1
    (window,) = posterior_with(mass).windows(1, 8.0, like=Fineness())
    bounds = window.map.bounds
    # the peak's cell is 20..22 m east and -22..-20 m north; a window of 16 m leaves 4 m around it
    assert min(20 - bounds.west_m, bounds.east_m - 22) >= 4
    assert min(bounds.north_m + 20, -22 - bounds.south_m) >= 4


@given(seeds, st.sampled_from([3.0, 4.0, 5.0, 8.0]))
def test_the_first_window_holds_the_most_mass_that_any_could(seed, radius_m):
    posterior = posterior_with(random_mass(seed))
    (window,) = posterior.windows(1, radius_m, like=Fineness(2.0))
    side = min(round(radius_m), 9)
    position = posterior.position()
    best = max(
        position[row : row + side, col : col + side].sum()
        for row in range(9 - side + 1)
        for col in range(11 - side + 1)
    )
    held = math.exp(posterior.onto(PoseGrid(window.map, 1)).log_evidence)
    # a hundredth may be given up to have the peak in the middle
    assert held >= best - 0.0101


@given(seeds, st.integers(1, 6), st.sampled_from([0.5, 0.7, 2.0, 3.0]))
def test_windows_do_not_overlap_and_come_best_first(seed, max_windows, cell_m):
    posterior = posterior_with(random_mass(seed), west_m=1.0, north_m=0.5)
    windows = posterior.windows(max_windows, 3.0, like=Fineness(cell_m))
    assert 1 <= len(windows) <= max_windows
    for i, window in enumerate(windows):
        for other in windows[:i]:
            assert overlap_m2(window, other) == approx(0, abs=1e-6)
    if cell_m == 0.5:  # the lattice of the coarse cells: windows hold what was chosen
        held = [math.exp(posterior.onto(PoseGrid(w.map, 1)).log_evidence) for w in windows]
        assert all(held[i] >= held[i + 1] - 0.0101 for i in range(len(held) - 1))


def test_windows_lie_on_the_lattice_of_their_cells():
    posterior = posterior_with(random_mass(1), west_m=0.3, north_m=0.7)
    for window in posterior.windows(4, 4.0, like=Fineness(0.5)):
        assert np.mod([window.map.west_m, window.map.north_m], 0.5) == approx([0, 0])


def test_windows_find_every_cluster_and_stop_where_no_mass_is_left():
    mass = np.zeros((40, 40))
    mass[5, 5], mass[30, 8], mass[20, 33] = 0.5, 0.3, 0.2
    posterior = posterior_with(mass)
    windows = posterior.windows(10, 6.0, like=Fineness())
    held = [math.exp(posterior.onto(PoseGrid(window.map, 1)).log_evidence) for window in windows]
    assert held == approx([0.5, 0.3, 0.2], abs=1e-5)
    assert posterior.log_mass_outside(windows) == -math.inf


def test_a_window_larger_than_the_grid_is_the_grid():
    posterior = posterior_with(random_mass(2))
    (window,) = posterior.windows(3, 500.0, like=Fineness(0.5))
    assert window.map.bounds == approx(posterior.grid.map.bounds)
    assert posterior.log_mass_outside([window]) == -math.inf


def test_windows_do_not_reach_outside_of_the_grid_by_a_cell_or_more():
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=40, cell_m=2), 1)
    corner = Posterior.flat(grid).update(evidence.gaussian(grid, -39, 39, sigma_m=1.5))
    for window in corner.windows(2, 10, like=Fineness(0.7)):
        bounds, outer = window.map.bounds, grid.map.bounds
        assert min(bounds.west_m - outer.west_m, outer.east_m - bounds.east_m) > -0.7
        assert min(bounds.south_m - outer.south_m, outer.north_m - bounds.north_m) > -0.7


def test_no_windows_are_none():
    assert posterior_with(random_mass(3)).windows(0, 4.0, like=Fineness()) == []


# ---------------------------------------------------------------- elsewhere


@given(seeds, st.floats(-5, 5))
def test_what_no_window_holds_completes_their_evidence(seed, log_evidence):
    posterior = posterior_with(random_mass(seed), log_evidence=log_evidence)
    windows = posterior.windows(2, 3.0, like=Fineness(0.5, 1))
    held = [posterior.onto(window).log_evidence for window in windows]
    total = np.logaddexp.reduce([*held, posterior.log_mass_outside(windows)])
    assert total == approx(log_evidence, abs=1e-5)


def test_without_windows_everything_is_outside():
    posterior = posterior_with(random_mass(4), log_evidence=1.5)
    assert posterior.log_mass_outside([]) == approx(1.5, abs=1e-5)


def test_a_window_across_cells_holds_their_share():
    posterior = posterior_with(np.ones((1, 4)), cell_m=2.0)
    half_cell_in = PoseGrid(MapGrid(FRAME, 1.0, 0.0, 2.0, 1, 1), 4)
    assert posterior.log_mass_outside([half_cell_in]) == approx(math.log(0.75), abs=1e-5)


# ---------------------------------------------------------------- files


@given(seed=seeds, num_headings=st.sampled_from([1, 4, 16]))
def test_load_inverts_save(tmp_path_factory, seed, num_headings):
    path = tmp_path_factory.mktemp("saved") / "posterior.npz"
    posterior = posterior_with(
        random_mass(seed), num_headings=num_headings, west_m=1 / 3, log_evidence=-123.456
    )
    posterior.save(path)
    loaded = Posterior.load(path)
    assert loaded.grid == posterior.grid
    assert np.array_equal(loaded.log_mass, posterior.log_mass)
    assert loaded.log_evidence == posterior.log_evidence
    with pytest.raises(ValueError, match="read-only"):
        loaded.log_mass[0, 0, 0] = 0


def test_saving_leaves_one_file_that_holds_no_pickle(tmp_path):
    posterior_with(random_mass(0)).save(tmp_path / "posterior.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.npz"]
    with np.load(tmp_path / "posterior.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_a_saved_file_has_the_permissions_that_new_files_have(tmp_path):
    posterior_with(random_mass(0)).save(tmp_path / "posterior.npz")
    (tmp_path / "plain.txt").write_text("any")
    modes = [(tmp_path / name).stat().st_mode for name in ("posterior.npz", "plain.txt")]
    assert modes[0] == modes[1]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "posterior.npz"
    posterior_with(random_mass(0)).save(path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space left"):
        posterior_with(random_mass(1)).save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["posterior.npz"]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(tmp_path):
    path = tmp_path / "posterior.npz"
    posterior_with(random_mass(0), num_headings=4).save(path)
    return path


def parts_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_a_file_with_a_pickle_inside_is_refused_and_runs_nothing(tmp_path):
    path = saved(tmp_path)
    parts = parts_of(path)
    for name in parts:
        poisoned = parts | {name: np.array([Bomb(tmp_path / "ran")], dtype=object)}
        np.savez(path, allow_pickle=True, **poisoned)
        with pytest.raises(ValueError, match="not a saved posterior"):
            Posterior.load(path)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ValueError, match="not a saved posterior"):
        Posterior.load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    path = saved(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(ValueError, match=r"posterior\.npz is not a saved posterior"):
        Posterior.load(path)


def test_a_damaged_byte_is_refused_or_does_no_harm(tmp_path):
    path = saved(tmp_path)
    raw, expected = path.read_bytes(), Posterior.load(path)
    refused = 0
    for position in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = Posterior.load(path)
        except ValueError:
            refused += 1
        else:
            assert loaded.grid == expected.grid
            assert np.array_equal(loaded.log_mass, expected.log_mass)
    assert refused > 0.8 * len(raw) / 7


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.npz"
    path.write_bytes(b"GIF89a" + bytes(200))
    with pytest.raises(ValueError, match="not a saved posterior"):
        Posterior.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not a saved posterior"):
        Posterior.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="not a saved posterior"):
        Posterior.load(path)


@pytest.mark.parametrize(
    "header",
    [{}, {"lat_deg": 99}, {"cell_m": 0}, {"west_m": None}, {"cell_m": "wide"}, [1], "text", None],
    ids=str,
)
def test_a_file_with_another_header_is_refused(tmp_path, header):
    path = saved(tmp_path)
    parts = parts_of(path)
    if isinstance(header, dict) and header:
        header = json.loads(str(parts["header"])) | header
    np.savez(path, **(parts | {"header": json.dumps(header)}))
    with pytest.raises(ValueError, match="not a saved posterior"):
        Posterior.load(path)


def test_a_file_of_another_version_is_refused_with_both_versions(tmp_path):
    path = saved(tmp_path)
    parts = parts_of(path)
    header = json.loads(str(parts["header"])) | {"format_version": 99}
    np.savez(path, **(parts | {"header": json.dumps(header)}))
    with pytest.raises(ValueError, match=r"version 99.* 1\."):
        Posterior.load(path)


def test_a_file_whose_mass_is_not_one_is_refused(tmp_path):
    path = saved(tmp_path)
    parts = parts_of(path)
    np.savez(path, **(parts | {"log_mass": parts["log_mass"] + 1}))
    with pytest.raises(ValueError, match="not to one"):
        Posterior.load(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Posterior.load(tmp_path / "nowhere.npz")


def test_the_little_mass_outside_of_a_window_competes_when_the_window_disappoints():
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=40, cell_m=1.0), 1)
    prior = Posterior.flat(grid).update(evidence.gaussian(grid, 0.0, 0.0, sigma_m=3.6))
    (window,) = prior.windows(1, 20.0, like=Fineness(cell_m=1.0, num_headings=4))
    log_rest = prior.log_mass_outside([window])
    assert -20.0 < log_rest - prior.log_evidence < -12.0
    disappointed = prior.onto(window).update(np.full((1, 1, 1), -60.0))
    assert Localization((disappointed,), log_rest).probability_elsewhere > 0.999


def test_a_window_smaller_than_a_cell_is_refused():
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=10, cell_m=1.0), 1)
    with pytest.raises(ValueError, match="smaller than a cell"):
        Posterior.flat(grid).windows(2, 1.0, like=Fineness(cell_m=3.0, num_headings=4))
