"""Fixtures for every test: places, grids, the real data where it is, and no network."""

import ipaddress
import logging
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from crossview.frames import LocalFrame
from crossview.grids import MapGrid, PoseGrid

REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile(
    "crossview",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("crossview")


def pytest_collection_modifyitems(items):
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.fixture(scope="session")
def data_dir():
    """The folder with real photos, maps and weights, which the repository does not contain."""
    path = Path(os.environ.get("CROSSVIEW_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data: {path} does not exist; set CROSSVIEW_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def frame():
    """Canberra: south of the equator and east of its UTM meridian, where signs show."""
    return LocalFrame(lat_deg=-35.2809, lon_deg=149.13)


@pytest.fixture(scope="session")
def map_grid(frame):
    """6 rows and 8 columns of 2 m, off the anchor and not square."""
    return MapGrid(frame, west_m=100.0, north_m=-40.0, cell_m=2.0, height=6, width=8)


@pytest.fixture(scope="session")
def pose_grid(map_grid):
    return PoseGrid(map_grid, num_headings=8)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Tests reach loopback and local sockets only; anything else is a bug of the test."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    patch.setattr(socket, "getaddrinfo", _guarded_lookup(socket.getaddrinfo))
    yield
    patch.undo()


def _guarded(method):
    def call(self, *arguments):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _require_loopback(arguments[-1][0])
        return method(self, *arguments)

    return call


def _guarded_lookup(function):
    def call(host, *arguments, **options):
        if host is not None:
            _require_loopback(host)
        return function(host, *arguments, **options)

    return call


def _require_loopback(host):
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host in ("localhost", ""):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"A test tried to reach {host}. Tests use loopback only.")


@pytest.fixture
def loggers_as_they_were():
    """Commands put handlers on loggers; the next test finds none of them."""
    loggers = [logging.getLogger(name) for name in ("", "crossview", "data_tools")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
