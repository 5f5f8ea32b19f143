"""`crossview-data check`: is a manifest as it should be?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview import console

if TYPE_CHECKING:
    from crossview.manifest import Manifest

_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=_EXISTING_FOLDER)
@click.option("--tables-only", is_flag=True, help="Do not open images and maps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(folder: Path, tables_only: bool, as_json: bool) -> None:
    """Check a manifest: every table, that every image can be read, and every checksum.

    Prints a summary, and each problem with its file and row; exit code 1 if there are any.
    """
    from crossview import manifest_schema
    from crossview.manifest import Manifest

    found = manifest_schema.problems(folder)
    facts: dict[str, Any] = {}
    if not found:
        manifest = Manifest.load(folder)
        facts = _facts(manifest)
        if not tables_only:
            checked = console.progress(
                manifest.file_problems(), total=manifest.num_files, unit="file"
            )
            found = [problem for problems in checked for problem in problems]
    if as_json:
        listed = [asdict(problem) for problem in found]
        click.echo(json.dumps({**facts, "problems": listed}, ensure_ascii=False))
    else:
        for word, value in facts.items():
            click.echo(f"{word:<9} {value}")
        for problem in found:
            click.echo(str(problem))
        click.echo(f"problems  {len(found)}")
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
