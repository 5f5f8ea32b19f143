"""Notebooks run from top to bottom, and are committed as prose and calls without outputs."""

import ast
import base64
import io
import itertools
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
QUICKSTART = REPOSITORY / "notebooks" / "quickstart.ipynb"
TIMEOUT_S = 120

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The quickstart after a run in a kernel of its own, elsewhere than in the repository."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    options = {"timeout": TIMEOUT_S, "resources": {"metadata": {"path": str(folder)}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, **options).execute()
    return notebook


def outputs_of(notebook, mime):
    return [
        output["data"][mime]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if mime in output.get("data", {})
    ]


def test_there_is_a_quickstart():
    assert QUICKSTART in NOTEBOOKS


@pytest.mark.slow
def test_the_quickstart_runs_and_draws_map_photo_view_and_heat_map(executed):
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        for picture in outputs_of(executed, "image/png")
    ]
    assert len(pictures) == 4
    assert all(picture.std() > 10 for picture in pictures)


@pytest.mark.slow
def test_the_quickstart_finds_the_photo_and_says_so(executed):
    said = "".join(
        output["text"]
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    )
    assert said.startswith("answer: ok\n")
    assert "Warning" not in said
    (feature,) = (text for text in outputs_of(executed, "text/plain") if "'pose'" in text)
    assert ast.literal_eval(feature)["properties"]["answer"] == "ok"


@each_notebook
def test_a_notebook_is_valid_and_has_no_outputs(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in cells_of(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None


@each_notebook
def test_a_notebook_says_a_sentence_before_every_call(path):
    notebook = nbformat.read(path, as_version=4)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert all(pair != ("code", "code") for pair in itertools.pairwise(kinds))


@each_notebook
def test_a_notebook_defines_no_functions(path):
    for cell in cells_of(path, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda), cell.source


@each_notebook
def test_a_notebook_names_no_place_on_one_machine(path):
    content = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    for place in ("/home/", "/Users/", "C:\\\\"):
        assert place not in content
