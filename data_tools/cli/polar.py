"""`crossview-data polar`: polar tiles as files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from crossview import console

_log = logging.getLogger(__name__)


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--height", type=click.IntRange(1), default=112, show_default=True, help="Rows.")
@click.option("--width", type=click.IntRange(1), default=616, show_default=True, help="Columns.")
@click.option(
    "--heading-deg", type=float, default=0.0, show_default=True, help="Of the centre column."
)
@click.option(
    "--convention",
    type=click.Choice(["crossview", "safa"]),
    default="crossview",
    show_default=True,
    help="safa: as published tiles and weights have it.",
)
@click.option(
    "--rescale",
    type=click.Choice(["minmax"]),
    help="Stretch each tile to 0..255, as published tiles and weights have it.",
)
@click.option(
    "--format", "image_format", type=click.Choice(["png", "jpg"]), default="png", show_default=True
)
@click.option("--threads", "num_threads", type=click.IntRange(1), help="By default, all cores.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    source: Path,
    out: Path,
    height: int,
    width: int,
    heading_deg: float,
    convention: str,
    rescale: str | None,
    image_format: str,
    num_threads: int | None,
    as_json: bool,
) -> None:
    """Make polar tiles of the tiles of a manifest, or of all images below a folder.

    Tiles are square, and polar around their middle. Run it again to go on after it was stopped:
    what is there is kept. Prints how many were made; exit code 1 if an image could not be used
    (polar.csv in --out lists them all).
    """
    from crossview.manifest import Manifest
    from crossview.manifest_schema import DATASET_FILE
    from data_tools import polar

    form = polar.PolarForm(height, width, heading_deg, convention, rescale, image_format)
    if (source / DATASET_FILE).is_file():
        tiles = polar.tiles_of(Manifest.load(source))
    else:
        folder, made = source.resolve(), out.resolve()
        tiles = polar.tiles_in(folder, leaving=None if made == folder else made)
    making = polar.make_polar_tiles(tiles, out, form, num_threads=num_threads)
    files = list(console.progress(making, total=len(tiles), unit="tile"))
    excluded = [file for file in files if file.problem]
    counts = {
        "made": sum(bool(file.file) and not file.is_kept for file in files),
        "kept": sum(file.is_kept for file in files),
    }
    if as_json:
        listed = [{"tile": file.tile, "problem": file.problem} for file in excluded]
        said = {"folder": str(out), **counts, "excluded": listed}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        for word, count in (*counts.items(), ("excluded", len(excluded))):
            click.echo(f"{word:<9} {count}")
    for file in excluded:
        _log.warning("%s: %s", file.tile, file.problem)
    if excluded:
        raise click.exceptions.Exit(1)
