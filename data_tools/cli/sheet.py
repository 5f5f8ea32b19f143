"""`crossview-data sheet`: a manifest at a glance."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG.")
@click.option("--views", "num_views", type=click.IntRange(1, 100), default=12, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Which views are drawn.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(folder: Path, out: Path, num_views: int, seed: int, as_json: bool) -> None:
    """Draw a contact sheet of a manifest: some photos, their tiles beside them, who to name.

    Prints the file; exit code 1 if an image could not be read (its panel says why).
    """
    from crossview.manifest import Manifest
    from data_tools.contact_sheets import draw_contact_sheet

    sheet = draw_contact_sheet(Manifest.load(folder), out, num_views=num_views, seed=seed)
    click.echo(json.dumps({"file": str(out), **asdict(sheet)}) if as_json else str(out))
    for problem in sheet.problems:
        click.echo(problem, err=True)
    if sheet.problems:
        raise click.exceptions.Exit(1)
