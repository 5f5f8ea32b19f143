"""`crossview-data import`: other people's folder layouts in, a manifest out."""

from __future__ import annotations

import json
from pathlib import Path

import click

_FOLDER = click.Path(path_type=Path)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Make a manifest of a published dataset; its images stay where they are."""


@command.command()
@click.argument("source", type=_EXISTING_FOLDER)
@click.option("--out", required=True, type=_FOLDER, help="The manifest's folder, made here.")
@click.option("--overwrite", is_flag=True, help="Replace a manifest that is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def itowns(source: Path, out: Path, overwrite: bool, as_json: bool) -> None:
    """The iTowns sample dataset of IGN (Paris): rigs, calibration, building footprints.

    Prints the manifest's folder.
    """
    from crossview.manifest_summary import summary
    from data_tools.importers.itowns import import_itowns

    manifest = import_itowns(source, out, overwrite=overwrite)
    if as_json:
        said = {"folder": str(out), "name": manifest.name, **summary(manifest).counts}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        click.echo(out)
