"""Copies of CSV tables in Parquet, which load quicker; the CSV is always the truth.

A copy names the size and SHA-256 of the CSV that it was made of, and is used only where they still
fit: an edited CSV wins over a copy that nobody has renewed. Needs pyarrow, the extra `parquet`;
without it the CSV is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossview import atomic, tables
from crossview.errors import ManifestError
from crossview.tables import Column, Problem

if TYPE_CHECKING:
    import pandas as pd

MIN_ROWS = 10_000
"""Smaller tables load in a moment anyway."""

_DIGEST = b"crossview:csv"
_log = logging.getLogger(__name__)


def is_available() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def path_of(csv: Path) -> Path:
    """Where the copy of a table lies."""
    return csv.with_suffix(".parquet")


def write(csv: Path, table: pd.DataFrame, columns: Sequence[Column]) -> None:
    """A copy of a table beside the CSV that was written of it."""
    import pyarrow
    from pyarrow import parquet

    types = {"text": pyarrow.string(), "number": pyarrow.float64(), "integer": pyarrow.int64()}
    fields = [(column.name, types[column.kind]) for column in columns]
    schema = pyarrow.schema(fields, metadata={_DIGEST: _digest(csv)})
    with (
        atomic.replacing(path_of(csv)) as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for block, _ in tables.blocks(table):
            arrays = [pyarrow.array(block[name], kind) for name, kind in fields]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def read(csv: Path, columns: Sequence[Column]) -> tuple[pd.DataFrame, list[Problem]] | None:
    """The copy of a table, checked as the CSV would be; None where the CSV must be read."""
    if not path_of(csv).is_file() or not is_available():
        return None
    from pyarrow import ArrowException

    try:
        with _opened(csv, columns) as blocks:
            return tables.parse_blocks(csv.name, blocks, columns)
    except (ArrowException, OSError, ManifestError) as error:
        _log.warning("%s is not used: %s The CSV is read.", path_of(csv), error)
    return None


def disagreements(csv: Path, table: pd.DataFrame, columns: Sequence[Column]) -> list[Problem]:
    """Where the copy says something else than the table that the CSV holds."""
    if not path_of(csv).is_file() or not is_available():
        return []
    from pyarrow import ArrowException

    name = path_of(csv).name
    first, found = 0, []
    try:
        with _opened(csv, columns) as blocks:
            for cells, num_rows in blocks:
                copy, wrong = tables.parse_blocks(name, [(cells, num_rows)], columns)
                found += [replace(one, row=first + (one.row or 1)) for one in wrong]
                ours = table.iloc[first : first + num_rows].reset_index(drop=True)
                if len(ours) == num_rows:
                    found += _differences(name, first, copy, ours)
                first += num_rows
    except (ArrowException, OSError, ManifestError) as error:
        return [Problem(name, None, None, f"{error} Delete it, or save the manifest anew.")]
    if first != len(table):
        found += [Problem(name, None, None, f"{first} rows, and {csv.name} has {len(table)}.")]
    return found


def _differences(
    name: str, first: int, copy: pd.DataFrame, table: pd.DataFrame
) -> Iterator[Problem]:
    for column in table.columns:
        theirs, ours = copy[column], table[column]
        differs = (theirs != ours) & ~(theirs.isna() & ours.isna())
        for i in differs.to_numpy().nonzero()[0]:
            cells = theirs.tolist()[i], ours.tolist()[i]
            message = f"{cells[0]!r}, and the CSV says {cells[1]!r}. Delete this copy."
            yield Problem(name, first + int(i) + tables.FIRST_ROW, column, message)


@contextlib.contextmanager
def _opened(
    csv: Path, columns: Sequence[Column]
) -> Iterator[Iterator[tuple[Mapping[str, Any], int]]]:
    """Blocks of the copy, as tables.parse_blocks takes them.

    Raises:
        ManifestError: It is not a copy of the CSV as it is now.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path_of(csv), pre_buffer=False) as file:
        schema = file.schema_arrow
        if (schema.metadata or {}).get(_DIGEST) != _digest(csv):
            raise ManifestError(f"it was made of another {csv.name} than the present one.")
        if schema.names != [column.name for column in columns]:
            raise ManifestError("it has other columns than the schema.")
        # threads would read ahead, and memory is what a large table has little of
        batches = file.iter_batches(tables.BLOCK_ROWS, use_threads=False)
        yield (_block(batch) for batch in batches)


def _block(batch: Any) -> tuple[Mapping[str, Any], int]:
    import pyarrow

    cells = {
        # copied: a view would keep the batch in memory until the table is complete
        name: column.to_pylist()
        if pyarrow.types.is_string(column.type)
        else column.to_numpy(zero_copy_only=False).copy()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return cells, batch.num_rows


def _digest(csv: Path) -> bytes:
    with csv.open("rb") as file:
        return f"{csv.stat().st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()
