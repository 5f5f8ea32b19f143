"""`crossview-data info`: what a manifest holds."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(folder: Path, as_json: bool) -> None:
    """Say what a manifest holds: licence, counts, extent, dates, splits.

    Its tables are checked, its images are not opened (see check).
    """
    from crossview.manifest import Manifest
    from crossview.manifest_summary import summary

    found = summary(Manifest.load(folder))
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        click.echo("\n".join(found.lines()))
