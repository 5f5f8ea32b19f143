"""Imports go down the layers only, and `import crossview` stays light: read from the source."""

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("crossview", "data_tools")

# Names below crossview, and data_tools in full; a package stands for all of its modules.
TABLE = """
5  cli plots map_style export demo answers pictures reports data_tools.cli
5  gallery_plots column_plots drive_plots calibration_plots drawing world_sheets
4  retrieval retrieval_training
4  localizer tracking training synthetic observations semantic_fit offsets
4  pose_queries pose_trials drive_evaluation pose_evaluation
4  column_tables column_trials column_calibration
4  data_tools.satellite data_tools.openstreetmap data_tools.panoramas data_tools.polar
4  data_tools.splits data_tools.importers data_tools.contact_sheets
4  data_tools.gpx_tracks data_tools.photo_services data_tools.ground_images
4  data_tools.downloads data_tools.areas data_tools.points data_tools.stac data_tools.tile_plans
4  data_tools.imagery data_tools.mosaics data_tools.crops data_tools.galleries
2  pairs
3  nn datasets data_tools.fetch data_tools.providers data_tools.capabilities
2  data_tools.tile_store
2  photos exif rasters osm legends tags features footprints vectors semantic manifest
2  geopackages data_tools.pmtiles
4  data_tools.vector_tiles data_tools.overture
2  segmenters columns column_model column_evidence column_kernels camera_noise
2  raycast ray_kernels models
2  birdseye_matcher ground_votes
2  manifest_schema manifest_summary tables parquet appends pickles console
2  describers gallery gallery_files gallery_build gallery_scale gallery_search faiss_search
1  cameras rectify birdseye polar voting correlation posterior evidence evaluation sampling
1  sightlines overlaps statements strips exact_search cell_owners polar_kernels preprocessing
1  retrieval_evaluation augmentation
0  errors angles frames grids tiles atomic memory
"""
LAYERS = {
    name: int(line.split()[0]) for line in TABLE.strip().splitlines() for name in line.split()[1:]
}
HEAVY = "keras tensorflow jax torch geopandas rasterio matplotlib osmium pandas shapely sklearn"
NETWORKS = ("keras", "tensorflow", "jax", "torch")
CLIENTS = (
    "requests",
    "urllib.request",
    "urllib3",
    "http.client",
    "ftplib",
    "socket",
    "httpx",
    "aiohttp",
    "websocket",
    "osmnx",
    "pystac_client",
)
CLIENTS_BESIDE_FETCH = {
    # osmnx asks for itself, and the resolver that it leaves behind is put back
    "data_tools.openstreetmap": ["osmnx", "socket"],
    "data_tools.stac": ["pystac_client"],
}


def module_name(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}


def layer(name):
    """The layer of a module by the longest name that it starts with, None where there is none."""
    if name in PACKAGES:
        return 0
    short = name.removeprefix("crossview.")
    while short and short not in LAYERS:
        short = short.rpartition(".")[0]
    return LAYERS.get(short)


def is_type_checking(node):
    test = node.test
    return getattr(test, "id", None) == "TYPE_CHECKING" or (
        getattr(test, "attr", None) == "TYPE_CHECKING"
    )


def import_nodes(node):
    """Every import in a tree, also inside functions, except under `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and is_type_checking(node):
        for child in node.orelse:
            yield from import_nodes(child)
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from import_nodes(child)


def imported_names(source, name, *, is_package=False):
    """Absolute names of what a module imports: `from a import b` is a.b and a."""
    names = set()
    for node in import_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            parents = name.split(".") if is_package else name.split(".")[:-1]
            parents = parents[: len(parents) - node.level + 1]
            base = ".".join([*parents, base] if base else parents)
        names.add(base)
        names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def imports_of(name):
    path = MODULES[name]
    source = path.read_text(encoding="utf-8")
    return imported_names(source, name, is_package=path.name == "__init__.py")


def project_imports_of(name):
    """Modules of ours that a module imports; a bare package only if nothing below it is meant."""
    found = imports_of(name) & set(MODULES)
    return {
        module
        for module in found
        if module not in PACKAGES or not any(other.startswith(module + ".") for other in found)
    } - {name}


def is_or_is_below(name, tops):
    return any(name == top or name.startswith(top + ".") for top in tops)


# ---------------------------------------------------------------- the reader itself


def test_the_reader_sees_imports_in_functions_and_not_those_for_types():
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import keras\nelse:\n    import rasterio.warp\n"
        "def f():\n    from crossview import angles, frames\n    from . import grids\n"
    )
    names = imported_names(source, "crossview.nn.bev")
    assert {"rasterio.warp", "crossview.angles", "crossview.frames", "crossview.nn.grids"} <= names
    assert "keras" not in names


def test_the_reader_finds_the_layers_of_modules_and_subpackages():
    assert layer("crossview.angles") == 0
    assert layer("crossview.nn.checkpoints.espnetv2") == 3
    assert layer("crossview.synthetic.town") == 4
    assert layer("data_tools.importers.itowns") == 4
    assert layer("data_tools.cli") == 5
    assert layer("crossview.helpers") is None
    assert layer("data_tools.helpers") is None


# ---------------------------------------------------------------- the source


def violations(rule, names=MODULES):
    """Modules that break a rule, each with what is wrong."""
    return {name: wrong for name in names if (wrong := rule(name))}


def names_below(*tops):
    return [name for name in MODULES if is_or_is_below(name, tops)]


def test_every_module_has_a_layer():
    """A new module gets one in LAYERS, and in docs/architecture.md."""
    assert [name for name in MODULES if layer(name) is None] == []


def test_imports_go_down_the_layers_only():
    def upward(name):
        return sorted(
            other
            for other in project_imports_of(name)
            if None not in (layer(name), layer(other)) and layer(other) > layer(name)
        )

    assert violations(upward) == {}


def test_modules_do_not_import_in_circles():
    # a package may offer what its own modules hold
    waiting = {
        name: {other for other in project_imports_of(name) if not name.startswith(other + ".")}
        for name in MODULES
    }
    while waiting:
        free = {name for name, others in waiting.items() if not others & set(waiting)}
        assert free, f"imports in circles among {sorted(waiting)}"
        waiting = {name: others for name, others in waiting.items() if name not in free}


def test_crossview_never_imports_data_tools():
    def from_data_tools(name):
        return [other for other in imports_of(name) if is_or_is_below(other, ["data_tools"])]

    assert violations(from_data_tools, names_below("crossview")) == {}


def test_data_tools_imports_places_values_and_files_only():
    def from_above(name):
        ours = [other for other in project_imports_of(name) if other.startswith("crossview")]
        return [other for other in ours if (layer(other) or 0) > 2]

    assert violations(from_above, names_below("data_tools")) == {}


def test_only_networks_import_a_network_framework():
    def frameworks(name):
        return [other for other in imports_of(name) if is_or_is_below(other, NETWORKS)]

    networks = names_below(
        "crossview.nn",
        "crossview.datasets",
        "crossview.training",
        "crossview.retrieval_training",
        "crossview.synthetic.on_the_fly",  # a dataset that is rendered
    )
    assert violations(frameworks, set(MODULES) - set(networks)) == {}


def test_networks_are_written_for_every_backend():
    def backends(name):
        return [other for other in imports_of(name) if is_or_is_below(other, NETWORKS[1:])]

    assert violations(backends, names_below("crossview.nn")) == {}


def test_client_sockets_are_opened_in_one_place():
    def clients(name):
        found = [other for other in imports_of(name) if is_or_is_below(other, CLIENTS)]
        allowed = CLIENTS_BESIDE_FETCH.get(name, [])
        return [other for other in found if not is_or_is_below(other, allowed)]

    assert violations(clients, set(MODULES) - {"data_tools.fetch"}) == {}
    for name, theirs in CLIENTS_BESIDE_FETCH.items():  # none is allowed that is not there
        assert all(imports_of(name) & {one} for one in theirs), name


def test_every_module_is_named_for_its_topic():
    nameless = {"utils", "util", "helpers", "common", "core", "misc"}
    assert [name for name in MODULES if nameless & set(name.split("."))] == []


# ---------------------------------------------------------------- what an import brings along

REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.__stderr__)"


def modules_after(code):
    """Names in sys.modules after running code in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stderr.splitlines()[-1])


def heavy_among(modules):
    return {name for name in modules if name in HEAVY.split()}


def test_import_crossview_brings_no_heavy_library():
    assert heavy_among(modules_after("import crossview")) == set()


def test_import_of_the_basic_values_brings_no_heavy_library():
    names = "angles, cameras, errors, evaluation, evidence, frames, grids, posterior, tiles"
    assert heavy_among(modules_after(f"from crossview import {names}")) == set()


@pytest.mark.parametrize("program", ["crossview", "data_tools"])
def test_help_of_the_command_line_brings_no_heavy_library(program):
    pytest.importorskip(f"{program}.cli")
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom {program}.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    )
    assert heavy_among(modules_after(code)) == set()


def test_places_values_files_and_the_localizer_work_without_a_network_framework():
    names = [
        name
        for name in MODULES
        if name.startswith("crossview")
        and ((layer(name) or 0) <= 2 or name == "crossview.localizer")
        and not is_or_is_below(name, ["crossview.nn"])
    ]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({NETWORKS!r}))\n"  # None makes an import fail
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
    )
    assert "crossview.localizer" in modules_after(code)


# ---------------------------------------------------------------- the tests themselves


def test_tests_cannot_reach_the_network():
    with pytest.raises(RuntimeError, match="loopback"), socket.socket() as client:
        client.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="loopback"):
        socket.create_connection(("example.org", 80))
    with pytest.raises(RuntimeError, match="loopback"):
        socket.getaddrinfo("example.org", 80)


def test_tests_can_reach_a_server_of_their_own():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            assert client.getpeername() == address
