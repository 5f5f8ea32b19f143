"""Map features in a GeoPackage: written once, read by crossview and by any GIS."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crossview import atomic
from crossview.errors import MapError
from crossview.features import COLUMNS, MapFeatures
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import geopandas

SCHEMA_VERSION = 1

LAYERS = {"areas": "area", "lines": "line", "points": "point"}
"""Name of each layer, and the kind of feature in it."""

SUFFIX = ".gpkg"

_KEY = "CROSSVIEW_MAP"
"""The item of the file's metadata that holds MapFacts as JSON."""

_GEOMETRY_TYPES = {"areas": "MultiPolygon", "lines": "MultiLineString", "points": "Point"}


@dataclass(frozen=True)
class MapFacts:
    """What a map in a GeoPackage says of itself.

    Args:
        extent: The box that it maps completely, degrees.
        source: What it was made of.
        date: Of the data, ISO 8601 as far as it is known; empty where it is not.
        licence: Of the data; empty where it is not known.
        attribution: Who must be named where maps made of it are shown.
        surveyed: Classes whose absence means absence; None for all that a legend has.
        skipped: What could not be used, and how often.
        unmapped: The part of the extent that is not mapped, as WKT; empty where there is none.
        schema_version: Of the file.
    """

    extent: GeoBounds
    source: str
    date: str
    licence: str
    attribution: str
    surveyed: list[str] | None
    skipped: dict[str, int]
    unmapped: str = ""
    schema_version: int = SCHEMA_VERSION


def write_geopackage(
    features: MapFeatures, path: str | Path, *, date: str = "", licence: str = ""
) -> MapFacts:
    """Write map features; an interrupted write leaves nothing behind.

    A layer for each kind (areas, lines, points) with the columns osm_type, osm_id, tags (JSON),
    height_m and min_height_m (metres, null where not known), in EPSG:4326. MapFacts are an item
    of the file's metadata, beside date, licence and attribution for other programs.

    Args:
        features: What a map file holds.
        path: The file, which ends in .gpkg; one that is there is replaced.
        date: Of the data, ISO 8601.
        licence: Of the data.

    Returns:
        What the file says of itself.

    Raises:
        MapError: The name does not end in .gpkg.
    """
    import pyogrio
    import shapely

    path = Path(path)
    require_suffix(path)
    surveyed = None if features.surveyed is None else sorted(features.surveyed)
    facts = MapFacts(
        GeoBounds(*(float(side) for side in features.extent)),
        features.source,
        date,
        licence,
        features.attribution,
        surveyed,
        dict(features.skipped),
        "" if features.unmapped is None else shapely.to_wkt(features.unmapped, -1),
    )
    metadata = {
        _KEY: json.dumps(asdict(facts), ensure_ascii=False),
        "DATE": date,
        "LICENCE": licence,
        "ATTRIBUTION": features.attribution,
    }
    with atomic.replacing(path) as temporary:
        for layer, kind in LAYERS.items():
            rows = features.table[features.table["kind"] == kind]
            pyogrio.write_dataframe(
                _as_written(rows),
                temporary,
                layer=layer,
                driver="GPKG",
                geometry_type=_GEOMETRY_TYPES[layer],
                promote_to_multi=layer != "points",
                dataset_metadata={name: text for name, text in metadata.items() if text},
            )
    return facts


def require_suffix(path: Path) -> None:
    """Refuse a name that write_geopackage would refuse.

    Raises:
        MapError: It does not end in .gpkg.
    """
    if path.suffix.lower() != SUFFIX:
        raise MapError(f"{path} does not end in {SUFFIX}, and maps are written as GeoPackage.")


def read_geopackage(path: str | Path) -> MapFeatures:
    """The features of a file that write_geopackage made, as they were: areas, lines, points.

    Raises:
        MapError: The file is missing, broken, of another schema version, or not such a map.
    """
    import pandas as pd
    import pyogrio
    import shapely

    facts = map_facts(path)
    if facts is None:
        raise MapError(
            f"{path} is a GeoPackage, but not a map of crossview: it does not say its extent and "
            "schema version. Make one with crossview-data osm; building footprints are read by "
            "VectorMap.read."
        )
    try:
        with _no_file_beside():
            layers = {name: pyogrio.read_dataframe(path, layer=name) for name in LAYERS}
        tables = [_as_features(table, name) for name, table in layers.items()]
        table = pd.concat(tables, ignore_index=True)
        unmapped = shapely.from_wkt(facts.unmapped) if facts.unmapped else None
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, KeyError) as error:
        raise MapError(f"{path} is damaged ({error}). Make it again.") from error
    except (ValueError, shapely.errors.ShapelyError) as error:  # JSON, or geometry that is none
        raise MapError(f"{path} holds values that cannot be read ({error}).") from error
    return MapFeatures(
        table,
        facts.extent,
        str(path),
        surveyed=None if facts.surveyed is None else frozenset(facts.surveyed),
        skipped=MappingProxyType(facts.skipped),
        attribution=facts.attribution,
        unmapped=unmapped,
    )


@contextlib.contextmanager
def _no_file_beside() -> Iterator[None]:
    """GDAL keeps statistics in an .aux.xml beside what it reads; a dataset holds its own files."""
    import pyogrio

    before = pyogrio.get_gdal_config_option("GDAL_PAM_ENABLED")
    pyogrio.set_gdal_config_options({"GDAL_PAM_ENABLED": False})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"GDAL_PAM_ENABLED": before})


def map_facts(path: str | Path) -> MapFacts | None:
    """What a GeoPackage of ours says of itself; None for the GeoPackage of somebody else.

    Raises:
        MapError: The file is missing, broken, or of another schema version.
    """
    import pyogrio

    path = Path(path)
    if not path.is_file():
        raise MapError(f"There is no map file {path}.")
    try:
        with warnings.catch_warnings(), _no_file_beside():
            warnings.simplefilter("ignore", RuntimeWarning)  # GDAL's words before its error
            layer = pyogrio.list_layers(path)[0, 0]
            metadata = pyogrio.read_info(path, layer=layer)["dataset_metadata"] or {}
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, IndexError) as error:
        raise MapError(
            f"{path} cannot be read as a GeoPackage ({error or 'it has no layers'})."
        ) from error
    if _KEY not in metadata:
        return None
    try:
        said: dict[str, Any] = json.loads(metadata[_KEY])
        version = said["schema_version"]
        if version == SCHEMA_VERSION:
            return MapFacts(**{**said, "extent": GeoBounds(*said["extent"])})
    except (ValueError, TypeError, KeyError) as error:
        raise MapError(f"{path} is damaged: its metadata cannot be read ({error}).") from error
    raise MapError(
        f"{path} is a map of schema version {version}, and this crossview reads version "
        f"{SCHEMA_VERSION}. Make it again with crossview-data osm, or use the crossview that "
        "wrote it."
    )


def _as_written(rows: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    written = rows.drop(columns="kind")
    encode = json.JSONEncoder(ensure_ascii=False).encode
    tags = [encode(tags) for tags in rows["tags"]]
    return written.assign(tags=tags, osm_id=rows["osm_id"].astype("int64"))


def _as_features(rows: geopandas.GeoDataFrame, layer: str) -> geopandas.GeoDataFrame:
    import shapely

    geometry = rows.geometry.to_numpy()
    is_single = (shapely.get_num_geometries(geometry) == 1) & (layer != "points")
    geometry[is_single] = shapely.get_geometry(geometry[is_single], 0)
    features = rows.set_geometry(geometry, crs=rows.crs).assign(
        kind=LAYERS[layer],
        tags=[json.loads(text) for text in rows["tags"]],
        height_m=rows["height_m"].astype(float),
        min_height_m=rows["min_height_m"].astype(float),
    )
    return features[list(COLUMNS)]
