"""How the classes of maps are drawn: few colours, each explained once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from crossview.rasters import MapRaster

_DARKER = 0.72
"""Ways have their group's colour times this, so that they show on areas of their own kind."""

_HATCH_CELLS = 4


class MapGroup(NamedTuple):
    """Map classes of either legend that are drawn alike.

    Args:
        label: What they are, for a person.
        color: Of areas, as #rrggbb.
        names: The classes.
    """

    label: str
    color: str
    names: tuple[str, ...] = ()

    @property
    def rgb(self) -> np.ndarray:
        """The colour, (3,) in [0, 1]."""
        return np.array([int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5)])

    @property
    def point_color(self) -> tuple[float, ...]:
        """Of dots: trees stand on grass and in woods."""
        return tuple(_DARKER * self.rgb if "tree" in self.names else self.rgb)


GROUND = MapGroup("nothing mapped", "#f4f2ec")
UNCOVERED = MapGroup("no map", "#bdbdbd")
OTHER = MapGroup("other", "#4b4b57")

GROUPS = (
    MapGroup("building", "#c9a98f", ("building", "building_outline")),
    MapGroup("roof", "#e3d0c1", ("roof", "roof_outline")),
    MapGroup("road", "#b7bac4", ("road", "road_axis", "busway")),
    MapGroup("path", "#e0d6c0", ("path", "path_axis", "cycleway")),
    MapGroup("rail", "#8f8a9c", ("rail", "rail_axis")),
    MapGroup("parking", "#d5d5e6", ("parking",)),
    MapGroup("water", "#9cc3e6", ("water", "stream", "stream_axis")),
    MapGroup("trees", "#86b972", ("trees", "forest", "tree_row", "hedge", "tree")),
    MapGroup("grass, park", "#cbe3b0", ("grass", "park", "field")),
    MapGroup("playing field", "#b3dcc6", ("pitch", "playground")),
    MapGroup("bare ground", "#e9dcae", ("bare",)),
    MapGroup("wall, fence", "#7d5f55", ("wall", "fence", "kerb")),
    MapGroup(
        "lamp, pole, sign",
        "#d9822b",
        ("lamp", "pole", "sign", "traffic_signal", "stop_sign", "give_way", "bollard"),
    ),
    MapGroup(
        "shop, restaurant", "#b0439b", ("shop", "restaurant", "bar", "bank", "pharmacy", "fuel")
    ),
)


def group_of(name: str) -> MapGroup:
    """The group of a class; OTHER where no group wants it."""
    return next((group for group in GROUPS if name in group.names), OTHER)


def picture(map_raster: MapRaster) -> np.ndarray:
    """Areas, and ways on top: (rows, cols, 3) in [0, 1]; hatched where there is no map."""
    legend = map_raster.legend
    colors = np.broadcast_to(GROUND.rgb, (*map_raster.grid.shape, 3))
    for channel, (names, shade) in enumerate(((legend.areas, 1.0), (legend.ways, _DARKER))):
        table = np.array([np.zeros(3), *(shade * group_of(name).rgb for name in names)])
        ids = map_raster.classes[..., channel]
        colors = np.where((ids > 0)[..., None], table[ids], colors)
    row, col = np.indices(map_raster.grid.shape)
    is_dark = (row + col) // _HATCH_CELLS % 2 == 0
    hatched = np.where(is_dark[..., None], UNCOVERED.rgb, (1 + UNCOVERED.rgb) / 2)
    return np.where(map_raster.covered[..., None], colors, hatched)


def groups_of_cells(map_raster: MapRaster) -> list[MapGroup]:
    """What a picture shows beside bare ground, in the order of GROUPS."""
    legend = map_raster.legend
    present = {
        group_of(names[class_id - 1])
        for channel, names in enumerate((legend.areas, legend.ways))
        for class_id in np.unique(map_raster.classes[..., channel])
        if class_id > 0
    }
    groups = [group for group in (*GROUPS, OTHER) if group in present]
    return groups if map_raster.covered.all() else [*groups, UNCOVERED]


def points_by_group(
    map_raster: MapRaster,
) -> Iterator[tuple[MapGroup, tuple[np.ndarray, np.ndarray]]]:
    """Rows and columns of the points of every group that has any."""
    names = map_raster.legend.points
    ids = map_raster.classes[..., 2]
    for group in (*GROUPS, OTHER):
        wanted = [i + 1 for i, name in enumerate(names) if group_of(name) == group]
        rows, cols = np.nonzero(np.isin(ids, wanted))
        if rows.size:
            yield group, (rows, cols)
