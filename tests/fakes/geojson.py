"""Made-up GeoJSON files."""

import json

import shapely


def write_geojson(path, *shapes, crs=None):
    """Features of shapes, with the old member `crs` where it is given; returns the path."""
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for shape in shapes
    ]
    content = {"type": "FeatureCollection", "features": features}
    if crs is not None:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return path
