"""What a download takes: zooms and their true resolution, tiles, megabytes, minutes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossview import tiles
from crossview.errors import MapError
from crossview.tiles import TileId
from data_tools.areas import Area, TileCover
from data_tools.providers import Provider
from data_tools.tile_store import TileStore

TYPICAL_TILE_BYTES = 19_000
"""Of a JPEG tile of 256 pixels, before any is known."""

LARGE_TILES = 100_000
"""More new tiles than this are fetched only when asked for twice (--yes)."""

NOTABLE_DIFFERENCE = 0.01
"""Of the pixels at two ends of an area: more is told."""

MOST_TILES = 20_000_000
"""More are not fetched at all: that is a country, which providers give away as files."""

_log = logging.getLogger(__name__)


def zoom_for_resolution(provider: Provider, lat_deg: float, resolution_m: float) -> int:
    """The smallest zoom whose pixels are at most so large on the ground, both ways.

    Args:
        provider: Whose zooms.
        lat_deg: Where; of an area the latitude nearest to the equator, where pixels are largest.
        resolution_m: Size of a pixel on the ground.

    Raises:
        ValueError: The provider has none.
    """
    if not resolution_m > 0:
        raise ValueError(f"A resolution is metres per pixel, above 0; got {resolution_m}.")
    for zoom in range(provider.min_zoom, provider.max_zoom + 1):
        if max(ground_resolution_m(lat_deg, zoom, provider.tile_px)) <= resolution_m:
            return zoom
    finest_m = max(ground_resolution_m(lat_deg, provider.max_zoom, provider.tile_px))
    raise ValueError(
        f"{provider.name} has pixels of {finest_m:.3f} m at latitude {lat_deg:.2f} in its largest "
        f"zoom, {provider.max_zoom}; {resolution_m:g} m is finer. Take --zoom {provider.max_zoom}."
    )


def checked_zoom(provider: Provider, zoom: int) -> int:
    """The zoom, if the provider has it."""
    if not provider.min_zoom <= zoom <= provider.max_zoom:
        raise ValueError(
            f"{provider.name} has the zooms {provider.min_zoom} to {provider.max_zoom}, not {zoom}."
        )
    return zoom


def ground_resolution_m(lat_deg: float, zoom: int, tile_px: int = 256) -> tuple[float, float]:
    """Size of a pixel on the ellipsoid, (east-west, north-south)."""
    across_m, up_m = tiles.resolution_m(lat_deg, zoom, tile_px=tile_px)
    return float(across_m), float(up_m)


def lat_ends_deg(lat_deg: npt.ArrayLike) -> tuple[float, float]:
    """The latitudes nearest to the equator and farthest from it, of an area with some on its border
    or of points.
    """
    south, north = float(np.min(lat_deg)), float(np.max(lat_deg))
    nearest = 0.0 if south <= 0 <= north else min(south, north, key=abs)
    return nearest, max(south, north, key=abs)


def require_coverage(provider: Provider, area: Area) -> None:
    """Refuse an area where the provider says that it has nothing; say so where it has a part.

    Raises:
        MapError: It lies outside; the message says whether latitude and longitude look swapped.
    """
    if provider.bounds is None:
        return
    west, south, east, north = provider.bounds
    box = area.shape.bounds
    if west <= box[0] and box[2] <= east and south <= box[1] and box[3] <= north:
        return
    extent = f"west {west:g}, south {south:g}, east {east:g}, north {north:g}"
    if box[0] < east and box[2] > west and box[1] < north and box[3] > south:
        _log.warning("%s has imagery of a part of %s only: %s.", provider.name, area.name, extent)
        return
    lat_deg, lon_deg = area.center
    message = (
        f"{provider.name} has imagery from {extent}, and {area.name} lies around latitude "
        f"{lat_deg:.3f}, longitude {lon_deg:.3f}."
    )
    if west <= lat_deg <= east and south <= lon_deg <= north:
        message += " Latitude and longitude seem to be swapped: longitude comes first."
    raise MapError(message)


@dataclass(frozen=True)
class Plan:
    """What a download takes.

    Args:
        provider: Its name.
        zoom: Of the tiles.
        lat_deg: Of the middle, where the resolution is told.
        lon_deg: Of the middle.
        east_west_m: Ground size of a pixel.
        north_south_m: The other way; Web Mercator's pixels are not square on the ellipsoid.
        square_km: Of the area.
        num_tiles: That it needs.
        num_stored: That are there already.
        num_absent: That the provider is known not to have.
        num_refreshed: Stored ones that are asked whether they have changed.
        megabytes: To fetch, about.
        minutes: At the rate, about.
        rate_per_s: Tiles a second.
        ends: (lat_deg, east-west, north-south) where pixels are largest and smallest, if their
            sizes differ by more than a hundredth; else empty.
    """

    provider: str
    zoom: int
    lat_deg: float
    lon_deg: float
    east_west_m: float
    north_south_m: float
    square_km: float
    num_tiles: int
    num_stored: int
    num_absent: int
    num_refreshed: int
    megabytes: float
    minutes: float
    rate_per_s: float
    ends: tuple[tuple[float, float, float], ...] = ()

    @property
    def num_missing(self) -> int:
        """Tiles to fetch."""
        return self.num_tiles - self.num_stored - self.num_absent

    @property
    def num_requests(self) -> int:
        """Tiles to ask for."""
        return self.num_missing + self.num_refreshed

    def sentences(self) -> str:
        """The plan in words."""
        place = f"{_latitude(self.lat_deg)}, {abs(self.lon_deg):.3f} {'EW'[self.lon_deg < 0]}"
        ends = " and ".join(
            f"{across_m:.4f} x {up_m:.4f} m at {_latitude(lat_deg)}"
            for lat_deg, across_m, up_m in self.ends
        )
        again = f" ({self.num_refreshed:,} to look at again)" if self.num_refreshed else ""
        absent = f"{self.num_absent:,} known not to exist, " if self.num_absent else ""
        return (
            f"{self.provider}, zoom {self.zoom}: a pixel is {self.east_west_m:.4f} m east-west and "
            f"{self.north_south_m:.4f} m north-south around {place}{'; ' * bool(ends)}{ends}.\n"
            f"{self.square_km:,.2f} square km: {self.num_tiles:,} tiles, {self.num_stored:,} there "
            f"already{again}, {absent}{self.num_missing:,} to fetch: about "
            f"{_size(self.megabytes)} and {_duration(self.minutes)} at {self.rate_per_s:g} a "
            "second."
        )

    def require_sensible(self, *, yes: bool) -> None:
        """Refuse what nobody means to download.

        Raises:
            ValueError: Too many tiles; the message has the estimate.
        """
        estimate = (
            f"{self.square_km:,.0f} square km at zoom {self.zoom} are {self.num_missing:,} tiles, "
            f"about {_size(self.megabytes)} and {_duration(self.minutes)} at "
            f"{self.rate_per_s:g} tiles a second."
        )
        if self.num_tiles > MOST_TILES:
            raise ValueError(
                f"{estimate} That is more than {MOST_TILES:,}: take a smaller area or zoom, or ask "
                "the provider for files."
            )
        if self.num_missing > LARGE_TILES and not yes:
            raise ValueError(f"{estimate} If that is meant, say --yes; else take a smaller area.")


def plan(
    provider: Provider,
    area: Area,
    cover: TileCover,
    store_path: Path,
    *,
    rate_per_s: float | None = None,
    refresh: bool = False,
    ask_absent_again: bool = False,
) -> Plan:
    """What fetching a cover of an area takes; nothing is fetched.

    Args:
        provider: Whose tiles.
        area: What they are for.
        cover: The tiles.
        store_path: Where tiles are kept, if there are any yet.
        rate_per_s: Tiles a second; by default the provider's.
        refresh: Ask whether stored tiles have changed.
        ask_absent_again: Ask again for tiles that are known not to exist.
    """
    num_stored = num_absent = 0
    tile_bytes = TYPICAL_TILE_BYTES * (provider.tile_px / 256) ** 2
    if store_path.is_file() and cover.num_tiles <= MOST_TILES:
        with TileStore(store_path) as store:
            wanted = tile_ids(cover)
            num_stored = len(store.stored(wanted))
            num_absent = 0 if ask_absent_again else len(store.absent(wanted))
            tile_bytes = store.mean_bytes() or tile_bytes
    lat_deg, lon_deg = area.center
    num_missing = cover.num_tiles - num_stored - num_absent
    num_refreshed = num_stored if refresh else 0
    rate_per_s = rate_per_s or provider.policy.rate_per_s
    return Plan(
        provider.name,
        cover.zoom,
        lat_deg,
        lon_deg,
        *ground_resolution_m(lat_deg, cover.zoom, provider.tile_px),
        area.square_km,
        cover.num_tiles,
        num_stored,
        num_absent,
        num_refreshed,
        num_missing * tile_bytes / 1e6,
        (num_missing + num_refreshed) / rate_per_s / 60,
        rate_per_s,
        _ends(area, cover.zoom, provider.tile_px),
    )


def _ends(area: Area, zoom: int, tile_px: int) -> tuple[tuple[float, float, float], ...]:
    _, south, _, north = area.shape.bounds
    ends = [
        (lat_deg, *ground_resolution_m(lat_deg, zoom, tile_px))
        for lat_deg in lat_ends_deg([south, north])
    ]
    (_, *largest_m), (_, *smallest_m) = ends
    differs = max(largest_m) > (1 + NOTABLE_DIFFERENCE) * max(smallest_m)
    return tuple(ends) if differs else ()


def tile_ids(cover: TileCover) -> list[TileId]:
    """The tiles of a cover, one by one."""
    x, y = cover.tiles()
    return [TileId(cover.zoom, *place) for place in zip(x.tolist(), y.tolist(), strict=True)]


def _latitude(lat_deg: float) -> str:
    return f"{abs(lat_deg):.3f} {'NS'[lat_deg < 0]}"


def _size(megabytes: float) -> str:
    if megabytes < 1000:
        return f"{megabytes:,.1f} MB"
    return f"{megabytes / 1e3:,.1f} GB" if megabytes < 1e6 else f"{megabytes / 1e6:,.1f} TB"


def _duration(minutes: float) -> str:
    if minutes < 2:
        return f"{60 * minutes:,.0f} seconds"
    if minutes < 120:
        return f"{minutes:,.1f} minutes"
    return f"{minutes / 60:,.1f} hours" if minutes < 2880 else f"{minutes / 1440:,.1f} days"
