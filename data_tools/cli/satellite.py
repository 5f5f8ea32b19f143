"""`crossview-data satellite`: imagery of a place as a mosaic, or as crops with a manifest."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from data_tools.cli import options as shared

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
_CATALOGUE = "stac"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Call:
    """What a call is about, for options that have a meaning in some calls only."""

    place: str
    source: str
    is_archive: bool
    has_crops: bool
    on_grid: bool
    with_mosaic: bool

    @classmethod
    def of(cls, options: dict[str, Any]) -> _Call:
        from data_tools.satellite import ARCHIVE_SUFFIXES

        sizes = ("crop_m", "crop_px", "cell_m")
        has_crops = any(options[name] is not None for name in sizes)
        is_listed = options[_CATALOGUE] is not None
        source = _CATALOGUE if is_listed else _one_of(_SOURCES, options, default="provider")
        return cls(
            place=_one_of(_PLACES, options),
            source=source,
            is_archive=source == "file" and options["file"].suffix.lower() in ARCHIVE_SUFFIXES,
            has_crops=has_crops,
            on_grid=options["grid"],
            with_mosaic=not has_crops if options["mosaic"] is None else options["mosaic"],
        )

    @property
    def has_points(self) -> bool:
        return self.place in ("points", "views")

    @property
    def is_fetched(self) -> bool:
        return self.source not in ("file", _CATALOGUE)


_Need = tuple[Callable[[_Call], bool], str]
_FETCHED: _Need = (lambda call: call.is_fetched, "tiles that are fetched, not --file")
_TILES: _Need = (
    lambda call: call.is_fetched or call.is_archive,
    "tiles, and this --file is one image",
)
_CROPS: _Need = (lambda call: call.has_crops, "crops: --crop-m, --crop-px or --cell-m")
_NEEDS: dict[str, _Need] = {
    "geocoder_url": (lambda call: call.place == "place", "--place"),
    "radius_m": (
        lambda call: call.has_points and (not call.has_crops or call.on_grid or call.with_mosaic),
        "--points or --views; and with crops, which are centred on these, --grid or --mosaic",
    ),
    "layer": (lambda call: call.source in ("wmts", "wms"), "--wmts or --wms"),
    "wms_format": (lambda call: call.source == "wms", "--wms"),
    "collection": (lambda call: call.source == _CATALOGUE, "--stac"),
    "zoom": _TILES,
    "tile_px": _TILES,
    "max_zoom": _FETCHED,
    "rate": _FETCHED,
    "refresh": _FETCHED,
    "ask_absent_again": _FETCHED,
    "dry_run": _FETCHED,
    "yes": _FETCHED,
    "i_have_permission": _FETCHED,
    "grid": (lambda call: call.has_points and call.has_crops, "--points or --views, and --crop-m"),
    "overlap": (
        lambda call: call.has_crops and (call.on_grid or not call.has_points),
        "crops on a grid: --crop-m, and around points --grid",
    ),
    "image_format": _CROPS,
    "min_covered": _CROPS,
    "overwrite": _CROPS,
    "copy_images": (
        lambda call: call.place == "views" and call.has_crops,
        "--views and --crop-m",
    ),
    "name": (
        lambda call: call.place != "views" or call.with_mosaic,
        "a dataset without a name, and that of --views has one; or a --mosaic",
    ),
}
"""By option, when it means something, and what it needs to."""

_OF_CATALOGUE = frozenset({*_PLACES, "geocoder_url", _CATALOGUE, "collection", "date", "as_json"})
"""Options that mean something where images are listed only."""


def _require_meaning(context: click.Context) -> None:
    """Refuse options that would be taken and change nothing."""
    call = _Call.of(context.params)
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        is_idle, words = False, "imagery, and --stac only lists what there is"
        if call.source == _CATALOGUE:
            is_idle = name not in _OF_CATALOGUE
        elif name in _NEEDS:
            has_meaning, words = _NEEDS[name]
            is_idle = not has_meaning(call)
        if is_idle:
            raise click.UsageError(
                f"{parameter.opts[0]} means nothing here: it needs {words}. Leave it out."
            )


@click.command()
@click.option("--box", nargs=4, type=float, help="WEST SOUTH EAST NORTH, degrees.")
@click.option("--area", type=_FILE, help="Polygons in a GeoJSON file.")
@click.option("--place", help="Its name, looked up by Nominatim (OpenStreetMap).")
@click.option("--geocoder-url", help="A Nominatim of your own.")
@click.option("--points", type=_ANY, help="CSV, GPX, GeoJSON, or a folder of photos.")
@click.option("--views", type=_FOLDER, help="A manifest: crops for its views, and pairs.")
@click.option("--radius-m", type=float, callback=shared.positive, help="Around points.")
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
@click.option(
    "--min-covered",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of a crop that the imagery must show.",
)
@click.option("--mosaic/--no-mosaic", default=None, help="One COG; by default without crops.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder, made here.")
@click.option("--copy-images", is_flag=True, help="Copy the photos of --views into OUT.")
@click.option("--overwrite", is_flag=True, help="Replace a manifest of other crops or views.")
@click.option("--name", help="Of the dataset and the mosaic; else OUT's, the area's.")
@click.option(
    "--rate", type=float, callback=shared.positive, help="Tiles per second, at most the provider's."
)
@click.option("--refresh", is_flag=True, help="Fetch stored tiles again that have changed.")
@click.option("--ask-absent-again", is_flag=True, help="Also ask for tiles known not to exist.")
@click.option("--dry-run", is_flag=True, help="Say what it takes, and fetch nothing.")
@click.option("--yes", is_flag=True, help="Also more than 100,000 tiles.")
@click.option("--i-have-permission", is_flag=True, help="The provider has allowed it to me.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(
    context: click.Context,
    out: Path | None,
    dry_run: bool,
    yes: bool,
    i_have_permission: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Satellite imagery of an area, or around points.

    Tiles are kept in OUT/tiles.mbtiles as the server sent them; run again to fetch what is missing.
    An area becomes one Cloud Optimized GeoTIFF. With a crop's size it becomes crops in true metres
    on a grid, and points one crop each, with a manifest in OUT/manifest. Run again, that keeps its
    splits and its maps.

    Prints what was made; exit code 1 if tiles or crops are missing.

    \b
    crossview-data satellite --box 5.96 50.89 5.98 50.90 --zoom 18 --out kerkrade
    crossview-data satellite --points drive.gpx --crop-m 70 --crop-px 512 --zoom 19 --out drive
    """  # noqa: D301
    from data_tools import satellite

    _require_meaning(context)
    if options["stac"] is not None:
        _echo_stac(options)
        return
    if out is None:
        raise click.UsageError("Give --out, the folder for the tiles and what is made of them.")
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
        name=options["name"] or "",
        copy_images=options["copy_images"],
        overwrite=options["overwrite"],
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
    from data_tools.openstreetmap import named_area

    return named_area(value, url=options["geocoder_url"])


def _source(options: dict[str, Any]) -> Provider | Path:
    from data_tools import providers, satellite

    chosen = _one_of(_SOURCES, options, default="provider")
    value = options[chosen]
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
        if mosaic.path is not None:
            click.echo(mosaic.path)
    if result.manifest is not None:
        click.echo(result.manifest)
