"""`crossview localize`: a photo, a map and a rough place in; a pose with its uncertainty out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crossview.cli import options


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--map",
    "map_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="OpenStreetMap extract (.osm, .osm.gz, .osm.bz2, .pbf) or building footprints.",
)
@click.option(
    "--map-crs",
    help="Coordinate system of footprints whose file does not say, such as EPSG:2154.",
)
@click.option("--map-layer", help="Layer of a footprints file that has several.")
@options.out
@options.weights
@options.class_image
@options.matcher
@options.model
@click.option("--lat", "lat_deg", type=click.FloatRange(-90, 90), help="Centre of the search.")
@click.option("--lon", "lon_deg", type=click.FloatRange(-180, 180), help="Centre of the search.")
@click.option(
    "--radius-m",
    type=click.FloatRange(min=0, min_open=True),
    default=50.0,
    show_default=True,
    help="Radius of the search around --lat --lon, or around the photo's own position.",
)
@click.option(
    "--heading-deg",
    type=float,
    help="What a compass says, clockwise from true north (standard deviation 15 degrees unless "
    "--compass-sigma-deg says another).",
)
@options.compass_sigma_deg
@click.option(
    "--focal-px",
    type=click.FloatRange(min=0, min_open=True),
    help="Focal length in pixels of the full-size photo, where its EXIF does not say.",
)
@click.option("--pitch-deg", type=float, help="Up is positive; level where it is not given.")
@click.option("--roll-deg", type=float, help="Right side down is positive; level if not given.")
@click.option(
    "--height-m",
    type=click.FloatRange(min=0, min_open=True),
    default=1.6,
    show_default=True,
    help="Of the camera above the street.",
)
@click.option(
    "--pitch-sigma-deg",
    type=click.FloatRange(min=0),
    help="Standard deviation of the pitch: 1 where --pitch-deg is given, else 5.",
)
@click.option(
    "--roll-sigma-deg",
    type=click.FloatRange(min=0),
    help="Standard deviation of the roll: 0.5 where --roll-deg is given, else 2.",
)
@click.option(
    "--height-sigma-m",
    type=click.FloatRange(min=0),
    default=0.15,
    show_default=True,
    help="Standard deviation of the camera's height.",
)
@click.option(
    "--focal-sigma",
    type=click.FloatRange(min=0, max=0.5),
    default=0.02,
    show_default=True,
    help="Standard deviation of the focal length, as a share of it.",
)
@click.option(
    "--outside",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability that the camera is farther away than --radius-m says.",
)
@click.option("--panorama", is_flag=True, help="The photo is a 360 degree panorama.")
@click.option("--ignore-gps", is_flag=True, help="Do not use the photo's own position.")
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    default=200.0,
    show_default=True,
    help="Refuse larger images.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the GeoJSON instead of a summary.")
def command(
    photo: Path,
    map_path: Path,
    map_crs: str | None,
    map_layer: str | None,
    out: Path,
    weights: Path | None,
    class_image: bool,
    matcher: str,
    model: str | None,
    lat_deg: float | None,
    lon_deg: float | None,
    radius_m: float,
    heading_deg: float | None,
    compass_sigma_deg: float | None,
    focal_px: float | None,
    pitch_deg: float | None,
    roll_deg: float | None,
    height_m: float,
    pitch_sigma_deg: float | None,
    roll_sigma_deg: float | None,
    height_sigma_m: float,
    focal_sigma: float,
    outside: float,
    panorama: bool,
    ignore_gps: bool,
    max_megapixels: float,
    as_json: bool,
) -> None:
    """Where was PHOTO taken, and which way did it look?

    Writes OUT/NAME_localized.geojson (best pose, other modes, credible regions), .tif (probability
    of every cell) and .png (heat map), and prints the answer.
    """
    from crossview import answers, photos
    from crossview.camera_noise import CameraNoise
    from crossview.vectors import VectorMap

    if (lat_deg is None) != (lon_deg is None):
        raise click.UsageError("Give --lat and --lon together, or neither.")
    if panorama and (focal_px is not None or pitch_deg or roll_deg):
        raise click.UsageError(
            "--focal-px, --pitch-deg and --roll-deg describe a perspective photo; a panorama is "
            "levelled by what its file says. Leave them out, or leave out --panorama."
        )
    max_pixels = round(max_megapixels * 1e6)
    query: photos.Photo | photos.Panorama
    if panorama:
        query = photos.read_panorama(
            photo,
            heading_deg=heading_deg,
            height_m=height_m,
            ignore_gps=ignore_gps,
            max_side_px=answers.MAX_SIDE_PX,
            max_pixels=max_pixels,
        )
    else:
        query = photos.read_photo(
            photo,
            focal_px=focal_px,
            roll_deg=roll_deg or 0.0,
            pitch_deg=pitch_deg or 0.0,
            height_m=height_m,
            ignore_gps=ignore_gps,
            max_side_px=answers.MAX_SIDE_PX,
            max_pixels=max_pixels,
        )
    noise = CameraNoise(
        pitch_sigma_deg=_stated(pitch_sigma_deg, pitch_deg, known=1.0, unknown=5.0),
        roll_sigma_deg=_stated(roll_sigma_deg, roll_deg, known=0.5, unknown=2.0),
        height_sigma_m=height_sigma_m,
        focal_sigma=focal_sigma,
    )
    place = answers.place_of(query, photo.name, lat_deg=lat_deg, lon_deg=lon_deg)
    vector_map = VectorMap.read(map_path, crs=map_crs, layer=map_layer)
    answer = answers.localize_photo(
        query,
        vector_map,
        options.matcher_of(matcher, weights, class_image=class_image, model=model, noise=noise),
        place=place,
        radius_m=radius_m,
        heading_deg=heading_deg,
        compass_sigma_deg=compass_sigma_deg,
        outside=outside,
        provenance={"map": map_path.name, "attribution": vector_map.attribution},
    )
    geojson = answer.write(out, name=f"{photo.stem}_localized")
    click.echo(json.dumps(geojson) if as_json else answer.summary())


def _stated(
    sigma_deg: float | None, angle_deg: float | None, *, known: float, unknown: float
) -> float:
    """The standard deviation that was given, or the usual one of an angle that was or was not."""
    if sigma_deg is not None:
        return sigma_deg
    return unknown if angle_deg is None else known
