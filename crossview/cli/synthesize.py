"""`crossview synthesize`: a made-up town or a real map, photographed from the street and above."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console

if TYPE_CHECKING:
    from crossview.synthetic.recipes import Recipe
    from crossview.synthetic.worlds import Source

DRIVE_FRAMES = 40
_SIZES = {"panorama": (512, 256), "photo": (512, 384), "rig": (384, 384)}
"""Columns and rows where the command does not say."""


@click.command()
@click.option(
    "--town",
    "towns",
    metavar="SEEDS",
    help="Made-up towns: whole numbers from 0, such as 1 or 1,2,3 or 1-20.",
)
@click.option(
    "--osm",
    "extracts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An OpenStreetMap extract (.osm, .osm.gz, .osm.bz2, .pbf), or a GeoPackage of "
    "crossview-data osm; may be given again.",
)
@click.option(
    "--box", nargs=4, type=float, help="Of one --osm: only WEST SOUTH EAST NORTH, degrees."
)
@click.option("--pattern", default="lattice", show_default=True, help="Streets of --town.")
@click.option("--size-m", type=float, help="Side of a --town that is no lattice.")
@click.option("--views", type=int, required=True, help="Places of every world to photograph.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the dataset: new, or of the same command that was interrupted.",
)
@click.option(
    "--kind",
    type=click.Choice(list(_SIZES)),
    default="panorama",
    show_default=True,
    help="What is at a place; a rig has photos all around.",
)
@click.option("--width", type=int, help="Of an image, pixels.")
@click.option("--height", type=int, help="Of an image, pixels.")
@click.option("--fov-deg", type=float, default=90.0, show_default=True, help="Width of photos.")
@click.option("--cameras", "num_cameras", type=int, default=4, show_default=True, help="Of a rig.")
@click.option("--height-m", type=float, default=1.6, show_default=True, help="Of the lens.")
@click.option("--height-spread-m", type=float, default=0.0, show_default=True, help="Up and down.")
@click.option(
    "--heading-spread-deg",
    type=float,
    default=30.0,
    show_default=True,
    help="How far headings are off the street, both ways; drives look ahead.",
)
@click.option("--pitch-spread-deg", type=float, default=0.0, show_default=True, help="Of photos.")
@click.option("--roll-spread-deg", type=float, default=0.0, show_default=True, help="Of photos.")
@click.option(
    "--sidewalks", type=float, default=0.2, show_default=True, help="Share of places on them."
)
@click.option("--drive", is_flag=True, help="Places are frames of drives, with an odometry.")
@click.option("--frames", type=int, help=f"Of a drive; by default {DRIVE_FRAMES}.")
@click.option("--spacing-m", type=float, help="Between frames of a drive; by default 5.")
@click.option(
    "--tiles",
    type=click.Choice(["none", "centered", "grid"]),
    default="centered",
    show_default=True,
    help="Satellite tiles: around each place (as CVACT), or a grid with half an overlap (VIGOR).",
)
@click.option("--tile-px", type=int, default=256, show_default=True, help="Side of a tile.")
@click.option("--cell-m", type=float, default=0.25, show_default=True, help="Of a tile's pixel.")
@click.option(
    "--flights", "num_flights", type=int, default=3, show_default=True, help="Days of imagery."
)
@click.option(
    "--max-tilt-deg", type=float, default=0.0, show_default=True, help="Of flights, off vertical."
)
@click.option(
    "--pictures",
    type=click.Choice(["rgb", "classes"]),
    default="rgb",
    show_default=True,
    help="Photos and tiles in colours, or class images in the Cityscapes palette.",
)
@click.option("--classes", "with_classes", is_flag=True, help="Also classes, instances, depth.")
@click.option("--normals", "with_normals", is_flag=True, help="With --classes: also normals.")
@click.option(
    "--label-noise",
    type=float,
    default=0.0,
    show_default=True,
    help="Errors in class images of views: 0 none, 1 those of a poor network.",
)
@click.option(
    "--randomness",
    type=float,
    default=1.0,
    show_default=True,
    help="Of light, season, weather and camera; 0 is always a clear noon.",
)
@click.option("--traffic", type=float, default=1.0, show_default=True, help="Cars and people.")
@click.option("--image-format", type=click.Choice(["jpg", "png"]), default="jpg", show_default=True)
@click.option(
    "--split",
    type=click.Choice(["none", "town", "cell"]),
    default="none",
    show_default=True,
    help="Train, val and test: whole worlds, or cells of 200 m, by lot.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of places, times and noise.")
@click.option("--workers", type=int, help="Processes; by default one for every processor.")
@click.option("--dry-run", is_flag=True, help="Say about how much it would be, and make nothing.")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw some of it as one image (.png, .jpg, .pdf).",
)
@click.option("--sheet-views", type=int, default=4, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    out: Path,
    workers: int | None,
    dry_run: bool,
    sheet: Path | None,
    sheet_views: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Photograph worlds from the street and from above, as a dataset with exact poses.

    A world is a made-up town or an OpenStreetMap extract. OUT becomes a manifest with its map, so
    `crossview evaluate pose OUT` works at once; docs/worlds.md says what else is in it. Photos and
    tiles of one place are taken at different times. Run the same command again to go on with what
    was interrupted; other options are refused then.

    \b
    crossview synthesize --town 1,2,3 --pattern mixed --views 500 --split town --out towns
    crossview synthesize --osm monaco.osm.gz --views 1000 --tiles grid --out monaco
    crossview synthesize --town 7 --views 80 --drive --kind rig --out drives
    """  # noqa: D301
    from crossview.synthetic import synthesis

    recipe = _recipe(**options)
    workers = workers if workers is not None else os.cpu_count() or 1
    if dry_run:
        if sheet is not None:
            raise click.UsageError("A dry run draws nothing: leave out --sheet.")
        estimate = synthesis.estimate(recipe, workers=workers)
        click.echo(json.dumps(asdict(estimate)) if as_json else estimate.sentences())
        return
    summary = synthesis.synthesize(recipe, out, workers=workers, progress=_progress)
    if sheet is not None:
        from crossview.world_sheets import draw_sheet

        draw_sheet(out, sheet, num_views=sheet_views)
    click.echo(json.dumps(asdict(summary)) if as_json else summary.sentences())


def _progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    return console.progress(items, total=total, unit="view")


def _recipe(
    *,
    towns: str | None,
    extracts: tuple[Path, ...],
    box: tuple[float, float, float, float] | None,
    pattern: str,
    size_m: float | None,
    views: int,
    kind: str,
    width: int | None,
    height: int | None,
    drive: bool,
    frames: int | None,
    spacing_m: float | None,
    **options: Any,
) -> Recipe:
    from crossview.synthetic.recipes import Recipe

    if not drive and (frames is not None or spacing_m is not None):
        raise click.UsageError("--frames and --spacing-m are of drives: give --drive too.")
    _refuse_unheeded(drive, kind, options["tiles"])
    if options["with_normals"] and not options["with_classes"]:
        raise click.UsageError("--normals come beside --classes: give that too.")
    width_px, height_px = _SIZES[kind]
    return Recipe(
        sources=(*_towns(towns, pattern, size_m), *_extracts(extracts, box)),
        num_views=views,
        kind=kind,  # type: ignore[arg-type]
        width_px=width_px if width is None else width,
        height_px=height_px if height is None else height,
        frames=(DRIVE_FRAMES if frames is None else frames) if drive else 0,
        spacing_m=5.0 if spacing_m is None else spacing_m,
        **options,
    )


def _refuse_unheeded(drive: bool, kind: str, tiles: str) -> None:
    """Options that would change nothing beside these are refused, where they were given."""
    context = click.get_current_context()
    rules = (
        (
            drive,
            ("height_spread_m", "heading_spread_deg", "sidewalks"),
            "Frames of drives stand on lanes at one height and look ahead: leave out {}.",
        ),
        (
            kind == "panorama",
            ("fov_deg",),
            "A panorama is a full sphere: leave out {}, or give --kind photo or rig.",
        ),
        (
            kind != "rig",
            ("num_cameras",),
            f"A {kind} is of one camera: leave out {{}}, or give --kind rig.",
        ),
        (
            tiles == "none",
            ("tile_px", "cell_m", "num_flights", "max_tilt_deg"),
            "There are no tiles: leave out {}, or give --tiles centered or grid.",
        ),
    )
    flags = {one.name: one.opts[0] for one in context.command.params}
    given = click.core.ParameterSource.COMMANDLINE
    for is_unheeded, names, sentence in rules:
        some = [flags[name] for name in names if context.get_parameter_source(name) is given]
        if is_unheeded and some:
            raise click.UsageError(sentence.format(" and ".join(some)))


def _towns(text: str | None, pattern: str, size_m: float | None) -> list[Source]:
    from crossview.cli.options import numbers
    from crossview.synthetic.worlds import Source

    if text is None:
        if pattern != "lattice" or size_m is not None:
            raise click.UsageError("--pattern and --size-m are of made-up towns: give --town too.")
        return []
    try:
        seeds = numbers(text)
    except click.UsageError as error:
        raise click.UsageError(
            f"--town {text}: expected numbers or ranges from 0, such as 1,2,3 or 1-20."
        ) from error
    return [Source(f"town-{seed}", seed=seed, pattern=pattern, size_m=size_m) for seed in seeds]


def _extracts(
    files: tuple[Path, ...], box: tuple[float, float, float, float] | None
) -> list[Source]:
    from crossview.synthetic.worlds import Source

    if box is not None and len(files) != 1:
        raise click.UsageError("--box is of one --osm.")
    return [
        # names of views and files begin with it
        Source(re.sub(r"\W+", "_", file.name.partition(".")[0]), file=str(file.resolve()), box=box)
        for file in files
    ]
