"""`crossview-data satellite`: imagery of a place as a mosaic, or as crops with a manifest."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from data_tools.areas import Area
    from data_tools.points import Points
    from data_tools.providers import Provider
    from data_tools.satellite import Job, Result

PROGRESS_DELAY_S = 2.0
"""Work shorter than this shows no progress bar."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_ANY = click.Path(exists=True, path_type=Path)

_PLACES = ("box", "area", "place", "points", "views")
_SOURCES = ("provider", "url", "wmts", "wms", "file")

_log = logging.getLogger(__name__)


def _positive(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"expected a positive number, got {value}.", param=parameter)
    return value


@click.command()
@click.option("--box", nargs=4, type=float, help="WEST SOUTH EAST NORTH, degrees.")
@click.option("--area", type=_FILE, help="Polygons in a GeoJSON file.")
@click.option("--place", help="Its name, looked up by Nominatim (OpenStreetMap).")
@click.option("--geocoder-url", help="A Nominatim of your own.")
@click.option("--points", type=_ANY, help="CSV, GPX, GeoJSON, or a folder of photos.")
@click.option("--views", type=_FOLDER, help="A manifest: crops for its views, and pairs.")
@click.option("--radius-m", type=float, help="Around points.")
@click.option("--provider", help="Of the xyzservices catalogue; by default nlmaps.luchtfoto.")
@click.option("--url", help="Template with {z} {x} {y} ({-y}, {q}), {bbox}, or {lat} {lon} {zoom}.")
@click.option("--wmts", help="URL of a WMTS' capabilities.")
@click.option("--wms", help="URL of a WMS.")
@click.option("--layer", help="Of the WMTS or WMS.")
@click.option("--wms-format", default="image/jpeg", show_default=True, help="image/png: lossless.")
@click.option("--file", type=_FILE, help="GeoTIFF, COG, VRT, MBTiles or PMTiles.")
@click.option("--stac", help="URL of a STAC catalogue: list its images, and fetch nothing.")
@click.option("--collection", multiple=True, help="Of the STAC catalogue.")
@click.option("--zoom", type=int, help="Of the tiles.")
@click.option("--resolution", type=float, help="Or: metres per pixel, at most.")
@click.option("--max-zoom", type=int, help="Of a --url whose largest zoom is not 19.")
@click.option("--tile-px", type=int, help="Of a source whose tiles are not 256 pixels.")
@click.option("--attribution", help="Whom to credit; instead of what the source says.")
@click.option("--date", help="When it was taken; instead of what the source says.")
@click.option("--crop-m", type=float, help="Side of crops on the ground.")
@click.option("--crop-px", type=int, help="Side of crops in pixels.")
@click.option("--cell-m", type=float, help="Side of a crop's pixel on the ground.")
@click.option("--overlap", type=float, default=0.5, show_default=True, help="Of crops on a grid.")
@click.option("--grid", is_flag=True, help="Crops on a grid around points, not one on each.")
@click.option("--image-format", type=click.Choice(["png", "jpg"]), default="png", show_default=True)
@click.option("--min-covered", type=float, default=1.0, show_default=True, help="Share of a crop.")
@click.option("--mosaic/--no-mosaic", default=None, help="One COG; by default without crops.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder, made here.")
@click.option("--name", help="Of the dataset; by default that of the folder.")
@click.option(
    "--rate", type=float, callback=_positive, help="Tiles per second, at most the provider's."
)
@click.option("--refresh", is_flag=True, help="Fetch stored tiles again that have changed.")
@click.option("--ask-absent-again", is_flag=True, help="Also ask for tiles known not to exist.")
@click.option("--dry-run", is_flag=True, help="Say what it takes, and fetch nothing.")
@click.option("--yes", is_flag=True, help="Also more than 100,000 tiles.")
@click.option("--i-have-permission", is_flag=True, help="The provider has allowed it to me.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    out: Path,
    dry_run: bool,
    yes: bool,
    i_have_permission: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Satellite imagery of an area, or around points.

    Tiles are kept in OUT/tiles.mbtiles as the server sent them; run again to fetch what is missing.
    An area becomes one Cloud Optimized GeoTIFF. With a crop's size it becomes crops in true metres
    on a grid, and points one crop each, with a manifest in OUT/manifest.

    Prints what was made; exit code 1 if tiles or crops are missing.

    \b
    crossview-data satellite --box 5.96 50.89 5.98 50.90 --zoom 18 --out kerkrade
    crossview-data satellite --points drive.gpx --crop-m 70 --crop-px 512 --zoom 19 --out drive
    """  # noqa: D301
    from data_tools import satellite

    if options["stac"] is not None:
        _echo_stac(options)
        return
    job = _job(out, options)
    report = None
    if not isinstance(job.source, Path):
        again = {name: options[name] for name in ("refresh", "ask_absent_again")}
        plan = satellite.plan(job, rate_per_s=options["rate"], **again)
        if dry_run:
            refused = satellite.refusals(job, plan, has_permission=i_have_permission, yes=yes)
            for reason in refused:
                _log.warning("It would be refused: %s", reason)
            facts = {**asdict(plan), "refused": refused}
            click.echo(json.dumps(facts) if as_json else plan.sentences())
            return
        _log.info("%s", plan.sentences())
        plan.require_sensible(yes=yes)
        with _bar(plan.num_requests, "tile") as progress:
            report = satellite.fetch_tiles(
                job,
                rate_per_s=options["rate"],
                has_permission=i_have_permission,
                progress=progress,
                **again,
            )
    elif dry_run:
        raise click.UsageError(f"Nothing is fetched of {job.source.name}, so --dry-run is idle.")
    result = satellite.make_products(job, report, bar=_bar)
    _echo(result, as_json=as_json)
    if not result.is_complete:
        raise click.exceptions.Exit(1)


def _job(out: Path, options: dict[str, Any]) -> Job:
    from data_tools import satellite

    source = _source(options)
    return satellite.job_of(
        source,
        _target(options),
        out,
        zoom=options["zoom"],
        resolution_m=options["resolution"],
        radius_m=options["radius_m"],
        crop_m=options["crop_m"],
        crop_px=options["crop_px"],
        cell_m=options["cell_m"],
        overlap=options["overlap"],
        on_grid=options["grid"],
        with_mosaic=options["mosaic"],
        image_format=options["image_format"],
        min_covered=options["min_covered"],
        tile_px=options["tile_px"],
        said={name: options[name] for name in ("attribution", "date") if options[name] is not None},
        name=options["name"] or out.resolve().name,
    )


def _echo_stac(options: dict[str, Any]) -> None:
    """Images of a catalogue, one JSON object a line."""
    from data_tools import stac
    from data_tools.areas import Area

    target = _target(options)
    if not isinstance(target, Area):
        raise click.UsageError("--stac needs an area: --box, --area or --place.")
    found = stac.search(
        options["stac"], target, collections=options["collection"], dates=options["date"]
    )
    for image in found:
        click.echo(json.dumps(asdict(image)))
    _log.info("%d images. Download one, and give it as --file.", len(found))


def _target(options: dict[str, Any]) -> Area | Points | Manifest:
    from crossview.manifest import Manifest
    from data_tools import areas, points

    chosen = _one_of(_PLACES, options)
    value = options[chosen]
    if chosen == "box":
        return areas.Area.of_box(*value)
    if chosen == "area":
        return areas.read_area(value)
    if chosen == "points":
        return points.read_points(value)
    if chosen == "views":
        return Manifest.load(value)
    from data_tools.openstreetmap import Server, geocoder

    server = Server(options["geocoder_url"]) if options["geocoder_url"] else None
    return areas.geocoded_area(value, geocoder(server))


def _source(options: dict[str, Any]) -> Provider | Path:
    from data_tools import providers, satellite

    chosen = _one_of(_SOURCES, options, default="provider")
    value = options[chosen]
    idle = [] if chosen in ("wmts", "wms") else ["layer"]
    if chosen == "file":
        idle += ["max_zoom", "rate", "refresh", "ask_absent_again"]
        if value.suffix.lower() not in satellite.ARCHIVE_SUFFIXES:
            idle += ["zoom", "tile_px"]
    if given := [name for name in idle if options[name] not in (None, False)]:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"{words} means nothing with --{chosen}. Leave it out.")
    if chosen == "file":
        return Path(value)
    names = ("attribution", "max_zoom", "tile_px")
    facts = {name: options[name] for name in names if options[name] is not None}
    if options["date"] is not None:
        facts["capture_date"] = options["date"]
    if chosen == "wmts":
        return satellite.wmts_provider(value, options["layer"], **facts)
    if chosen == "wms":
        if not options["layer"]:
            raise click.UsageError("A WMS needs --layer: names, separated by commas.")
        return providers.from_wms(
            value, options["layer"], image_format=options["wms_format"], **facts
        )
    if chosen == "url":
        return providers.from_template(value, **facts)
    return providers.from_catalogue(value or providers.DEFAULT, **facts)


def _one_of(names: tuple[str, ...], options: dict[str, Any], default: str | None = None) -> str:
    given = [name for name in names if options[name] is not None]
    if len(given) > 1 or not (given or default):
        words = ", ".join(f"--{name}" for name in names)
        raise click.UsageError(f"Give one of {words}; got {len(given)}.")
    return given[0] if given else str(default)


@contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left, where stderr is a terminal and it takes long."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, delay=PROGRESS_DELAY_S, disable=None) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def _echo(result: Result, *, as_json: bool) -> None:
    report = result.download
    if report is not None:
        _log.info(
            "%d tiles fetched (%.1f MB in %.1f s), %d there before, %d not at the provider, "
            "%d failed.",
            report.stored,
            report.bytes / 1e6,
            report.seconds,
            report.already,
            report.absent,
            len(report.failed),
        )
        for tile, reason in report.failed[:10]:
            _log.warning("Tile %d/%d/%d: %s", *tile, reason)
        if report.failed:
            _log.warning("%d tiles failed: run the same command again.", len(report.failed))
        if report.absent and not (report.stored or report.already):
            _log.warning(
                "The provider has none of these tiles. Is the place right, latitude and longitude "
                "in order? They are asked for again with --ask-absent-again."
            )
        elif report.absent:
            _log.warning("%d tiles are not at the provider.", report.absent)
    elif result.num_missing_tiles:
        num_tiles = result.num_missing_tiles + sum(mosaic.num_tiles for mosaic in result.mosaics)
        _log.warning("%d of %d tiles are not in the file.", result.num_missing_tiles, num_tiles)
    if result.crops:
        written = len(result.crops) - result.num_missing_crops
        _log.info("%d crops written, %d left out.", written, result.num_missing_crops)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
        return
    for mosaic in result.mosaics:
        click.echo(mosaic.path)
    if result.manifest is not None:
        click.echo(result.manifest)
