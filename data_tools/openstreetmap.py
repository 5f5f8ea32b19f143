"""Maps of a place: from files of several formats, or from an Overpass server for small areas."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import logging
import os
import re
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np

from crossview import __version__, atomic, geopackages, osm, tables
from crossview.errors import (
    ContentError,
    DownloadError,
    ManifestError,
    MapError,
    MapOutsideError,
    ProviderDownError,
    RefusedError,
)
from crossview.features import MapFeatures, bounds_text
from crossview.legends import MAP_KEYS
from crossview.manifest import Manifest
from crossview.tables import Problem
from crossview.tiles import GeoBounds
from data_tools import overture, pmtiles, vector_tiles
from data_tools.areas import Area, geocoded_area
from data_tools.crops import file_name

if TYPE_CHECKING:
    import geopandas

PUBLIC_OVERPASS_URL = "https://overpass-api.de/api"
PUBLIC_NOMINATIM_URL = "https://nominatim.openstreetmap.org/"

MAX_OVERPASS_SQUARE_KM = 25.0
"""Asked of the public server; extracts are made for more, and are read thirty times faster."""

ODBL = "ODbL-1.0"
"""Licence of OpenStreetMap, as SPDX names it."""

BUSY_STATUSES = (429, 504)
"""osmnx waits for 55 s after them and asks again, for ever."""

USER_AGENT = f"crossview/{__version__} (cross-view geo-localization toolkit)"

SUFFIXES = (*osm.SUFFIXES, pmtiles.SUFFIX, *overture.SUFFIXES, geopackages.SUFFIX)

MAPS_FOLDER = "maps"
"""Where a dataset's maps lie, below its manifest's folder."""

_HEAD_BYTES = 4096
_DATE_IN_XML = re.compile(rb"(?:osm_base|timestamp)=[\"']([^\"']+)[\"']")
_FORBIDDEN_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_QUOTED_CHARACTERS = 200
_ORDER = {"node": 0, "way": 1, "relation": 2}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MapExtract:
    """Map features, and what one must know of them.

    Args:
        features: What the map holds.
        date: Of the data, ISO 8601 as far as it is known; empty where it is not.
        licence: Of the data; empty where it is not known.
    """

    features: MapFeatures
    date: str
    licence: str

    def write(self, path: str | Path) -> geopackages.MapFacts:
        """Write a GeoPackage, which VectorMap.read reads; see geopackages.write_geopackage."""
        return geopackages.write_geopackage(
            self.features, path, date=self.date, licence=self.licence
        )


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where answers of servers are kept: $CROSSVIEW_CACHE, else a folder in the user's cache."""
    if environ.get("CROSSVIEW_CACHE"):
        return Path(environ["CROSSVIEW_CACHE"])
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossview"


@dataclass(frozen=True)
class Server:
    """A server that osmnx asks, and how patiently.

    Args:
        url: Its address: of Overpass without /interpreter.
        folder: Where its answers are kept.
        timeout_s: It may be silent for this long.
        attempts: A busy server is asked this often, with 55 s in between.
    """

    url: str = PUBLIC_OVERPASS_URL
    folder: Path = field(default_factory=cache_folder)
    timeout_s: int = 180
    attempts: int = 3

    @property
    def host(self) -> str:
        """Its name, for messages: an address may hold a key."""
        return urlsplit(self.url).hostname or "the server"

    @property
    def is_public(self) -> bool:
        """Whether it is the public one, whose limits are those of everybody."""
        return self.url.rstrip("/") in (PUBLIC_OVERPASS_URL, PUBLIC_NOMINATIM_URL.rstrip("/"))


# ------------------------------------------------------------------ files


def read_map(path: str | Path, bounds: GeoBounds | None = None) -> MapExtract:
    """The map in a file, by its suffix.

    OpenStreetMap (.osm, .osm.gz, .osm.bz2, .pbf), vector tiles (.pmtiles), Overture (.parquet),
    or a GeoPackage that was made here.

    Args:
        path: The file.
        bounds: Keep what reaches into this box; default, everything.

    Raises:
        MapError: The file is missing, broken, empty or of another format.
        MapOutsideError: The file does not reach the box.
    """
    path = Path(path)
    name = path.name.lower()
    date, licence = "", ""
    if name.endswith(osm.SUFFIXES):
        features = osm.read_osm(path, bounds)
        date = _date_of_osm(path)
    elif name.endswith(pmtiles.SUFFIX):
        features = vector_tiles.read_vector_tiles(path, bounds)
        date = pmtiles.open_archive(path).date
    elif name.endswith(overture.SUFFIXES) or path.is_dir():
        features = overture.read_overture(path, bounds)
    elif name.endswith(geopackages.SUFFIX):
        features = geopackages.read_geopackage(path)
        facts = geopackages.map_facts(path)
        date, licence = (facts.date, facts.licence) if facts else ("", "")
    else:
        raise MapError(f"{path} is no map that is known here. Known are {', '.join(SUFFIXES)}.")
    if not licence and "OpenStreetMap" in features.attribution:
        licence = ODBL
    return MapExtract(_in_box(replace(features, source=path.name), bounds), date, licence)


def _in_box(features: MapFeatures, bounds: GeoBounds | None) -> MapFeatures:
    if bounds is None:
        return features
    part = features.within(bounds)
    if not covers(part, bounds):
        _log.warning("%s does not cover the whole area; the map ends where it ends.", part.source)
    return part


def covers(features: MapFeatures, bounds: GeoBounds) -> bool:
    """Whether features that were cut out for a box (see MapFeatures.within) map all of it."""
    return features.extent == tuple(map(float, bounds)) and features.unmapped is None


def _date_of_osm(path: Path) -> str:
    """When an OpenStreetMap file was cut, as it says itself; empty where it does not."""
    import osmium

    with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
        stated = reader.header().get("timestamp")
    if stated or path.name.lower().endswith(".pbf"):
        return _iso_date(stated, path)
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    with openers.get(path.suffix.lower(), Path.open)(path, "rb") as file:
        head = file.read(_HEAD_BYTES).partition(b"<node")[0]
    found = _DATE_IN_XML.search(head)
    return _iso_date(found.group(1).decode("ascii", "replace"), path) if found else ""


def _iso_date(text: str, path: Path) -> str:
    """A date that a file states, if it is one: what is not known stays empty."""
    if not text:
        return ""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        _log.warning("%s says %r of its date, which is not ISO 8601; left out.", path.name, text)
        return ""
    return text


# ------------------------------------------------------------------ datasets


def place_in_dataset(
    folder: str | Path, region: str | None, *, overwrite: bool = False
) -> DatasetTarget:
    """Where the map of a dataset's region goes; nothing is written.

    Args:
        folder: A saved manifest.
        region: Name of the region; None where there is only one.
        overwrite: Replace the map that the region has.

    Raises:
        ManifestError: There is no such region, it has a map already, it is not clear which region
            is meant, or the file would lie outside of the folder.
    """
    manifest = Manifest.load(folder)
    regions = manifest.regions["name"].tolist()
    if region is None and len(regions) != 1:
        raise ManifestError(
            f"{manifest.name} has {len(regions)} regions ({', '.join(regions[:8])}). Say which one "
            "the map is for: --region."
        )
    region = regions[0] if region is None else region
    if region not in regions:
        raise ManifestError(
            f"{manifest.name} has no region {region!r}. It has {', '.join(regions[:8])}."
        )
    there = manifest.map_files(region)
    if there and not overwrite:
        raise ManifestError(
            f"Region {region!r} of {manifest.name} has a map already, {there[0].path.name}. "
            "Replace it with --overwrite, or name another --region."
        )
    # neither a map that another region has, nor the one that it will get
    others = {file_name(name).casefold() for name in regions if name != region}
    others |= {file.path.stem.casefold() for file in manifest.map_files() if file.region != region}
    stem = file_name(region) or "map"
    while stem.casefold() in others:
        stem += f"_{regions.index(region) + 1}"
    file = f"{MAPS_FOLDER}/{stem}{geopackages.SUFFIX}"
    target = DatasetTarget(Path(folder), region, file, places_of(manifest, region))
    # a dataset from elsewhere must not choose where files are written
    if not target.path.resolve().is_relative_to(target.folder.resolve()):
        raise ManifestError(
            f"{target.path} leads out of the manifest's folder, by a symbolic link to "
            f"{target.path.resolve()}. Delete the link."
        )
    return target


@dataclass(frozen=True)
class FileTarget:
    """A map that is a file of its own.

    Args:
        path: The GeoPackage.

    Raises:
        MapError: The name does not end in .gpkg.
    """

    path: Path

    def __post_init__(self) -> None:
        geopackages.require_suffix(self.path)

    def write(self, extract: MapExtract) -> dict[str, int]:
        """Write it, and the folder that it lies in; there is nothing to count."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        extract.write(self.path)
        return {}


@dataclass(frozen=True, eq=False)
class DatasetTarget:
    """A dataset that gets a map.

    Args:
        folder: Of the manifest.
        region: Whose map it is.
        file: Its GeoPackage, below the folder.
        places: Latitude and longitude of the region's views and tiles, (N, 2).
    """

    folder: Path
    region: str
    file: str
    places: np.ndarray

    @property
    def path(self) -> Path:
        """The GeoPackage."""
        return self.folder / self.file

    def write(self, extract: MapExtract) -> dict[str, int]:
        """Write the GeoPackage and its row, in the place of the map that the region had.

        Returns:
            `outside`: How many views and tiles of the region the map does not cover.

        Raises:
            MapOutsideError: It covers none of them.
            ManifestError: Another process changes the manifest.
        """
        import pandas as pd

        features, num_places = extract.features, len(self.places)
        num_outside = int(is_outside(features, self.places).sum())
        if num_places and num_outside == num_places:
            raise MapOutsideError(
                f"The map {features.source} covers {bounds_text(features.extent)}, and none of the "
                f"{num_places} views and tiles of region {self.region!r} lies there. Use a map of "
                "the place, or check that latitude and longitude are not swapped."
            )
        self.path.parent.mkdir(exist_ok=True)
        extract.write(self.path)
        surveyed = features.surveyed
        row = {
            "region": self.region,
            "file": self.file,
            "kind": "osm",
            # empty: the file itself says it
            "surveyed": "" if surveyed is None else ";".join(sorted(surveyed)),
            "date": extract.date,
            "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
        }
        manifest = Manifest.load(self.folder)
        kept = manifest.maps[manifest.maps["region"] != self.region]
        if len(kept) == len(manifest.maps):
            Manifest.append(self.folder, maps=[row])
        else:
            maps = pd.concat([kept, pd.DataFrame([row])], ignore_index=True)
            replace(manifest, maps=maps).rewrite("maps")
        if num_outside:
            _log.warning(
                "%d of %d views and tiles of region %s lie outside of what the map covers (%s).",
                num_outside,
                num_places,
                self.region,
                bounds_text(features.extent),
            )
        return {"outside": num_outside}


def places_of(manifest: Manifest, region: str) -> np.ndarray:
    """Latitude and longitude of the views and tiles of a region that have a position, (N, 2)."""
    places = [
        table.loc[table["region"] == region, ["lat_deg", "lon_deg"]].dropna().to_numpy(float)
        for table in (manifest.views, manifest.tiles)
    ]
    return np.concatenate(places)


def is_outside(features: MapFeatures, places: np.ndarray) -> np.ndarray:
    """Which places, (N, 2) latitude and longitude, a map does not cover, (N,) bool."""
    import shapely

    west, south, east, north = features.extent
    lat_deg, lon_deg = places.T
    is_inside = (lat_deg >= south) & (lat_deg <= north) & (lon_deg >= west) & (lon_deg <= east)
    if features.unmapped is not None:
        is_inside &= ~shapely.intersects_xy(features.unmapped, lon_deg, lat_deg)
    return ~is_inside


def map_problems(manifest: Manifest) -> tuple[list[Problem], list[str]]:
    """Which vector maps of a dataset cannot be read, and in words which miss views or tiles."""
    from crossview.vectors import VectorMap

    problems, warnings = [], []
    for i, file in enumerate(manifest.map_files(), tables.FIRST_ROW):
        if file.kind == "raster":
            continue
        try:
            features = VectorMap.read(file.path).features
        except MapError as error:
            problems.append(Problem("maps.csv", i, "file", str(error)))
            continue
        outside = is_outside(features, places_of(manifest, file.region))
        if outside.any():
            warnings.append(
                f"maps.csv row {i}: {outside.sum()} of {outside.size} views and tiles of region "
                f"{file.region!r} lie outside of what {file.path.name} covers "
                f"({bounds_text(features.extent)})."
            )
    return problems, warnings


# ------------------------------------------------------------------ servers


def download_map(
    bounds: GeoBounds, server: Server | None = None, *, refresh: bool = False
) -> MapExtract:
    """The map of a small box from an Overpass server, through osmnx.

    The answer is kept as an .osm.gz file in the server's folder and read like any other file, so
    that both sources agree. Multipolygons whose tags are on their ways (as until 2017) are not
    found by a server, which is asked for tags. osmnx keeps its settings in a module: do not call
    this from several threads.

    Args:
        bounds: The box, on one side of the antimeridian.
        server: Whom to ask; default, the public server.
        refresh: Ask again where an answer is kept.

    Raises:
        ValueError: The box is none, or too large for the public server.
        DownloadError: The server refuses, fails, or does not answer with a map.
        MapError: Nothing is mapped there, or the answer that was kept is damaged.
    """
    server = Server() if server is None else server
    bounds = GeoBounds(*(float(side) for side in bounds))
    _require_small(bounds, server)
    key = json.dumps([server.url, *bounds, *sorted(MAP_KEYS)])
    path = server.folder / "overpass" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.osm.gz"
    is_kept = path.is_file() and not refresh
    if is_kept:
        _log.info("The map that %s gave before, %s.", server.host, path)
    else:
        _write_osm(_asked(bounds, server), bounds, path)
    try:
        extract = read_map(path, bounds)
    except (MapError, OSError, EOFError, zlib.error) as error:
        if not is_kept:
            raise
        raise MapError(
            f"The answer of {server.host} that was kept in {path} cannot be used ({error}). Ask "
            "again with --refresh (refresh=True)."
        ) from error
    source = f"Overpass server {server.host}"
    return replace(extract, features=replace(extract.features, source=source))


def geocoder(server: Server | None = None) -> Callable[[str], geopandas.GeoDataFrame]:
    """From the name of a place to its outline, by Nominatim through osmnx.

    Raises (when it is called):
        DownloadError: The server refuses or fails.
    """
    server = Server(PUBLIC_NOMINATIM_URL) if server is None else server

    def geocode(place: str) -> geopandas.GeoDataFrame:
        import geopandas

        with _osmnx(server, _Answers(server), nominatim_url=server.url, use_cache=True) as osmnx:
            try:
                return osmnx.geocode_to_gdf(place)
            except TypeError:  # what it finds is not an area
                return osmnx.geocode_to_gdf(place, which_result=1)
            except ValueError as error:
                _log.debug("osmnx: %s", error)
                return geopandas.GeoDataFrame(geometry=[], crs="EPSG:4326")

    return geocode


def named_area(place: str, *, url: str | None = None, timeout_s: int = Server.timeout_s) -> Area:
    """The outline of a named place (see areas.geocoded_area), from Nominatim.

    Args:
        place: Its name.
        url: Of a Nominatim of one's own; default, the public one.
        timeout_s: It may be silent for this long.
    """
    server = Server(url or PUBLIC_NOMINATIM_URL, timeout_s=timeout_s)
    return geocoded_area(place, geocoder(server))


def _require_small(bounds: GeoBounds, server: Server) -> None:
    if bounds.west > bounds.east:
        raise ValueError("Maps across the antimeridian are not supported: take one side of it.")
    square_km = Area.of_box(*bounds).square_km
    if server.is_public and square_km > MAX_OVERPASS_SQUARE_KM:
        raise ValueError(
            f"The area has {square_km:,.0f} square kilometres, and up to "
            f"{MAX_OVERPASS_SQUARE_KM:g} are asked of the public server. Download an extract of "
            "the region (.osm.pbf) and give that file, or name a server of your own "
            "(--overpass-url)."
        )


def _asked(bounds: GeoBounds, server: Server) -> list[dict[str, Any]]:
    """All answers of an Overpass server."""
    answers = _Answers(server)
    settings = {
        "overpass_url": server.url,
        # a server without a limit would make osmnx wait for ever
        "overpass_rate_limit": server.is_public,
        "use_cache": False,
        "cache_only_mode": True,
    }
    with (
        _osmnx(server, answers, **settings) as osmnx,
        # with which osmnx ends when everything is there
        contextlib.suppress(InterruptedError),
    ):
        osmnx.features_from_bbox(tuple(bounds), tags=dict.fromkeys(sorted(MAP_KEYS), True))
    return answers.contents


class _Answers:
    """Looks at every answer that osmnx gets: it would wait for ever, or take a part for the whole.

    Args:
        server: Who answers.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.contents: list[Any] = []
        self.num_busy = 0

    def __call__(self, response: Any, *_: Any, **__: Any) -> None:
        """What `requests` calls; errors pass through osmnx."""
        if response.is_redirect or response.url.endswith("/status"):
            return
        host, status = self.server.host, response.status_code
        said = _plain(response)
        if status in BUSY_STATUSES:
            self.num_busy += 1
            if self.num_busy >= self.server.attempts:
                raise ProviderDownError(
                    f"{host} is busy (HTTP {status}{said}), after {self.num_busy} attempts. Try "
                    "later, ask for a smaller area, or give a file."
                )
            _log.warning("%s is busy (HTTP %s); asking again in 55 s.", host, status)
            return
        if status >= 500 and status != 509:
            raise ProviderDownError(f"{host} fails (HTTP {status}{said}). Try later.")
        if status == 400:
            raise ContentError(f"{host} does not understand the question (HTTP 400{said}).")
        if not response.ok:
            # 509: bandwidth limit exceeded
            raise RefusedError(
                f"{host} refuses (HTTP {status}{said}). Wait a day, give a file, or name another "
                "server."
            )
        self.contents.append(self._content(response, said))

    def _content(self, response: Any, said: str) -> Any:
        host = self.server.host
        try:
            content = response.json()
        except ValueError as error:
            raise ContentError(
                f"{host} answered with something that is not JSON{said}. Is the address right?"
            ) from error
        remark = str(content.get("remark", "")) if isinstance(content, dict) else ""
        if "error" in remark:
            # the elements that it has sent are not all
            raise ContentError(
                f"{host} gave up: {_shortened(remark)}. Ask for a smaller area, or give a file."
            )
        return content


def _plain(response: Any) -> str:
    """What an answer that is not data says, without its HTML, to be put behind a status."""
    if "json" in response.headers.get("Content-Type", ""):
        return ""
    text = re.sub(r"(?s)<(head|style|script)\b.*?</\1>|<[^>]*>", " ", response.text)
    return f": {_shortened(text)}" if text.strip() else ""


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _QUOTED_CHARACTERS else words[:_QUOTED_CHARACTERS] + "..."


@contextlib.contextmanager
def _osmnx(server: Server, answers: _Answers, **settings: Any) -> Iterator[Any]:
    """Osmnx with settings of ours; afterwards they, and the resolver, are as they were."""
    import osmnx

    wanted = {
        "cache_folder": str(server.folder / "osmnx"),
        "doh_url_template": None,
        "http_user_agent": USER_AGENT,
        "requests_kwargs": {"hooks": {"response": answers}},
        "requests_timeout": server.timeout_s,
        **settings,
    }
    before = {name: getattr(osmnx.settings, name) for name in wanted}
    resolver = socket.getaddrinfo
    try:
        for name, value in wanted.items():
            setattr(osmnx.settings, name, value)
        yield osmnx
    except DownloadError:
        raise
    except OSError as error:  # all that requests raises
        kind = "takes too long" if "imeout" in type(error).__name__ else "cannot be reached"
        raise ProviderDownError(
            f"{server.host} {kind} ({type(error).__name__}). Check the address and the network, or "
            "give a file."
        ) from error
    except ValueError as error:
        raise ContentError(
            f"{server.host} did not answer with OpenStreetMap data ({_shortened(str(error))}). Is "
            "the address right?"
        ) from error
    finally:
        # osmnx pins the host to one address, for every other client too
        socket.getaddrinfo = resolver
        for name, value in before.items():
            setattr(osmnx.settings, name, value)


def _write_osm(answers: Sequence[Any], bounds: GeoBounds, path: Path) -> None:
    """Answers of Overpass as one OpenStreetMap file."""
    elements: dict[tuple[int, int], Mapping[str, Any]] = {}
    dates = []
    try:
        for answer in answers:
            dates.append(str(answer.get("osm3s", {}).get("timestamp_osm_base", "")))
            for element in answer["elements"]:
                elements[_ORDER[element["type"]], element["id"]] = element
        lines = [_element(elements[key]) for key in sorted(elements)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ContentError(
            f"The answer is not OpenStreetMap data (no {error}). Is the address that of an "
            "Overpass server?"
        ) from error
    if not elements:
        raise MapError(f"Nothing is mapped in {bounds_text(bounds)}.")
    west, south, east, north = bounds
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<osm version="0.6" generator="crossview">\n'
        f"<meta osm_base={quoteattr(min(dates, default=''))}/>\n"
        f'<bounds minlat="{south!r}" minlon="{west!r}" maxlat="{north!r}" maxlon="{east!r}"/>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.replacing(path) as temporary,
        gzip.open(temporary, "wt", encoding="utf-8") as file,
    ):
        file.write(head)
        file.writelines(lines)
        file.write("</osm>\n")


def _element(element: Mapping[str, Any]) -> str:
    """A node, way or relation of Overpass's JSON as a line of XML."""
    kind = element["type"]
    place = f' lat="{element["lat"]:.7f}" lon="{element["lon"]:.7f}"' if kind == "node" else ""
    parts = [f'<nd ref="{ref:d}"/>' for ref in element.get("nodes", ())]
    parts += [
        f'<member type={quoteattr(m["type"])} ref="{m["ref"]:d}" role={_attribute(m["role"])}/>'
        for m in element.get("members", ())
    ]
    parts += [
        f"<tag k={_attribute(key)} v={_attribute(value)}/>"
        for key, value in element.get("tags", {}).items()
    ]
    return f'<{kind} id="{element["id"]:d}" version="1"{place}>{"".join(parts)}</{kind}>\n'


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN_IN_XML.sub("", text))
