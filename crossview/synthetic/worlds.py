"""Worlds to photograph: made-up towns and OpenStreetMap extracts, as map files and scenes."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview import atomic, osm
from crossview.errors import MapError
from crossview.features import MapFeatures
from crossview.frames import LocalFrame
from crossview.geopackages import read_geopackage, write_geopackage
from crossview.grids import Bounds
from crossview.synthetic.places import Obstacles, Streets
from crossview.synthetic.scene import STOREYS, Scene
from crossview.synthetic.survey import surveyed
from crossview.synthetic.town import Town
from crossview.tiles import GeoBounds

MADE_UP_LICENCE = "CC0-1.0"
OSM_LICENCE = "ODbL-1.0"

MARGIN_M = 60.0
"""Cameras keep this far from where the map ends, so that what they see is mapped."""

MARGIN_SHARE = 0.15
"""Of small maps: the margin is at most this share of a side."""

GEOPACKAGE_SUFFIX = ".gpkg"
_ANCHOR_DECIMALS = 4


@dataclass(frozen=True)
class Source:
    """What a world is made of.

    Args:
        region: Its name in the dataset.
        seed: Of a made-up town; None of an extract.
        pattern: Of a made-up town, as Town.from_seed takes it.
        size_m: Of a made-up town, likewise.
        file: An OpenStreetMap extract, as an absolute path; empty of a made-up town.
        box: The part of the extract, degrees west, south, east, north; None for all of it.
    """

    region: str
    seed: int | None = None
    pattern: str = "lattice"
    size_m: float | None = None
    file: str = ""
    box: tuple[float, float, float, float] | None = None

    @property
    def is_made_up(self) -> bool:
        """Whether it is a town of ours."""
        return not self.file

    @property
    def map_file(self) -> str:
        """Its map in a dataset, below the dataset's folder."""
        if self.is_made_up:
            return f"maps/{self.region}.osm"
        suffix = GEOPACKAGE_SUFFIX
        if self.box is None:
            name = Path(self.file).name
            suffix = next((s for s in (*osm.SUFFIXES, GEOPACKAGE_SUFFIX) if name.endswith(s)), "")
        return f"maps/{self.region}{suffix}"

    def write_map(self, folder: Path) -> Path:
        """Write the map file into a dataset's folder: a town, a copy, or what is in the box.

        Raises:
            MapError: The extract cannot be read, or is of another format.
        """
        path = folder / self.map_file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_made_up and not path.suffix:
            raise MapError(
                f"{self.file} is no OpenStreetMap extract: expected a file that ends in "
                f"{', '.join((*osm.SUFFIXES, GEOPACKAGE_SUFFIX))}."
            )
        with atomic.replacing(path) as temporary:
            if self.seed is not None:
                town = Town.from_seed(self.seed, pattern=self.pattern, size_m=self.size_m)
                town.write(temporary)
            elif self.box is None:
                if not Path(self.file).is_file():
                    raise MapError(f"There is no map file {self.file}.")
                shutil.copyfile(self.file, temporary)
            else:
                bounds = GeoBounds(*self.box)
                features = _read(Path(self.file), bounds)
                write_geopackage(features, temporary, licence=OSM_LICENCE)
        return path


@dataclass(frozen=True, eq=False)
class World:
    """A map that cameras can be put into.

    Args:
        region: Its name.
        frame: Of its metres.
        scene: What stands there.
        bounds_m: Where cameras may stand: the map's extent less a margin.
        attribution: Who must be named; empty for a made-up town.
    """

    region: str
    frame: LocalFrame
    scene: Scene
    bounds_m: Bounds
    attribution: str

    @classmethod
    def read(cls, region: str, path: Path) -> World:
        """The world of a map file.

        Raises:
            MapError: The file cannot be read, or has no buildings or no streets.
        """
        return cls.of(region, _read(path, None))

    @classmethod
    def of(cls, region: str, features: MapFeatures) -> World:
        """The world of map features; the frame is anchored in the middle of their extent.

        Buildings whose height the map does not tell get a number of STOREYS, by their identity:
        the same in every run. The map file, which matchers read, stays without. What the map says
        that cannot be is counted in the scene's notes, and not logged: worlds are read again by
        every process.

        Raises:
            MapError: They have no buildings or no streets.
        """
        west, south, east, north = features.extent
        frame = LocalFrame(
            round((south + north) / 2, _ANCHOR_DECIMALS), round((west + east) / 2, _ANCHOR_DECIMALS)
        )
        scene = Scene(**surveyed(features, frame, STOREYS))
        if not scene.buildings:
            raise MapError(
                f"{features.source} has no buildings, and a camera would see nothing to know its "
                "place by. Use an extract with building=*, or other bounds."
            )
        world = cls(region, frame, scene, _bounds_m(features.extent, frame), features.attribution)
        world.streets  # noqa: B018 (says where there are none)
        return world

    @functools.cached_property
    def streets(self) -> Streets:
        """Where cameras may be put."""
        return Streets(self.scene, self.bounds_m)

    @functools.cached_property
    def obstacles(self) -> Obstacles:
        """What a camera must not be in."""
        return Obstacles(self.scene, self.scene.mesh)

    @property
    def square_km(self) -> float:
        """Of the ground where cameras may stand."""
        west, south, east, north = self.bounds_m
        return (east - west) * (north - south) / 1e6


def _read(path: Path, bounds: GeoBounds | None) -> MapFeatures:
    if path.suffix == GEOPACKAGE_SUFFIX:
        features = read_geopackage(path)
        return features if bounds is None else features.within(bounds)
    return osm.read_osm(path, bounds)


def _bounds_m(extent: GeoBounds, frame: LocalFrame) -> Bounds:
    """The largest box in the frame that surely lies within the extent, less the margin."""
    lat_deg = np.array([extent.south, extent.south, extent.north, extent.north])
    lon_deg = np.array([extent.west, extent.east, extent.west, extent.east])
    x_m, y_m = frame.to_local(lat_deg, lon_deg)
    west, east = max(x_m[0], x_m[2]), min(x_m[1], x_m[3])
    south, north = max(y_m[0], y_m[1]), min(y_m[2], y_m[3])
    margin_m = min(MARGIN_M, MARGIN_SHARE * min(east - west, north - south))
    return Bounds(
        float(west + margin_m),
        float(south + margin_m),
        float(east - margin_m),
        float(north - margin_m),
    )
