"""GPX tracks: where somebody was at which time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossview.errors import DatasetError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 200 << 20
"""A day at one point per second is about 10 MB."""


@dataclass(frozen=True, eq=False)
class Track:
    """Points in the order of time.

    Args:
        time_s: (N,) seconds since 1970 in UTC, rising.
        lat_deg: (N,)
        lon_deg: (N,) unwrapped: no step is longer than half a turn.
    """

    time_s: np.ndarray
    lat_deg: np.ndarray
    lon_deg: np.ndarray

    @property
    def first(self) -> datetime:
        """When it begins."""
        return datetime.fromtimestamp(float(self.time_s[0]), UTC)

    @property
    def last(self) -> datetime:
        """When it ends."""
        return datetime.fromtimestamp(float(self.time_s[-1]), UTC)

    def at(self, moment: datetime, *, max_gap_s: float) -> tuple[float, float]:
        """Latitude and longitude at a time, interpolated between the two points around it.

        Raises:
            DatasetError: The time is before or after the track, or the two points are farther
                apart than max_gap_s.
        """
        time_s = moment.timestamp()
        after = int(np.searchsorted(self.time_s, time_s))
        if after < len(self.time_s) and self.time_s[after] == time_s:
            return self._place(self.lat_deg[after], self.lon_deg[after])
        if not 0 < after < len(self.time_s):
            raise DatasetError(
                f"{moment:%Y-%m-%d %H:%M:%S} UTC is outside of the track, which goes from "
                f"{self.first:%Y-%m-%d %H:%M:%S} to {self.last:%Y-%m-%d %H:%M:%S}."
            )
        gap_s = self.time_s[after] - self.time_s[after - 1]
        if gap_s > max_gap_s:
            raise DatasetError(
                f"{moment:%Y-%m-%d %H:%M:%S} UTC falls into a gap of {gap_s:.0f} s in the track; "
                f"at most {max_gap_s:g} s are bridged (max_gap_s, --max-gap-s)."
            )
        share = (time_s - self.time_s[after - 1]) / gap_s
        return self._place(
            *(axis[after - 1] + share * (axis[after] - axis[after - 1]) for axis in self._axes)
        )

    @property
    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        return self.lat_deg, self.lon_deg

    @staticmethod
    def _place(lat_deg: float, lon_deg: float) -> tuple[float, float]:
        return float(lat_deg), float((lon_deg + 180.0) % 360.0 - 180.0)


def read_track(path: str | Path) -> Track:
    """All track points of a GPX file that have a time, in the order of time.

    Raises:
        DatasetError: It is not a GPX file that can be read, or no point has a time.
    """
    from xml.etree import ElementTree

    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} has more than {MAX_BYTES >> 20} MB. Cut it into pieces.")
        text = path.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DatasetError(f"{path} declares entities, which GPX never does.")
        # size-limited and without a DTD: nothing is left that could expand
        root = ElementTree.fromstring(text)  # noqa: S314
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise DatasetError(f"{path} cannot be read as GPX ({error}).") from error
    points = [_point(element, path) for element in root.iter() if _name(element.tag) == "trkpt"]
    known = sorted({point[0]: point for point in points if point is not None}.values())
    if not known:
        raise DatasetError(f"{path} has no track points with a time (trkpt with time).")
    time_s, lat_deg, lon_deg = np.array(known, dtype=float).T
    return Track(time_s, lat_deg, np.unwrap(lon_deg, period=360.0))


def _point(element: Element, path: Path) -> tuple[float, float, float] | None:
    """Seconds, latitude and longitude; None without a time."""
    text = next((child.text for child in element if _name(child.tag) == "time"), None)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        lat_deg, lon_deg = float(element.attrib["lat"]), float(element.attrib["lon"])
        if not (abs(lat_deg) <= 90 and abs(lon_deg) <= 180):
            raise ValueError(f"{lat_deg}, {lon_deg} is no place")
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{path}: a track point at time {text!r} cannot be read ({error!r})."
        ) from error
    # GPX times are UTC, also where the Z was forgotten
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.timestamp(), lat_deg, lon_deg


def _name(tag: str) -> str:
    """Of an element without its namespace: GPX 1.0 and 1.1 have different ones."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
