"""Real tile servers on loopback, each in a process of its own: TiTiler and MapProxy."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

TITILER = """
import sys
import uvicorn
from fastapi import FastAPI
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.core.factory import TilerFactory

app = FastAPI()
app.include_router(TilerFactory().router)
add_exception_handlers(app, DEFAULT_STATUS_CODES)
uvicorn.run(app, fd=int(sys.argv[1]), log_level="error")
"""

MAPPROXY = """
import socket, sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from mapproxy.wsgiapp import make_wsgi_app

class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass

server = Server(("127.0.0.1", 0), Quiet, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.server_name, server.server_port = server.socket.getsockname()
server.setup_environ()
server.set_app(make_wsgi_app(sys.argv[2], reloader=False))
server.serve_forever()
"""


@contextlib.contextmanager
def titiler():
    """Base URL of a TiTiler, which serves any file on this machine."""
    with _served(TITILER, probe="/openapi.json") as base:
        yield base


def titiler_template(base, path, *, suffix="png"):
    """XYZ template of a file."""
    return f"{base}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.{suffix}?url={path}"


@contextlib.contextmanager
def mapproxy(configuration):
    """Base URL of a MapProxy with a configuration file."""
    with _served(MAPPROXY, str(configuration), probe="/") as base:
        yield base


@contextlib.contextmanager
def _served(program, *arguments, probe):
    # the socket is made here, so that nobody else can take its port
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(number), *arguments],
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            _wait(base + probe, process)
            yield base
        finally:
            process.terminate()
            process.wait(10)
            process.stderr.close()


def _wait(url, process, *, seconds=60):
    """Until the server answers; its backlog keeps the connection meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended: {process.stderr.read().decode()}")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(url, timeout=2) as answer:
                answer.read()
            return
    raise RuntimeError(f"No answer from {url} within {seconds} s.")


MAPPROXY_CONFIGURATION = """
services:
  wmts: {{restful: true, kvp: true}}
  wms: {{srs: ['EPSG:3857'], md: {{title: made up}}}}
layers:
  - {{name: aerial, title: Aerial imagery, sources: [tiles]}}
caches:
  tiles: {{grids: [mercator], sources: [titiler], format: image/png, disable_storage: true}}
grids:
  mercator: {{base: GLOBAL_WEBMERCATOR}}
sources:
  titiler: {{type: tile, grid: mercator, url: "{url}"}}
globals:
  image: {{paletted: false, resampling_method: nearest}}
  cache: {{base_dir: {folder}, lock_dir: {folder}}}
"""


def write_mapproxy_configuration(path, template):
    """A MapProxy in front of another server's XYZ tiles, lossless; returns its path."""
    url = template.replace("{z}", "%(z)s").replace("{x}", "%(x)s").replace("{y}", "%(y)s")
    path.write_text(MAPPROXY_CONFIGURATION.format(url=url, folder=path.parent / "cache"))
    return path
