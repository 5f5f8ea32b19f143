"""Places and poses: the local metric frame, and every conversion to and from the globe."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from crossview import angles
from crossview.errors import OutOfRegionError

if TYPE_CHECKING:
    import pyproj

MAX_DISTANCE_M = 50_000.0
"""A frame serves a town or a city: at this distance its scale is off by 3e-5 (1.5 m in 50 km)."""


@dataclass(frozen=True)
class Motion:
    """What odometry says happened between two photos.

    Args:
        forward_m: Distance along the heading *before* the turn.
        right_m: Distance to the right of that heading.
        turn_deg: Change of heading, clockwise.
        sigma_m: Standard deviation of the displacement, per axis.
        sigma_deg: Standard deviation of the turn.
    """

    forward_m: float = 0.0
    right_m: float = 0.0
    turn_deg: float = 0.0
    sigma_m: float = 0.0
    sigma_deg: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in vars(self).values()):
            raise ValueError(f"{self} has a value that is not finite.")
        if self.sigma_m < 0 or self.sigma_deg < 0:
            raise ValueError(f"sigma_m and sigma_deg must be 0 or more, got {self}.")


@dataclass(frozen=True)
class Pose:
    """Where a camera stood and looked, in a LocalFrame.

    Args:
        x_m: East of the frame's anchor.
        y_m: North of the frame's anchor.
        heading_deg: Clockwise from the *frame's* north, [0, 360); None where it is not known.
    """

    x_m: float
    y_m: float
    heading_deg: float | None = None

    def __post_init__(self) -> None:
        _normalize_heading(self)

    def moved(self, motion: Motion) -> Pose:
        """The pose after a motion; the displacement comes before the turn."""
        if self.heading_deg is None:
            raise ValueError(
                f"{self} has no heading, so a motion in its own frame leads nowhere known. "
                "Give it a heading_deg."
            )
        ahead_x, ahead_y = angles.forward(self.heading_deg)
        return Pose(
            x_m=self.x_m + float(motion.forward_m * ahead_x + motion.right_m * ahead_y),
            y_m=self.y_m + float(motion.forward_m * ahead_y - motion.right_m * ahead_x),
            heading_deg=self.heading_deg + motion.turn_deg,
        )

    def motion_to(self, other: Pose) -> Motion:
        """Inverse of moved: the motion, without noise, that leads from here to another pose.

        The turn is the shorter one, in (-180, 180].
        """
        if self.heading_deg is None or other.heading_deg is None:
            raise ValueError(
                f"{self} or {other} has no heading, so no motion leads from one to the other. "
                "Give both a heading_deg."
            )
        ahead_x, ahead_y = angles.forward(self.heading_deg)
        east_m, north_m = other.x_m - self.x_m, other.y_m - self.y_m
        return Motion(
            forward_m=float(east_m * ahead_x + north_m * ahead_y),
            right_m=float(east_m * ahead_y - north_m * ahead_x),
            turn_deg=float(angles.difference_deg(other.heading_deg, self.heading_deg)),
        )


@dataclass(frozen=True)
class GeoPose:
    """Where a camera stood and looked, on the globe (WGS 84).

    Args:
        lat_deg: Latitude.
        lon_deg: Longitude.
        heading_deg: Clockwise from *true* north, [0, 360); None where it is not known.
    """

    lat_deg: float
    lon_deg: float
    heading_deg: float | None = None

    def __post_init__(self) -> None:
        _check_geodetic(self.lat_deg, self.lon_deg)
        _normalize_heading(self)


@dataclass(frozen=True)
class Fix:
    """What a device says about its own place, as it said it.

    Args:
        lat_deg: Latitude (WGS 84).
        lon_deg: Longitude.
        accuracy_m: Standard deviation of the position per axis, where the device tells.
        heading_deg: Compass heading, clockwise.
        heading_reference: Whether the heading counts from true or from magnetic north. A
            magnetic heading is never corrected silently.
    """

    lat_deg: float
    lon_deg: float
    accuracy_m: float | None = None
    heading_deg: float | None = None
    heading_reference: Literal["true", "magnetic"] = "true"

    def __post_init__(self) -> None:
        _check_geodetic(self.lat_deg, self.lon_deg)
        _normalize_heading(self)
        if self.heading_reference not in ("true", "magnetic"):
            raise ValueError(
                f"heading_reference is {self.heading_reference!r}; expected 'true' or 'magnetic'."
            )
        if self.accuracy_m is not None and not 0 < self.accuracy_m < math.inf:
            raise ValueError(f"accuracy_m must be positive or None, got {self.accuracy_m}.")


@dataclass(frozen=True)
class LocalFrame:
    """Metres around a place: transverse Mercator centred there, scale 1.

    x points east and y north, in metres, float64. One frame serves one region (a town, a
    city): a place more than 50 km from the anchor is an error. Unlike UTM, its north is true
    north at the anchor, and unlike Web Mercator a metre is a metre.

    Args:
        lat_deg: Latitude of the anchor (WGS 84).
        lon_deg: Longitude of the anchor.
    """

    lat_deg: float
    lon_deg: float

    def __post_init__(self) -> None:
        _check_geodetic(self.lat_deg, self.lon_deg)
        object.__setattr__(self, "lat_deg", float(self.lat_deg))
        object.__setattr__(self, "lon_deg", float(self.lon_deg))

    @property
    def crs(self) -> pyproj.CRS:
        """The frame as a coordinate reference system, axes east and north in metres."""
        return _crs(self)

    def to_local(self, lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> tuple[Any, Any]:
        """Position in the frame, (x_m, y_m); numbers for numbers, arrays for arrays.

        Raises:
            OutOfRegionError: A place is more than 50 km from the anchor, or not on the globe.
        """
        x_m, y_m = _transformer("EPSG:4326", self).transform(
            np.asarray(lon_deg, dtype=float), np.asarray(lat_deg, dtype=float)
        )
        self._require_near(x_m, y_m)
        return _plain(x_m), _plain(y_m)

    def to_geodetic(self, x_m: npt.ArrayLike, y_m: npt.ArrayLike) -> tuple[Any, Any]:
        """Inverse of to_local: (lat_deg, lon_deg), with the same limit."""
        self._require_near(x_m, y_m)
        lon_deg, lat_deg = _transformer(self, "EPSG:4326").transform(
            np.asarray(x_m, dtype=float), np.asarray(y_m, dtype=float)
        )
        return _plain(lat_deg), _plain(lon_deg)

    def _require_near(self, x_m: npt.ArrayLike, y_m: npt.ArrayLike) -> None:
        distance_m = np.hypot(x_m, y_m)
        if not np.all(distance_m <= MAX_DISTANCE_M):
            raise OutOfRegionError(
                f"A place {_farthest_km(distance_m)} from {self} does not fit its frame "
                f"(at most {MAX_DISTANCE_M / 1000:.0f} km). Make a LocalFrame near the place, "
                "and check that latitude and longitude are not swapped."
            )

    def convergence_deg(self, x_m: npt.ArrayLike, y_m: npt.ArrayLike) -> Any:
        """Where the frame's north points, clockwise from true north (0.05 deg at 5 km, 50 N).

        true heading = frame heading + convergence.
        """
        return grid_convergence_deg(self.crs, x_m, y_m)

    def geo_pose(self, pose: Pose) -> GeoPose:
        """The pose on the globe; the heading becomes one from true north."""
        lat_deg, lon_deg = self.to_geodetic(pose.x_m, pose.y_m)
        heading_deg = pose.heading_deg
        if heading_deg is not None:
            heading_deg = heading_deg + self.convergence_deg(pose.x_m, pose.y_m)
        return GeoPose(lat_deg, lon_deg, heading_deg)

    def pose(self, geo_pose: GeoPose) -> Pose:
        """Inverse of geo_pose."""
        x_m, y_m = self.to_local(geo_pose.lat_deg, geo_pose.lon_deg)
        heading_deg = geo_pose.heading_deg
        if heading_deg is not None:
            heading_deg = heading_deg - self.convergence_deg(x_m, y_m)
        return Pose(x_m, y_m, heading_deg)


def geodetic_from_projected(
    crs: str, easting_m: npt.ArrayLike, northing_m: npt.ArrayLike
) -> tuple[Any, Any]:
    """(lat_deg, lon_deg) of places in a national grid, such as "EPSG:2154".

    Axes are always easting, northing, whatever order the authority prints.
    """
    lon_deg, lat_deg = _transformer(crs, "EPSG:4326").transform(
        np.asarray(easting_m, dtype=float), np.asarray(northing_m, dtype=float)
    )
    return _plain(lat_deg), _plain(lon_deg)


def grid_convergence_deg(
    crs: str | pyproj.CRS, easting_m: npt.ArrayLike, northing_m: npt.ArrayLike
) -> Any:
    """Where a projected grid's north points, clockwise from true north.

    true heading = grid heading + convergence: -0.48 deg for Lambert-93 in Paris.
    """
    import pyproj

    crs = pyproj.CRS.from_user_input(crs)
    lon_deg, lat_deg = _transformer(crs, "EPSG:4326").transform(
        np.asarray(easting_m, dtype=float), np.asarray(northing_m, dtype=float)
    )
    factors = pyproj.Proj(crs).get_factors(lon_deg, lat_deg)
    return _plain(np.asarray(factors.meridian_convergence))


def _normalize_heading(owner: Pose | GeoPose | Fix) -> None:
    if owner.heading_deg is None:
        return
    if not math.isfinite(owner.heading_deg):
        raise ValueError(f"heading_deg is {owner.heading_deg}; use None where it is not known.")
    object.__setattr__(owner, "heading_deg", float(angles.normalize_deg(owner.heading_deg)))


def _check_geodetic(lat_deg: float, lon_deg: float) -> None:
    if not (-90 <= lat_deg <= 90 and -180 <= lon_deg <= 180):
        raise ValueError(
            f"Latitude {lat_deg} and longitude {lon_deg} are not a place: expected -90..90 and "
            "-180..180, in degrees, latitude first."
        )


def _farthest_km(distance_m: np.ndarray) -> str:
    farthest_m = np.max(np.where(np.isfinite(distance_m), distance_m, np.inf))
    return f"{farthest_m / 1000:.0f} km" if np.isfinite(farthest_m) else "beyond the projection"


def _plain(values: np.ndarray) -> Any:
    values = np.asarray(values)
    return float(values) if values.ndim == 0 else values


@functools.lru_cache(maxsize=64)
def _crs(frame: LocalFrame) -> pyproj.CRS:
    import pyproj

    return pyproj.CRS.from_proj4(
        f"+proj=tmerc +lat_0={frame.lat_deg!r} +lon_0={frame.lon_deg!r} +k=1 +x_0=0 +y_0=0 "
        "+datum=WGS84 +units=m +no_defs"
    )


@functools.lru_cache(maxsize=64)
def _transformer(
    source: str | pyproj.CRS | LocalFrame, target: str | LocalFrame
) -> pyproj.Transformer:
    import pyproj

    crs_from = source.crs if isinstance(source, LocalFrame) else source
    crs_to = target.crs if isinstance(target, LocalFrame) else target
    return pyproj.Transformer.from_crs(crs_from, crs_to, always_xy=True)
