"""Model folders: `model.json` beside whatever else a model needs, by name or by path."""

from __future__ import annotations

import json
import os
from pathlib import Path

from crossview import atomic
from crossview.column_model import KIND, ColumnModel
from crossview.errors import WeightsError

FILE_NAME = "model.json"

SHIPPED = Path(__file__).parent / "weights"
"""Where the models that come with the package are."""


def load_model(name_or_path: str | os.PathLike[str]) -> ColumnModel:
    """The column model in a folder, or one that comes with the package.

    Args:
        name_or_path: A folder with model.json, or the name of a shipped model (see model_names).

    Raises:
        WeightsError: There is none, or it is not a model that this version can use.
    """
    folder = Path(name_or_path)
    if not (folder / FILE_NAME).is_file():
        folder = SHIPPED / str(name_or_path)
    path = folder / FILE_NAME
    if not path.is_file():
        raise WeightsError(
            f"There is no model {str(name_or_path)!r}: expected a folder with {FILE_NAME}, as "
            f"`crossview fit semantic` writes, or one of {', '.join(model_names())}."
        )
    text = path.read_text(encoding="utf-8")
    try:
        kind = json.loads(text)["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is no description of a model ({error!r}).") from error
    if kind != KIND:
        raise WeightsError(f"{path} describes a model of kind {kind!r}; expected {KIND!r}.")
    try:
        return ColumnModel.from_json(text)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def save_model(model: ColumnModel, folder: str | os.PathLike[str]) -> Path:
    """Write a model as a folder; one that is there is replaced. Inverse of load_model."""
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        temporary.write_text(model.to_json(), encoding="utf-8")
    return path


def model_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE_NAME}"))
