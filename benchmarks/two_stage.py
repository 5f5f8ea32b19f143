"""Two stages on a square kilometre that nothing was chosen by: a gallery, then columns.

One flight over the town is cut into tiles of 64 m every 8 m; an encoder describes them and the
panoramas, whose headings are known to 5 degrees. The gallery's likelihood over the whole town says
which five windows of 64 m the column matcher looks at closely, with perfect labels. All in
Localizer's four lines.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import retrieval_worlds as worlds
from benchmarks.harness import Results
from benchmarks.retrieval import CAMERAS, LEARNING
from crossview import evidence, photos
from crossview.evaluation import pose_result
from crossview.frames import Pose
from crossview.gallery import Gallery
from crossview.gallery_files import Model
from crossview.gallery_scale import fit_scale
from crossview.grids import Bounds, MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.manifest import Manifest
from crossview.models import load_model
from crossview.pose_queries import map_sources
from crossview.posterior import Posterior
from crossview.semantic import SemanticMatcher
from crossview.synthetic.moments import daylight
from crossview.synthetic.movers import movers_mesh
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.render import render_satellite
from crossview.synthetic.worlds import World

TILE_PX, CELL_M, SPACING_PX = 128, 0.5, 16
WINDOW_RADIUS_M, NUM_WINDOWS = 32.0, 5
HEADING_ERROR_DEG, COMPASS_SIGMA_DEG = 5.0, 3.0
"""Headings are off by an even error of so much both ways, whose standard deviation is this."""

TOLERANT = ("--model-options", '{"footprint_m": 64}', "--shift-m", "8")
"""Cameras are up to 5.7 m off the middle of the nearest tile, and the encoder is to know it."""

EPOCHS = 16
COARSE_M = 4.0
NUM_QUERIES, NUM_FITTED, QUICK = 200, 200, 3
QUICK_SCALE = 10.0
WITHIN_M = (1.0, 3.0, 5.0)

HEAD = (
    "| queries | tiles | true window first | among 5 | median error | within 1 / 3 / 5 m | "
    "stated elsewhere | s per query |\n|---|---|---|---|---|---|---|---|"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sight:
    """One query: what the gallery compares, and what the matcher looks at.

    Args:
        descriptor: (D,)
        view: A class image, or None.
        described_s: How long the encoder took.
    """

    descriptor: np.ndarray
    view: Any
    described_s: float


@dataclass(frozen=True)
class OfDescriptors:
    """A gallery that is asked about the descriptor of a sight."""

    gallery: Gallery

    def log_likelihood(self, query: Sight, grid: PoseGrid) -> np.ndarray:
        """Log-likelihood that broadcasts to the grid."""
        return self.gallery.log_likelihood(query.descriptor, grid)


class OfViews(SemanticMatcher):
    """The column matcher, asked about the view of a sight."""

    def log_likelihood(self, query: Any, *arguments: Any, **options: Any) -> np.ndarray:
        """As the matcher's own."""
        return super().log_likelihood(query.view, *arguments, **options)


def run(*, quick: bool) -> Results:
    """One town, all of it searched."""
    from crossview.nn.encoders import load_encoder

    with worlds.folder() as where:
        val = worlds.validation_town(where, quick=quick)
        encoder = load_encoder(
            worlds.trained(
                where, "model-wide", *LEARNING, *CAMERAS[0].training, *TOLERANT,
                "--validate", str(val), quick=quick, epochs=EPOCHS, pairs=worlds.larger_tiles,
            )
        )  # fmt: skip
        town = worlds.towns(
            where, "wide-quick" if quick else "wide", worlds.WIDE_TOWN, "--classes", "--tiles",
            "none", size_m=300 if quick else 1000, views=QUICK if quick else NUM_QUERIES,
        )  # fmt: skip
        fitted = gallery_of(val, encoder, seed=1)
        count = QUICK if quick else NUM_FITTED
        queries = [(s.descriptor, truth) for s, truth in sights(val, encoder, count)]
        # an encoder of one epoch has nothing to fit
        scale = QUICK_SCALE if quick else fit_scale(fitted, queries).scale
        gallery = gallery_of(town, encoder, seed=2).with_scale(scale)
        matcher = OfViews(PaletteSegmenter(), load_model("columns-class-image"))
        found = searched(town, encoder, gallery, matcher)
    numbers = {"scale": scale, "num_tiles": gallery.num_tiles, **found}
    row = (
        f"| {found['n']} | {gallery.num_tiles:,} | {found['first']:.3f} | {found['among']:.3f} | "
        f"{found['median_error_m']:.2f} m | "
        + " / ".join(f"{found[f'within_{t:g}m']:.2f}" for t in WITHIN_M)
        + f" | {found['elsewhere']:.3f} | {found['query_s']:.2f} |"
    )
    return Results(f"{HEAD}\n{row}", numbers)


def world_of(dataset: Path) -> tuple[Manifest, World]:
    """A dataset of one town, and the town."""
    manifest = Manifest.load(dataset)
    (region,) = manifest.regions["name"]
    return manifest, World.read(region, manifest.map_files(region)[0].path)


def gallery_of(dataset: Path, encoder: Any, *, seed: int) -> Gallery:
    """One flight over a town, cut into tiles."""
    _, world = world_of(dataset)
    rng = np.random.default_rng(seed)
    west, south, east, north = world.bounds_m
    side_m = TILE_PX * CELL_M
    rows, cols = (round((length + side_m) / CELL_M) for length in (north - south, east - west))
    grid = MapGrid(world.frame, west - side_m / 2, north + side_m / 2, CELL_M, rows, cols)
    movers = movers_mesh(world.scene, int(rng.integers(2**32)), density=1.0)
    flight = render_satellite(
        world.scene, grid, movers=movers, appearance=daylight(rng, randomness=1.0)
    )
    image = np.asarray(flight.rgb)
    places = [
        (row, col)
        for row in range(0, rows - TILE_PX + 1, SPACING_PX)
        for col in range(0, cols - TILE_PX + 1, SPACING_PX)
    ]
    described = [
        encoder.describe_tiles(
            [
                image[row : row + TILE_PX, col : col + TILE_PX]
                for row, col in places[start : start + 64]
            ]
        )
        for start in range(0, len(places), 64)
    ]
    middles = np.array(places) + TILE_PX / 2
    x_m, y_m = grid.to_xy(middles[:, 1], middles[:, 0])
    return Gallery.of(
        world.frame,
        np.column_stack([x_m, y_m]),
        np.concatenate(described),
        footprint_m=side_m,
        model=Model.of(encoder),
        name=world.region,
    )


def sights(dataset: Path, encoder: Any, count: int) -> list[tuple[Sight, Pose]]:
    """Queries with headings that are off, and their poses; views are classes where there are."""
    manifest = Manifest.load(dataset)
    found = []
    for number, view_id in enumerate(manifest.views["view_id"][:count]):
        truth, seen = _pose(manifest, view_id), manifest.panorama(view_id)
        rng = np.random.default_rng([7, number])
        error_deg = rng.uniform(-HEADING_ERROR_DEG, HEADING_ERROR_DEG)
        heading_deg = (float(truth.heading_deg or 0.0) + error_deg) % 360.0
        image = encoder.preprocessing.ground(seen, heading_deg=heading_deg)
        start_s = time.perf_counter()
        descriptor = encoder.ground_descriptors(image[None])[0]
        described_s = time.perf_counter() - start_s
        row = manifest.row("views", view_id)
        classes = dataset / str(row["image"]).replace("views/", "classes/", 1)
        view = None
        if (path := classes.with_suffix(".png")).is_file():
            view = photos.Panorama(photos.read_pixels(path), heading_deg, height_m=row["height_m"])
        found.append((Sight(descriptor, view, described_s), truth))
    return found


def searched(dataset: Path, encoder: Any, gallery: Gallery, matcher: OfViews) -> dict[str, Any]:
    """Localize every view in the whole town."""
    manifest, world = world_of(dataset)
    (maps,) = map_sources(manifest).values()
    localizer = Localizer(maps, matcher, OfDescriptors(gallery), NUM_WINDOWS, WINDOW_RADIUS_M)
    grid = PoseGrid(_cells(world.bounds_m, world), matcher.num_headings)
    places, errors_m, elsewhere, seconds = [], [], [], []
    for sight, truth in sights(dataset, encoder, len(manifest.views)):
        start_s = time.perf_counter()
        compass = evidence.compass(grid, sight.view.heading_deg, sigma_deg=COMPASS_SIGMA_DEG)
        prior = Posterior.flat(grid).update(compass)
        answer = localizer.localize(sight, prior)
        seconds.append(time.perf_counter() - start_s + sight.described_s)
        coarse = prior.update(localizer.gallery.log_likelihood(sight, grid))
        windows = coarse.windows(NUM_WINDOWS, WINDOW_RADIUS_M, like=matcher)
        places.append(next((k for k, w in enumerate(windows) if _holds(w.map, truth)), np.inf))
        errors_m.append(pose_result(answer.best, truth).position_error_m)
        elsewhere.append(answer.probability_elsewhere)
        logger.info("window %s, %.2f m, %.1f s", places[-1], errors_m[-1], seconds[-1])
    place, error_m = np.array(places), np.array(errors_m)
    return {
        "n": len(places),
        "first": float((place == 0).mean()),
        "among": float(np.isfinite(place).mean()),
        "median_error_m": float(np.median(error_m)),
        **{f"within_{t:g}m": float((error_m < t).mean()) for t in WITHIN_M},
        "elsewhere": float(np.mean(elsewhere)),
        "query_s": float(np.median(seconds)),
        "errors_m": error_m.tolist(),
    }


def _pose(manifest: Manifest, view_id: str) -> Pose:
    pose = manifest.pose(view_id)
    if pose is None:
        raise ValueError(f"{view_id} has no position.")
    return pose


def _cells(bounds: Bounds, world: World) -> MapGrid:
    west, south, east, north = bounds
    height, width = (int((b - a) // COARSE_M) for a, b in ((south, north), (west, east)))
    return MapGrid(world.frame, west, north, COARSE_M, height, width)


def _holds(window: MapGrid, truth: Pose) -> bool:
    west, south, east, north = window.bounds
    return west <= truth.x_m < east and south <= truth.y_m < north
