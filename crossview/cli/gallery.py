"""`crossview gallery`: satellite tiles as descriptors, and which of them a photo looks like."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console
from crossview.cli import options
from crossview.statements import OUTSIDE

if TYPE_CHECKING:
    from crossview.gallery import Gallery
    from crossview.nn.encoders import SiameseEncoder
    from crossview.photos import Panorama, Photo
    from crossview.strips import Prior

SHOWN = 5
"""Tiles that are found where nobody says."""

encoder_folder = click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the encoder, as `crossview train retrieval` writes.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
gallery_folder = click.argument(
    "gallery", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group()
def command() -> None:
    """Galleries: describe satellite tiles once, find the ones that a photo looks like."""


@command.command()
@options.dataset
@encoder_folder
@options.out
@click.option("--region", help="Of DATASET, where several have tiles.")
@click.option(
    "--headings",
    "num_headings",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Heading bins in which queries without a compass are tried; 1 tries none.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of descriptors on disk; float16 takes half, and longer to search.",
)
@as_json
def build(
    dataset: Path,
    model: Path,
    out: Path,
    region: str | None,
    num_headings: int,
    dtype: str,
    as_json: bool,
) -> None:
    """Describe all satellite tiles of DATASET and write them to OUT.

    Run the same command again to go on with what was interrupted. Images that cannot be read are
    listed and left out.
    """
    from crossview import gallery_build
    from crossview.manifest import Manifest

    made = gallery_build.build(
        Manifest.load(dataset),
        _encoder(model),
        out,
        region=region,
        num_headings=num_headings,
        dtype=dtype,
        progress=_progress,
    )
    for one in made.excluded:
        click.echo(f"Left out: {one.tile_id}: {one.reason}", err=True)
    summary = {
        "gallery": str(out),
        "num_tiles": made.num_tiles,
        "dimensions": made.descriptors.shape[1],
        "footprint_m": round(made.footprint_m, 3),
        "megabytes": round(made.descriptors.nbytes / 1e6, 1),
        "scale": made.scale,
        "excluded": [vars(one) for one in made.excluded],
    }
    click.echo(
        json.dumps(summary)
        if as_json
        else f"{out}: {made.num_tiles:,} tiles of {made.footprint_m:.0f} m, descriptors of "
        f"{summary['dimensions']} numbers, {summary['megabytes']} MB; {len(made.excluded)} left "
        "out."
    )


@command.command()
@gallery_folder
@options.dataset
@encoder_folder
@click.option(
    "--split",
    help="Only views of this split; by default val, where there is one, else what is not of train.",
)
@click.option("--region", help="Of GALLERY; needed where DATASET has views of several.")
@as_json
def fit(
    gallery: Path,
    dataset: Path,
    model: Path,
    split: str | None,
    region: str | None,
    as_json: bool,
) -> None:
    """Fit the scale that makes GALLERY's similarities probabilities, and remember it there.

    The views of DATASET that have a position are the queries. They must not be views that the
    encoder was trained on: those look more alike than new ones will.
    """
    from crossview import gallery_files, gallery_scale
    from crossview.gallery import Gallery
    from crossview.manifest import Manifest

    searched = Gallery.load(gallery, _encoder(model))
    queries = gallery_scale.held_out_queries(
        Manifest.load(dataset), searched, split=split, region=region
    )
    found = gallery_scale.fit_scale(searched, console.progress(queries, total=None, unit="view"))
    gallery_files.store_scale(gallery, found.scale)
    click.echo(
        json.dumps(vars(found))
        if as_json
        else f"Scale {found.scale:.4g}. {found.num_queries:,} queries are "
        f"{found.log_ratio_nats:.2f} nats more likely at their places than anywhere; "
        f"{found.num_outside:,} were outside of the tiles."
    )


@command.command()
@gallery_folder
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@encoder_folder
@click.option("--k", type=click.IntRange(min=1), default=SHOWN, show_default=True, help="Tiles.")
@click.option("--lat", "lat_deg", type=click.FloatRange(-90, 90), help="Centre of the search.")
@click.option("--lon", "lon_deg", type=click.FloatRange(-180, 180), help="Centre of the search.")
@click.option(
    "--radius-m",
    type=click.FloatRange(min=0, min_open=True),
    help="Only tiles around --lat --lon, or around the photo's own position.",
)
@click.option(
    "--area",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only tiles in the polygons of a GeoJSON or GeoPackage file.",
)
@click.option(
    "--prior",
    "prior_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only tiles that are possible in a posterior (.npz), weighed by its probabilities.",
)
@click.option(
    "--none",
    type=click.FloatRange(0, 1, max_open=True),
    default=OUTSIDE,
    show_default=True,
    help="Probability, before the photo is seen, that it is none of these tiles.",
)
@click.option("--panorama", is_flag=True, help="The photo is a 360 degree panorama.")
@click.option("--heading-deg", type=float, help="Where the photo looks, clockwise from true north.")
@click.option(
    "--focal-px",
    type=click.FloatRange(min=0, min_open=True),
    help="Focal length in pixels of the full-size photo, where its EXIF does not say.",
)
@click.option("--pitch-deg", type=float, default=0.0, help="Of a photo; up is positive.")
@click.option("--roll-deg", type=float, default=0.0, help="Of a photo; right side down.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the photo and what was found (.png, .jpg, .pdf).",
)
@as_json
def search(
    gallery: Path,
    photo: Path,
    model: Path,
    k: int,
    lat_deg: float | None,
    lon_deg: float | None,
    radius_m: float | None,
    area: Path | None,
    prior_file: Path | None,
    none: float,
    panorama: bool,
    heading_deg: float | None,
    focal_px: float | None,
    pitch_deg: float,
    roll_deg: float,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Which tiles of GALLERY look most like PHOTO?

    Prints them best first: similarity (1 is equal), probability where the gallery has a scale,
    latitude and longitude of the middle, name; and how probable it is that none of the tiles is
    right.
    """
    from crossview import gallery_search, photos
    from crossview.gallery import Gallery

    if sum(given is not None for given in (radius_m, area, prior_file)) > 1:
        raise click.UsageError("--radius-m, --area and --prior are one prior each: give one.")
    if radius_m is None and (lat_deg is not None or lon_deg is not None):
        raise click.UsageError("--lat and --lon are the middle of a disc: give --radius-m too.")
    query: Photo | Panorama
    if panorama:
        query = photos.read_panorama(photo, heading_deg=heading_deg)
    else:
        query = photos.read_photo(photo, focal_px=focal_px, pitch_deg=pitch_deg, roll_deg=roll_deg)
    searched = Gallery.load(gallery, _encoder(model))
    prior = _prior(
        searched, query, photo.name,
        lat_deg=lat_deg, lon_deg=lon_deg, radius_m=radius_m, area=area, prior_file=prior_file,
    )  # fmt: skip
    found = gallery_search.find(searched, query, k, heading_deg=heading_deg, prior=prior, none=none)
    if picture is not None:
        from crossview import gallery_plots
        from crossview.pictures import write_figure

        strip = gallery_plots.retrieval_strip(query.image, searched, found.ranking)
        write_figure(strip, picture)
    click.echo(json.dumps(found.to_json()) if as_json else found.sentences())


def _prior(
    gallery: Gallery,
    query: Photo | Panorama,
    name: str,
    *,
    lat_deg: float | None,
    lon_deg: float | None,
    radius_m: float | None,
    area: Path | None,
    prior_file: Path | None,
) -> Prior | None:
    if area is not None:
        from crossview.gallery_files import read_area

        return read_area(area, gallery.frame)
    if prior_file is not None:
        from crossview.posterior import Posterior

        return Posterior.load(prior_file)
    if radius_m is None:
        return None
    from crossview.answers import place_of

    place = place_of(query, name, lat_deg=lat_deg, lon_deg=lon_deg)
    return gallery.disc(place.lat_deg, place.lon_deg, radius_m)


def _encoder(folder: Path) -> SiameseEncoder:
    # TensorFlow's greetings are neither data nor words of ours
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from crossview.nn.encoders import load_encoder

    return load_encoder(folder)


def _progress(blocks: Iterable[Any], total: int) -> Iterator[Any]:
    return console.progress(blocks, total=total, unit="block")
