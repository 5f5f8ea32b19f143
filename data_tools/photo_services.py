"""Street photos of open services: Mapillary (CC BY-SA) and Panoramax (open licences).

What their answers mean:

- Mapillary Graph API v4. `compass_angle` and `geometry` are the device's, `computed_*` what
  structure from motion made of them; both headings are kept apart, and only a computed one counts
  as true. `computed_rotation` is the rotation vector from (east, north, up) to the camera's axes
  (right, down, forward); it is used where the image was stored upright. `camera_parameters` of a
  perspective camera are [focal, k1, k2] in units of the longer side, as OpenSfM has them. Times are
  milliseconds since 1970. Addresses of images expire after hours: the id is what is kept.
- Panoramax is a STAC API: collections are sequences, items pictures. `view:azimuth` is clockwise
  from north; it is taken as magnetic where the picture's EXIF says so. `field_of_view` is that of
  the whole width, 360 for a panorama. Pitch and roll have no agreed sign there and are left out.

Tokens come from the environment or the file of keys (see fetch.key), go into a header and nowhere
else. No code here opens a socket: fetch.Client does.
"""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crossview import atomic, photos
from crossview.cameras import Pinhole, RadialDistortion, orientation_from_rotation
from crossview.errors import ContentError, DatasetError, PhotoError, RefusedError
from crossview.tiles import GeoBounds
from data_tools.fetch import Client, Response, Secret
from data_tools.ground_images import GroundImage, Skipped

MAPILLARY_URL = "https://graph.mapillary.com"
PANORAMAX_URL = "https://api.panoramax.xyz/api"
MAPILLARY_LICENCE = "CC-BY-SA-4.0"

LIMIT = 2000
"""Images in one answer of Mapillary; a box with more is quartered."""

PAGE = 500
"""Pictures on one page of Panoramax."""

MAX_BOX_DEG = 0.01
"""Mapillary's search takes boxes up to a hundredth of a square degree, and is quicker on less."""

MAX_SQUARE_DEGREES = 0.25
"""Nobody wants the photos of more than about 50 km x 50 km at once."""

_MAPILLARY_FIELDS = (
    "id", "geometry", "computed_geometry", "compass_angle", "computed_compass_angle",
    "computed_rotation", "camera_type", "camera_parameters", "captured_at", "creator",
    "exif_orientation", "sequence", "thumb_2048_url", "thumb_original_url",
)  # fmt: skip

_IDENTIFIER = re.compile("[A-Za-z0-9_-]{1,80}")


class PhotoService(Protocol):
    """Where images come from."""

    def search(self, box: GeoBounds) -> Iterator[GroundImage | Skipped]:
        """Images whose position lies in a box, without their files."""

    def renewed(self, image: GroundImage) -> GroundImage:
        """The same image with a fresh address."""

    def fitted(self, image: GroundImage, width_px: int, height_px: int) -> GroundImage:
        """An image whose camera is that of a file of this size."""


class Mapillary:
    """Images of Mapillary.

    Args:
        client: Fetches.
        token: A client token of one's own (mapillary.com/dashboard/developers).
        url: Of the API.
        original: Fetch the original size instead of 2048 pixels.
    """

    def __init__(
        self, client: Client, token: Secret, *, url: str = MAPILLARY_URL, original: bool = False
    ) -> None:
        self._client = client
        self._token = token
        self._url = url.rstrip("/")
        self._address = "thumb_original_url" if original else "thumb_2048_url"

    def search(self, box: GeoBounds) -> Iterator[GroundImage | Skipped]:
        """Images in a box, each once.

        Raises:
            DatasetError: The box is too large, or the answer is not what is documented.
            RefusedError: The token is not accepted.
        """
        seen: set[str] = set()
        waiting = _pieces(box)
        while waiting:
            piece = waiting.pop()
            entries = self._entries(piece)
            if len(entries) >= LIMIT:
                waiting += _quarters(piece)
                continue
            for entry in entries:
                if str(entry.get("id")) not in seen:
                    seen.add(str(entry.get("id")))
                    yield _read(entry, self._image_from_mapillary)

    def renewed(self, image: GroundImage) -> GroundImage:
        """The same image with a fresh address."""
        number = image.source.partition(":")[2]
        fields = urllib.parse.urlencode({"fields": f"id,{self._address}"})
        entry = self._get(f"{self._url}/{urllib.parse.quote(number, safe='')}?{fields}")
        return replace(image, url=str(entry.get(self._address, "")))

    def fitted(self, image: GroundImage, width_px: int, height_px: int) -> GroundImage:
        """An image whose camera, known in units of the longer side, is in pixels of the file."""
        if image.camera is None:
            return image
        unit_px = max(width_px, height_px) / max(image.camera.width_px, image.camera.height_px)
        lens = image.camera.distortion
        camera = Pinhole.from_focal(width_px, height_px, image.camera.fx * unit_px)
        if lens is not None:
            coefficients = lens.scaled(unit_px).coefficients
            lens = RadialDistortion(camera.cx, camera.cy, coefficients)
            camera = replace(camera, distortion=lens)
        return replace(image, camera=camera)

    def _entries(self, box: GeoBounds) -> list[Mapping[str, Any]]:
        query = {
            "bbox": ",".join(f"{edge:.7f}" for edge in box),
            "fields": ",".join(_MAPILLARY_FIELDS),
            "limit": str(LIMIT),
        }
        answer = self._get(f"{self._url}/images?{urllib.parse.urlencode(query)}")
        if not isinstance(answer.get("data"), list):
            raise DatasetError(f"Mapillary answered without a list of images: {_start(answer)}")
        return answer["data"]

    def _get(self, url: str) -> Mapping[str, Any]:
        headers = {"Authorization": f"OAuth {self._token.reveal()}"}
        answer = _json(self._client.get(url, headers=headers), "Mapillary")
        if "error" in answer:
            message = dict(answer["error"]).get("message", "")
            raise DatasetError(f"Mapillary refuses the question: {message}")
        return answer

    def _image_from_mapillary(self, entry: Mapping[str, Any]) -> GroundImage:
        number = _identifier(entry["id"])
        camera_type = entry.get("camera_type", "perspective")
        is_sphere = camera_type in ("spherical", "equirectangular")
        if not is_sphere and camera_type != "perspective":
            raise ValueError(f"cameras of type {camera_type!r} are not read")
        lon_deg, lat_deg = (entry.get("computed_geometry") or entry["geometry"])["coordinates"][:2]
        username = dict(entry.get("creator") or {}).get("username", "")
        return GroundImage(
            f"mapillary-{number}",
            kind="panorama" if is_sphere else "photo",
            url=str(entry.get(self._address) or entry.get("thumb_2048_url") or ""),
            lat_deg=float(lat_deg),
            lon_deg=float(lon_deg),
            magnetic_heading_deg=_number(entry.get("compass_angle")),
            camera=None if is_sphere else camera_from_mapillary(entry.get("camera_parameters")),
            taken=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=entry["captured_at"]),
            sequence_id=str(entry.get("sequence", "")),
            licence=MAPILLARY_LICENCE,
            attribution=f"© {username}, Mapillary" if username else "© Mapillary",
            source=f"mapillary:{number}",
            **orientation_from_mapillary(entry),  # type: ignore[arg-type]
        )


class Panoramax:
    """Pictures of a Panoramax server.

    Args:
        client: Fetches.
        url: Of the API; by default the catalogue of all public servers.
        original: Fetch the original size (`hd`) instead of about 2048 pixels (`sd`).
    """

    def __init__(self, client: Client, *, url: str = PANORAMAX_URL, original: bool = False) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._asset = "hd" if original else "sd"

    def search(self, box: GeoBounds) -> Iterator[GroundImage | Skipped]:
        """Pictures in a box, page by page, each once.

        Raises:
            DatasetError: The box is too large, or the answer is not what is documented.
        """
        _pieces(box)
        seen: set[str] = set()
        query = {"bbox": ",".join(f"{edge:.7f}" for edge in box), "limit": str(PAGE)}
        url: str | None = f"{self._url}/search?{urllib.parse.urlencode(query)}"
        while url is not None:
            answer = _json(self._client.get(url), "Panoramax")
            if not isinstance(answer.get("features"), list):
                raise DatasetError(f"Panoramax answered without features: {_start(answer)}")
            fresh = [item for item in answer["features"] if str(item.get("id")) not in seen]
            seen.update(str(item.get("id")) for item in fresh)
            for item in fresh:
                yield _read(item, self._image_from_panoramax)
            url = self._next(answer) if fresh else None

    def renewed(self, image: GroundImage) -> GroundImage:
        """The same picture with a fresh address."""
        number = urllib.parse.quote(image.source.partition(":")[2], safe="")
        collection = urllib.parse.quote(image.sequence_id, safe="")
        url = f"{self._url}/collections/{collection}/items/{number}"
        item = _json(self._client.get(url), "Panoramax")
        return replace(image, url=self._image_from_panoramax(item).url)

    def fitted(self, image: GroundImage, width_px: int, height_px: int) -> GroundImage:
        """A picture whose camera, known by its field of view, is in pixels of the file."""
        if image.camera is None:
            return image
        focal_px = image.camera.fx * width_px / image.camera.width_px
        return replace(image, camera=Pinhole.from_focal(width_px, height_px, focal_px))

    def _next(self, answer: Mapping[str, Any]) -> str | None:
        """The next page, if it is on the same server."""
        links = [link for link in answer.get("links", ()) if link.get("rel") == "next"]
        if not links or links[0].get("method", "GET") != "GET":
            return None
        url = urllib.parse.urljoin(f"{self._url}/", str(links[0].get("href", "")))
        if urllib.parse.urlsplit(url)[:2] != urllib.parse.urlsplit(self._url)[:2]:
            raise DatasetError("Panoramax names another server for the next page; not followed.")
        return url

    def _image_from_panoramax(self, item: Mapping[str, Any]) -> GroundImage:
        properties, number = item["properties"], _identifier(item["id"])
        field_of_view_deg = _number(
            dict(properties.get("pers:interior_orientation") or {}).get("field_of_view")
        )
        is_sphere = field_of_view_deg == 360
        camera = None
        if not is_sphere:
            if field_of_view_deg is None or not 0 < field_of_view_deg < 180:
                raise ValueError(f"its field of view is {field_of_view_deg}")
            # one unit wide; fitted() turns it into pixels
            focal = 0.5 / math.tan(math.radians(field_of_view_deg) / 2)
            camera = Pinhole.from_focal(1, 1, focal)
        heading_deg = _number(properties.get("view:azimuth"))
        reference = dict(properties.get("exif") or {}).get("Exif.GPSInfo.GPSImgDirectionRef", "T")
        is_magnetic = str(reference).upper().startswith("M")
        producers = [
            str(provider.get("name"))
            for provider in item.get("providers", ())
            if "producer" in provider.get("roles", ())
        ]
        lon_deg, lat_deg = item["geometry"]["coordinates"][:2]
        assets = item["assets"]
        return GroundImage(
            f"panoramax-{number}",
            kind="panorama" if is_sphere else "photo",
            url=str((assets.get(self._asset) or assets["hd"])["href"]),
            lat_deg=float(lat_deg),
            lon_deg=float(lon_deg),
            accuracy_m=_number(properties.get("quality:horizontal_accuracy")) or None,
            heading_deg=None if is_magnetic else heading_deg,
            magnetic_heading_deg=heading_deg if is_magnetic else None,
            camera=camera,
            taken=datetime.fromisoformat(properties["datetime"]),
            sequence_id=str(item.get("collection", "")),
            licence=str(properties.get("license", "")),
            attribution=", ".join([*producers, "Panoramax"]),
            source=f"panoramax:{number}",
        )


def camera_from_mapillary(parameters: Any) -> Pinhole:
    """A camera of one pixel's size out of [focal, k1, k2] in units of the longer side.

    Raises:
        ValueError: There are no parameters, or the lens folds the image.
    """
    if not parameters or len(parameters) < 3 or not float(parameters[0]) > 0:
        raise ValueError(f"its camera_parameters are {parameters!r}")
    focal, k1, k2 = (float(value) for value in parameters[:3])
    # OpenSfM's radius is in focal lengths
    lens = RadialDistortion(0.5, 0.5, (k1 / focal**2, k2 / focal**4)) if k1 or k2 else None
    if lens is not None and lens.max_ideal_radius_px < 0.5:
        raise ValueError(f"its lens {parameters!r} folds the image")
    return replace(Pinhole.from_focal(1, 1, focal), distortion=lens)


def orientation_from_mapillary(entry: Mapping[str, Any]) -> dict[str, float]:
    """Heading from true north, pitch and roll of an image, as far as they were computed.

    The rotation counts for the image that Mapillary worked on, which is sure to be the stored one
    only where that was upright; else the computed compass alone is used.
    """
    vector = entry.get("computed_rotation")
    heading_deg = _number(entry.get("computed_compass_angle"))
    if vector and len(vector) == 3 and entry.get("exif_orientation", 1) == 1:
        from scipy.spatial.transform import Rotation

        camera_from_map = Rotation.from_rotvec(np.array(vector, dtype=float)).as_matrix()
        orientation = orientation_from_rotation(camera_from_map.T)
        return {
            "heading_deg": orientation.heading_deg,
            "pitch_deg": orientation.pitch_deg,
            "roll_deg": orientation.roll_deg,
        }
    return {} if heading_deg is None else {"heading_deg": heading_deg}


def fetch_images(
    service: PhotoService,
    client: Client,
    box: GeoBounds,
    folder: Path,
    *,
    max_images: int | None = None,
    panoramas_only: bool = False,
) -> Iterator[GroundImage | Skipped]:
    """Search a box and fetch its images into a folder; those that are there are not asked for.

    Args:
        service: Whose images.
        client: Fetches, as many at once as it has connections.
        box: The place.
        folder: Made where it is not there. Started again, the work goes on where it ended.
        max_images: Not more than so many.
        panoramas_only: Leave photos out.

    Yields:
        Images with their files, in the order of sequences and times, and what was skipped.
    """
    found = list(service.search(box))
    images = [
        one
        for one in found
        if isinstance(one, GroundImage) and (one.kind == "panorama" or not panoramas_only)
    ]
    images = _in_sequences(images)[:max_images]
    yield from (one for one in found if isinstance(one, Skipped))
    folder.mkdir(parents=True, exist_ok=True)

    def fetched(image: GroundImage) -> GroundImage | Skipped:
        try:
            return download(service, client, image, folder)
        except (ContentError, PhotoError, RefusedError) as error:
            return Skipped(image.image_id, str(error))

    with ThreadPoolExecutor(client.num_connections) as pool:
        yield from pool.map(fetched, images)


def _in_sequences(images: list[GroundImage]) -> list[GroundImage]:
    """Images by sequence and time, with their place in the sequence."""
    earliest = datetime.min.replace(tzinfo=UTC)
    images = sorted(images, key=lambda i: (i.sequence_id, i.taken or earliest, i.image_id))
    place: Counter[str] = Counter()
    ordered = []
    for image in images:
        ordered.append(replace(image, order=place[image.sequence_id]))
        place[image.sequence_id] += 1
    return ordered


def download(
    service: PhotoService, client: Client, image: GroundImage, folder: Path
) -> GroundImage:
    """Fetch one image into a folder, unless it is there; whole, decoded and with its camera.

    Args:
        service: Knows a fresh address where the old one has expired.
        client: Fetches.
        image: As found by search.
        folder: Exists.

    Raises:
        DownloadError: It cannot be had; the server being down ends everything, but what is there
            stays.
        PhotoError: What is there is no image.
    """
    path = folder / f"{image.image_id}.jpg"
    if not path.is_file():
        try:
            body = _picture(client, image.url)
        except RefusedError:
            # an address that has expired, which only the service can renew
            body = _picture(client, service.renewed(image).url)
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(body)
            photos.decoded_size(temporary)
    return service.fitted(replace(image, path=path), *photos.decoded_size(path))


def _picture(client: Client, url: str) -> bytes:
    if not url:
        raise ContentError("There is no address for the image.")
    response = client.get(url, check=_require_jpeg)
    if response.status != 200:
        raise ContentError(f"The image is gone (status {response.status}).")
    return response.body


def _require_jpeg(response: Response) -> None:
    if response.status == 200 and not response.body.startswith(b"\xff\xd8\xff"):
        raise ContentError(f"Expected a JPEG, got {response.content_type or 'something else'}.")


def _read(
    entry: Mapping[str, Any], make: Callable[[Mapping[str, Any]], GroundImage]
) -> GroundImage | Skipped:
    """An image of an answer; one that says too little is skipped, not guessed."""
    try:
        return make(entry)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        return Skipped(str(entry.get("id", "?")), f"its record cannot be used: {error}")


def _json(response: Response, name: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(response.body)
    except ValueError as error:
        kind = response.content_type or "nothing"
        raise DatasetError(f"{name} answered with {kind} that is not JSON ({error}).") from error
    if not isinstance(answer, dict):
        raise DatasetError(f"{name} answered with {type(answer).__name__}, not an object.")
    if response.status >= 400 and "error" not in answer:
        raise DatasetError(f"{name} answered with status {response.status}: {_start(answer)}")
    return answer


def _pieces(box: GeoBounds) -> list[GeoBounds]:
    """A box in parts of at most MAX_BOX_DEG."""
    width_deg, height_deg = box.east - box.west, box.north - box.south
    if not (-180 <= box.west < box.east <= 180 and -90 <= box.south < box.north <= 90):
        raise DatasetError(
            f"A box is west, south, east, north in degrees, with west below east and south below "
            f"north; got {tuple(box)}."
        )
    if width_deg * height_deg > MAX_SQUARE_DEGREES:
        raise DatasetError(
            f"The box has {width_deg * height_deg:.2f} square degrees; at most "
            f"{MAX_SQUARE_DEGREES} are searched at once. Take a smaller place."
        )
    num_columns, num_rows = (math.ceil(side / MAX_BOX_DEG) for side in (width_deg, height_deg))
    west_deg = np.linspace(box.west, box.east, num_columns + 1).tolist()
    south_deg = np.linspace(box.south, box.north, num_rows + 1).tolist()
    return [
        GeoBounds(west_deg[c], south_deg[r], west_deg[c + 1], south_deg[r + 1])
        for r in range(num_rows)
        for c in range(num_columns)
    ]


def _quarters(box: GeoBounds) -> list[GeoBounds]:
    middle_lon, middle_lat = (box.west + box.east) / 2, (box.south + box.north) / 2
    if box.east - box.west < 1e-6:
        raise DatasetError(f"{LIMIT} images or more at one place, {tuple(box)}.")
    return [
        GeoBounds(west, south, east, north)
        for west, east in ((box.west, middle_lon), (middle_lon, box.east))
        for south, north in ((box.south, middle_lat), (middle_lat, box.north))
    ]


def _identifier(value: Any) -> str:
    """An id that may become a file's name."""
    text = str(value)
    if _IDENTIFIER.fullmatch(text) is None:
        raise ValueError(f"its id is {text!r}")
    return text


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _start(answer: Mapping[str, Any]) -> str:
    return json.dumps(answer)[:200]
