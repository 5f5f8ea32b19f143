"""A stand-in for an Overpass server: it answers every query from one OpenStreetMap file."""

import contextlib
import json
import re
import threading
import time
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

DATE = "2026-11-20T10:00:00Z"


def elements(path):
    """The elements of an OSM XML file as Overpass writes them in JSON."""
    found = []
    for node in ET.parse(path).getroot():
        if node.tag not in ("node", "way", "relation"):
            continue
        element = {"type": node.tag, "id": int(node.get("id"))}
        if node.tag == "node":
            element |= {"lat": float(node.get("lat")), "lon": float(node.get("lon"))}
        if node.tag == "way":
            element["nodes"] = [int(nd.get("ref")) for nd in node.findall("nd")]
        if node.tag == "relation":
            element["members"] = [
                {"type": m.get("type"), "ref": int(m.get("ref")), "role": m.get("role")}
                for m in node.findall("member")
            ]
        tags = {tag.get("k"): tag.get("v") for tag in node.findall("tag")}
        found.append(element | ({"tags": tags} if tags else {}))
    return found


def answer(all_elements, query):
    """What the query selects by key, and everything below it, `(._;>;)`."""
    by_place = {(e["type"], e["id"]): e for e in all_elements}
    wanted = {(kind, key) for kind, key in re.findall(r"\((node|way|relation)\['([^']+)'\]", query)}
    waiting = [e for e in all_elements if any((e["type"], k) in wanted for k in e.get("tags", {}))]
    selected = {}
    while waiting:
        element = waiting.pop()
        place = element["type"], element["id"]
        if place not in selected:
            selected[place] = element
            below = [("node", ref) for ref in element.get("nodes", ())]
            below += [(m["type"], m["ref"]) for m in element.get("members", ())]
            waiting += [by_place[place] for place in below if place in by_place]
    return {
        "version": 0.6,
        "generator": "Overpass API 0.7.62 (stand-in)",
        "osm3s": {"timestamp_osm_base": DATE, "copyright": "ODbL"},
        "elements": list(selected.values()),
    }


class Server:
    """What it has been asked, and what it says.

    Attributes:
        elements: What it knows.
        queries: The queries so far.
        status_reads: How often /status was read.
        faults: Answers (status, content type, text) that come first, in order; "stall" never
            answers.
        agents: Who asked.
        places: What Nominatim (/search) knows.
    """

    def __init__(self, path):
        self.elements = elements(path)
        self.queries = []
        self.status_reads = 0
        self.faults = []
        self.agents = set()
        self.places = []


@contextlib.contextmanager
def serving(path):
    """A stand-in on loopback: its address, and the Server behind it."""
    state = Server(path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/search"):
                state.queries.append(self.path)
                self.say(200, "application/json", json.dumps(state.places))
                return
            state.status_reads += 1
            lines = ["Connected as: 1", "Current time: now", "Announced endpoint: none"]
            lines += ["Rate limit: 0", "Currently running queries (pid, space limit):"]
            self.say(200, "text/plain", "\n".join(lines))

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            query = parse_qs(self.rfile.read(length).decode())["data"][0]
            state.queries.append(query)
            state.agents.add(self.headers["User-Agent"])
            fault = state.faults.pop(0) if state.faults else None
            if fault == "stall":
                time.sleep(3)
            elif fault:
                self.say(*fault)
            else:
                text = json.dumps(answer(state.elements, query))
                self.say(200, "application/json", text)

        def say(self, status, kind, text):
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api", state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
