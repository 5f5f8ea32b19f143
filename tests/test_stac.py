"""STAC catalogues: a recorded answer, served on loopback."""

import contextlib
import json
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from crossview.errors import ContentError, MissingExtraError, ProviderDownError
from data_tools import stac
from data_tools.areas import Area
from data_tools.cli import main

BOX = (-122.34, 47.60, -122.32, 47.62)


def item(name, date, **assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "naip",
        "bbox": [-122.38, 47.55, -122.30, 47.63],
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [[-122.38, 47.55], [-122.30, 47.55], [-122.30, 47.63], [-122.38, 47.63],
                 [-122.38, 47.55]]
            ],
        },
        "properties": {"datetime": date, "gsd": 0.6},
        "links": [],
        "assets": assets,
    }  # fmt: skip


IMAGE = {
    "href": "./wa_2021.tif",
    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
    "roles": ["data"],
}
THUMBNAIL = {"href": "./small.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
ITEMS = [
    item("old", "2019-08-01T16:00:00Z", image={**IMAGE, "href": "https://example.org/2019.tif"}),
    item(
        "new",
        "2021-09-24T16:00:00Z",
        thumbnail=THUMBNAIL,
        image={**IMAGE, "href": "https://example.org/2021.tif"},
    ),
    item("text only", "2022-01-01T00:00:00Z", notes={"href": "a.txt", "type": "text/plain"}),
]
COLLECTION = {
    "type": "Collection",
    "stac_version": "1.0.0",
    "id": "naip",
    "description": "Aerial photos",
    "license": "PDDL-1.0",
    "providers": [{"name": "USDA Farm Service Agency", "roles": ["producer"]}],
    "extent": {
        "spatial": {"bbox": [[-124.8, 24.7, -66.9, 49.1]]},
        "temporal": {"interval": [["2010-01-01T00:00:00Z", None]]},
    },
    "links": [],
}


@contextlib.contextmanager
def catalogue(items=ITEMS, *, landing=None):
    """Base URL of a catalogue, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            base = f"http://127.0.0.1:{self.server.server_port}"
            links = [
                {"rel": "self", "href": base},
                {"rel": "root", "href": base},
                {"rel": "data", "href": f"{base}/collections"},
                {"rel": "search", "href": f"{base}/search", "method": "POST",
                 "type": "application/geo+json"},
            ]  # fmt: skip
            about = {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "made-up",
                "description": "A catalogue of a test",
                "conformsTo": [
                    "https://api.stacspec.org/v1.0.0/core",
                    "https://api.stacspec.org/v1.0.0/item-search",
                    "https://api.stacspec.org/v1.0.0/collections",
                ],
                "links": links,
            }
            answer = COLLECTION if self.path.startswith("/collections/naip") else about
            self._send(landing if landing is not None else json.dumps(answer))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(json.loads(body))
            self._send(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))

        def _send(self, text):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_images_of_an_area_come_newest_first_with_date_and_terms():
    with catalogue() as (url, asked):
        newest, older = stac.search(url, Area.of_box(*BOX), collections=["naip"], dates="2019/2022")
    assert (newest.item_id, newest.href) == ("new", "https://example.org/2021.tif")
    assert newest.date == "2021-09-24T16:00:00Z"
    assert newest.bounds == (-122.38, 47.55, -122.30, 47.63)
    assert (newest.cell_m, newest.licence) == (0.6, "PDDL-1.0")
    assert newest.attribution == "USDA Farm Service Agency"
    assert older.item_id == "old"
    (question,) = asked
    assert question["collections"] == ["naip"]
    assert question["datetime"].startswith("2019-01-01")
    assert question["intersects"]["type"] == "Polygon"


def test_an_area_over_the_antimeridian_is_asked_for_in_two_parts():
    with catalogue() as (url, asked):
        images = stac.search(url, Area.of_box(179.9, -17, -179.9, -16.9), collections=["naip"])
    assert len(asked) == 2
    assert len(images) == 2  # not four


def test_an_asset_that_is_not_there_is_said():
    with catalogue() as (url, _), pytest.raises(ContentError, match="no asset 'red'; it has image"):
        stac.search(url, Area.of_box(*BOX), collections=["naip"], asset="red")


def test_a_page_that_is_no_catalogue_is_said():
    with (
        catalogue(landing="<html>") as (url, _),
        pytest.raises((ContentError, ProviderDownError), match="STAC"),
    ):
        stac.search(url, Area.of_box(*BOX), collections=["naip"])


def test_a_catalogue_that_is_down_is_said():
    with catalogue() as (url, _):
        pass
    login_url = url.replace("//", "//bob:s3cret@")
    with pytest.raises(ProviderDownError, match="does not answer") as raised:
        stac.search(login_url, Area.of_box(*BOX), collections=["naip"])
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_the_command_lists_images_as_json_lines_and_needs_no_folder():
    with catalogue() as (url, _):
        result = CliRunner().invoke(
            main,
            ["satellite", "--box", *map(str, BOX), "--stac", url, "--collection", "naip"],
        )
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["item_id"] for line in result.stdout.splitlines()] == ["new", "old"]


def test_without_the_extra_the_way_to_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(MissingExtraError, match=r"crossview\[stac\]"):
        stac.search("http://127.0.0.1:9", Area.of_box(*BOX), collections=["naip"])
