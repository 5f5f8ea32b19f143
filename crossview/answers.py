"""One photo answered for a person: search, files and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossview import atomic, export, plots
from crossview.errors import MissingLocationError, VolumeTooLargeError
from crossview.evidence import DEFAULT_COMPASS_SIGMA_DEG, prior_within
from crossview.frames import Fix, LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.localizer import Localization, ObservingMatcher, search_disc
from crossview.photos import Panorama, Photo, Rig, require_fix
from crossview.rasters import MapRaster
from crossview.statements import OUTSIDE

MAX_SIDE_PX = 1600
"""Photos are read at this size: the network looks at a smaller one still."""

MAX_RADIUS_M = 170.0
"""Largest disc that is searched without a gallery: half a gigabyte at 0.5 m and 256 headings."""

_PICTURE_INCHES = (10.0, 8.0)


@dataclass(frozen=True)
class Answer:
    """Where a photo was taken, ready to be written.

    Args:
        localization: The posterior.
        maps: The map that it was found on.
        provenance: Where map and photo come from; "attribution" is drawn on pictures.
        truth: Where the camera really stood, if that is known.
        searched: The prior in words. Probabilities hold only if the camera is there.
    """

    localization: Localization
    maps: Callable[[MapGrid], MapRaster]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    truth: Pose | None = None
    searched: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether the probability of being within 5 m is high enough to count as an answer."""
        return self.localization.stated().is_answer

    def summary(self) -> str:
        """The answer in a few lines: place, heading, how sure."""
        best = self.localization.best
        pose = best.peak()
        place = best.grid.map.frame.geo_pose(pose)
        std_deg = best.heading_std_deg()
        stated = self.localization.stated()
        heading = (
            "unknown"
            if place.heading_deg is None
            else f"{place.heading_deg:.1f} deg clockwise from true north (std {std_deg:.1f} deg)"
        )
        return "\n".join(
            [
                f"answer: {'ok' if stated.is_answer else 'no answer (too uncertain)'}",
                f"lat, lon: {place.lat_deg:.7f}, {place.lon_deg:.7f}",
                f"heading: {heading}",
                f"probability within 5 m: {stated.probability_within_5m:.3f}",
                f"probability elsewhere: {stated.probability_elsewhere:.3f}",
                f"assumed: the camera is {self.searched}" if self.searched else "",
            ]
        ).rstrip()

    def write(self, folder: Path, *, name: str) -> dict[str, Any]:
        """Write NAME.geojson, NAME.tif and NAME.png into a folder.

        Returns:
            The GeoJSON.
        """
        folder.mkdir(parents=True, exist_ok=True)
        export.to_geotiff(self.localization, folder / f"{name}.tif", provenance=self.provenance)
        self._write_heatmap(folder / f"{name}.png")
        return export.to_geojson(
            self.localization,
            folder / f"{name}.geojson",
            query_id=name,
            provenance=self.provenance,
        )

    def _write_heatmap(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=_PICTURE_INCHES, layout="constrained")
        plots.heatmap(
            self.localization,
            figure.add_subplot(),
            background=self.maps,
            truth=self.truth,
            attribution=str(self.provenance.get("attribution", "")),
        )
        with atomic.replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)


def localize_photo(
    query: Photo | Panorama | Rig,
    maps: Callable[[MapGrid], MapRaster],
    matcher: ObservingMatcher,
    *,
    place: Fix,
    radius_m: float,
    heading_deg: float | None = None,
    compass_sigma_deg: float | None = None,
    outside: float = OUTSIDE,
    provenance: Mapping[str, Any] | None = None,
) -> Answer:
    """Search a disc around a rough place for the pose of a photo.

    Args:
        query: The photo.
        maps: Cuts the map.
        matcher: Compares photo and map.
        place: The centre of the disc. Where compass_sigma_deg asks for a compass and heading_deg
            does not say, a panorama's own heading serves, or the place's from true north.
        radius_m: Radius of the disc.
        heading_deg: What a compass says, from true north; None searches all headings.
        compass_sigma_deg: Standard deviation of the compass.
        outside: Probability that the disc does not hold the camera.
        provenance: Who must be named where the answer is shown.
    """
    if not radius_m <= MAX_RADIUS_M:
        raise VolumeTooLargeError(
            f"A disc of {radius_m:.0f} m is searched at every pose, which takes memory for at most "
            f"{MAX_RADIUS_M:.0f} m. Give a smaller radius_m."
        )
    from tqdm import tqdm

    frame = LocalFrame(place.lat_deg, place.lon_deg)
    if heading_deg is None and compass_sigma_deg is not None:
        heading_deg = _compass_of(query, place)
    prior = prior_within(
        frame,
        0.0,
        0.0,
        radius_m=radius_m,
        like=matcher,
        heading_deg=heading_deg,
        compass_sigma_deg=(
            DEFAULT_COMPASS_SIGMA_DEG if compass_sigma_deg is None else compass_sigma_deg
        ),
    )
    with tqdm(total=2, unit="step", delay=2, disable=None, leave=False) as progress:
        view = matcher.observe(query)
        progress.update()
        localization = search_disc(view, prior, maps, matcher, radius_m=radius_m, outside=outside)
        progress.update()
    searched = (
        f"within {radius_m:g} m of {place.lat_deg:.6f}, {place.lon_deg:.6f} "
        f"(with probability {1 - outside:g})"
    )
    return Answer(localization, maps, provenance or {}, searched=searched)


def place_of(
    query: Photo | Panorama, name: str, *, lat_deg: float | None, lon_deg: float | None
) -> Fix:
    """Where to search: a place that somebody gives, else what the photo says of itself.

    The photo's own compass stays with either.

    Raises:
        MissingLocationError: Nobody says.
    """
    if lat_deg is None or lon_deg is None:
        return require_fix(query, name)
    if query.fix is None:
        return Fix(lat_deg, lon_deg)
    return replace(query.fix, lat_deg=lat_deg, lon_deg=lon_deg)


def _compass_of(query: Photo | Panorama | Rig, place: Fix) -> float:
    if isinstance(query, Panorama) and query.heading_deg is not None:
        return query.heading_deg
    if place.heading_deg is None:
        raise MissingLocationError(
            "compass_sigma_deg asks for a compass, and neither the photo nor heading_deg gives a "
            "heading. Give --heading-deg, or leave out --compass-sigma-deg."
        )
    if place.heading_reference == "magnetic":
        raise MissingLocationError(
            f"The photo's compass says {place.heading_deg:.1f} deg from *magnetic* north. Add the "
            "declination of its place and give the sum as --heading-deg."
        )
    return place.heading_deg
