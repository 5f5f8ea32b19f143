"""Answers as files for maps: GeoJSON (RFC 7946) and Cloud Optimized GeoTIFF."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import __version__, angles, atomic
from crossview.evaluation import COVERAGE_LEVELS
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.localizer import Localization
from crossview.posterior import Mode, Posterior
from crossview.statements import MIN_PROBABILITY, STATED_WITHIN_M

if TYPE_CHECKING:
    import shapely

ELLIPSE_LEVEL = 0.95
"""Probability inside of the written ellipse, if the distribution were a Gaussian."""

NODATA = -9999.0

OK, NO_ANSWER = "ok", "no answer"
"""Values of the property `answer`."""

_MIN_MODE_MASS = 1e-3
_COORDINATE_DECIMALS = 7  # RFC 7946, 11.2; a centimetre
_LATTICE_DECIMALS = 6  # micrometres: windows that share an edge then share its coordinates
_LEVEL_SLACK = 1e-12


@dataclass(frozen=True, eq=False)
class CredibleRegion:
    """The smallest area that holds a given probability, over all windows of an answer together.

    Args:
        level: Probability asked for.
        mass: Probability held: level or a cell more; less where all windows together hold less.
        grids: The windows' cells.
        cells: Which of them belong to the region, (rows, cols) bool for every window.
    """

    level: float
    mass: float
    grids: tuple[MapGrid, ...]
    cells: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        cells = tuple(np.array(cells, dtype=bool) for cells in self.cells)  # nobody else's
        for own in cells:
            own.flags.writeable = False
        object.__setattr__(self, "cells", cells)

    @property
    def reached(self) -> bool:
        """Whether the windows hold as much as the level."""
        return self.mass >= self.level * (1 - _LEVEL_SLACK)

    @property
    def area_m2(self) -> float:
        """Area of the region's cells."""
        return sum(
            int(np.count_nonzero(cells)) * grid.cell_m**2
            for grid, cells in zip(self.grids, self.cells, strict=True)
        )

    def outline(self) -> shapely.MultiPolygon:
        """The exact outline of the cells in the frame's metres, holes kept.

        Exterior rings run counter-clockwise, holes clockwise.
        """
        import shapely

        parts = [
            part
            for grid, cells in zip(self.grids, self.cells, strict=True)
            for part in _cell_polygons(grid, cells)
        ]
        # neighbouring windows share edges, and parts of a MultiPolygon must not
        return shapely.MultiPolygon(_polygons_of(shapely.union_all(parts)))


def credible_regions(
    answer: Localization | Posterior, levels: Iterable[float] = COVERAGE_LEVELS
) -> list[CredibleRegion]:
    """The highest-density region of every level, over all windows of an answer together.

    What no window holds counts too: where it is 8 %, the region of 90 % needs almost all that
    the windows have, and the one of 95 % is not reached.

    Args:
        answer: A localization, or one posterior.
        levels: Probabilities in (0, 1].
    """
    localization = _as_localization(answer)
    grids = tuple(posterior.grid.map for posterior in localization.posteriors)
    mass = np.concatenate([cells.ravel() for cells in _position_mass(localization)])
    cell_area = np.repeat([g.cell_m**2 for g in grids], [math.prod(g.shape) for g in grids])
    densest_first = np.argsort(mass / cell_area, kind="stable")[::-1]
    cumulative = np.cumsum(mass[densest_first])
    possible = int(np.count_nonzero(mass))
    return [_region(level, densest_first[:possible], cumulative, grids) for level in levels]


def to_geojson(
    answer: Localization | Posterior,
    path: str | os.PathLike[str] | None = None,
    *,
    query_id: str | None = None,
    num_modes: int = 5,
    levels: Sequence[float] = COVERAGE_LEVELS,
    min_probability: float = MIN_PROBABILITY,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An answer as an RFC 7946 FeatureCollection, longitude first; written if there is a path.

    Features, by their property `kind`:

    * `pose`, one Point: the most probable pose. `heading_deg` clockwise from *true* north (null
      where heading is not represented) and `heading_std_deg`; `cov_en_m2`, the covariance of
      (true east, true north) within the best window, and its ellipse (`semi_major_m`,
      `semi_minor_m`, `ellipse_azimuth_deg` of the major axis from true north in [0, 180),
      `ellipse_level`); `mass` of the peak; `probability_within_5m`, `probability_elsewhere` (in
      no window); `answer`, "no answer" where probability_within_5m is below min_probability.
    * `mode`, Points: other peaks by their `mass`, with `rank` 2, 3, ... and `heading_deg`; those
      below a thousandth are left out.
    * `credible_region`, one MultiPolygon for every `level`: `area_m2`, the `mass` held, and
      `reached`, false where all windows together hold less than the level.

    Args:
        answer: A localization, or one posterior.
        path: File to write; an interrupted write leaves nothing behind.
        query_id: Name of the query, a property of every feature.
        num_modes: Peaks at most, the best pose included.
        levels: Probabilities of the credible regions.
        min_probability: Below this probability_within_5m there is "no answer".
        provenance: What goes into the collection's member `crossview` beside version and frame:
            attribution, created, model_sha256... The output is a function of the arguments
            alone, so the time is written only if it is given here.

    Returns:
        The collection, of plain lists, dicts, strings and numbers.
    """
    if num_modes < 1:
        raise ValueError(f"num_modes must be at least 1, the best pose; got {num_modes}.")
    localization = _as_localization(answer)
    frame = localization.best.grid.map.frame
    modes = _modes(localization, num_modes)
    pose_properties = _pose_properties(localization, modes[0], frame, min_probability)
    contents = [
        (_point(frame, modes[0].pose), pose_properties),
        *(
            (_point(frame, mode.pose), _other_mode_properties(mode, rank, frame))
            for rank, mode in enumerate(modes[1:], start=2)
        ),
        *(
            (_multipolygon(frame, region.outline()), _region_properties(region))
            for region in credible_regions(localization, levels)
        ),
    ]
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "bbox": _bbox(*(geometry for geometry, _ in contents)),
        "crossview": {
            **(provenance or {}),
            "version": __version__,
            "frame": {"lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg},
        },
        "features": [
            {
                "type": "Feature",
                "bbox": _bbox(geometry),
                "geometry": {"type": geometry.kind, "coordinates": geometry.coordinates},
                "properties": {"query_id": query_id, **properties},
            }
            for geometry, properties in contents
        ],
    }
    text = json.dumps(collection, ensure_ascii=False, allow_nan=False)
    if path is not None:
        _write(path, text.encode())
    return json.loads(text)


def to_geotiff(
    answer: Localization | Posterior,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """The probability of every cell, whatever the heading, as a Cloud Optimized GeoTIFF.

    Of a localization it is the best window's; `probability_of_window` in the tags says how
    probable that window is. One float32 band whose cells sum to one, no data -9999, in the
    window's own frame (its transverse Mercator), so that no cell is resampled. Overviews are
    means, so their cells count for the smaller cells that they stand for.

    Args:
        answer: A localization, or one posterior.
        path: File to write; an interrupted write leaves nothing behind.
        provenance: More tags: attribution, created, model_sha256... What is not a string is
            written as JSON.
    """
    localization = _as_localization(answer)
    cells = localization.best.grid.map
    mass = localization.best.position()
    tags = {key: _as_tag(value) for key, value in (provenance or {}).items()}
    tags |= {
        "unit": "probability per cell; all cells sum to 1",
        "cell_m": repr(cells.cell_m),
        "probability_of_window": f"{localization.weights[0]:.6f}",
        "crossview_version": __version__,
    }
    _write(path, _cloud_optimized(cells, (mass / mass.sum()).astype(np.float32), tags))


def _cloud_optimized(cells: MapGrid, mass: np.ndarray, tags: Mapping[str, str]) -> bytes:
    from rasterio.crs import CRS
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    profile = {
        "driver": "COG",
        "width": cells.width,
        "height": cells.height,
        "count": 1,
        "dtype": "float32",
        "nodata": NODATA,
        "crs": CRS.from_wkt(cells.frame.crs.to_wkt()),
        "transform": cells.transform,
        "compress": "DEFLATE",
        "predictor": "FLOATING_POINT",
        "overview_resampling": "AVERAGE",
    }
    with MemoryFile() as memory, warnings.catch_warnings():
        # rasterio doubts cells of 1 m that begin at the anchor; GDAL writes them as all others
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(**profile) as raster:
            raster.write(mass, 1)
            raster.set_band_description(1, "position probability per cell")
            raster.update_tags(AREA_OR_POINT="Area", **tags)
        return bytes(memory.read())


def _as_localization(answer: Localization | Posterior) -> Localization:
    return Localization((answer,)) if isinstance(answer, Posterior) else answer


def _as_tag(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write(path: str | os.PathLike[str], content: bytes) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(content)


# ------------------------------------------------------------------ regions


def _position_mass(localization: Localization) -> Iterator[np.ndarray]:
    """Probability of every cell of every window; with that of elsewhere they sum to one."""
    for weight, posterior in zip(localization.weights, localization.posteriors, strict=True):
        position = posterior.position()
        yield position * (weight / position.sum())


def _region(
    level: float, possible: np.ndarray, cumulative: np.ndarray, grids: tuple[MapGrid, ...]
) -> CredibleRegion:
    """The first of the possible cells (densest first) that hold the level together."""
    if not 0 < level <= 1:
        raise ValueError(f"A level is a probability in (0, 1], got {level}.")
    wanted = int(np.searchsorted(cumulative, level * (1 - _LEVEL_SLACK))) + 1
    count = min(wanted, possible.size)
    inside = np.zeros(cumulative.size, dtype=bool)
    inside[possible[:count]] = True
    ends = np.cumsum([math.prod(grid.shape) for grid in grids])
    cells = tuple(
        part.reshape(grid.shape)
        for part, grid in zip(np.split(inside, ends[:-1]), grids, strict=True)
    )
    return CredibleRegion(level, float(cumulative[count - 1]), grids, cells)


def _cell_polygons(grid: MapGrid, cells: np.ndarray) -> list[shapely.Polygon]:
    """Polygons that cover exactly the marked cells; cells that touch at a corner stay apart."""
    import shapely
    from rasterio import features

    def on_ground(corners: np.ndarray) -> np.ndarray:
        x_m, y_m = grid.to_xy(corners[:, 0], corners[:, 1])
        return np.round(np.stack([x_m, y_m], axis=1), _LATTICE_DECIMALS)

    shapes = features.shapes(cells.astype(np.uint8), mask=cells, connectivity=4)
    return [
        shapely.transform(
            shapely.Polygon(shape["coordinates"][0], shape["coordinates"][1:]), on_ground
        )
        for shape, _ in shapes
    ]


def _polygons_of(geometry: Any) -> list[shapely.Polygon]:
    """The polygons in a geometry, exterior rings counter-clockwise; its points and lines not."""
    import shapely
    from shapely.geometry import polygon

    return [
        polygon.orient(part, 1.0)
        for part in shapely.get_parts(geometry)
        if part.geom_type == "Polygon" and not part.is_empty
    ]


# ----------------------------------------------------------------- geometry


@dataclass(frozen=True)
class _Geometry:
    """A GeoJSON geometry, and its bounds with longitudes that go on beyond 180 degrees."""

    kind: str
    coordinates: list[Any]
    west: float
    south: float
    east: float
    north: float


def _point(frame: LocalFrame, pose: Pose) -> _Geometry:
    lon, lat = _lon_lat(frame, np.array([[pose.x_m, pose.y_m]]))[0]
    return _Geometry("Point", _position(_wrapped(lon), lat), lon, lat, lon, lat)


def _multipolygon(frame: LocalFrame, outline: shapely.MultiPolygon) -> _Geometry:
    """An outline in the frame's metres, corner by corner; cut at the antimeridian."""
    import shapely

    on_globe = shapely.transform(outline, lambda corners: _lon_lat(frame, corners))
    coordinates = [
        [[_position(*corner) for corner in ring.coords] for ring in _rings(part)]
        for part in _cut_at_antimeridian(on_globe)
    ]
    return _Geometry("MultiPolygon", coordinates, *on_globe.bounds)


def _rings(part: shapely.Polygon) -> list[shapely.LinearRing]:
    return [part.exterior, *part.interiors]


def _cut_at_antimeridian(outline: shapely.MultiPolygon) -> list[shapely.Polygon]:
    """Parts with longitudes in [-180, 180], as RFC 7946 wants (3.1.9)."""
    import shapely
    from shapely import affinity

    west, _, east, _ = outline.bounds
    if west >= -180 and east <= 180:
        return list(outline.geoms)
    parts = []
    for turn_deg in (-360, 0, 360):
        world = shapely.box(turn_deg - 180, -90, turn_deg + 180, 90)
        inside = affinity.translate(shapely.intersection(outline, world), -turn_deg)
        parts += _polygons_of(inside)
    return parts


def _lon_lat(frame: LocalFrame, xy_m: np.ndarray) -> np.ndarray:
    """(points, 2) metres to degrees, longitude first and continuous around the frame's anchor."""
    lat_deg, lon_deg = frame.to_geodetic(xy_m[:, 0], xy_m[:, 1])
    turn_deg = angles.difference_deg(lon_deg, frame.lon_deg)
    # adding the turn to the anchor would cost a digit where nothing wraps
    lon_deg = np.where(np.abs(lon_deg - frame.lon_deg) > 180, frame.lon_deg + turn_deg, lon_deg)
    return np.stack([lon_deg, lat_deg], axis=1)


def _position(lon_deg: float, lat_deg: float) -> list[float]:
    """A position as GeoJSON has it: longitude first."""
    return [_rounded(lon_deg, _COORDINATE_DECIMALS), _rounded(lat_deg, _COORDINATE_DECIMALS)]


def _bbox(*geometries: _Geometry) -> list[float]:
    """West, south, east, north; west is the greater one across the antimeridian."""
    return [
        *_position(_wrapped(min(g.west for g in geometries)), min(g.south for g in geometries)),
        *_position(_wrapped(max(g.east for g in geometries)), max(g.north for g in geometries)),
    ]


def _wrapped(lon_deg: float) -> float:
    """A longitude in [-180, 180]."""
    return lon_deg if -180 <= lon_deg <= 180 else lon_deg - math.copysign(360, lon_deg)


# --------------------------------------------------------------- properties


def _modes(localization: Localization, count: int) -> list[Mode]:
    """The best pose first, whatever mass it has, then the other peaks by their mass."""
    (peak,) = localization.best.modes(1)
    best = Mode(localization.best.peak(), peak.mass * float(localization.weights[0]))
    others = [
        mode
        for mode in localization.modes(count)
        if mode.pose != peak.pose and mode.mass >= _MIN_MODE_MASS
    ]
    return [best, *others[: count - 1]]


def _pose_properties(
    localization: Localization, best: Mode, frame: LocalFrame, min_probability: float
) -> dict[str, Any]:
    probability = localization.probability_within(STATED_WITHIN_M)
    heading_std_deg = localization.best.heading_std_deg()
    return {
        "kind": "pose",
        "rank": 1,
        "answer": OK if probability >= min_probability else NO_ANSWER,
        f"probability_within_{STATED_WITHIN_M:g}m": _rounded(probability, 6),
        "probability_elsewhere": _rounded(localization.probability_elsewhere, 6),
        **_mode_properties(best, frame),
        "heading_std_deg": None if heading_std_deg is None else _rounded(heading_std_deg, 3),
        **_spread_properties(localization.best, best.pose),
    }


def _mode_properties(mode: Mode, frame: LocalFrame) -> dict[str, Any]:
    heading_deg = frame.geo_pose(mode.pose).heading_deg
    return {
        "mass": _rounded(mode.mass, 6),
        "heading_deg": None if heading_deg is None else _rounded_angle(heading_deg, 360.0),
    }


def _other_mode_properties(mode: Mode, rank: int, frame: LocalFrame) -> dict[str, Any]:
    return {"kind": "mode", "rank": rank, **_mode_properties(mode, frame)}


def _spread_properties(posterior: Posterior, pose: Pose) -> dict[str, Any]:
    """The covariance turned from the frame's axes to true east and north, and its ellipse."""
    convergence_deg = posterior.grid.map.frame.convergence_deg(pose.x_m, pose.y_m)
    covariance_m2 = _turned_clockwise(posterior.position_covariance_m2(), convergence_deg)
    variances_m2, axes = np.linalg.eigh(covariance_m2)
    # a two-dimensional Gaussian is within r standard deviations with probability 1 - exp(-r^2 / 2)
    deviations = math.sqrt(-2.0 * math.log(1.0 - ELLIPSE_LEVEL))
    minor_m, major_m = deviations * np.sqrt(np.maximum(variances_m2, 0.0))
    azimuth_deg = float(angles.heading_of(axes[0, 1], axes[1, 1]))
    return {
        "cov_en_m2": [[_rounded(value, 6) for value in row] for row in covariance_m2],
        "semi_major_m": _rounded(major_m, 3),
        "semi_minor_m": _rounded(minor_m, 3),
        "ellipse_azimuth_deg": _rounded_angle(azimuth_deg, 180.0),
        "ellipse_level": ELLIPSE_LEVEL,
    }


def _turned_clockwise(covariance_m2: np.ndarray, turn_deg: float) -> np.ndarray:
    """Covariance of (east, north) after every displacement is turned clockwise."""
    turn_rad = math.radians(turn_deg)
    turn = np.array(
        [[math.cos(turn_rad), math.sin(turn_rad)], [-math.sin(turn_rad), math.cos(turn_rad)]]
    )
    return turn @ covariance_m2 @ turn.T


def _region_properties(region: CredibleRegion) -> dict[str, Any]:
    return {
        "kind": "credible_region",
        "level": float(region.level),
        "mass": _rounded(region.mass, 6),
        "reached": region.reached,
        "area_m2": _rounded(region.area_m2, 3),
    }


def _rounded(value: float, decimals: int) -> float:
    """A plain number that is short in a file; never minus zero."""
    return round(float(value), decimals) + 0.0


def _rounded_angle(angle_deg: float, period_deg: float) -> float:
    """In [0, period): what is just below the period must not be rounded up to it."""
    rounded_deg = _rounded(angle_deg % period_deg, 3)
    return 0.0 if rounded_deg >= period_deg else rounded_deg
