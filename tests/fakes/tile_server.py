"""A tile server on loopback that fails on purpose, and a log of what it was asked for."""

import contextlib
import functools
import io
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

TRANSPORT_FAULTS = (
    "429 with seconds",
    "429 with a date",
    "429 bare",
    "500",
    "502",
    "503",
    "503 with seconds",
    "reset",
    "reset midway",
    "stall",
    "stall midway",
    "truncated",
    "truncated chunks",
    "drip",
)
"""What any client sees."""

FAULTS = (*TRANSPORT_FAULTS, "wrong type", "html", "wrong size", "half an image", "empty")
"""And what only somebody who looks at the picture sees."""


@functools.lru_cache(maxsize=4096)
def tile_bytes(zoom, x, y, *, tile_px=32, image_format="PNG"):
    """A picture that no other tile has."""
    rng = np.random.default_rng([zoom, x, y])
    values = rng.integers(0, 256, (tile_px, tile_px, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, image_format)
    return buffer.getvalue()


@dataclass(frozen=True)
class Request:
    """One line of the server's log."""

    time_s: float
    tile: tuple
    outcome: str
    headers: dict = field(repr=False, default_factory=dict)


class TileServer:
    """Serves {z}/{x}/{y} over HTTP on loopback.

    Args:
        faults: (zoom, x, y) -> names of FAULTS, one for each of its first requests.
        absent: Tiles that are 404.
        limit_per_s: More requests than this within any second are answered by 429.
        answer: (zoom, x, y) -> bytes, instead of tile_bytes.
    """

    def __init__(
        self, *, faults=None, absent=(), limit_per_s=None, answer=None, tile_px=32, delay_s=0.0
    ):
        self.faults = defaultdict(deque)
        for tile, names in (faults or {}).items():
            self.faults[tuple(tile)].extend(names)
        self.absent = set(map(tuple, absent))
        self.limit_per_s = limit_per_s
        self.answer = answer or functools.partial(tile_bytes, tile_px=tile_px)
        self.delay_s = delay_s
        self.log = []
        self.is_over = threading.Event()
        self._recent = deque()
        self._lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"tiles": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.is_over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self):
        return self.root + "/{z}/{x}/{y}"

    def requests(self, tile):
        """Outcomes of one tile's requests, in order."""
        return [entry.outcome for entry in self.log if entry.tile == tuple(tile)]

    def most_within(self, window_s):
        """Largest number of requests within any window."""
        times = np.sort([entry.time_s for entry in self.log])
        ends = np.searchsorted(times, times + window_s, side="right")
        return int(np.max(ends - np.arange(len(times)), initial=0))

    def next_outcome(self, tile, headers):
        """What happens to a request; it is logged before anything is sent."""
        with self._lock:
            now_s = time.monotonic()
            waiting = self.faults[tile]
            if self.limit_per_s is not None and self._is_above_limit(now_s):
                outcome = "429 over the limit"
            elif waiting:
                outcome = waiting.popleft()
            else:
                outcome = "404" if tile in self.absent else "200"
            self.log.append(Request(now_s, tile, outcome, headers))
            return outcome

    def _is_above_limit(self, now_s):
        while self._recent and self._recent[0] <= now_s - 1:
            self._recent.popleft()
        if len(self._recent) >= self.limit_per_s:
            return True
        self._recent.append(now_s)
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Clients that go away are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Silence."""

    def do_GET(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        tile = tuple(int(part.partition(".")[0]) for part in parts[-3:])
        outcome = self.tiles.next_outcome(tile, dict(self.headers))
        if self.tiles.delay_s:
            time.sleep(self.tiles.delay_s)
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            self._answer(outcome, tile)

    def _answer(self, outcome, tile):  # noqa: PLR0912
        body = self.tiles.answer(*tile) if outcome not in ("404",) else b""
        etag = f'"{hash(body) & 0xFFFFFFFF:x}"'
        match outcome:
            case "200":
                if self.headers.get("If-None-Match") == etag:
                    self._send(304, b"")
                    return
                self._send(200, body, ETag=etag, type="image/png")
            case "404":
                self._send(404, b"no such tile", type="text/plain")
            case "429 with seconds" | "429 over the limit":
                self._send(429, b"slow down", **{"Retry-After": "0" if "with" in outcome else "1"})
            case "429 with a date":
                now_s = time.time()
                dates = {"Date": formatdate(now_s, usegmt=True)}
                self._send(429, b"", **dates, **{"Retry-After": formatdate(now_s, usegmt=True)})
            case "429 for a while":
                self._send(429, b"", **{"Retry-After": "600"})
            case "401" | "403":
                self._send(int(outcome), b"no", type="text/plain")
            case "429 bare":
                self._send(429, b"slow down")
            case "503 with seconds":
                self._send(503, b"", **{"Retry-After": "0"})
            case "500" | "502" | "503":
                self._send(int(outcome), b"<html>broken</html>", type="text/html")
            case "reset":
                self._reset()
            case "reset midway":
                self._begin(200, len(body))
                self.wfile.write(body[: len(body) // 2])
                self._reset()
            case "stall":
                self._stall()
            case "stall midway":
                self._begin(200, len(body))
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self._stall()
            case "truncated":
                self._begin(200, len(body))
                self.wfile.write(body[: len(body) // 2])
                self._close()
            case "truncated chunks":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                half = body[: len(body) // 2]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
                self._close()
            case "wrong type":
                self._send(200, b'{"error": "quota"}', type="application/json")
            case "html":
                self._send(200, b"<html><body>Please log in</body></html>", type="text/html")
            case "wrong size":
                self._send(200, tile_bytes(*tile, tile_px=24), type="image/png")
            case "half an image":
                self._send(200, body[: len(body) // 2], type="image/png")
            case "empty":
                self._send(200, b"", type="image/png")
            case "drip":
                self._begin(200, len(body))
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if self.tiles.is_over.wait(0.02):
                        break
                self._close()
            case _:
                raise ValueError(outcome)

    def _begin(self, status, length, *, type="image/png", **headers):
        self.send_response_only(status)
        if "Date" not in headers:
            headers["Date"] = formatdate(usegmt=True)
        for name, value in {"Content-Type": type, "Content-Length": length, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _send(self, status, body, *, type="text/plain", **headers):
        self._begin(status, len(body), type=type, **headers)
        self.wfile.write(body)

    def _close(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _reset(self):
        self.close_connection = True
        self.wfile.flush()
        # lingering for no time at all sends RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _stall(self):
        self.tiles.is_over.wait(20)
        self._close()
