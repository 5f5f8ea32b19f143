"""The column matcher step by step, and other ways to do the same work.

Every variant runs in a process of its own, from the same made-up town. What would take minutes or
hours is done on a sample and extrapolated, and says so.
"""

import json
import logging
import math
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import column_inputs, harness
from benchmarks.column_inputs import (
    CASE,
    CELL_M,
    HEIGHT_M,
    QUICK_CASE,
    SEED,
    Case,
    Casting,
    Levelling,
    Locating,
    Matching,
    Weighing,
)
from benchmarks.harness import Results
from crossview import angles, column_evidence, column_kernels, columns, raycast, semantic
from crossview.column_model import FARTHEST_M, ColumnModel
from crossview.legends import BUILDING
from crossview.localizer import WINDOW_MARGIN_M, Localizer
from crossview.vectors import VectorMap

logger = logging.getLogger(__name__)

STATION_AIM_S, CASTING_AIM_S = 0.3, 3.0
"""Wall seconds of a rig after segmentation, its map ray-cast before, and of the ray-casting."""


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Answer:
    """What a variant found.

    Attributes:
        arrays: Comparable with those of the first variant of the step: all of them, or those at
            `cells` of its first axis.
        share: Of the whole work that was done; below 1, seconds are extrapolated.
        cells: Which of the first axis were done; None for all.
    """

    arrays: Arrays
    share: float = 1.0
    cells: np.ndarray | None = None


Call = Callable[[], Answer]


# -------------------------------------------------------------------- ray-casting


def casting_by_slices(given: Casting) -> Call:
    """Ours: all cells walk together, and a step is a shifted slice of the map."""
    case = given.case

    def call() -> Answer:
        rays = raycast.cast(
            given.map_raster,
            given.grid,
            height_m=HEIGHT_M,
            num_azimuths=case.num_azimuths,
            reach_m=case.sight_m,
        )
        return Answer(_comparable(rays.range_m, rays.skyline_deg))

    return call


def casting_by_gathering(given: Casting) -> Call:
    """Every ray has a position of its own, and looks it up in the map at every step."""
    case, cells = given.case, given.map_raster.grid
    building = given.map_raster.class_mask(BUILDING)
    above_m = np.where(building, given.map_raster.building_height_m - HEIGHT_M, -np.inf)
    above_m = above_m.astype(np.float32)

    def call() -> Answer:
        x_m, y_m = np.meshgrid(*given.grid.centers())
        col, row = cells.to_pixel(x_m.ravel()[:, None], y_m.ravel()[:, None])
        azimuth_deg = np.arange(case.num_azimuths) * (angles.FULL_TURN_DEG / case.num_azimuths)
        east, north = (part / cells.cell_m for part in angles.forward(azimuth_deg))
        range_m = np.full((x_m.size, case.num_azimuths), np.inf, np.float32)
        slope = np.full(range_m.shape, -np.inf, np.float32)
        walked_m = raycast.steps_m(case.sight_m, cells.cell_m)
        # from far to near, so that the nearest wall is written last
        for before_m, here_m in zip(walked_m[-2::-1], walked_m[:0:-1], strict=True):
            at = (
                np.floor(row - here_m * north).astype(np.int32),
                np.floor(col + here_m * east).astype(np.int32),
            )
            # a wall stands between two looks
            distance_m = np.float32((before_m + here_m) / 2)
            range_m[building[at]] = distance_m
            np.maximum(slope, above_m[at] / distance_m, out=slope)
        skyline_deg = np.where(np.isneginf(slope), 0.0, np.rad2deg(np.arctan(slope)))
        return Answer(_comparable(range_m, skyline_deg))

    return call


def casting_through_polygons(given: Casting) -> Call:
    """Rays as lines, walls as polygons, an STRtree between them; a sample of cells."""
    import shapely

    case, grid = given.case, given.grid
    x_m, y_m = (part.ravel() for part in np.meshgrid(*grid.centers()))
    polygons = np.array([polygon for polygon, _ in given.buildings])
    height_m = np.array([height_m for _, height_m in given.buildings])
    is_free = np.flatnonzero(~shapely.contains_xy(shapely.union_all(polygons), x_m, y_m))
    chosen = np.random.default_rng(SEED).permutation(is_free)[: case.sampled_cells]
    azimuth_deg = np.arange(case.num_azimuths) * (angles.FULL_TURN_DEG / case.num_azimuths)
    east, north = angles.forward(azimuth_deg)

    def call() -> Answer:
        eyes = np.stack([x_m[chosen], y_m[chosen]], axis=1)[:, None]
        ends = eyes + case.sight_m * np.stack([east, north], axis=1)
        both = np.stack([np.broadcast_to(eyes, ends.shape), ends], axis=2).reshape(-1, 2, 2)
        rays = np.asarray(shapely.linestrings(both))
        ray, house = shapely.STRtree(polygons).query(rays, predicate="intersects")
        inside = shapely.intersection(rays[ray], polygons[house])
        away_m = shapely.distance(shapely.points(both[ray, 0]), inside)
        range_m, slope = np.full(len(rays), np.inf), np.full(len(rays), -np.inf)
        np.minimum.at(range_m, ray, away_m)
        np.maximum.at(slope, ray, (height_m[house] - HEIGHT_M) / away_m)
        skyline_deg = np.where(np.isneginf(slope), 0.0, np.rad2deg(np.arctan(slope)))
        shape = (len(chosen), case.num_azimuths)
        arrays = _comparable(range_m.reshape(shape), skyline_deg.reshape(shape))
        return Answer(arrays, len(chosen) / x_m.size, chosen)

    return call


def _comparable(range_m: np.ndarray, skyline_deg: np.ndarray) -> Arrays:
    """By cell and azimuth; what is farther than the matcher tells apart is equally far."""
    num_azimuths = range_m.shape[-1]
    near_m = np.minimum(range_m.astype(np.float32), np.float32(FARTHEST_M))
    skyline_deg = skyline_deg.astype(np.float32)
    return {
        "range_m": near_m.reshape(-1, num_azimuths),
        "skyline_deg": skyline_deg.reshape(-1, num_azimuths),
    }


# ---------------------------------------------------------- levelling and evidence


def levelling(given: Levelling) -> Call:
    """Ours: the levelled columns of four segmented photos."""

    def call() -> Answer:
        view = columns.levelled(given.images)
        return Answer({"probability": view.probability, "seen": view.seen})

    return call


def weighing(given: Weighing) -> Call:
    """Ours: what the columns say about every hypothesis."""
    model = ColumnModel.from_json(given.model)
    return lambda: Answer({"log_ratio": column_evidence.evidence(given.view, model).log_ratio})


# ----------------------------------------------------------------------- matching


def matching(given: Matching) -> Call:
    """Ours: compiled where numba is installed."""
    headings = np.arange(given.case.num_headings)
    return lambda: Answer(
        {
            "sums": semantic.column_sums(
                given.evidence, given.codes, headings, num_headings=len(headings)
            ).T
        }
    )


def matching_without_compiler(given: Matching) -> Call:
    """Ours without numba."""
    ours = matching(given)

    def call() -> Answer:
        with mock.patch.object(column_kernels, "compiled", return_value=None):
            return ours()

    return call


def matching_pose_by_pose(given: Matching) -> Call:
    """One look-up of all columns for each cell and heading; a sample of cells."""
    num_cells, num_azimuths = given.codes.shape
    used = np.flatnonzero(given.evidence.active)
    turns = np.arange(given.case.num_headings) * (num_azimuths // given.case.num_headings)
    chosen = np.random.default_rng(SEED).permutation(num_cells)[: given.case.sampled_poses]

    def call() -> Answer:
        sums = np.empty((len(chosen), len(turns)), np.float32)
        for i, cell in enumerate(chosen):
            for k, turn in enumerate(turns):
                seen = given.codes[cell, (used + turn) % num_azimuths]
                sums[i, k] = given.evidence.log_ratio[used, seen].sum()
        return Answer({"sums": sums}, len(chosen) / num_cells, chosen)

    return call


# ---------------------------------------------------------------- a whole station


def locating_in_a_known_street(given: Locating) -> Call:
    """Levelled to posterior where an earlier query was: its map is drawn anew, not ray-cast."""
    call = _locating(given, _localizer(given, _map_of(given)))
    call()
    return call


def locating_in_a_new_street(given: Locating) -> Call:
    """The same, and ray-cast anew: the first query of a place."""
    maps = _map_of(given)

    def call() -> Answer:
        # nothing is remembered from one call to the next
        return _locating(given, _localizer(given, maps))()

    return call


def _map_of(given: Locating) -> VectorMap:
    """The town's map with its features in metres: reading a file is no station's work."""
    maps = VectorMap.read(given.town_file)
    maps(given.prior.grid.map)
    return maps


def _localizer(given: Locating, maps: VectorMap) -> Localizer:
    """With a matcher that has not seen the street."""
    return Localizer(
        maps,
        column_inputs.matcher_of(given.case, ColumnModel.from_json(given.model)),
        window_radius_m=given.case.radius_m + WINDOW_MARGIN_M,
    )


def _locating(given: Locating, localizer: Localizer) -> Call:
    def call() -> Answer:
        views = (columns.levelled(given.images),)
        posterior = localizer.localize(views, given.prior).best
        return Answer({"position": posterior.position()})

    return call


VARIANTS: dict[str, dict[str, Callable[[Any], Call]]] = {
    "ray-casting": {
        "crossview, shifted slices": casting_by_slices,
        "every ray looks up every step (NumPy)": casting_by_gathering,
        "rays through polygons (shapely STRtree)": casting_through_polygons,
    },
    "levelling a rig": {"crossview": levelling},
    "evidence": {"crossview": weighing},
    "matching": {
        "crossview, compiled": matching,
        "crossview, NumPy": matching_without_compiler,
        "pose by pose (NumPy)": matching_pose_by_pose,
    },
    "station after segmentation": {
        "crossview, street ray-cast before": locating_in_a_known_street,
        "crossview, street ray-cast now": locating_in_a_new_street,
    },
}
"""By step and name; the first of a step is what the others are compared with."""


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may differ to agree.

    Attributes:
        label: What they are, for the table.
        absolute: In their own unit.
        relative: As a share of the value.
        unit: For the table.
    """

    label: str
    absolute: float
    relative: float = 0.0
    unit: str = ""

    def allowed(self, value: np.ndarray) -> np.ndarray:
        """Of each value."""
        return self.absolute + self.relative * np.abs(value)

    def __str__(self) -> str:
        relative = f" + {self.relative:.0%}" if self.relative else ""
        return f"{self.absolute:g}{' ' * bool(self.unit)}{self.unit}{relative}"


TOLERANCES = {
    "range_m": Tolerance("range", 0.5, 0.02, "m"),
    "skyline_deg": Tolerance("skyline", 1.0, 0.0, "°"),
    "probability": Tolerance("probability", 1e-6),
    "seen": Tolerance("seen", 0.0),
    "log_ratio": Tolerance("log ratio", 1e-5, 0.0, "nats"),
    "sums": Tolerance("sum", 1e-2, 0.0, "nats"),
    "position": Tolerance("probability", 1e-6),
}
"""Ranges: cells of the map, and the length of a step. Skylines: a bin of the matcher."""


# ----------------------------------------------------------------------- measuring


def run(*, quick: bool) -> Results:
    """Measure every variant of every step."""
    case = QUICK_CASE if quick else CASE
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        column_inputs.write(case, folder)
        for step in VARIANTS:
            rows += measured(step, folder, repeats=case.repeats)
    numbers = {
        "case": asdict(case),
        "threads": columns.NUM_THREADS,
        "compiled": column_kernels.compiled() is not None,
        "aims_s": {"station": STATION_AIM_S, "ray-casting": CASTING_AIM_S},
        "rows": rows,
    }
    return Results(f"{_caption(case)}\n\n{_table(rows)}", numbers)


def measured(step: str, folder: Path, *, repeats: int) -> list[dict[str, Any]]:
    """One row of numbers per variant, with ratios to ours."""
    rows: list[dict[str, Any]] = []
    answers: dict[str, tuple[Arrays, np.ndarray | None]] = {}
    for variant in VARIANTS[step]:
        logger.info("%s: %s", step, variant)
        row: dict[str, Any] = {"step": step, "variant": variant}
        if variant == "crossview, compiled" and column_kernels.compiled() is None:
            rows.append(row | {"skipped": "numba is not installed (extra `fast`)"})
            continue
        answer = folder / "answer.pickle"
        row |= harness.in_own_process(__name__, step, variant, folder, answer, repeats)
        answers[variant] = pickle.loads(answer.read_bytes())
        rows.append(row)
    _compare(rows, answers)
    return rows


def _compare(
    rows: list[dict[str, Any]], answers: dict[str, tuple[Arrays, np.ndarray | None]]
) -> None:
    """Add ratios to the first variant that ran, and the difference to its answer."""
    ours = next(row for row in rows if "skipped" not in row)
    reference, _ = answers[ours["variant"]]
    for row in rows:
        if "skipped" in row:
            continue
        arrays, cells = answers[row["variant"]]
        row["differences"] = {
            name: _difference(
                name, values, reference[name] if cells is None else reference[name][cells]
            )
            for name, values in arrays.items()
        }
        for name in ("cpu_s", "wall_s"):
            row[f"{name.removesuffix('_s')}_ratio"] = row[name] / ours[name]
        if row["share_of_work"] == 1:
            memory = "peak_above_imports_bytes"
            row["memory_ratio"] = row[memory] / max(ours[memory], 1)


def _difference(name: str, values: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    difference = np.abs(values.astype(float) - expected.astype(float))
    return {
        "median": float(np.median(difference)),
        "largest": float(difference.max()),
        "share_within_tolerance": float(np.mean(difference <= TOLERANCES[name].allowed(expected))),
    }


def _measure(step: str, variant: str, folder: str, answer: str, repeats: str) -> None:
    """What a process of its own does: print the cheapest of some calls, and save its answer."""
    _import_all()
    baseline = harness.resident_bytes()
    given = column_inputs.read(Path(folder), step)
    found, numbers = harness.cheapest(VARIANTS[step][variant](given), repeats=int(repeats))
    seconds = {name: value / found.share for name, value in numbers.items()}
    print(json.dumps(seconds | harness.peak(baseline) | {"share_of_work": found.share}))
    Path(answer).write_bytes(pickle.dumps((found.arrays, found.cells)))


def _import_all() -> None:
    """Bring in, and compile, what any variant uses, so that the baseline is one for all."""
    import geopandas  # noqa: F401
    import osmium  # noqa: F401
    import rasterio.features  # noqa: F401
    import shapely  # noqa: F401

    kernel = column_kernels.compiled()
    if kernel is not None:
        turns, log_ratio = np.arange(4), np.zeros((4, 1), np.float32)
        for writeable in (True, False):  # numba compiles for each
            log_ratio.flags.writeable = writeable
            kernel(log_ratio, np.zeros((1, 4), np.uint16), turns, turns)


# ---------------------------------------------------------------------------- table


def _caption(case: Case) -> str:
    compiled = "" if column_kernels.compiled() else " (numba is not installed)"
    return (
        f"A made-up town; evidence, levelling and matching use {columns.NUM_THREADS} threads"
        f"{compiled}, all else one. "
        f"Ray-casting: {case.side_m:g} m x {case.side_m:g} m at {CELL_M:g} m, "
        f"{case.num_azimuths} azimuths, {case.sight_m:g} m far. Rig: four photos of 90 degrees. "
        f"Matching: a disc of {case.radius_m:g} m radius, {case.num_headings} headings. "
        f"Aims: a rig after segmentation, its street ray-cast before, in {STATION_AIM_S:g} s, and "
        f"the ray-casting in {CASTING_AIM_S:g} s (wall, two cores). "
        '"≈" is extrapolated from a sample, whose share of the work stands beside it; its memory '
        "is that of the sample. Answers are compared with the first of each step."
    )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| step | formulation | CPU s (user + system) | wall s | peak MB above imports "
        "| CPU, times ours | wall, times ours | memory, times ours "
        "| difference: median, largest; share within tolerance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['step']} | {row['variant']} "
        if "skipped" in row:
            lines.append(start + f"| skipped: {row['skipped']} | | | | | | |")
            continue
        share = row["share_of_work"]
        about, sampled = ("≈ ", f" (from {share:.2%})") if share < 1 else ("", "")
        ratios = [f"{row[name]:.2f}" if name in row else "" for name in RATIOS]
        lines.append(
            f"{start}| {about}{harness.cpu_cell(row)}{sampled} | {about}{row['wall_s']:.3f} "
            f"| {row['peak_above_imports_bytes'] / 1e6:.0f} | {' | '.join(ratios)} "
            f"| {_differences(row)} |"
        )
    return "\n".join(lines)


RATIOS = ("cpu_ratio", "wall_ratio", "memory_ratio")


def _percent(share: float) -> str:
    """Not 100 % where it is not all of them."""
    return f"{math.floor(1e4 * share) / 100:g} %"


def _differences(row: dict[str, Any]) -> str:
    return "; ".join(
        f"{TOLERANCES[name].label} {found['median']:.2g}, {found['largest']:.2g}; "
        f"{_percent(found['share_within_tolerance'])} within {TOLERANCES[name]}"
        for name, found in row["differences"].items()
    )


if __name__ == "__main__":
    _measure(*sys.argv[1:])
