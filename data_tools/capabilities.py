"""What a WMTS offers: its capabilities document, read as data and never executed."""

from __future__ import annotations

import math
import re
import urllib.parse
import xml.parsers.expat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn
from xml.etree import ElementTree as ET

from crossview import tiles
from crossview.errors import ContentError
from crossview.tiles import GeoBounds
from data_tools import fetch
from data_tools.providers import WORLD_M, with_parameters

MAX_DOCUMENT_BYTES = 32 * 2**20
PIXEL_M = 0.00028
"""Of the standard's screen, by which scale denominators count."""
ZOOM_TOLERANCE = 1e-3
CORNER_TOLERANCE_M = 1.0

_WMTS = "{http://www.opengis.net/wmts/1.0}"
_OWS = "{http://www.opengis.net/ows/1.1}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_REPORTS = ("ExceptionReport", "ServiceExceptionReport")
_IMAGE_FORMATS = ("image/jpeg", "image/png", "image/webp", "image/jpgpng", "image/png8")


@dataclass(frozen=True)
class WmtsLayer:
    """A layer in Web Mercator.

    Attributes:
        identifier: Of the layer.
        title: For people.
        kind: wmts (RESTful) or wmts-kvp.
        template: URL with {TileMatrix}, {TileRow} and {TileCol}; style, set and time are filled.
        matrix_ids: (zoom, TileMatrix identifier), by zoom.
        tile_px: Rows, and columns, of a tile.
        bounds: Where there is imagery, None where it is not said.
        attribution: The service's provider.
    """

    identifier: str
    title: str
    kind: str
    template: str
    matrix_ids: tuple[tuple[int, str], ...]
    tile_px: int
    bounds: GeoBounds | None
    attribution: str


def document_url(url: str) -> str:
    """Where a WMTS' capabilities are: the URL itself, or that of a service without a question."""
    parts = urllib.parse.urlsplit(url)
    if parts.query or parts.path.lower().endswith(".xml"):
        return url
    return with_parameters(url, {"SERVICE": "WMTS", "REQUEST": "GetCapabilities"})


def wmts_layer(document: bytes, layer: str | None = None, *, url: str = "") -> WmtsLayer:
    """One layer of a WMTS 1.0.0, RESTful where it offers that, else by key and value.

    Args:
        document: The capabilities.
        layer: Its identifier; None where there is only one.
        url: Of the service, for documents that do not say where GetTile is.

    Raises:
        ContentError: Not the capabilities of a WMTS, or with entities; of a service's report of an
            error, with its words.
        ValueError: No such layer; or none of its tile matrix sets is Web Mercator's pyramid.
    """
    root = parsed(document)
    if _local(root.tag) in _REPORTS:
        said = fetch.words(document, "text/xml") or "nothing"
        raise ContentError(f"The WMTS answers with an error: {said}")
    if root.tag != f"{_WMTS}Capabilities":
        raise ContentError(f"Expected the capabilities of a WMTS 1.0.0, got <{_local(root.tag)}>.")
    layers = {_text(node, f"{_OWS}Identifier"): node for node in root.iter(f"{_WMTS}Layer")}
    if layer is None and len(layers) == 1:
        layer = next(iter(layers))
    if layer not in layers:
        some = ", ".join(sorted(layers)[:20]) or "none"
        raise ValueError(f"The WMTS has no layer {layer!r}; it has {len(layers)}: {some}.")
    node = layers[layer]
    matrix_set, matrix_ids, tile_px = _web_mercator(root, node)
    kind, template = _template(root, node, layer, matrix_set, url)
    return WmtsLayer(
        layer,
        _text(node, f"{_OWS}Title") or layer,
        kind,
        template,
        matrix_ids,
        tile_px,
        _bounds(node),
        _text(root, f"{_OWS}ServiceProvider/{_OWS}ProviderName"),
    )


def parsed(document: bytes) -> ET.Element:
    """The root of an XML document that declares no entities.

    Raises:
        ContentError: It is no XML, too large, or declares or fetches entities.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ContentError(f"{len(document):,} bytes are too large for a capabilities document.")

    def forbidden(*declaration: object) -> NoReturn:  # noqa: ARG001
        raise ContentError("The document declares XML entities, which such documents never do.")

    guard = xml.parsers.expat.ParserCreate()
    guard.EntityDeclHandler = forbidden
    guard.ExternalEntityRefHandler = forbidden
    try:
        guard.Parse(document, True)
        # without entities there is nothing to expand
        return ET.fromstring(document)  # noqa: S314
    except (xml.parsers.expat.ExpatError, ET.ParseError, ValueError) as error:
        raise ContentError(
            f"Expected XML, got {len(document)} bytes that begin with {document[:60]!r} ({error})."
        ) from None


def _web_mercator(
    root: ET.Element, layer: ET.Element
) -> tuple[str, tuple[tuple[int, str], ...], int]:
    """The layer's first tile matrix set that is the pyramid, its zooms, and the size of a tile."""
    sets = {
        _text(node, f"{_OWS}Identifier"): node
        for node in root.findall(f"{_WMTS}Contents/{_WMTS}TileMatrixSet")
    }
    reasons = []
    for link in layer.iter(f"{_WMTS}TileMatrixSetLink"):
        name = _text(link, f"{_WMTS}TileMatrixSet")
        if name not in sets:
            reasons.append(f"{name} is not described")
            continue
        try:
            matrix_ids, tile_px = _pyramid(sets[name])
        except ValueError as error:
            reasons.append(f"{name} {error}")
            continue
        limited = {_text(limit, f"{_WMTS}TileMatrix") for limit in link.iter(_LIMITS)}
        kept = tuple(pair for pair in matrix_ids if not limited or pair[1] in limited)
        return name, kept, tile_px
    raise ValueError(
        f"Layer {_text(layer, f'{_OWS}Identifier')} has no tiles in Web Mercator (EPSG:3857, "
        f"GoogleMapsCompatible): {'; '.join(reasons) or 'it names no tile matrix set'}."
    )


_LIMITS = f"{_WMTS}TileMatrixLimits"


def _pyramid(matrix_set: ET.Element) -> tuple[tuple[tuple[int, str], ...], int]:
    crs = _text(matrix_set, f"{_OWS}SupportedCRS")
    if re.split(r"[:/]", crs)[-1] not in ("3857", "900913"):
        raise ValueError(f"is in {crs}")
    matrix_ids, sizes = [], set()
    for matrix in matrix_set.iter(f"{_WMTS}TileMatrix"):
        identifier = _text(matrix, f"{_OWS}Identifier")
        width, height = (int(_text(matrix, f"{_WMTS}Tile{side}")) for side in ("Width", "Height"))
        side_m = float(_text(matrix, f"{_WMTS}ScaleDenominator")) * PIXEL_M * width
        zoom = math.log2(2 * WORLD_M / side_m)
        corner = [float(number) for number in _text(matrix, f"{_WMTS}TopLeftCorner").split()]
        is_ours = (
            width == height
            and abs(zoom - round(zoom)) < ZOOM_TOLERANCE
            and 0 <= round(zoom) <= tiles.MAX_ZOOM
            and abs(corner[0] + WORLD_M) < CORNER_TOLERANCE_M
            and abs(corner[1] - WORLD_M) < CORNER_TOLERANCE_M
        )
        if not is_ours:
            raise ValueError(f"has a matrix {identifier} that is not of the usual pyramid")
        matrix_ids.append((round(zoom), identifier))
        sizes.add(width)
    if len(sizes) != 1:
        raise ValueError("has no matrices, or tiles of several sizes")
    return tuple(sorted(matrix_ids)), sizes.pop()


def _template(
    root: ET.Element, layer: ET.Element, identifier: str, matrix_set: str, url: str
) -> tuple[str, str]:
    """Kind and URL of GetTile."""
    filled = {"style": _style(layer), "tilematrixset": matrix_set, "layer": identifier}
    for dimension in layer.iter(f"{_WMTS}Dimension"):
        default = _text(dimension, f"{_WMTS}Default") or _text(dimension, f"{_WMTS}Value")
        filled[_text(dimension, f"{_OWS}Identifier").lower()] = default
    tile_urls = [node for node in layer.iter(f"{_WMTS}ResourceURL") if _is_tile_url(node)]
    tile_urls.sort(key=lambda node: _preference(node.get("format", "")))
    if tile_urls:
        template = re.sub(
            r"\{([^}]*)\}",
            lambda match: filled.get(match[1].lower(), match[0]),
            tile_urls[0].get("template", ""),
        )
        return "wmts", template
    base = next(_get_tile_urls(root), url)
    if not base:
        raise ValueError("The document does not say where GetTile is. Give the service's URL.")
    formats = [node.text or "" for node in layer.iter(f"{_WMTS}Format")]
    dimensions = {
        name: value
        for name, value in filled.items()
        if name not in ("style", "tilematrixset", "layer")
    }
    parameters = {
        "SERVICE": "WMTS",
        "REQUEST": "GetTile",
        "VERSION": "1.0.0",
        "LAYER": identifier,
        "STYLE": filled["style"],
        "FORMAT": min(formats, key=_preference, default="image/jpeg"),
        "TILEMATRIXSET": matrix_set,
        **{name.upper(): value for name, value in dimensions.items()},
        "TILEMATRIX": "{TileMatrix}",
        "TILEROW": "{TileRow}",
        "TILECOL": "{TileCol}",
    }
    return "wmts-kvp", with_parameters(base, parameters)


def _is_tile_url(node: ET.Element) -> bool:
    return node.get("resourceType") == "tile" and _preference(node.get("format", "")) < len(
        _IMAGE_FORMATS
    )


def _preference(image_format: str) -> int:
    name = image_format.partition(";")[0].strip().lower()
    return _IMAGE_FORMATS.index(name) if name in _IMAGE_FORMATS else len(_IMAGE_FORMATS)


def _style(layer: ET.Element) -> str:
    styles = list(layer.iter(f"{_WMTS}Style"))
    styles.sort(key=lambda node: node.get("isDefault") != "true")
    return _text(styles[0], f"{_OWS}Identifier") if styles else "default"


def _get_tile_urls(root: ET.Element) -> Iterator[str]:
    """Where GetTile takes keys and values."""
    for operation in root.iter(f"{_OWS}Operation"):
        if operation.get("name") != "GetTile":
            continue
        for get in operation.iter(f"{_OWS}Get"):
            encodings = {node.text for node in get.iter(f"{_OWS}Value")}
            if not encodings or "KVP" in encodings:
                yield get.get(_HREF, "")


def _bounds(layer: ET.Element) -> GeoBounds | None:
    box = layer.find(f"{_OWS}WGS84BoundingBox")
    if box is None:
        return None
    corners = [_text(box, f"{_OWS}{corner}Corner").split() for corner in ("Lower", "Upper")]
    try:
        (west, south), (east, north) = ((float(lon), float(lat)) for lon, lat in corners)
    except ValueError:
        return None
    return GeoBounds(west, south, east, north)


def _text(node: ET.Element, path: str) -> str:
    return (node.findtext(path) or "").strip()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
