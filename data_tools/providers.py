"""Where imagery comes from: URLs of tiles, who is credited, and what the terms allow."""

from __future__ import annotations

import math
import re
import string
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crossview import tiles
from crossview.errors import RefusedError
from crossview.tiles import GeoBounds, TileId
from data_tools import fetch
from data_tools.fetch import HIDDEN, Secret

if TYPE_CHECKING:
    from data_tools.capabilities import WmtsLayer

DEFAULT = "nlmaps.luchtfoto"
"""Open data (25 cm, the Netherlands); nobody's terms are broken by trying an example."""

KINDS = ("xyz", "tms", "wmts", "wmts-kvp", "wms", "static")
UNKNOWN_CAP = 1_000
"""Tiles that may be fetched from a host whose terms we do not know."""
_HOST = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*(\.[a-z0-9]+(-+[a-z0-9]+)*)*")
WORLD_M = math.pi * tiles.EARTH_RADIUS_M
"""Half a side of Web Mercator's square."""

_PLACEHOLDERS = {
    "xyz": ("z", "x", "y"),
    "tms": ("z", "x", "y"),
    "wmts": ("TileMatrix", "TileCol", "TileRow"),
    "wmts-kvp": ("TileMatrix", "TileCol", "TileRow"),
    "wms": ("bbox",),
    "static": ("lat", "lon", "zoom"),
}
_KEY_NAMES = ("accesstoken", "access_token", "apikey", "api_key", "subscriptionkey", "token")
_ALIASES = {
    "tilematrix": "z",
    "tilecol": "x",
    "tilerow": "y",
    "-y": "tms_y",
    "q": "quadkey",
    "bbox-epsg-3857": "bbox",
    **dict.fromkeys(_KEY_NAMES, "key"),
}


# ---------------------------------------------------------------- terms


@dataclass(frozen=True)
class Policy:
    """What a provider's terms allow, as far as we know.

    Attributes:
        bulk: allow; ask (only with a permission of one's own); refuse (not even then).
        max_tiles: Tiles in one store without `--i-have-permission`; None: any number.
        rate_per_s: Requests per second that are polite.
        terms_url: Where to read them.
        reason: Why, in a sentence for the user.
        key_name: Of the key that all hosts of the provider share; "" where each has its own.
    """

    bulk: str
    max_tiles: int | None
    rate_per_s: float
    terms_url: str
    reason: str
    key_name: str = ""

    def __post_init__(self) -> None:
        if self.bulk not in ("allow", "ask", "refuse"):
            raise ValueError(f"bulk is allow, ask or refuse, got {self.bulk!r}.")


UNKNOWN = Policy("ask", UNKNOWN_CAP, 5.0, "", "Its terms are not known to us.")
OWN = Policy("allow", None, 10_000.0, "", "A server on this machine.")

_KEYED = "What may be stored depends on your plan."
_OPEN = "Open data, with attribution and at a polite rate."
POLICIES: tuple[tuple[tuple[str, ...], Policy], ...] = (
    (
        ("tile.openstreetmap.org", "tile.osm.org"),
        Policy(
            "refuse",
            0,
            1.0,
            "https://operations.osmfoundation.org/policies/tiles/",
            "The tile usage policy prohibits bulk downloads and tile archives.",
        ),
    ),
    (
        ("googleapis.com", "google.com", "gstatic.com", "googleusercontent.com"),
        Policy(
            "refuse",
            0,
            1.0,
            "https://cloud.google.com/maps-platform/terms",
            "The terms forbid storing what is fetched. For VIGOR and CVACT use the images that "
            "their authors released.",
            "google",
        ),
    ),
    (
        ("arcgisonline.com", "arcgis.com"),
        Policy(
            "ask",
            UNKNOWN_CAP,
            10.0,
            "https://www.esri.com/en-us/legal/terms/full-master-agreement",
            "Tiles for offline use come from its export operation (exportTiles), not from "
            "fetching them one by one.",
            "esri",
        ),
    ),
    (
        ("mapbox.com",),
        Policy("ask", UNKNOWN_CAP, 10.0, "https://www.mapbox.com/legal/tos", _KEYED, "mapbox"),
    ),
    (
        ("maptiler.com",),
        Policy("ask", UNKNOWN_CAP, 10.0, "https://www.maptiler.com/terms/", _KEYED, "maptiler"),
    ),
    (
        ("hereapi.com", "here.com"),
        Policy("ask", UNKNOWN_CAP, 10.0, "https://legal.here.com/terms", _KEYED, "here"),
    ),
    (
        ("atlas.microsoft.com", "virtualearth.net", "bing.com"),
        Policy(
            "ask",
            UNKNOWN_CAP,
            10.0,
            "https://www.microsoft.com/licensing/terms",
            _KEYED,
            "microsoft",
        ),
    ),
    (
        ("stadiamaps.com",),
        Policy(
            "ask", UNKNOWN_CAP, 10.0, "https://stadiamaps.com/terms-of-service/", _KEYED, "stadia"
        ),
    ),
    (
        ("pdok.nl",),
        Policy("allow", 100_000, 10.0, "https://www.pdok.nl/copyright", _OPEN),
    ),
    (
        ("nationalmap.gov",),
        Policy(
            "allow",
            100_000,
            10.0,
            "https://www.usgs.gov/information-policies-and-instructions/copyrights-and-credits",
            _OPEN,
        ),
    ),
    (
        ("geo.admin.ch",),
        Policy(
            "allow",
            100_000,
            10.0,
            "https://www.geo.admin.ch/en/general-terms-of-use-fsdi",
            _OPEN,
        ),
    ),
    (
        ("data.geopf.fr",),
        Policy("allow", 100_000, 20.0, "https://geoservices.ign.fr/cgu-licences", _OPEN),
    ),
    (
        ("mapsneu.wien.gv.at", "basemap.at"),
        Policy("allow", 100_000, 10.0, "https://basemap.at/#lizenz", _OPEN),
    ),
)
"""By host, which stands for the hosts below it; the caps of open data are ours, for politeness."""


def policy_of(url: str) -> Policy:
    """The terms of a URL's host; UNKNOWN where we know none, OWN on this machine."""
    host = _host(url)
    if host in ("localhost", "127.0.0.1", "::1"):
        return OWN
    for hosts, policy in POLICIES:
        if any(host == known or host.endswith(f".{known}") for known in hosts):
            return policy
    return UNKNOWN


def _key_name(url: str) -> str:
    """The name of a URL's key: the provider's where we know it, else one that no other host has."""
    if name := policy_of(url).key_name:
        return name
    host = _host(url)
    if not _HOST.fullmatch(host):
        # such as an underscore, which would look like a dot
        return f"host__{host.encode().hex()}_"
    name = host.replace("-", "__").replace(".", "_")
    # a machine of one's own network may be called like a provider
    return f"{name}_" if name in {policy.key_name for _, policy in POLICIES} else name


def _host(url: str) -> str:
    return (urllib.parse.urlsplit(_without_fields(url)).hostname or "").rstrip(".").lower()


def _without_fields(url: str) -> str:
    """A template as a URL: braces are not allowed in hosts."""
    return re.sub(r"\{[^}]*\}", "0", url)


def require_permission(provider: Provider, num_tiles: int, *, has_permission: bool = False) -> None:
    """Do the terms allow to store so many tiles?

    Args:
        provider: Whose tiles.
        num_tiles: All that the store would hold, not only the new ones.
        has_permission: The user says that the provider has allowed it.

    Raises:
        RefusedError: They do not; the message says what would help.
    """
    policy = provider.policy
    if policy.max_tiles is None or num_tiles <= policy.max_tiles:
        return
    terms = f" Terms: {policy.terms_url}" if policy.terms_url else ""
    if policy.bulk == "refuse":
        raise RefusedError(
            f"{provider.name} is not for download. {policy.reason} Choose another provider, such "
            f"as {DEFAULT}.{terms}"
        )
    if not has_permission:
        raise RefusedError(
            f"{num_tiles:,} tiles of {provider.name} are more than the {policy.max_tiles:,} that "
            f"are fetched without permission. {policy.reason} If you have the provider's "
            f"permission, say --i-have-permission; else take a smaller area or zoom.{terms}"
        )


# ---------------------------------------------------------------- providers


@dataclass(frozen=True)
class Provider:
    """One source of tiles of the Web Mercator pyramid.

    Attributes:
        name: For people.
        kind: xyz, tms (rows from the south), wmts, wmts-kvp, wms, or static (maps by centre).
        template: URL with fields in braces: {z} {x} {y} {-y} {q}, {TileMatrix} {TileRow}
            {TileCol}, {bbox} {width} {height} (EPSG:3857), {lat} {lon} {zoom} {scale}, and {key}.
        tile_px: Rows, and columns, of a tile.
        min_zoom: Of the URLs.
        max_zoom: Of the URLs: a 512 pixel tile of zoom z covers what a 256 pixel tile does.
        attribution: Whom to credit.
        terms_url: Where the terms are.
        capture_date: ISO date, year or interval (2000/2005), None where it is not known.
        policy: What the terms allow.
        key: For {key}.
        bounds: Where there is imagery, None where it is not known.
        placeholders: SHA-256 digests of its "no imagery" pictures.
        matrix_ids: (zoom, TileMatrix identifier), where that is not the zoom itself.
        static_zoom_px: Of static maps, the side of the tiles whose zooms they count: the whole
            world at zoom 0. Mapbox counts those of 512 pixels.
        login: For HTTP Basic; that of a template with `user:password@` is moved here.

    Raises:
        ValueError: Something does not fit together.
    """

    name: str
    kind: str
    template: str
    tile_px: int = 256
    min_zoom: int = 0
    max_zoom: int = 19
    attribution: str = ""
    terms_url: str = ""
    capture_date: str | None = None
    policy: Policy = UNKNOWN
    key: Secret | None = field(default=None, repr=False)
    bounds: GeoBounds | None = None
    placeholders: frozenset[bytes] = frozenset()
    matrix_ids: tuple[tuple[int, str], ...] = ()
    static_zoom_px: int = 256
    login: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        template, login = fetch.split_login(self.template)
        if login is not None:
            if "{" in urllib.parse.urlsplit(self.template).netloc.rpartition("@")[0]:
                raise ValueError(f"{self.name}: fields in a user name or password are not filled.")
            object.__setattr__(self, "template", template)
            object.__setattr__(self, "login", login)
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind is one of {', '.join(KINDS)}, not {self.kind!r}.")
        if not self.template.lower().startswith(("http://", "https://")):
            raise ValueError(
                f"{self.name}: expected a URL of http or https, got "
                f"{fetch.redacted(self.template)!r}."
            )
        if not (0 <= self.min_zoom <= self.max_zoom <= tiles.MAX_ZOOM and self.tile_px > 0):
            raise ValueError(
                f"{self.name}: zooms {self.min_zoom} to {self.max_zoom} with tiles of "
                f"{self.tile_px} pixels are not possible."
            )
        fields = {_canonical(name) for name in _fields(self.template)}
        wanted = {_canonical(name) for name in _PLACEHOLDERS[self.kind]}
        missing = wanted - fields
        if "quadkey" in fields:
            missing -= {"z", "x", "y"}
        if fields & {"tms_y"}:
            missing -= {"y"}
        if missing:
            raise ValueError(
                f"{self.name}: a URL of kind {self.kind} needs "
                f"{', '.join('{' + name + '}' for name in _PLACEHOLDERS[self.kind])}, got "
                f"{fetch.redacted(self.template)}."
            )
        if unknown := fields - set(_values(TileId(0, 0, 0), self)) - {"key"}:
            raise ValueError(
                f"{self.name}: the URL has fields that nothing fills: {', '.join(sorted(unknown))}."
            )

    @property
    def key_name(self) -> str:
        """Of its key (see fetch.key), by its host: maptiler, or tiles_example_org."""
        return _key_name(self.template)

    @property
    def needs_key(self) -> bool:
        """Whether its URLs hold a key."""
        return "key" in map(_canonical, _fields(self.template))

    @property
    def headers(self) -> dict[str, str]:
        """That a request needs: the login, if there is one; for the request only."""
        return fetch.login_headers(self.login)

    def url(self, tile: TileId) -> str:
        """A tile's URL, with the key: for the request only.

        Raises:
            KeyMissingError: It needs a key and has none.
            ValueError: The tile does not exist, or not at this provider.
        """
        return self._filled(self._checked(tile), self._key().reveal() if self.needs_key else "")

    def public_url(self, tile: TileId) -> str:
        """A tile's URL without the key: for manifests and messages."""
        return fetch.redacted(self._filled(self._checked(tile), HIDDEN))

    @property
    def public_template(self) -> str:
        """The template as it may be written into files."""
        return fetch.redacted(self.template)

    def static_url(
        self,
        lat_deg: float,
        lon_deg: float,
        *,
        zoom: float,
        width_px: int = 640,
        height_px: int = 640,
        scale: int = 1,
    ) -> str:
        """A picture around a place, from an API of static maps; with the key.

        Args:
            lat_deg: Of its centre.
            lon_deg: Of its centre.
            zoom: Of 256 pixel tiles.
            width_px: Before the scale.
            height_px: Before the scale.
            scale: Pixels of the picture per pixel of width and height.
        """
        if self.kind != "static":
            raise ValueError(f"{self.name} serves tiles ({self.kind}), not maps by centre.")
        values = {
            "lat": f"{lat_deg:.7f}",
            "lon": f"{lon_deg:.7f}",
            "zoom": f"{self.static_zoom(zoom):g}",
            "width": str(width_px),
            "height": str(height_px),
            "scale": str(scale),
            "key": urllib.parse.quote(self._key().reveal(), safe="") if self.needs_key else "",
        }
        return _format(self.template, values)

    def static_zoom(self, zoom: float) -> float:
        """A zoom of 256 pixel tiles as its static maps count it."""
        return zoom - math.log2(self.static_zoom_px / 256)

    def metadata(self) -> dict[str, str]:
        """What a TileStore keeps of its provider; no key."""
        facts = {
            "name": self.name,
            "attribution": self.attribution,
            "terms_url": self.terms_url,
            "date": self.capture_date or "",
            "crossview_source": self.name,
            "crossview_template": self.public_template,
        }
        return {name: fetch.redacted(value) for name, value in facts.items() if value}

    def _key(self) -> Secret:
        return fetch.key(self.key_name) if self.key is None else self.key

    def _checked(self, tile: TileId) -> TileId:
        tile = TileId(*map(int, tile))
        if not self.min_zoom <= tile.zoom <= self.max_zoom:
            raise ValueError(
                f"{self.name} has zooms {self.min_zoom} to {self.max_zoom}, not {tile.zoom}."
            )
        if not (0 <= tile.x < 2**tile.zoom and 0 <= tile.y < 2**tile.zoom):
            raise ValueError(
                f"There is no tile {tile}: zoom {tile.zoom} has {2**tile.zoom} a side."
            )
        return tile

    def _filled(self, tile: TileId, key: str) -> str:
        quoted = key if key == HIDDEN else urllib.parse.quote(key, safe="")
        return _format(self.template, _values(tile, self) | {"key": quoted})


def _values(tile: TileId, provider: Provider) -> dict[str, str]:
    """What a template's fields stand for, by canonical name."""
    zoom, x, y = tile
    tms_y = 2**zoom - 1 - y
    row = tms_y if provider.kind == "tms" else y
    matrices = dict(provider.matrix_ids)
    if provider.kind in ("wmts", "wmts-kvp") and matrices and zoom not in matrices:
        # only while the fields of a template are checked
        matrices = {}
    values = {
        "z": urllib.parse.quote(matrices.get(zoom, str(zoom)), safe=":"),
        "x": str(x),
        "y": str(row),
        "tms_y": str(tms_y),
        "quadkey": _quadkey(tile),
        "width": str(provider.tile_px),
        "height": str(provider.tile_px),
        "s": "a",  # one of several names of one server: the limit is the server's
        "r": "",
    }
    if provider.kind == "wms":
        side_m = 2 * WORLD_M / 2**zoom
        west_m, north_m = x * side_m - WORLD_M, WORLD_M - y * side_m
        box = (west_m, north_m - side_m, west_m + side_m, north_m)
        values["bbox"] = ",".join(f"{side:.6f}" for side in box)
    if provider.kind == "static":
        lat_deg, lon_deg = tiles.geodetic(x + 0.5, y + 0.5, zoom)
        # a tile of 256 pixels; the larger ones are those at a scale
        scale = max(1, provider.tile_px // 256)
        counted = f"{provider.static_zoom(zoom):g}"
        values |= {"lat": f"{lat_deg:.10f}", "lon": f"{lon_deg:.10f}", "zoom": counted}
        values |= {"width": "256", "height": "256", "scale": str(scale)}
    return values


def _quadkey(tile: TileId) -> str:
    zoom, x, y = tile
    return "".join(
        str((x >> level & 1) + 2 * (y >> level & 1)) for level in range(zoom - 1, -1, -1)
    )


def _fields(template: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name]
    except ValueError as error:
        raise ValueError(f"{fetch.redacted(template)!r} is no template: {error}.") from None


def _canonical(name: str) -> str:
    return _ALIASES.get(name.lower(), name)


def _format(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{([^}]*)\}", lambda match: values[_canonical(match[1])], template)


# ---------------------------------------------------------------- where providers come from


def from_template(
    url: str, *, name: str | None = None, kind: str | None = None, **facts: Any
) -> Provider:
    """A provider by its URL; its terms are those that we know of the host.

    Args:
        url: Template; see Provider.
        name: The host, if not given.
        kind: Guessed from the fields, if not given.
        facts: Other attributes of Provider.
    """
    policy = policy_of(url)
    host = urllib.parse.urlsplit(_without_fields(url)).hostname or fetch.redacted(url)
    fields = {_canonical(field) for field in _fields(url)}
    if kind is None:
        kind = "wms" if "bbox" in fields else "static" if "lat" in fields else "xyz"
        kind = "wmts" if any(f.lower() == "tilematrix" for f in _fields(url)) else kind
    given: dict[str, Any] = {"terms_url": policy.terms_url, "policy": policy}
    if kind == "static" and policy.key_name == "mapbox":
        given |= {"static_zoom_px": 512, "min_zoom": 1}
    return Provider(name or host, kind, url, **given | facts)


def from_catalogue(name: str, **facts: Any) -> Provider:
    """A provider of the xyzservices catalogue, by name, such as "nlmaps.luchtfoto".

    Args:
        name: As in the catalogue; capitals and separators do not matter.
        facts: Attributes of Provider that replace the catalogue's.

    Raises:
        ValueError: There is none; or it is broken, in another projection, or does not say its
            largest zoom.
    """
    import xyzservices.providers

    try:
        entry = xyzservices.providers.query_name(name)
    except ValueError:
        raise ValueError(
            f"No provider {name!r} in the catalogue. `xyzservices.providers` lists them; or give "
            "a URL with {z}, {x} and {y}."
        ) from None
    full_name = next(
        full for full, other in xyzservices.providers.flatten().items() if other is entry
    )
    if entry.get("status"):
        raise ValueError(f"The catalogue marks {full_name} as {entry['status']}. Choose another.")
    if entry.get("crs", "EPSG:3857").upper().replace(":", "") not in ("EPSG3857", "EPSG900913"):
        raise ValueError(f"{full_name} is in {entry['crs']}; only Web Mercator can be used.")
    template = _catalogue_template(entry)
    known: dict[str, Any] = {
        "tile_px": int(entry.get("tileSize", 256)),
        "min_zoom": int(entry.get("min_zoom", 0)),
        "attribution": entry.get("attribution", ""),
        "capture_date": _year_of(full_name),
        "kind": "tms" if entry.get("tms") else "xyz",
    }
    largest = entry.get("max_zoom", _MAX_ZOOMS.get(full_name))
    if largest is not None:
        # the offset is a display's; tiles are counted as the server does
        known["max_zoom"] = int(largest) + int(entry.get("zoomOffset", 0))
    elif "max_zoom" not in facts:
        raise ValueError(
            f"The catalogue does not say the largest zoom of {full_name}. Give max_zoom."
        )
    if "bounds" in entry:
        (south, west), (north, east) = entry["bounds"]
        known["bounds"] = GeoBounds(*map(float, (west, south, east, north)))
    return from_template(template, name=full_name, **(known | facts))


_MAX_ZOOMS = {"Esri.WorldImagery": 19}
"""Where the catalogue is silent: level 19 is the last that covers all cities."""


def _catalogue_template(entry: Mapping[str, Any]) -> str:
    """An entry's URL with its own fields filled, and {key} for its token."""
    fields: dict[str, str] = {}
    for name in _fields(entry["url"]):
        if _canonical(name) == "key":
            fields[name] = "{key}"
        elif name in ("x", "y", "z"):
            fields[name] = "{" + name + "}"
        elif name == "s":
            fields[name] = str(entry.get("subdomains", "abc")[0])
        elif name == "r":
            fields[name] = ""
        elif name in entry:
            fields[name] = str(entry[name])
        else:
            raise ValueError(f"{entry['name']}: the catalogue's URL has an unknown field {name}.")
    return str(re.sub(r"\{([^}]*)\}", lambda match: fields[match[1]], entry["url"]))


def _year_of(name: str) -> str | None:
    """Dated vintages say it in their name: 2016, or an interval of years."""
    years = re.findall(r"(?<!\d)(?:19[3-9]|20[0-4])\d(?!\d)", name)
    if not years:
        return None
    return years[0] if len(set(years)) == 1 else f"{years[0]}/{years[-1]}"


def named(name_or_url: str = DEFAULT, **facts: Any) -> Provider:
    """A provider by catalogue name or URL template."""
    if "://" in name_or_url:
        return from_template(name_or_url, **facts)
    return from_catalogue(name_or_url, **facts)


def from_wmts(layer: WmtsLayer, *, name: str | None = None, **facts: Any) -> Provider:
    """A layer of a WMTS, as its capabilities describe it."""
    known: dict[str, Any] = {
        "kind": layer.kind,
        "tile_px": layer.tile_px,
        "min_zoom": min(zoom for zoom, _ in layer.matrix_ids),
        "max_zoom": max(zoom for zoom, _ in layer.matrix_ids),
        "matrix_ids": layer.matrix_ids,
        "attribution": layer.attribution,
        "bounds": layer.bounds,
    }
    return from_template(layer.template, name=name or layer.identifier, **(known | facts))


def from_wms(
    url: str,
    layers: str,
    *,
    version: str = "1.3.0",
    image_format: str = "image/jpeg",
    styles: str = "",
    name: str | None = None,
    **facts: Any,
) -> Provider:
    """A WMS as a source of tiles: one GetMap in EPSG:3857 each.

    Args:
        url: Of the service, with or without parameters of its own.
        layers: Comma-separated names.
        version: 1.3.0 or 1.1.1 (1.1.0).
        image_format: As the service names it.
        styles: Comma-separated, or empty for the default.
        name: The host, if not given.
        facts: Other attributes of Provider.
    """
    if version not in ("1.3.0", "1.1.1", "1.1.0"):
        raise ValueError(f"WMS 1.3.0, 1.1.1 or 1.1.0, not {version}.")
    parameters = {
        "SERVICE": "WMS",
        "VERSION": version,
        "REQUEST": "GetMap",
        "LAYERS": layers,
        "STYLES": styles,
        # of these names only EPSG:3857 has its axes in the same order in every version
        "CRS" if version == "1.3.0" else "SRS": "EPSG:3857",
        "FORMAT": image_format,
    }
    template = with_parameters(url, parameters) + "&BBOX={bbox}&WIDTH={width}&HEIGHT={height}"
    return from_template(template, name=name, kind="wms", **facts)


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """A URL with these query parameters instead of those of the same name, capitals aside."""
    base, _, query = url.partition("?")
    replaced = {name.lower() for name in parameters}
    kept = [
        part for part in query.split("&") if part and part.partition("=")[0].lower() not in replaced
    ]
    added = [
        f"{name}={urllib.parse.quote(value, safe=':,/{}')}" for name, value in parameters.items()
    ]
    return f"{base}?{'&'.join([*kept, *added])}"


def with_key(provider: Provider, key: Secret) -> Provider:
    """The provider, asked with a key."""
    return replace(provider, key=key)
