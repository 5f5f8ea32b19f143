"""`crossview-data check`: is a manifest as it should be?"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console

if TYPE_CHECKING:
    from crossview.manifest import Manifest

_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_log = logging.getLogger(__name__)


@click.command()
@click.argument("folder", type=_EXISTING_FOLDER)
@click.option("--tables-only", is_flag=True, help="Do not open images and maps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(folder: Path, tables_only: bool, as_json: bool) -> None:
    """Check a manifest: every table, that every image and map can be read, and every checksum.

    Prints a summary, and each problem with its file and row; exit code 1 if there are any. Views
    and tiles that a map of their region does not cover are a warning.
    """
    from crossview import manifest_schema
    from crossview.manifest import Manifest
    from data_tools.openstreetmap import map_problems

    found, warnings = manifest_schema.problems(folder), list[str]()
    facts: dict[str, Any] = {}
    if not found:
        manifest = Manifest.load(folder)
        facts = _facts(manifest)
        if not tables_only:
            checked = console.progress(
                manifest.file_problems(), total=manifest.num_files, unit="file"
            )
            found = [problem for problems in checked for problem in problems]
            # a file that is missing, or elsewhere, has been found
            if all(problem.file != "maps.csv" for problem in found):
                with console.waiting("Reading maps"):
                    unread, warnings = map_problems(manifest)
                found += unread
    if as_json:
        listed = [asdict(problem) for problem in found]
        said = {**facts, "problems": listed, "warnings": warnings}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        for word, value in facts.items():
            click.echo(f"{word:<9} {value}")
        for problem in found:
            click.echo(str(problem))
        click.echo(f"problems  {len(found)}")
    for warning in warnings:
        _log.warning("%s", warning)
    if found:
        raise click.exceptions.Exit(1)


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "licence": manifest.licence,
        "images": str(manifest.image_folder),
        **{table: len(getattr(manifest, table)) for table in manifest.TABLES},
        "stations": manifest.num_stations,
    }
