"""A small encoder without a network, and galleries to look into."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from crossview.frames import LocalFrame, Pose
from crossview.gallery import Gallery
from crossview.gallery_files import Model
from crossview.manifest import Manifest
from crossview.preprocessing import Preprocessing

FRAME = LocalFrame(52.5, 13.4)
PREPROCESSING = Preprocessing((8, 8), (8, 8), polar=None)
MODEL = Model("fake", "ab" * 32, PREPROCESSING.to_json())


@dataclass(frozen=True, eq=False)
class Query:
    """A square picture of a place from above, whose upper edge is where the camera looked."""

    image: np.ndarray
    heading_deg: float | None = None
    fix: None = None


@dataclass
class FakeEncoder:
    """Describes a square picture by 4 x 4 block means of its red channel, less their mean."""

    fingerprint: str = MODEL.sha256
    architecture: str = MODEL.name
    preprocessing: Preprocessing = PREPROCESSING
    scale: float | None = 20.0
    described: list = field(default_factory=list)

    def describe_tiles(self, images):
        self.described += [int(image[0, 0, 2]) for image in images]  # blue tells which
        return np.stack([picture_descriptor(image) for image in images])

    def describe(self, query, headings_deg=None):
        if headings_deg is None:
            return picture_descriptor(query.image)
        # looking east, the upper edge of the picture belongs to the right
        turned = [np.rot90(query.image, -round(heading / 90)) for heading in headings_deg]
        return np.stack([picture_descriptor(image) for image in turned])


def picture_descriptor(image):
    side = image.shape[0] // 4
    means = image[..., 0].astype(float).reshape(4, side, 4, side).mean(axis=(1, 3)).ravel()
    means -= means.mean()
    return (means / np.linalg.norm(means)).astype(np.float32)


def pictures(count, seed=0, side=8):
    """Random tiles; the blue channel is their number."""
    images = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images[..., 2] = np.arange(count)[:, None, None]
    return images


def descriptors(count, dimensions=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def places(count, half_m=1500.0, seed=1):
    return np.random.default_rng(seed).uniform(-half_m, half_m, (count, 2))


def gallery(count=400, **options):
    """A gallery of random descriptors at random places."""
    given = {"footprint_m": 64.0, "model": MODEL, "scale": 10.0, "name": "town", **options}
    return Gallery.of(FRAME, places(count), descriptors(count), **given)


def tile_dataset(folder, count=12, *, changes=(), **columns):
    """A saved manifest of tiles of 8 x 8 pixels and 64 m, 50 m apart; its images are beside it.

    Changes are cells of the row of one tile, by its number; columns are of all tiles.
    """
    images = folder.with_name("images")
    images.mkdir(parents=True)
    rows = []
    for k, image in enumerate(pictures(count)):
        Image.fromarray(image).save(images / f"{k}.png")
        geo = FRAME.geo_pose(Pose(50.0 * (k % 4), 50.0 * (k // 4)))
        rows.append(
            {
                "tile_id": f"t{k}", "region": "town", "image": f"{k}.png", "cell_m": 8.0,
                "lat_deg": geo.lat_deg, "lon_deg": geo.lon_deg, "rotation_deg": 0.0, **columns,
            }
        )  # fmt: skip
    for k, change in changes:
        rows[k] |= change
    regions = [
        {"name": name, "lat_deg": FRAME.lat_deg, "lon_deg": FRAME.lon_deg}
        for name in sorted({"town", *(row["region"] for row in rows)})
    ]
    made = Manifest.from_rows(
        name="Made-up", licence="CC0", attribution="Nobody", image_root="../images",
        regions=regions, tiles=rows,
    )  # fmt: skip
    return made.save(folder)
