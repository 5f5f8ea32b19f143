"""Tiny OpenStreetMap files, drawn in metres around the anchor of a frame."""

from xml.sax.saxutils import quoteattr


class OsmXml:
    """Collects elements and writes them as OSM XML; positions are rounded to 1e-7 degrees."""

    def __init__(self, frame, *, bounds=None):
        self.frame = frame
        self.bounds = bounds  # (west, south, east, north) in degrees
        self.elements = {"node": [], "way": [], "relation": []}
        self._next_id = 1

    def node(self, x_m, y_m, tags=None, *, id=None):
        lat_deg, lon_deg = self.frame.to_geodetic(x_m, y_m)
        return self._add("node", f'lat="{lat_deg:.7f}" lon="{lon_deg:.7f}"', "", tags, id)

    def way(self, places, tags=None, *, id=None):
        """A way through places: ids of nodes, or (x_m, y_m); an equal place is the same node."""
        made = {}
        refs = [p if isinstance(p, int) else made.setdefault(p, None) for p in places]
        for place in made:
            made[place] = self.node(*place)
        refs = [made.get(p, p) for p in places]
        return self._add("way", "", "".join(f'<nd ref="{ref}"/>' for ref in refs), tags, id)

    def ring(self, corners, tags=None, *, id=None):
        return self.way([*corners, corners[0]], tags, id=id)

    def box(self, west_m, south_m, east_m, north_m, tags=None, *, id=None):
        corners = [(west_m, south_m), (east_m, south_m), (east_m, north_m), (west_m, north_m)]
        return self.ring(corners, tags, id=id)

    def relation(self, members, tags=None, *, id=None):
        """A relation of ways, [(way id, role)]."""
        body = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in members)
        return self._add("relation", "", body, tags, id)

    def text(self, order=("node", "way", "relation")):
        bounds = ""
        if self.bounds:
            west, south, east, north = self.bounds
            bounds = f'<bounds minlat="{south}" minlon="{west}" maxlat="{north}" maxlon="{east}"/>'
        body = "\n".join(line for kind in order for line in self.elements[kind])
        return f'<?xml version="1.0"?>\n<osm version="0.6">{bounds}\n{body}\n</osm>\n'

    def write(self, path, **options):
        path.write_text(self.text(**options), encoding="utf-8")
        return path

    def _add(self, kind, attributes, body, tags, id):
        if id is None:
            id, self._next_id = self._next_id, self._next_id + 1
        tagged = "".join(
            f"<tag k={quoteattr(key)} v={quoteattr(value)}/>" for key, value in (tags or {}).items()
        )
        line = f'<{kind} id="{id}" version="1" {attributes}>{body}{tagged}</{kind}>'
        self.elements[kind].append(line)
        return id
