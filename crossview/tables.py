"""Folders of CSV tables: columns with types and limits, problems that name file, row and column.

A table is UTF-8 text with one header row. An empty cell is "not known". Numbers are written with as
many digits as float64 needs to come back the same. Rows are counted as a spreadsheet does: the
header is row 1.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import math
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossview.errors import ManifestError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FIRST_ROW = 2
"""The first row of values; row 1 is the header."""

BLOCK_ROWS = 1 << 14
"""Rows whose text is in memory at once: about 30 MB of views."""

_MAX_SHARED = 1 << 12
"""Distinct texts of a column that are kept for the next block."""

_DIGITS = set("+-.0123456789eE")
_DTYPES = {"text": "object", "number": "float64", "integer": "int64"}


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


def read(
    path: Path,
    columns: Sequence[Column],
    *,
    optional: Collection[str] = (),
    size_bytes: int | None = None,
) -> tuple[pd.DataFrame, list[Problem]]:
    """A CSV file as typed columns (see parse), read in blocks: the text is never all in memory.

    Args:
        path: The file.
        columns: What the table holds.
        optional: Columns that the file may not have yet; they are "not known" then.
        size_bytes: Read only this much of the file (see appends); None reads all.
    """
    wanted = [column.name for column in columns]
    builder = _Builder(path.name, columns)
    problems: list[Problem] = []
    try:
        with contextlib.closing(_text_lines(path, size_bytes)) as text:
            lines = csv.reader(text, strict=True)
            header = next(lines, [])
            if sorted(header) != sorted(n for n in wanted if n in header or n not in optional):
                message = _header_message(header, wanted)
                return parse(path.name, (), columns)[0], [Problem(path.name, 1, None, message)]
            while block := list(itertools.islice(lines, BLOCK_ROWS)):
                for row, cells in enumerate(block, builder.num_rows + FIRST_ROW):
                    if len(cells) != len(header):
                        message = f"{len(cells)} cells, and the header has {len(header)}."
                        problems.append(Problem(path.name, row, None, message))
                if not problems:
                    builder.add(
                        dict(zip(header, zip(*block, strict=True), strict=True)), len(block)
                    )
                else:
                    # the cells of a broken row are anybody's; only the shape is reported
                    builder.num_rows += len(block)
    except FileNotFoundError:
        problems = [Problem(path.name, None, None, "the file is missing.")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems = [Problem(path.name, None, None, f"not a CSV file in UTF-8 ({error}).")]
    if problems:
        return parse(path.name, (), columns)[0], problems
    return builder.table(), builder.problems


def parse(
    file: str, rows: Iterable[Mapping[str, Any]] | pd.DataFrame, columns: Sequence[Column]
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

    if isinstance(rows, pd.DataFrame):
        if _is_parsed(rows, columns):
            return rows.reset_index(drop=True), []
        return parse_blocks(file, blocks(rows), columns)
    return parse_blocks(file, _blocks_of(rows), columns)


def parse_blocks(
    file: str, given: Iterable[tuple[Mapping[str, Any], int]], columns: Sequence[Column]
) -> tuple[pd.DataFrame, list[Problem]]:
    """As parse, from blocks of rows: cells by column name, and how many rows (see blocks)."""
    builder = _Builder(file, columns)
    for cells, num_rows in given:
        builder.add(cells, num_rows)
    return builder.table(), builder.problems


def blocks(table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], int]]:
    """A table in blocks of rows: arrays by column name, and how many rows."""
    arrays = {str(name): table[name].to_numpy() for name in table.columns}
    for first in range(0, len(table), BLOCK_ROWS):
        block = {name: array[first : first + BLOCK_ROWS] for name, array in arrays.items()}
        yield block, min(BLOCK_ROWS, len(table) - first)


def rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of a table by column name, as Python values, one after the other."""
    for block, _ in blocks(table):
        columns = [array.tolist() for array in block.values()]
        for row in zip(*columns, strict=True):
            yield dict(zip(block, row, strict=True))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """All rows at once, for tables that are small."""
    return list(rows(table))


def duplicates(file: str, table: pd.DataFrame, column: str) -> list[Problem]:
    """Rows whose key another row has already."""
    keys = table[column]
    repeated = keys[keys.duplicated(keep=False)]
    first_row: dict[str, int] = {}
    problems = []
    for index, key in repeated.items():
        row = int(index) + FIRST_ROW  # type: ignore[call-overload]
        if key in first_row:
            message = f"{key!r} is in row {first_row[key]} already."
            problems.append(Problem(file, row, column, message))
        first_row.setdefault(key, row)
    return problems


def dangling(
    file: str, table: pd.DataFrame, column: str, keys: Collection[str] | pd.Series, target: str
) -> list[Problem]:
    """Rows that refer to a key that the target table does not have."""
    cells = table[column]
    unknown = cells[~cells.isin(keys) & (cells != "")]
    return [
        Problem(file, int(index) + FIRST_ROW, column, f"there is no {key!r} in {target}.")  # type: ignore[call-overload]
        for index, key in unknown.items()
    ]


def write(path: Path, table: pd.DataFrame, columns: Sequence[Column]) -> None:
    """A table as CSV; read gives the same values back."""
    names = [column.name for column in columns]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        for text in csv_blocks(table, names):
            file.write(text)


def csv_blocks(table: pd.DataFrame, names: Sequence[str]) -> Iterator[str]:
    """Rows of a table as lines of CSV, some at once, with columns in the order of names."""
    for block, _ in blocks(table):
        text = io.StringIO()
        columns = [map(_cell_text, block[name].tolist()) for name in names]
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        yield text.getvalue()


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
        if path.relative_to(target) not in new and not _is_derived(path, target, new)
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


class _Builder:
    """Typed columns out of blocks of cells."""

    def __init__(self, file: str, columns: Sequence[Column]) -> None:
        self.problems: list[Problem] = []
        self.num_rows = 0
        self._file = file
        self._columns = columns
        self._parts: dict[str, list[np.ndarray]] = {column.name: [] for column in columns}
        self._shared: dict[str, dict[str, str]] = {column.name: {} for column in columns}
        self._unknown: set[str] = set()

    def add(self, cells: Mapping[str, Any], num_rows: int) -> None:
        """Append rows, column by column; a column that is not given is not known."""
        for name in sorted(set(cells) - set(self._parts) - self._unknown):
            self._unknown.add(name)
            self.problems.append(Problem(self._file, 1, name, "the schema has no such column."))
        for column in self._columns:
            given = cells.get(column.name)
            self._parts[column.name].append(
                self._values(column, [""] * num_rows if given is None else given)
            )
        self.num_rows += num_rows

    def table(self) -> pd.DataFrame:
        """All that was added."""
        import numpy as np
        import pandas as pd

        series = {}
        for column in self._columns:
            dtype = _DTYPES[column.kind]
            # popped, so that a column is not in memory twice for longer than it takes
            parts = [np.empty(0, dtype), *self._parts.pop(column.name)]
            series[column.name] = pd.Series(np.concatenate(parts), dtype=dtype, copy=False)
        return pd.DataFrame(series, copy=False)

    def _values(self, column: Column, cells: Any) -> np.ndarray:
        import numpy as np

        if isinstance(cells, np.ndarray) and cells.dtype == _DTYPES[column.kind] != "object":
            values: np.ndarray | None = cells
        else:
            cells = [cell if type(cell) is str else _cell_text(cell) for cell in cells]
            values = _quickly(column, cells)
        if values is not None and _all_valid(column, values):
            if column.kind != "text":
                return values
            return np.array(self._share(column, values.tolist()), dtype=object)
        return self._values_one_by_one(column, cells)

    def _share(self, column: Column, texts: list[str]) -> list[str]:
        """The same texts, equal ones as one object: regions everywhere, stations in a block."""
        shared = self._shared[column.name]
        if len(shared) > _MAX_SHARED:
            shared.clear()
        return [shared.setdefault(text, text) for text in texts]

    def _values_one_by_one(self, column: Column, cells: Iterable[Any]) -> np.ndarray:
        import numpy as np

        values = []
        for row, cell in enumerate(cells, self.num_rows + FIRST_ROW):
            value, message = _value(_cell_text(cell), column)
            values.append(value)
            if message:
                self.problems.append(Problem(self._file, row, column.name, message))
        return np.array(values, dtype=_DTYPES[column.kind])


def _quickly(column: Column, texts: list[str]) -> np.ndarray | None:
    """Values of plain cells; None where one of them needs a closer look."""
    import numpy as np

    if column.kind == "text":
        return np.array(texts, dtype=object)
    if not set("".join(texts)) <= _DIGITS:
        return None
    try:
        if column.kind == "integer":
            return np.array([int(text) for text in texts], dtype=np.int64)
        return np.array([float(text) if text else math.nan for text in texts])
    except (ValueError, OverflowError):
        return None


def _all_valid(column: Column, values: np.ndarray) -> bool:
    import numpy as np

    if column.kind == "text":
        distinct = set(values.tolist())
        known = distinct - {""}
        complete = len(known) == len(distinct)
    else:
        is_known = ~np.isnan(values)
        known = set(values[is_known].tolist())
        complete = bool(is_known.all())
        if not np.isfinite(values[is_known]).all():
            return False
    if column.required and not complete:
        return False
    return column.valid is _anything or all(map(column.valid, known))


def _is_parsed(table: pd.DataFrame, columns: Sequence[Column]) -> bool:
    """Whether parse would give back just this table, which it then need not copy."""
    if list(table.columns) != [column.name for column in columns]:
        return False
    if any(table[column.name].dtype != _DTYPES[column.kind] for column in columns):
        return False
    return all(
        (column.kind != "text" or all(type(cell) is str for cell in block[column.name]))
        and _all_valid(column, block[column.name])
        for block, _ in blocks(table)
        for column in columns
    )


def _blocks_of(
    rows: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], int]]:
    remaining = iter(rows)
    while block := list(itertools.islice(remaining, BLOCK_ROWS)):
        names = dict.fromkeys(name for row in block for name in row)
        yield {name: [row.get(name) for row in block] for name in names}, len(block)


def _text_lines(path: Path, size_bytes: int | None) -> Generator[str, None, None]:
    """Lines as csv wants them, with their ends as they are, up to a place in the file."""
    encoding = "utf-8-sig"
    if size_bytes is None:
        with path.open(encoding=encoding, newline="") as text:
            yield from text
        return
    with path.open("rb") as file:
        for line in file:
            if size_bytes <= 0:
                return
            yield line[:size_bytes].decode(encoding)
            size_bytes -= len(line)
            encoding = "utf-8"


def _is_derived(path: Path, folder: Path, new: Collection[Path]) -> bool:
    """Whether a file says nothing that the tables beside it do not (see parquet, appends)."""
    is_copy = path.suffix == ".parquet" and path.relative_to(folder).with_suffix(".csv") in new
    return is_copy or (path.parent == folder and path.name.startswith(".append."))


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
