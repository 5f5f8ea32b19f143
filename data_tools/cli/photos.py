"""`crossview-data photos`: street photos in, a manifest out."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console
from data_tools.cli import options

if TYPE_CHECKING:
    from crossview.tiles import GeoBounds
    from data_tools.ground_images import GroundImage, Kind, Skipped
    from data_tools.panoramas import PhotoDataset
    from data_tools.photo_services import PhotoService

ORIGINALS = "originals"
"""Where fetched images lie, below the manifest's folder."""

LISTED = 10
"""Skipped images that are named on stderr; --json names all."""

_NEEDS = {
    **options.PLACE_NEEDS,
    "clock_ahead_s": ("gpx",),
    "max_gap_s": ("gpx",),
    "crop_fov_deg": ("num_crops",),
    "crop_px": ("num_crops",),
}
"""What options need so that they do something."""

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_log = logging.getLogger(__name__)


@click.group()
def command() -> None:
    """Make a manifest of street photos and panoramas; see docs/photos.md for privacy."""


def _output_options(function: Callable[..., None]) -> Callable[..., None]:
    """What all sources have in common."""
    listed = [
        click.option("--out", required=True, type=click.Path(path_type=Path),
                     help="The manifest's folder."),
        click.option("--name", help="Of the dataset; default: the folder's name."),
        click.option("--region", default="photos", show_default=True, help="Name of the place."),
        click.option("--declination-deg", type=float, metavar="DEG",
                     help="How far magnetic north is east of true north: magnetic headings become "
                     "true ones. Without it they are kept and not used."),
        click.option("--crops", "num_crops", type=click.IntRange(1), metavar="N",
                     help="Cut each panorama into N perspective views."),
        click.option("--crop-fov-deg", default=90.0, show_default=True,
                     type=click.FloatRange(0, 180, min_open=True, max_open=True)),
        click.option("--crop-px", type=click.IntRange(1), default=1024, show_default=True),
        click.option("--blur", metavar="MODULE:FUNCTION",
                     help="Hides faces and number plates: a function from image to image."),
        click.option("--overwrite", is_flag=True, help="Replace a manifest that is there."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    ]  # fmt: skip
    for option in reversed(listed):
        function = option(function)
    return function


_licence = click.option("--licence", default="", help="Of the photos, such as CC-BY-SA-4.0.")
_attribution = click.option("--attribution", default="", help="Who must be named.")
_focal = click.option(
    "--focal-px",
    type=float,
    callback=options.positive,
    help="Focal length of photos that do not say theirs.",
)
_kind = click.option(
    "--kind",
    type=click.Choice(["photo", "panorama"]),
    help="What all images are. Default: panoramas are those with tags that say so, and those "
    "twice as wide as high without a focal length.",
)


def _track_options(function: Callable[..., None]) -> Callable[..., None]:
    listed = [
        click.option("--gpx", type=_FILE, help="Place photos on this track by their time."),
        click.option("--clock-ahead-s", type=float,
                     help="How far the camera's clock is ahead of UTC, time zone included."),
        click.option("--max-gap-s", type=click.FloatRange(0), default=10.0, show_default=True,
                     help="Longest gap of the track that is bridged."),
    ]  # fmt: skip
    for option in reversed(listed):
        function = option(function)
    return function


@command.command()
@click.argument("source", type=_FOLDER)
@_licence
@_attribution
@_focal
@_kind
@click.option("--ignore-gps", is_flag=True, help="Do not believe positions and compasses in files.")
@_track_options
@_output_options
def folder(
    source: Path,
    licence: str,
    attribution: str,
    focal_px: float | None,
    kind: Kind | None,
    ignore_gps: bool,
    gpx: Path | None,
    clock_ahead_s: float | None,
    max_gap_s: float,
    **output: Any,
) -> None:
    """The JPEG and PNG files below SOURCE, with what their EXIF and XMP say."""
    from data_tools.ground_images import images_in_folder

    options.require_needed(_NEEDS)
    images, skipped = images_in_folder(source, focal_px=focal_px, ignore_gps=ignore_gps, kind=kind)
    images, lost = _on_track(images, gpx, clock_ahead_s, max_gap_s)
    _fail_if(_write(images, [*skipped, *lost], source, licence, attribution, **output))


@command.command(name="csv")
@click.argument("table", type=_FILE)
@click.option("--images", type=_FOLDER, help="Where image paths begin; default: beside the table.")
@_licence
@_attribution
@_focal
@_kind
@_track_options
@_output_options
def from_csv(
    table: Path,
    images: Path | None,
    licence: str,
    attribution: str,
    focal_px: float | None,
    kind: Kind | None,
    gpx: Path | None,
    clock_ahead_s: float | None,
    max_gap_s: float,
    **output: Any,
) -> None:
    """The images of a CSV TABLE.

    Its columns: `image`, and any of kind, lat_deg, lon_deg, heading_deg, time_utc, focal_px ...
    """
    from data_tools.ground_images import images_in_csv

    options.require_needed(_NEEDS)
    found, skipped = images_in_csv(table, images, focal_px=focal_px, kind=kind)
    found, lost = _on_track(found, gpx, clock_ahead_s, max_gap_s)
    root = images or table.parent
    _fail_if(_write(found, [*skipped, *lost], root, licence, attribution, **output))


def _service_options(function: Callable[..., None]) -> Callable[..., None]:
    listed = [
        click.option("--max-images", type=click.IntRange(1), help="Not more than so many."),
        click.option("--panoramas-only", is_flag=True),
        click.option("--original", is_flag=True, help="The original size, not about 2048 pixels."),
        click.option("--rate", "rate_per_s", type=float, default=10.0, show_default=True,
                     callback=options.positive, help="Requests per second and server."),
        click.option("--api-url", help="Of another server with the same interface."),
    ]  # fmt: skip
    for option in reversed(listed):
        function = option(function)
    return options.place_options(function)


def _box(given: dict[str, Any]) -> GeoBounds:
    """The box of the place that is named; its options are taken out of those that are given."""
    options.require_needed(_NEEDS)
    box = options.bounds_of({name: given.pop(name) for name in options.PLACE_OPTIONS})
    if box is None:
        raise click.UsageError(f"{options.PLACE} is needed.")
    return box


@command.command()
@_service_options
@_output_options
def mapillary(original: bool, rate_per_s: float, api_url: str | None, **given: Any) -> None:
    """Images of Mapillary (CC BY-SA 4.0); the token comes from CROSSVIEW_MAPILLARY_KEY."""
    from data_tools import fetch
    from data_tools.photo_services import MAPILLARY_LICENCE, MAPILLARY_URL, Mapillary

    box = _box(given)
    token = fetch.key("Mapillary")
    with fetch.Client(rate_per_s) as client:
        service = Mapillary(client, token, url=api_url or MAPILLARY_URL, original=original)
        _fetch(service, client, box, MAPILLARY_LICENCE, "Mapillary", **given)


@command.command()
@_service_options
@_output_options
def panoramax(original: bool, rate_per_s: float, api_url: str | None, **given: Any) -> None:
    """Pictures of Panoramax, each with its own open licence."""
    from data_tools import fetch
    from data_tools.photo_services import PANORAMAX_URL, Panoramax

    box = _box(given)
    with fetch.Client(rate_per_s) as client:
        service = Panoramax(client, url=api_url or PANORAMAX_URL, original=original)
        _fetch(service, client, box, "", "Panoramax", **given)


def _fetch(
    service: PhotoService, client: Any, box: GeoBounds, licence: str, attribution: str,
    *, max_images: int | None, panoramas_only: bool, out: Path, blur: str | None,
    overwrite: bool, **output: Any,
) -> None:  # fmt: skip
    from data_tools.ground_images import GroundImage, Skipped
    from data_tools.panoramas import require_free
    from data_tools.photo_services import fetch_images

    require_free(out, overwrite=overwrite)  # before anything is fetched
    if blur is not None:
        _function(blur)  # a wrong name is said before anything is fetched
    originals = out / ORIGINALS
    fetched = fetch_images(
        service, client, box, originals, max_images=max_images, panoramas_only=panoramas_only
    )
    found = list(console.progress(fetched, total=None, unit="image"))
    images = [one for one in found if isinstance(one, GroundImage)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    num_skipped = _write(
        images, skipped, originals, licence, attribution, out=out, blur=blur,
        overwrite=overwrite, **output,
    )  # fmt: skip
    if blur is not None:
        # whoever hides faces does not want them one folder further
        shutil.rmtree(originals)
    _fail_if(num_skipped)


def _on_track(
    images: list[GroundImage], gpx: Path | None, clock_ahead_s: float | None, max_gap_s: float
) -> tuple[list[GroundImage], list[Skipped]]:
    if gpx is None:
        return images, []
    from data_tools.gpx_tracks import read_track
    from data_tools.ground_images import placed_on_track

    track = read_track(gpx)
    return placed_on_track(images, track, clock_ahead_s=clock_ahead_s, max_gap_s=max_gap_s)


def _write(
    images: list[GroundImage], skipped: Iterable[Skipped], image_root: Path, licence: str,
    attribution: str, *, out: Path, name: str | None, region: str, declination_deg: float | None,
    num_crops: int | None, crop_fov_deg: float, crop_px: int, blur: str | None, overwrite: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Write the manifest, say what is in it, and return how many images are not."""
    from data_tools.ground_images import with_declination
    from data_tools.panoramas import Crops, write_photos

    if declination_deg is not None:
        corrected = with_declination(images, declination_deg)
        if all(new is old for new, old in zip(corrected, images, strict=True)):
            _log.warning("--declination-deg changes nothing: no image has a magnetic heading only.")
        images = corrected
    written = write_photos(
        images,
        out,
        name=name or out.resolve().name,
        licence=licence,
        attribution=attribution,
        image_root=image_root,
        skipped=skipped,
        region=region,
        crops=None if num_crops is None else Crops(num_crops, crop_fov_deg, crop_px),
        blur=None if blur is None else _function(blur),
        overwrite=overwrite,
    )
    if as_json:
        facts = {
            "folder": str(out), "views": len(written.manifest.views),
            "magnetic": written.num_magnetic, "unplaced": written.num_unplaced,
            "assumed_panoramas": written.num_assumed_spheres,
            "skipped": [asdict(one) for one in written.skipped],
        }  # fmt: skip
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        click.echo(out)
    _say(written)
    return len(written.skipped)


def _fail_if(num_skipped: int) -> None:
    if num_skipped:
        raise click.exceptions.Exit(1)


def _say(written: PhotoDataset) -> None:
    num_views, skipped = len(written.manifest.views), written.skipped
    _log.info("%d views, %d of them without a position.", num_views, written.num_unplaced)
    if written.num_assumed_spheres:
        _log.warning(
            "%d images are twice as wide as high and say no focal length: they are taken for "
            "panoramas all around. If they are photos: --kind photo and --focal-px, or the columns "
            "kind and focal_px of a table.",
            written.num_assumed_spheres,
        )
    if written.num_magnetic:
        _log.warning(
            "%d views have a magnetic heading only, which is kept and not used. With the "
            "declination of the place and year it becomes a true one: --declination-deg.",
            written.num_magnetic,
        )
    for one in skipped[:LISTED]:
        _log.warning("Skipped %s: %s", one.image_id, one.reason)
    if len(skipped) > LISTED:
        _log.warning("... and %d more (--json lists all).", len(skipped) - LISTED)


def _function(text: str) -> Callable[[Any], Any]:
    """What MODULE:FUNCTION names."""
    module, colon, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{text!r} cannot be imported ({error}).") from error
    if not callable(found):
        raise click.BadParameter(f"{text!r}: expected MODULE:FUNCTION.")
    return found
