"""Tiles over HTTP and in the store: politeness, speed, and what resuming costs.

The server runs on loopback in a process of its own and answers more than 50 requests within any
second by 429; every tile is a JPEG of 256 x 256 pixels and about 19 kB.
"""

import copy
import io
import itertools
import logging
import multiprocessing
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Results
from crossview.tiles import TileId
from data_tools import downloads, providers
from data_tools.fetch import Client
from data_tools.tile_store import TileImage, TileStore

logger = logging.getLogger(__name__)

LIMIT_PER_S = 50
TILE_PX = 256
NUM_CONNECTIONS = 8
SIDE = 400
"""Tiles in a row of the area that is stored."""


@dataclass(frozen=True)
class Case:
    """How many tiles each measurement takes."""

    download: int
    unlimited: int
    store: int
    resume: int


CASE = Case(download=1500, unlimited=3000, store=20_000, resume=100_000)
QUICK_CASE = Case(download=30, unlimited=60, store=300, resume=1_000)


def run(*, quick: bool) -> Results:
    """Measure everything."""
    case = QUICK_CASE if quick else CASE
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rate_per_s, limit_per_s in ((48, LIMIT_PER_S), (100, LIMIT_PER_S), (1e4, None)):
            number = case.unlimited if limit_per_s is None else case.download
            rows.append(_download(folder, rate_per_s, limit_per_s, number))
            logger.info("%s: %.1f/s", rows[-1]["what"], rows[-1]["per_s"])
        rows += _store(folder, case.store)
        rows += _resume(folder, case.resume)
    return Results(_table(rows), {"case": asdict(case), "rows": rows})


# ---------------------------------------------------------------- download


def _download(
    folder: Path, rate_per_s: float, limit_per_s: int | None, number: int
) -> dict[str, Any]:
    path = folder / f"download-{rate_per_s:g}.mbtiles"
    with _server(limit_per_s) as (url, asked):
        provider = providers.from_template(url)
        with (
            Client(rate_per_s, NUM_CONNECTIONS) as client,
            downloads.store_for(provider, path) as store,
        ):
            report = downloads.download(provider, list(_tiles(number)), store, client)
        num_requests, num_refused = asked()
    configured = (
        "no limit" if limit_per_s is None else f"limit {limit_per_s}/s, asked {rate_per_s:g}/s"
    )
    return {
        "what": f"download, {configured}",
        "tiles": report.stored,
        "seconds": report.seconds,
        "per_s": report.stored / report.seconds,
        "requests": num_requests,
        "refused_429": num_refused,
        "failed": len(report.failed),
    }


@contextmanager
def _server(limit_per_s: int | None) -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """The URL of a server in its own process, and how often it was asked and refused."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, limit_per_s), daemon=True)
    process.start()
    port = ours.recv()

    def asked() -> tuple[int, int]:
        ours.send("asked")
        number, refused = ours.recv()
        return number, refused

    try:
        yield f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.jpg", asked
    finally:
        ours.send("end")
        process.join()


def _serve(pipe: Connection, limit_per_s: int | None) -> None:
    bodies = [_picture(k) for k in range(16)]
    recent: deque[float] = deque()
    counts = {"asked": 0, "refused": 0}
    number = itertools.count(1)
    lock = threading.Lock()

    def is_refused() -> bool:
        with lock:
            now_s = time.monotonic()
            counts["asked"] += 1
            while recent and recent[0] <= now_s - 1:
                recent.popleft()
            if limit_per_s is not None and len(recent) >= limit_per_s:
                counts["refused"] += 1
                return True
            recent.append(now_s)
            return False

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            status, body = (429, b"") if is_refused() else (200, bodies[next(number) % 16])
            # bytes after the picture's end: no two tiles are the same
            body += self.path.encode() if status == 200 else b""
            self.send_response_only(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pipe.send(server.server_address[1])
        while pipe.recv() != "end":
            pipe.send((counts["asked"], counts["refused"]))
        server.shutdown()


# ---------------------------------------------------------------- store


def _store(folder: Path, number: int) -> list[dict[str, Any]]:
    """Checking, writing and reading."""
    path = folder / "store.mbtiles"
    some = [_picture(k) for k in range(64)]
    num_checked = min(number, 2000)
    check_s = _seconds(
        lambda: [
            TileImage(tile, some[k % 64], TILE_PX) for k, tile in enumerate(_tiles(num_checked))
        ]
    )
    checked = [TileImage(TileId(0, 0, 0), body, TILE_PX) for body in some]
    images = [
        _of(checked[k % 64], tile, some[k % 64] + k.to_bytes(8, "big"))
        for k, tile in enumerate(_tiles(number))
    ]
    with TileStore.writing(path) as store:
        write_s = _seconds(lambda: store.put_many(images))
        order = np.random.default_rng(0).permutation(number)
        wanted = [images[k].tile for k in order]
        read_s = _seconds(lambda: [store.get(tile) for tile in wanted])
    return [
        _row("decode and check, one thread", num_checked, check_s),
        _row("store: write, commits of 256", number, write_s),
        _row("store: read at random", number, read_s),
    ]


def _resume(folder: Path, number: int) -> list[dict[str, Any]]:
    """The difference of sets where half is stored, and where all is."""
    path = folder / "resume.mbtiles"
    grey = io.BytesIO()
    # one colour is no placeholder, however often it comes
    Image.new("RGB", (TILE_PX, TILE_PX), (90, 90, 90)).save(grey, "PNG")
    image = TileImage(TileId(0, 0, 0), grey.getvalue(), TILE_PX)
    tiles = list(_tiles(number))
    rows = []
    with TileStore.writing(path) as store:
        for name, some in (("half", tiles[::2]), ("all", tiles[1::2])):
            store.put_many(_of(image, tile, image.body) for tile in some)
            left = len(tiles) - len(store)
            seconds = _seconds(lambda left=left: _require(len(store.missing(tiles)) == left))  # type: ignore[misc]
            rows.append(_row(f"resume: what is missing, {name} of it stored", number, seconds))
    return rows


def _require(is_right: bool) -> None:
    if not is_right:
        raise ValueError("The store does not know what is missing.")


def _row(what: str, number: int, seconds: float) -> dict[str, Any]:
    return {"what": what, "tiles": number, "seconds": seconds, "per_s": number / seconds}


def _seconds(call: Callable[[], Any]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def _of(image: TileImage, tile: TileId, body: bytes) -> TileImage:
    """A checked image as that of another tile, without checking it again."""
    other = copy.copy(image)
    object.__setattr__(other, "tile", tile)
    object.__setattr__(other, "body", body)
    return other


def _tiles(number: int) -> Iterator[TileId]:
    for k in range(number):
        yield TileId(19, 268_000 + k % SIDE, 172_000 + k // SIDE)


def _picture(seed: int) -> bytes:
    """A JPEG of about 19 kB."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (TILE_PX // 4, TILE_PX // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=68)
    return buffer.getvalue()


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| what | tiles | seconds | tiles/s | answers 429 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        refused = str(row.get("refused_429", ""))
        lines.append(
            f"| {row['what']} | {row['tiles']:,} | {row['seconds']:.3g} | {row['per_s']:,.1f} | "
            f"{refused} |"
        )
    return "\n".join(lines)
