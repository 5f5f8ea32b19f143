"""`crossview-data osm`: a map of a place, from a file or a server, as a GeoPackage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console
from data_tools.cli import options

if TYPE_CHECKING:
    from data_tools.openstreetmap import DatasetTarget, FileTarget, MapExtract

_NEEDS = {
    **options.PLACE_NEEDS,
    "region": ("into",),
    "timeout_s": ("overpass", "overpass_url", "place"),
    "refresh": ("overpass", "overpass_url"),
}
"""What options need so that they do something."""


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The map, a .gpkg file.")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Or: a dataset, whose manifest gets the map.",
)
@click.option("--region", help="Of the dataset whose map it is; default, its only one.")
@click.option("--overwrite", is_flag=True, help="Replace a map that is there.")
@options.place_options
@click.option("--overpass", is_flag=True, help="Ask an Overpass server instead of reading a file.")
@click.option("--overpass-url", help="Its address; default, the public server.")
@click.option("--timeout-s", type=click.IntRange(1), default=180, show_default=True)
@click.option("--refresh", is_flag=True, help="Ask again where an answer is kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    source: Path | None,
    out: Path | None,
    into: Path | None,
    region: str | None,
    overwrite: bool,
    overpass: bool,
    overpass_url: str | None,
    timeout_s: int,
    refresh: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Make a map of OpenStreetMap or Overture data that crossview and GIS programs read.

    SOURCE is .osm, .osm.gz, .osm.bz2 or .osm.pbf; vector tiles in .pmtiles; Overture's .parquet,
    or a folder of them; or a .gpkg that was made here. Prints a summary; exit code 1 if the source
    covers only a part of the place. With --into the map becomes part of a dataset: its file goes
    into the manifest's folder, and a row into its table of maps; exit code 1 too if it does not
    cover all views and tiles.
    """
    from data_tools import openstreetmap

    options.require_needed(_NEEDS)
    overpass = overpass or overpass_url is not None
    if overpass == (source is not None):
        raise click.UsageError("Give one source: a file, or --overpass.")
    target = _target(out, into, region, overwrite=overwrite)
    bounds = options.bounds_of({**place, "timeout_s": timeout_s})
    if source is not None:
        with console.waiting(f"Reading {source.name}"):
            extract = openstreetmap.read_map(source, bounds)
    elif bounds is None:
        raise click.UsageError(f"{options.PLACE} is needed with --overpass.")
    else:
        url = overpass_url or openstreetmap.PUBLIC_OVERPASS_URL
        server = openstreetmap.Server(url, timeout_s=timeout_s)
        with console.waiting(f"Asking {server.host}"):
            extract = openstreetmap.download_map(bounds, server, refresh=refresh)
    counts = target.write(extract)
    is_complete = not counts.get("outside")
    is_complete &= bounds is None or openstreetmap.covers(extract.features, bounds)
    summary = {**_summary(extract, target.path), **counts, "complete": is_complete}
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
    else:
        for name, value in summary.items():
            click.echo(f"{name:<12}{_written(value)}")
    if not is_complete:
        raise click.exceptions.Exit(1)


def _target(
    out: Path | None, into: Path | None, region: str | None, *, overwrite: bool
) -> FileTarget | DatasetTarget:
    """Where the map goes, which is free."""
    from data_tools.openstreetmap import FileTarget, place_in_dataset

    if into is not None and out is None:
        return place_in_dataset(into, region, overwrite=overwrite)
    if out is None or into is not None:
        raise click.UsageError("Give one: --out FILE, or --into DATASET.")
    target = FileTarget(out)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already. Take another name, or --overwrite.")
    return target


def _summary(extract: MapExtract, out: Path) -> dict[str, object]:
    features = extract.features
    kinds = features.table["kind"].value_counts()
    return {
        "map": str(out),
        "source": features.source,
        "date": extract.date,
        "licence": extract.licence,
        "attribution": features.attribution,
        "extent": [float(side) for side in features.extent],
        "areas": int(kinds.get("area", 0)),
        "buildings": sum(
            kind == "area" and "building" in tags
            for kind, tags in zip(features.table["kind"], features.table["tags"], strict=True)
        ),
        "lines": int(kinds.get("line", 0)),
        "points": int(kinds.get("point", 0)),
        "skipped": dict(features.skipped),
    }


def _written(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {what}" for what, number in value.items()) or "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(f"{side:.6f}" for side in value)
    return str(value) or "not known"
