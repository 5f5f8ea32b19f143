"""Folders of CSV tables: columns with types and limits, problems that name file, row and column.

A table is UTF-8 text with one header row. An empty cell is "not known". Numbers are written with as
many digits as float64 needs to come back the same. Rows are counted as a spreadsheet does: the
header is row 1.
"""

from __future__ import annotations

import contextlib
import csv
import math
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossview.errors import ManifestError

if TYPE_CHECKING:
    import pandas as pd

FIRST_ROW = 2
"""The first row of values; row 1 is the header."""

_DIGITS = set("+-.0123456789eE")


def _anything(value: Any) -> bool:  # noqa: ARG001
    return True


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: In the header; with its unit.
        kind: Text, float64 (NaN where not known), or int64 (always known).
        required: Whether every row must have a value.
        valid: Whether a value is possible.
        expected: What a possible value is, for messages.
    """

    name: str
    kind: Literal["text", "number", "integer"] = "text"
    required: bool = False
    valid: Callable[[Any], bool] = _anything
    expected: str = ""


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file.

    Args:
        file: Its name.
        row: As a spreadsheet counts, or None for the file as a whole.
        column: Name of the column, or None for the row as a whole.
        message: What came and what was expected.
    """

    file: str
    row: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        place = self.file
        if self.row is not None:
            place += f" row {self.row}"
        if self.column is not None:
            place += f", column {self.column}"
        return f"{place}: {self.message}"


def read_rows(path: Path, columns: Sequence[Column]) -> tuple[list[dict[str, str]], list[Problem]]:
    """The cells of a CSV file as text, and what is wrong with its shape."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        return [], [Problem(path.name, None, None, "the file is missing.")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [Problem(path.name, None, None, f"not a CSV file in UTF-8 ({error}).")]
    wanted = [column.name for column in columns]
    header = lines[0] if lines else []
    if sorted(header) != sorted(wanted):
        return [], [Problem(path.name, 1, None, _header_message(header, wanted))]
    problems = []
    for row, cells in enumerate(lines[1:], FIRST_ROW):
        if len(cells) != len(header):
            message = f"{len(cells)} cells, and the header has {len(header)}."
            problems.append(Problem(path.name, row, None, message))
    rows = [dict(zip(header, cells, strict=False)) for cells in lines[1:]]
    return rows, problems


def parse(
    file: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Typed columns of rows, and which cells are impossible.

    Args:
        file: Name of the table's file, for the problems.
        rows: Cells by column name, as text or as values; a missing cell is "not known".
        columns: What the table holds.

    Returns:
        table: One pandas column each: str ("" where not known), float64 or int64. An impossible
            cell counts as not known.
        problems: All of them.
    """
    import pandas as pd

    rows = list(rows)
    problems: list[Problem] = []
    unknown = {name for row in rows for name in row} - {column.name for column in columns}
    problems.extend(
        Problem(file, 1, name, "the schema has no such column.") for name in sorted(unknown)
    )
    series = {}
    for column in columns:
        values = []
        for i, row in enumerate(rows):
            value, message = _value(_cell_text(row.get(column.name)), column)
            values.append(value)
            if message:
                problems.append(Problem(file, i + FIRST_ROW, column.name, message))
        dtype = {"text": "object", "number": "float64", "integer": "int64"}[column.kind]
        series[column.name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(series), problems


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table by column name, as Python values."""
    columns = [table[name].tolist() for name in table.columns]
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def duplicates(file: str, table: pd.DataFrame, column: str) -> list[Problem]:
    """Rows whose key another row has already."""
    first_row: dict[str, int] = {}
    problems = []
    for row, key in enumerate(table[column], FIRST_ROW):
        if key in first_row:
            message = f"{key!r} is in row {first_row[key]} already."
            problems.append(Problem(file, row, column, message))
        first_row.setdefault(key, row)
    return problems


def dangling(
    file: str, table: pd.DataFrame, column: str, keys: Iterable[str], target: str
) -> list[Problem]:
    """Rows that refer to a key that the target table does not have."""
    known = set(keys)
    return [
        Problem(file, row, column, f"there is no {key!r} in {target}.")
        for row, key in enumerate(table[column], FIRST_ROW)
        if key and key not in known
    ]


def write(path: Path, table: pd.DataFrame, columns: Sequence[Column]) -> None:
    """A table as CSV; parse(read_rows(...)) gives the same values back."""
    names = [column.name for column in columns]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(
            [_cell_text(cell) for cell in row]
            for row in zip(*(table[n] for n in names), strict=True)
        )


@contextlib.contextmanager
def atomic_folder(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes its name only when all went well.

    Args:
        target: Its name in the end.
        overwrite: Replace a folder of that name, if every file in it is written anew.

    Raises:
        ManifestError: Something of that name exists and must not be replaced.
    """
    target = Path(target).resolve()
    if target.exists() and not overwrite:
        raise ManifestError(
            f"{target} exists already. Choose another folder, or replace it with overwrite=True "
            "(--overwrite)."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        _replace(target, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(target: Path, partial: Path) -> None:
    """Put a finished folder in the place of an older one, which must hold nothing else."""
    if not target.exists():
        partial.rename(target)
        return
    if not target.is_dir():
        raise ManifestError(f"{target} is a file, and the manifest is a folder. Move it away.")
    new = {path.relative_to(partial) for path in partial.rglob("*")}
    other = sorted(
        str(path.relative_to(target))
        for path in target.rglob("*")
        if path.relative_to(target) not in new
    )
    if other:
        raise ManifestError(
            f"{target} holds files that the new manifest does not, such as {other[0]!r}; it is not "
            "replaced. Move them away, or choose another folder."
        )
    old = target.with_name(f"{partial.name}.old")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _header_message(header: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [name for name in wanted if name not in header]
    unknown = [name for name in header if name not in wanted]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    parts = [
        f"{what} {', '.join(map(repr, names))}"
        for what, names in (("missing", missing), ("unknown", unknown), ("repeated", repeated))
        if names
    ]
    return f"the header does not fit: {'; '.join(parts)}. Expected: {','.join(wanted)}."


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return ""
    return repr(value)


def _value(text: str, column: Column) -> tuple[Any, str]:
    """The value of a cell and what is wrong with it."""
    empty: Any = {"text": "", "number": math.nan, "integer": 0}[column.kind]
    if not text:
        missing = column.required or column.kind == "integer"
        return empty, "empty, and every row needs a value." if missing else ""
    value: Any = text
    if column.kind != "text":
        value = _number(text)
        if value is None or (column.kind == "integer" and value != int(value)):
            noun = "a whole number" if column.kind == "integer" else "a number"
            return empty, f"{text!r} is not {noun}."
        value = int(value) if column.kind == "integer" else value
    if not column.valid(value):
        return empty, f"{text!r} is not possible; expected {column.expected}."
    return value, ""


def _number(text: str) -> float | None:
    """A finite number in plain notation: float() alone would take 'nan', 'inf' and '1_0'."""
    if not set(text.strip()) <= _DIGITS:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
