"""What the benchmark of the column matcher works on: a rig in a made-up town, step by step."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview import column_evidence, columns, raycast
from crossview.cameras import Pinhole
from crossview.column_evidence import ColumnEvidence
from crossview.column_model import NUM_RANGES, ColumnModel
from crossview.columns import ColumnView, SegmentedImage
from crossview.evidence import prior_within
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid
from crossview.photos import Mount, Photo, Rig
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter, colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

SEED = 7
CELL_M = 0.5
MAP_PARTS = 2
HEIGHT_M = 2.5
TURNS_DEG = (0.0, 90.0, 180.0, 270.0)
OFF_M = (6.0, -4.0)
"""Of the disc's centre from the truth."""

_TOWN_FILE = "town.osm"


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison.

    Attributes:
        side_m: Of the square that is ray-cast.
        num_azimuths: Directions that are ray-cast.
        radius_m: Of the disc in which a rig is searched.
        num_headings: Heading bins; a divisor of the columns.
        block_cells: Side of the blocks that a matcher ray-casts.
        sight_blocks: How far rays go, in blocks.
        image_px: Side of the photos, four of 90 degrees.
        sampled_cells: Where rays are followed through polygons.
        sampled_poses: Cells where poses are compared one by one.
        repeats: The cheapest of so many calls counts.
    """

    side_m: float = 60.0
    num_azimuths: int = columns.NUM_AZIMUTHS
    radius_m: float = 25.0
    num_headings: int = columns.NUM_AZIMUTHS
    block_cells: int = 64
    sight_blocks: int = 4
    image_px: int = 600
    sampled_cells: int = 40
    sampled_poses: int = 40
    repeats: int = 3

    @property
    def sight_m(self) -> float:
        """How far rays go."""
        return self.sight_blocks * self.block_cells * CELL_M


CASE = Case()
QUICK_CASE = Case(
    side_m=6.0,
    num_azimuths=32,
    radius_m=4.0,
    num_headings=32,
    block_cells=16,
    sight_blocks=3,
    image_px=100,
    sampled_cells=6,
    sampled_poses=6,
    repeats=1,
)


@dataclass(frozen=True)
class Casting:
    """Inputs of ray-casting."""

    case: Case
    map_raster: MapRaster
    grid: MapGrid
    buildings: list[tuple[Any, float]]


@dataclass(frozen=True)
class Levelling:
    """Inputs of levelling: what is there after segmentation."""

    images: tuple[SegmentedImage, ...]


@dataclass(frozen=True)
class Weighing:
    """Inputs of evidence; the model as its text."""

    view: ColumnView
    model: str


@dataclass(frozen=True)
class Matching:
    """Inputs of matching: what each free cell of the window sees, (cells, azimuths)."""

    case: Case
    evidence: ColumnEvidence
    codes: np.ndarray


@dataclass(frozen=True)
class Locating:
    """Inputs of a whole station; the model as its text."""

    case: Case
    images: tuple[SegmentedImage, ...]
    model: str
    prior: Posterior
    town_file: Path


def write(case: Case, folder: Path) -> None:
    """What every step works on, one file each, from a made-up town."""
    town = Town.from_seed(SEED)
    town.write(folder / _TOWN_FILE)
    town_map = VectorMap.read(folder / _TOWN_FILE)
    scene = Scene.from_features(town_map.features, town.frame)
    here, there = town.viewpoints(2, seed=SEED, radius_m=30.0)
    images = columns.segmented(_rig(scene, here, case), PaletteSegmenter())
    view = columns.levelled(images)
    model = _counted(town_map, town.frame, scene, there, case)
    evidence = column_evidence.evidence(view, model)
    prior = prior_within(
        town.frame,
        here.x_m + OFF_M[0],
        here.y_m + OFF_M[1],
        radius_m=case.radius_m,
        like=matcher_of(case, model),
    )
    grid = MapGrid.around(town.frame, here.x_m, here.y_m, radius_m=case.side_m / 2, cell_m=CELL_M)
    around = grid.padded(case.sight_m).divided(MAP_PARTS)
    houses = town_map.buildings(around)
    given = {
        "ray-casting": Casting(
            case,
            town_map(around),
            grid,
            list(zip(houses.geometry, houses["height_m"], strict=True)),
        ),
        "levelling a rig": Levelling(images),
        "evidence": Weighing(view, model.to_json()),
        "matching": Matching(case, evidence, _codes(case, model, town_map, prior, view.height_m)),
        "station after segmentation": Locating(
            case, images, model.to_json(), prior, folder / _TOWN_FILE
        ),
    }
    for step, inputs in given.items():
        _file(folder, step).write_bytes(pickle.dumps(inputs))


def read(folder: Path, step: str) -> Any:
    """The inputs of a step, as write wrote them."""
    return pickle.loads(_file(folder, step).read_bytes())


def _file(folder: Path, step: str) -> Path:
    return folder / f"{step}.pickle"


def matcher_of(case: Case, model: ColumnModel) -> SemanticMatcher:
    """The column matcher of a case, that remembers nothing yet."""
    return SemanticMatcher(
        PaletteSegmenter(),
        model,
        cell_m=CELL_M,
        num_headings=case.num_headings,
        block_cells=case.block_cells,
        sight_blocks=case.sight_blocks,
        map_parts=MAP_PARTS,
    )


def _rig(scene: Scene, pose: Pose, case: Case) -> Rig:
    camera = Pinhole.from_focal(case.image_px, case.image_px, case.image_px / 2)
    photos = [
        render_photo(scene, pose.moved(Motion(turn_deg=turn_deg)), camera, height_m=HEIGHT_M)
        for turn_deg in TURNS_DEG
    ]
    return Rig(
        tuple(Photo(colored(one.classes), camera, 0.0, 0.0, HEIGHT_M) for one in photos),
        tuple(Mount(turn_deg) for turn_deg in TURNS_DEG),
    )


def _counted(
    town_map: VectorMap, frame: LocalFrame, scene: Scene, pose: Pose, case: Case
) -> ColumnModel:
    """Tables of one rig elsewhere: enough to have something to sum."""
    view = columns.observed(_rig(scene, pose, case), PaletteSegmenter())
    rays = raycast.look_around(town_map, frame, pose, height_m=HEIGHT_M)
    counts = column_evidence.region_counts(view, *rays)
    return ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES))


def _codes(
    case: Case, model: ColumnModel, town_map: VectorMap, prior: Posterior, height_m: float
) -> np.ndarray:
    """What every free cell of the prior's grid sees, (cells, azimuths)."""
    matcher, cells = matcher_of(case, model), prior.grid.map
    map_raster = town_map(cells.padded(matcher.reach_m).divided(MAP_PARTS))
    blocks = matcher.coded_blocks(map_raster, cells, height_m)
    return np.concatenate([block.codes[block.free] for _, _, block in blocks])
