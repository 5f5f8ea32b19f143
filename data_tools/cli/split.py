"""`crossview-data split`: train, val and test without leaking neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_tools.cli import options

if TYPE_CHECKING:
    from data_tools.splits import Division

_NEEDS = {"rest": ("regions", "polygons")}
_NO_LOT = ("regions", "polygons")
_IDLE = {
    "shares": _NO_LOT,
    "by": _NO_LOT,
    "cell_m": _NO_LOT,
    "seed": _NO_LOT,
    "regions": _NO_LOT[1:],
}
"""What options need, and beside which they do nothing."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--by",
    type=click.Choice(["cell", "region"]),
    default="cell",
    show_default=True,
    help="What goes to splits by lot: grid cells, or whole regions (towns).",
)
@click.option(
    "--share",
    "shares",
    multiple=True,
    metavar="SPLIT=SHARE",
    help="Part of the views, such as train=0.8; they add to 1.",
)
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="REGION=SPLIT",
    help="No lot: this town goes to that split.",
)
@click.option(
    "--polygons",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="No lot: a GeoJSON of polygons with a property `split`.",
)
@click.option("--rest", default="", help="Split of what --region or --polygons leave out.")
@click.option("--cell-m", type=float, default=500.0, show_default=True)
@click.option(
    "--buffer-m",
    type=float,
    default=50.0,
    show_default=True,
    help="Views of different splits are at least this far apart.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    folder: Path,
    by: str,
    shares: tuple[str, ...],
    regions: tuple[str, ...],
    polygons: Path | None,
    rest: str,
    cell_m: float,
    buffer_m: float,
    seed: int,
    as_json: bool,
) -> None:
    """Divide the views of a manifest into train, val and test, with a buffer between them.

    Rewrites the split column of views.csv; views in the buffer get none. Prints how many views
    each split has.
    """
    from crossview.manifest import Manifest
    from data_tools import splits

    options.require_needed(_NEEDS)
    options.require_not_beside(_IDLE)
    wanted = dict(map(_share, shares)) or splits.DEFAULT_SHARES
    manifest = Manifest.load(folder)
    if polygons is not None:
        division = splits.by_polygons(manifest, polygons, rest=rest, buffer_m=buffer_m)
    elif regions:
        named = dict(map(_pair, regions))
        division = splits.by_named_regions(manifest, named, rest=rest, buffer_m=buffer_m)
    elif by == "region":
        division = splits.by_regions(manifest, wanted, buffer_m=buffer_m, seed=seed)
    else:
        division = splits.by_cells(manifest, wanted, cell_m=cell_m, buffer_m=buffer_m, seed=seed)
    division.manifest.rewrite("views")
    _echo(division, as_json)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise click.BadParameter(f"{text!r}: expected NAME=VALUE.")
    return name, value


def _share(text: str) -> tuple[str, float]:
    name, value = _pair(text)
    try:
        return name, float(value)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: {value!r} is no number; expected a part of 1, such as {name}=0.8.",
            param_hint="--share",
        ) from None


def _echo(division: Division, as_json: bool) -> None:
    others = {
        "in the buffer": division.num_buffered,
        "left out": division.num_left_out,
        "without a position": division.num_unplaced,
    }
    if as_json:
        counts = {name.replace(" ", "_"): count for name, count in others.items()}
        click.echo(json.dumps({"splits": division.counts, **counts}))
        return
    for split, count in division.counts.items():
        click.echo(f"{split:<20}{count:>8}  {100 * division.shares[split]:.1f} %")
    for name, count in others.items():
        click.echo(f"{name:<20}{count:>8}")
