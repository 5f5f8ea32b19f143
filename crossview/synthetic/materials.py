"""What surfaces of a made-up world are made of: names only, so that geometry knows no colours."""

from __future__ import annotations

from types import MappingProxyType

DESCRIPTIONS = MappingProxyType(
    {
        # ground
        "soil": "bare or rough ground, what lies beyond everything else",
        "grass": "lawn, meadow, park",
        "water": "ponds, rivers, the sea, pools",
        "asphalt": "carriageways and car parks",
        "sett": "carriageways and squares of cobbles or setts",
        "slabs": "sidewalks and squares of concrete slabs",
        "gravel": "paths and tracks that are not sealed",
        "sand": "beaches, playgrounds, bare rock",
        "court": "pitches and running tracks",
        "paint": "lane markings, crossings, lines of parking bays",
        "kerb": "kerb stones",
        "ballast": "railway tracks",
        # walls
        "plaster": "rendered walls",
        "brick": "brick walls",
        "stone": "walls of natural stone",
        "concrete": "concrete walls",
        "glass": "curtain walls, greenhouses",
        "timber": "wooden walls",
        "sheet": "walls of metal sheet: halls, sheds",
        "plaster_shop": "plaster above a ground floor that is a shop front",
        "brick_shop": "brick above a shop front",
        "stone_shop": "natural stone above a shop front",
        "concrete_shop": "concrete above a shop front",
        # roofs
        "tiles": "clay tiles",
        "slate": "slate and other dark roofing",
        "roof_gravel": "flat roofs under gravel or felt",
        "roof_metal": "roofs of metal sheet",
        # what stands about
        "bark": "trunks, wooden poles, benches",
        "leaves": "crowns of broad-leaved trees, bare in winter",
        "needles": "crowns of evergreens",
        "hedge": "hedges",
        "fence": "fences and railings",
        "metal": "lamp posts, masts, bollards, the back of signs",
        "sign": "faces of traffic signs",
        "signal": "housings of traffic lights",
        "lamp": "heads of street lamps, which shine at night",
        # what moves
        "paintwork": "bodies of cars, a colour for each instance",
        "car_glass": "cabins of cars",
        "clothes": "people, a colour for each instance",
    }
)
"""Every material and what it is."""

MATERIALS = tuple(DESCRIPTIONS)
"""Names of the materials; surfaces hold the index."""
