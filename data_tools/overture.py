"""Reading Overture Maps (GeoParquet) as map features, tagged as OpenStreetMap would."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import osm
from crossview import tags as osm_tags
from crossview.errors import MapError
from crossview.features import Feature, MapFeatures, feature_table, repaired
from crossview.legends import MAP_KEYS, Kind
from crossview.tiles import GeoBounds
from data_tools.vector_tiles import occurring_classes

if TYPE_CHECKING:
    import geopandas

SUFFIXES = (".parquet", ".geoparquet")

OSM_DATASET = "OpenStreetMap"

_KINDS: tuple[Kind, ...] = ("point", "line", "area")
_OSM_TYPES = {"n": "node", "w": "way", "r": "relation"}
_RECORD = re.compile(r"([nwr])(\d+)(?:@\d+)?")
_RAILWAYS = {"standard_gauge": "rail", "unknown": "rail"}

_Row = Mapping[str, Any]


def read_overture(path: str | Path, bounds: GeoBounds | None = None) -> MapFeatures:
    """The features of Overture's types building, building_part, segment, and of its base theme.

    Features that come from OpenStreetMap keep its type and id; the others have the `osm_type`
    "overture" and number of their row. Of the base theme the `source_tags` count. The extent is
    that of the features, as in osm.read_osm; `surveyed` are the classes that occur.

    Args:
        path: A file, or a folder with one file for each type.
        bounds: Read only what this box touches; default, all.

    Raises:
        MapError: pyarrow is not installed; the file is missing, broken or empty, or holds other
            types only.
    """
    path = Path(path)
    files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES) if path.is_dir() else [path]
    features: list[Feature] = []
    datasets: set[str] = set()
    skipped: Counter[str] = Counter()
    for file in files:
        table = _table(file, bounds)
        datasets.update(name for row in table.get("sources", ()) for name in _datasets(row))
        features += _features(table, _type_of(table, file), skipped, len(features))
    if not features:
        raise MapError(
            f"{path} holds no map feature of Overture{'' if bounds is None else ' in the area'}: "
            "expected the types building, segment, land, land_use, water or infrastructure."
        )
    features.sort(key=lambda feature: -_KINDS.index(feature.kind))
    whole = feature_table(features)
    others = sorted(datasets - {OSM_DATASET})
    named = [osm.ATTRIBUTION] * (OSM_DATASET in datasets) + others + ["Overture Maps Foundation"]
    return MapFeatures(
        whole,
        osm.extent_of(whole),
        str(path),
        surveyed=occurring_classes(features),
        skipped=MappingProxyType(dict(+skipped)),
        attribution=", ".join(named),
    )


def _table(path: Path, bounds: GeoBounds | None) -> geopandas.GeoDataFrame:
    import geopandas

    if not path.is_file():
        raise MapError(f"There is no map file {path}.")
    try:
        import pyarrow
    except ImportError as error:
        raise MapError(
            f"{path} is GeoParquet, which needs pyarrow: pip install 'crossview[parquet]'."
        ) from error
    box = None if bounds is None else tuple(float(side) for side in bounds)
    try:
        try:
            table = geopandas.read_parquet(path, bbox=box)
        except ValueError as error:
            if box is None or "bbox" not in str(error):
                raise
            table = geopandas.read_parquet(path)  # it has no index of boxes
    except (ValueError, KeyError, TypeError, pyarrow.ArrowException, OSError) as error:
        raise MapError(f"{path} cannot be read as GeoParquet ({error}).") from error
    if table.crs is None or not table.crs.is_geographic:
        raise MapError(f"{path} is in {table.crs}; Overture's files are in degrees.")
    return table[~(table.geometry.isna() | table.geometry.is_empty)].reset_index(drop=True)


def _type_of(table: geopandas.GeoDataFrame, path: Path) -> str:
    """Overture's type, by its column or by the columns that only it has."""
    columns = set(table.columns)
    if "type" in columns and len(table):
        return str(table["type"].iat[0])
    for name, telling in (
        ("building", {"has_parts"}),
        ("building_part", {"building_id"}),
        ("segment", {"road_flags"}),
        ("segment", {"connectors", "subtype"}),
        ("base", {"source_tags"}),
    ):
        if telling <= columns:
            return name
    raise MapError(
        f"{path} is none of Overture's types building, building_part, segment, land, land_use, "
        f"water or infrastructure; its columns are {', '.join(sorted(columns))}."
    )


def _features(
    table: geopandas.GeoDataFrame, type_name: str, skipped: Counter[str], first_id: int
) -> Iterator[Feature]:
    import shapely

    tags_of = _TAGS.get(type_name, _base_tags)
    geometries = shapely.force_2d(table.geometry.to_numpy())
    dimension = shapely.get_dimensions(geometries)
    geometries[dimension == 2] = repaired(geometries[dimension == 2])
    columns = [name for name in table.columns if name != table.geometry.name]
    rows = table[columns].to_dict("records")
    for number, (row, geometry) in enumerate(zip(rows, geometries, strict=True), first_id):
        tags = tags_of(row)
        kind = _KINDS[shapely.get_dimensions(geometry)]
        if geometry.is_empty:
            skipped["collapsed areas"] += 1
        elif not MAP_KEYS.isdisjoint(tags):
            osm_type, osm_id = _identity(row, number)
            feature = Feature(osm_type, osm_id, kind, tags, geometry)
            if kind == "area":
                feature.height_m = osm_tags.height_m(tags)
                feature.min_height_m = osm_tags.min_height_m(tags)
            yield feature


def _identity(row: _Row, number: int) -> tuple[str, int]:
    for source in _listed(row.get("sources")):
        found = _RECORD.fullmatch(str(source.get("record_id")))
        if source.get("dataset") == OSM_DATASET and found:
            return _OSM_TYPES[found[1]], int(found[2])
    return "overture", number


def _datasets(sources: Any) -> Iterator[str]:
    yield from (str(source["dataset"]) for source in _listed(sources) if source.get("dataset"))


def _building_tags(row: _Row) -> dict[str, str]:
    return {"building": _text(row.get("class")) or "yes", **_heights(row)}


def _part_tags(row: _Row) -> dict[str, str]:
    return {"building:part": "yes", **_heights(row)}


def _heights(row: _Row) -> dict[str, str]:
    named = {
        "height": row.get("height"),
        "min_height": row.get("min_height"),
        "building:levels": row.get("num_floors"),
        "building:min_level": row.get("min_floor"),
        "layer": row.get("level"),
        "location": "underground" if row.get("is_underground") is True else None,
    }
    return {key: text for key, text in ((k, _text(v)) for k, v in named.items()) if text}


def _segment_tags(row: _Row) -> dict[str, str]:
    subtype, name = _text(row.get("subtype")), _text(row.get("class"))
    if subtype == "rail":
        tags = {"railway": _RAILWAYS.get(name, name)}
    elif subtype == "road":
        link = "_link" if _text(row.get("subclass")) == "link" else ""
        tags = {"highway": "road" if name in ("", "unknown") else name + link}
    else:
        return {}
    flags = [*_listed(row.get("road_flags")), *_listed(row.get("rail_flags"))]
    # of a segment that is partly in a tunnel, the part in the open is seen
    if any("is_tunnel" in _listed(f.get("values")) and f.get("between") is None for f in flags):
        tags["tunnel"] = "yes"
    return tags


def _base_tags(row: _Row) -> dict[str, str]:
    said = row.get("source_tags")
    pairs = said.items() if isinstance(said, Mapping) else _listed(said)
    return {str(key): str(value) for key, value in pairs if value is not None}


_TAGS: Mapping[str, Callable[[_Row], dict[str, str]]] = MappingProxyType(
    {"building": _building_tags, "building_part": _part_tags, "segment": _segment_tags}
)


def _listed(value: Any) -> list[Any]:
    """A nested list as Arrow hands it over: an array, a list, or nothing."""
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else []


def _text(value: Any) -> str:
    """A cell as OSM would write it; empty where nothing is known."""
    if value is None or value != value:  # noqa: PLR0124 (NaN)
        return ""
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)
