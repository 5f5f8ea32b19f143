"""`crossview localize`: a photo, a map and a rough place in; a pose with its uncertainty out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crossview.cli import options

HEIGHT_SIGMA_M, FOCAL_SIGMA = 0.15, 0.02
"""How badly the height of a hand-held camera and the focal length of its file are known."""


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--map",
    "map_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="OpenStreetMap (.osm, .osm.gz, .osm.bz2, .pbf), a map of `crossview-data osm` (.gpkg), "
    "or building footprints.",
)
@click.option(
    "--map-crs",
    help="Coordinate system of footprints whose file does not say, such as EPSG:2154.",
)
@click.option("--map-layer", help="Layer of a footprints file that has several.")
@options.out
@options.looks
@options.matcher
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
@options.camera_sigmas(
    pitch="5, or 1 with --pitch-deg,",
    roll="2, or 0.5 with --roll-deg,",
    height=f"{HEIGHT_SIGMA_M:g}",
    focal=f"{FOCAL_SIGMA:g}",
)
@options.outside
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
    looks: options.Looks,
    matcher: str,
    lat_deg: float | None,
    lon_deg: float | None,
    radius_m: float,
    heading_deg: float | None,
    compass_sigma_deg: float | None,
    focal_px: float | None,
    pitch_deg: float | None,
    roll_deg: float | None,
    height_m: float,
    sigmas: options.CameraSigmas,
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
    from crossview.vectors import VectorMap

    if (lat_deg is None) != (lon_deg is None):
        raise click.UsageError("Give --lat and --lon together, or neither.")
    if panorama and (focal_px is not None or pitch_deg or roll_deg):
        raise click.UsageError(
            "--focal-px, --pitch-deg and --roll-deg describe a perspective photo; a panorama is "
            "levelled by what its file says. Leave them out, or leave out --panorama."
        )
    if panorama:
        sigmas.require_none("a --panorama is level and has no focal length")
    if matcher == "birdseye":
        sigmas.require_none("--matcher birdseye takes the camera as it is stated")
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
    noise = sigmas.noise(
        pitch_sigma_deg=5.0 if pitch_deg is None else 1.0,
        roll_sigma_deg=2.0 if roll_deg is None else 0.5,
        height_sigma_m=HEIGHT_SIGMA_M,
        focal_sigma=FOCAL_SIGMA,
    )
    place = answers.place_of(query, photo.name, lat_deg=lat_deg, lon_deg=lon_deg)
    vector_map = VectorMap.read(map_path, crs=map_crs, layer=map_layer)
    answer = answers.localize_photo(
        query,
        vector_map,
        looks.matcher(matcher, noise=noise),
        place=place,
        radius_m=radius_m,
        heading_deg=heading_deg,
        compass_sigma_deg=compass_sigma_deg,
        outside=outside,
        provenance={"map": map_path.name, "attribution": vector_map.attribution},
    )
    geojson = answer.write(out, name=f"{photo.stem}_localized")
    click.echo(json.dumps(geojson) if as_json else answer.summary())
