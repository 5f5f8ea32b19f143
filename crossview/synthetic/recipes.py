"""What a synthetic dataset is to hold: worlds, cameras, tiles and chance, in one set of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from crossview.cameras import Camera, Equirectangular, Pinhole
from crossview.synthetic.worlds import Source

Kind = Literal["panorama", "photo", "rig"]
Tiles = Literal["none", "centered", "grid"]
Pictures = Literal["rgb", "classes"]
Split = Literal["none", "town", "cell"]

KINDS: tuple[Kind, ...] = ("panorama", "photo", "rig")
TILES: tuple[Tiles, ...] = ("none", "centered", "grid")
PICTURES: tuple[Pictures, ...] = ("rgb", "classes")
SPLITS: tuple[Split, ...] = ("none", "town", "cell")
IMAGE_FORMATS = ("jpg", "png")

TILE_OVERLAP = 0.5
"""Of neighbours on a grid: every place is in the middle half of one tile, as VIGOR has it."""

MAX_PIXELS = 2**25
"""Of an image: a panorama of 8192 x 4096. One takes 2 GB of memory while it is rendered."""


@dataclass(frozen=True)
class Recipe:
    """All that a dataset depends on: the same recipe gives the same dataset.

    Args:
        sources: The worlds.
        num_views: Places of every world where a camera, or a rig of them, takes its photos.
        kind: What is there: a panorama, a photo, or a rig of photos all around.
        width_px: Of an image.
        height_px: Of an image.
        fov_deg: Horizontal field of view of photos.
        num_cameras: Of a rig, evenly around.
        height_m: Of the lens above the ground.
        height_spread_m: The height is even up to this higher or lower.
        heading_spread_deg: The heading is that of the traffic, and even up to this to both sides.
        pitch_spread_deg: Likewise of the pitch of photos, around level.
        roll_spread_deg: Likewise.
        sidewalks: Share of places on sidewalks; the others are on lanes. None of drives.
        frames: Frames of a drive; 0 where places are drawn one by one.
        spacing_m: From frame to frame.
        tiles: None, one around every place (as CVACT has them), or on a grid that covers a world
            with half an overlap (as VIGOR has them).
        tile_px: Side of a tile.
        cell_m: Of a tile.
        num_flights: On how many days the tiles of a world are taken.
        max_tilt_deg: How far off the vertical a flight's camera stands at most.
        pictures: Photos in colours, or class images in the Cityscapes palette.
        with_classes: Also write class, instance and depth images of every view, and class and
            height images of every tile.
        with_normals: Also write normals.
        label_noise: Strength of the errors in class images of views, 0 none (see label_noise).
        randomness: How much light, season, weather and sensor vary (see Appearance.drawn).
        traffic: Density of cars and people, 1 is usual and 0 is none.
        image_format: Of photos and tiles in colours: jpg of quality 95, or png.
        split: Whether views get train, val and test, by world or by cells of the ground.
        seed: Of everything.

    Raises:
        ValueError: A number makes no sense; the message names the option of the command.
    """

    sources: tuple[Source, ...]
    num_views: int
    kind: Kind = "panorama"
    width_px: int = 512
    height_px: int = 256
    fov_deg: float = 90.0
    num_cameras: int = 4
    height_m: float = 1.6
    height_spread_m: float = 0.0
    heading_spread_deg: float = 30.0
    pitch_spread_deg: float = 0.0
    roll_spread_deg: float = 0.0
    sidewalks: float = 0.2
    frames: int = 0
    spacing_m: float = 5.0
    tiles: Tiles = "centered"
    tile_px: int = 256
    cell_m: float = 0.25
    num_flights: int = 3
    max_tilt_deg: float = 0.0
    pictures: Pictures = "rgb"
    with_classes: bool = False
    with_normals: bool = False
    label_noise: float = 0.0
    randomness: float = 1.0
    traffic: float = 1.0
    image_format: str = "jpg"
    split: Split = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for text in self._mistakes():
            raise ValueError(text)

    @property
    def side_m(self) -> float:
        """Of a tile on the ground."""
        return self.tile_px * self.cell_m

    @property
    def camera(self) -> Camera:
        """Of every view."""
        if self.kind == "panorama":
            return Equirectangular(self.width_px, self.height_px)
        half_rad = math.radians(self.fov_deg) / 2
        return Pinhole.from_focal(
            self.width_px, self.height_px, self.width_px / 2 / math.tan(half_rad)
        )

    @property
    def camera_id(self) -> str:
        """In the dataset."""
        if self.kind == "panorama":
            return f"panorama-{self.width_px}x{self.height_px}"
        return f"pinhole-{self.fov_deg:g}-{self.width_px}x{self.height_px}"

    @property
    def turns_deg(self) -> tuple[float, ...]:
        """How far the cameras of one place are turned from its heading."""
        if self.kind != "rig":
            return (0.0,)
        return tuple(360.0 * k / self.num_cameras for k in range(self.num_cameras))

    def to_json(self) -> dict[str, Any]:
        """Plain values, of extracts the names only: a dataset says nothing of the machine."""
        return asdict(self._without_folders())

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Inverse of to_json, but for the folders of extracts."""
        sources = tuple(
            Source(**{**one, "box": None if one["box"] is None else tuple(one["box"])})
            for one in values["sources"]
        )
        return cls(**{**values, "sources": sources})

    def difference(self, other: Recipe) -> str:
        """What another recipe says otherwise, by name; empty where they are the same."""
        wrong = [
            f"{field.name} is {getattr(other, field.name)!r} there and "
            f"{getattr(self, field.name)!r} here"
            for field in fields(self)
            if field.name != "sources" and getattr(self, field.name) != getattr(other, field.name)
        ]
        sources = [recipe._without_folders().sources for recipe in (other, self)]
        if sources[0] != sources[1]:
            there, here = (
                ", ".join(f"{source.region} ({_source_text(source)})" for source in some)
                for some in sources
            )
            wrong.append(f"the worlds are {there} there and {here} here")
        return "; ".join(wrong)

    def _without_folders(self) -> Recipe:
        sources = (replace(source, file=Path(source.file).name) for source in self.sources)
        return replace(self, sources=tuple(sources))

    def _mistakes(self) -> list[str]:
        """What is wrong, in words."""
        regions = [source.region for source in self.sources]
        positive = {
            "--views": self.num_views,
            "--width": self.width_px,
            "--height": self.height_px,
            "--height-m": self.height_m,
            "--spacing-m": self.spacing_m,
            "--tile-px": self.tile_px,
            "--cell-m": self.cell_m,
            "--flights": self.num_flights,
        }
        not_negative = {
            "--height-spread-m": self.height_spread_m,
            "--heading-spread-deg": self.heading_spread_deg,
            "--pitch-spread-deg": self.pitch_spread_deg,
            "--roll-spread-deg": self.roll_spread_deg,
            "--max-tilt-deg": self.max_tilt_deg,
            "--label-noise": self.label_noise,
            "--randomness": self.randomness,
            "--traffic": self.traffic,
            "--seed": self.seed,
        }
        choices = {
            "--kind": (self.kind, KINDS),
            "--tiles": (self.tiles, TILES),
            "--pictures": (self.pictures, PICTURES),
            "--split": (self.split, SPLITS),
            "--image-format": (self.image_format, IMAGE_FORMATS),
        }
        rules = [
            (not regions, "There is no world: give --town SEED or --osm FILE."),
            (
                len(set(regions)) < len(regions),
                f"Two worlds have one name, among {', '.join(regions)}. Give each once.",
            ),
            *[
                (not 0 < value < math.inf, f"{name} is {value:g}; expected more than 0.")
                for name, value in positive.items()
            ],
            *[
                (not 0 <= value < math.inf, f"{name} is {value:g}; expected 0 or more.")
                for name, value in not_negative.items()
            ],
            *[
                (value not in known, f"{name} is {value!r}; expected {' or '.join(known)}.")
                for name, (value, known) in choices.items()
            ],
            (
                self.kind == "panorama" and self.width_px != 2 * self.height_px,
                f"A panorama is a full sphere, twice as wide as high; got {self.width_px} x "
                f"{self.height_px} px. Set --width and --height.",
            ),
            (
                self.kind == "panorama" and bool(self.pitch_spread_deg or self.roll_spread_deg),
                "Panoramas are level: --pitch-spread-deg and --roll-spread-deg are for --kind "
                "photo.",
            ),
            (
                self.kind == "rig" and bool(self.pitch_spread_deg or self.roll_spread_deg),
                "Rigs are level: --pitch-spread-deg and --roll-spread-deg are for --kind photo.",
            ),
            (
                max(self.pitch_spread_deg, self.roll_spread_deg) > 45,
                "--pitch-spread-deg and --roll-spread-deg are up to 45, got "
                f"{self.pitch_spread_deg:g} and {self.roll_spread_deg:g}.",
            ),
            (
                not 1 <= self.fov_deg <= 170,
                f"--fov-deg is {self.fov_deg:g}; expected 1 to 170 degrees.",
            ),
            (
                self.kind == "rig" and not 2 <= self.num_cameras <= 36,
                f"--cameras is {self.num_cameras}; a rig has 2 to 36.",
            ),
            (
                self.height_m - self.height_spread_m < 0.2,
                f"--height-m {self.height_m:g} less --height-spread-m {self.height_spread_m:g} is "
                "under 0.2 m: cameras stand above the ground.",
            ),
            (
                self.randomness > 1,
                f"--randomness is {self.randomness:g}; expected 0 to 1.",
            ),
            (
                not 0 <= self.sidewalks <= 1,
                f"--sidewalks is {self.sidewalks:g}; expected a share from 0 to 1.",
            ),
            (
                self.frames == 1 or self.frames < 0,
                f"--frames is {self.frames}; a drive has 2 frames or more.",
            ),
            (
                self.frames > 0 and self.height_spread_m > 0,
                "The frames of a drive are taken at one height: leave out --height-spread-m.",
            ),
            (
                self.label_noise > 0 and self.pictures == "rgb" and not self.with_classes,
                "--label-noise is of class images: give --classes too, or --pictures classes.",
            ),
            *[
                (
                    num_pixels > MAX_PIXELS,
                    f"{name} of {size} px is too large: an image has up to {MAX_PIXELS:,} pixels.",
                )
                for name, size, num_pixels in (
                    ("--tile-px", self.tile_px, self.tile_px**2),
                    (
                        "--width by --height",
                        f"{self.width_px} x {self.height_px}",
                        self.width_px * self.height_px,
                    ),
                )
            ],
            (self.max_tilt_deg > 45, f"--max-tilt-deg is {self.max_tilt_deg:g}; expected 0 to 45."),
        ]
        return [text for is_wrong, text in rules if is_wrong]


def _source_text(source: Source) -> str:
    if source.is_made_up:
        size = "" if source.size_m is None else f", {source.size_m:g} m"
        return f"seed {source.seed}, {source.pattern}{size}"
    return source.file + ("" if source.box is None else f" in {source.box}")
