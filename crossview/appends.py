"""Rows added to the tables of a folder in place: all of them, or after a crash none.

While rows are written, a journal in the folder says how long each file was before. Who opens a
table meanwhile reads that much of it, and so does everybody after the writer was killed; the next
writer cuts off what the killed one left. Removing the journal makes all new rows valid at once.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from crossview import atomic, tables
from crossview.errors import ManifestError

if TYPE_CHECKING:
    import pandas as pd

JOURNAL = ".append.json"


def sizes_before(folder: Path) -> dict[str, int]:
    """By file name, how many bytes of the files are valid; empty where all of all are.

    Raises:
        ManifestError: The journal is none of ours.
    """
    path = folder / JOURNAL
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sizes = {str(name): int(size) for name, size in content.items()}
        # a data set from elsewhere must not have files cut off that are not its own tables
        if not all(Path(name).name == name and name.endswith(".csv") for name in sizes):
            raise ValueError("it names files that are no tables")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ManifestError(f"{path} is no journal of an append ({error}). Delete it.") from error
    return sizes


def append(folder: Path, added: Mapping[str, pd.DataFrame]) -> None:
    """Add rows to CSV files of a folder; see writing for the lock that must be held.

    Args:
        folder: Where the files are.
        added: Rows by file name, with the columns that the file has.
    """
    paths = [folder / name for name in added]
    for path in paths:
        _require_plain(path)
    with atomic.replacing(folder / JOURNAL) as temporary:
        temporary.write_text(json.dumps({path.name: path.stat().st_size for path in paths}))
        _to_disk(temporary)
    for path, table in zip(paths, added.values(), strict=True):
        with path.open("rb") as file:
            header = next(csv.reader([file.readline().decode("utf-8-sig")]))
            file.seek(-1, os.SEEK_END)
            ends_line = file.read(1) == b"\n"
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write("" if ends_line else "\n")
            for text in tables.csv_blocks(table, header):
                file.write(text)
        _to_disk(path)
    (folder / JOURNAL).unlink()


@contextlib.contextmanager
def writing(folder: Path, lock: str) -> Iterator[None]:
    """The right to change the tables of a folder; what a killed writer left is cut off first.

    Args:
        folder: Where the files are.
        lock: A file in it that is always there and never replaced.

    Raises:
        ManifestError: Another process has it. Its end, also by a kill, frees it.
    """
    import fcntl  # not on Windows, and only needed here

    with (folder / lock).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ManifestError(
                f"Another process is changing {folder}. Try again when it has finished."
            ) from error
        for name, size_bytes in sizes_before(folder).items():
            _require_plain(folder / name)
            if size_bytes < (folder / name).stat().st_size:
                os.truncate(folder / name, size_bytes)
                _to_disk(folder / name)
        (folder / JOURNAL).unlink(missing_ok=True)
        yield


def _require_plain(path: Path) -> None:
    if path.is_symlink():
        raise ManifestError(
            f"{path} is a symbolic link, and rows are added to plain files only: where it points "
            "may be anybody's. Replace it by the file itself."
        )


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
