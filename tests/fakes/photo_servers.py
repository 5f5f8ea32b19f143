"""Mapillary and Panoramax on loopback: answers written by hand from the documented fields."""

import contextlib
import io
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from fakes import images

TOKEN = "MLY|4242|0123456789abcdef"


def jpeg(width_px=64, height_px=48):
    buffer = io.BytesIO()
    Image.fromarray(images.plain_image(width_px, height_px)).save(buffer, "JPEG")
    return buffer.getvalue()


def mapillary_entry(number, lon_deg, lat_deg, **fields):
    """An image that looks north, level, as the Graph API says it."""
    return {
        "id": str(number),
        "geometry": {"type": "Point", "coordinates": [lon_deg + 0.0001, lat_deg]},
        "computed_geometry": {"type": "Point", "coordinates": [lon_deg, lat_deg]},
        "compass_angle": 350.5,
        "computed_compass_angle": 0.25,
        "computed_rotation": [1.5707963267948966, 0.0, 0.0],
        "camera_type": "perspective",
        "camera_parameters": [0.85, -0.05, 0.02],
        "captured_at": 1_402_921_894_841,
        "creator": {"username": "somebody", "id": "7"},
        "exif_orientation": 1,
        "sequence": "seq-a",
        "width": 4000,
        "height": 3000,
        **fields,
    }


def panoramax_item(number, lon_deg, lat_deg, *, field_of_view=360, **properties):
    """A picture as a STAC item."""
    return {
        "type": "Feature",
        "id": number,
        "collection": "c0ffee",
        "geometry": {"type": "Point", "coordinates": [lon_deg, lat_deg]},
        "providers": [
            {"name": "IGN", "roles": ["producer"]},
            {"name": "Server", "roles": ["host"]},
        ],
        "properties": {
            "datetime": "2022-10-19T07:56:34+02:00",
            "license": "etalab-2.0",
            "view:azimuth": 82,
            "pers:interior_orientation": {"camera_model": "Max", "field_of_view": field_of_view},
            "quality:horizontal_accuracy": 4.0,
            **properties,
        },
        "assets": {},
        "links": [],
    }


class PhotoServer:
    """Answers as the two services do.

    Attributes:
        mapillary: Entries by id.
        panoramax: Items by id.
        files: JPEG by id.
        generation: Addresses of images that were given out before it changed have expired.
        gone: Ids whose file is 404.
        requests: (path, headers) of everything that was asked for.
        page: Items on one page of Panoramax.
    """

    def __init__(self, *, page=2):
        self.mapillary, self.panoramax, self.files = {}, {}, {}
        self.generation, self.gone, self.requests, self.page = 1, set(), [], page
        self.expire_after_search = False

    def add_mapillary(self, *arguments, file=None, **fields):
        entry = mapillary_entry(*arguments, **fields)
        self.mapillary[entry["id"]] = entry
        self.files[entry["id"]] = file or jpeg()

    def add_panoramax(self, *arguments, file=None, **fields):
        item = panoramax_item(*arguments, **fields)
        self.panoramax[item["id"]] = item
        self.files[item["id"]] = file or jpeg(64, 32)

    def asked(self, start):
        return [path for path, _ in self.requests if path.startswith(start)]

    def address(self, number):
        return f"{self.url}/file/{number}?sig={self.generation}"

    def answer(self, path, headers):
        """Status, content type and body."""
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        names = [urllib.parse.unquote(name) for name in parts.path.strip("/").split("/")]
        if names[0] == "file":
            if names[1] in self.gone:
                return 404, "text/plain", b"gone"
            if query["sig"] != str(self.generation):
                return 403, "text/plain", b"URL signature expired"
            return 200, "image/jpeg", self.files[names[1]]
        if names[0] == "graph":
            if headers.get("Authorization") != f"OAuth {TOKEN}":
                return 401, "application/json", b'{"error": {"message": "bad token"}}'
            return 200, "application/json", json.dumps(self._graph(names, query)).encode()
        return 200, "application/geo+json", json.dumps(self._stac(names, query)).encode()

    def _graph(self, names, query):
        if names[1] != "images":
            return self._entry(self.mapillary[names[1]], query["fields"].split(","))
        west, south, east, north = map(float, query["bbox"].split(","))
        if (east - west) * (north - south) >= 0.01:
            return {"error": {"message": "bbox area must be smaller than 0.01 degrees squared"}}
        fields = query["fields"].split(",")
        found = []
        for entry in self.mapillary.values():
            lon_deg, lat_deg = entry["geometry"]["coordinates"]
            if west <= lon_deg <= east and south <= lat_deg <= north:
                found.append(self._entry(entry, fields))
        answer = {"data": found[: int(query["limit"])]}
        self.generation += self.expire_after_search
        return answer

    def _entry(self, entry, fields):
        address = self.address(entry["id"])
        whole = {**entry, "thumb_2048_url": address, "thumb_original_url": address + "&o=1"}
        return {name: whole[name] for name in fields if name in whole}

    def _stac(self, names, query):
        if names[-2:-1] == ["items"]:
            return self._item(self.panoramax[names[-1]])
        west, south, east, north = map(float, query["bbox"].split(","))
        found = []
        for item in self.panoramax.values():
            lon_deg, lat_deg = item["geometry"]["coordinates"]
            if west <= lon_deg <= east and south <= lat_deg <= north:
                found.append(self._item(item))
        first = int(query.get("offset", 0))
        links = []
        if first + self.page < len(found):
            more = urllib.parse.urlencode({**query, "offset": first + self.page})
            links = [{"rel": "next", "href": f"{self.url}/stac/search?{more}"}]
        page = found[first : first + self.page]
        return {"type": "FeatureCollection", "features": page, "links": links}

    def _item(self, item):
        address = {"href": self.address(item["id"]), "type": "image/jpeg"}
        return {**item, "assets": {"hd": address, "sd": address}}


@contextlib.contextmanager
def serving(server):
    """The server at server.url."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.requests.append((self.path, dict(self.headers)))
            status, kind, body = server.answer(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
